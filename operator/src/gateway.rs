//! The gateway: one address for every model, with the replica chosen request by request.
//!
//! It watches ModelDeployments and the endpoints of their Services, and forwards bodies unread but for the name of the
//! model. Keys are the runtime's: they are passed on and not checked here, so the gateway needs no Secret. Only a request
//! that would start a replica must have a key that a replica has reported before, as a salted hash.

mod balance;
mod body;
mod destination;
mod directory;
mod error;
mod forward;
mod held;
mod listing;
mod loads;
mod metrics;
mod routes;
mod server;
mod watching;

use std::time::Duration;

use kube::Client;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use balance::Strategy;
use metrics::Metrics;
use routes::Gateway;

/// Options of a gateway.
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespaces whose ModelDeployments it serves; empty: all.
    pub namespaces: Vec<String>,
    /// How a replica is chosen.
    pub strategy: Strategy,
    /// Longest time that a request waits for a ready replica.
    pub hold_timeout: Duration,
    /// Time between `stop` and the end of new connections, because a Service drops a pod late.
    pub shutdown_delay: Duration,
}

/// The ports of a gateway.
#[derive(Debug)]
pub struct Ports {
    /// For clients.
    pub clients: TcpListener,
    /// For the kubelet, Prometheus and the operator: `/livez`, `/readyz`, `/metrics` and `/internal/demand`.
    pub control: TcpListener,
}

/// Serves until `stop` is cancelled and the answers in progress have ended.
///
/// # Errors
/// When the client for requests to replicas cannot be built.
pub async fn run(
    client: Client,
    options: Options,
    ports: Ports,
    stop: CancellationToken,
) -> Result<(), reqwest::Error> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let (directory, watches) = watching::start(&client, &options.namespaces);
    let gateway = Gateway::new(directory, options.strategy, options.hold_timeout, metrics)?;
    let control = server::serve(
        ports.control,
        gateway.control_router(registry),
        std::future::pending(),
    );
    let closed = async {
        stop.cancelled().await;
        gateway.is_stopping();
        tokio::time::sleep(options.shutdown_delay).await;
    };
    tokio::select! {
        () = server::serve(ports.clients, gateway.router(), closed) => {}
        () = control => {}
        () = watches => {}
        () = loads::poll(gateway.loads(), gateway.directory()) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
