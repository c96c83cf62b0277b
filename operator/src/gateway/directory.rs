//! Which replicas serve which model: one view of all ModelDeployments and endpoints. Pure.
//!
//! A name belongs to the namespace whose ModelDeployment had it first, as routes do in the Gateway API: nobody can take
//! over requests by choosing a name that another team uses. All ModelDeployments of that namespace with the name serve it.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use crds::{ModelDeployment, keys, wake::Known};
use k8s_openapi::{api::discovery::v1::EndpointSlice, jiff::Timestamp};
use kube::ResourceExt;

use crate::names::{OWNER_LABEL, SERVE_PORT_NAME};

/// Name of a ModelDeployment in its namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// One ModelDeployment, as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Backend {
    pub(super) key: Key,
    /// Names of the model, the first one first.
    pub(super) names: Vec<String>,
    /// Whether waiting for a replica makes sense.
    pub(super) supply: Supply,
    /// Who may start a replica.
    pub(super) guests: Guests,
    /// Addresses of the ready replicas, in order.
    pub(super) replicas: Vec<SocketAddr>,
    created_at: Option<Timestamp>,
}

/// Where replicas come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Supply {
    /// There will be one.
    Requested,
    /// A request that waits starts one.
    OnDemand,
    /// `spec.replicas` is 0.
    Stopped,
}

/// Who may start a replica where requests start them. The keys are those that a replica reported last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Guests {
    /// Everybody: clients need no key.
    Everybody,
    /// Clients with one of these keys, as salted hashes.
    Keys {
        /// The salt.
        salt: String,
        /// The hashes.
        hashes: Vec<String>,
    },
}

impl Guests {
    fn of(model: &ModelDeployment) -> Guests {
        let hashes = match model.wake_keys() {
            Known::Everybody => return Guests::Everybody,
            Known::Keys(hashes) => hashes.to_vec(),
            Known::Nobody => Vec::new(),
        };
        let salt = model.uid().unwrap_or_default();
        Guests::Keys { salt, hashes }
    }

    /// Whether a request with these headers may start a replica.
    pub(super) fn admit(&self, headers: &HeaderMap) -> bool {
        let Guests::Keys { salt, hashes } = self else {
            return true;
        };
        presented(headers).any(|key| hashes.contains(&keys::hash(salt, key)))
    }
}

/// The keys of a request. A replica accepts any of them.
pub(super) fn presented(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let value = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
    let authorization = value(AUTHORIZATION.as_str()).map(keys::of_authorization);
    let anthropic = value(keys::ANTHROPIC_HEADER).map(<[u8]>::trim_ascii);
    authorization.into_iter().chain(anthropic)
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Directory {
    by_key: BTreeMap<Key, Arc<Backend>>,
    by_name: HashMap<String, Vec<Arc<Backend>>>,
    /// Whether both watches have delivered their first list.
    pub(super) is_complete: bool,
}

impl Directory {
    /// The view of these objects.
    pub(super) fn of(models: &[Arc<ModelDeployment>], slices: &[Arc<EndpointSlice>]) -> Directory {
        let mut replicas: HashMap<Key, Vec<SocketAddr>> = HashMap::new();
        for slice in slices {
            if let Some(key) = owner(slice) {
                replicas.entry(key).or_default().extend(ready(slice));
            }
        }
        let mut directory = Directory {
            is_complete: true,
            ..Directory::default()
        };
        for model in models {
            let key = Key {
                namespace: model.namespace().unwrap_or_default(),
                name: model.name_any(),
            };
            let mut replicas = replicas.remove(&key).unwrap_or_default();
            replicas.sort_unstable();
            replicas.dedup();
            let backend = Arc::new(Backend::of(key.clone(), model, replicas));
            directory.by_key.insert(key, backend);
        }
        directory.by_name = by_name(directory.by_key.values());
        directory
    }

    /// The ModelDeployment of this key.
    pub(super) fn of_key(&self, key: &Key) -> Option<&Arc<Backend>> {
        self.by_key.get(key)
    }

    /// The ModelDeployments that serve a name; never an empty list.
    pub(super) fn of_name(&self, name: &str) -> Option<&[Arc<Backend>]> {
        self.by_name.get(name).map(Vec::as_slice)
    }

    /// Every ModelDeployment that has a name for itself or shares it within its namespace, in the order of their keys.
    pub(super) fn named(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let owns = |backend: &&Arc<Backend>| {
            let owned = |name: &String| self.of_name(name).is_some_and(|owners| owners.contains(backend));
            backend.names.iter().any(owned)
        };
        self.by_key.values().filter(owns)
    }

    /// Every ModelDeployment.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Backend>> {
        self.by_key.values()
    }
}

impl Backend {
    fn of(key: Key, model: &ModelDeployment, replicas: Vec<SocketAddr>) -> Backend {
        let status = model.status.as_ref();
        let first = status.and_then(|status| status.model_name.clone());
        let mut names = first.map_or_else(Vec::new, |name| vec![name]);
        for name in model.spec.model.settings.served_model_name.iter().flatten() {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let autoscaling = model.spec.autoscaling.as_ref();
        let supply = match autoscaling.map(|autoscaling| autoscaling.min_replicas.unwrap_or(1)) {
            // Until a replica has reported the keys, one stays.
            Some(0) if model.wake_keys() != Known::Nobody => Supply::OnDemand,
            None if model.spec.replicas == Some(0) => Supply::Stopped,
            Some(_) | None => Supply::Requested,
        };
        Backend {
            key,
            names,
            supply,
            guests: Guests::of(model),
            replicas,
            created_at: model.creation_timestamp().map(|time| time.0),
        }
    }
}

fn by_name<'a>(backends: impl Iterator<Item = &'a Arc<Backend>>) -> HashMap<String, Vec<Arc<Backend>>> {
    let mut by_name: HashMap<String, Vec<Arc<Backend>>> = HashMap::new();
    for backend in backends {
        for name in &backend.names {
            by_name.entry(name.clone()).or_default().push(Arc::clone(backend));
        }
    }
    for backends in by_name.values_mut() {
        let first = backends
            .iter()
            .min_by_key(|backend| (backend.created_at, &backend.key));
        let Some(namespace) = first.map(|first| first.key.namespace.clone()) else {
            continue;
        };
        backends.retain(|backend| backend.key.namespace == namespace);
    }
    by_name
}

/// The ModelDeployment of an EndpointSlice: Kubernetes copies the labels of the Service.
fn owner(slice: &EndpointSlice) -> Option<Key> {
    Some(Key {
        namespace: slice.namespace()?,
        name: slice.labels().get(OWNER_LABEL)?.clone(),
    })
}

fn ready(slice: &EndpointSlice) -> impl Iterator<Item = SocketAddr> {
    let ports = slice.ports.iter().flatten();
    let port = ports
        .filter(|port| port.name.as_deref() == Some(SERVE_PORT_NAME))
        .find_map(|port| u16::try_from(port.port?).ok());
    let is_ready = |conditions: &Option<k8s_openapi::api::discovery::v1::EndpointConditions>| {
        // Without a condition an endpoint counts as ready.
        conditions.as_ref().and_then(|of| of.ready).unwrap_or(true)
    };
    let endpoints = slice.endpoints.iter();
    let addresses = endpoints
        .filter(move |endpoint| is_ready(&endpoint.conditions))
        .filter_map(|endpoint| endpoint.addresses.first()?.parse::<IpAddr>().ok());
    addresses.filter_map(move |ip| Some(SocketAddr::new(ip, port?)))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::json;

    /// A ModelDeployment of a hub's model, made at second `created_at`.
    pub(in crate::gateway) fn model(
        key: (&str, &str),
        names: &[&str],
        created_at: u8,
    ) -> Arc<ModelDeployment> {
        let (namespace, name) = key;
        let created_at = format!("2026-01-01T00:00:{created_at:02}Z");
        let object = json!({
            "apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"namespace": namespace, "name": name, "creationTimestamp": created_at},
            "spec": {"model": {"huggingFace": {"repo": "a/b"}, "servedModelName": names}},
            "status": {"modelName": names[0]},
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    /// The endpoints of its Service.
    pub(in crate::gateway) fn slice(
        key: (&str, &str),
        ready: &[&str],
        unready: &[&str],
    ) -> Arc<EndpointSlice> {
        let (namespace, name) = key;
        let endpoint = |ready: bool| move |address: &&str| json!({"addresses": [address], "conditions": {"ready": ready}});
        let endpoints: Vec<_> = ready
            .iter()
            .map(endpoint(true))
            .chain(unready.iter().map(endpoint(false)))
            .collect();
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": namespace, "name": format!("{name}-x"), "labels": {OWNER_LABEL: name}},
            "endpoints": endpoints, "ports": [{"name": "http", "port": 8000}, {"name": "other", "port": 1}],
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    /// One ready endpoint at this address and port.
    pub(in crate::gateway) fn slice_at(key: (&str, &str), at: SocketAddr) -> Arc<EndpointSlice> {
        let mut slice = EndpointSlice::clone(&slice(key, &[&at.ip().to_string()], &[]));
        slice.ports.as_mut().unwrap()[0].port = Some(i32::from(at.port()));
        Arc::new(slice)
    }

    fn keys(backends: &[Arc<Backend>]) -> Vec<&str> {
        backends.iter().map(|backend| backend.key.name.as_str()).collect()
    }

    #[test]
    fn only_ready_endpoints_are_replicas() {
        let models = [model(("a", "chat"), &["m"], 0)];
        let slices = [
            slice(("a", "chat"), &["10.0.0.2", "10.0.0.1"], &["10.0.0.3"]),
            slice(("a", "chat"), &["10.0.0.1"], &[]),
            slice(("b", "chat"), &["10.0.0.9"], &[]),
        ];
        let directory = Directory::of(&models, &slices);
        let replicas: Vec<_> = ["10.0.0.1:8000", "10.0.0.2:8000"]
            .map(|at| at.parse().unwrap())
            .into();
        assert_eq!(directory.of_name("m").unwrap()[0].replicas, replicas);
    }

    #[test]
    fn a_name_belongs_to_the_namespace_that_had_it_first() {
        let models = [
            model(("late", "a"), &["m", "own"], 9),
            model(("early", "b"), &["m"], 1),
            model(("early", "c"), &["m", "also"], 20),
        ];
        let directory = Directory::of(&models, &[]);
        assert_eq!(keys(directory.of_name("m").unwrap()), ["b", "c"]);
        assert_eq!(keys(directory.of_name("own").unwrap()), ["a"]);
        assert!(directory.of_name("none").is_none());
        assert_eq!(directory.named().count(), 3);
        let key = Key {
            namespace: "late".into(),
            name: "a".into(),
        };
        assert_eq!(directory.of_key(&key).unwrap().names, ["m", "own"]);
    }

    /// The ModelDeployment, with requests that start its replicas and a key whose hash its status has.
    pub(in crate::gateway) fn on_demand(model: &ModelDeployment, key: &str) -> Arc<ModelDeployment> {
        let mut object = json!(model);
        object["metadata"]["uid"] = json!("uid");
        object["spec"]["autoscaling"] = json!({"minReplicas": 0, "maxReplicas": 1});
        object["spec"]["auth"] = json!({"apiKeysSecretRef": {"name": "keys"}});
        object["status"]["wakeKeys"] = json!({
            "secret": "keys", "key": "OPENAI_API_KEYS", "hashes": [keys::hash("uid", key.as_bytes())],
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_known_key_may_start_a_replica_however_it_is_sent() {
        let model = model(("a", "chat"), &["m"], 0);
        let guests = Guests::of(&on_demand(&model, "right"));
        for (name, value, may) in [
            ("authorization", "Bearer right", true),
            ("authorization", "right", true),
            ("x-api-key", "right", true),
            ("authorization", "Bearer wrong", false),
            ("x-other", "right", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(guests.admit(&headers), may, "{name}: {value}");
        }
        assert!(Guests::of(&model).admit(&HeaderMap::new()));
    }
}
