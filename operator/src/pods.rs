//! [`Replica`]: one pod, with the template that it was made from and the stage that it has reached.
//!
//! Pure. Knows single pods; what they mean together is for the status.

use std::net::IpAddr;

use k8s_openapi::{
    api::core::v1::{ContainerState, ContainerStatus, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::Timestamp,
};

use crate::names::{FETCH_CONTAINER, RUNTIME_CONTAINER, template_hash};

/// A pod and what the steps need to know about it.
#[derive(Clone, Debug)]
pub struct Replica<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Its name.
    pub name: &'a str,
    /// Its address, once it has one.
    pub ip: Option<IpAddr>,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Hash of the template that the pod was made from.
    pub template_hash: Option<&'a str>,
    /// The stage that it has reached.
    pub stage: Stage,
    /// Whether the model's files are complete.
    pub model: ModelFiles,
}

/// The stage that a pod has reached. The order is the order of a pod's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It has no node.
    Unscheduled,
    /// Images are being pulled, volumes mounted and containers created.
    Starting,
    /// The download container runs.
    Downloading,
    /// The runtime runs and is not ready yet.
    Loading,
    /// It was ready and is not ready any more.
    Unready,
    /// It takes requests.
    Ready,
    /// It is being deleted.
    Leaving,
    /// All its containers have ended; the pod is only a record.
    Ended,
}

/// Whether a pod has its model's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelFiles {
    /// Not all of them, or it is unknown.
    Incomplete,
    /// All of them.
    Complete,
}

/// The replicas of these pods, oldest first.
pub fn replicas(pods: &[Pod]) -> Vec<Replica<'_>> {
    let mut replicas: Vec<Replica<'_>> = pods.iter().map(replica).collect();
    replicas.sort_by_key(|replica| (replica.created, replica.name));
    replicas
}

impl Replica<'_> {
    /// Whether it is neither leaving nor ended.
    pub fn is_alive(&self) -> bool {
        !matches!(self.stage, Stage::Leaving | Stage::Ended)
    }
}

fn replica(pod: &Pod) -> Replica<'_> {
    let status = pod.status.as_ref();
    Replica {
        pod,
        name: pod.metadata.name.as_deref().unwrap_or_default(),
        ip: status.and_then(|status| status.pod_ip.as_deref()?.parse().ok()),
        created: pod.metadata.creation_timestamp.as_ref().map(|Time(at)| *at),
        template_hash: template_hash(&pod.metadata),
        stage: stage(pod),
        model: model_files(pod),
    }
}

fn stage(pod: &Pod) -> Stage {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if pod.metadata.deletion_timestamp.is_some() {
        Stage::Leaving
    } else if matches!(phase, Some("Failed" | "Succeeded")) {
        Stage::Ended
    } else if pod.spec.as_ref().is_none_or(|spec| spec.node_name.is_none()) {
        Stage::Unscheduled
    } else if condition_since(pod, "Ready").is_some() {
        Stage::Ready
    } else if fetch_status(pod).is_some_and(is_running) {
        Stage::Downloading
    } else if unready_since(pod).is_some() {
        Stage::Unready
    } else if runtime_status(pod).is_some_and(is_running) {
        Stage::Loading
    } else {
        Stage::Starting
    }
}

fn model_files(pod: &Pod) -> ModelFiles {
    let fetches = pod.spec.as_ref().is_some_and(|spec| {
        let containers = spec.init_containers.iter().flatten();
        containers
            .into_iter()
            .any(|container| container.name == FETCH_CONTAINER)
    });
    let complete = if fetches {
        fetch_status(pod)
            .and_then(|status| status.state.as_ref()?.terminated.as_ref())
            .is_some_and(|ended| ended.exit_code == 0)
    } else {
        runtime_status(pod).is_some_and(is_running)
    };
    if complete {
        ModelFiles::Complete
    } else {
        ModelFiles::Incomplete
    }
}

/// When a condition of the pod became true; `None` while it is not true.
pub fn condition_since(pod: &Pod, type_: &str) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions
        .iter()
        .find(|condition| condition.type_ == type_ && condition.status == "True")?;
    let Time(at) = condition.last_transition_time.as_ref()?;
    Some(*at)
}

/// When the pod stopped being ready; `None` if it is ready, or its runtime has not been ready since it started.
pub fn unready_since(pod: &Pod) -> Option<Timestamp> {
    let runtime = runtime_status(pod)?;
    let Time(started) = runtime.state.as_ref()?.running.as_ref()?.started_at.as_ref()?;
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    let Time(since) = ready.last_transition_time.as_ref()?;
    let was_ready = ready.status != "True" && runtime.started == Some(true) && since > started;
    was_ready.then_some(*since)
}

/// Whether a ReplicaSet of the Deployment `deployment` made the pod.
pub fn is_made_by(pod: &Pod, deployment: &str) -> bool {
    let mut owners = pod.metadata.owner_references.iter().flatten();
    let hash = pod
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get("pod-template-hash"));
    owners.any(|owner| {
        owner.controller == Some(true)
            && owner.kind == "ReplicaSet"
            && hash.is_some_and(|hash| owner.name == format!("{deployment}-{hash}"))
    })
}

/// Status of the download container.
pub fn fetch_status(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.init_container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == FETCH_CONTAINER)
}

/// Status of the container that serves the model.
pub fn runtime_status(pod: &Pod) -> Option<&ContainerStatus> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == RUNTIME_CONTAINER)
}

fn is_running(status: &ContainerStatus) -> bool {
    matches!(&status.state, Some(ContainerState { running: Some(_), .. }))
}
