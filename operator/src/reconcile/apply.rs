//! Writes the children by server-side apply under one field manager, and deletes those that the plan does not have.
//!
//! Objects that somebody else owns never get here: `validate` refuses their names.

use crds::{
    ModelDeployment,
    failure::{Failure, Reason},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, Preconditions},
};

use super::{
    children::{Applied, Built, CHILDREN, Child, Kind, Presence, Resources, Writer},
    observed::Observed,
    versions,
};
use crate::{
    context::Context,
    names::{FIELD_MANAGER, Names},
};

/// Why writing failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refuses the write; a retry cannot help.
    #[error("the API server refuses {what}")]
    Refused {
        /// Kind and name.
        what: String,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API server could not do the write now.
    #[error("cannot write {what}")]
    Unavailable {
        /// Kind and name.
        what: String,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Error {
    /// The failure of the ModelDeployment that a refusal means; `None` if a retry may help.
    pub fn failure(&self) -> Option<Failure> {
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
        let is_refusal = match &source {
            kube::Error::Api(status) => matches!(status.code, 400 | 403 | 422),
            _ => false,
        };
        let source = Box::new(source);
        match is_refusal {
            true => Error::Refused { what, source },
            false => Error::Unavailable { what, source },
        }
    }
}

/// Writes every child, then deletes those that the plan does not have, and versions that no pod template uses.
///
/// # Errors
/// When the API server refuses an object or cannot be reached.
pub async fn apply(
    context: &Context,
    object: &ModelDeployment,
    observed: &Observed,
    built: Resources<Built>,
) -> Result<Resources<Applied>, Error> {
    let applied = built.write(&ServerSideApply(&context.client)).await?;
    let names = Names::of(&object.name_any());
    for child in applied.absent() {
        if let Some(live) = observed.live.owned(object, child.kind, child.name(&names)) {
            delete(&context.client, child, live).await?;
        }
    }
    for child in CHILDREN
        .iter()
        .filter(|child| child.presence == Presence::Versioned)
    {
        let current = applied.config_map.name_any();
        let unused = versions::unused(&context.client, object, observed, &current).await;
        for live in unused.map_err(|source| Error::new("the removal of old versions".into(), source))? {
            delete(&context.client, child, live).await?;
        }
    }
    Ok(applied)
}

struct ServerSideApply<'a>(&'a Client);

impl Writer for ServerSideApply<'_> {
    type Error = Error;

    async fn write<K: Kind>(&self, child: K) -> Result<K, Error> {
        let (namespace, name) = (child.namespace().unwrap_or_default(), child.name_any());
        let api: Api<K> = Api::namespaced(self.0.clone(), &namespace);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(&name, &params, &Patch::Apply(&child))
            .await
            .map_err(|source| Error::new(format!("{} {name}", K::KIND), source))
    }
}

/// Deletes a child that the ModelDeployment owns.
async fn delete(client: &Client, child: &Child, live: &ObjectMeta) -> Result<(), Error> {
    let (namespace, name) = (
        live.namespace.clone().unwrap_or_default(),
        live.name.clone().unwrap_or_default(),
    );
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &child.resource());
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
        Err(source) => Err(Error::new(
            format!("the removal of {} {name}", child.kind),
            source,
        )),
    }
}
