//! Sends what was built, by server-side apply under one field manager, and deletes what the spec no longer asks
//! for. Objects of others never get here: `validate` refuses their names.

use std::marker::PhantomData;

use crds::{
    ModelDeployment,
    failure::{Failure, Reason},
};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    build::{Applied, Built, Resources},
    fetch::{Observed, Standing},
};
use crate::{context::Context, names::FIELD_MANAGER};

/// Why sending failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refuses the object as it is; trying again will not help.
    #[error("the API server refuses {what}")]
    Refused {
        /// Kind and name.
        what: String,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server could not do it now.
    #[error("cannot apply {what}")]
    Unavailable {
        /// Kind and name.
        what: String,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Error {
    /// What the status says about a refusal; `None` if trying again may help.
    pub fn refusal(&self) -> Option<Failure> {
        match self {
            Error::Refused { source, .. } => Some(Failure::new(
                Reason::InvalidSetting,
                format!("{self}: {source}"),
                "change the field that the message names",
            )),
            Error::Unavailable { .. } => None,
        }
    }

    fn new(what: String, source: kube::Error) -> Self {
        let code = match &source {
            kube::Error::Api(status) => status.code,
            _ => 0,
        };
        let source = Box::new(source);
        match code {
            400 | 403 | 422 => Error::Refused { what, source },
            _ => Error::Unavailable { what, source },
        }
    }
}

/// Applies every child and prunes.
///
/// # Errors
/// When the API server refuses an object or cannot be reached.
pub async fn apply(
    context: &Context,
    object: &ModelDeployment,
    observed: &Observed,
    built: Resources<Built>,
) -> Result<Resources<Applied>, Error> {
    // Destructured without `..`, so that a new child that is not applied does not compile.
    let Resources {
        service_account,
        config_map,
        claim,
        network_policy,
        service,
        deployment,
        phase: _,
    } = built;
    let client = &context.client;
    let claim = async {
        match claim {
            Some(claim) => send(client, claim).await.map(Some),
            None => Ok(None),
        }
    };
    let (service_account, config_map, claim, network_policy, service) = futures::try_join!(
        send(client, service_account),
        send(client, config_map),
        claim,
        send(client, network_policy),
        send(client, service),
    )?;
    // Last, because its pods use the others.
    let deployment = send(client, deployment).await?;
    let applied = Resources {
        service_account,
        config_map,
        claim,
        network_policy,
        service,
        deployment,
        phase: PhantomData,
    };
    if applied.claim.is_none() {
        prune::<PersistentVolumeClaim>(client, object, observed).await?;
    }
    Ok(applied)
}

/// One object of a kind this operator writes.
trait Child:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + k8s_openapi::Resource
    + Clone
    + std::fmt::Debug
    + Serialize
    + DeserializeOwned
{
}
impl<K> Child for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + k8s_openapi::Resource
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned
{
}

async fn send<K: Child>(client: &Client, child: K) -> Result<K, Error> {
    let (namespace, name) = (child.namespace().unwrap_or_default(), child.name_any());
    let api: Api<K> = Api::namespaced(client.clone(), &namespace);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(&child))
        .await
        .map_err(|source| Error::new(format!("{} {name}", K::KIND), source))
}

/// Deletes the child of kind `K`, if there is one and it is the ModelDeployment's own.
async fn prune<K: Child>(
    client: &Client,
    object: &ModelDeployment,
    observed: &Observed,
) -> Result<(), Error> {
    let mut owned = observed.children.with_standing(object, Standing::Owned);
    let Some((_, live)) = owned.find(|(kind, live)| *kind == K::KIND && live.deletion_timestamp.is_none())
    else {
        return Ok(());
    };
    let name = live.name.clone().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), &object.namespace().unwrap_or_default());
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: live.uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::background()
    };
    match api.delete(&name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error::new(format!("the removal of {} {name}", K::KIND), source)),
    }
}
