//! Computes the status: counts, conditions, one phase, transfers and the last failure. `publish` writes it.
//!
//! Pure, except for `publish`. Reads the plan and never the spec.

mod cold_start;
mod conditions;
mod diagnosis;
mod drift;
mod next_check;
mod publish;
mod rollout;
mod transfer;

use crds::{
    ModelDeployment, ModelDeploymentStatus,
    keys::WakeKeys,
    modeldeployment::{AutoscalingStatus, ModelStatus, ScalingStatus, TransferStatus},
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;

use self::{
    conditions::Conditions,
    diagnosis::Diagnosis,
    rollout::{Rollout, count},
};
use crate::{
    names,
    pods::{self, Stage},
    reconcile::{observed::Observed, plan::Plan},
};

pub use self::{
    next_check::next_check,
    publish::{publish, publish_failure},
    rollout::Outcome,
};

/// Changes of the number of replicas that the status has.
const HISTORY_MAX: usize = 5;

/// Computes the status.
pub fn compute(
    object: &ModelDeployment,
    observed: &Observed,
    outcome: Outcome<'_>,
    now: Timestamp,
) -> ModelDeploymentStatus {
    let previous = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let replicas = pods::replicas(&observed.pods);
    let rollout = Rollout::new(observed, &replicas, outcome, now);
    let mut status = ModelDeploymentStatus {
        observed_generation: generation,
        phase: Some(rollout.phase()),
        replicas: count(rollout.alive.len()),
        ready_replicas: count(rollout.n_ready()),
        updated_replicas: count(rollout.current.len()),
        desired_replicas: rollout.desired,
        selector: Some(names::pod_selector(&object.name_any())),
        summary: Some(format!("{}/{}", rollout.n_ready(), rollout.desired)),
        url: Some(names::url(object)),
        autoscaling: autoscaling(&rollout, &previous, now),
        last_failure: rollout.diagnosis.as_ref().map(Diagnosis::to_status),
        conditions: Conditions::of(&rollout).with_times(&previous.conditions, generation, now),
        ..previous.clone()
    };
    if status.last_failure.is_none() && !rollout.is_ready() {
        status.last_failure = previous.last_failure;
    }
    // Another spec may have another model.
    let known = previous
        .model
        .filter(|_| previous.observed_generation == generation);
    status.model = model(&rollout, observed, known);
    write_transfers(&mut status, &rollout, observed);
    write_plan(&mut status, &rollout);
    status
}

/// The facts that the newest current replica reports, completed by the known ones.
fn model(rollout: &Rollout<'_>, observed: &Observed, known: Option<ModelStatus>) -> Option<ModelStatus> {
    let mut newest_first = rollout.current.iter().rev();
    let facts = newest_first.find_map(|replica| observed.startups.get(replica.name)?.model.as_ref());
    match facts {
        Some(facts) => Some(transfer::model_status(facts, known.unwrap_or_default())),
        None => known,
    }
}

/// What the autoscaler did, with the change from the previous status to this one. It is gone with `spec.autoscaling`.
fn autoscaling(
    rollout: &Rollout<'_>,
    previous: &ModelDeploymentStatus,
    now: Timestamp,
) -> Option<AutoscalingStatus> {
    let Outcome::Applied { plan, .. } = rollout.outcome else {
        return previous.autoscaling.clone();
    };
    let decision = &plan.autoscaled.as_ref()?.decision;
    let mut status = previous.autoscaling.clone().unwrap_or_default();
    let from = previous.desired_replicas;
    if previous.observed_generation.is_some() && from != rollout.desired {
        let time = now.to_string();
        status.last_scale_time = Some(time.clone());
        status.history.insert(
            0,
            ScalingStatus {
                time,
                from,
                to: rollout.desired,
                reason: decision.cause.as_str().into(),
                message: decision.trace.clone(),
            },
        );
        status.history.truncate(HISTORY_MAX);
    }
    Some(status)
}

/// Writes the download and the load that have advanced least.
fn write_transfers(status: &mut ModelDeploymentStatus, rollout: &Rollout<'_>, observed: &Observed) {
    let slowest = |stage: Stage, previous: Option<&TransferStatus>| {
        let replicas = rollout.current.iter().filter(|replica| replica.stage == stage);
        let (pod, startup) = replicas
            .filter_map(|replica| Some((replica.name, observed.startups.get(replica.name)?)))
            .min_by_key(|(name, startup)| (startup.bytes_done, *name))?;
        Some(transfer::transfer(pod, startup, previous))
    };
    status.download = slowest(Stage::Downloading, status.download.as_ref());
    status.load = slowest(Stage::Loading, status.load.as_ref());
    status.progress = match (&status.download, &status.load) {
        (Some(download), _) => Some(transfer::line("downloading", download)),
        (None, Some(load)) => Some(transfer::line("loading", load)),
        (None, None) => None,
    };
}

/// Writes what follows from an applied plan; a refused spec leaves it as it was.
fn write_plan(status: &mut ModelDeploymentStatus, rollout: &Rollout<'_>) {
    let Outcome::Applied { plan, .. } = rollout.outcome else {
        return;
    };
    status.model_name = Some(plan.served_name.clone());
    status.runtime_image = Some(plan.image.reference.clone());
    status.wake_keys = wake_keys(plan, status.wake_keys.take());
    status.settings = (plan.settings != Default::default()).then(|| plan.settings.clone());
    let known = status.cold_start.take();
    status.cold_start = cold_start::cold_start(&rollout.current, plan.startup_timeout(), known);
}

/// The keys that may start a replica: as a replica reported them, or as they were known before.
fn wake_keys(plan: &Plan, known: Option<WakeKeys>) -> Option<WakeKeys> {
    let secret = plan.api_keys.as_ref().filter(|_| plan.may_be_at_zero)?;
    let reported = WakeKeys {
        secret: secret.name.clone(),
        key: secret.key.clone(),
        hashes: plan.autoscaled.as_ref()?.key_hashes.clone(),
    };
    match reported.hashes.is_empty() {
        false => Some(reported),
        true => known.filter(|known| (&known.secret, &known.key) == (&reported.secret, &reported.key)),
    }
}

#[cfg(test)]
mod tests;
