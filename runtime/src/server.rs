//! The life of the serving process: bind, load, serve, drain.
//!
//! The port is bound first, so that probes are answered while the model loads. It joins `http` and `serving`, which do not
//! know each other's callers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crds::failure::{Failure, Reason, chain};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::ServeConfig;
use crate::http::app::App;
use crate::http::connection::{self, ConnectionLimits, Listener};
use crate::http::routes;
use crate::http::tls::{self, TlsError};
use crate::serving::{LoadError, Serving, load};
use crate::startup::Stage;
use crate::telemetry::statistics;

/// Longest wait for clients to take the rest of their answers once the engine has stopped.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why the process cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// `host:port`.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// The files for TLS cannot be used.
    #[error("TLS cannot be served")]
    Tls(#[from] TlsError),
    /// The model cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl ServeError {
    /// The failure that the process ends with.
    pub fn failure(&self) -> Failure {
        let remedy = match self {
            ServeError::Load(error) => return error.failure(),
            ServeError::Bind { .. } => "Choose another HOST or PORT.",
            ServeError::Tls(_) => "Correct SSL_CERTFILE, SSL_KEYFILE or SSL_CA_CERTS.",
        };
        Failure::new(Reason::InvalidSetting, chain(self), remedy)
    }
}

/// Serves until SIGTERM or SIGINT, then finishes what runs.
///
/// # Errors
/// [`ServeError`] when serving cannot begin.
pub async fn serve(config: ServeConfig) -> Result<(), ServeError> {
    let address = format!("{}:{}", config.host, config.port);
    let bind = |source| ServeError::Bind {
        address: address.clone(),
        source,
    };
    let tls = config.tls.as_ref().map(tls::configuration).transpose()?;
    let listener = TcpListener::bind(&address).await.map_err(bind)?;
    let listener = Listener { listener, tls };
    let app = Arc::new(App::new(config));
    let stop_http = CancellationToken::new();
    let router = routes::router(Arc::clone(&app));
    let http = connection::serve(listener, router, ConnectionLimits::default(), stop_http.clone());
    let http = tokio::spawn(http);
    let mut signals = Signals::listen().map_err(bind)?;
    let loaded = tokio::select! {
        loaded = load(Arc::clone(&app.config), app.startup.clone()) => loaded,
        () = signals.next() => return Ok(()),
    };
    let serving = Arc::new(loaded?);
    announce(&app.config, &serving, &address);
    let engine = Arc::clone(&serving.engine);
    app.serving.set(serving).expect("the model is loaded once");
    app.startup.enter(Stage::Ready);
    if !app.config.serving.disable_log_stats() {
        tokio::spawn(statistics::log(engine));
    }
    signals.next().await;
    tracing::info!("shutting down: running requests finish; a second signal ends the process at once");
    tokio::select! {
        () = app.shut_down() => {}
        () = signals.next() => return Ok(()),
    }
    stop_http.cancel();
    if tokio::time::timeout(LAST_WORDS, http).await.is_err() {
        tracing::warn!("some clients did not take their answers");
    }
    Ok(())
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn announce(config: &ServeConfig, serving: &Serving, address: &str) {
    for (name, why) in &config.accepted {
        tracing::warn!("{name} has no effect: {why}");
    }
    if Path::new("/dev/nvidia0").exists() {
        tracing::warn!("there is a GPU here, and this version computes on the CPU only");
    }
    let load = serving.engine.load();
    tracing::info!(
        url = format!(
            "{}://{address}/v1",
            if config.tls.is_some() { "https" } else { "http" }
        ),
        model = config.served_names.to_vec().join(","),
        architecture = serving.info.architecture,
        dtype = serving.info.dtype,
        context = serving.max_model_len,
        blocks = load.n_blocks,
        block_size = load.block_size,
        "ready"
    );
}
