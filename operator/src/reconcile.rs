//! The pipeline of one reconcile: fetch → validate → build → apply → status.
//!
//! It does not depend on what triggered it: it reads the current state and changes it to what the spec requires. Whatever
//! stops it is in the status.

pub mod api_error;
pub mod apply;
pub mod build;
pub mod children;
pub mod claim_size;
pub mod fetch;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod memory_limit;
pub mod mounts;
pub mod observed;
pub mod plan;
pub mod pod_order;
pub mod prefetch;
mod quota;
pub mod status;
pub mod validate;
pub mod versions;
pub mod wake;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crds::{
    ModelDeployment,
    failure::{Failure, Reason, chain},
};
use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject},
    core::DeserializeGuard,
    runtime::{controller::Action, reflector::ObjectRef},
};
use serde_json::{Value, json};

use self::{
    api_error::{ApiError, Class},
    children::Resources,
    observed::Observed,
    plan::Plan,
    status::Outcome,
};
use crate::{
    context::Context,
    names::{Names, template_hash},
};

pub use self::observed::Guarded;

/// When an object that the API server finds invalid is written again without a change: somebody may have changed the rules.
const INVALID: Duration = Duration::from_secs(300);

/// Why a reconcile failed. The steps' errors name the operation and the object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading failed.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// Writing children failed.
    #[error(transparent)]
    Apply(ApiError),
    /// Writing the status failed.
    #[error(transparent)]
    Status(ApiError),
}

impl Error {
    /// Metric label, and kind of error for the backoff.
    pub const fn label(&self) -> &'static str {
        match self {
            Error::Fetch(_) => "fetch_error",
            Error::Apply(_) => "apply_error",
            Error::Status(_) => "status_error",
        }
    }
}

/// Reconciles one ModelDeployment.
///
/// # Errors
/// When a step failed; [`error_policy`] decides when the reconcile is retried. The status already names the cause, unless
/// the status could not be written.
pub async fn reconcile(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let reference = reference(&guarded);
    context.watched.filled().await;
    let result = run(&guarded, &context).await;
    let label = result.as_ref().map_or_else(Error::label, |_| "ok");
    context.metrics.observe(label, started.elapsed());
    if result.is_ok() {
        context.backoffs.forget(&reference);
    }
    result
}

async fn run(guarded: &Guarded, context: &Context) -> Result<Action, Error> {
    let object = match &guarded.0 {
        Ok(seen) => fetch::newest(context, seen).await.map_err(fetch::Error::from)?,
        Err(invalid) => return unreadable(guarded, context, &invalid.error).await,
    };
    let Some(object) = object else {
        context.polls.follow(&reference(guarded), &[]);
        context.autoscaler.forget(&reference(guarded));
        return Ok(Action::await_change());
    };
    match fetch::observe(context, &object).await {
        Ok(observed) => settle(&object, context, &observed).await,
        Err(error) => {
            let (status, failure) = (json!(object.status), error.failure());
            let guarded = DeserializeGuard(Ok(object));
            let published =
                status::publish_failure(context, &guarded, status, &failure, Timestamp::now()).await;
            published.map_err(Error::Status)?;
            Err(error.into())
        }
    }
}

/// Changes what exists to what the spec requires, and publishes the result.
async fn settle(object: &ModelDeployment, context: &Context, observed: &Observed) -> Result<Action, Error> {
    let now = Timestamp::now();
    let publish = async |outcome: Outcome<'_>| {
        let status = status::compute(object, observed, outcome, now);
        let published = status::publish(context, object, &status).await;
        published.map_err(Error::Status)?;
        Ok(Action::requeue(status::next_check(&status)))
    };
    let mut plan = match validate::plan(object, observed, &context.installation) {
        Ok(plan) => plan,
        Err(refusal) => {
            let scaled = apply::scale(context, object, observed, refusal.replicas).await;
            let next = publish(Outcome::Refused(&refusal)).await?;
            return scaled.map_err(Error::Apply).map(|()| next);
        }
    };
    let template_hash = built_hash(&plan);
    plan.pod_order = pod_order::pod_order(&Names::of(&plan.name), &template_hash, observed, now);
    plan.prefetch = prefetch::prefetch(&plan, &template_hash, observed);
    match apply::apply(context, object, observed, Resources::build(&plan)).await {
        Ok(mut effect) => {
            if plan.memory.is_none() {
                // All futures together would fill much of a thread's stack.
                let limit = memory_limit::set(context, object, observed, &template_hash);
                effect.notes.extend(Box::pin(limit).await);
            }
            let applied = Outcome::Applied {
                plan: &plan,
                children: &effect.children,
                notes: &effect.notes,
            };
            publish(applied).await
        }
        Err(error) if error.class() == Class::Gone => Ok(Action::await_change()),
        Err(error) => {
            let scaled = apply::scale(context, object, observed, plan.replicas_now()).await;
            publish(Outcome::Failed {
                plan: &plan,
                template_hash: &template_hash,
                error: &error,
            })
            .await?;
            if let Err(error) = scaled {
                tracing::warn!(error = %chain(&error), "cannot write the number of replicas");
            }
            Err(Error::Apply(error))
        }
    }
}

/// The hash of the pod template that the plan leads to.
fn built_hash(plan: &Plan) -> String {
    let deployment = Resources::build(plan).deployment;
    let metadata = deployment.spec.and_then(|spec| spec.template.metadata);
    let hash = metadata.as_ref().and_then(template_hash);
    hash.unwrap_or_default().to_string()
}

/// Publishes that the object does not have the form of a ModelDeployment. Its children stay as they are.
async fn unreadable(guarded: &Guarded, context: &Context, problem: &str) -> Result<Action, Error> {
    let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
    tracing::error!(namespace, name, problem, "the ModelDeployment cannot be read");
    let resource = ApiResource::erase::<ModelDeployment>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(context.client.clone(), &namespace, &resource);
    let read = api.get_opt(&name).await;
    let read = read.map_err(ApiError::of(format!("read ModelDeployment {namespace}/{name}")));
    let Some(raw) = read.map_err(fetch::Error::from)? else {
        return Ok(Action::await_change());
    };
    let failure = Failure::new(
        Reason::Unreadable,
        format!("the object does not have the form of a ModelDeployment: {problem}"),
        "correct the field that the message names; kubectl explain modeldeployment.spec describes the form",
    );
    let status = raw.data.get("status").cloned().unwrap_or(Value::Null);
    let published = status::publish_failure(context, guarded, status, &failure, Timestamp::now()).await;
    published.map_err(Error::Status)?;
    Ok(Action::await_change())
}

/// When a failed reconcile is retried: after a capped exponential backoff for each object and kind of error; late if only
/// a change of the spec can help.
pub fn error_policy(guarded: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let reference = reference(&guarded);
    let wait = match error {
        Error::Apply(refused) if refused.class() == Class::Spec => INVALID,
        Error::Fetch(_) | Error::Apply(_) | Error::Status(_) => {
            context.backoffs.after_failure(reference.clone(), error.label())
        }
    };
    tracing::warn!(object = %reference, error = %chain(error), wait_s = wait.as_secs(), "reconcile failed");
    Action::requeue(wait)
}

fn reference(guarded: &Guarded) -> ObjectRef<ModelDeployment> {
    let reference = ObjectRef::new(&guarded.name_any());
    match guarded.namespace() {
        Some(namespace) => reference.within(&namespace),
        None => reference,
    }
}
