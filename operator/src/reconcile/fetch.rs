//! Reads what a reconcile decides on: the ModelDeployment, its children, its pods and how far they have come.
//!
//! The only step that reads from the cluster. The one decision here is what is worth reading.

use std::{collections::BTreeMap, net::IpAddr};

use crds::{ModelDeployment, conditions::ConditionType, modeldeployment::CacheType, startup::StartupStatus};
use futures::{StreamExt, future::try_join_all, stream};
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod, Service},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams},
};

use super::{
    children::{CHILDREN, Child, Presence},
    mounts,
    observed::{LiveChildren, Observed, Ownership, ServiceAnswer},
};
use crate::{
    context::Context,
    names::{CONTROL_PORT, Names, SERVICE_PORT, pod_selector},
    pods::{self, Stage},
};

/// Starting pods that get a request for their progress in one reconcile, newest first.
const STARTING_PODS_MAX: usize = 4;

/// Why reading failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not answer a read.
    #[error("cannot read {what}")]
    Read {
        /// Kind, namespace and name.
        what: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// A child of a deleted ModelDeployment of the same name still exists.
    #[error("waiting for the removal of {what}, which belongs to a deleted ModelDeployment of this name")]
    Leaving {
        /// Kind and name.
        what: String,
    },
}

/// The ModelDeployment as it is now; `None` if it was deleted.
///
/// # Errors
/// When the API server cannot be read.
pub async fn object(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<Option<ModelDeployment>, Error> {
    let api: Api<ModelDeployment> = Api::namespaced(context.client.clone(), namespace);
    api.get_opt(name)
        .await
        .map_err(read_error(format!("ModelDeployment {namespace}/{name}")))
}

/// Reads everything around `object`.
///
/// # Errors
/// When the API server cannot be read, or children of an earlier ModelDeployment of this name still exist.
pub async fn observe(context: &Context, object: &ModelDeployment) -> Result<Observed, Error> {
    let (live, pods, named_claim) = futures::try_join!(
        live_children(&context.client, object),
        list_pods(&context.client, object),
        named_claim(&context.client, object)
    )?;
    if let Some(what) = live.first(object, Ownership::Leaving) {
        return Err(Error::Leaving { what });
    }
    let startups = async { Ok(startups(context, object, &pods).await) };
    let (startups, service) = futures::try_join!(startups, service_answer(context, object, &pods))?;
    Ok(Observed {
        live,
        pods,
        named_claim,
        startups,
        service,
    })
}

async fn live_children(client: &Client, object: &ModelDeployment) -> Result<LiveChildren, Error> {
    let names = Names::of(&object.name_any());
    let namespace = object.namespace().unwrap_or_default();
    let names = &names;
    let reads = CHILDREN.iter().map(|child| {
        let api = Api::namespaced_with(client.clone(), &namespace, &child.resource());
        live_child(api, child, names)
    });
    let found = try_join_all(reads).await?;
    Ok(found.into_iter().flatten().collect())
}

/// The object with the child's name, or every version of it.
async fn live_child(
    api: Api<DynamicObject>,
    child: &'static Child,
    names: &Names,
) -> Result<Vec<(&'static str, ObjectMeta)>, Error> {
    let name = child.name(names);
    let unreadable = read_error(format!("{} {name}", child.kind));
    let found = match child.presence {
        Presence::Versioned => {
            let ours = ListParams::default().labels(&pod_selector(&names.main));
            api.list_metadata(&ours).await.map_err(unreadable)?.items
        }
        Presence::Always | Presence::Optional | Presence::Kept => {
            let found = api.get_metadata_opt(name).await.map_err(unreadable)?;
            found.into_iter().collect()
        }
    };
    Ok(found
        .into_iter()
        .map(|live| (child.kind, live.metadata))
        .collect())
}

async fn list_pods(client: &Client, object: &ModelDeployment) -> Result<Vec<Pod>, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let selector = pod_selector(&object.name_any());
    let pods = api
        .list(&ListParams::default().labels(&selector))
        .await
        .map_err(read_error(format!("Pods {selector} in {namespace}")))?;
    let mut pods = pods.items;
    mounts::explain(client, &mut pods).await;
    Ok(pods)
}

async fn named_claim(
    client: &Client,
    object: &ModelDeployment,
) -> Result<Option<PersistentVolumeClaim>, Error> {
    let spec = &object.spec;
    let source = spec.model.pvc.as_ref().map(|claim| claim.claim_name.clone());
    let cache = spec.cache.as_ref().filter(|cache| cache.type_ == CacheType::Pvc);
    let Some(name) = source.or_else(|| cache?.claim_name.clone()) else {
        return Ok(None);
    };
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    api.get_opt(&name)
        .await
        .map_err(read_error(format!("PersistentVolumeClaim {namespace}/{name}")))
}

/// Reads how far starting pods have come, and the facts of the model from one ready pod while they are unknown.
async fn startups(
    context: &Context,
    object: &ModelDeployment,
    pods: &[Pod],
) -> BTreeMap<String, StartupStatus> {
    let status = object.status.clone().unwrap_or_default();
    let facts_known = status.model.is_some() && status.observed_generation == object.metadata.generation;
    let mut replicas = pods::replicas(pods);
    replicas.reverse();
    let starting = replicas
        .iter()
        .filter(|replica| matches!(replica.stage, Stage::Downloading | Stage::Loading));
    let ready = replicas
        .iter()
        .filter(|replica| replica.stage == Stage::Ready && !facts_known);
    let requests = starting
        .take(STARTING_PODS_MAX)
        .chain(ready.take(1))
        .filter_map(|replica| Some((replica.name.to_string(), replica.ip?)));
    stream::iter(requests.collect::<Vec<_>>())
        .map(|(name, ip)| async move { Some((name, context.probe.startup(ip, CONTROL_PORT).await?)) })
        .buffer_unordered(STARTING_PODS_MAX + 1)
        .filter_map(std::future::ready)
        .collect()
        .await
}

/// A pod can be ready before every node routes the Service to it, so the first request goes through the Service.
/// After one answer the kubelet's probes are enough: a busy replica may be slow to answer another request.
async fn service_answer(
    context: &Context,
    object: &ModelDeployment,
    pods: &[Pod],
) -> Result<ServiceAnswer, Error> {
    let in_cluster = context.installation.namespace.is_some();
    if !in_cluster || is_available(object) || !has_ready_pod(pods) {
        return Ok(ServiceAnswer::NotRequested);
    }
    let Some(ip) = service_ip(&context.client, object).await? else {
        return Ok(ServiceAnswer::NotRequested);
    };
    Ok(match context.probe.is_ready(ip, SERVICE_PORT).await {
        true => ServiceAnswer::Answered,
        false => ServiceAnswer::NoAnswer,
    })
}

fn is_available(object: &ModelDeployment) -> bool {
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    conditions
        .filter(|condition| condition.type_ == ConditionType::Available.as_str())
        .any(|condition| condition.status == "True")
}

fn has_ready_pod(pods: &[Pod]) -> bool {
    let replicas = pods::replicas(pods);
    replicas.iter().any(|replica| replica.stage == Stage::Ready)
}

async fn service_ip(client: &Client, object: &ModelDeployment) -> Result<Option<IpAddr>, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let name = Names::of(&object.name_any()).main;
    let api: Api<Service> = Api::namespaced(client.clone(), &namespace);
    let service = api
        .get_opt(&name)
        .await
        .map_err(read_error(format!("Service {namespace}/{name}")))?;
    let ip = service.and_then(|service| service.spec?.cluster_ip);
    Ok(ip.and_then(|ip| ip.parse().ok()))
}

/// A [`Error::Read`] of `what`, for `map_err`.
fn read_error(what: String) -> impl FnOnce(kube::Error) -> Error {
    |source| Error::Read {
        what,
        source: Box::new(source),
    }
}
