//! Wires the watches, the reconciler and the leader election together.

use std::{future::Future, sync::Arc, time::Duration};

use futures::{
    FutureExt, Stream, StreamExt,
    future::{Shared, join_all},
    stream,
};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Pod};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ApiResource, DynamicObject},
    runtime::{
        Controller, Predicate, WatchStreamExt,
        controller::{self, Config},
        predicates,
        reflector::{self, ObjectRef, Store, store::Writer},
        watcher,
    },
};
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    time::{sleep, timeout},
};

use crate::{
    context::{Context, Installation},
    demand::{Demand, gateways},
    health::Leadership,
    leader::Candidate,
    metrics::Metrics,
    names::OWNER_LABEL,
    reconcile::{Guarded, children, error_policy, reconcile, wake},
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
                process.metrics.watch(Vec::new());
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

/// Reconciles every namespace that the installation watches, each with watches of its own.
async fn control(
    process: &Process,
    leadership: &watch::Sender<Leadership>,
    shutdown: Shutdown,
) -> Result<(), reqwest::Error> {
    leadership.send_replace(Leadership::Syncing);
    let scopes = scopes(&process.installation.watch_namespaces);
    let (readers, writers): (Vec<_>, Vec<_>) = scopes.iter().map(|_| reflector::store::<Guarded>()).unzip();
    process.metrics.watch(readers.clone());
    let managed = || readers.iter().map(|reader| reader.len()).sum();
    let demand = Arc::<Demand>::default();
    let mut reconciles = Vec::new();
    for (scope, (reader, writer)) in scopes.into_iter().zip(readers.iter().cloned().zip(writers)) {
        let objects = Objects {
            reader,
            writer,
            demand: Arc::clone(&demand),
        };
        let ended = control_scope(process, scope, objects, shutdown.clone())?;
        reconciles.push(ended.for_each(|()| {
            process.metrics.set_managed(managed());
            std::future::ready(())
        }));
    }
    let synced = async {
        let waits = readers.iter().map(|reader| reader.wait_until_ready());
        if join_all(waits).await.into_iter().all(|ready| ready.is_ok()) {
            leadership.send_replace(Leadership::Leading);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = join_all(reconciles) => {}
        () = synced => {}
        () = follow_gateways(process, demand) => {}
    }
    Ok(())
}

/// Learns what gateways hold, for ever.
async fn follow_gateways(process: &Process, held: Arc<Demand>) {
    let Installation {
        namespace: Some(namespace),
        gateway_service: Some(service),
        ..
    } = process.installation.clone()
    else {
        return std::future::pending().await;
    };
    gateways::follow(held, process.client.clone(), namespace, service).await;
}

/// Where objects are watched.
#[derive(Clone, Debug)]
enum Scope {
    /// In every namespace, for which the operator needs rights in the whole cluster.
    Cluster,
    /// In this one.
    Namespace(String),
}

fn scopes(namespaces: &[String]) -> Vec<Scope> {
    match namespaces {
        [] => vec![Scope::Cluster],
        names => names.iter().cloned().map(Scope::Namespace).collect(),
    }
}

impl Scope {
    fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match self {
            Scope::Cluster => Api::all(client.clone()),
            Scope::Namespace(name) => Api::namespaced(client.clone(), name),
        }
    }

    fn dynamic(&self, client: &Client, type_: &ApiResource) -> Api<DynamicObject> {
        match self {
            Scope::Cluster => Api::all_with(client.clone(), type_),
            Scope::Namespace(name) => Api::namespaced_with(client.clone(), name, type_),
        }
    }
}

/// The ModelDeployments of one scope.
struct Objects {
    reader: Store<Guarded>,
    writer: Writer<Guarded>,
    /// What gateways hold for them.
    demand: Arc<Demand>,
}

/// Reconciles the ModelDeployments of one scope; an item is a reconcile that ended.
fn control_scope(
    process: &Process,
    scope: Scope,
    objects: Objects,
    shutdown: Shutdown,
) -> Result<impl Stream<Item = ()> + use<>, reqwest::Error> {
    let Process {
        client,
        metrics,
        installation,
    } = process;
    let (watched, writers) = Watched::of(children::kinds().map(|child| (child.kind, child.resource())));
    let context = Context::new(
        client.clone(),
        metrics.clone(),
        installation.clone(),
        objects.demand,
    )?;
    let context = Arc::new(context.watching(watched));
    let stream = watcher(scope.api::<Guarded>(client), watcher::Config::default())
        .default_backoff()
        .reflect(objects.writer)
        .applied_objects()
        .predicate_filter(
            predicates::generation.combine(predicates::labels),
            Default::default(),
        );
    let controller = Controller::for_stream(stream, objects.reader);
    let controller = Watches { client, scope }
        .of_children(controller, writers)
        .reconcile_on(answers(&context))
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .graceful_shutdown_on(shutdown);
    let reconciles = controller.run(reconcile, error_policy, Arc::clone(&context));
    let starts = wake::write_all(Arc::clone(&context));
    let reconciles = reconciles.take_until(starts);
    Ok(reconciles.map(move |result| match result {
        Err(controller::Error::ObjectNotFound(deleted)) => {
            let namespace = deleted.namespace.unwrap_or_default();
            context.polls.forget(&namespace, &deleted.name);
            context
                .autoscaler
                .forget(&ObjectRef::new(&deleted.name).within(&namespace));
        }
        Err(error) => tracing::debug!(%error, "controller"),
        Ok(_) => {}
    }))
}

/// The watches of children and pods.
struct Watches<'a> {
    client: &'a Client,
    scope: Scope,
}

impl Watches<'_> {
    /// Triggers a reconcile for each change of a child or a pod, and fills the stores.
    fn of_children(&self, controller: Controller<Guarded>, writers: Writers) -> Controller<Guarded> {
        let ours = || watcher::Config::default().labels(OWNER_LABEL);
        let pods = watcher(self.scope.api::<Pod>(self.client), ours())
            .default_backoff()
            .modify(|pod| pod.metadata.managed_fields = None)
            .reflect(writers.pods)
            .touched_objects();
        let children = writers.children.into_iter();
        let controller = children.fold(controller, |controller, (resource, writer)| {
            let objects = watcher(self.scope.dynamic(self.client, &resource), ours())
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
