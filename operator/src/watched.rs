//! What the watches have seen: children and pods of every ModelDeployment, so that a reconcile reads without requests.
//!
//! Owns the stores. Must not know what a child is for; the controller names the kinds and feeds the stores.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::FutureExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{ApiResource, DynamicObject},
    runtime::reflector::{self, ObjectRef, Store, store::Writer},
};

use tokio::{sync::OnceCell, time::timeout};

use crate::names::OWNER_LABEL;

/// Reconciles wait this long for the first list of every watch. A watch that is refused must not stop them.
const FILL_WAIT_MAX: Duration = Duration::from_secs(5);

/// The stores of one term of leadership. Without stores nothing is known, and every read is a request.
#[derive(Default)]
pub struct Watched {
    children: BTreeMap<&'static str, (ApiResource, Store<DynamicObject>)>,
    pods: Option<Store<Pod>>,
    filled: OnceCell<()>,
}

/// The other ends of the stores, for the watches.
pub struct Writers {
    /// For each kind.
    pub children: Vec<(ApiResource, Writer<DynamicObject>)>,
    /// For pods.
    pub pods: Writer<Pod>,
}

/// What a store knows of an object.
#[derive(Clone, Debug)]
pub enum Seen {
    /// It exists.
    Found(Arc<DynamicObject>),
    /// It does not exist, or it does not have the label of the watch.
    Absent,
    /// The store is not filled yet.
    Unknown,
}

impl Watched {
    /// Empty stores for these kinds.
    pub fn of(kinds: impl Iterator<Item = (&'static str, ApiResource)>) -> (Self, Writers) {
        let (pods, pods_writer) = reflector::store();
        let mut watched = Self {
            children: BTreeMap::new(),
            pods: Some(pods),
            filled: OnceCell::new(),
        };
        let mut writers = Writers {
            children: Vec::new(),
            pods: pods_writer,
        };
        for (kind, resource) in kinds {
            if watched.children.contains_key(kind) {
                continue;
            }
            let writer = Writer::new(resource.clone());
            watched
                .children
                .insert(kind, (resource.clone(), writer.as_reader()));
            writers.children.push((resource, writer));
        }
        (watched, writers)
    }

    /// The object of this kind and name.
    pub fn child(&self, kind: &str, namespace: &str, name: &str) -> Seen {
        let Some((resource, store)) = self.children.get(kind).filter(|(_, store)| is_filled(store)) else {
            return Seen::Unknown;
        };
        let key = ObjectRef::new_with(name, resource.clone()).within(namespace);
        store.get(&key).map_or(Seen::Absent, Seen::Found)
    }

    /// The objects of this kind with the label of the ModelDeployment `name`; `None` if the store is not filled yet.
    pub fn children(&self, kind: &str, namespace: &str, name: &str) -> Option<Vec<Arc<DynamicObject>>> {
        let (_, store) = self.children.get(kind).filter(|(_, store)| is_filled(store))?;
        let is_wanted = |live: &DynamicObject| {
            live.metadata.namespace.as_deref() == Some(namespace)
                && live.labels().get(OWNER_LABEL).is_some_and(|owner| owner == name)
        };
        Some(store.state_filter(is_wanted))
    }

    /// The pods with the label of the ModelDeployment `name`; `None` if the store is not filled yet.
    pub fn pods(&self, namespace: &str, name: &str) -> Option<Vec<Pod>> {
        let store = self.pods.as_ref().filter(|store| is_filled(store))?;
        let is_wanted = |pod: &Pod| {
            pod.metadata.namespace.as_deref() == Some(namespace)
                && pod.labels().get(OWNER_LABEL).is_some_and(|owner| owner == name)
        };
        let found = store.state_filter(is_wanted);
        Some(found.iter().map(|pod| Pod::clone(pod)).collect())
    }

    /// Resolves when every store is filled, or did not fill for some seconds.
    pub async fn filled(&self) {
        let wait = || async {
            if timeout(FILL_WAIT_MAX, self.fill()).await.is_err() {
                tracing::warn!("a watch does not answer; its objects are read one by one");
            }
        };
        self.filled.get_or_init(wait).await;
    }

    async fn fill(&self) {
        for (_, store) in self.children.values() {
            let _dropped = store.wait_until_ready().await;
        }
        if let Some(pods) = &self.pods {
            let _dropped = pods.wait_until_ready().await;
        }
    }
}

fn is_filled<K>(store: &Store<K>) -> bool
where
    K: kube::Resource + Clone + 'static,
    K::DynamicType: Eq + std::hash::Hash + Clone,
{
    store
        .wait_until_ready()
        .now_or_never()
        .is_some_and(|ready| ready.is_ok())
}
