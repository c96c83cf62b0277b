//! Why a pod does not become ready: one [`Failure`] with a remedy, made from the exit of a container, its termination
//! message, and the messages of the kubelet and the scheduler.
//!
//! Pure. Only current causes count: a container that runs again and keeps running has no failure.

use std::collections::BTreeMap;

use crds::{
    failure::{Failure, Reason},
    modeldeployment::LastFailure,
    settings::{Place, Variable, variable},
    startup::StartupStatus,
};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Pod},
    },
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::{
    names::{FETCH_CONTAINER, Names, RUNTIME_CONTAINER},
    pods::{self, Replica, Stage, fetch_status, runtime_status},
    reconcile::{
        plan::{Plan, PodOrder, Source},
        quota,
    },
};

/// A container that failed and runs again counts as failing for this time, so that the crash loop of a process that
/// lives for seconds does not look like progress between two crashes.
const SETTLED_AFTER: SignedDuration = SignedDuration::from_secs(20);
/// The kubelet kills a container for its startup probe at most this long before the timeout: two probe periods, for
/// rounding.
const STARTUP_KILL_BEFORE: SignedDuration = SignedDuration::from_secs(4);
/// And at most this long after it, besides the drain: the probe's timeout and the termination grace period.
const STARTUP_KILL_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// A new pod may need Secrets and ConfigMaps before the kubelet has read them. It tries again, so only what lasts for this
/// time is a failure.
const OBJECTS_READ_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// Longest message of the kubelet, the scheduler or a container that is shown, in characters.
const TEXT_CHARS_MAX: usize = 600;

/// What a diagnosis needs besides the pods.
#[derive(Clone, Copy, Debug)]
pub(super) struct Inputs<'a> {
    pub plan: &'a Plan,
    /// The Deployment that makes the pods.
    pub deployment: &'a Deployment,
    /// The pods of the Job that checks the new spec.
    pub check_pods: &'a [Pod],
    /// How far starting pods have come, by pod name.
    pub startups: &'a BTreeMap<String, StartupStatus>,
    pub now: Timestamp,
}

impl Inputs<'_> {
    /// Resource name of the GPUs that a replica requests.
    fn gpu_resource(&self) -> Option<&str> {
        Some(self.plan.gpu.as_ref()?.resource_name.as_str())
    }
}

/// The part of a start that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Getting a pod and a node for it.
    Scheduling,
    /// Getting the model.
    Fetch,
    /// Serving it.
    Runtime,
    /// What the pods are made from.
    Template,
}

/// How a failure can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// The operation is retried, and may succeed without a change by the user.
    Automatic,
    /// Somebody has to change something.
    Manual,
}

/// A failure and where it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Diagnosis {
    /// The cause.
    pub failure: Failure,
    /// The part of the start.
    pub part: Part,
    /// How it can end.
    pub recovery: Recovery,
    /// Name of the pod, or of the Deployment if there is no pod.
    pub pod: String,
    /// Exit code of the container, if it ran.
    pub exit_code: Option<i32>,
    /// When it happened, if Kubernetes recorded it.
    pub time: Option<Timestamp>,
}

impl Diagnosis {
    /// As the status shows it.
    pub(super) fn to_status(&self) -> LastFailure {
        let container = match self.part {
            Part::Scheduling | Part::Template => None,
            Part::Fetch => Some(FETCH_CONTAINER),
            Part::Runtime => Some(RUNTIME_CONTAINER),
        };
        LastFailure {
            pod: self.pod.clone(),
            container: container.map(str::to_string),
            reason: self.failure.reason.to_string(),
            exit_code: self.exit_code,
            message: self.failure.message.clone(),
            remedy: self.failure.remedy.clone(),
            time: self.time.map(|time| time.to_string()),
        }
    }
}

/// What keeps the replicas from becoming ready. The first that exists of: the failure of the newest living pod that
/// has one, what a starting pod retries, the API server's refusal to create pods, and, while no pod is ready, the end
/// of the newest pod that ended.
pub(super) fn of_replicas(replicas: &[&Replica<'_>], inputs: &Inputs<'_>) -> Option<Diagnosis> {
    if inputs.plan.replicas_now() < inputs.plan.replicas {
        return check_failure(inputs);
    }
    if inputs.plan.pod_order == PodOrder::CheckFirst {
        return Some(of_check(replicas, inputs));
    }
    let newest_first = || replicas.iter().rev();
    let mut living = newest_first().filter(|replica| replica.is_alive());
    let mut ended = newest_first().filter(|replica| replica.stage == Stage::Ended);
    let none_ready = !replicas.iter().any(|replica| replica.stage == Stage::Ready);
    living
        .find_map(|replica| of_pod(replica, inputs))
        .or_else(|| newest_first().find_map(|replica| of_retry(replica, inputs)))
        .or_else(|| of_deployment(inputs.deployment))
        .or_else(|| {
            ended
                .find_map(|replica| of_ended_pod(replica, inputs))
                .filter(|_| none_ready)
        })
}

fn of_pod(replica: &Replica<'_>, inputs: &Inputs<'_>) -> Option<Diagnosis> {
    if replica.stage == Stage::Ready {
        return None;
    }
    // Where an old pod ends first, the new one waits for its place.
    let waits_for_node =
        || unscheduled(replica, inputs).filter(|_| inputs.plan.pod_order != PodOrder::OldFirst);
    waits_for_node()
        .or_else(|| of_container(replica, Part::Fetch, inputs))
        .or_else(|| of_container(replica, Part::Runtime, inputs))
        .or_else(|| of_unready(replica))
}

/// Why a rollout that has no room for a new pod does not go on: what the check of the new spec failed with, else that it
/// is not complete.
fn of_check(replicas: &[&Replica<'_>], inputs: &Inputs<'_>) -> Diagnosis {
    if let Some(failed) = check_failure(inputs) {
        return failed;
    }
    let mut newest_first = replicas.iter().rev();
    let no_room = newest_first
        .find_map(|replica| unscheduled(replica, inputs))
        .or_else(|| of_deployment(inputs.deployment));
    let words = no_room
        .as_ref()
        .map_or("", |no_room| no_room.failure.message.as_str());
    Diagnosis {
        failure: Failure::new(
            Reason::RolloutBlockedNoRoom,
            format!("there is no room for a new pod beside the old ones: {words}"),
            format!(
                "wait: once Job {} has checked the new spec, an old pod makes room for a new one; or add a node",
                Names::of(&inputs.plan.name).check
            ),
        ),
        part: Part::Scheduling,
        recovery: Recovery::Automatic,
        pod: no_room
            .as_ref()
            .map(|no_room| no_room.pod.clone())
            .unwrap_or_default(),
        exit_code: None,
        time: no_room.and_then(|no_room| no_room.time),
    }
}

/// What the Job that reads the spec before pods do failed with.
fn check_failure(inputs: &Inputs<'_>) -> Option<Diagnosis> {
    let checks = pods::replicas(inputs.check_pods);
    let failed = |check: &Replica<'_>| {
        of_container(check, Part::Fetch, inputs).or_else(|| of_container(check, Part::Runtime, inputs))
    };
    checks
        .iter()
        .rev()
        .filter(|check| check.is_alive())
        .find_map(failed)
}

/// Why a pod that was ready is not ready any more. If its container is still ready, only the node's report is missing.
fn of_unready(replica: &Replica<'_>) -> Option<Diagnosis> {
    let since = pods::unready_since(replica.pod)?;
    let node = || replica.pod.spec.as_ref()?.node_name.as_deref();
    let failure = match runtime_status(replica.pod)?.ready {
        true => Failure::new(
            Reason::NodeLost,
            format!(
                "node {} does not report since {since}, so pod {} gets no requests",
                node().unwrap_or_default(),
                replica.name
            ),
            "repair the node, or delete it: Kubernetes then replaces its pods",
        ),
        false => Failure::new(
            Reason::ReplicaUnready,
            format!(
                "pod {} was ready and does not answer its readiness probe since {since}",
                replica.name
            ),
            format!(
                "read its log and its events; kubectl delete pod {} replaces it",
                replica.name
            ),
        ),
    };
    Some(Diagnosis {
        failure,
        part: Part::Runtime,
        recovery: Recovery::Automatic,
        pod: replica.name.into(),
        exit_code: None,
        time: Some(since),
    })
}

/// The failure that a starting pod reports and retries.
fn of_retry(replica: &Replica<'_>, inputs: &Inputs<'_>) -> Option<Diagnosis> {
    let part = match replica.stage {
        Stage::Downloading => Part::Fetch,
        Stage::Loading => Part::Runtime,
        Stage::Unscheduled
        | Stage::Starting
        | Stage::Unready
        | Stage::Ready
        | Stage::Leaving
        | Stage::Ended => return None,
    };
    let problem = inputs.startups.get(replica.name)?.problem.clone()?;
    Some(Diagnosis {
        failure: in_words_of_the_spec(problem, inputs.plan),
        part,
        recovery: Recovery::Automatic,
        pod: replica.name.into(),
        exit_code: None,
        time: None,
    })
}

fn unscheduled(replica: &Replica<'_>, inputs: &Inputs<'_>) -> Option<Diagnosis> {
    let conditions = replica.pod.status.as_ref()?.conditions.as_ref()?;
    let refusal = conditions.iter().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    })?;
    Some(Diagnosis {
        failure: why_unschedulable(refusal.message.as_deref().unwrap_or_default(), inputs),
        part: Part::Scheduling,
        recovery: Recovery::Automatic,
        pod: replica.name.into(),
        exit_code: None,
        time: refusal.last_transition_time.as_ref().map(|Time(at)| *at),
    })
}

fn why_unschedulable(message: &str, inputs: &Inputs<'_>) -> Failure {
    let lower = message.to_ascii_lowercase();
    let lacks_gpu = |name: &str| message.contains(&format!("Insufficient {name}"));
    let (reason, remedy) = if inputs.gpu_resource().is_some_and(lacks_gpu) {
        (
            Reason::InsufficientGPU,
            "add a node with enough free GPUs, or lower spec.resources.gpu.count",
        )
    } else if lower.contains("persistentvolumeclaim") || lower.contains("volume") {
        (
            Reason::VolumeNotBound,
            "create the claim, or set a storage class that can provision it (kubectl describe pvc)",
        )
    } else {
        (
            Reason::Unschedulable,
            "lower spec.resources, or change spec.scheduling and spec.resources.gpu.product to match a node",
        )
    };
    Failure::new(reason, beginning_of(message), remedy)
}

fn of_container(replica: &Replica<'_>, part: Part, inputs: &Inputs<'_>) -> Option<Diagnosis> {
    let status = match part {
        Part::Scheduling | Part::Template => None,
        Part::Fetch => fetch_status(replica.pod),
        Part::Runtime => runtime_status(replica.pod),
    }?;
    let state = status.state.as_ref()?;
    let waiting = state
        .waiting
        .as_ref()
        .filter(|waiting| !(is_not_read(waiting) && is_new(replica.pod, inputs.now)));
    let waiting = waiting.and_then(why_waiting);
    if let Some(failure) = waiting {
        return Some(Diagnosis {
            failure,
            part,
            recovery: Recovery::Manual,
            pod: replica.name.into(),
            exit_code: None,
            time: None,
        });
    }
    let exit = last_exit(status, inputs.now)?;
    let timeout = (part == Part::Runtime && was_killed_at_startup(exit, inputs.plan))
        .then(|| inputs.plan.startup_timeout());
    Some(Diagnosis {
        failure: in_words_of_the_spec(why_exited(exit, timeout), inputs.plan),
        part,
        recovery: Recovery::Manual,
        pod: replica.name.into(),
        exit_code: Some(exit.exit_code),
        time: exit.finished_at.as_ref().map(|Time(at)| *at),
    })
}

/// The exit that is the current failure of the container, if there is one.
fn last_exit(status: &ContainerStatus, now: Timestamp) -> Option<&ContainerStateTerminated> {
    let state = status.state.as_ref()?;
    let is_init_done =
        |exit: &ContainerStateTerminated| exit.exit_code == 0 && status.name == FETCH_CONTAINER;
    if let Some(exit) = &state.terminated {
        return (!is_init_done(exit)).then_some(exit);
    }
    let previous = status
        .last_state
        .as_ref()?
        .terminated
        .as_ref()
        .filter(|exit| !is_init_done(exit))?;
    let Some(running) = &state.running else {
        return Some(previous);
    };
    let since = running
        .started_at
        .as_ref()
        .map(|Time(at)| now.duration_since(*at));
    let settled = status.started == Some(true) && status.name != FETCH_CONTAINER;
    (!settled && since.is_some_and(|since| since < SETTLED_AFTER)).then_some(previous)
}

/// Whether the container ran for about the startup timeout, after which the kubelet kills it.
fn was_killed_at_startup(exit: &ContainerStateTerminated, plan: &Plan) -> bool {
    let (Some(Time(started)), Some(Time(finished))) = (&exit.started_at, &exit.finished_at) else {
        return false;
    };
    let lifetime = finished.duration_since(*started);
    let timeout = plan.startup_timeout();
    let latest = timeout + plan.drain_timeout() + STARTUP_KILL_AFTER;
    (timeout - STARTUP_KILL_BEFORE..=latest).contains(&lifetime)
}

/// Whether the kubelet has not read a Secret or ConfigMap yet, which says nothing about the object.
fn is_not_read(waiting: &ContainerStateWaiting) -> bool {
    let message = waiting.message.as_deref().unwrap_or_default();
    ["secret", "configmap"]
        .iter()
        .any(|kind| message.contains(&format!("failed to sync {kind} cache")))
}

fn is_new(pod: &Pod, now: Timestamp) -> bool {
    pods::condition_since(pod, "PodScheduled")
        .is_some_and(|placed| now.duration_since(placed) < OBJECTS_READ_AFTER)
}

fn why_waiting(waiting: &ContainerStateWaiting) -> Option<Failure> {
    let message = beginning_of(waiting.message.as_deref().unwrap_or_default());
    let kubelet = waiting.reason.as_deref()?;
    if is_not_read(waiting) {
        return Some(Failure::new(
            Reason::ContainerStartFailed,
            format!("{kubelet}: {message}"),
            "read the kubelet's log on the pod's node: it cannot read the pod's Secrets and ConfigMaps",
        ));
    }
    match kubelet {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => Some(Failure::new(
            Reason::ImagePullFailed,
            format!("{kubelet}: {message}"),
            "correct spec.runtime.image, or give the nodes access to its registry",
        )),
        "FailedMount" | "FailedAttachVolume" => Some(why_not_mounted(message)),
        "CreateContainerConfigError" if message.to_ascii_lowercase().contains("secret") => {
            Some(Failure::new(
                Reason::SecretMissing,
                message,
                "create the Secret in this namespace, with the key that the ModelDeployment names",
            ))
        }
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "StartError"
        | "PostStartHookError" => Some(Failure::new(
            Reason::ContainerStartFailed,
            format!("{kubelet}: {message}"),
            "correct spec.runtime.image; the image must contain slipway-runtime and run as user 65532",
        )),
        _ => None,
    }
}

/// Why the kubelet cannot mount a volume of the pod.
fn why_not_mounted(message: String) -> Failure {
    let lower = message.to_ascii_lowercase();
    let (reason, remedy) = if lower.contains("secret \"") || lower.contains("secret key") {
        (
            Reason::SecretMissing,
            "create the Secret in this namespace, with the key that the ModelDeployment names",
        )
    } else if lower.contains("configmap \"") || lower.contains("config key") {
        (
            Reason::ContainerStartFailed,
            "create the ConfigMap in this namespace, with the key that spec.caBundle names",
        )
    } else {
        (
            Reason::VolumeNotBound,
            "make the volume available on the pod's node (kubectl describe pod, kubectl describe pvc)",
        )
    };
    Failure::new(reason, message, remedy)
}

/// `startup_timeout` is set if the kubelet killed the container at the end of it.
fn why_exited(exit: &ContainerStateTerminated, startup_timeout: Option<SignedDuration>) -> Failure {
    let message = exit.message.as_deref().unwrap_or_default();
    if let Some(failure) = Failure::from_termination_message(message) {
        return failure;
    }
    if exit.reason.as_deref() == Some("OOMKilled") {
        return Failure::new(
            Reason::OutOfMemory,
            "the container used more memory than its limit",
            "raise spec.resources.memory, or lower engine.maxModelLen and engine.maxNumSeqs",
        );
    }
    let message = end_of(message.trim());
    if let Some(reason) = Reason::ALL
        .iter()
        .find(|reason| i32::from(reason.exit_code()) == exit.exit_code)
    {
        return Failure::new(*reason, message, "read the log of the container");
    }
    if let Some(timeout) = startup_timeout {
        return Failure::new(
            Reason::StartupTimeout,
            format!(
                "the replica was not ready {} s after its start",
                timeout.as_secs()
            ),
            "raise spec.startupTimeoutSeconds, or give the replica more CPU or a faster disk",
        );
    }
    let message = match message.as_str() {
        "" => format!("exit code {}, without a message", exit.exit_code),
        message => format!("exit code {}: {message}", exit.exit_code),
    };
    Failure::new(
        Reason::CrashLoop,
        message,
        "read the log of the container (kubectl logs --previous)",
    )
}

/// The API server's refusal to create pods.
fn of_deployment(deployment: &Deployment) -> Option<Diagnosis> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let refusal = conditions
        .iter()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    Some(Diagnosis {
        failure: why_refused(refusal.message.as_deref().unwrap_or_default()),
        part: Part::Scheduling,
        recovery: Recovery::Manual,
        pod: deployment.metadata.name.clone().unwrap_or_default(),
        exit_code: None,
        time: refusal.last_transition_time.as_ref().map(|Time(at)| *at),
    })
}

fn why_refused(message: &str) -> Failure {
    let lower = message.to_ascii_lowercase();
    let says = |words: &str| lower.contains(words);
    let (reason, remedy) = if says("priorityclass") || says("priority class") {
        (
            Reason::InvalidSetting,
            "create the PriorityClass, or correct spec.scheduling.priorityClassName",
        )
    } else if says("runtimeclass") {
        (
            Reason::InvalidSetting,
            "create the RuntimeClass, or correct spec.scheduling.runtimeClassName",
        )
    } else if says("serviceaccount") || says("service account") {
        (
            Reason::PodsRefused,
            "wait until the ServiceAccount exists; the operator makes it again",
        )
    } else if says("quota") {
        let remedy = quota::remedy(message);
        return Failure::new(Reason::PodsRefused, beginning_of(message), remedy);
    } else if says("podsecurity") {
        (
            Reason::PodsRefused,
            "exempt the namespace from this level of Pod Security, or change what the message names",
        )
    } else if says("usage per") || says("limit to request ratio") {
        (
            Reason::PodsRefused,
            "set spec.resources within the LimitRange of the namespace, or change the LimitRange",
        )
    } else {
        (
            Reason::PodsRefused,
            "change what the message names, or exempt the namespace from the policy that refuses the pods",
        )
    };
    Failure::new(reason, beginning_of(message), remedy)
}

/// The failure with the fields of the ModelDeployment in the place of variables, which a process names because it does
/// not know what made its settings.
fn in_words_of_the_spec(failure: Failure, plan: &Plan) -> Failure {
    let translated = |text: &str| {
        let is_in_name =
            |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
        let mut out = String::new();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(|letter| !is_in_name(letter)).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            out.push_str(&field_of(word, plan).unwrap_or_else(|| word.to_string()));
            let between = after.find(is_in_name).unwrap_or(after.len());
            out.push_str(&after[..between]);
            rest = &after[between..];
        }
        out
    };
    Failure {
        reason: failure.reason,
        message: translated(&failure.message),
        remedy: translated(&failure.remedy),
    }
}

/// The field of the setting with this variable.
fn field_of(word: &str, plan: &Plan) -> Option<String> {
    let Variable::Setting(setting) = variable(word, "") else {
        return None;
    };
    match (setting.row.place, &plan.source) {
        (_, Source::Claim { .. }) if setting.field == "model" => Some("spec.model.pvc.path".into()),
        (Place::Field, _) => Some(format!("spec.{}.{}", setting.group, setting.camel())),
        (Place::At(path), _) => Some(path.into()),
        (Place::RuntimeOnly(_) | Place::Ignored(_), _) => None,
    }
}

/// The end of a pod that the kubelet evicted or did not admit.
fn of_ended_pod(replica: &Replica<'_>, inputs: &Inputs<'_>) -> Option<Diagnosis> {
    let pod: &Pod = replica.pod;
    let status = pod.status.as_ref()?;
    let kubelet = status.reason.as_deref()?;
    let message = status.message.as_deref().unwrap_or_default();
    let lower = message.to_ascii_lowercase();
    let (reason, remedy) =
        if lower.contains("ephemeral") || lower.contains("emptydir") || lower.contains("disk") {
            (
                Reason::DiskFull,
                "raise spec.cache.size, or use a cache of type PVC",
            )
        } else if inputs.gpu_resource().is_some_and(|name| message.contains(name)) {
            (Reason::InsufficientGPU, "add a node with enough healthy GPUs")
        } else if lower.contains("memory") {
            (
                Reason::OutOfMemory,
                "raise spec.resources.memory, or use a larger node",
            )
        } else {
            (
                Reason::Unschedulable,
                "read the events of the pod (kubectl describe pod)",
            )
        };
    Some(Diagnosis {
        failure: Failure::new(reason, format!("{kubelet}: {}", beginning_of(message)), remedy),
        part: Part::Scheduling,
        recovery: Recovery::Manual,
        pod: replica.name.into(),
        exit_code: None,
        time: None,
    })
}

/// The first characters of a message of Kubernetes: its beginning says what is refused and why.
fn beginning_of(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        None => text.to_string(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// The last characters of a text, because the end of a log has more information than its beginning.
fn end_of(text: &str) -> String {
    if text.chars().count() <= TEXT_CHARS_MAX {
        return text.to_string();
    }
    let skipped = text.chars().count() - TEXT_CHARS_MAX;
    std::iter::once('…').chain(text.chars().skip(skipped)).collect()
}
