//! `slipway-operator`: command line, logging and signals. The rest is in the library.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use crds::{keys, modeldeployment::Network};
use kube::Client;
use operator::{
    console,
    context::Installation,
    controller::{self, Process},
    gateway::{self, Strategy},
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
use tokio_util::sync::CancellationToken;
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
    /// Serve all models at one address: forward each request to a replica of the model that it names.
    Gateway(Gateway),
    /// Serve pages that list, make and change ModelDeployments with the rights of the person who uses them.
    Console(Console),
    /// Print the salted hash of a key, for the gateway's limits. The key is read from the standard input.
    KeyHash {
        /// The uid of the ModelDeployment that accepts the key.
        #[arg(long)]
        uid: String,
    },
    /// Print the completions of a shell.
    Completions {
        /// Shell.
        shell: Shell,
    },
    /// Write the pages of the manual into a folder that exists.
    Man {
        /// Folder.
        folder: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Run {
    /// Image of the runtime, for ModelDeployments that name no image.
    #[arg(long, env = "RUNTIME_IMAGE")]
    runtime_image: String,
    /// Image of the runtime for ModelDeployments with GPUs that name no image; by default the same as for others.
    #[arg(long, env = "RUNTIME_CUDA_IMAGE")]
    runtime_cuda_image: Option<String>,
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
    /// Service of the gateways, in the namespace of the operator's pod. Without it, no model is scaled to zero.
    #[arg(long, env = "GATEWAY_SERVICE")]
    gateway_service: Option<String>,
    /// Name of the operator's pod.
    #[arg(long, env = "POD_NAME")]
    pod_name: Option<String>,
    /// Log filter, in the syntax of Rust's tracing.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    log_level: String,
}

#[derive(Debug, Args)]
struct Gateway {
    /// Address for clients.
    #[arg(long, env = "LISTEN", default_value = "[::]:8000")]
    listen: SocketAddr,
    /// Address on which /livez, /readyz and /metrics are served.
    #[arg(long, env = "CONTROL_LISTEN", default_value = "[::]:8001")]
    control_listen: SocketAddr,
    /// Namespaces whose ModelDeployments it serves, with commas between them. Default: all.
    #[arg(long, env = "WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// How a replica is chosen.
    #[arg(long, env = "STRATEGY", value_enum, default_value_t)]
    strategy: Strategy,
    /// Longest time in seconds that a request waits for a ready replica.
    #[arg(long, env = "HOLD_TIMEOUT_SECONDS", default_value_t = 600)]
    hold_timeout_seconds: u64,
    /// Seconds from SIGTERM to the end of new connections.
    #[arg(long, env = "SHUTDOWN_DELAY_SECONDS", default_value_t = 5)]
    shutdown_delay_seconds: u64,
    /// Folder with tls.crt and tls.key, as in a Secret of type kubernetes.io/tls: clients connect with TLS. The files are
    /// read again when they change.
    #[arg(long, env = "TLS_DIR")]
    tls_dir: Option<PathBuf>,
    /// File with limits of clients, as YAML (docs/gateway.md). It is read again when it changes.
    #[arg(long, env = "LIMITS_FILE")]
    limits_file: Option<PathBuf>,
    /// Log filter, in the syntax of Rust's tracing.
    #[arg(long, env = "LOG_LEVEL", default_value = "info")]
    log_level: String,
}

#[derive(Debug, Args)]
struct Console {
    /// Address on which the pages are served.
    #[arg(long, env = "LISTEN", default_value = "[::]:8080")]
    listen: SocketAddr,
    /// Use the rights of this machine's kubeconfig, and ask for no token. The address must be a loopback address.
    #[arg(long)]
    use_kubeconfig: bool,
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
    let command = Cli::parse().command;
    let log_level = match &command {
        Command::Run(options) => &options.log_level,
        Command::Gateway(options) => &options.log_level,
        Command::Console(options) => &options.log_level,
        Command::KeyHash { uid } => {
            let key = std::io::read_to_string(std::io::stdin()).context("the key from the standard input")?;
            anyhow::ensure!(!key.trim().is_empty(), "the standard input has no key");
            println!("{}", keys::hash(uid, key.trim().as_bytes()));
            return Ok(());
        }
        Command::Completions { shell } => {
            let name = env!("CARGO_BIN_NAME");
            clap_complete::generate(*shell, &mut Cli::command(), name, &mut std::io::stdout());
            return Ok(());
        }
        Command::Man { folder } => {
            return clap_mangen::generate_to(Cli::command(), folder)
                .with_context(|| format!("cannot write pages of the manual into {}", folder.display()));
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_new(log_level).context("--log-level")?)
        .json()
        .init();
    match command {
        Command::Run(options) => run(options).await,
        Command::Gateway(options) => serve_gateway(options).await,
        Command::Console(options) => {
            let identity = match options.use_kubeconfig {
                true => console::Identity::Kubeconfig,
                false => console::Identity::Token,
            };
            Ok(console::run(identity, listen(options.listen).await?, stopped()?).await?)
        }
        Command::KeyHash { .. } | Command::Completions { .. } | Command::Man { .. } => Ok(()),
    }
}

async fn serve_gateway(options: Gateway) -> anyhow::Result<()> {
    let client = Client::try_default()
        .await
        .context("no kubeconfig and no pod's service account")?;
    let ports = gateway::Ports {
        clients: listen(options.listen).await?,
        control: listen(options.control_listen).await?,
    };
    let (stop, stopped) = (CancellationToken::new(), stopped()?);
    let stopping = stop.clone();
    tokio::spawn(async move {
        stopped.await;
        stopping.cancel();
    });
    let options = gateway::Options {
        namespaces: options.watch_namespaces,
        strategy: options.strategy,
        hold_timeout: Duration::from_secs(options.hold_timeout_seconds),
        shutdown_delay: Duration::from_secs(options.shutdown_delay_seconds),
        tls_folder: options.tls_dir,
        limits_file: options.limits_file,
    };
    Ok(gateway::run(client, options, ports, stop).await?)
}

async fn run(options: Run) -> anyhow::Result<()> {
    let client = Client::try_default()
        .await
        .context("no kubeconfig and no pod's service account")?;
    let mut registry = Registry::default();
    let installation = Installation {
        runtime_image: options.runtime_image,
        runtime_cuda_image: options.runtime_cuda_image,
        namespace: options.namespace.clone(),
        network: options.network,
        watch_namespaces: distinct(options.watch_namespaces),
        gateway_service: options.gateway_service,
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
