//! Reads everything a reconcile looks at: the object itself, its children, its pods and what these say.
//!
//! The only step that reads. It decides nothing but what is worth reading.

use std::{collections::BTreeMap, net::IpAddr};

use crds::{ModelDeployment, conditions::ConditionType, modeldeployment::CacheType, startup::StartupStatus};
use futures::{StreamExt, stream};
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, PartialObjectMeta},
    core::NamespaceResourceScope,
};
use serde::de::DeserializeOwned;

use crate::{
    context::Context,
    names::{FETCH_PORT, Names, OWNER_LABEL, SERVE_PORT, SERVICE_PORT, pod_selector},
    pods::{self, Stage},
};

/// Pods asked for their progress in one reconcile, newest first.
const POLLED_PODS_MAX: usize = 4;

/// Everything a reconcile looks at.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// What stands where the children stand or would stand.
    pub children: Children,
    /// Every pod of the ModelDeployment, of any generation.
    pub pods: Vec<Pod>,
    /// The claim that the spec names, if it names one and it exists.
    pub named_claim: Option<PersistentVolumeClaim>,
    /// What starting pods say, by pod name.
    pub progress: BTreeMap<String, StartupStatus>,
    /// Whether the Service leads to a ready pod.
    pub service: ServiceAnswer,
}

/// What a question through the Service came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServiceAnswer {
    /// It was not asked: it answered before, nothing is ready, or the operator runs outside the cluster.
    #[default]
    NotAsked,
    /// A ready pod answered.
    Answers,
    /// Nobody answered.
    Silent,
}

/// Metadata of the objects that have the children's names, whoever they belong to.
#[derive(Clone, Debug, Default)]
pub struct Children {
    /// By kind.
    pub live: BTreeMap<&'static str, ObjectMeta>,
    /// Address of the Service.
    pub service_ip: Option<IpAddr>,
}

/// Whose an object with a child's name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Owned by this ModelDeployment.
    Owned,
    /// Left by this or an earlier ModelDeployment of this name, on purpose.
    Retained,
    /// Belongs to an earlier ModelDeployment of this name and is about to be collected.
    Leaving,
    /// Belongs to somebody else.
    Foreign,
}

/// Why reading failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not answer a read.
    #[error("cannot read {what}")]
    Read {
        /// Kind, or kind and name.
        what: String,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// Children of a deleted ModelDeployment of the same name are still there.
    #[error("{what} of a deleted ModelDeployment of this name is still being removed")]
    Leaving {
        /// Kind and name.
        what: String,
    },
}

/// The ModelDeployment as it is now; `None` if it is gone.
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
        .map_err(|source| read_error(&format!("ModelDeployment {namespace}/{name}"), source))
}

/// Reads what surrounds `object`.
///
/// # Errors
/// When the API server cannot be read, or children of a namesake are still being removed.
pub async fn observe(context: &Context, object: &ModelDeployment) -> Result<Observed, Error> {
    let (children, pods, named_claim) = futures::try_join!(
        children(&context.client, object),
        list_pods(&context.client, object),
        named_claim(&context.client, object)
    )?;
    if let Some((kind, live)) = children.with_standing(object, Standing::Leaving).next() {
        return Err(Error::Leaving {
            what: format!("{kind} {}", live.name.as_deref().unwrap_or_default()),
        });
    }
    let (progress, service) = futures::join!(
        progress(context, object, &pods),
        service_answer(
            context,
            object,
            children.service_ip.filter(|_| has_ready_pod(&pods))
        ),
    );
    Ok(Observed {
        children,
        pods,
        named_claim,
        progress,
        service,
    })
}

async fn children(client: &Client, object: &ModelDeployment) -> Result<Children, Error> {
    let names = Names::of(&object.name_any());
    let namespace = object.namespace().unwrap_or_default();
    let (service_account, config_map, claim, network_policy, service, deployment) = futures::try_join!(
        live::<ServiceAccount>(client, &namespace, &names.main),
        live::<ConfigMap>(client, &namespace, &names.config_map),
        live::<PersistentVolumeClaim>(client, &namespace, &names.claim),
        live::<NetworkPolicy>(client, &namespace, &names.main),
        service(client, &namespace, &names.main),
        live::<Deployment>(client, &namespace, &names.main),
    )?;
    let cluster_ip = service
        .as_ref()
        .and_then(|service| service.spec.as_ref()?.cluster_ip.as_deref());
    let service_ip = cluster_ip.and_then(|ip| ip.parse().ok());
    let service = service.map(|service| ("Service", service.metadata));
    let found = [
        service_account,
        config_map,
        claim,
        network_policy,
        service,
        deployment,
    ];
    Ok(Children {
        live: found.into_iter().flatten().collect(),
        service_ip,
    })
}

async fn live<K>(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<(&'static str, ObjectMeta)>, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + k8s_openapi::Resource
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let found: Option<PartialObjectMeta<K>> = api
        .get_metadata_opt(name)
        .await
        .map_err(|source| read_error(&format!("{} {namespace}/{name}", K::KIND), source))?;
    Ok(found.map(|object| (K::KIND, object.metadata)))
}

/// The Service whole, because its address is asked for an answer.
async fn service(client: &Client, namespace: &str, name: &str) -> Result<Option<Service>, Error> {
    let api: Api<Service> = Api::namespaced(client.clone(), namespace);
    let what = format!("Service {namespace}/{name}");
    api.get_opt(name)
        .await
        .map_err(|source| read_error(&what, source))
}

async fn list_pods(client: &Client, object: &ModelDeployment) -> Result<Vec<Pod>, Error> {
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let selected = ListParams::default().labels(&pod_selector(&object.name_any()));
    let pods = api
        .list(&selected)
        .await
        .map_err(|source| read_error(&format!("Pods in {namespace}"), source))?;
    Ok(pods.items)
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
    let what = format!("PersistentVolumeClaim {namespace}/{name}");
    api.get_opt(&name)
        .await
        .map_err(|source| read_error(&what, source))
}

/// Asks starting pods how far they are, and one ready pod for the model's facts while these are not known.
async fn progress(
    context: &Context,
    object: &ModelDeployment,
    pods: &[Pod],
) -> BTreeMap<String, StartupStatus> {
    let status = object.status.clone().unwrap_or_default();
    let facts_known = status.model.is_some() && status.observed_generation == object.metadata.generation;
    let mut replicas = pods::replicas(pods);
    replicas.reverse();
    let starting = replicas.iter().filter_map(|replica| match replica.stage {
        Stage::Downloading => Some((replica, FETCH_PORT)),
        Stage::Loading => Some((replica, SERVE_PORT)),
        Stage::Unscheduled | Stage::Starting | Stage::Ready | Stage::Leaving | Stage::Ended => None,
    });
    let ready = replicas
        .iter()
        .filter(|replica| replica.stage == Stage::Ready && !facts_known);
    let asked = starting
        .take(POLLED_PODS_MAX)
        .chain(ready.take(1).map(|replica| (replica, SERVE_PORT)))
        .filter_map(|(replica, port)| Some((replica.name.to_string(), replica.ip?, port)));
    stream::iter(asked.collect::<Vec<_>>())
        .map(|(name, ip, port)| async move { Some((name, context.probe.startup(ip, port).await?)) })
        .buffer_unordered(POLLED_PODS_MAX + 1)
        .filter_map(std::future::ready)
        .collect()
        .await
}

fn has_ready_pod(pods: &[Pod]) -> bool {
    pods::replicas(pods)
        .iter()
        .any(|replica| replica.stage == Stage::Ready)
}

/// A pod is ready before every node knows the way to it, so the first answer is asked for through the Service.
/// Once it has answered, the kubelet's probes are enough: a busy replica may be slow to answer one more.
async fn service_answer(
    context: &Context,
    object: &ModelDeployment,
    service_ip: Option<IpAddr>,
) -> ServiceAnswer {
    let inside = context.installation.namespace.is_some();
    let conditions = object.status.iter().flat_map(|status| &status.conditions);
    let available = conditions
        .filter(|condition| condition.type_ == ConditionType::Available.as_str())
        .any(|condition| condition.status == "True");
    match service_ip.filter(|_| inside && !available) {
        None => ServiceAnswer::NotAsked,
        Some(ip) if context.probe.is_ready(ip, SERVICE_PORT).await => ServiceAnswer::Answers,
        Some(_) => ServiceAnswer::Silent,
    }
}

fn read_error(what: &str, source: kube::Error) -> Error {
    Error::Read {
        what: what.into(),
        source: Box::new(source),
    }
}

impl Children {
    /// The live objects with this standing towards `object`, with their kinds.
    pub fn with_standing(
        &self,
        object: &ModelDeployment,
        wanted: Standing,
    ) -> impl Iterator<Item = (&'static str, &ObjectMeta)> {
        self.live
            .iter()
            .filter(move |(_, live)| standing(live, object) == wanted)
            .map(|(kind, live)| (*kind, live))
    }

    /// The first object that has a child's name and belongs to somebody else, as `Kind name`.
    pub fn foreign(&self, object: &ModelDeployment) -> Option<String> {
        let (kind, live) = self.with_standing(object, Standing::Foreign).next()?;
        Some(format!("{kind} {}", live.name.as_deref().unwrap_or_default()))
    }
}

fn standing(live: &ObjectMeta, object: &ModelDeployment) -> Standing {
    let controller = live
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true));
    let label = live.labels.as_ref().and_then(|labels| labels.get(OWNER_LABEL));
    match controller {
        Some(owner) if Some(&owner.uid) == object.metadata.uid.as_ref() => Standing::Owned,
        Some(owner) if owner.kind == ModelDeployment::kind(&()) && owner.name == object.name_any() => {
            Standing::Leaving
        }
        None if label == Some(&object.name_any()) => Standing::Retained,
        Some(_) | None => Standing::Foreign,
    }
}

impl Observed {
    /// The named claim can be mounted on several nodes.
    pub fn named_claim_is_shared(&self) -> bool {
        let spec = self.named_claim.as_ref().and_then(|claim| claim.spec.as_ref());
        spec.into_iter()
            .flat_map(|spec| spec.access_modes.iter().flatten())
            .any(|mode| mode == "ReadWriteMany" || mode == "ReadOnlyMany")
    }
}

#[cfg(test)]
mod tests;
