//! Reads what a reconcile decides on: the ModelDeployment, its children, its pods and how far they have come.
//!
//! The only step that reads from the cluster. What a watch has seen costs no request. The one decision here is what is
//! worth reading.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crds::{
    ModelDeployment,
    conditions::ConditionType,
    failure::{Failure, Reason},
    modeldeployment::{
        Autoscaling, CacheType, KV_CACHE_TARGET_PERCENT_DEFAULT, REPLICAS_MIN_DEFAULT,
        SCALE_DOWN_WINDOW_SECONDS_DEFAULT, SCALE_TO_ZERO_AFTER_SECONDS_DEFAULT,
        TARGET_UTILIZATION_PERCENT_DEFAULT,
    },
    startup::StartupStatus,
    wake::Known,
};
use futures::future::try_join_all;
use k8s_openapi::{
    Resource as _,
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        core::v1::{PersistentVolumeClaim, Pod, Service},
    },
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DynamicObject, ListParams},
    runtime::reflector::ObjectRef,
};

use super::{
    api_error::ApiError,
    children::{CHILDREN, Child, Presence},
    mounts,
    observed::{LiveChildren, Observed, Ownership, ServiceAnswer},
};
use crate::{
    autoscaler::{
        Autoscaled, Fleet,
        decision::{LastReplica, Policy, Room},
    },
    context::Context,
    names::{CONTROL_PORT, Names, SERVICE_PORT, check_selector, pod_selector},
    pods::{self, Replica, Stage},
    polls::{Answer, Question, Target},
    watched::Seen,
};

/// A pod that finds no node for this time waits for more than the next node of a cluster that grows.
const NO_ROOM_AFTER: SignedDuration = SignedDuration::from_secs(120);
/// Starting pods whose progress is asked for, newest first.
const STARTING_PODS_MAX: usize = 4;

/// Why reading failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not answer a read.
    #[error(transparent)]
    Read(#[from] ApiError),
    /// A child of a deleted ModelDeployment of the same name still exists.
    #[error("waiting for the removal of {what}, which belongs to a deleted ModelDeployment of this name")]
    Leaving {
        /// Kind and name.
        what: String,
    },
}

impl Error {
    /// The failure as the status shows it.
    pub fn failure(&self) -> Failure {
        match self {
            Error::Read(error) => error.failure(),
            Error::Leaving { what } => Failure::new(
                Reason::Waiting,
                self.to_string(),
                format!("wait, or remove what still uses it; kubectl describe shows who uses {what}"),
            ),
        }
    }
}

/// The ModelDeployment as it is now: as the watch has seen it, unless the operator wrote it later. `None` if it was
/// deleted.
///
/// # Errors
/// When the API server cannot be read.
pub async fn newest(context: &Context, seen: &ModelDeployment) -> Result<Option<ModelDeployment>, ApiError> {
    let object = match context
        .written
        .is_current(&ModelDeployment::kind(&()), seen.meta())
    {
        true => Some(seen.clone()),
        false => object(context, seen).await?,
    };
    Ok(object.filter(|object| object.metadata.deletion_timestamp.is_none()))
}

/// The ModelDeployment of the same name as the API server has it.
///
/// # Errors
/// When the API server cannot be read.
pub async fn object(context: &Context, seen: &ModelDeployment) -> Result<Option<ModelDeployment>, ApiError> {
    let (namespace, name) = (seen.namespace().unwrap_or_default(), seen.name_any());
    let api: Api<ModelDeployment> = Api::namespaced(context.client.clone(), &namespace);
    api.get_opt(&name)
        .await
        .map_err(ApiError::of(format!("read ModelDeployment {namespace}/{name}")))
}

/// Reads everything around `object`.
///
/// # Errors
/// When the API server cannot be read, or children of an earlier ModelDeployment of this name still exist.
pub async fn observe(context: &Context, object: &ModelDeployment) -> Result<Observed, Error> {
    let (live, (pods, strays), named_claim) = futures::try_join!(
        live_children(context, object),
        pods_of(context, object),
        named_claim(&context.client, object),
    )?;
    let check_pods = check_pods(context, object, &live).await?;
    if let Some(what) = live.first(object, Ownership::Leaving) {
        return Err(Error::Leaving { what });
    }
    let mut observed = Observed {
        live,
        pods,
        strays,
        check_pods,
        named_claim,
        ..Observed::default()
    };
    ask_pods(context, object, &mut observed);
    observed.autoscaled = autoscaled(context, object, &observed);
    Ok(observed)
}

async fn live_children(context: &Context, object: &ModelDeployment) -> Result<LiveChildren, ApiError> {
    let reads = CHILDREN.iter().map(|child| live_child(context, object, child));
    let found = try_join_all(reads).await?;
    Ok(found.into_iter().flatten().collect())
}

/// The object with the child's name, or every version of it.
async fn live_child(
    context: &Context,
    object: &ModelDeployment,
    child: &'static Child,
) -> Result<Vec<(&'static str, Arc<DynamicObject>)>, ApiError> {
    let (namespace, names) = (
        object.namespace().unwrap_or_default(),
        Names::of(&object.name_any()),
    );
    let name = child.name(&names);
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &child.resource());
    if child.presence == Presence::Versioned {
        let found = match context.watched.children(child.kind, &namespace, &names.main) {
            Some(seen) => seen,
            None => {
                let ours = ListParams::default().labels(&pod_selector(&names.main));
                let found = api.list(&ours).await;
                let found = found.map_err(ApiError::of(format!(
                    "read the {}s of {}",
                    child.kind, names.main
                )))?;
                found.into_iter().map(Arc::new).collect()
            }
        };
        return Ok(found.into_iter().map(|live| (child.kind, live)).collect());
    }
    match context.watched.child(child.kind, &namespace, name) {
        Seen::Found(seen) if context.written.is_current(child.kind, &seen.metadata) => {
            return Ok(vec![(child.kind, seen)]);
        }
        Seen::Absent if is_accepted(object) && is_absent_unless_seen(child.presence, object) => {
            return Ok(Vec::new());
        }
        Seen::Found(_) | Seen::Absent | Seen::Unknown => {}
    }
    let found = api
        .get_opt(name)
        .await
        .map_err(ApiError::of(format!("read {} {name}", child.kind)))?;
    Ok(found
        .into_iter()
        .map(|live| (child.kind, Arc::new(live)))
        .collect())
}

/// The pods of the ModelDeployment, and the names of others that have its label.
async fn pods_of(context: &Context, object: &ModelDeployment) -> Result<(Vec<Pod>, Vec<String>), ApiError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let mut found = match context.watched.pods(&namespace, &name) {
        Some(seen) => seen,
        None => list_pods(&context.client, &namespace, &pod_selector(&name)).await?,
    };
    mounts::explain(&context.client, &mut found).await;
    let deployment = Names::of(&name).main;
    let (ours, others): (Vec<Pod>, Vec<Pod>) = found
        .into_iter()
        .partition(|pod| pods::is_made_by(pod, &deployment));
    let mut strays: Vec<String> = others.iter().map(ResourceExt::name_any).collect();
    strays.sort();
    Ok((ours, strays))
}

/// The pods of the Job that checks the new spec, while the Job exists.
async fn check_pods(
    context: &Context,
    object: &ModelDeployment,
    live: &LiveChildren,
) -> Result<Vec<Pod>, ApiError> {
    let name = object.name_any();
    if live.owned(object, Job::KIND, &Names::of(&name).check).is_none() {
        return Ok(Vec::new());
    }
    let namespace = object.namespace().unwrap_or_default();
    list_pods(&context.client, &namespace, &check_selector(&name)).await
}

async fn list_pods(client: &Client, namespace: &str, selector: &str) -> Result<Vec<Pod>, ApiError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pods = api
        .list(&ListParams::default().labels(selector))
        .await
        .map_err(ApiError::of(format!("read Pods {selector} in {namespace}")))?;
    Ok(pods.items)
}

async fn named_claim(
    client: &Client,
    object: &ModelDeployment,
) -> Result<Option<PersistentVolumeClaim>, ApiError> {
    let spec = &object.spec;
    let source = spec.model.pvc.as_ref().map(|claim| claim.claim_name.clone());
    let cache = spec.cache.as_ref().filter(|cache| cache.type_ == CacheType::Pvc);
    let Some(name) = source.or_else(|| cache?.claim_name.clone()) else {
        return Ok(None);
    };
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    api.get_opt(&name).await.map_err(ApiError::of(format!(
        "read PersistentVolumeClaim {namespace}/{name}"
    )))
}

/// Asks starting pods how far they have come, one ready pod for the facts of the model while they are unknown, and the
/// Service whether it leads to a ready pod. The tasks of `polls` ask; here are only their newest answers.
fn ask_pods(context: &Context, object: &ModelDeployment, observed: &mut Observed) {
    let pods = pod_targets(object, &observed.pods);
    let service = service_target(context, object, observed);
    let targets: Vec<Target> = pods.values().copied().chain(service).collect();
    let answers = context.polls.follow(&ObjectRef::from_obj(object), &targets);
    let startup = |(name, target): (&String, &Target)| match answers.get(target)? {
        Answer::Startup(status) => Some((name.clone(), StartupStatus::clone(status))),
        Answer::Ready => None,
    };
    observed.startups = pods.iter().filter_map(startup).collect();
    observed.service = match service {
        None => ServiceAnswer::NotRequested,
        Some(target) if answers.contains_key(&target) => ServiceAnswer::Answered,
        Some(_) => ServiceAnswer::NoAnswer,
    };
}

/// The autoscaler's newest decision; from now on it follows the load of the ready replicas.
fn autoscaled(context: &Context, object: &ModelDeployment, observed: &Observed) -> Option<Autoscaled> {
    let reference = ObjectRef::from_obj(object);
    let Some(autoscaling) = &object.spec.autoscaling else {
        context.autoscaler.forget(&reference);
        return None;
    };
    let policy = policy(context, object, autoscaling);
    let live: Option<Deployment> = observed.live.typed(&Names::of(&object.name_any()).main);
    let replicas = live.and_then(|live| live.spec?.replicas);
    let pods = pods::replicas(&observed.pods);
    let ready = pods.iter().filter(|replica| replica.stage == Stage::Ready);
    let fleet = Fleet {
        policy,
        replicas: replicas.unwrap_or(policy.replicas_min),
        ready: ready.filter_map(|replica| replica.ip).collect(),
        port: CONTROL_PORT,
        room: room(&pods, Timestamp::now()),
        salt: salt(object, autoscaling),
    };
    Some(context.autoscaler.follow(&reference, fleet))
}

fn policy(context: &Context, object: &ModelDeployment, autoscaling: &Autoscaling) -> Policy {
    let share = |percent: Option<i32>, default: i32| f64::from(percent.unwrap_or(default)) / 100.0;
    let window_s = autoscaling
        .scale_down_window_seconds
        .unwrap_or(SCALE_DOWN_WINDOW_SECONDS_DEFAULT);
    // A new ModelDeployment begins with one replica, which shows that the spec works.
    let replicas_min = autoscaling.min_replicas.unwrap_or(REPLICAS_MIN_DEFAULT).max(1);
    let settings = object.spec.settings();
    let n_places = settings
        .engine
        .max_num_seqs()
        .min(settings.serving.max_concurrency());
    Policy {
        replicas_min,
        last: last_replica(context, object, autoscaling),
        replicas_max: autoscaling.max_replicas.max(replicas_min),
        utilization: share(
            autoscaling.target_utilization_percent,
            TARGET_UTILIZATION_PERCENT_DEFAULT,
        ),
        kv_usage: share(
            autoscaling.kv_cache_target_percent,
            KV_CACHE_TARGET_PERCENT_DEFAULT,
        ),
        down_window_s: f64::from(window_s),
        n_places: f64::from(n_places),
    }
}

/// The salt of the keys, if the gateway must know them.
fn salt(object: &ModelDeployment, autoscaling: &Autoscaling) -> Option<String> {
    let may_be_none = autoscaling.min_replicas == Some(0);
    let has_keys = object.wake_keys() != Known::Everybody;
    object.uid().filter(|_| may_be_none && has_keys)
}

fn last_replica(context: &Context, object: &ModelDeployment, autoscaling: &Autoscaling) -> LastReplica {
    if autoscaling.min_replicas != Some(0) {
        return LastReplica::Requested;
    }
    if context.installation.gateway_service.is_none() {
        return LastReplica::NoGateway;
    }
    if object.wake_keys() == Known::Nobody {
        return LastReplica::NoKeys;
    }
    let after = autoscaling
        .scale_to_zero_after_seconds
        .unwrap_or(SCALE_TO_ZERO_AFTER_SECONDS_DEFAULT);
    let cold_start = object
        .status
        .as_ref()
        .and_then(|status| status.cold_start.as_ref());
    LastReplica::EndsIdle {
        after_s: f64::from(after),
        start_s: cold_start.map_or(0.0, |start| start.p50.unwrap_or(start.last).total_seconds as f64),
    }
}

/// A pod that finds no node for some time will not find one soon, so more pods would only wait, too.
fn room(pods: &[Replica<'_>], now: Timestamp) -> Room {
    let waits = |replica: &Replica<'_>| {
        let since = replica.created.filter(|_| replica.stage == Stage::Unscheduled);
        since.is_some_and(|since| now.duration_since(since) >= NO_ROOM_AFTER)
    };
    match pods.iter().any(waits) {
        true => Room::Used,
        false => Room::Free,
    }
}

/// Where starting pods, and one ready pod while the facts of the model are unknown, report how far they have come.
fn pod_targets(object: &ModelDeployment, pods: &[Pod]) -> BTreeMap<String, Target> {
    let status = object.status.clone().unwrap_or_default();
    // The download knows a part of the facts; the runtime knows all of them.
    let facts_known = status.model.is_some_and(|model| model.architecture.is_some())
        && status.observed_generation == object.metadata.generation;
    let mut replicas = pods::replicas(pods);
    replicas.reverse();
    let starting = replicas
        .iter()
        .filter(|replica| matches!(replica.stage, Stage::Downloading | Stage::Loading));
    let ready = replicas
        .iter()
        .filter(|replica| replica.stage == Stage::Ready && !facts_known);
    starting
        .take(STARTING_PODS_MAX)
        .chain(ready.take(1))
        .filter_map(|replica| {
            let target = Target {
                ip: replica.ip?,
                port: CONTROL_PORT,
                question: Question::Startup,
            };
            Some((replica.name.to_string(), target))
        })
        .collect()
}

/// A pod can be ready before every node routes the Service to it, so the first request goes through the Service.
/// After one answer the kubelet's probes are enough: a busy replica may be slow to answer another request.
fn service_target(context: &Context, object: &ModelDeployment, observed: &Observed) -> Option<Target> {
    let in_cluster = context.installation.namespace.is_some();
    if !in_cluster || holds(object, ConditionType::Available) || !has_ready_pod(&observed.pods) {
        return None;
    }
    let service: Service = observed.live.typed(&Names::of(&object.name_any()).main)?;
    let ip: IpAddr = service.spec?.cluster_ip?.parse().ok()?;
    Some(Target {
        ip,
        port: SERVICE_PORT,
        question: Question::Ready,
    })
}

fn holds(object: &ModelDeployment, type_: ConditionType) -> bool {
    let mut conditions = object.status.iter().flat_map(|status| &status.conditions);
    conditions.any(|condition| condition.type_ == type_.as_str() && condition.status == "True")
}

/// Whether a child of an accepted spec does not exist if no watch has seen it. Objects of others are not watched. None has
/// the name of an optional child, or the spec would not be accepted; one with the name of a claim matters only to a spec
/// that requests the claim.
fn is_absent_unless_seen(presence: Presence, object: &ModelDeployment) -> bool {
    let spec = &object.spec;
    let requests_claim = spec.model.pvc.is_none()
        && spec
            .cache
            .as_ref()
            .is_some_and(|cache| cache.type_ == CacheType::Pvc && cache.claim_name.is_none());
    match presence {
        Presence::Optional => true,
        Presence::Kept => !requests_claim,
        Presence::Always | Presence::Versioned => false,
    }
}

/// Whether the children of this generation were written once.
fn is_accepted(object: &ModelDeployment) -> bool {
    let status = object.status.as_ref();
    holds(object, ConditionType::Accepted)
        && status.is_some_and(|status| status.observed_generation == object.metadata.generation)
}

fn has_ready_pod(pods: &[Pod]) -> bool {
    let replicas = pods::replicas(pods);
    replicas.iter().any(|replica| replica.stage == Stage::Ready)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reconcile::fixtures::{HUB, object};

    #[test]
    fn a_claim_that_the_spec_does_not_request_is_not_read() {
        let with_claim = "{model: {huggingFace: {repo: acme/model}}, cache: {type: PVC, size: 1Gi}}";
        let with_claim_of_others =
            "{model: {huggingFace: {repo: acme/model}}, cache: {type: PVC, claimName: shared}}";
        for (spec, is_absent) in [(HUB, true), (with_claim, false), (with_claim_of_others, true)] {
            assert_eq!(
                is_absent_unless_seen(Presence::Kept, &object(spec)),
                is_absent,
                "{spec}"
            );
        }
    }
}
