//! `slipway-operator`: command line, logging and signals. The rest is in the library.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use crds::modeldeployment::Network;
use kube::Client;
use operator::{
    context::Installation,
    controller::{self, Process},
    health,
    leader::Candidate,
    metrics::Metrics,
};
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};
use tracing_subscriber::EnvFilter;

/// Reconciles ModelDeployments of the slipway.dev API group.
#[derive(Debug, Parser)]
#[command(name = "slipway-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch ModelDeployments and reconcile them until SIGTERM or SIGINT.
    Run(Run),
}

#[derive(Debug, Args)]
struct Run {
    /// Image of the runtime, for ModelDeployments that name no image.
    #[arg(long, env = "RUNTIME_IMAGE")]
    runtime_image: String,
    /// Address on which /livez, /readyz and /metrics are served.
    #[arg(long, env = "LISTEN", default_value = "[::]:8080")]
    listen: SocketAddr,
    /// Elect a leader by a Lease, so that several replicas can run.
    #[arg(long, env = "LEADER_ELECT")]
    leader_elect: bool,
    /// Namespace of the operator's pod. The Lease is there, and its pods may read the progress of downloads.
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: Option<String>,
    /// The NetworkPolicies of ModelDeployments that say nothing else, as JSON of the form of spec.network.
    #[arg(long, env = "NETWORK", default_value = "{}", value_parser = network)]
    network: Network,
    /// Reconcile ModelDeployments in these namespaces only, with commas between them. The operator then needs rights in
    /// no other namespace.
    #[arg(long, env = "WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// Name of the operator's pod.
    #[arg(long, env = "POD_NAME")]
    pod_name: Option<String>,
    /// Log filter, in the syntax of Rust's tracing.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    log_level: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Two TLS providers can be in one build; without a choice the client panics.
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider was installed first"))?;
    let Command::Run(options) = Cli::parse().command;
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(&options.log_level).context("--log-level")?)
        .json()
        .init();
    run(options).await
}

async fn run(options: Run) -> anyhow::Result<()> {
    let client = Client::try_default()
        .await
        .context("no kubeconfig and no pod's service account")?;
    let mut registry = Registry::default();
    let installation = Installation {
        runtime_image: options.runtime_image,
        namespace: options.namespace.clone(),
        network: options.network,
        watch_namespaces: distinct(options.watch_namespaces),
    };
    let candidate = options.leader_elect.then(|| {
        let namespace = options.namespace.as_deref().unwrap_or(client.default_namespace());
        let identity = controller::identity(options.pod_name.as_deref());
        Candidate::new(client.clone(), namespace, identity)
    });

    let (leadership, seen_leadership) = watch::channel(health::Leadership::Connecting);
    let listener = listen(options.listen).await?;
    let process = Process {
        client,
        metrics: Metrics::register(&mut registry),
        installation,
    };
    let server = axum::serve(listener, health::routes(seen_leadership, registry));
    tokio::select! {
        served = server.into_future() => served.context("health server"),
        ended = controller::run(process, candidate, &leadership, stopped()?) => Ok(ended?),
    }
}

/// The names without empty ones and repetitions: each namespace has one controller.
fn distinct(names: Vec<String>) -> Vec<String> {
    let names: BTreeSet<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
    names.into_iter().collect()
}

fn network(json: &str) -> Result<Network, serde_json::Error> {
    serde_json::from_str(json)
}

/// Listens on `address`. On a machine without IPv6, all addresses are all those of IPv4.
async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = match TcpListener::bind(address).await {
        Err(error) if error.kind() != ErrorKind::AddrInUse && address.ip() == Ipv6Addr::UNSPECIFIED => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        bound => bound,
    };
    bound.with_context(|| format!("--listen {address}"))
}

/// Resolves at SIGTERM or SIGINT.
fn stopped() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut term = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("SIGINT")?;
    Ok(async move {
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    })
}
