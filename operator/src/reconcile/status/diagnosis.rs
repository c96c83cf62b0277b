//! Why a pod does not come up: its exit, its termination message, the kubelet's and the scheduler's words
//! become one [`Failure`] with a remedy.
//!
//! Pure. A cause is current or it is none: a container that runs again and keeps running has no failure.

use std::collections::BTreeMap;

use crds::{
    failure::{Failure, Reason},
    modeldeployment::LastFailure,
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
    names::{FETCH_CONTAINER, RUNTIME_CONTAINER},
    pods::{Replica, Stage, fetch_status, runtime_status},
};

/// A container that failed and runs again counts as failing for so long, so that a crash loop of a process
/// that lives for seconds does not look like progress in between.
const SETTLED_AFTER: SignedDuration = SignedDuration::from_secs(20);
/// A kubelet kills a container for its startup probe within so long of the timeout: two probe periods before
/// (rounding), the probe's timeout and the termination grace after.
const STARTUP_KILL_BEFORE: SignedDuration = SignedDuration::from_secs(4);
const STARTUP_KILL_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// Longest text of others that is passed on, in characters.
const TEXT_CHARS_MAX: usize = 600;

/// What a diagnosis needs besides the pod.
#[derive(Clone, Debug)]
pub struct Circumstances<'a> {
    /// What starting pods say, by pod name.
    pub progress: &'a BTreeMap<String, StartupStatus>,
    /// Resource name of the GPUs that a replica asks for.
    pub gpu_resource: Option<String>,
    /// Longest time from the engine's start to ready.
    pub startup_timeout: SignedDuration,
    /// Longest drain, which delays the end of a killed container.
    pub drain_timeout: SignedDuration,
    /// Now.
    pub now: Timestamp,
}

/// The part of a start that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Getting a pod and a node for it.
    Scheduling,
    /// Getting the model.
    Fetch,
    /// Serving it.
    Runtime,
}

/// Whether it may go on by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// It is tried again, and may go on as soon as the world allows.
    Waits,
    /// It needs somebody.
    Fails,
}

/// A failure and where it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// The cause.
    pub failure: Failure,
    /// The part of the start.
    pub part: Part,
    /// Whether it may go on by itself.
    pub outlook: Outlook,
    /// Pod, or the Deployment where there is none.
    pub pod: String,
    /// Exit code of the container, if it ran.
    pub exit_code: Option<i32>,
    /// When, if somebody wrote it down.
    pub time: Option<Timestamp>,
}

impl Diagnosis {
    /// As the status shows it.
    pub fn to_status(&self) -> LastFailure {
        let container = match self.part {
            Part::Scheduling => None,
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

/// What keeps the replicas from coming up: the newest living one with a failure, else what a starting one says it
/// is retrying, else a refusal to create pods, else the newest pod that ended while none is ready.
pub fn of_replicas(
    replicas: &[&Replica<'_>],
    deployment: Option<&Deployment>,
    circumstances: &Circumstances<'_>,
) -> Option<Diagnosis> {
    let newest_first = || replicas.iter().rev();
    let living = newest_first().filter(|replica| replica.is_alive());
    let ended = newest_first().filter(|replica| replica.stage == Stage::Ended);
    let none_ready = !replicas.iter().any(|replica| replica.stage == Stage::Ready);
    living
        .filter_map(|replica| of_pod(replica, circumstances))
        .next()
        .or_else(|| newest_first().find_map(|replica| of_progress(replica, circumstances)))
        .or_else(|| deployment.and_then(of_deployment))
        .or_else(|| {
            ended
                .filter(|_| none_ready)
                .find_map(|replica| of_ended_pod(replica, circumstances))
        })
}

fn of_pod(replica: &Replica<'_>, circumstances: &Circumstances<'_>) -> Option<Diagnosis> {
    if replica.stage == Stage::Ready {
        return None;
    }
    unscheduled(replica, circumstances)
        .or_else(|| of_container(replica, Part::Fetch, circumstances))
        .or_else(|| of_container(replica, Part::Runtime, circumstances))
}

/// What a starting pod says it is retrying.
fn of_progress(replica: &Replica<'_>, circumstances: &Circumstances<'_>) -> Option<Diagnosis> {
    let part = match replica.stage {
        Stage::Downloading => Part::Fetch,
        Stage::Loading => Part::Runtime,
        Stage::Unscheduled | Stage::Starting | Stage::Ready | Stage::Leaving | Stage::Ended => return None,
    };
    Some(Diagnosis {
        failure: circumstances.progress.get(replica.name)?.problem.clone()?,
        part,
        outlook: Outlook::Waits,
        pod: replica.name.into(),
        exit_code: None,
        time: None,
    })
}

fn unscheduled(replica: &Replica<'_>, circumstances: &Circumstances<'_>) -> Option<Diagnosis> {
    let conditions = replica.pod.status.as_ref()?.conditions.as_ref()?;
    let refusal = conditions.iter().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    })?;
    let words = refusal.message.as_deref().unwrap_or_default();
    let (reason, remedy) = why_unschedulable(words, circumstances.gpu_resource.as_deref());
    Some(Diagnosis {
        failure: Failure::new(reason, shortened(words), remedy),
        part: Part::Scheduling,
        outlook: Outlook::Waits,
        pod: replica.name.into(),
        exit_code: None,
        time: refusal.last_transition_time.as_ref().map(|Time(at)| *at),
    })
}

fn why_unschedulable(words: &str, gpu_resource: Option<&str>) -> (Reason, &'static str) {
    let lacks_gpu = gpu_resource.is_some_and(|name| words.contains(&format!("Insufficient {name}")));
    if lacks_gpu {
        return (
            Reason::InsufficientGPU,
            "add a node with enough free GPUs, or lower spec.resources.gpu.count",
        );
    }
    let lower = words.to_ascii_lowercase();
    if lower.contains("persistentvolumeclaim") || lower.contains("volume") {
        return (
            Reason::VolumeNotBound,
            "create the claim, or name a storage class that can provision it (kubectl describe pvc)",
        );
    }
    (
        Reason::Unschedulable,
        "lower spec.resources, or correct spec.scheduling and spec.resources.gpu.product to fit a node",
    )
}

fn of_container(replica: &Replica<'_>, part: Part, circumstances: &Circumstances<'_>) -> Option<Diagnosis> {
    let status = match part {
        Part::Scheduling => None,
        Part::Fetch => fetch_status(replica.pod),
        Part::Runtime => runtime_status(replica.pod),
    }?;
    let state = status.state.as_ref()?;
    let waiting = state.waiting.as_ref().and_then(why_waiting);
    if let Some(failure) = waiting {
        return Some(Diagnosis {
            failure,
            part,
            outlook: Outlook::Fails,
            pod: replica.name.into(),
            exit_code: None,
            time: None,
        });
    }
    let exit = last_exit(status, circumstances.now)?;
    let drained_by = circumstances.startup_timeout + circumstances.drain_timeout + STARTUP_KILL_AFTER;
    let lived = lifetime(exit);
    let killed_at_startup = part == Part::Runtime
        && lived.is_some_and(|lived| {
            lived >= circumstances.startup_timeout - STARTUP_KILL_BEFORE && lived <= drained_by
        });
    Some(Diagnosis {
        failure: why_exited(exit, killed_at_startup.then_some(circumstances.startup_timeout)),
        part,
        outlook: Outlook::Fails,
        pod: replica.name.into(),
        exit_code: Some(exit.exit_code),
        time: exit.finished_at.as_ref().map(|Time(at)| *at),
    })
}

/// The exit that is the container's present trouble, if it has any.
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

fn lifetime(exit: &ContainerStateTerminated) -> Option<SignedDuration> {
    let (Time(from), Time(to)) = (exit.started_at.as_ref()?, exit.finished_at.as_ref()?);
    Some(to.duration_since(*from))
}

fn why_waiting(waiting: &ContainerStateWaiting) -> Option<Failure> {
    let words = shortened(waiting.message.as_deref().unwrap_or_default());
    let kubelet = waiting.reason.as_deref()?;
    match kubelet {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => Some(Failure::new(
            Reason::ImagePullFailed,
            format!("{kubelet}: {words}"),
            "correct spec.runtime.image, or let the nodes reach and log in to its registry",
        )),
        "CreateContainerConfigError" if words.to_ascii_lowercase().contains("secret") => Some(Failure::new(
            Reason::SecretMissing,
            words,
            "create the Secret in this namespace with the key that the ModelDeployment names",
        )),
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "StartError"
        | "PostStartHookError" => Some(Failure::new(
            Reason::ContainerStartFailed,
            format!("{kubelet}: {words}"),
            "correct spec.runtime.image; it must hold a slipway-runtime that runs as user 65532",
        )),
        _ => None,
    }
}

/// `killed_at_startup` is the startup timeout, if the container lived just that long.
fn why_exited(exit: &ContainerStateTerminated, killed_at_startup: Option<SignedDuration>) -> Failure {
    let words = exit.message.as_deref().unwrap_or_default();
    if let Some(failure) = Failure::from_termination_message(words) {
        return failure;
    }
    if exit.reason.as_deref() == Some("OOMKilled") {
        return Failure::new(
            Reason::OutOfMemory,
            "the container used more memory than its limit",
            "raise spec.resources.memory, or lower engine.maxModelLen and engine.maxNumSeqs",
        );
    }
    let tail = shortened(words.trim());
    if let Some(reason) = Reason::ALL
        .iter()
        .find(|reason| i32::from(reason.exit_code()) == exit.exit_code)
    {
        return Failure::new(*reason, tail, "see the log of the container");
    }
    if let Some(timeout) = killed_at_startup {
        return Failure::new(
            Reason::StartupTimeout,
            format!("not ready {} s after its start", timeout.as_secs()),
            "raise spec.startupTimeoutSeconds, or give the replica more CPU or a faster disk",
        );
    }
    let message = match tail.as_str() {
        "" => format!("exit code {} without a word", exit.exit_code),
        tail => format!("exit code {}: {tail}", exit.exit_code),
    };
    Failure::new(
        Reason::CrashLoop,
        message,
        "see the log of the container (kubectl logs --previous)",
    )
}

/// The API server refuses to create pods.
fn of_deployment(deployment: &Deployment) -> Option<Diagnosis> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let refusal = conditions
        .iter()
        .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")?;
    Some(Diagnosis {
        failure: Failure::new(
            Reason::PodsRefused,
            shortened(refusal.message.as_deref().unwrap_or_default()),
            "raise the quota, or exempt the namespace from the policy that the message names",
        ),
        part: Part::Scheduling,
        outlook: Outlook::Fails,
        pod: deployment.metadata.name.clone().unwrap_or_default(),
        exit_code: None,
        time: refusal.last_transition_time.as_ref().map(|Time(at)| *at),
    })
}

/// A pod that the kubelet evicted or did not admit.
fn of_ended_pod(replica: &Replica<'_>, circumstances: &Circumstances<'_>) -> Option<Diagnosis> {
    let pod: &Pod = replica.pod;
    let status = pod.status.as_ref()?;
    let kubelet = status.reason.as_deref()?;
    let words = status.message.as_deref().unwrap_or_default();
    let lower = words.to_ascii_lowercase();
    let names_gpu = circumstances
        .gpu_resource
        .as_deref()
        .is_some_and(|name| words.contains(name));
    let (reason, remedy) =
        if lower.contains("ephemeral") || lower.contains("emptydir") || lower.contains("disk") {
            (
                Reason::DiskFull,
                "raise spec.cache.size, or use a cache of type PVC",
            )
        } else if names_gpu {
            (Reason::InsufficientGPU, "add a node with enough healthy GPUs")
        } else if lower.contains("memory") {
            (
                Reason::OutOfMemory,
                "raise spec.resources.memory, or use a larger node",
            )
        } else {
            (Reason::Unschedulable, "see the pod's events")
        };
    Some(Diagnosis {
        failure: Failure::new(reason, format!("{kubelet}: {}", shortened(words)), remedy),
        part: Part::Scheduling,
        outlook: Outlook::Fails,
        pod: replica.name.into(),
        exit_code: None,
        time: None,
    })
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= TEXT_CHARS_MAX {
        return text.to_string();
    }
    // The end of a log says more than its beginning.
    let skipped = text.chars().count() - TEXT_CHARS_MAX;
    std::iter::once('…').chain(text.chars().skip(skipped)).collect()
}
