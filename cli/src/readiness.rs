//! How far a ModelDeployment is: its state in one line, and waiting until it is ready or has failed.

use std::time::Duration;

use crds::{
    ModelDeployment, ModelDeploymentStatus,
    conditions::ConditionType,
    modeldeployment::{Phase, TransferStatus},
};
use futures::{StreamExt, pin_mut};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::{WatchStreamExt, watcher};

use crate::{cluster::Cluster, display, display::Line, error::Error};

/// A condition of a ModelDeployment.
pub fn condition(deployment: &ModelDeployment, type_: ConditionType) -> Option<&Condition> {
    let conditions = &deployment.status.as_ref()?.conditions;
    conditions
        .iter()
        .find(|condition| condition.type_ == type_.as_str())
}

fn is_true(deployment: &ModelDeployment, type_: ConditionType) -> bool {
    condition(deployment, type_).is_some_and(|condition| condition.status == "True")
}

/// Whether the status is of the current spec.
fn is_current(deployment: &ModelDeployment) -> bool {
    let observed = deployment
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    observed.is_some() && observed == deployment.metadata.generation
}

/// Whether it serves what its spec says. None of its replicas run if none is requested.
pub fn is_ready(deployment: &ModelDeployment) -> bool {
    is_current(deployment) && is_true(deployment, ConditionType::Ready)
}

/// Why it cannot become ready without a change; `None` while it may.
pub fn failure(deployment: &ModelDeployment) -> Option<Error> {
    if !is_current(deployment) || !is_true(deployment, ConditionType::Stalled) {
        return None;
    }
    let ready = condition(deployment, ConditionType::Ready)?;
    Some(Error::Failed {
        name: deployment.metadata.name.clone().unwrap_or_default(),
        namespace: deployment.metadata.namespace.clone().unwrap_or_default(),
        reason: ready.reason.clone(),
        message: ready.message.clone(),
    })
}

/// What it does, in a few words.
pub fn state(deployment: &ModelDeployment) -> String {
    if !is_current(deployment) {
        return "the operator has not seen the spec yet".into();
    }
    let status = deployment.status.clone().unwrap_or_default();
    let ready = condition(deployment, ConditionType::Ready);
    let phase = status
        .phase
        .map_or("Pending".into(), |phase| format!("{phase:?}"));
    match ready.map(|ready| (ready.reason.as_str(), ready.message.as_str())) {
        Some((reason, _)) if reason == phase => phase,
        Some((reason, "")) => format!("{phase}: {reason}"),
        Some((reason, message)) => format!("{phase}: {reason}: {message}"),
        None => phase,
    }
}

/// Its progress in one line.
pub fn line(deployment: &ModelDeployment) -> String {
    let status = deployment.status.clone().unwrap_or_default();
    match transfer(&status).filter(|_| !is_ready(deployment)) {
        Some((what, transfer)) => format!("{what:<11} {}", progress(transfer)),
        None => state(deployment),
    }
}

fn transfer(status: &ModelDeploymentStatus) -> Option<(&'static str, &TransferStatus)> {
    let download = status.download.as_ref().map(|download| ("downloading", download));
    download.or_else(|| status.load.as_ref().map(|load| ("loading", load)))
}

/// A bar with sizes, rate and the time that is left.
fn progress(transfer: &TransferStatus) -> String {
    let size = |n: i64| display::bytes(u64::try_from(n).unwrap_or(0));
    let percent = u8::try_from(transfer.percent.clamp(0, 100)).unwrap_or(0);
    let mut out = format!(
        "{}  {} of {}",
        display::bar(percent),
        size(transfer.bytes_done),
        size(transfer.bytes_total)
    );
    if let Some(rate) = transfer.rate_per_second {
        out += &format!("  {}/s", size(rate));
    }
    if let Some(seconds) = transfer.eta_seconds {
        out += &format!("  {} left", display::duration(seconds));
    }
    out
}

/// What ends the waiting without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// A failure that needs a person ends it.
    UntilFailure,
    /// Only the time ends it.
    UntilTimeout,
}

/// Waits until a ModelDeployment is ready, and shows its progress meanwhile.
///
/// # Errors
/// [`Error::Failed`], [`Error::NotInTime`], [`Error::Deleted`], and errors of the API server.
pub async fn wait(
    cluster: &Cluster,
    name: &str,
    timeout: Duration,
    patience: Patience,
) -> Result<ModelDeployment, Error> {
    let mut line = Line::on_stderr();
    let mut last = None;
    let watched = watch(cluster, name, (&mut line, &mut last), patience);
    let ended = tokio::time::timeout(timeout, watched).await;
    line.close();
    ended.unwrap_or_else(|_| {
        Err(Error::NotInTime {
            name: name.into(),
            namespace: cluster.namespace.clone(),
            seconds: timeout.as_secs(),
            state: last.as_ref().map_or_else(|| "it was not seen".into(), state),
        })
    })
}

async fn watch(
    cluster: &Cluster,
    name: &str,
    (shown, last): (&mut Line, &mut Option<ModelDeployment>),
    patience: Patience,
) -> Result<ModelDeployment, Error> {
    let objects = watcher::watch_object(cluster.deployments(), name).default_backoff();
    pin_mut!(objects);
    while let Some(object) = objects.next().await {
        let deployment = match object {
            Ok(Some(deployment)) => deployment,
            Ok(None) => return Err(Error::Deleted { name: name.into() }),
            // Another request finds out what it is; an interruption ends by itself.
            Err(_) => {
                cluster.get(name).await?;
                continue;
            }
        };
        let text = line(&deployment);
        shown.show(&steps(&text), &text);
        if is_ready(&deployment) {
            return Ok(deployment);
        }
        if let Some(error) = failure(&deployment).filter(|_| patience == Patience::UntilFailure) {
            return Err(error);
        }
        *last = Some(deployment);
    }
    Err(Error::Deleted { name: name.into() })
}

/// The part of a line whose change is worth a new one where lines cannot be rewritten: every tenth percent.
fn steps(text: &str) -> String {
    match text.split_once('%') {
        Some((before, _)) => before[..before.len().saturating_sub(1)].replace('.', ""),
        None => text.to_string(),
    }
}

/// The word for a phase in a table.
pub fn phase(status: &ModelDeploymentStatus) -> &'static str {
    match status.phase {
        None | Some(Phase::Pending) => "Pending",
        Some(Phase::Downloading) => "Downloading",
        Some(Phase::Loading) => "Loading",
        Some(Phase::Ready) => "Ready",
        Some(Phase::Updating) => "Updating",
        Some(Phase::ScaledToZero) => "ScaledToZero",
        Some(Phase::Failed) => "Failed",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deployment(status: serde_json::Value) -> ModelDeployment {
        serde_json::from_value(json!({
            "apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": {"name": "m", "namespace": "models", "generation": 2},
            "spec": {"model": {"huggingFace": {"repo": "a/b"}}}, "status": status,
        }))
        .unwrap()
    }

    fn condition_of(type_: &str, status: &str, reason: &str) -> serde_json::Value {
        json!({"type": type_, "status": status, "reason": reason, "message": "why. Remedy: what",
               "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn ready_is_of_the_current_spec() {
        let status = |generation: i64| json!({"observedGeneration": generation, "phase": "Ready", "conditions": [condition_of("Ready", "True", "Ready")]});
        assert!(is_ready(&deployment(status(2))));
        let old = deployment(status(1));
        assert!(
            !is_ready(&old) && state(&old).contains("not seen"),
            "{}",
            state(&old)
        );
    }

    #[test]
    fn a_failure_has_the_remedy() {
        let conditions = [
            condition_of("Ready", "False", "DiskFull"),
            condition_of("Stalled", "True", "DiskFull"),
        ];
        let failed =
            deployment(json!({"observedGeneration": 2, "phase": "Failed", "conditions": conditions}));
        let error = failure(&failed).unwrap();
        assert_eq!(
            error.to_string(),
            "ModelDeployment 'm' failed: DiskFull: why. Remedy: what"
        );
        assert!(error.next().unwrap().contains("kubectl slipway logs m -n models"));
        let conditions = [
            condition_of("Ready", "False", "Scheduling"),
            condition_of("Stalled", "False", "Scheduling"),
        ];
        let waiting =
            deployment(json!({"observedGeneration": 2, "phase": "Pending", "conditions": conditions}));
        assert!(failure(&waiting).is_none());
    }

    #[test]
    fn a_download_is_a_bar() {
        let loading = deployment(
            json!({"observedGeneration": 2, "phase": "Downloading", "download": {
                "pod": "p", "bytesDone": 1 << 30, "bytesTotal": 1_i64 << 31, "percent": 50, "ratePerSecond": 1 << 20, "etaSeconds": 1024
            }}),
        );
        assert_eq!(
            line(&loading),
            "downloading [###############...............]  50%  1.0 GiB of 2.0 GiB  1.0 MiB/s  17m left"
        );
        assert_eq!(
            steps("downloading [##..]  51%  x"),
            steps("downloading [##..]  58%  y")
        );
        assert_ne!(
            steps("downloading [##..]  51%  x"),
            steps("downloading [##..]  61%  y")
        );
    }
}
