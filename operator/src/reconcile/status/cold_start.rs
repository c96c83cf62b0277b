//! How long the start of a replica took, step by step.
//!
//! Pure. The times are those of the pod and its containers.

use crds::modeldeployment::ColdStart;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::pods::{Replica, Stage, condition_since, fetch_status, runtime_status};

/// The steps of a ready replica's start; `None` if it is not ready, or if it became ready so late after its start that
/// its readiness must have been lost in between.
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
