//! The gateway: one address for every model, with the replica chosen request by request.
//!
//! It watches ModelDeployments and the endpoints of their Services, and forwards bodies unread but for the name of the
//! model and the options of a stream. Keys are the runtime's: they are passed on and not checked here, so the gateway needs
//! no Secret. It counts what keys use, and refuses a key beyond its limits, by their salted hashes. Only a request that would
//! start a replica must have a key that a replica has reported before.

mod balance;
mod body;
mod bucket;
mod destination;
mod directory;
mod error;
mod forward;
mod held;
mod limits;
mod listing;
mod loads;
mod metrics;
mod quotas;
mod reload;
mod routes;
mod server;
mod tls;
mod usage;
mod watching;

use std::{path::PathBuf, time::Duration};

use futures::future::OptionFuture;
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

pub use balance::Strategy;
use limits::Limits;
use metrics::Metrics;
pub use reload::LoadError;
use reload::Reloaded;
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
    /// Folder with `tls.crt` and `tls.key` for the clients' port; `None` serves without TLS.
    pub tls_folder: Option<PathBuf>,
    /// File with limits of clients; `None` for no limits.
    pub limits_file: Option<PathBuf>,
}

/// Why a gateway cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The client for requests to replicas cannot be built.
    #[error("the client for requests to replicas")]
    Http(#[from] reqwest::Error),
    /// A file of the configuration cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
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
/// [`StartError`].
pub async fn run(
    client: Client,
    options: Options,
    ports: Ports,
    stop: CancellationToken,
) -> Result<(), StartError> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let (mut tls, mut follow_tls) = (None, None);
    if let Some(folder) = &options.tls_folder {
        let files = tls::files(folder);
        let loaded = Reloaded::load("tls", files, tls::configuration, metrics.clone()).await?;
        tls = Some(loaded.value());
        follow_tls = Some(loaded.follow());
    }
    let (mut limits, mut follow_limits) = (watch::Sender::default().subscribe(), None);
    if let Some(file) = &options.limits_file {
        let files = vec![file.clone()];
        let loaded = Reloaded::load("limits", files, Limits::parse, metrics.clone()).await?;
        limits = loaded.value();
        follow_limits = Some(loaded.follow());
    }
    let (directory, watches) = watching::start(&client, &options.namespaces);
    let gateway = Gateway::new(directory, limits, options.strategy, options.hold_timeout, metrics)?;
    let control = server::serve(
        ports.control,
        None,
        gateway.control_router(registry),
        std::future::pending(),
    );
    let closed = async {
        stop.cancelled().await;
        gateway.is_stopping();
        tokio::time::sleep(options.shutdown_delay).await;
    };
    tokio::select! {
        () = server::serve(ports.clients, tls, gateway.router(), closed) => {}
        () = control => {}
        () = watches => {}
        () = loads::poll(gateway.loads(), gateway.directory()) => {}
        Some(()) = OptionFuture::from(follow_tls) => {}
        Some(()) = OptionFuture::from(follow_limits) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests;
