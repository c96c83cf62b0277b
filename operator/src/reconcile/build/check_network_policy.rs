//! The NetworkPolicy of the Job that checks a new spec: its pods may reach what a replica's may, and nobody reaches them.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::networking::v1::{NetworkPolicy, NetworkPolicySpec},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::{metadata, network_policy};
use crate::{
    names::{CHECK_LABEL, Names},
    reconcile::plan::Plan,
};

pub(crate) fn build(plan: &Plan) -> Option<NetworkPolicy> {
    if plan.network.is_none() || !plan.has_check() {
        return None;
    }
    Some(NetworkPolicy {
        metadata: metadata(plan, Names::of(&plan.name).check),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(BTreeMap::from([(CHECK_LABEL.to_string(), plan.name.clone())])),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: None,
            egress: Some(network_policy::egress(plan)),
        }),
    })
}
