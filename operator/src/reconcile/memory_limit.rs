//! Gives the replicas of a spec without `resources.memory` the memory limit that their model needs, while they run.
//!
//! The runtime reports the memory that it takes at most once it has loaded the model. The limit is set through
//! `pods/resize` (Kubernetes 1.33), which restarts nothing; it is no part of the pod template, because it becomes known
//! later. What cannot be done is a note: a replica without a limit serves, too.

use std::sync::atomic::{AtomicBool, Ordering};

use crds::ModelDeployment;
use k8s_openapi::{
    api::core::v1::{Container, Pod},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    api_error::{ApiError, Class},
    observed::Observed,
};
use crate::{
    context::Context,
    names::RUNTIME_CONTAINER,
    pods::{self, Stage},
};

/// The subresource.
const RESIZE: &str = "resize";
/// Words of an API server that does not have a subresource. An object that does not exist has others.
const NO_SUBRESOURCE: &str = "could not find the requested resource";
/// The class of pods without requests and limits; a pod keeps its class for life.
const BEST_EFFORT: &str = "BestEffort";

/// Sets the limits that are due, and returns a note where one cannot be set. `template_hash` is that of the current pods.
pub async fn set(
    context: &Context,
    object: &ModelDeployment,
    observed: &Observed,
    template_hash: &str,
) -> Option<String> {
    let bytes = needed_bytes(object, observed)?;
    let mut note = None;
    for pod in without_limit(&observed.pods, template_hash) {
        if context.resize_is_absent.load(Ordering::Relaxed) {
            return Some(no_subresource());
        }
        if is_best_effort(pod) {
            note = Some("replicas have no memory limit, because the spec requests neither CPU nor memory; set spec.resources.memory".into());
            continue;
        }
        if let Err(error) = resize(context, pod, bytes).await {
            note = refused(&context.resize_is_absent, &error).or(note);
        }
    }
    note
}

/// Memory that a replica takes at most, as one has reported it for this spec.
fn needed_bytes(object: &ModelDeployment, observed: &Observed) -> Option<u64> {
    let status = object.status.as_ref();
    let known = status
        .filter(|status| status.observed_generation == object.metadata.generation)
        .and_then(|status| u64::try_from(status.model.as_ref()?.memory_bytes?).ok());
    let reported = || {
        observed
            .startups
            .values()
            .find_map(|startup| startup.model.as_ref()?.memory_bytes)
    };
    known.or_else(reported)
}

/// The ready pods of the current template whose runtime has no memory limit.
fn without_limit<'a>(pods: &'a [Pod], template_hash: &str) -> Vec<&'a Pod> {
    let replicas = pods::replicas(pods).into_iter();
    let ready = replicas
        .filter(|replica| replica.stage == Stage::Ready && replica.template_hash == Some(template_hash));
    ready
        .map(|replica| replica.pod)
        .filter(|pod| runtime(pod).is_some_and(|runtime| memory(runtime, Side::Limit).is_none()))
        .collect()
}

fn runtime(pod: &Pod) -> Option<&Container> {
    let mut containers = pod.spec.as_ref()?.containers.iter();
    containers.find(|container| container.name == RUNTIME_CONTAINER)
}

/// One side of a container's resources.
#[derive(Clone, Copy)]
enum Side {
    Request,
    Limit,
}

fn memory(container: &Container, side: Side) -> Option<&Quantity> {
    let resources = container.resources.as_ref()?;
    let quantities = match side {
        Side::Request => resources.requests.as_ref(),
        Side::Limit => resources.limits.as_ref(),
    };
    quantities?.get("memory")
}

fn is_best_effort(pod: &Pod) -> bool {
    let class = || pod.status.as_ref()?.qos_class.as_deref();
    class() == Some(BEST_EFFORT)
}

async fn resize(context: &Context, pod: &Pod, bytes: u64) -> Result<(), ApiError> {
    let name = pod.name_any();
    let api: Api<Pod> = Api::namespaced(context.client.clone(), &pod.namespace().unwrap_or_default());
    let patch = Patch::Strategic(patch(pod, bytes));
    let resized = api
        .patch_subresource(RESIZE, &name, &PatchParams::default(), &patch)
        .await;
    resized.map_err(ApiError::of(format!("set the memory limit of Pod {name}")))?;
    tracing::info!(pod = name, bytes, "memory limit set");
    Ok(())
}

/// A limit without a request would become the request, and the pod would count as larger than it was when it was placed.
fn patch(pod: &Pod, bytes: u64) -> Value {
    let request = runtime(pod).and_then(|runtime| memory(runtime, Side::Request));
    let request = request.cloned().unwrap_or_else(|| Quantity("0".into()));
    json!({
        "metadata": {"uid": pod.uid()},
        "spec": {"containers": [{
            "name": RUNTIME_CONTAINER,
            "resources": {"limits": {"memory": bytes.to_string()}, "requests": {"memory": request}},
        }]},
    })
}

/// The note on a refusal. That the subresource does not exist is remembered, and logged once.
fn refused(resize_is_absent: &AtomicBool, error: &ApiError) -> Option<String> {
    let words = error.failure().message;
    match error.class() {
        Class::Gone if words.contains(NO_SUBRESOURCE) => {
            if !resize_is_absent.swap(true, Ordering::Relaxed) {
                tracing::info!(
                    "this Kubernetes has no pods/resize, so replicas without resources.memory have no limit"
                );
            }
            Some(no_subresource())
        }
        // The pod was replaced, or somebody else changed it; the next look finds out.
        Class::Gone | Class::Changed => None,
        Class::Spec
        | Class::Quota
        | Class::Policy
        | Class::Terminating
        | Class::Forbidden
        | Class::Unavailable => Some(format!("a replica has no memory limit: {words}")),
    }
}

fn no_subresource() -> String {
    "replicas have no memory limit, because Kubernetes before 1.33 cannot set one on a running pod; set \
     spec.resources.memory"
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures::{HUB, object, pod, ready_pod};
    use crds::startup::{ModelFacts, StartupStatus};

    #[test]
    fn only_ready_pods_of_the_current_template_without_a_limit_get_one() {
        let limited = |mut pod: Pod| {
            let runtime = &mut pod.spec.as_mut().unwrap().containers[0];
            runtime.resources = serde_json::from_value(json!({"limits": {"memory": "1Gi"}})).unwrap();
            pod
        };
        let pods = [
            ready_pod("due", "h"),
            ready_pod("older", "g"),
            limited(ready_pod("limited", "h")),
            pod("starting", "h", "{}"),
        ];
        let due: Vec<String> = without_limit(&pods, "h")
            .iter()
            .map(|pod| pod.name_any())
            .collect();
        assert_eq!(due, ["due"]);
    }

    #[test]
    fn the_request_of_a_pod_does_not_grow() {
        let mut pod = ready_pod("chat-1", "h");
        let resources = |pod: &Pod| patch(pod, 1 << 30)["spec"]["containers"][0]["resources"].clone();
        assert_eq!(
            resources(&pod),
            json!({"limits": {"memory": "1073741824"}, "requests": {"memory": "0"}})
        );
        let runtime = &mut pod.spec.as_mut().unwrap().containers[0];
        runtime.resources = serde_json::from_value(json!({"requests": {"memory": "256Mi"}})).unwrap();
        assert_eq!(resources(&pod)["requests"]["memory"], "256Mi");
    }

    #[test]
    fn the_need_is_that_of_this_spec() {
        let mut object = object(HUB);
        let mut observed = Observed::default();
        assert_eq!(needed_bytes(&object, &observed), None);
        let facts = ModelFacts {
            memory_bytes: Some(5),
            ..ModelFacts::default()
        };
        let startup = StartupStatus {
            model: Some(facts),
            ..StartupStatus::default()
        };
        observed.startups.insert("chat-1".into(), startup);
        assert_eq!(needed_bytes(&object, &observed), Some(5));
        observed.startups.clear();
        object.status = serde_json::from_value(json!({
            "observedGeneration": object.metadata.generation, "model": {"memoryBytes": 7}
        }))
        .unwrap();
        assert_eq!(needed_bytes(&object, &observed), Some(7));
        object.metadata.generation = Some(9);
        assert_eq!(needed_bytes(&object, &observed), None);
    }

    #[test]
    fn an_absent_subresource_is_remembered_and_an_absent_pod_is_not() {
        let error = |message: &str| {
            let status = kube::core::Status {
                code: 404,
                message: message.into(),
                ..Default::default()
            };
            ApiError::of("set".into())(kube::Error::Api(Box::new(status)))
        };
        let is_absent = AtomicBool::new(false);
        assert_eq!(refused(&is_absent, &error("pods \"chat-1\" not found")), None);
        assert!(!is_absent.load(Ordering::Relaxed));
        let note = refused(
            &is_absent,
            &error("the server could not find the requested resource"),
        );
        assert!(note.unwrap().contains("spec.resources.memory"));
        assert!(is_absent.load(Ordering::Relaxed));
    }
}
