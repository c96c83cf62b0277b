//! The conditions of a ModelDeployment: which are true, with a reason and a message for each.
//!
//! Pure. `Rollout` counts; this file adds the words.

use crds::{
    conditions::{ConditionType, reason},
    failure::Failure,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

use super::{
    diagnosis::Part,
    rollout::{Outcome, Rollout, count},
};
use crate::{
    autoscaler::Activity,
    names::OWNER_LABEL,
    pods::{ModelFiles, Stage},
};

/// Longest message, in characters.
const MESSAGE_CHARS_MAX: usize = 1024;

/// What happens before the first pod.
const PREFETCHING: &str = "a Job downloads the model, so that no pod holds its resources meanwhile";

/// One condition without its times.
#[derive(Clone, Debug, PartialEq)]
struct ConditionState {
    holds: bool,
    reason: String,
    message: String,
}

impl ConditionState {
    fn yes(reason: &str, message: impl Into<String>) -> Self {
        Self {
            holds: true,
            reason: reason.into(),
            message: message.into(),
        }
    }

    fn no(reason: &str, message: impl Into<String>) -> Self {
        Self {
            holds: false,
            ..Self::yes(reason, message)
        }
    }

    fn failed(failure: &Failure) -> Self {
        Self::no(failure.reason.as_str(), message(failure))
    }
}

/// What happened and the remedy, as one text. If it is too long, the remedy stays whole.
pub(super) fn message(failure: &Failure) -> String {
    let remedy = match failure.remedy.as_str() {
        "" => String::new(),
        remedy => format!(". Remedy: {remedy}"),
    };
    let chars_max = MESSAGE_CHARS_MAX.saturating_sub(remedy.chars().count());
    let what = shortened(failure.message.trim_end_matches('.'), chars_max);
    format!("{what}{remedy}")
}

/// The text without its middle, if it has more than `chars_max` characters: the beginning names the operation, and the
/// end the cause.
fn shortened(text: &str, chars_max: usize) -> String {
    let n_chars = text.chars().count();
    if n_chars <= chars_max {
        return text.to_string();
    }
    let kept = chars_max.saturating_sub(3);
    let end = kept / 3;
    let beginning: String = text.chars().take(kept - end).collect();
    let end: String = text.chars().skip(n_chars - end).collect();
    format!("{beginning} … {end}")
}

/// Every condition. Each type has a field, so that a type without a state does not compile.
pub(super) struct Conditions {
    accepted: ConditionState,
    model_ready: ConditionState,
    scheduled: ConditionState,
    engine_ready: ConditionState,
    available: ConditionState,
    progressing: ConditionState,
    /// `None` without autoscaling.
    autoscaling_active: Option<ConditionState>,
    ready: ConditionState,
    reconciling: ConditionState,
    stalled: ConditionState,
}

impl Conditions {
    pub(super) fn of(rollout: &Rollout<'_>) -> Self {
        let ready = ready(rollout);
        let is_stalled = rollout.is_stalled();
        Self {
            reconciling: if_holds(!ready.holds && !is_stalled, &ready),
            stalled: if_holds(is_stalled, &ready),
            accepted: accepted(rollout),
            model_ready: model_ready(rollout),
            scheduled: scheduled(rollout),
            engine_ready: engine_ready(rollout),
            available: available(rollout),
            progressing: progressing(rollout),
            autoscaling_active: autoscaling_active(rollout),
            ready,
        }
    }

    /// As the status lists them. A condition whose status did not change keeps its transition time.
    pub(super) fn with_times(
        &self,
        previous: &[Condition],
        generation: Option<i64>,
        now: Timestamp,
    ) -> Vec<Condition> {
        let condition = |type_: &ConditionType| {
            let state = self.get(*type_)?;
            let status = if state.holds { "True" } else { "False" };
            let unchanged = previous
                .iter()
                .find(|old| old.type_ == type_.as_str() && old.status == status);
            Some(Condition {
                type_: type_.as_str().into(),
                status: status.into(),
                reason: state.reason.clone(),
                message: shortened(&state.message, MESSAGE_CHARS_MAX),
                observed_generation: generation,
                last_transition_time: unchanged.map_or(Time(now), |old| old.last_transition_time.clone()),
            })
        };
        ConditionType::ALL.iter().filter_map(condition).collect()
    }

    fn get(&self, type_: ConditionType) -> Option<&ConditionState> {
        Some(match type_ {
            ConditionType::Accepted => &self.accepted,
            ConditionType::ModelReady => &self.model_ready,
            ConditionType::Scheduled => &self.scheduled,
            ConditionType::EngineReady => &self.engine_ready,
            ConditionType::Available => &self.available,
            ConditionType::Progressing => &self.progressing,
            ConditionType::AutoscalingActive => return self.autoscaling_active.as_ref(),
            ConditionType::Ready => &self.ready,
            ConditionType::Reconciling => &self.reconciling,
            ConditionType::Stalled => &self.stalled,
        })
    }
}

/// A condition for kstatus, which repeats the reason of `Ready`.
fn if_holds(holds: bool, ready: &ConditionState) -> ConditionState {
    ConditionState {
        holds,
        reason: ready.reason.clone(),
        message: if holds {
            ready.message.clone()
        } else {
            String::new()
        },
    }
}

fn accepted(rollout: &Rollout<'_>) -> ConditionState {
    match (&rollout.stopped, rollout.outcome) {
        (Some(failure), _) => ConditionState::failed(failure),
        (None, Outcome::Applied { plan, notes, .. }) => {
            let notes: Vec<&str> = plan.notes.iter().chain(notes).map(String::as_str).collect();
            ConditionState::yes(reason::ACCEPTED, notes.join("; "))
        }
        (None, Outcome::Refused(_) | Outcome::Failed { .. }) => ConditionState::yes(reason::ACCEPTED, ""),
    }
}

fn scheduled(rollout: &Rollout<'_>) -> ConditionState {
    if rollout.all_current(|replica| replica.stage > Stage::Unscheduled) {
        return ConditionState::yes(reason::SCHEDULED, "every replica has a node");
    }
    let waiting = ConditionState::no(reason::SCHEDULING, "a pod is waiting for a node");
    unless_zero_or_failed(rollout, Part::Scheduling, waiting)
}

fn model_ready(rollout: &Rollout<'_>) -> ConditionState {
    if rollout.all_current(|replica| replica.model == ModelFiles::Complete) {
        return ConditionState::yes(reason::DOWNLOADED, "every replica has the model's files");
    }
    let waiting = match rollout.stage() {
        _ if rollout.is_prefetching() => ConditionState::no(reason::DOWNLOADING, PREFETCHING),
        Some(Stage::Downloading) => ConditionState::no(reason::DOWNLOADING, "the model is being downloaded"),
        _ => ConditionState::no(reason::PENDING, "a replica does not have the model's files yet"),
    };
    unless_zero_or_failed(rollout, Part::Fetch, waiting)
}

fn engine_ready(rollout: &Rollout<'_>) -> ConditionState {
    if rollout.all_current(|replica| replica.stage == Stage::Ready) {
        return ConditionState::yes(reason::LOADED, "the engine of every replica is ready");
    }
    let waiting = match rollout.stage() {
        Some(Stage::Loading) => ConditionState::no(reason::LOADING, "the engine is loading the model"),
        _ => ConditionState::no(reason::PENDING, "the engine of a replica has not started yet"),
    };
    unless_zero_or_failed(rollout, Part::Runtime, waiting)
}

fn available(rollout: &Rollout<'_>) -> ConditionState {
    let no = |message| ConditionState::no(reason::NO_READY_REPLICA, message);
    match rollout.n_ready() {
        0 => at_zero(rollout).unwrap_or_else(|| no("no replica is ready")),
        _ if !rollout.routed => no("the Service does not route to the ready replica yet"),
        n_ready => {
            let message = format!("ready replicas: {n_ready}{}", strays(rollout));
            ConditionState::yes(reason::SERVING, message)
        }
    }
}

/// A sentence on pods that the Service selects although they are no replicas.
fn strays(rollout: &Rollout<'_>) -> String {
    match rollout.strays {
        [] => String::new(),
        strays => format!(
            "; the Service also leads to pods that carry the label {OWNER_LABEL} and are no replicas: {}",
            strays.join(", ")
        ),
    }
}

fn progressing(rollout: &Rollout<'_>) -> ConditionState {
    if let Some(failure) = rollout.failure() {
        return ConditionState::failed(failure);
    }
    let stable = || ConditionState::no(reason::STABLE, "nothing is changing");
    let leaving = || ConditionState::yes(reason::SCALING, "pods are being removed");
    match rollout.desired {
        0 if rollout.alive.is_empty() && rollout.n_leaving == 0 => stable(),
        0 => leaving(),
        _ if rollout.is_ready() && rollout.n_leaving > 0 => leaving(),
        _ if rollout.is_ready() => stable(),
        _ => ConditionState {
            holds: true,
            ..unfinished(rollout)
        },
    }
}

/// Whether the autoscaler reads the load; a spec that is not applied keeps silent about it.
fn autoscaling_active(rollout: &Rollout<'_>) -> Option<ConditionState> {
    let Outcome::Applied { plan, .. } = rollout.outcome else {
        return None;
    };
    let state = match plan.autoscaled.as_ref()?.activity {
        Activity::Active => {
            ConditionState::yes(reason::LOAD_READ, "the load of the replicas decides their number")
        }
        Activity::AtZero => ConditionState::yes(
            reason::WAITING_FOR_REQUESTS,
            "no replica runs; gateways report a request that waits for one",
        ),
        Activity::NoGateway => ConditionState::no(
            reason::NO_ANSWER,
            "no gateway answers at port 8001, so no request can start a replica. Remedy: look at the pods of the gateway, and let \
             the operator reach them",
        ),
        Activity::NoReadyReplica => ConditionState::no(
            reason::NO_READY_REPLICA,
            "no replica is ready, so their number stays as it is",
        ),
        Activity::NoAnswer => ConditionState::no(
            reason::NO_ANSWER,
            "ready replicas do not report their load at port 8001, so their number stays as it is. Remedy: let the operator's \
             namespace reach the port",
        ),
        Activity::NoRoom => ConditionState::no(
            reason::NO_ROOM,
            "a replica has found no node for two minutes, so there will be no more replicas. Remedy: add a node, or lower \
             spec.autoscaling.maxReplicas",
        ),
    };
    Some(state)
}

fn ready(rollout: &Rollout<'_>) -> ConditionState {
    if let Some(failure) = rollout.failure() {
        return ConditionState::failed(failure);
    }
    if rollout.is_ready() {
        return ConditionState::yes(reason::READY, ready_replicas(rollout));
    }
    match rollout.desired {
        0 if rollout.is_at_zero() => {
            let message = format!(
                "{}, and no replica runs{}",
                why_zero(rollout),
                what_wakes(rollout)
            );
            ConditionState::yes(reason::SCALED_TO_ZERO, message)
        }
        0 => ConditionState::no(reason::SCALING, "pods are being removed"),
        _ => unfinished(rollout),
    }
}

/// The state of a ModelDeployment that is scaled to zero.
fn at_zero(rollout: &Rollout<'_>) -> Option<ConditionState> {
    let message = || format!("{}{}", why_zero(rollout), what_wakes(rollout));
    let state = || ConditionState::no(reason::SCALED_TO_ZERO, message());
    (rollout.desired == 0).then(state)
}

fn why_zero(rollout: &Rollout<'_>) -> &'static str {
    match rollout.is_autoscaled() {
        true => "no request came for the time of spec.autoscaling.scaleToZeroAfterSeconds",
        false => "spec.replicas is 0",
    }
}

fn what_wakes(rollout: &Rollout<'_>) -> &'static str {
    match rollout.is_autoscaled() {
        true => "; a request at the gateway starts one",
        false => "",
    }
}

/// `waiting`, unless no replica is desired or this part of the start failed.
fn unless_zero_or_failed(rollout: &Rollout<'_>, part: Part, waiting: ConditionState) -> ConditionState {
    let failed = || rollout.failure_in(part).map(ConditionState::failed);
    at_zero(rollout).or_else(failed).unwrap_or(waiting)
}

/// What the ModelDeployment is waiting for.
fn unfinished(rollout: &Rollout<'_>) -> ConditionState {
    let (reason, activity) = match rollout.stage() {
        _ if rollout.is_prefetching() => (reason::DOWNLOADING, PREFETCHING),
        Some(Stage::Unscheduled) => (reason::SCHEDULING, "a pod is waiting for a node"),
        Some(Stage::Starting) => (reason::STARTING, "images are being pulled and containers created"),
        Some(Stage::Downloading) => (reason::DOWNLOADING, "the model is being downloaded"),
        Some(Stage::Loading) => (reason::LOADING, "the engine is loading the model"),
        Some(Stage::Unready) => (reason::PENDING, "a replica is not ready any more"),
        _ if rollout.n_older > 0 => (reason::ROLLING_OUT, "older pods are being replaced"),
        _ if count(rollout.current.len()) != rollout.desired => {
            (reason::SCALING, "the number of pods is changing")
        }
        _ if !rollout.routed => (reason::PENDING, "the Service does not route to them yet"),
        _ => (reason::PENDING, "the Deployment controller has not finished yet"),
    };
    ConditionState::no(reason, format!("{}; {activity}", ready_replicas(rollout)))
}

fn ready_replicas(rollout: &Rollout<'_>) -> String {
    format!("{} of {} replicas ready", rollout.n_ready(), rollout.desired)
}
