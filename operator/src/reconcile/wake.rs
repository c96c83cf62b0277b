//! Writes the replicas for requests that gateways hold at once, before the reconcile that the same decision triggers.
//!
//! A reconcile may wait for others and reads more than a start needs. It finds the number as it would have written it.

use std::sync::Arc;

use crds::{ModelDeployment, failure::chain};
use k8s_openapi::{
    Resource as _,
    api::{apps::v1::Deployment, batch::v1::Job},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::Resource;
use tokio::sync::broadcast::error::RecvError;

use super::apply;
use crate::{autoscaler::Wake, context::Context, names::Names, watched::Seen};

/// Writes the replicas of every start, for ever.
pub async fn write_all(context: Arc<Context>) {
    let mut wakes = context.autoscaler.wakes();
    loop {
        match wakes.recv().await {
            Ok(wake) => {
                let context = Arc::clone(&context);
                tokio::spawn(async move { write(&context, &wake).await });
            }
            // Their reconciles write the others.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

async fn write(context: &Context, wake: &Wake) {
    let namespace = wake.object.namespace.clone().unwrap_or_default();
    let name = Names::of(&wake.object.name).main;
    // Without a Deployment there is nothing to write; the reconcile makes one.
    let Seen::Found(live) = context.watched.child(Deployment::KIND, &namespace, &name) else {
        return;
    };
    if !is_of(&live.metadata, &wake.object.name) {
        return;
    }
    // A Job that downloads the model comes before the first pod, as the reconcile knows.
    if let Seen::Found(_) = context
        .watched
        .child(Job::KIND, &namespace, &Names::of(&wake.object.name).check)
    {
        return;
    }
    match apply::write_replicas(context, &live.metadata, wake.replicas).await {
        Ok(()) => {
            if let Some(since) = wake.held_since {
                context.metrics.woken(since.elapsed());
            }
        }
        Err(error) => {
            tracing::warn!(object = %wake.object, error = %chain(&error), "cannot write replicas; the reconcile tries again");
        }
    }
}

fn is_of(live: &ObjectMeta, name: &str) -> bool {
    let is_ours = |owner: &OwnerReference| {
        owner.controller == Some(true) && owner.kind == ModelDeployment::kind(&()) && owner.name == name
    };
    live.deletion_timestamp.is_none() && live.owner_references.iter().flatten().any(is_ours)
}
