//! [`Rollout`]: the pods of one ModelDeployment compared with what the plan requires.
//!
//! Pure. Counts and compares; the wording is for `conditions`.

use crds::{failure::Failure, modeldeployment::Phase};
use k8s_openapi::{
    api::apps::v1::Deployment,
    jiff::{SignedDuration, Timestamp},
};

use super::{
    diagnosis::{self, Diagnosis, Part, Recovery},
    drift,
};
use crate::{
    names::template_hash,
    pods::{self, Replica, Stage},
    reconcile::{
        api_error::ApiError,
        children::{Applied, Resources},
        observed::{Observed, ServiceAnswer},
        plan::{Plan, Refusal},
    },
};

/// How long after a pod became ready a Service without an answer means that nodes do not route to the pod yet. Later
/// the operator's own connection to the Service is at fault.
const ROUTING_TIME_MAX: SignedDuration = SignedDuration::from_secs(10);

/// The result of the steps before the status.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// The children are as the plan requires.
    Applied {
        /// The plan.
        plan: &'a Plan,
        /// Its children.
        children: &'a Resources<Applied>,
        /// What could not be had as the spec requests it, although the model can be served.
        notes: &'a [String],
    },
    /// The spec cannot be honoured; the children are unchanged, but for the number of replicas.
    Refused(&'a Refusal),
    /// The API server did not do what the plan requires.
    Failed {
        /// The plan.
        plan: &'a Plan,
        /// Hash of the plan's template.
        template_hash: &'a str,
        /// Why.
        error: &'a ApiError,
    },
}

/// The state of a rollout.
pub(super) struct Rollout<'a> {
    pub outcome: Outcome<'a>,
    /// Replicas that the spec requests.
    pub desired: i32,
    /// Pods that are neither leaving nor ended.
    pub alive: Vec<&'a Replica<'a>>,
    /// Alive and made from the template that was applied.
    pub current: Vec<&'a Replica<'a>>,
    /// Pods of another template, alive or leaving.
    pub n_older: usize,
    pub n_leaving: usize,
    /// What keeps the current replicas from becoming ready.
    pub diagnosis: Option<Diagnosis>,
    /// Why the plan could not be made or applied.
    pub stopped: Option<Failure>,
    /// Names of pods that get requests and were not made for the ModelDeployment.
    pub strays: &'a [String],
    /// The Deployment controller has processed the applied spec, and its counts are the desired ones.
    pub settled: bool,
    /// The Service routes to the pods that are ready.
    pub routed: bool,
}

impl<'a> Rollout<'a> {
    pub(super) fn new(
        observed: &'a Observed,
        replicas: &'a [Replica<'a>],
        outcome: Outcome<'a>,
        now: Timestamp,
    ) -> Self {
        let desired = outcome.replicas();
        let deployment = match outcome {
            Outcome::Applied { children, .. } => Some(&children.deployment),
            Outcome::Refused(_) | Outcome::Failed { .. } => None,
        };
        let hash = outcome.template_hash();
        let is_current = |replica: &&Replica<'_>| hash.is_some() && replica.template_hash == hash;
        let alive: Vec<&Replica<'_>> = replicas.iter().filter(|replica| replica.is_alive()).collect();
        let ended = |replica: &&Replica<'_>| replica.stage == Stage::Ended;
        let leaving = |replica: &&Replica<'_>| replica.stage == Stage::Leaving;
        let judged: Vec<&Replica<'_>> = replicas.iter().filter(is_current).collect();
        let diagnosis = match outcome {
            Outcome::Applied { plan, children, .. } if desired > 0 => diagnosis::of_replicas(
                &judged,
                &diagnosis::Inputs {
                    plan,
                    deployment: &children.deployment,
                    startups: &observed.startups,
                    check_pods: &observed.check_pods,
                    now,
                },
            ),
            Outcome::Applied { .. } | Outcome::Refused(_) | Outcome::Failed { .. } => None,
        };
        let drifted = || drift::of_deployment(deployment?);
        Self {
            outcome,
            desired,
            current: alive.iter().copied().filter(is_current).collect(),
            alive,
            n_older: replicas
                .iter()
                .filter(|replica| !ended(replica) && !is_current(replica))
                .count(),
            n_leaving: replicas.iter().filter(leaving).count(),
            diagnosis: diagnosis.or_else(drifted),
            stopped: outcome.failure(),
            strays: &observed.strays,
            settled: deployment.is_some_and(|deployment| is_settled(deployment, desired)),
            routed: is_routed(replicas, observed.service, now),
        }
    }

    /// Replicas of any template that are ready.
    pub(super) fn n_ready(&self) -> usize {
        let is_ready = |replica: &&&Replica<'_>| replica.stage == Stage::Ready;
        self.alive.iter().filter(is_ready).count()
    }

    /// Whether there are as many current replicas as desired, at least one, and each satisfies `condition`.
    pub(super) fn all_current(&self, condition: impl Fn(&Replica<'_>) -> bool) -> bool {
        self.desired > 0
            && count(self.current.len()) >= self.desired
            && self.current.iter().all(|replica| condition(replica))
    }

    /// Whether exactly the desired replicas exist and serve.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.outcome, Outcome::Applied { .. })
            && self.settled
            && self.routed
            && self
                .diagnosis
                .as_ref()
                .is_none_or(|diagnosis| diagnosis.part != Part::Template)
            && self.n_older == 0
            && count(self.current.len()) == self.desired
            && self.all_current(|replica| replica.stage == Stage::Ready)
    }

    /// The least advanced stage among the current replicas that are not ready.
    pub(super) fn stage(&self) -> Option<Stage> {
        let stages = self.current.iter().map(|replica| replica.stage);
        stages.filter(|stage| *stage != Stage::Ready).min()
    }

    /// What keeps the ModelDeployment from becoming ready, if something failed.
    pub(super) fn failure(&self) -> Option<&Failure> {
        let diagnosed = || self.diagnosis.as_ref().map(|diagnosis| &diagnosis.failure);
        self.stopped.as_ref().or_else(diagnosed)
    }

    /// The diagnosed failure, if it is in this part of the start.
    pub(super) fn failure_in(&self, part: Part) -> Option<&Failure> {
        let diagnosis = self.diagnosis.as_ref()?;
        (diagnosis.part == part).then_some(&diagnosis.failure)
    }

    /// Whether a person has to change something before the ModelDeployment can become ready.
    pub(super) fn is_stalled(&self) -> bool {
        match self.outcome {
            Outcome::Refused(_) => true,
            Outcome::Failed { error, .. } => error.class().needs_person(),
            Outcome::Applied { .. } => {
                let diagnosis = self.diagnosis.as_ref();
                diagnosis.is_some_and(|diagnosis| diagnosis.recovery == Recovery::Manual)
            }
        }
    }

    /// Whether no replica is desired and none is left.
    pub(super) fn is_at_zero(&self) -> bool {
        self.desired == 0 && self.stopped.is_none() && self.alive.is_empty()
    }

    /// Whether the autoscaler decides on the number of replicas.
    pub(super) fn is_autoscaled(&self) -> bool {
        match self.outcome {
            Outcome::Applied { plan, .. } | Outcome::Failed { plan, .. } => plan.autoscaled.is_some(),
            Outcome::Refused(_) => false,
        }
    }

    /// Whether a Job downloads the model before the first pod.
    pub(super) fn is_prefetching(&self) -> bool {
        match self.outcome {
            Outcome::Applied { plan, .. } => plan.replicas_now() < plan.replicas,
            Outcome::Failed { .. } | Outcome::Refused(_) => false,
        }
    }

    pub(super) fn phase(&self) -> Phase {
        let available = self.n_ready() > 0 && self.routed;
        match self.is_stalled() {
            true if self.stopped.is_some() => Phase::Failed,
            _ if self.desired == 0 => Phase::ScaledToZero,
            _ if self.is_ready() => Phase::Ready,
            true => Phase::Failed,
            false if available => Phase::Updating,
            false if self.is_prefetching() => Phase::Downloading,
            false => match self.stage() {
                Some(Stage::Downloading) => Phase::Downloading,
                Some(Stage::Loading) => Phase::Loading,
                _ => Phase::Pending,
            },
        }
    }
}

impl<'a> Outcome<'a> {
    fn replicas(self) -> i32 {
        match self {
            Outcome::Applied { plan, .. } | Outcome::Failed { plan, .. } => plan.replicas,
            Outcome::Refused(refusal) => refusal.replicas,
        }
    }

    /// The hash of the template that the spec leads to.
    fn template_hash(self) -> Option<&'a str> {
        match self {
            Outcome::Applied { children, .. } => {
                template_hash(children.deployment.spec.as_ref()?.template.metadata.as_ref()?)
            }
            Outcome::Failed { template_hash, .. } => Some(template_hash),
            Outcome::Refused(_) => None,
        }
    }

    fn failure(self) -> Option<Failure> {
        match self {
            Outcome::Applied { .. } => None,
            Outcome::Refused(refusal) => Some(refusal.failure.clone()),
            Outcome::Failed { error, .. } => Some(error.failure()),
        }
    }
}

/// The Deployment controller has processed this spec, and every pod that it counts is of the newest template.
fn is_settled(deployment: &Deployment, desired: i32) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    status.observed_generation >= deployment.metadata.generation
        && status.updated_replicas.unwrap_or(0) == desired
        && status.replicas.unwrap_or(0) == desired
}

fn is_routed(replicas: &[Replica<'_>], service: ServiceAnswer, now: Timestamp) -> bool {
    let ready = replicas.iter().filter(|replica| replica.stage == Stage::Ready);
    let ready_since = ready
        .filter_map(|replica| pods::condition_since(replica.pod, "Ready"))
        .min();
    let routing_is_over = ready_since.is_some_and(|since| now.duration_since(since) > ROUTING_TIME_MAX);
    service != ServiceAnswer::NoAnswer || routing_is_over
}

/// A number of pods as Kubernetes counts them.
pub(super) fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
