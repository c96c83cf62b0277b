//! What exists: the state of the cluster that a reconcile decides on. `fetch` reads it.
//!
//! Pure. Knows who owns an object with a child's name; no client.

use std::collections::BTreeMap;

use crds::{ModelDeployment, startup::StartupStatus};
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource, ResourceExt};

use crate::names::{FIELD_MANAGER, MANAGED_BY_LABEL, OWNER_LABEL};

/// Everything that a reconcile decides on, besides the ModelDeployment itself.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The objects that have the children's names.
    pub live: LiveChildren,
    /// Every pod of the ModelDeployment, of any generation.
    pub pods: Vec<Pod>,
    /// The claim that the spec names, if it names one and the claim exists.
    pub named_claim: Option<PersistentVolumeClaim>,
    /// How far starting pods have come, by pod name.
    pub startups: BTreeMap<String, StartupStatus>,
    /// Whether the Service routes to a ready pod.
    pub service: ServiceAnswer,
}

/// The result of a request through the Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceAnswer {
    /// No request was sent: one was answered before, no pod is ready, or the operator runs outside the cluster.
    #[default]
    NotRequested,
    /// A ready pod answered.
    Answered,
    /// There was no answer in time.
    NoAnswer,
}

/// Metadata of the objects that have the children's names, whoever owns them.
#[derive(Clone, Debug, Default)]
pub struct LiveChildren {
    by_kind_and_name: BTreeMap<(&'static str, String), ObjectMeta>,
}

/// Who owns an object that has a child's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This ModelDeployment.
    Owned,
    /// Nobody: the operator made it for a ModelDeployment of this name, which left it on purpose.
    Retained,
    /// An earlier ModelDeployment of this name; the garbage collector will delete the object.
    Leaving,
    /// Somebody else.
    Foreign,
}

impl FromIterator<(&'static str, ObjectMeta)> for LiveChildren {
    fn from_iter<T: IntoIterator<Item = (&'static str, ObjectMeta)>>(found: T) -> Self {
        let named =
            |(kind, live): (&'static str, ObjectMeta)| ((kind, live.name.clone().unwrap_or_default()), live);
        Self {
            by_kind_and_name: found.into_iter().map(named).collect(),
        }
    }
}

impl LiveChildren {
    /// The first object with this ownership, as `Kind name`.
    pub fn first(&self, object: &ModelDeployment, wanted: Ownership) -> Option<String> {
        let mut live = self.by_kind_and_name.iter();
        let ((kind, name), _) = live.find(|(_, live)| ownership(live, object) == wanted)?;
        Some(format!("{kind} {name}"))
    }

    /// The object of this kind and name, if `object` owns it and it is not being deleted.
    pub fn owned(&self, object: &ModelDeployment, kind: &'static str, name: &str) -> Option<&ObjectMeta> {
        self.ours(object, kind, name)
            .filter(|live| ownership(live, object) == Ownership::Owned)
    }

    /// The object of this kind and name, if it was made for this ModelDeployment or one of its name that left it, and
    /// it is not being deleted.
    pub fn ours(&self, object: &ModelDeployment, kind: &'static str, name: &str) -> Option<&ObjectMeta> {
        self.by_kind_and_name
            .get(&(kind, name.to_string()))
            .filter(|live| matches!(ownership(live, object), Ownership::Owned | Ownership::Retained))
            .filter(|live| live.deletion_timestamp.is_none())
    }

    /// The objects of this kind that `object` owns and that are not being deleted.
    pub fn all_owned(&self, object: &ModelDeployment, kind: &str) -> impl Iterator<Item = &ObjectMeta> {
        let of_kind = self
            .by_kind_and_name
            .iter()
            .filter(move |((other, _), _)| *other == kind);
        of_kind
            .map(|(_, live)| live)
            .filter(|live| ownership(live, object) == Ownership::Owned && live.deletion_timestamp.is_none())
    }
}

fn ownership(live: &ObjectMeta, object: &ModelDeployment) -> Ownership {
    let mut owners = live.owner_references.iter().flatten();
    let controller = owners.find(|owner| owner.controller == Some(true));
    let label = |name: &str| {
        live.labels
            .as_ref()
            .and_then(|labels| labels.get(name))
            .map(String::as_str)
    };
    let is_made_here =
        label(OWNER_LABEL) == Some(&object.name_any()) && label(MANAGED_BY_LABEL) == Some(FIELD_MANAGER);
    match controller {
        Some(owner) if Some(&owner.uid) == object.metadata.uid.as_ref() => Ownership::Owned,
        Some(owner) if owner.kind == ModelDeployment::kind(&()) && owner.name == object.name_any() => {
            Ownership::Leaving
        }
        None if is_made_here => Ownership::Retained,
        Some(_) | None => Ownership::Foreign,
    }
}

impl Observed {
    /// Whether several nodes can mount the claim that the spec names.
    pub fn named_claim_is_shared(&self) -> bool {
        let spec = self.named_claim.as_ref().and_then(|claim| claim.spec.as_ref());
        spec.into_iter()
            .flat_map(|spec| spec.access_modes.iter().flatten())
            .any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany")
    }
}

#[cfg(test)]
mod tests;
