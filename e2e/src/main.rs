//! `hub`: the tests' model repository server as a process of its own, for a pod of the cluster.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;
use e2e::hub::{HubConfig, HubState, router};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Serves folders as model repositories in the Hugging Face Hub's protocol, with faults on demand.
///
/// `POST /control` replaces the configuration, `GET /control/requests` lists the requests so far.
#[derive(Parser)]
struct Args {
    /// Folder whose `<owner>/<name>/` folders are the repositories.
    #[arg(long)]
    root: PathBuf,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// JSON file with policies and faults; without it, ROOT/hub.json where there is one.
    #[arg(long)]
    config: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let config = read_config(&args)?;
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("hub serves {} on {}", args.root.display(), listener.local_addr()?);
    // As the first process of a container it would ignore SIGTERM unless asked to listen.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        served = axum::serve(listener, router(HubState::new(args.root, config))) => served?,
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn read_config(args: &Args) -> anyhow::Result<HubConfig> {
    let beside = args.root.join("hub.json");
    let path = match &args.config {
        Some(path) => path,
        None if beside.exists() => &beside,
        None => return Ok(HubConfig::default()),
    };
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is no hub configuration", path.display()))
}
