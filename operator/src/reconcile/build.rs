//! A [`Plan`] becomes the objects that realise it, one file per kind. Pure: equal plans build equal bytes.
//!
//! Must not know the cluster, the old objects or why it was called.

mod claim;
mod config_map;
mod deployment;
mod network_policy;
mod service;
mod service_account;

use std::{collections::BTreeMap, marker::PhantomData};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, PersistentVolumeClaim, Service, ServiceAccount},
    networking::v1::NetworkPolicy,
};
use kube::api::ObjectMeta;

use super::plan::Plan;
use crate::names::{FIELD_MANAGER, OWNER_LABEL};

/// Objects that were built and not yet sent.
#[derive(Debug)]
pub enum Built {}
/// Objects as the API server returned them.
#[derive(Debug)]
pub enum Applied {}

/// Every child of a ModelDeployment, built or applied.
#[derive(Clone, Debug)]
pub struct Resources<Phase> {
    /// Identity of the pods, without a token.
    pub service_account: ServiceAccount,
    /// The runtime's configuration file.
    pub config_map: ConfigMap,
    /// The cache's own claim.
    pub claim: Option<PersistentVolumeClaim>,
    /// Who may talk to the pods, and to whom they may.
    pub network_policy: NetworkPolicy,
    /// The stable address.
    pub service: Service,
    /// The pods.
    pub deployment: Deployment,
    /// How far these objects are.
    pub phase: PhantomData<Phase>,
}

/// Builds every child.
pub fn resources(plan: &Plan) -> Resources<Built> {
    Resources {
        service_account: service_account::build(plan),
        config_map: config_map::build(plan),
        claim: claim::build(plan),
        network_policy: network_policy::build(plan),
        service: service::build(plan),
        deployment: deployment::build(plan),
        phase: PhantomData,
    }
}

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
