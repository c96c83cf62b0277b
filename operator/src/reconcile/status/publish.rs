//! Writes a status with one patch, if it changed, and an Event for each change of `Ready`.

use crds::{ModelDeployment, ModelDeploymentStatus, conditions::ConditionType, failure::Reason};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType},
};

use crate::{context::Context, names::FIELD_MANAGER};

/// Why a status could not be published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not accept the patch.
    #[error("cannot write the status of ModelDeployment {what}")]
    Write {
        /// Namespace and name.
        what: String,
        /// Its answer.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Writes `status` unless `object` already has it, and publishes an Event if `Ready` changed.
///
/// # Errors
/// When the API server does not accept the patch. An Event that cannot be published is only logged.
pub async fn publish(
    context: &Context,
    object: &ModelDeployment,
    status: &ModelDeploymentStatus,
) -> Result<(), Error> {
    if object.status.as_ref() == Some(status) {
        return Ok(());
    }
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let api: Api<ModelDeployment> = Api::namespaced(context.client.clone(), &namespace);
    let patch = serde_json::json!({
        "apiVersion": ModelDeployment::api_version(&()),
        "kind": ModelDeployment::kind(&()),
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(&name, &params, &Patch::Apply(&patch))
        .await
        .map_err(|source| Error::Write {
            what: format!("{namespace}/{name}"),
            source: Box::new(source),
        })?;
    if let Some(event) = transition(object.status.as_ref(), status)
        && let Err(error) = context.recorder.publish(&event, &object.object_ref(&())).await
    {
        tracing::warn!(%error, namespace, name, "cannot publish an Event");
    }
    Ok(())
}

/// The Event for a change of `Ready`; `None` if its status and reason are unchanged.
pub(super) fn transition(
    before: Option<&ModelDeploymentStatus>,
    after: &ModelDeploymentStatus,
) -> Option<Event> {
    let now = ready(after)?;
    let is_unchanged = |old: &Condition| old.status == now.status && old.reason == now.reason;
    if before.and_then(ready).is_some_and(is_unchanged) {
        return None;
    }
    let is_failure = Reason::ALL.iter().any(|failure| failure.as_str() == now.reason);
    Some(Event {
        type_: match is_failure {
            true => EventType::Warning,
            false => EventType::Normal,
        },
        reason: now.reason.clone(),
        note: Some(now.message.clone()),
        action: "Reconcile".into(),
        secondary: None,
    })
}

fn ready(status: &ModelDeploymentStatus) -> Option<&Condition> {
    let mut conditions = status.conditions.iter();
    conditions.find(|condition| condition.type_ == ConditionType::Ready.as_str())
}
