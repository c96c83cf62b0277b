//! Downloads and loads that are going on, and what a start took, as the status shows them.
//!
//! Pure. A transfer is rewritten only when its percentage moves, so that progress costs at most a hundred writes.

use crds::{
    modeldeployment::{ColdStart, ModelStatus, TransferStatus},
    startup::{ModelFacts, StartupStatus},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::pods::{Replica, Stage, condition_since, fetch_status, runtime_status};

/// The transfer of one pod; `previous` stays if it is at the same percentage.
pub(super) fn transfer(
    pod: &str,
    progress: &StartupStatus,
    previous: Option<&TransferStatus>,
) -> TransferStatus {
    let percent = percent(progress);
    if let Some(same) = previous.filter(|previous| previous.pod == pod && previous.percent == percent) {
        return same.clone();
    }
    TransferStatus {
        pod: pod.into(),
        bytes_done: signed(progress.bytes_done),
        bytes_total: signed(progress.bytes_total.unwrap_or(0)),
        percent,
        rate_per_second: Some(signed(progress.rate_per_second)),
        eta_seconds: progress.eta_seconds.map(signed),
    }
}

/// The percentage that the pod reports; without one, the share of the bytes.
fn percent(progress: &StartupStatus) -> i32 {
    let share = || match progress.bytes_total {
        None | Some(0) => 0,
        Some(total) => (u128::from(progress.bytes_done) * 100 / u128::from(total)).min(100) as i32,
    };
    progress
        .percent
        .map_or_else(share, |percent| i32::from(percent.min(100)))
}

/// Kubernetes has signed integers only.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// One line on a transfer, as in `downloading 42 % (1.2 of 2.9 GiB, 101.0 MiB/s, 17 s left)`.
pub(super) fn line(verb: &str, transfer: &TransferStatus) -> String {
    let mut parts = Vec::new();
    if transfer.bytes_total > 0 {
        let (unit, name) = unit(transfer.bytes_total);
        let [done, total] = [transfer.bytes_done, transfer.bytes_total].map(|bytes| bytes as f64 / unit);
        parts.push(format!("{done:.1} of {total:.1} {name}"));
    }
    if let Some(rate) = transfer.rate_per_second.filter(|rate| *rate > 0) {
        let (unit, name) = unit(rate);
        parts.push(format!("{:.1} {name}/s", rate as f64 / unit));
    }
    if let Some(eta) = transfer.eta_seconds {
        parts.push(format!("{eta} s left"));
    }
    match parts.is_empty() {
        true => format!("{verb} {} %", transfer.percent),
        false => format!("{verb} {} % ({})", transfer.percent, parts.join(", ")),
    }
}

fn unit(bytes: i64) -> (f64, &'static str) {
    const KIB: f64 = 1024.0;
    match bytes as f64 {
        bytes if bytes >= KIB * KIB * KIB => (KIB * KIB * KIB, "GiB"),
        bytes if bytes >= KIB * KIB => (KIB * KIB, "MiB"),
        bytes if bytes >= KIB => (KIB, "KiB"),
        _ => (1.0, "B"),
    }
}

/// What pods say about the model, over what was known.
pub(super) fn model_status(facts: &ModelFacts, known: Option<&ModelStatus>) -> ModelStatus {
    let known = known.cloned().unwrap_or_default();
    ModelStatus {
        revision: facts.revision.clone().or(known.revision),
        architecture: facts.architecture.clone().or(known.architecture),
        bytes: facts.bytes.map(signed).or(known.bytes),
        max_model_len: facts.max_model_len.map(signed).or(known.max_model_len),
    }
}

/// Where the time of a ready replica's start went; `None` if it is not ready, or lost and regained readiness
/// so late that the times say nothing about the start.
pub(super) fn cold_start(replica: &Replica<'_>, startup_timeout: SignedDuration) -> Option<ColdStart> {
    if replica.stage != Stage::Ready {
        return None;
    }
    let runtime = runtime_status(replica.pod)?;
    let Time(serving_since) = runtime.state.as_ref()?.running.as_ref()?.started_at.as_ref()?;
    let created = replica.created?;
    let scheduled = condition_since(replica.pod, "PodScheduled")?;
    let ready = condition_since(replica.pod, "Ready")?;
    let fetched = fetch_status(replica.pod)
        .and_then(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref())
        .map_or(*serving_since, |Time(at)| *at);
    if runtime.restart_count > 0 || ready.duration_since(*serving_since) > startup_timeout {
        return None;
    }
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs().max(0);
    Some(ColdStart {
        scheduled_seconds: seconds(created, scheduled),
        download_seconds: seconds(scheduled, fetched),
        load_seconds: seconds(fetched, ready),
        total_seconds: seconds(created, ready),
    })
}
