//! Why a pod's volumes cannot be mounted.
//!
//! The kubelet says it only in an Event, while the containers wait without a cause. Here the Event becomes the reason why
//! the first container waits, so that a diagnosis needs no other source. Reads Events only of pods without a sandbox.

use futures::future::join_all;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateWaiting, ContainerStatus, Event, Pod};
use kube::{Api, Client, ResourceExt, api::ListParams};

use crate::pods::condition_since;

/// Pods whose Events are read in one reconcile.
const PODS_MAX: usize = 4;
/// Events that are read for one pod.
const EVENTS_MAX: u32 = 50;
/// Reasons of Events on volumes.
const REASONS: [&str; 2] = ["FailedMount", "FailedAttachVolume"];
/// The kubelet's summary of other Events, after two minutes.
const SUMMARY: &str = "Unable to attach or mount volumes";

/// Writes the reason into the waiting pods. Events that cannot be read are only logged: they explain, and decide nothing.
pub async fn explain(client: &Client, pods: &mut [Pod]) {
    let waiting = pods
        .iter_mut()
        .filter(|pod| is_without_sandbox(pod))
        .take(PODS_MAX);
    join_all(waiting.map(|pod| explain_one(client, pod))).await;
}

/// Volumes are mounted before the sandbox of a pod is made.
fn is_without_sandbox(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && condition_since(pod, "PodScheduled").is_some()
        && condition_since(pod, "PodReadyToStartContainers").is_none()
        && first_container(pod).is_some_and(is_waiting)
}

async fn explain_one(client: &Client, pod: &mut Pod) {
    let api: Api<Event> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let of_pod = format!(
        "involvedObject.uid={},type=Warning",
        pod.uid().unwrap_or_default()
    );
    let params = ListParams::default().fields(&of_pod).limit(EVENTS_MAX);
    match api.list(&params).await {
        Ok(events) => write_reason(pod, events.items),
        Err(error) => tracing::warn!(%error, pod = pod.name_any(), "cannot read the Events of a pod"),
    }
}

/// Makes the newest Event on volumes the reason why the first container waits.
fn write_reason(pod: &mut Pod, events: Vec<Event>) {
    let newest = events
        .into_iter()
        .filter(|event| {
            event
                .reason
                .as_deref()
                .is_some_and(|reason| REASONS.contains(&reason))
        })
        .max_by_key(|event| {
            let is_summary = event
                .message
                .as_ref()
                .is_some_and(|message| message.starts_with(SUMMARY));
            (!is_summary, event.last_timestamp.as_ref().map(|time| time.0))
        });
    if let (Some(event), Some(container)) = (newest, first_container_mut(pod)) {
        container.state = Some(ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: event.reason,
                message: event.message,
            }),
            ..ContainerState::default()
        });
    }
}

fn is_waiting(container: &ContainerStatus) -> bool {
    container
        .state
        .as_ref()
        .is_some_and(|state| state.waiting.is_some())
}

fn first_container(pod: &Pod) -> Option<&ContainerStatus> {
    let status = pod.status.as_ref()?;
    let (init, main) = (&status.init_container_statuses, &status.container_statuses);
    init.iter().chain(main).flatten().next()
}

fn first_container_mut(pod: &mut Pod) -> Option<&mut ContainerStatus> {
    let status = pod.status.as_mut()?;
    let (init, main) = (
        &mut status.init_container_statuses,
        &mut status.container_statuses,
    );
    init.iter_mut().chain(main).flatten().next()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(conditions: &[&str]) -> Pod {
        let time = "2026-11-21T10:00:02Z";
        let conditions: Vec<_> = conditions
            .iter()
            .map(|type_| json!({"type": type_, "status": "True", "lastTransitionTime": time}))
            .collect();
        let waiting = json!({"waiting": {"reason": "PodInitializing"}});
        let container = |name: &str| json!([{"name": name, "image": "i", "imageID": "i", "ready": false, "restartCount": 0, "state": waiting}]);
        let status = json!({"conditions": conditions, "initContainerStatuses": container("fetch"),
            "containerStatuses": container("runtime")});
        serde_json::from_value(json!({"metadata": {"name": "p"}, "status": status})).unwrap()
    }

    fn event(reason: &str, second: u8, message: &str) -> Event {
        serde_json::from_value(
            json!({"metadata": {}, "involvedObject": {}, "reason": reason, "message": message,
            "lastTimestamp": format!("2026-11-21T10:00:{second:02}Z")}),
        )
        .unwrap()
    }

    #[test]
    fn only_a_scheduled_pod_without_a_sandbox_may_lack_a_volume() {
        assert!(is_without_sandbox(&pod(&["PodScheduled"])));
        assert!(!is_without_sandbox(&pod(&[])));
        assert!(!is_without_sandbox(&pod(&[
            "PodScheduled",
            "PodReadyToStartContainers"
        ])));
    }

    #[test]
    fn the_newest_event_on_volumes_that_is_no_summary_is_the_reason() {
        let reason = |events: Vec<Event>| {
            let mut pod = pod(&["PodScheduled"]);
            write_reason(&mut pod, events);
            let state = first_container(&pod).unwrap().state.clone().unwrap();
            let waiting = state.waiting.unwrap();
            (waiting.reason.unwrap(), waiting.message.unwrap_or_default())
        };
        let missing = "MountVolume.SetUp failed for volume \"api-keys\" : secret \"keys\" not found";
        let events = vec![
            event("FailedMount", 1, "older"),
            event("FailedMount", 5, missing),
            event(
                "FailedMount",
                9,
                "Unable to attach or mount volumes: unmounted volumes=[api-keys]",
            ),
            event("BackOff", 9, "Back-off"),
        ];
        assert_eq!(reason(events), ("FailedMount".to_string(), missing.to_string()));
        assert_eq!(reason(Vec::new()).0, "PodInitializing");
    }
}
