//! When a ModelDeployment is reconciled again although no object changed.

use std::time::Duration;

use crds::{ModelDeploymentStatus, conditions::ConditionType, modeldeployment::Phase};

/// A Service that does not answer is believed for some seconds only.
const ROUTING: Duration = Duration::from_secs(2);
/// What depends on time alone: a container that runs again counts as failing until it has run for some time, and a pod
/// that finds no node for some time has no room. Also objects of others, which no watch sees.
const UNFINISHED: Duration = Duration::from_secs(10);
/// In case a watch event was lost.
const STABLE: Duration = Duration::from_secs(300);

/// Time until the next reconcile without a change. Changes of objects and of the progress of pods trigger one at once.
pub fn next_check(status: &ModelDeploymentStatus) -> Duration {
    if status.ready_replicas > 0 && !is_available(status) {
        return ROUTING;
    }
    match status.phase {
        Some(Phase::Ready | Phase::ScaledToZero) => STABLE,
        Some(Phase::Downloading | Phase::Loading | Phase::Updating | Phase::Pending | Phase::Failed)
        | None => UNFINISHED,
    }
}

fn is_available(status: &ModelDeploymentStatus) -> bool {
    let mut conditions = status.conditions.iter();
    conditions
        .any(|condition| condition.type_ == ConditionType::Available.as_str() && condition.status == "True")
}
