//! The pipeline of one reconcile: fetch → validate → build → apply → status.
//!
//! It never asks why it was called: it reads what is there, and makes it what the spec says.

pub mod apply;
pub mod build;
pub mod children;
pub mod fetch;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod observed;
pub mod plan;
pub mod status;
pub mod validate;

use std::{sync::Arc, time::Instant};

use crds::{ModelDeployment, failure::chain};
use k8s_openapi::jiff::Timestamp;
use kube::{
    ResourceExt,
    core::DeserializeGuard,
    runtime::{controller::Action, reflector::ObjectRef},
};

use self::{children::Resources, status::Outcome};
use crate::context::Context;

/// A ModelDeployment that may not be readable: one bad object does not stop the watch of the others.
pub type Guarded = DeserializeGuard<ModelDeployment>;

/// Why a reconcile failed, one variant per step that can.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object does not have the form of a ModelDeployment.
    #[error("the object is no ModelDeployment: {0}")]
    Unreadable(String),
    /// Reading failed.
    #[error("fetch")]
    Fetch(#[from] fetch::Error),
    /// Writing children failed.
    #[error("apply")]
    Apply(#[from] apply::Error),
    /// Writing the status failed.
    #[error("status")]
    Status(#[from] status::Error),
}

impl Error {
    /// Metric label and kind for the backoff.
    pub const fn label(&self) -> &'static str {
        match self {
            Error::Unreadable(_) => "unreadable",
            Error::Fetch(_) => "fetch_error",
            Error::Apply(_) => "apply_error",
            Error::Status(_) => "status_error",
        }
    }
}

/// Reconciles one ModelDeployment.
///
/// # Errors
/// When a step could not do its work; [`error_policy`] says when it is tried again.
pub async fn reconcile(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let reference = reference(&guarded);
    let result = run(&guarded, &context).await;
    let label = result.as_ref().map_or_else(Error::label, |_| "ok");
    context.metrics.observe(label, started.elapsed());
    if result.is_ok() {
        context.backoffs.forget(&reference);
    }
    result
}

async fn run(guarded: &Guarded, context: &Context) -> Result<Action, Error> {
    let seen = guarded
        .0
        .as_ref()
        .map_err(|invalid| Error::Unreadable(invalid.error.clone()))?;
    let (namespace, name) = (seen.namespace().unwrap_or_default(), seen.name_any());
    let Some(object) = fetch::object(context, &namespace, &name).await? else {
        return Ok(Action::await_change());
    };
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let observed = fetch::observe(context, &object).await?;
    let now = Timestamp::now();
    let status = match validate::plan(&object, &observed, &context.installation) {
        Err(failure) => status::compute(&object, &observed, Outcome::Refused(&failure), now),
        Ok(plan) => match apply::apply(context, &object, &observed, Resources::build(&plan)).await {
            Ok(applied) => status::compute(&object, &observed, Outcome::Applied(&plan, &applied), now),
            Err(error) => match error.failure() {
                Some(failure) => status::compute(&object, &observed, Outcome::Refused(&failure), now),
                None => return Err(error.into()),
            },
        },
    };
    status::publish(context, &object, &status).await?;
    Ok(Action::requeue(status::look_again_after(&status)))
}

/// When a failed reconcile is tried again: never before a change if only a change can help, else after a capped
/// exponential backoff per object and kind of error.
pub fn error_policy(guarded: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let reference = reference(&guarded);
    match error {
        Error::Unreadable(_) => {
            tracing::error!(object = %reference, %error, "skipped until it changes");
            Action::await_change()
        }
        Error::Fetch(_) | Error::Apply(_) | Error::Status(_) => {
            let wait = context.backoffs.after_failure(reference.clone(), error.label());
            tracing::warn!(object = %reference, error = %chain(error), wait_s = wait.as_secs(), "reconcile failed");
            Action::requeue(wait)
        }
    }
}

fn reference(guarded: &Guarded) -> ObjectRef<ModelDeployment> {
    let reference = ObjectRef::new(&guarded.name_any());
    match guarded.namespace() {
        Some(namespace) => reference.within(&namespace),
        None => reference,
    }
}
