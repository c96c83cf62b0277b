//! Builds the children of a [`Plan`], one file for each kind. Pure: equal plans build equal bytes.
//!
//! Must not know the cluster, the old objects or why a reconcile runs. `children` is the table of these files; here is
//! what their objects have in common.

pub(super) mod check;
pub(super) mod check_network_policy;
pub(super) mod claim;
pub(super) mod commit;
pub(super) mod config_map;
mod containers;
pub(super) mod deployment;
pub(super) mod network_policy;
mod pod;
pub(super) mod service;
pub(super) mod service_account;

use std::collections::BTreeMap;

use kube::api::ObjectMeta;

use super::plan::Plan;
use crate::names::{
    COMPONENT_LABEL, FIELD_MANAGER, INSTANCE_LABEL, MANAGED_BY_LABEL, NAME_LABEL, OWNER_LABEL, PART_OF_LABEL,
};

/// Characters of a hash in a name, label or annotation.
const HASH_CHARS: usize = 16;

fn selector_labels(plan: &Plan) -> BTreeMap<String, String> {
    BTreeMap::from([(OWNER_LABEL.to_string(), plan.name.clone())])
}

fn labels(plan: &Plan) -> BTreeMap<String, String> {
    let mut labels = selector_labels(plan);
    for (key, value) in [
        (NAME_LABEL, "slipway-runtime"),
        (INSTANCE_LABEL, plan.name.as_str()),
        (COMPONENT_LABEL, "runtime"),
        (PART_OF_LABEL, "slipway"),
        (MANAGED_BY_LABEL, FIELD_MANAGER),
    ] {
        labels.insert(key.to_string(), value.to_string());
    }
    labels
}

fn metadata(plan: &Plan, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(plan.namespace.clone()),
        labels: Some(labels(plan)),
        owner_references: Some(vec![plan.owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..HASH_CHARS].to_string()
}

#[cfg(test)]
mod tests;
