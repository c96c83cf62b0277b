//! The NetworkPolicy: which connections to and from the pods are allowed.
//!
//! To the pods: every pod of the cluster to the API, and the operator to the progress of the download. From the pods:
//! nothing for a model in a claim; DNS and TCP for a model that is downloaded. A policy applies to a pod and not to a
//! container, and to ports after a Service's translation, so the ports of a hub cannot be restricted further.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
        NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};

use super::{metadata, selector_labels};
use crate::{
    names::{FETCH_PORT, NAMESPACE_LABEL, Names, SERVE_PORT},
    reconcile::plan::{Plan, Source},
};

const DNS_PORT: i32 = 53;

pub(crate) fn build(plan: &Plan) -> NetworkPolicy {
    NetworkPolicy {
        metadata: metadata(plan, Names::of(&plan.name).main),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(selector_labels(plan)),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: Some(ingress(plan)),
            egress: Some(egress(plan)),
        }),
    }
}

fn ingress(plan: &Plan) -> Vec<NetworkPolicyIngressRule> {
    let mut rules = vec![NetworkPolicyIngressRule {
        from: Some(vec![every_pod()]),
        ports: Some(vec![port("TCP", Some(i32::from(SERVE_PORT)))]),
    }];
    if matches!(plan.source, Source::Hub(_)) {
        rules.push(NetworkPolicyIngressRule {
            from: Some(vec![operator(plan)]),
            ports: Some(vec![port("TCP", Some(i32::from(FETCH_PORT)))]),
        });
    }
    rules
}

fn egress(plan: &Plan) -> Vec<NetworkPolicyEgressRule> {
    match plan.source {
        Source::Claim { .. } => Vec::new(),
        Source::Hub(_) => vec![NetworkPolicyEgressRule {
            to: None,
            ports: Some(vec![port("UDP", Some(DNS_PORT)), port("TCP", None)]),
        }],
    }
}

fn every_pod() -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector::default()),
        ..NetworkPolicyPeer::default()
    }
}

/// The pods of the operator's namespace, or every pod if the operator runs outside the cluster.
fn operator(plan: &Plan) -> NetworkPolicyPeer {
    let Some(namespace) = &plan.operator_namespace else {
        return every_pod();
    };
    NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_labels: Some(BTreeMap::from([(NAMESPACE_LABEL.to_string(), namespace.clone())])),
            ..LabelSelector::default()
        }),
        ..NetworkPolicyPeer::default()
    }
}

fn port(protocol: &str, number: Option<i32>) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.into()),
        port: number.map(IntOrString::Int),
        ..NetworkPolicyPort::default()
    }
}
