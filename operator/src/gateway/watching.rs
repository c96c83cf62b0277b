//! Keeps the directory up to date: two watches, and one view that follows them.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use crds::ModelDeployment;
use futures::{StreamExt, future::join_all};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, Resource,
    core::NamespaceResourceScope,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use super::directory::Directory;
use crate::names::OWNER_LABEL;

/// Changes within this time are one new view.
const DEBOUNCE: Duration = Duration::from_millis(50);

type Watch = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The directory of these namespaces, or of all if none is named, and the work that keeps it up to date for ever.
pub(super) fn start(
    client: &Client,
    namespaces: &[String],
) -> (watch::Receiver<Arc<Directory>>, impl Future<Output = ()> + use<>) {
    let changed = Arc::new(Notify::new());
    let scopes = match namespaces {
        [] => vec![None],
        named => named.iter().map(|name| Some(name.as_str())).collect(),
    };
    let ours = watcher::Config::default().labels(OWNER_LABEL);
    let (mut models, mut slices, mut watches) = (Vec::new(), Vec::new(), Vec::<Watch>::new());
    for scope in scopes {
        let (store, watch) = follow(api(client, scope), watcher::Config::default(), &changed);
        models.push(store);
        watches.push(Box::pin(watch));
        let (store, watch) = follow(api(client, scope), ours.clone(), &changed);
        slices.push(store);
        watches.push(Box::pin(watch));
    }
    let (sender, receiver) = watch::channel(Arc::default());
    watches.push(Box::pin(views(models, slices, changed, sender)));
    (receiver, async { drop(join_all(watches).await) })
}

fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
    client: &Client,
    scope: Option<&str>,
) -> Api<K> {
    match scope {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Publishes a view of the stores after each change.
async fn views(
    models: Vec<Store<ModelDeployment>>,
    slices: Vec<Store<EndpointSlice>>,
    changed: Arc<Notify>,
    directory: watch::Sender<Arc<Directory>>,
) {
    for (models, slices) in models.iter().zip(&slices) {
        if models.wait_until_ready().await.is_err() || slices.wait_until_ready().await.is_err() {
            // The watches never end, so their stores stay.
            return;
        }
    }
    loop {
        let models: Vec<_> = models.iter().flat_map(Store::state).collect();
        let slices: Vec<_> = slices.iter().flat_map(Store::state).collect();
        let view = Directory::of(&models, &slices);
        directory.send_if_modified(|known| {
            let is_new = **known != view;
            if is_new {
                *known = Arc::new(view);
            }
            is_new
        });
        changed.notified().await;
        sleep(DEBOUNCE).await;
    }
}
/// A store of all objects of a kind, and the watch that fills it.
fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    changed: &Arc<Notify>,
) -> (Store<K>, impl Future<Output = ()> + Send + use<K>)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store::<K>();
    let changed = Arc::clone(changed);
    let objects = watcher(api, config)
        .default_backoff()
        .modify(|object| object.meta_mut().managed_fields = None)
        .reflect(writer);
    let watch = objects.for_each(move |event| {
        if let Err(error) = event {
            tracing::warn!(%error, kind = %K::kind(&()), "a watch failed; it starts again");
        }
        changed.notify_one();
        std::future::ready(())
    });
    (store, watch)
}
