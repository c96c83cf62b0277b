//! Wires the watches, the reconciler and the leader election together.

use std::{future::Future, sync::Arc};

use futures::{FutureExt, StreamExt, future::Shared};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, PartialObjectMeta},
    runtime::{
        Controller, Predicate, WatchStreamExt,
        controller::Config,
        predicates,
        reflector::{self, ObjectRef},
        watcher,
    },
};
use tokio::sync::watch;

use crate::{
    context::Context,
    health::Leadership,
    leader::Candidate,
    names::OWNER_LABEL,
    reconcile::{Guarded, children, error_policy, reconcile},
};

/// Reconciles that run at the same time.
const CONCURRENCY: u16 = 8;
/// Changes of one object within this time cause one reconcile.
const DEBOUNCE: std::time::Duration = std::time::Duration::from_millis(100);

/// Why the operator stopped without a signal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server does not answer.
    #[error("cannot reach the API server")]
    Unreachable(#[source] Box<kube::Error>),
    /// Another process leads now, so this one must not write any more.
    #[error("the Lease was lost")]
    LeaseLost,
}

/// Reconciles until `shutdown` resolves; if there is a candidate, only while it leads.
///
/// # Errors
/// When the API server does not answer at the start, or the Lease is lost.
pub async fn run(
    context: Arc<Context>,
    candidate: Option<Candidate>,
    leadership: &watch::Sender<Leadership>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let shutdown = shutdown.boxed().shared();
    let version = context.client.apiserver_version().await;
    let version = version.map_err(|error| Error::Unreachable(Box::new(error)))?;
    tracing::info!(api_server = %version.git_version, "connected");
    let Some(mut candidate) = candidate else {
        control(context, leadership, shutdown).await;
        return Ok(());
    };
    tokio::select! {
        () = candidate.acquire(|| { leadership.send_replace(Leadership::Standby); }) => {}
        () = shutdown.clone() => return Ok(()),
    }
    tracing::info!("leading");
    tokio::select! {
        () = control(context, leadership, shutdown) => {}
        () = candidate.hold() => return Err(Error::LeaseLost),
    }
    if let Err(error) = candidate.release().await {
        tracing::warn!(%error, "cannot release the Lease; it will expire");
    }
    Ok(())
}

type Shutdown = Shared<futures::future::BoxFuture<'static, ()>>;

async fn control(context: Arc<Context>, leadership: &watch::Sender<Leadership>, shutdown: Shutdown) {
    leadership.send_replace(Leadership::Syncing);
    let (reader, writer) = reflector::store::<Guarded>();
    let objects = watcher(
        Api::<Guarded>::all(context.client.clone()),
        watcher::Config::default(),
    )
    .default_backoff()
    .reflect(writer)
    .applied_objects()
    .predicate_filter(
        predicates::generation.combine(predicates::labels),
        Default::default(),
    );
    let controller = with_children(Controller::for_stream(objects, reader.clone()), &context.client)
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .graceful_shutdown_on(shutdown);
    let managed = reader.clone();
    let metrics = context.metrics.clone();
    let reconciles = controller
        .run(reconcile, error_policy, context)
        .for_each(|result| {
            metrics.set_managed(managed.len());
            if let Err(error) = result {
                tracing::debug!(%error, "controller");
            }
            std::future::ready(())
        });
    let synced = async {
        if reader.wait_until_ready().await.is_ok() {
            leadership.send_replace(Leadership::Leading);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! { () = reconciles => {}, () = synced => {} }
}

/// Triggers a reconcile for each change of a child or a pod. Only metadata is watched.
fn with_children(controller: Controller<Guarded>, client: &Client) -> Controller<Guarded> {
    let ours = || watcher::Config::default().labels(OWNER_LABEL);
    let pods = watcher(Api::<PartialObjectMeta<Pod>>::all(client.clone()), ours())
        .default_backoff()
        .touched_objects();
    let controller = children::kinds().fold(controller, |controller, child| {
        let resource = child.resource();
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        controller.owns_with(api, resource, ours())
    });
    controller.watches_stream(pods, |pod| {
        let owner = pod.labels().get(OWNER_LABEL)?;
        Some(ObjectRef::<Guarded>::new(owner).within(&pod.namespace()?))
    })
}

/// The identity of this process in the leader election.
pub fn identity(pod_name: Option<&str>) -> String {
    format!("{}_{}", pod_name.unwrap_or("local"), std::process::id())
}
