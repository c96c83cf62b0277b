//! Which gateways there are: the endpoints of their Service, also of those that end, because they may still hold requests.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, reflector, watcher},
};
use tokio::task::JoinHandle;

use super::Demand;
use crate::probe::Probe;

/// Label of an EndpointSlice: the Service that it belongs to.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A task that polls one gateway; it ends when this value is dropped.
struct Asking(JoinHandle<()>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks every gateway of this Service, for ever. A gateway that does not answer delays no other.
pub async fn follow(demand: Arc<Demand>, client: Client, namespace: String, service: String) {
    let Ok(probe) = Probe::new() else {
        return std::future::pending().await;
    };
    let api: Api<EndpointSlice> = Api::namespaced(client, &namespace);
    let of_service = watcher::Config::default().labels(&format!("{SERVICE_LABEL}={service}"));
    let (store, writer) = reflector::store();
    let events = watcher(api, of_service).default_backoff().reflect(writer);
    let mut events = std::pin::pin!(events);
    let mut asking = HashMap::<IpAddr, Asking>::new();
    while let Some(event) = events.next().await {
        if let Err(error) = event {
            tracing::warn!(%error, service, "cannot watch the gateways; trying again");
            continue;
        }
        let current = addresses(&store.state());
        asking.retain(|address, _| current.contains(address));
        for address in current {
            asking.entry(address).or_insert_with(|| {
                let (demand, probe) = (Arc::clone(&demand), probe.clone());
                Asking(tokio::spawn(async move { demand.ask(&probe, address).await }))
            });
        }
    }
}

/// One address of each pod: a pod may have one of each family.
fn addresses(slices: &[Arc<EndpointSlice>]) -> Vec<IpAddr> {
    let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let named = endpoints.filter_map(|endpoint| {
        let address = endpoint.addresses.first()?;
        let pod = endpoint.target_ref.as_ref().and_then(|pod| pod.name.as_ref());
        Some((pod.unwrap_or(address), address.parse().ok()?))
    });
    let by_pod: BTreeMap<&String, IpAddr> = named.collect();
    by_pod.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_pod_has_one_address_whatever_its_state_and_families() {
        let endpoint = |pod: &str, address: &str, ready: bool| {
            json!({
                "addresses": [address], "targetRef": {"kind": "Pod", "name": pod},
                "conditions": {"ready": ready, "terminating": !ready},
            })
        };
        let slice = |endpoints: serde_json::Value| {
            let object = json!({"addressType": "IPv4", "endpoints": endpoints, "ports": []});
            Arc::new(serde_json::from_value::<EndpointSlice>(object).unwrap())
        };
        let slices = [
            slice(json!([
                endpoint("a", "10.0.0.1", true),
                endpoint("b", "10.0.0.2", false)
            ])),
            slice(json!([endpoint("a", "fd00::1", true)])),
        ];
        assert_eq!(addresses(&slices).len(), 2);
        assert!(addresses(&[]).is_empty());
    }
}
