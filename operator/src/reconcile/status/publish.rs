//! Writes a status with one patch, if it changed, and an Event for each change of `Ready`.

use crds::{
    ModelDeployment, ModelDeploymentStatus,
    conditions::ConditionType,
    failure::{Failure, Reason},
    modeldeployment::{Phase, ScalingStatus},
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType},
};
use serde_json::{Value, json};

use super::conditions;
use crate::{
    context::Context,
    names::FIELD_MANAGER,
    reconcile::{
        api_error::{ApiError, Class},
        observed::Guarded,
    },
};

/// Longest text of an Event, in bytes.
const NOTE_BYTES_MAX: usize = 1000;

/// Writes `status` unless `object` already has it, and publishes an Event if `Ready` changed.
///
/// # Errors
/// When the API server does not accept the patch. An Event that cannot be published is only logged.
pub async fn publish(
    context: &Context,
    object: &ModelDeployment,
    status: &ModelDeploymentStatus,
) -> Result<(), ApiError> {
    if object.status.as_ref() == Some(status) {
        return Ok(());
    }
    write(context, object, json!(status)).await?;
    let before = object
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.conditions);
    announce(context, object, transition(before, &status.conditions)).await;
    let scaling = new_scaling(object.status.as_ref(), status);
    if let Some(scaling) = scaling {
        let direction = if scaling.to > scaling.from { "up" } else { "down" };
        context.metrics.scaled(direction);
        announce(context, object, Some(scaling_event(scaling))).await;
    }
    Ok(())
}

/// The change of the number of replicas that `after` has and `before` does not have.
pub(super) fn new_scaling<'a>(
    before: Option<&ModelDeploymentStatus>,
    after: &'a ModelDeploymentStatus,
) -> Option<&'a ScalingStatus> {
    let newest = |status: &'a ModelDeploymentStatus| status.autoscaling.as_ref()?.history.first();
    let known = before.and_then(|status| status.autoscaling.as_ref()?.history.first());
    newest(after).filter(|scaling| Some(*scaling) != known)
}

fn scaling_event(scaling: &ScalingStatus) -> Event {
    let ScalingStatus {
        from,
        to,
        reason,
        message,
        ..
    } = scaling;
    Event {
        type_: EventType::Normal,
        reason: if to > from { "ScaledUp" } else { "ScaledDown" }.into(),
        note: Some(format!("{from} to {to} replicas ({reason}): {message}")),
        action: "Scale".into(),
        secondary: None,
    }
}

/// Writes a failure into a status that cannot be computed, because something could not be read. The rest of the status
/// stays as it is; `status` may have any form.
///
/// # Errors
/// When the API server does not accept the patch.
pub async fn publish_failure(
    context: &Context,
    object: &Guarded,
    mut status: Value,
    failure: &Failure,
    now: Timestamp,
) -> Result<(), ApiError> {
    let before: Vec<Condition> = serde_json::from_value(status["conditions"].clone()).unwrap_or_default();
    let written = with_failure(&before, failure, object.meta().generation, now);
    if before == written {
        return Ok(());
    }
    if !status.is_object() {
        status = json!({});
    }
    status["conditions"] = json!(written);
    status["observedGeneration"] = json!(object.meta().generation);
    status["phase"] = json!(phase(&status["phase"], failure));
    write(context, object, status).await?;
    announce(context, object, transition(&before, &written)).await;
    Ok(())
}

async fn write<K>(context: &Context, object: &K, status: Value) -> Result<(), ApiError>
where
    K: Resource<DynamicType = ()>,
{
    let (namespace, name) = (
        object.meta().namespace.clone().unwrap_or_default(),
        object.name_any(),
    );
    let api: Api<Guarded> = Api::namespaced(context.client.clone(), &namespace);
    let kind = ModelDeployment::kind(&());
    let patch = json!({
        "apiVersion": ModelDeployment::api_version(&()),
        "kind": kind,
        // An object that was deleted and created again has another status.
        "metadata": {"uid": object.uid()},
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch_status(&name, &params, &Patch::Apply(&patch)).await {
        Ok(written) => {
            context.written.remember(&kind, written.meta(), None);
            Ok(())
        }
        // The object was deleted or replaced meanwhile, so there is nothing to write.
        Err(error) if matches!(Class::of(&error), Class::Gone | Class::Changed) => Ok(()),
        Err(error) => Err(ApiError::of(format!(
            "write the status of ModelDeployment {namespace}/{name}"
        ))(error)),
    }
}

async fn announce<K: Resource<DynamicType = ()>>(context: &Context, object: &K, event: Option<Event>) {
    if let Some(event) = event
        && let Err(error) = context.recorder.publish(&event, &object.object_ref(&())).await
    {
        tracing::warn!(%error, name = object.name_any(), "cannot publish an Event");
    }
}

/// The conditions with this failure; those that only pods change stay.
fn with_failure(
    before: &[Condition],
    failure: &Failure,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let stalled = failure.reason == Reason::Unreadable || failure.reason == Reason::OperatorForbidden;
    let state = |type_: &ConditionType| match type_ {
        ConditionType::Accepted | ConditionType::Ready | ConditionType::Progressing => Some("False"),
        ConditionType::Stalled => Some(if stalled { "True" } else { "False" }),
        ConditionType::Reconciling => Some(if stalled { "False" } else { "True" }),
        ConditionType::ModelReady
        | ConditionType::Scheduled
        | ConditionType::EngineReady
        | ConditionType::AutoscalingActive
        | ConditionType::Available => None,
    };
    let condition = |type_: &ConditionType| {
        let old = before.iter().find(|old| old.type_ == type_.as_str());
        let Some(status) = state(type_) else {
            return old.cloned();
        };
        let unchanged = old.filter(|old| old.status == status);
        Some(Condition {
            type_: type_.as_str().into(),
            status: status.into(),
            reason: failure.reason.to_string(),
            message: conditions::message(failure),
            observed_generation: generation,
            last_transition_time: unchanged.map_or(Time(now), |old| old.last_transition_time.clone()),
        })
    };
    ConditionType::ALL.iter().filter_map(condition).collect()
}

fn phase(before: &Value, failure: &Failure) -> Phase {
    let before = serde_json::from_value(before.clone()).ok();
    match before {
        _ if failure.reason == Reason::Unreadable => Phase::Failed,
        Some(Phase::Ready) => Phase::Updating,
        Some(before) => before,
        None => Phase::Pending,
    }
}

/// The Event for a change of `Ready`; `None` if its status and reason are unchanged.
pub(super) fn transition(before: &[Condition], after: &[Condition]) -> Option<Event> {
    let now = ready(after)?;
    let is_unchanged = |old: &Condition| old.status == now.status && old.reason == now.reason;
    if ready(before).is_some_and(is_unchanged) {
        return None;
    }
    let is_failure = Reason::ALL.iter().any(|failure| failure.as_str() == now.reason);
    let mut note = now.message.clone();
    note.truncate(note.floor_char_boundary(NOTE_BYTES_MAX));
    Some(Event {
        type_: match is_failure {
            true => EventType::Warning,
            false => EventType::Normal,
        },
        reason: now.reason.clone(),
        note: Some(note),
        action: "Reconcile".into(),
        secondary: None,
    })
}

fn ready(conditions: &[Condition]) -> Option<&Condition> {
    conditions
        .iter()
        .find(|condition| condition.type_ == ConditionType::Ready.as_str())
}
