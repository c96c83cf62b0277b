//! Finds the configuration files that no pod template uses any more.
//!
//! A ConfigMap with a configuration file is used while a pod or a ReplicaSet has its hash. A ReplicaSet without pods is
//! an old template that a user can go back to. Reads ReplicaSets only if there may be something to delete.

use std::collections::BTreeSet;

use crds::ModelDeployment;
use k8s_openapi::api::{apps::v1::ReplicaSet, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, ObjectMeta},
};

use super::observed::Observed;
use crate::names::{CONFIG_HASH, pod_selector};

/// Most configuration files without a pod that are kept without a look at the ReplicaSets.
const UNUSED_KEPT_MAX: usize = 3;

/// The ConfigMaps with configuration files that neither a pod nor a ReplicaSet uses; `current` is the newest one.
///
/// # Errors
/// When the ReplicaSets cannot be read.
pub async fn unused<'a>(
    client: &Client,
    object: &ModelDeployment,
    observed: &'a Observed,
    current: &str,
) -> kube::Result<Vec<&'a ObjectMeta>> {
    let without_pods = without_pods(object, observed, current);
    if without_pods.len() <= UNUSED_KEPT_MAX {
        return Ok(Vec::new());
    }
    let api: Api<ReplicaSet> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let ours = ListParams::default().labels(&pod_selector(&object.name_any()));
    let replica_sets = api.list_metadata(&ours).await?.items;
    let used: BTreeSet<&str> = replica_sets
        .iter()
        .filter_map(|set| config_hash(&set.metadata))
        .collect();
    let is_unused = |live: &&ObjectMeta| !config_hash(live).is_some_and(|hash| used.contains(hash));
    Ok(without_pods.into_iter().filter(is_unused).collect())
}

fn without_pods<'a>(object: &ModelDeployment, observed: &'a Observed, current: &str) -> Vec<&'a ObjectMeta> {
    let hash_of_pod = |pod: &'a Pod| config_hash(&pod.metadata);
    let used: BTreeSet<&str> = observed.pods.iter().filter_map(hash_of_pod).collect();
    let versions = observed.live.all_owned(object, "ConfigMap");
    versions
        .filter(|live| live.name.as_deref() != Some(current))
        .filter(|live| config_hash(live).is_some_and(|hash| !used.contains(hash)))
        .collect()
}

fn config_hash(metadata: &ObjectMeta) -> Option<&str> {
    Some(metadata.labels.as_ref()?.get(CONFIG_HASH)?.as_str())
}
