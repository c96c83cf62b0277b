//! In which order a rollout starts and ends pods, from what became of the pods so far.
//!
//! Pure. A good pod ends before its successor is ready only if there is no room for both and the new spec was checked.

use k8s_openapi::{
    api::{apps::v1::Deployment, batch::v1::Job},
    apimachinery::pkg::{apis::meta::v1::Time, util::intstr::IntOrString},
    jiff::{SignedDuration, Timestamp},
};

use super::{observed::Observed, plan::PodOrder};
use crate::{
    names::{Names, template_hash},
    pods::{self, Replica, Stage},
};

/// A new pod that has no room for this time is not waiting for an autoscaler's or a scheduler's next try only.
const NO_ROOM_AFTER: SignedDuration = SignedDuration::from_secs(15);

/// Words of the scheduler for what an old pod holds and a new one waits for. Where it says nothing of the kind, as for a
/// node selector that no node has, the end of an old pod would not help.
const ROOM_WORDS: [&str; 5] = [
    "Insufficient ",
    "Too many pods",
    "pod affinity",
    "volume",
    "free ports",
];

/// The order for the pods of the template with this hash.
pub fn pod_order(names: &Names, hash: &str, observed: &Observed, now: Timestamp) -> PodOrder {
    let replicas = pods::replicas(&observed.pods);
    let is_old = |replica: &&Replica<'_>| replica.template_hash != Some(hash);
    let mut old = replicas.iter().filter(is_old);
    let old_exist = old.clone().any(|replica| replica.stage != Stage::Ended);
    let old_serve = old.any(|replica| replica.stage == Stage::Ready);
    let live: Option<Deployment> = observed.live.typed(&names.main);
    let live = live.filter(|live| makes(live, hash));
    if !old_exist {
        return PodOrder::NewFirst;
    }
    if live.as_ref().is_some_and(is_old_first) {
        return PodOrder::OldFirst;
    }
    let has_no_room = replicas
        .iter()
        .filter(|replica| !is_old(replica))
        .any(|replica| lasted(no_node_since(replica), now))
        || live.is_some_and(|live| lasted(quota_since(&live), now));
    match (has_no_room, old_serve) {
        (false, _) => PodOrder::NewFirst,
        (true, false) => PodOrder::OldFirst,
        (true, true) => checked_order(names, hash, observed),
    }
}

/// The order where there is no room for a new pod beside one that serves.
fn checked_order(names: &Names, hash: &str, observed: &Observed) -> PodOrder {
    let Some(job) = observed.live.typed::<Job>(&names.check) else {
        return PodOrder::CheckFirst;
    };
    if template_hash(&job.metadata) != Some(hash) {
        // It checks another spec. Without `CheckFirst` it is deleted, and the next reconcile makes a new one.
        return PodOrder::NewFirst;
    }
    let succeeded = job.status.and_then(|status| status.succeeded).unwrap_or(0);
    match succeeded {
        0 => PodOrder::CheckFirst,
        _ => PodOrder::OldFirst,
    }
}

/// Whether the Deployment makes pods of the template with this hash.
fn makes(live: &Deployment, hash: &str) -> bool {
    let metadata = || live.spec.as_ref()?.template.metadata.as_ref();
    metadata().and_then(template_hash) == Some(hash)
}

fn is_old_first(live: &Deployment) -> bool {
    let surge = || {
        live.spec
            .as_ref()?
            .strategy
            .as_ref()?
            .rolling_update
            .as_ref()?
            .max_surge
            .clone()
    };
    surge() == Some(IntOrString::Int(0))
}

fn no_node_since(replica: &Replica<'_>) -> Option<Timestamp> {
    let conditions = replica.pod.status.as_ref()?.conditions.as_ref()?;
    let refusal = conditions.iter().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
            && condition
                .message
                .as_ref()
                .is_some_and(|message| says_no_room(message))
    })?;
    let Time(since) = refusal.last_transition_time.as_ref()?;
    (replica.stage == Stage::Unscheduled).then_some(*since)
}

fn says_no_room(message: &str) -> bool {
    ROOM_WORDS.iter().any(|words| message.contains(words))
}

fn quota_since(live: &Deployment) -> Option<Timestamp> {
    let conditions = live.status.as_ref()?.conditions.as_ref()?;
    let refusal = conditions.iter().find(|condition| {
        let says_quota = |message: &String| message.contains("exceeded quota");
        condition.type_ == "ReplicaFailure"
            && condition.status == "True"
            && condition.message.as_ref().is_some_and(says_quota)
    })?;
    let Time(since) = refusal.last_transition_time.as_ref()?;
    Some(*since)
}

fn lasted(since: Option<Timestamp>, now: Timestamp) -> bool {
    since.is_some_and(|since| now.duration_since(since) >= NO_ROOM_AFTER)
}

#[cfg(test)]
mod tests;
