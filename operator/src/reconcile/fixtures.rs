//! ModelDeployments, pods and observed states for tests, made from minimal YAML.

use std::{cell::RefCell, convert::Infallible};

use crds::{ModelDeployment, modeldeployment::Network};
use futures::FutureExt;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use serde_json::{Value, json};

use super::{
    children::{Applied, Kind, Resources, Writer},
    observed::Observed,
    plan::Plan,
    validate,
};
use crate::{
    context::Installation,
    names::{OWNER_LABEL, RUNTIME_CONTAINER, TEMPLATE_HASH, template_hash},
};

/// The image that the operator of the tests was installed with.
pub(crate) const IMAGE: &str = "registry.test/runtime:1";

pub(crate) fn installation() -> Installation {
    Installation {
        runtime_image: IMAGE.into(),
        runtime_cuda_image: None,
        namespace: Some("slipway-system".into()),
        network: Network::default(),
        watch_namespaces: Vec::new(),
        gateway_service: Some("slipway-gateway".into()),
    }
}

/// A ModelDeployment `chat` in `team`, generation 3; `spec` is YAML.
pub(crate) fn object(spec: &str) -> ModelDeployment {
    let spec: Value = serde_saphyr::from_str(spec).unwrap();
    from_value(json!({
        "apiVersion": "slipway.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "chat"},
        "spec": spec,
    }))
}

/// A ModelDeployment as a user writes it, with the fields that the API server adds.
pub(crate) fn from_value(mut value: Value) -> ModelDeployment {
    value["metadata"]["namespace"] = json!("team");
    value["metadata"]["uid"] = json!("uid-of-chat");
    value["metadata"]["generation"] = json!(3);
    serde_json::from_value(value).unwrap()
}

pub(crate) const HUB: &str = "model: {huggingFace: {repo: acme/model}}";

pub(crate) fn plan(object: &ModelDeployment) -> Plan {
    validate::plan(object, &Observed::default(), &installation()).unwrap()
}

/// A fake API server: returns every child unchanged, and records it as a document.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) documents: RefCell<Vec<Value>>,
}

impl Writer for Recorder {
    type Error = Infallible;

    async fn write<K: Kind>(&self, child: K) -> Result<K, Infallible> {
        self.documents.borrow_mut().push(json!(child));
        Ok(child)
    }

    async fn write_optional<K: Kind>(&self, child: Option<K>) -> Result<Option<K>, Infallible> {
        self.documents.borrow_mut().push(json!(child));
        Ok(child)
    }
}

impl Recorder {
    /// The children of `plan`, as if they were applied.
    pub(crate) fn applied(&self, plan: &Plan) -> Resources<Applied> {
        let written = Resources::build(plan).write(self).now_or_never();
        let Ok(applied) = written.expect("nothing waits");
        applied
    }
}

/// The template hash of the pods of `object`.
pub(crate) fn hash_of(object: &ModelDeployment) -> String {
    let deployment = Resources::build(&plan(object)).deployment;
    let template = deployment.spec.unwrap().template;
    template_hash(&template.metadata.unwrap()).unwrap().to_string()
}

pub(crate) fn at(text: &str) -> Timestamp {
    format!("2026-11-21T{text}Z").parse().unwrap()
}

/// A pod with a node, created at 10:00:00, with this template hash; `status` is YAML.
pub(crate) fn pod(name: &str, hash: &str, status: &str) -> Pod {
    let status: Value = serde_saphyr::from_str(status).unwrap();
    serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "namespace": "team",
            "creationTimestamp": "2026-11-21T10:00:00Z",
            "labels": {OWNER_LABEL: "chat", "pod-template-hash": hash},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("chat-{hash}"), "uid": hash, "controller": true,
            }],
            "annotations": {TEMPLATE_HASH: hash},
        },
        "spec": {
            "nodeName": "node-1",
            "initContainers": [{"name": "fetch"}],
            "containers": [{"name": RUNTIME_CONTAINER}],
        },
        "status": status,
    }))
    .unwrap()
}

/// A pod that is ready.
pub(crate) fn ready_pod(name: &str, hash: &str) -> Pod {
    pod(
        name,
        hash,
        r#"
podIP: 10.0.0.7
conditions:
- {type: PodScheduled, status: "True", lastTransitionTime: "2026-11-21T10:00:02Z"}
- {type: Ready, status: "True", lastTransitionTime: "2026-11-21T10:01:40Z"}
initContainerStatuses:
- {name: fetch, state: {terminated: {exitCode: 0, finishedAt: "2026-11-21T10:01:00Z"}}, image: i, imageID: i, ready: true, restartCount: 0}
containerStatuses:
- {name: runtime, started: true, state: {running: {startedAt: "2026-11-21T10:01:01Z"}}, image: i, imageID: i, ready: true, restartCount: 0}
"#,
    )
}

/// The status of one container as YAML of a pod's status; `rest` are its fields besides the name.
pub(crate) fn container_status(list: &str, name: &str, rest: &str) -> String {
    format!("{list}: [{{name: {name}, image: i, imageID: i, ready: false, restartCount: 0, {rest}}}]")
}
