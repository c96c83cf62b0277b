//! What exists: the state of the cluster that a reconcile decides on. `fetch` reads it.
//!
//! Pure. Knows who owns an object with a child's name; no client.

use std::{collections::BTreeMap, sync::Arc};

use crds::{ModelDeployment, startup::StartupStatus};
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource, ResourceExt, api::DynamicObject, core::DeserializeGuard};
use serde::de::DeserializeOwned;

use crate::{
    autoscaler::Autoscaled,
    names::{FIELD_MANAGER, MANAGED_BY_LABEL, OWNER_LABEL},
};

/// A ModelDeployment that may be unreadable, so that one bad object does not stop the watch of the others.
pub type Guarded = DeserializeGuard<ModelDeployment>;

/// Everything that a reconcile decides on, besides the ModelDeployment itself.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The objects that have the children's names.
    pub live: LiveChildren,
    /// Every pod of the ModelDeployment, of any generation.
    pub pods: Vec<Pod>,
    /// Names of pods that have the label of the ModelDeployment and were not made for it.
    pub strays: Vec<String>,
    /// The pods of the Job that checks the new spec.
    pub check_pods: Vec<Pod>,
    /// The claim that the spec names, if it names one and the claim exists.
    pub named_claim: Option<PersistentVolumeClaim>,
    /// How far starting pods have come, by pod name.
    pub startups: BTreeMap<String, StartupStatus>,
    /// Whether the Service routes to a ready pod.
    pub service: ServiceAnswer,
    /// The autoscaler's newest decision, if the spec requests autoscaling.
    pub autoscaled: Option<Autoscaled>,
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

/// The objects that have the children's names, whoever owns them.
#[derive(Clone, Debug, Default)]
pub struct LiveChildren {
    by_kind_and_name: BTreeMap<(&'static str, String), Arc<DynamicObject>>,
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

impl FromIterator<(&'static str, Arc<DynamicObject>)> for LiveChildren {
    fn from_iter<T: IntoIterator<Item = (&'static str, Arc<DynamicObject>)>>(found: T) -> Self {
        let named = |(kind, live): (&'static str, Arc<DynamicObject>)| ((kind, live.name_any()), live);
        Self {
            by_kind_and_name: found.into_iter().map(named).collect(),
        }
    }
}

impl LiveChildren {
    /// The first object with this ownership, as `Kind name`.
    pub fn first(&self, object: &ModelDeployment, wanted: Ownership) -> Option<String> {
        let mut live = self.by_kind_and_name.iter();
        let ((kind, name), _) = live.find(|(_, live)| ownership(&live.metadata, object) == wanted)?;
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
        let live = &self.by_kind_and_name.get(&(kind, name.to_string()))?.metadata;
        let is_ours = matches!(ownership(live, object), Ownership::Owned | Ownership::Retained);
        (is_ours && live.deletion_timestamp.is_none()).then_some(live)
    }

    /// The objects of this kind that `object` owns and that are not being deleted.
    pub fn all_owned(&self, object: &ModelDeployment, kind: &str) -> impl Iterator<Item = &ObjectMeta> {
        let of_kind = self.by_kind_and_name.iter();
        of_kind
            .filter(move |((other, _), _)| *other == kind)
            .map(|(_, live)| &live.metadata)
            .filter(|live| ownership(live, object) == Ownership::Owned && live.deletion_timestamp.is_none())
    }

    /// The object of this type and name, whoever owns it; `None` also if it does not have the form of the type.
    pub fn typed<K: k8s_openapi::Resource + DeserializeOwned>(&self, name: &str) -> Option<K> {
        let live = self.by_kind_and_name.get(&(K::KIND, name.to_string()))?;
        serde_json::from_value(serde_json::to_value(live.as_ref()).ok()?).ok()
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
