//! The NetworkPolicy: which connections to and from the pods are allowed.
//!
//! To the pods: clients, which are every pod of the cluster unless the plan names others, to the API; the operator and
//! monitoring to the control port. The kubelet always reaches the pods of its node. From the pods: nothing for a model
//! in a claim; DNS and TCP for a model that is downloaded. A policy applies to a pod and not to a container, and to ports
//! after a Service's translation, so the ports of a hub cannot be restricted further.

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
    names::{CONTROL_PORT, NAMESPACE_LABEL, Names, SERVE_PORT},
    reconcile::plan::{Connections, Plan, Source},
};

const DNS_PORT: i32 = 53;

pub(crate) fn build(plan: &Plan) -> Option<NetworkPolicy> {
    let connections = plan.network.as_ref()?;
    Some(NetworkPolicy {
        metadata: metadata(plan, Names::of(&plan.name).main),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(selector_labels(plan)),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: Some(ingress(plan, connections)),
            egress: Some(egress(plan)),
        }),
    })
}

fn ingress(plan: &Plan, connections: &Connections) -> Vec<NetworkPolicyIngressRule> {
    let operator = operator(plan);
    let clients = match &connections.clients {
        None => vec![every_pod()],
        Some(clients) => [clients.as_slice(), std::slice::from_ref(&operator)].concat(),
    };
    let control = [std::slice::from_ref(&operator), &connections.monitoring].concat();
    [(clients, SERVE_PORT), (control, CONTROL_PORT)]
        .map(|(peers, number)| NetworkPolicyIngressRule {
            from: Some(peers),
            ports: Some(vec![port("TCP", Some(i32::from(number)))]),
        })
        .to_vec()
}

pub(super) fn egress(plan: &Plan) -> Vec<NetworkPolicyEgressRule> {
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
