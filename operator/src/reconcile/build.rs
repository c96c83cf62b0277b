//! Builds the children of a [`Plan`], one file for each kind. Pure: equal plans build equal bytes.
//!
//! Must not know the cluster, the old objects or why a reconcile runs. `children` is the table of these files; here is
//! what their objects have in common.

pub(super) mod check;
pub(super) mod claim;
pub(super) mod config_map;
pub(super) mod deployment;
pub(super) mod network_policy;
pub(super) mod service;
pub(super) mod service_account;

use std::collections::BTreeMap;

use kube::api::ObjectMeta;

use super::plan::Plan;
use crate::names::{FIELD_MANAGER, OWNER_LABEL};

fn selector_labels(plan: &Plan) -> BTreeMap<String, String> {
    BTreeMap::from([(OWNER_LABEL.to_string(), plan.name.clone())])
}

fn labels(plan: &Plan) -> BTreeMap<String, String> {
    let mut labels = selector_labels(plan);
    for (key, value) in [
        ("app.kubernetes.io/name", "slipway-runtime"),
        ("app.kubernetes.io/instance", plan.name.as_str()),
        ("app.kubernetes.io/component", "runtime"),
        ("app.kubernetes.io/part-of", "slipway"),
        ("app.kubernetes.io/managed-by", FIELD_MANAGER),
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

#[cfg(test)]
mod tests;
