//! When a ModelDeployment is reconciled again although no object changed.

use std::time::Duration;

use crds::{ModelDeploymentStatus, conditions::ConditionType, modeldeployment::Phase};

/// Nodes need a moment to route a Service to a new pod.
const ROUTING: Duration = Duration::from_millis(300);
/// Progress changes without a change of any object.
const TRANSFERRING: Duration = Duration::from_secs(2);
/// A container that runs again counts as failing until it has run for some time.
const FAILING: Duration = Duration::from_secs(10);
/// In case a watch event was lost.
const STABLE: Duration = Duration::from_secs(300);

/// Time until the next reconcile without a change.
pub fn next_check(status: &ModelDeploymentStatus) -> Duration {
    if status.ready_replicas > 0 && !is_available(status) {
        return ROUTING;
    }
    match status.phase {
        Some(Phase::Downloading | Phase::Loading | Phase::Updating) => TRANSFERRING,
        Some(Phase::Pending) | None => FAILING,
        Some(Phase::Failed) if status.last_failure.is_some() => FAILING,
        Some(Phase::Failed | Phase::Ready | Phase::ScaledToZero) => STABLE,
    }
}

fn is_available(status: &ModelDeploymentStatus) -> bool {
    let mut conditions = status.conditions.iter();
    conditions
        .any(|condition| condition.type_ == ConditionType::Available.as_str() && condition.status == "True")
}
