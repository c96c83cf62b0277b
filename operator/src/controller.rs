//! Wires the watches, the reconciler and the leader election together.

use std::{future::Future, sync::Arc, time::Duration};

use futures::{FutureExt, Stream, StreamExt, future::Shared, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::DynamicObject,
    runtime::{
        Controller, Predicate, WatchStreamExt,
        controller::{self, Config},
        predicates,
        reflector::{self, ObjectRef},
        watcher,
    },
};
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    time::{sleep, timeout},
};

use crate::{
    context::{Context, Installation},
    health::Leadership,
    leader::Candidate,
    metrics::Metrics,
    names::OWNER_LABEL,
    reconcile::{Guarded, children, error_policy, reconcile},
    watched::{Watched, Writers},
};

/// Reconciles that run at the same time.
const CONCURRENCY: u16 = 8;
/// Changes of one object within this time cause one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// The API server must answer a first request within this time; then the request is repeated.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(10);
/// Time between two first requests.
const CONNECT_PERIOD: Duration = Duration::from_secs(2);

/// What a process needs to reconcile: each term of leadership begins with nothing else.
pub struct Process {
    /// Client of the API server.
    pub client: Client,
    /// Counters and durations.
    pub metrics: Metrics,
    /// Options of the installation.
    pub installation: Installation,
}

/// Reconciles until `shutdown` resolves; if there is a candidate, only while it leads. An API server that does not answer
/// and a lost Lease are waited for in this process: a restart would only wait longer.
///
/// # Errors
/// When the client for requests to replicas cannot be built.
pub async fn run(
    process: Process,
    candidate: Option<Candidate>,
    leadership: &watch::Sender<Leadership>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), reqwest::Error> {
    let shutdown = shutdown.boxed().shared();
    tokio::select! {
        () = connect(&process.client) => {}
        () = shutdown.clone() => return Ok(()),
    }
    let Some(mut candidate) = candidate else {
        return control(&process, leadership, shutdown).await;
    };
    loop {
        tokio::select! {
            () = candidate.acquire(|| { leadership.send_replace(Leadership::Standby); }) => {}
            () = shutdown.clone() => return Ok(()),
        }
        tracing::info!("leading");
        tokio::select! {
            ended = control(&process, leadership, shutdown.clone()) => {
                if let Err(error) = candidate.release().await {
                    tracing::warn!(%error, "cannot release the Lease; it will expire");
                }
                return ended;
            }
            () = candidate.hold() => {
                tracing::warn!("the Lease was lost, so another process may lead now");
                leadership.send_replace(Leadership::Connecting);
            }
        }
    }
}

/// Resolves when the API server has answered.
async fn connect(client: &Client) {
    loop {
        match timeout(CONNECT_WAIT_MAX, client.apiserver_version()).await {
            Ok(Ok(version)) => {
                tracing::info!(api_server = %version.git_version, "connected");
                return;
            }
            Ok(Err(error)) => tracing::warn!(%error, "cannot reach the API server"),
            Err(_) => tracing::warn!("the API server does not answer"),
        }
        sleep(CONNECT_PERIOD).await;
    }
}

type Shutdown = Shared<futures::future::BoxFuture<'static, ()>>;

async fn control(
    process: &Process,
    leadership: &watch::Sender<Leadership>,
    shutdown: Shutdown,
) -> Result<(), reqwest::Error> {
    leadership.send_replace(Leadership::Syncing);
    let Process {
        client,
        metrics,
        installation,
    } = process;
    let (watched, writers) = Watched::of(children::kinds().map(|child| (child.kind, child.resource())));
    let context = Context::new(client.clone(), metrics.clone(), installation.clone())?;
    let context = Arc::new(context.watching(watched));
    let (reader, writer) = reflector::store::<Guarded>();
    let objects = watcher(Api::<Guarded>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(
            predicates::generation.combine(predicates::labels),
            Default::default(),
        );
    let controller = with_children(Controller::for_stream(objects, reader.clone()), client, writers)
        .reconcile_on(answers(&context))
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .graceful_shutdown_on(shutdown);
    let managed = reader.clone();
    let reconciles = controller
        .run(reconcile, error_policy, Arc::clone(&context))
        .for_each(|result| {
            metrics.set_managed(managed.len());
            match result {
                Err(controller::Error::ObjectNotFound(deleted)) => {
                    let namespace = deleted.namespace.unwrap_or_default();
                    context.polls.forget(&namespace, &deleted.name);
                }
                Err(error) => tracing::debug!(%error, "controller"),
                Ok(_) => {}
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
    Ok(())
}

/// Triggers a reconcile for each change of a child or a pod, and fills the stores.
fn with_children(controller: Controller<Guarded>, client: &Client, writers: Writers) -> Controller<Guarded> {
    let ours = || watcher::Config::default().labels(OWNER_LABEL);
    let pods = watcher(Api::<Pod>::all(client.clone()), ours())
        .default_backoff()
        .modify(|pod| pod.metadata.managed_fields = None)
        .reflect(writers.pods)
        .touched_objects();
    let children = writers.children.into_iter();
    let controller = children.fold(controller, |controller, (resource, writer)| {
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let objects = watcher(api, ours())
            .default_backoff()
            .reflect(writer)
            .touched_objects();
        controller.owns_stream_with(objects, resource)
    });
    controller.watches_stream(pods, |pod| {
        let owner = pod.labels().get(OWNER_LABEL)?;
        Some(ObjectRef::<Guarded>::new(owner).within(&pod.namespace()?))
    })
}

/// The ModelDeployments whose pods gave a new answer.
fn answers(context: &Context) -> impl Stream<Item = ObjectRef<Guarded>> + Send + 'static {
    stream::unfold(context.polls.changes(), |mut changes| async {
        loop {
            match changes.recv().await {
                Ok(object) => {
                    let namespace = object.namespace.unwrap_or_default();
                    let object = ObjectRef::<Guarded>::new(&object.name).within(&namespace);
                    return Some((object, changes));
                }
                // The next check of each object finds what was lost.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

/// The identity of this process in the leader election.
pub fn identity(pod_name: Option<&str>) -> String {
    format!("{}_{}", pod_name.unwrap_or("local"), std::process::id())
}
