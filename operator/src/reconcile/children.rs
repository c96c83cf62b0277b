//! The table of children: one row for each kind of object that the operator makes for a ModelDeployment.
//!
//! Everything about a kind but its contents follows from its row: building, reading, applying, pruning and watching it,
//! and the operator's rights in the chart (a test compares them). A new child is a file in `build/` and a row here.
//! No IO: `fetch`, `apply` and the controller walk the rows.

use std::marker::PhantomData;

use futures::join;
use k8s_openapi::{
    NamespaceResourceScope, Resource,
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        core::v1::{ConfigMap, PersistentVolumeClaim, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
    },
};
use kube::api::ApiResource;
use serde::{Serialize, de::DeserializeOwned};

use super::{build, plan::Plan};
use crate::names::Names;

/// What the steps need to know about one kind of child.
#[derive(Clone, Copy, Debug)]
pub struct Child {
    /// Kind, as in `Service`.
    pub kind: &'static str,
    /// Whether every ModelDeployment has one.
    pub presence: Presence,
    resource: fn() -> ApiResource,
    name: fn(&Names) -> &String,
}

/// Whether every ModelDeployment has a child of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Every one has it.
    Always,
    /// The spec decides. If the spec stops requesting the child, the operator deletes it.
    Optional,
    /// The spec decides. The child holds data, so the operator never deletes it.
    Kept,
    /// Every one has one for each pod template that is still used. Its name ends with a hash of its content.
    Versioned,
}

impl Child {
    /// Group, version and plural name, for clients that read any kind.
    pub fn resource(&self) -> ApiResource {
        (self.resource)()
    }

    /// Name of the child among the names of its ModelDeployment's children; of a versioned one, the part before the
    /// hash.
    pub fn name<'a>(&self, names: &'a Names) -> &'a str {
        (self.name)(names)
    }
}

/// One row for each kind, for what concerns all children of a kind.
pub fn kinds() -> impl Iterator<Item = &'static Child> {
    let is_first =
        |(idx, child): &(usize, &Child)| CHILDREN[..*idx].iter().all(|other| other.kind != child.kind);
    CHILDREN
        .iter()
        .enumerate()
        .filter(is_first)
        .map(|(_, child)| child)
}

/// A type of Kubernetes' API that a row can have.
pub trait Kind:
    kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Resource
    + Clone
    + std::fmt::Debug
    + Serialize
    + DeserializeOwned
{
}
impl<K> Kind for K where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Resource
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned
{
}

/// Writes one child of any kind.
pub(super) trait Writer {
    /// Why a write failed.
    type Error;

    /// Writes `child` and returns it as the API server stored it.
    async fn write<K: Kind>(&self, child: K) -> Result<K, Self::Error>;

    /// Like [`Writer::write`], for a child that the plan may not have.
    async fn write_optional<K: Kind>(&self, child: Option<K>) -> Result<Option<K>, Self::Error> {
        match child {
            Some(child) => self.write(child).await.map(Some),
            None => Ok(None),
        }
    }
}

/// Objects that were built and not applied yet.
#[derive(Debug)]
pub enum Built {}
/// Objects as the API server stored them.
#[derive(Debug)]
pub enum Applied {}

/// The field of a child that always exists.
type Always<K> = K;
/// The field of a child that may not exist.
type Optional<K> = Option<K>;
/// The field of a child with data that may not exist.
type Kept<K> = Option<K>;
/// The field of a child that exists for each pod template.
type Versioned<K> = K;

/// Makes [`CHILDREN`] and [`Resources`] out of the rows.
macro_rules! children {
    ($([$($(#[$doc:meta])* $field:ident: $presence:ident $kind:ident, named $name:ident;)+])+) => {
        /// Every row, in the order of the table.
        pub const CHILDREN: &[Child] = &[$($(Child {
            kind: <$kind as Resource>::KIND,
            presence: Presence::$presence,
            resource: || ApiResource::erase::<$kind>(&()),
            name: |names| &names.$name,
        },)+)+];

        /// The children of one ModelDeployment, built or applied.
        #[derive(Clone, Debug)]
        pub struct Resources<Phase> {
            $($($(#[$doc])* pub $field: $presence<$kind>,)+)+
            /// Whether the objects are built or applied.
            pub phase: PhantomData<Phase>,
        }

        impl Resources<Built> {
            /// Builds every child of the plan.
            pub fn build(plan: &Plan) -> Self {
                Self {
                    $($($field: build::$field::build(plan),)+)+
                    phase: PhantomData,
                }
            }

            /// Writes every child, group after group. A group is complete before its first error counts, so that what is
            /// written does not depend on time; the groups after it are not written.
            pub(super) async fn write<W: Writer>(self, writer: &W) -> Result<Resources<Applied>, W::Error> {
                $(
                    let ($($field,)+) = join!($(write_child!($presence, writer, self.$field)),+);
                    $(let $field = $field?;)+
                )+
                Ok(Resources { $($($field,)+)+ phase: PhantomData })
            }
        }

        impl<Phase> Resources<Phase> {
            /// The rows of the children that the plan does not have and that the operator may delete.
            pub fn absent(&self) -> impl Iterator<Item = &'static Child> {
                let is_absent = [$($(is_absent!($presence, self.$field)),+),+];
                CHILDREN.iter().zip(is_absent).filter_map(|(child, is_absent)| is_absent.then_some(child))
            }
        }
    };
}

// The futures of all kinds together would fill much of a thread's stack.
macro_rules! write_child {
    (Optional, $writer:ident, $child:expr) => {
        Box::pin($writer.write_optional($child))
    };
    (Kept, $writer:ident, $child:expr) => {
        Box::pin($writer.write_optional($child))
    };
    ($always:ident, $writer:ident, $child:expr) => {
        Box::pin($writer.write($child))
    };
}

macro_rules! is_absent {
    (Optional, $child:expr) => {
        $child.is_none()
    };
    ($kept:ident, $child:expr) => {
        false
    };
}

children! {
    // The rows of one group are applied at the same time, the groups one after the other.
    [
        /// Identity of the pods, without a token.
        service_account: Always ServiceAccount, named main;
        /// The runtime's configuration file.
        config_map: Versioned ConfigMap, named config_map;
        /// The commit of the model's revision, for pods that start later.
        commit: Optional ConfigMap, named commit;
        /// The claim of a cache that the ModelDeployment owns.
        claim: Kept PersistentVolumeClaim, named claim;
        /// Which connections to and from the pods are allowed.
        network_policy: Optional NetworkPolicy, named main;
        /// The stable address of the replicas.
        service: Always Service, named main;
    ]
    // Its pods use the others.
    [
        /// The pods.
        deployment: Always Deployment, named main;
    ]
    [
        /// Which connections from the pods of the check are allowed.
        check_network_policy: Optional NetworkPolicy, named check;
    ]
    [
        /// The Job that checks a new spec for which there is no room beside the old pods.
        check: Optional Job, named check;
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rules of the chart's ClusterRole that the rows require. Server-side apply of a new object needs `create`
    /// besides `patch`.
    fn rules() -> String {
        let rule = |child: &Child| {
            let ApiResource { group, plural, .. } = child.resource();
            let group = if group.is_empty() { "\"\"".into() } else { group };
            let is_deleted = |other: &Child| {
                other.kind == child.kind && matches!(other.presence, Presence::Optional | Presence::Versioned)
            };
            let verbs = match CHILDREN.iter().any(is_deleted) {
                false => "get, list, watch, create, patch",
                true => "get, list, watch, create, patch, delete",
            };
            format!("  - apiGroups: [{group}]\n    resources: [{plural}]\n    verbs: [{verbs}]\n")
        };
        kinds().map(rule).collect()
    }

    #[test]
    fn the_chart_grants_what_the_table_needs_and_no_more() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../charts/slipway/templates/rbac.yaml"
        );
        let chart = std::fs::read_to_string(path).unwrap();
        let rules = rules();
        assert!(
            chart.contains(&rules),
            "{path} must contain these rules:\n{rules}"
        );
        for child in CHILDREN {
            let resources = format!("resources: [{}]", child.resource().plural);
            assert_eq!(chart.matches(&resources).count(), 1, "one rule has {resources}");
        }
    }

    #[test]
    fn children_of_one_kind_have_distinct_names() {
        let names = Names::of("chat");
        let of_child = |child: &'static Child| (child.kind, child.name(&names));
        let distinct: std::collections::BTreeSet<(&str, &str)> = CHILDREN.iter().map(of_child).collect();
        assert_eq!(distinct.len(), CHILDREN.len());
        assert_eq!(CHILDREN[1].name(&names), "chat-config");
    }
}
