//! How long the starts of replicas took, step by step.
//!
//! Pure. The times are those of the pods and their containers.

use crds::modeldeployment::{ColdStart, RecentStart, StartTimes};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};

use crate::pods::{Replica, Stage, condition_since, fetch_status, runtime_status};

/// Starts that the status has.
const RECENT_MAX: usize = 5;

/// The known starts with those of replicas that became ready since.
pub(super) fn cold_start(
    replicas: &[&Replica<'_>],
    startup_timeout: SignedDuration,
    known: Option<ColdStart>,
) -> Option<ColdStart> {
    let mut recent = known.clone().unwrap_or_default().recent;
    let newest: Option<Timestamp> = recent.first().and_then(|start| start.time.parse().ok());
    let mut starts: Vec<_> = replicas
        .iter()
        .filter_map(|replica| start(replica, startup_timeout))
        .filter(|(ready, _)| newest.is_none_or(|newest| *ready > newest))
        .collect();
    starts.sort_by_key(|(ready, _)| *ready);
    for (_, start) in starts {
        recent.insert(0, start);
    }
    recent.truncate(RECENT_MAX);
    let Some(newest) = recent.first() else {
        return known;
    };
    Some(ColdStart {
        last: newest.times,
        p50: Some(median(&recent)),
        recent,
    })
}

/// When a replica was ready, and the steps of its start; `None` if it is not ready, or if it became ready so late after its start that
/// its readiness must have been lost in between.
fn start(replica: &Replica<'_>, startup_timeout: SignedDuration) -> Option<(Timestamp, RecentStart)> {
    if replica.stage != Stage::Ready {
        return None;
    }
    let runtime = runtime_status(replica.pod)?;
    let Time(serving_since) = runtime.state.as_ref()?.running.as_ref()?.started_at.as_ref()?;
    let created = replica.created?;
    let scheduled = condition_since(replica.pod, "PodScheduled")?;
    let ready = condition_since(replica.pod, "Ready")?;
    let fetch = fetch_status(replica.pod).and_then(|status| status.state.as_ref()?.terminated.as_ref());
    let or_serving = |at: Option<&Time>| at.map_or(*serving_since, |Time(at)| *at);
    let fetched = or_serving(fetch.and_then(|fetch| fetch.finished_at.as_ref()));
    let pulled = or_serving(fetch.and_then(|fetch| fetch.started_at.as_ref())).min(fetched);
    if runtime.restart_count > 0 || ready.duration_since(*serving_since) > startup_timeout {
        return None;
    }
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs().max(0);
    let times = StartTimes {
        scheduled_seconds: seconds(created, scheduled),
        image_seconds: seconds(scheduled, pulled),
        download_seconds: seconds(pulled, fetched),
        load_seconds: seconds(fetched, ready),
        total_seconds: seconds(created, ready),
    };
    let start = RecentStart {
        pod: replica.name.to_owned(),
        time: ready.to_string(),
        times,
    };
    Some((ready, start))
}

/// The median of each step; of an even number, the larger of the middle two.
fn median(starts: &[RecentStart]) -> StartTimes {
    let of = |step: fn(&StartTimes) -> i64| {
        let mut values: Vec<i64> = starts.iter().map(|start| step(&start.times)).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    StartTimes {
        scheduled_seconds: of(|times| times.scheduled_seconds),
        image_seconds: of(|times| times.image_seconds),
        download_seconds: of(|times| times.download_seconds),
        load_seconds: of(|times| times.load_seconds),
        total_seconds: of(|times| times.total_seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        pods,
        reconcile::fixtures::{at, ready_pod},
    };

    #[test]
    fn each_start_counts_once_and_the_median_is_that_of_the_last_ones() {
        let timeout = SignedDuration::from_secs(600);
        let pods_of = |names: &[&str], ready: &str| {
            let pod = |name: &&str| {
                let mut pod = ready_pod(name, "h");
                let conditions = pod.status.as_mut().unwrap().conditions.as_mut().unwrap();
                conditions[1].last_transition_time = Some(Time(at(ready)));
                pod
            };
            names.iter().map(pod).collect::<Vec<_>>()
        };
        let after = |pods: &[k8s_openapi::api::core::v1::Pod], known| {
            let replicas = pods::replicas(pods);
            cold_start(&replicas.iter().collect::<Vec<_>>(), timeout, known)
        };
        let first = after(&pods_of(&["a"], "10:01:40"), None);
        assert_eq!(after(&pods_of(&["a"], "10:01:40"), first.clone()), first);
        assert_eq!(after(&[], first.clone()), first, "it is remembered");
        let more = after(&pods_of(&["b", "c"], "10:03:20"), first).unwrap();
        assert_eq!(more.last.total_seconds, 200);
        let p50 = more.p50.unwrap();
        assert_eq!(
            (p50.load_seconds, p50.total_seconds),
            (140, 200),
            "of 100, 200 and 200"
        );
        let names = ["d", "e", "f", "g", "h", "i"];
        let last = after(&pods_of(&names, "10:05:00"), Some(more)).unwrap();
        assert_eq!((last.recent.len(), last.p50.unwrap().total_seconds), (5, 300));
        let again = after(&pods_of(&names, "10:05:00"), Some(last.clone()));
        assert_eq!(again, Some(last), "more replicas than are kept");
    }
}
