//! The pipeline of one reconcile: fetch → validate → build → apply → status.
//!
//! It does not depend on what triggered it: it reads the current state and changes it to what the spec requires.

pub mod apply;
pub mod build;
pub mod children;
pub mod fetch;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod mounts;
pub mod observed;
pub mod plan;
pub mod status;
pub mod validate;
pub mod versions;

use std::{sync::Arc, time::Instant};

use crds::{ModelDeployment, failure::chain};
use k8s_openapi::jiff::Timestamp;
use kube::{
    ResourceExt,
    core::DeserializeGuard,
    runtime::{controller::Action, reflector::ObjectRef},
};

use self::{children::Resources, plan::Refusal, status::Outcome};
use crate::context::Context;

/// A ModelDeployment that may be unreadable, so that one bad object does not stop the watch of the others.
pub type Guarded = DeserializeGuard<ModelDeployment>;

/// Why a reconcile failed. The steps' errors name the operation and the object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object does not have the form of a ModelDeployment.
    #[error("cannot read {object} as a ModelDeployment: {problem}")]
    Unreadable {
        /// Namespace and name.
        object: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Reading failed.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// Writing children failed.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// Writing the status failed.
    #[error(transparent)]
    Status(#[from] status::Error),
}

impl Error {
    /// Metric label, and kind of error for the backoff.
    pub const fn label(&self) -> &'static str {
        match self {
            Error::Unreadable { .. } => "unreadable",
            Error::Fetch(_) => "fetch_error",
            Error::Apply(_) => "apply_error",
            Error::Status(_) => "status_error",
        }
    }
}

/// Reconciles one ModelDeployment.
///
/// # Errors
/// When a step failed; [`error_policy`] decides when the reconcile is retried.
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
    let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
    if let Err(invalid) = &guarded.0 {
        return Err(Error::Unreadable {
            object: format!("{namespace}/{name}"),
            problem: invalid.error.clone(),
        });
    }
    // The watched object may be older than the status that the last reconcile wrote.
    let Some(object) = fetch::object(context, &namespace, &name).await? else {
        return Ok(Action::await_change());
    };
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let observed = fetch::observe(context, &object).await?;
    let now = Timestamp::now();
    let compute = |outcome: Outcome<'_>| status::compute(&object, &observed, outcome, now);
    let status = match validate::plan(&object, &observed, &context.installation) {
        Err(refusal) => compute(Outcome::Refused(&refusal)),
        Ok(plan) => match apply::apply(context, &object, &observed, Resources::build(&plan)).await {
            Ok(children) => compute(Outcome::Applied {
                plan: &plan,
                children: &children,
            }),
            Err(error) => {
                let replicas = plan.replicas;
                let failure = error.failure().ok_or(error)?;
                compute(Outcome::Refused(&Refusal { replicas, failure }))
            }
        },
    };
    status::publish(context, &object, &status).await?;
    Ok(Action::requeue(status::next_check(&status)))
}

/// When a failed reconcile is retried: after a change if only a change can help, else after a capped exponential
/// backoff for each object and kind of error.
pub fn error_policy(guarded: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    let reference = reference(&guarded);
    match error {
        Error::Unreadable { .. } => {
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
