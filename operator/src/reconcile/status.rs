//! What is there becomes the status: counts, conditions, one phase, progress and the last failure.
//!
//! Computing is pure; [`publish`] sends it with one patch, if it changed, and an Event for each transition.

pub mod diagnosis;
mod transfer;

use std::time::Duration;

use crds::{
    ModelDeployment, ModelDeploymentStatus,
    conditions::{ConditionType, reason},
    failure::{Failure, Reason},
    modeldeployment::Phase,
};
use k8s_openapi::{
    api::apps::v1::Deployment,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType},
};

use self::diagnosis::{Circumstances, Diagnosis, Outlook, Part};
use super::{
    children::{Applied, Resources},
    observed::{Observed, ServiceAnswer},
    plan::Plan,
    validate::{desired_replicas, startup_timeout},
};
use crate::{
    context::Context,
    names::{self, FIELD_MANAGER},
    pods::{self, ModelFiles, Replica, Stage},
};

/// So long the Service may stay silent after a pod became ready. Later, the operator's own way to it is at fault.
const ROUTED_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// Longest condition message, in characters.
const MESSAGE_CHARS_MAX: usize = 1024;

/// What a reconcile came to.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// The children are as the plan says.
    Applied(&'a Plan, &'a Resources<Applied>),
    /// The spec cannot be honoured; the children are as they were.
    Refused(&'a Failure),
}

/// Computes the status.
pub fn compute(
    object: &ModelDeployment,
    observed: &Observed,
    outcome: Outcome<'_>,
    now: Timestamp,
) -> ModelDeploymentStatus {
    let previous = object.status.clone().unwrap_or_default();
    let replicas = pods::replicas(&observed.pods);
    let view = View::new(
        object,
        &replicas,
        &Moment {
            observed,
            outcome,
            now,
        },
    );
    let conditions = Conditions::of(&view).written(&previous.conditions, object.metadata.generation, now);
    let mut status = ModelDeploymentStatus {
        observed_generation: object.metadata.generation,
        phase: Some(view.phase()),
        replicas: count(view.alive.len()),
        ready_replicas: count(view.ready()),
        updated_replicas: count(view.current.len()),
        desired_replicas: view.desired,
        selector: Some(names::pod_selector(&object.name_any())),
        summary: Some(format!("{}/{}", view.ready(), view.desired)),
        url: Some(names::url(object)),
        last_failure: view.diagnosis.as_ref().map(Diagnosis::to_status),
        conditions,
        ..previous.clone()
    };
    if status.last_failure.is_none() && !view.is_ready() {
        status.last_failure = previous.last_failure.clone();
    }
    if let Outcome::Applied(plan, _) = outcome {
        status.model_name = Some(plan.served_name.clone());
        status.runtime_image = Some(plan.image.reference.clone());
        status.settings = (plan.settings != Default::default()).then(|| plan.settings.clone());
    }
    write_progress(&mut status, &view, observed, &previous);
    status
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn write_progress(
    status: &mut ModelDeploymentStatus,
    view: &View<'_>,
    observed: &Observed,
    previous: &ModelDeploymentStatus,
) {
    let furthest_behind = |stage: Stage| {
        let at_stage = view.current.iter().filter(|replica| replica.stage == stage);
        at_stage
            .filter_map(|replica| Some((replica.name, observed.startups.get(replica.name)?)))
            .min_by_key(|(name, progress)| (progress.bytes_done, *name))
    };
    status.download = furthest_behind(Stage::Downloading)
        .map(|(pod, progress)| transfer::transfer(pod, progress, previous.download.as_ref()));
    status.load = furthest_behind(Stage::Loading)
        .map(|(pod, progress)| transfer::transfer(pod, progress, previous.load.as_ref()));
    let download = status
        .download
        .as_ref()
        .map(|at| transfer::line("downloading", at));
    status.progress = download.or_else(|| status.load.as_ref().map(|at| transfer::line("loading", at)));

    let same_spec = previous.observed_generation == status.observed_generation;
    let known = previous.model.as_ref().filter(|_| same_spec);
    let facts = view
        .current
        .iter()
        .rev()
        .find_map(|replica| observed.startups.get(replica.name)?.model.as_ref());
    status.model = facts
        .map(|facts| transfer::model_status(facts, known))
        .or_else(|| known.cloned());
    let started = view
        .current
        .iter()
        .rev()
        .find_map(|replica| transfer::cold_start(replica, view.startup_timeout));
    status.cold_start = started.or_else(|| previous.cold_start.clone());
}

/// The replicas as the conditions ask about them.
struct View<'a> {
    desired: i32,
    alive: Vec<&'a Replica<'a>>,
    /// Alive and of the template that was applied.
    current: Vec<&'a Replica<'a>>,
    /// Of another template, alive or leaving.
    n_older: usize,
    n_leaving: usize,
    diagnosis: Option<Diagnosis>,
    refusal: Option<&'a Failure>,
    notes: String,
    /// The Deployment controller has seen the applied spec and agrees with the counts.
    settled: bool,
    /// The Service leads to the pods that are ready.
    routed: bool,
    startup_timeout: SignedDuration,
}

/// What a view is of, besides the pods.
struct Moment<'a> {
    observed: &'a Observed,
    outcome: Outcome<'a>,
    now: Timestamp,
}

impl<'a> View<'a> {
    fn new(object: &ModelDeployment, replicas: &'a [Replica<'a>], moment: &Moment<'a>) -> Self {
        let desired = desired_replicas(object);
        let (plan, deployment, refusal) = match moment.outcome {
            Outcome::Applied(plan, resources) => (Some(plan), Some(&resources.deployment), None),
            Outcome::Refused(failure) => (None, None, Some(failure)),
        };
        let hash = deployment.and_then(|deployment| {
            names::template_hash(deployment.spec.as_ref()?.template.metadata.as_ref()?)
        });
        let is_current = |replica: &&Replica<'_>| hash.is_some() && replica.template_hash == hash;
        let circumstances = Circumstances {
            progress: &moment.observed.startups,
            gpu_resource: plan.and_then(|plan| Some(plan.gpu.as_ref()?.resource_name.clone())),
            startup_timeout: startup_timeout(object),
            drain_timeout: SignedDuration::from_secs(
                plan.map_or(0, |plan| i64::from(plan.drain_timeout_seconds)),
            ),
            now: moment.now,
        };
        // A refused spec has no pods of its own; what then matters is why the spec is refused.
        let judged: Vec<&Replica<'_>> = replicas.iter().filter(is_current).collect();
        let diagnosis = match desired {
            0 => None,
            _ => diagnosis::of_replicas(&judged, deployment, &circumstances),
        };
        let alive: Vec<&Replica<'_>> = replicas.iter().filter(|replica| replica.is_alive()).collect();
        let gone = |replica: &&Replica<'_>| replica.stage == Stage::Ended;
        Self {
            desired,
            current: alive.iter().copied().filter(is_current).collect(),
            alive,
            n_older: replicas.iter().filter(|r| !gone(r) && !is_current(r)).count(),
            n_leaving: replicas
                .iter()
                .filter(|replica| replica.stage == Stage::Leaving)
                .count(),
            diagnosis,
            refusal,
            notes: plan.map(|plan| plan.notes.join("; ")).unwrap_or_default(),
            settled: deployment.is_some_and(|deployment| is_settled(deployment, desired)),
            routed: is_routed(replicas, moment),
            startup_timeout: circumstances.startup_timeout,
        }
    }

    fn ready(&self) -> usize {
        self.alive
            .iter()
            .filter(|replica| replica.stage == Stage::Ready)
            .count()
    }

    fn has_all(&self, holds: impl Fn(&Replica<'_>) -> bool) -> bool {
        self.desired > 0
            && count(self.current.len()) >= self.desired
            && self.current.iter().all(|replica| holds(replica))
    }

    fn is_ready(&self) -> bool {
        self.refusal.is_none()
            && self.settled
            && self.routed
            && self.n_older == 0
            && count(self.current.len()) == self.desired
            && self.has_all(|replica| replica.stage == Stage::Ready)
    }

    /// The least advanced stage among current replicas that are not ready.
    fn stage(&self) -> Option<Stage> {
        self.current
            .iter()
            .map(|replica| replica.stage)
            .filter(|stage| *stage != Stage::Ready)
            .min()
    }

    fn failure_of(&self, parts: &[Part]) -> Option<Verdict> {
        let diagnosis = self
            .diagnosis
            .as_ref()
            .filter(|diagnosis| parts.contains(&diagnosis.part))?;
        Some(Verdict::failed(&diagnosis.failure))
    }

    /// What is being done, as a reason and in words.
    fn doing(&self) -> (&'static str, String) {
        let counted = format!("{} of {} replicas ready", self.ready(), self.desired);
        let (reason, words) = match self.stage() {
            Some(Stage::Unscheduled) => (reason::SCHEDULING, "a pod waits for a node"),
            Some(Stage::Starting) => (reason::STARTING, "images are pulled and containers created"),
            Some(Stage::Downloading) => (reason::DOWNLOADING, "the model is being downloaded"),
            Some(Stage::Loading) => (reason::LOADING, "the engine loads the model"),
            _ if self.n_older > 0 => (reason::ROLLING_OUT, "older pods are being replaced"),
            _ if count(self.current.len()) != self.desired => (reason::SCALING, "the number of pods changes"),
            _ if !self.routed => (reason::PENDING, "the Service does not lead to them yet"),
            _ => (reason::PENDING, "the Deployment is not settled"),
        };
        (reason, format!("{counted}; {words}"))
    }

    fn phase(&self) -> Phase {
        let outlook = self.diagnosis.as_ref().map(|diagnosis| diagnosis.outlook);
        let available = self.ready() > 0 && self.routed;
        match outlook {
            _ if self.refusal.is_some() => Phase::Failed,
            _ if self.desired == 0 => Phase::ScaledToZero,
            _ if self.is_ready() => Phase::Ready,
            Some(Outlook::Fails) => Phase::Failed,
            Some(Outlook::Waits) | None if available => Phase::Updating,
            Some(Outlook::Waits) | None => match self.stage() {
                Some(Stage::Downloading) => Phase::Downloading,
                Some(Stage::Loading) => Phase::Loading,
                _ => Phase::Pending,
            },
        }
    }
}

/// The Deployment controller has seen this spec, and every pod it counts is of the newest template.
fn is_settled(deployment: &Deployment, desired: i32) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas.unwrap_or(0) == desired
        && status.replicas.unwrap_or(0) == desired
}

/// A silent Service is believed for a while after a pod became ready.
fn is_routed(replicas: &[Replica<'_>], moment: &Moment<'_>) -> bool {
    let ready = replicas.iter().filter(|replica| replica.stage == Stage::Ready);
    let ready_since = ready
        .filter_map(|replica| pods::condition_since(replica.pod, "Ready"))
        .min();
    let for_long = ready_since.is_some_and(|since| moment.now.duration_since(since) > ROUTED_AFTER);
    moment.observed.service != ServiceAnswer::NoAnswer || for_long
}

/// One condition without its times.
#[derive(Clone, Debug, PartialEq)]
struct Verdict {
    holds: bool,
    reason: String,
    message: String,
}

impl Verdict {
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
        Self::no(failure.reason.as_str(), in_words(failure))
    }
}

fn in_words(failure: &Failure) -> String {
    match failure.remedy.as_str() {
        "" => failure.message.clone(),
        remedy => format!("{}. Remedy: {remedy}", failure.message.trim_end_matches('.')),
    }
}

/// Every condition. A field per type, so that one without a verdict does not compile.
struct Conditions {
    accepted: Verdict,
    model_ready: Verdict,
    scheduled: Verdict,
    engine_ready: Verdict,
    available: Verdict,
    progressing: Verdict,
    ready: Verdict,
}

impl Conditions {
    fn of(view: &View<'_>) -> Self {
        Self {
            accepted: accepted(view),
            model_ready: model_ready(view),
            scheduled: scheduled(view),
            engine_ready: engine_ready(view),
            available: available(view),
            progressing: progressing(view),
            ready: ready(view),
        }
    }

    fn get(&self, type_: ConditionType) -> &Verdict {
        match type_ {
            ConditionType::Accepted => &self.accepted,
            ConditionType::ModelReady => &self.model_ready,
            ConditionType::Scheduled => &self.scheduled,
            ConditionType::EngineReady => &self.engine_ready,
            ConditionType::Available => &self.available,
            ConditionType::Progressing => &self.progressing,
            ConditionType::Ready => &self.ready,
        }
    }

    /// With times: the old one where the status is the old one.
    fn written(&self, previous: &[Condition], generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
        let written = |type_: &ConditionType| {
            let verdict = self.get(*type_);
            let status = if verdict.holds { "True" } else { "False" };
            let same = previous
                .iter()
                .find(|old| old.type_ == type_.as_str() && old.status == status);
            Condition {
                type_: type_.as_str().into(),
                status: status.into(),
                reason: verdict.reason.clone(),
                message: verdict.message.chars().take(MESSAGE_CHARS_MAX).collect(),
                observed_generation: generation,
                last_transition_time: same.map_or(Time(now), |old| old.last_transition_time.clone()),
            }
        };
        ConditionType::ALL.iter().map(written).collect()
    }
}

fn accepted(view: &View<'_>) -> Verdict {
    match view.refusal {
        Some(failure) => Verdict::failed(failure),
        None => Verdict::yes(reason::ACCEPTED, view.notes.clone()),
    }
}

fn at_zero(view: &View<'_>) -> Option<Verdict> {
    (view.desired == 0).then(|| Verdict::no(reason::SCALED_TO_ZERO, "the spec asks for no replicas"))
}

fn scheduled(view: &View<'_>) -> Verdict {
    let waits = || Verdict::no(reason::SCHEDULING, "a pod waits for a node");
    if view.has_all(|replica| replica.stage > Stage::Unscheduled) {
        return Verdict::yes(reason::SCHEDULED, "every replica has a node");
    }
    at_zero(view)
        .or_else(|| view.failure_of(&[Part::Scheduling]))
        .unwrap_or_else(waits)
}

fn model_ready(view: &View<'_>) -> Verdict {
    if view.has_all(|replica| replica.model == ModelFiles::Complete) {
        return Verdict::yes(reason::DOWNLOADED, "every replica has its model's files");
    }
    let doing = || match view.stage() {
        Some(Stage::Downloading) => Verdict::no(reason::DOWNLOADING, "the model is being downloaded"),
        _ => Verdict::no(reason::PENDING, "a replica has not come so far"),
    };
    at_zero(view)
        .or_else(|| view.failure_of(&[Part::Fetch]))
        .unwrap_or_else(doing)
}

fn engine_ready(view: &View<'_>) -> Verdict {
    if view.has_all(|replica| replica.stage == Stage::Ready) {
        return Verdict::yes(reason::LOADED, "every replica's engine answers");
    }
    let doing = || match view.stage() {
        Some(Stage::Loading) => Verdict::no(reason::LOADING, "the engine loads the model"),
        _ => Verdict::no(reason::PENDING, "a replica has not come so far"),
    };
    at_zero(view)
        .or_else(|| view.failure_of(&[Part::Runtime]))
        .unwrap_or_else(doing)
}

fn available(view: &View<'_>) -> Verdict {
    let nobody = || Verdict::no(reason::NO_READY_REPLICA, "no replica answers");
    match view.ready() {
        0 => at_zero(view).unwrap_or_else(nobody),
        _ if !view.routed => Verdict::no(
            reason::NO_READY_REPLICA,
            "the Service does not lead to the ready replica yet",
        ),
        ready => Verdict::yes(reason::SERVING, format!("replicas that answer: {ready}")),
    }
}

fn progressing(view: &View<'_>) -> Verdict {
    if let Some(failure) = view
        .refusal
        .or(view.diagnosis.as_ref().map(|diagnosis| &diagnosis.failure))
    {
        return Verdict::failed(failure);
    }
    let leaving = || Verdict::yes(reason::SCALING, "pods are being removed");
    match view.desired {
        0 if view.alive.is_empty() && view.n_leaving == 0 => {
            Verdict::no(reason::STABLE, "nothing is being changed")
        }
        0 => leaving(),
        _ if view.is_ready() && view.n_leaving > 0 => leaving(),
        _ if view.is_ready() => Verdict::no(reason::STABLE, "nothing is being changed"),
        _ => {
            let (reason, message) = view.doing();
            Verdict::yes(reason, message)
        }
    }
}

fn ready(view: &View<'_>) -> Verdict {
    if let Some(failure) = view
        .refusal
        .or(view.diagnosis.as_ref().map(|diagnosis| &diagnosis.failure))
    {
        return Verdict::failed(failure);
    }
    if view.is_ready() {
        return Verdict::yes(
            reason::READY,
            format!("{} of {} replicas ready", view.ready(), view.desired),
        );
    }
    at_zero(view).unwrap_or_else(|| {
        let (reason, message) = view.doing();
        Verdict::no(reason, message)
    })
}

/// When to look again although nothing changed in the API server.
pub fn look_again_after(status: &ModelDeploymentStatus) -> Duration {
    /// The way from a Service to a new pod takes the nodes a moment.
    const ROUTING: Duration = Duration::from_millis(300);
    /// Progress moves without a change of any object.
    const MOVING: Duration = Duration::from_secs(2);
    /// Whether a container that runs again has settled is a question of time.
    const FAILING: Duration = Duration::from_secs(10);
    /// Against lost events.
    const STABLE: Duration = Duration::from_secs(300);
    let failing = status.last_failure.is_some();
    let available = status
        .conditions
        .iter()
        .any(|condition| condition.type_ == ConditionType::Available.as_str() && condition.status == "True");
    if status.ready_replicas > 0 && !available {
        return ROUTING;
    }
    match status.phase {
        Some(Phase::Downloading | Phase::Loading | Phase::Updating) => MOVING,
        Some(Phase::Pending) | None => FAILING,
        Some(Phase::Failed) if failing => FAILING,
        Some(Phase::Failed | Phase::Ready | Phase::ScaledToZero) => STABLE,
    }
}

/// Why the status could not be published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not take the patch.
    #[error("cannot write the status of {what}")]
    Write {
        /// Namespace and name.
        what: String,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Writes `status`, if it is not the one that `object` has, and an Event if `Ready` changed.
///
/// # Errors
/// When the API server does not take the patch. A lost Event is only logged.
pub async fn publish(
    context: &Context,
    object: &ModelDeployment,
    status: &ModelDeploymentStatus,
) -> Result<(), Error> {
    if object.status.as_ref() == Some(status) {
        return Ok(());
    }
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api: Api<ModelDeployment> = Api::namespaced(context.client.clone(), &namespace);
    let patch = serde_json::json!({
        "apiVersion": ModelDeployment::api_version(&()),
        "kind": ModelDeployment::kind(&()),
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(&name, &params, &Patch::Apply(&patch))
        .await
        .map_err(|source| Error::Write {
            what: format!("{namespace}/{name}"),
            source: Box::new(source),
        })?;
    if let Some(event) = transition(object.status.as_ref(), status)
        && let Err(error) = context.recorder.publish(&event, &object.object_ref(&())).await
    {
        tracing::warn!(%error, namespace, name, "an Event was not published");
    }
    Ok(())
}

/// The Event of a changed `Ready`; `None` if its status and reason are the old ones.
fn transition(before: Option<&ModelDeploymentStatus>, after: &ModelDeploymentStatus) -> Option<Event> {
    let ready = |status: &ModelDeploymentStatus| {
        let found = status
            .conditions
            .iter()
            .find(|c| c.type_ == ConditionType::Ready.as_str())?;
        Some((found.status.clone(), found.reason.clone(), found.message.clone()))
    };
    let (status, reason, message) = ready(after)?;
    let old = before.and_then(ready).map(|(status, reason, _)| (status, reason));
    if old == Some((status, reason.clone())) {
        return None;
    }
    let is_failure = Reason::ALL.iter().any(|failure| failure.as_str() == reason);
    Some(Event {
        type_: if is_failure {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason,
        note: Some(message),
        action: "Reconcile".into(),
        secondary: None,
    })
}

#[cfg(test)]
mod tests;
