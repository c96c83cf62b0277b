//! Downloads and loads in progress, and the facts of the model, as the status shows them.
//!
//! Pure. A transfer changes only with its percentage, so that one transfer causes at most a hundred writes.

use crds::{
    modeldeployment::{ModelStatus, TransferStatus},
    startup::{ModelFacts, StartupStatus},
};

/// The transfer of one pod; the previous one if the percentage is the same.
pub(super) fn transfer(
    pod: &str,
    startup: &StartupStatus,
    previous: Option<&TransferStatus>,
) -> TransferStatus {
    let percent = percent(startup);
    if let Some(same) = previous.filter(|previous| previous.pod == pod && previous.percent == percent) {
        return same.clone();
    }
    TransferStatus {
        pod: pod.into(),
        bytes_done: signed(startup.bytes_done),
        bytes_total: signed(startup.bytes_total.unwrap_or(0)),
        percent,
        rate_per_second: Some(signed(startup.rate_per_second)),
        eta_seconds: startup.eta_seconds.map(signed),
    }
}

/// The percentage that the pod reports; without one, the share of the bytes.
fn percent(startup: &StartupStatus) -> i32 {
    let share = || match startup.bytes_total {
        None | Some(0) => 0,
        Some(total) => (u128::from(startup.bytes_done) * 100 / u128::from(total)).min(100) as i32,
    };
    startup
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

/// The facts that a pod reports; the known ones complete them.
pub(super) fn model_status(facts: &ModelFacts, known: ModelStatus) -> ModelStatus {
    ModelStatus {
        revision: facts.revision.clone().or(known.revision),
        architecture: facts.architecture.clone().or(known.architecture),
        bytes: facts.bytes.map(signed).or(known.bytes),
        max_model_len: facts.max_model_len.map(signed).or(known.max_model_len),
        memory_bytes: facts.memory_bytes.map(signed).or(known.memory_bytes),
    }
}
