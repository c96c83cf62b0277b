//! Tests of the pipeline against a fake API server: what is written, what is not written, and what a refusal does.
//!
//! The server stores objects by path, replaces an object on server-side apply, and has the status subresource. The
//! cluster tests use a real API server.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use crds::ModelDeployment;
use http::{Method, Request, Response};
use kube::{Client, client::Body, core::DeserializeGuard, runtime::controller::Action};
use operator::{
    context::{Context, Installation},
    metrics::Metrics,
    reconcile::{Error, Guarded, error_policy, reconcile},
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

const MDEP: &str = "/apis/slipway.dev/v1alpha1/namespaces/team/modeldeployments/chat";
const SERVICE: &str = "/api/v1/namespaces/team/services/chat";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/team/deployments/chat";
const JOB: &str = "/apis/batch/v1/namespaces/team/jobs/chat-check";
const CONFIG_MAPS: &str = "/api/v1/namespaces/team/configmaps/";
const COMMIT: &str = "/api/v1/namespaces/team/configmaps/chat-commit";
const CLAIM: &str = "/api/v1/namespaces/team/persistentvolumeclaims/chat-cache";
const REPLICA_SETS: &str = "/apis/apps/v1/namespaces/team/replicasets";
const POLICY: &str = "/apis/networking.k8s.io/v1/namespaces/team/networkpolicies/chat";
/// Every child with a name that depends on nothing else, by path.
const CHILDREN: [&str; 7] = [
    "/api/v1/namespaces/team/serviceaccounts/chat",
    COMMIT,
    CLAIM,
    POLICY,
    SERVICE,
    DEPLOYMENT,
    JOB,
];
/// Children that only some ModelDeployments have.
const OPTIONAL: [&str; 3] = [CLAIM, JOB, COMMIT];

/// Objects by path, the writes so far, and the codes with which writes to paths with a beginning are refused.
#[derive(Clone, Default)]
struct Api(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    written: Vec<String>,
    refused: BTreeMap<&'static str, u16>,
}

impl Api {
    fn with(spec: Value) -> Self {
        let api = Self::default();
        let object = json!({
            "apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "spec": spec,
            "metadata": {"name": "chat", "namespace": "team", "uid": "uid-of-chat", "generation": 1},
        });
        api.put(MDEP, object);
        api
    }

    fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().objects.insert(path.into(), object);
    }

    fn get(&self, path: &str) -> Value {
        self.0
            .lock()
            .unwrap()
            .objects
            .get(path)
            .cloned()
            .unwrap_or_default()
    }

    /// What was written since the last call, as `METHOD path`.
    fn written(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().written)
    }

    fn refuse(&self, path: &'static str, code: u16) {
        self.0.lock().unwrap().refused.insert(path, code);
    }

    fn context(&self) -> Arc<Context> {
        let api = self.clone();
        let answer = move |request| {
            let api = api.clone();
            async move { api.answer(request).await }
        };
        let client = Client::new(tower::service_fn(answer), "team");
        let installation = Installation {
            runtime_image: "registry.test/runtime:1".into(),
            ..Installation::default()
        };
        let metrics = Metrics::register(&mut Registry::default());
        Arc::new(Context::new(client, metrics, installation, Arc::default()).unwrap())
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (method, path) = (request.method().clone(), request.uri().path().to_string());
        let query = request.uri().query().unwrap_or_default().to_string();
        let bytes = request.into_body().collect_bytes().await.unwrap();
        let sent = serde_json::from_slice(&bytes).unwrap_or_default();
        let (code, body) = match query.contains("fieldManager=slipway-replicas") {
            true => self.scale(&path, &sent),
            false => self.handle(&method, &path, sent),
        };
        let body = Body::from(body.to_string().into_bytes());
        Ok(Response::builder().status(code).body(body).unwrap())
    }

    /// A server-side apply of the replicas alone.
    fn scale(&self, path: &str, sent: &Value) -> (u16, Value) {
        let mut state = self.0.lock().unwrap();
        state.written.push(format!("SCALE {path}"));
        let object = state.objects.get_mut(path).unwrap();
        object["spec"]["replicas"] = sent["spec"]["replicas"].clone();
        (200, object.clone())
    }

    fn handle(&self, method: &Method, path: &str, sent: Value) -> (u16, Value) {
        let mut state = self.0.lock().unwrap();
        let refusal = |code: u16, reason: &str| {
            let text = json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason});
            (code, text)
        };
        if method != Method::GET {
            state.written.push(format!("{method} {path}"));
        }
        let mut refused = state.refused.iter();
        if method != Method::GET
            && let Some((_, code)) = refused.find(|(beginning, _)| path.starts_with(*beginning))
        {
            // As the API server answers where it has no such subresource.
            let words = if *code == 404 {
                "the server could not find the requested resource"
            } else {
                "Refused"
            };
            return refusal(*code, words);
        }
        match (method.as_str(), path.strip_suffix("/status")) {
            ("GET", _)
                if path.ends_with("/pods")
                    || path == CONFIG_MAPS.trim_end_matches('/')
                    || path == REPLICA_SETS =>
            {
                let inside = state
                    .objects
                    .iter()
                    .filter(|(other, _)| other.starts_with(&format!("{path}/")));
                let items: Vec<&Value> = inside.map(|(_, object)| object).collect();
                (200, json!({"metadata": {}, "items": items}))
            }
            ("GET", _) => {
                let found = state.objects.get(path);
                found.map_or_else(|| refusal(404, "NotFound"), |found| (200, found.clone()))
            }
            ("PATCH", Some(parent)) => {
                let object = state.objects.get_mut(parent).unwrap();
                object["status"] = sent["status"].clone();
                (200, object.clone())
            }
            ("DELETE", _) => (200, state.objects.remove(path).unwrap_or_default()),
            _ => {
                state.objects.insert(path.into(), sent.clone());
                (200, sent)
            }
        }
    }

    async fn reconcile(&self, context: &Arc<Context>) -> Result<Action, Error> {
        // As in the controller, a test does not hold the state of the whole pipeline itself.
        Box::pin(reconcile(self.guarded(), context.clone())).await
    }

    fn guarded(&self) -> Arc<Guarded> {
        let object: ModelDeployment = serde_json::from_value(self.get(MDEP)).unwrap();
        Arc::new(DeserializeGuard(Ok(object)))
    }

    fn condition(&self, type_: &str) -> Value {
        let conditions = self.get(MDEP)["status"]["conditions"].clone();
        let mut conditions = conditions.as_array().unwrap().iter();
        conditions
            .find(|condition| condition["type"] == type_)
            .unwrap()
            .clone()
    }

    fn ready(&self) -> (Value, Value) {
        let ready = self.condition("Ready");
        (ready["status"].clone(), ready["reason"].clone())
    }

    /// Changes the spec as a user does.
    fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut object = self.get(MDEP);
        change(&mut object["spec"]);
        object["metadata"]["generation"] = json!(object["metadata"]["generation"].as_i64().unwrap() + 1);
        self.put(MDEP, object);
    }
}

fn hub() -> Value {
    json!({"model": {"huggingFace": {"repo": "acme/model"}}})
}

#[tokio::test]
async fn a_new_object_gets_children_and_a_status_and_an_unchanged_status_is_not_written_again() {
    let api = Api::with(hub());
    let context = api.context();
    api.reconcile(&context).await.unwrap();
    let written = api.written();
    for child in OPTIONAL {
        assert!(!written.contains(&format!("PATCH {child}")), "{written:?}");
    }
    let config = format!("PATCH {CONFIG_MAPS}chat-config-");
    assert!(
        written.iter().any(|line| line.starts_with(&config)),
        "{written:?}"
    );
    for child in CHILDREN.into_iter().filter(|child| !OPTIONAL.contains(child)) {
        assert!(
            written.contains(&format!("PATCH {child}")),
            "{child} in {written:?}"
        );
        assert_eq!(
            api.get(child)["metadata"]["ownerReferences"][0]["uid"],
            "uid-of-chat"
        );
    }
    assert!(written.contains(&format!("PATCH {MDEP}/status")), "{written:?}");
    let is_event = |line: &String| line.starts_with("POST") && line.ends_with("/events");
    assert!(written.iter().any(is_event), "{written:?}");
    assert_eq!(api.ready(), (json!("False"), json!("Scaling")));

    for _ in 0..3 {
        api.reconcile(&context).await.unwrap();
    }
    // Another process has no memory of the writes.
    api.reconcile(&api.context()).await.unwrap();
    assert_eq!(api.written(), Vec::<String>::new(), "a look does not write");
}

#[tokio::test]
async fn a_child_that_somebody_changed_is_written_again_and_only_that_child() {
    let api = Api::with(hub());
    let context = api.context();
    api.reconcile(&context).await.unwrap();
    api.written();
    let mut service = api.get(SERVICE);
    service["metadata"]["uid"] = json!("uid-of-the-service");
    service["metadata"]["managedFields"] =
        json!([{"manager": "slipway-operator", "operation": "Apply", "fieldsV1": {}}]);
    service["spec"]["ports"][0]["port"] = json!(81);
    api.put(SERVICE, service);
    api.reconcile(&context).await.unwrap();
    assert_eq!(api.written(), [format!("PATCH {SERVICE}")]);
    let service = api.get(SERVICE);
    assert_eq!(service["spec"]["ports"][0]["port"], 80);
    assert_eq!(
        service["metadata"]["uid"], "uid-of-the-service",
        "a precondition of the write"
    );
}

#[tokio::test]
async fn replicas_are_written_whatever_else_is_refused() {
    let api = Api::with(hub());
    let context = api.context();
    api.reconcile(&context).await.unwrap();
    api.refuse(CONFIG_MAPS, 403);
    api.change(|spec| {
        spec["engine"] = json!({"maxModelLen": 64});
        spec["replicas"] = json!(3);
    });
    let template = api.get(DEPLOYMENT)["spec"]["template"].clone();
    api.reconcile(&context).await.unwrap_err();
    let deployment = api.get(DEPLOYMENT);
    assert_eq!(deployment["spec"]["replicas"], 3);
    assert_eq!(
        deployment["spec"]["template"], template,
        "its configuration was refused"
    );
    assert_eq!(api.get(MDEP)["status"]["observedGeneration"], 2);
    assert_eq!(api.ready(), (json!("False"), json!("PolicyRefused")));

    api.change(|spec| {
        spec["env"] = json!([{"name": "MAX_NUM_SEQS", "value": "many"}]);
        spec["replicas"] = json!(0);
    });
    api.reconcile(&context).await.unwrap();
    assert_eq!(api.get(DEPLOYMENT)["spec"]["replicas"], 0, "the spec is refused");
}

#[tokio::test]
async fn a_claim_that_cannot_change_is_a_note_and_is_written_once() {
    let spec = |size: &str| json!({"model": {"huggingFace": {"repo": "acme/model"}}, "cache": {"type": "PVC", "size": size}});
    let api = Api::with(spec("64Mi"));
    let context = api.context();
    api.reconcile(&context).await.unwrap();
    api.refuse(CLAIM, 403);
    api.change(|object| *object = spec("128Mi"));
    api.change(|object| object["engine"] = json!({"maxModelLen": 64}));
    api.written();
    for _ in 0..3 {
        api.reconcile(&context).await.unwrap();
    }
    let written = api.written();
    let n_writes = written.iter().filter(|line| line.ends_with(CLAIM)).count();
    assert_eq!(n_writes, 1, "{written:?}");
    assert!(written.contains(&format!("PATCH {DEPLOYMENT}")), "{written:?}");
    let accepted = api.condition("Accepted");
    assert_eq!(accepted["status"], "True");
    assert!(
        accepted["message"]
            .as_str()
            .unwrap()
            .contains("the claim chat-cache stays as it is"),
        "{accepted}"
    );

    api.change(|object| object["cache"]["size"] = json!("1Mi"));
    api.reconcile(&context).await.unwrap();
    assert_eq!(
        api.get(CLAIM)["spec"]["resources"]["requests"]["storage"],
        "64Mi",
        "a claim never shrinks"
    );
}

#[tokio::test]
async fn a_child_of_a_deleted_namesake_is_waited_for_and_named() {
    let api = Api::with(hub());
    let owner = json!({"apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "name": "chat", "uid": "before", "controller": true});
    api.put(
        CLAIM,
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "chat-cache", "namespace": "team", "ownerReferences": [owner]},
        }),
    );
    let context = api.context();
    api.reconcile(&context).await.unwrap_err();
    assert_eq!(api.ready(), (json!("False"), json!("Waiting")));
    assert!(
        api.condition("Ready")["message"]
            .as_str()
            .unwrap()
            .contains("PersistentVolumeClaim chat-cache")
    );
    assert_eq!(api.get(MDEP)["status"]["observedGeneration"], 1);
    api.written();
    api.reconcile(&context).await.unwrap_err();
    assert_eq!(api.written(), Vec::<String>::new(), "the status is the same");
}

#[tokio::test]
async fn a_model_deployment_that_was_deleted_since_it_was_seen_gets_no_children() {
    let api = Api::with(hub());
    let seen = api.guarded();
    api.0.lock().unwrap().objects.clear();
    assert_eq!(
        reconcile(seen, api.context()).await.unwrap(),
        Action::await_change()
    );
    assert_eq!(api.written(), Vec::<String>::new());

    let api = Api::with(hub());
    api.refuse(MDEP, 404);
    api.reconcile(&api.context()).await.unwrap();
}

#[tokio::test]
async fn a_policy_that_is_no_longer_requested_is_deleted_and_a_claim_is_kept() {
    let api = Api::with(json!({"model": {"huggingFace": {"repo": "acme/model"}}, "cache": {"type": "PVC"}}));
    let context = api.context();
    api.reconcile(&context).await.unwrap();
    let claim = api.get(CLAIM);
    assert_eq!(claim["kind"], "PersistentVolumeClaim");
    assert_eq!(api.get(POLICY)["kind"], "NetworkPolicy");

    let mut object = api.get(MDEP);
    object["spec"] = hub();
    object["spec"]["network"] = json!({"policy": "None"});
    api.put(MDEP, object);
    api.reconcile(&context).await.unwrap();
    assert_eq!(api.get(POLICY), Value::Null);
    assert_eq!(api.get(CLAIM), claim);
}

#[tokio::test]
async fn a_configuration_file_is_deleted_when_no_replica_set_has_its_hash() {
    let api = Api::with(hub());
    let context = api.context();
    api.reconcile(&context).await.unwrap();
    let owners = api.get(DEPLOYMENT)["metadata"]["ownerReferences"].clone();
    let labelled = |name: String, hash: &str| {
        let labels = json!({"slipway.dev/model-deployment": "chat", "slipway.dev/config-hash": hash});
        json!({"metadata": {"name": name, "namespace": "team", "labels": labels, "ownerReferences": owners}})
    };
    let path = |hash: &str| format!("{CONFIG_MAPS}chat-config-{hash}");
    let put = |hash: &str| api.put(&path(hash), labelled(format!("chat-config-{hash}"), hash));
    api.put(
        &format!("{REPLICA_SETS}/chat-1"),
        labelled("chat-1".into(), "old1"),
    );
    for hash in ["old1", "old2", "old3"] {
        put(hash);
    }
    api.reconcile(&context).await.unwrap();
    assert!(
        ["old1", "old2", "old3"]
            .iter()
            .all(|hash| api.get(&path(hash)) != Value::Null)
    );
    put("old4");
    api.reconcile(&context).await.unwrap();
    let kept = |hash: &&str| api.get(&path(hash)) != Value::Null;
    let kept: Vec<&str> = ["old1", "old2", "old3", "old4"]
        .into_iter()
        .filter(kept)
        .collect();
    assert_eq!(kept, ["old1"]);
    let current =
        api.get(DEPLOYMENT)["spec"]["template"]["metadata"]["labels"]["slipway.dev/config-hash"].clone();
    assert_ne!(api.get(&path(current.as_str().unwrap())), Value::Null);
}

#[tokio::test]
async fn an_object_of_somebody_else_is_left_alone_whatever_its_kind() {
    for path in CHILDREN {
        let api = Api::with(hub());
        let name = path.rsplit('/').next().unwrap();
        let foreign = json!({"metadata": {"name": name, "namespace": "team"}});
        api.put(path, foreign.clone());
        api.reconcile(&api.context()).await.unwrap();
        assert_eq!(api.ready(), (json!("False"), json!("NameTaken")), "{path}");
        assert_eq!(api.get(path), foreign);
        let written = api.written();
        assert!(
            !written
                .iter()
                .any(|line| CHILDREN.iter().any(|child| line.ends_with(child))),
            "{written:?}"
        );
    }
}

#[tokio::test]
async fn the_deployment_is_written_after_what_its_pods_use() {
    let api = Api::with(hub());
    api.refuse(SERVICE, 500);
    api.reconcile(&api.context()).await.unwrap_err();
    assert_eq!(api.get(DEPLOYMENT), Value::Null);
    assert!(!api.written().contains(&format!("PATCH {DEPLOYMENT}")));
}

#[tokio::test]
async fn a_refusal_of_the_api_server_is_in_the_status_and_an_outage_is_retried_with_growing_waits() {
    let api = Api::with(hub());
    let context = api.context();
    for (code, reason, seconds) in [
        (422, "InvalidSetting", 300),
        (403, "PolicyRefused", 1),
        (500, "ApplyFailed", 2),
    ] {
        api.refuse(DEPLOYMENT, code);
        let error = api.reconcile(&context).await.unwrap_err();
        assert_eq!(api.ready(), (json!("False"), json!(reason)));
        let action = error_policy(api.guarded(), &error, context.clone());
        assert_eq!(action, Action::requeue(Duration::from_secs(seconds)), "{code}");
    }
    for seconds in [4, 8, 16, 30, 30] {
        let error = api.reconcile(&context).await.unwrap_err();
        let action = error_policy(api.guarded(), &error, context.clone());
        assert_eq!(action, Action::requeue(Duration::from_secs(seconds)));
    }
}

#[tokio::test]
async fn a_deleted_object_is_not_reconciled() {
    let api = Api::with(hub());
    let context = api.context();
    let mut object = api.get(MDEP);
    object["metadata"]["deletionTimestamp"] = json!("2026-11-21T10:00:00Z");
    api.put(MDEP, object);
    let guarded = api.guarded();
    assert_eq!(api.reconcile(&context).await.unwrap(), Action::await_change());
    api.0.lock().unwrap().objects.clear();
    assert_eq!(reconcile(guarded, context).await.unwrap(), Action::await_change());
    assert_eq!(api.written(), Vec::<String>::new());
}

#[tokio::test]
async fn an_unreadable_object_says_so_and_keeps_the_rest_of_its_status() {
    let api = Api::default();
    let raw = json!({
        "apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment",
        "metadata": {"name": "chat", "namespace": "team", "generation": 2}, "spec": {"model": "a string"},
        "status": {
            "runtimeImage": "registry.test/runtime:1", "observedGeneration": 1, "phase": "Ready",
            "conditions": [
                {"type": "Available", "status": "True", "reason": "Serving", "message": "", "lastTransitionTime": "2026-11-21T10:00:00Z"},
                {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-11-21T10:00:00Z"},
            ],
        },
    });
    api.put(MDEP, raw.clone());
    let guarded: Guarded = serde_json::from_value(raw).unwrap();
    let (guarded, context) = (Arc::new(guarded), api.context());
    let action = reconcile(guarded.clone(), context.clone()).await.unwrap();
    assert_eq!(action, Action::await_change());
    assert_eq!(api.ready(), (json!("False"), json!("Unreadable")));
    assert_eq!(api.condition("Available")["status"], "True");
    let status = api.get(MDEP)["status"].clone();
    assert_eq!(
        (
            &status["runtimeImage"],
            &status["observedGeneration"],
            &status["phase"]
        ),
        (&json!("registry.test/runtime:1"), &json!(2), &json!("Failed"))
    );
    let written = api.written();
    assert!(
        written.iter().any(|line| line.ends_with("/events")),
        "{written:?}"
    );
    reconcile(guarded, context).await.unwrap();
    assert_eq!(api.written(), Vec::<String>::new());
}

const POD: &str = "/api/v1/namespaces/team/pods/chat-1";

/// A ready pod of the current template, whose model needs this much memory as the status says.
async fn with_ready_pod(spec: Value) -> (Api, Arc<Context>) {
    let api = Api::with(spec);
    let context = api.context();
    api.reconcile(&context).await.unwrap();
    let template = &api.get(DEPLOYMENT)["spec"]["template"];
    api.put(
        POD,
        json!({
            "metadata": {
                "name": "chat-1", "namespace": "team", "uid": "uid-of-the-pod",
                "labels": {"slipway.dev/model-deployment": "chat", "pod-template-hash": "h"},
                "annotations": template["metadata"]["annotations"],
                "ownerReferences": [
                    {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "chat-h", "uid": "h", "controller": true},
                ],
            },
            "spec": {"nodeName": "n", "containers": [{"name": "runtime", "resources": template["spec"]["containers"][0]["resources"]}]},
            "status": {
                "podIP": "127.0.0.1", "qosClass": "Burstable",
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T10:00:00Z"}],
            },
        }),
    );
    let mut object = api.get(MDEP);
    object["status"]["model"] = json!({"architecture": "LlamaForCausalLM", "memoryBytes": 1_073_741_824});
    api.put(MDEP, object);
    api.written();
    (api, context)
}

#[tokio::test]
async fn a_replica_without_a_memory_limit_gets_the_one_that_its_model_needs() {
    let (api, context) = Box::pin(with_ready_pod(hub())).await;
    api.reconcile(&context).await.unwrap();
    let resize = format!("{POD}/resize");
    let written = api.written();
    assert!(written.contains(&format!("PATCH {resize}")), "{written:?}");
    assert_eq!(
        api.get(&resize)["spec"]["containers"][0]["resources"],
        json!({"limits": {"memory": "1073741824"}, "requests": {"memory": "0"}})
    );

    let mut spec = hub();
    spec["resources"] = json!({"memory": "2Gi"});
    let (api, context) = Box::pin(with_ready_pod(spec)).await;
    api.reconcile(&context).await.unwrap();
    let written = api.written();
    assert!(
        !written.iter().any(|line| line.contains("/resize")),
        "{written:?}"
    );
}

#[tokio::test]
async fn a_cluster_that_cannot_resize_pods_is_a_note_and_is_asked_once() {
    let (api, context) = Box::pin(with_ready_pod(hub())).await;
    api.refuse(POD, 404);
    for _ in 0..3 {
        api.reconcile(&context).await.unwrap();
    }
    let written = api.written();
    let n_resizes = written.iter().filter(|line| line.contains("/resize")).count();
    assert_eq!(n_resizes, 1, "{written:?}");
    let accepted = api.condition("Accepted");
    assert_eq!(accepted["status"], "True");
    assert!(
        accepted["message"]
            .as_str()
            .unwrap()
            .contains("set spec.resources.memory"),
        "{accepted}"
    );
}

#[tokio::test]
async fn a_job_fills_a_shared_claim_before_the_first_pod_takes_a_gpu() {
    let mut spec = hub();
    spec["cache"] = json!({"type": "PVC", "accessMode": "ReadWriteMany"});
    spec["resources"] = json!({"gpu": {"count": 1}});
    let api = Api::with(spec);
    let context = api.context();
    api.reconcile(&context).await.unwrap();
    assert_eq!(api.get(DEPLOYMENT)["spec"]["replicas"], 0);
    assert_eq!(api.ready(), (json!("False"), json!("Downloading")));
    assert_eq!(api.get(MDEP)["status"]["phase"], "Downloading");
    let mut job = api.get(JOB);
    let container = &job["spec"]["template"]["spec"]["containers"][0];
    assert!(
        container["resources"]["limits"]["nvidia.com/gpu"].is_null(),
        "{container}"
    );

    job["status"] = json!({"succeeded": 1});
    api.put(JOB, job);
    api.reconcile(&context).await.unwrap();
    assert_eq!(api.get(DEPLOYMENT)["spec"]["replicas"], 1);
    api.reconcile(&context).await.unwrap();
    assert_eq!(
        api.get(DEPLOYMENT)["spec"]["replicas"],
        1,
        "the first pod starts once"
    );
}
