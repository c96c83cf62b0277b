//! The life of the serving process: bind, load, serve, drain.
//!
//! The port is bound first, so that probes are answered while the model loads. It joins `http` and `serving`, which do not
//! know each other's callers.

use std::sync::Arc;
use std::time::Duration;

use crds::failure::{Failure, Reason, chain};
use futures::future::OptionFuture;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::ServeConfig;
use crate::engine::Death;
use crate::http::app::App;
use crate::http::auth;
use crate::http::connection::{self, ConnectionLimits, Listener};
use crate::http::routes;
use crate::http::tls::{self, TlsError};
use crate::listen::{self, Address};
use crate::serving::{LoadError, Serving, load};
use crate::startup::Stage;
use crate::telemetry::{preemptions, statistics};

/// Longest wait for clients to take the rest of their answers once the engine has stopped.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why the process cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: Address,
        /// Why.
        source: std::io::Error,
    },
    /// The operating system does not tell the address of a listener.
    #[error("cannot read the address of the port")]
    Address(#[source] std::io::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signals(#[source] std::io::Error),
    /// The files for TLS cannot be used.
    #[error("TLS cannot be served")]
    Tls(#[from] TlsError),
    /// The engine died while the process served.
    #[error("the engine is dead: {}", .0.reason)]
    EngineDead(Death),
    /// The model cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl ServeError {
    /// The failure that the process ends with.
    pub fn failure(&self) -> Failure {
        let remedy = match self {
            ServeError::Load(error) => return error.failure(),
            ServeError::EngineDead(death) => return died(death, chain(self)),
            ServeError::Bind { .. } | ServeError::Address(_) => "Choose another HOST, PORT or CONTROL_PORT.",
            ServeError::Signals(_) => "Start the process again.",
            ServeError::Tls(_) => "Correct SSL_CERTFILE, SSL_KEYFILE or SSL_CA_CERTS.",
        };
        Failure::new(Reason::InvalidSetting, chain(self), remedy)
    }
}

/// The failure of a process whose engine died.
fn died(death: &Death, message: String) -> Failure {
    if death.is_of_device {
        let remedy = "If this happens again on the same node, check its GPU and driver.";
        return Failure::new(Reason::GPUFailed, message, remedy);
    }
    Failure::new(
        Reason::CrashLoop,
        message,
        "This is a bug; the log has the details.",
    )
}

/// Serves until SIGTERM or SIGINT, then finishes what runs. After an engine has died, the process answers its probes, so
/// that the kubelet ends it.
///
/// # Errors
/// [`ServeError`] when serving cannot begin, or the engine died.
pub async fn serve(config: ServeConfig) -> Result<(), ServeError> {
    let mut signals = Signals::listen().map_err(ServeError::Signals)?;
    let ports = Ports::bind(&config).await?;
    let url = ports.url()?;
    let app = Arc::new(App::new(config));
    let stop_http = CancellationToken::new();
    let http = tokio::spawn(ports.serve(&app, &stop_http));
    if let Some(file) = app.config.api_keys.file.clone() {
        tokio::spawn(auth::follow(Arc::clone(&app.api_keys), file));
    }
    let loaded = tokio::select! {
        loaded = load(Arc::clone(&app.config), app.startup.clone()) => loaded,
        () = signals.next() => return Ok(()),
    };
    let serving = Arc::new(loaded?);
    announce(&app.config, &serving, &url);
    let engine = Arc::clone(&serving.engine);
    app.serving.set(serving).expect("the model is loaded once");
    app.startup.enter(Stage::Ready);
    let period = Duration::from_secs_f64(app.config.engine.preemption_check_period());
    tokio::spawn(preemptions::log(Arc::clone(&engine), period));
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
    let serving = app.serving.get();
    let death = serving.and_then(|serving| serving.engine.death());
    death.map_or(Ok(()), |death| Err(ServeError::EngineDead(death.clone())))
}

/// The ports that the process listens on.
struct Ports {
    clients: Listener,
    control: Option<Listener>,
}

impl Ports {
    async fn bind(config: &ServeConfig) -> Result<Self, ServeError> {
        let tls = config.tls.as_ref().map(tls::configuration).transpose()?;
        let listener = bound(&config.host, config.port).await?;
        let control = match config.control_port {
            Some(port) => Some(bound(&config.host, port).await?.into()),
            None => None,
        };
        Ok(Self {
            clients: Listener { listener, tls },
            control,
        })
    }

    /// An address that a user of this machine can open.
    fn url(&self) -> Result<String, ServeError> {
        let Listener { listener, tls } = &self.clients;
        let address = listen::reachable(listener).map_err(ServeError::Address)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        Ok(format!("{scheme}://{address}/v1"))
    }

    /// Serves both ports until `stop` is cancelled.
    fn serve(self, app: &Arc<App>, stop: &CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        let limits = ConnectionLimits::of_process();
        let router = routes::router(Arc::clone(app));
        let clients = connection::serve(self.clients, router, limits, stop.clone());
        let router = routes::control_router(Arc::clone(app));
        let stop = stop.clone();
        let control = self
            .control
            .map(|listener| connection::serve(listener, router, ConnectionLimits::control(), stop));
        async move {
            tokio::join!(clients, OptionFuture::from(control));
        }
    }
}

async fn bound(host: &str, port: u16) -> Result<TcpListener, ServeError> {
    let address = Address::new(host, port);
    let bound = address.bind().await;
    bound.map_err(|source| ServeError::Bind { address, source })
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

fn announce(config: &ServeConfig, serving: &Serving, url: &str) {
    for (name, why) in &config.accepted {
        tracing::warn!("{name} has no effect: {why}");
    }
    let load = serving.engine.load();
    tracing::info!(
        url,
        model = config.served_names.to_vec().join(","),
        architecture = serving.info.architecture,
        device = serving.info.device,
        dtype = serving.info.dtype,
        kv_cache_dtype = serving.info.kv_cache_dtype,
        context = serving.max_model_len,
        blocks = load.n_blocks,
        block_size = load.block_size,
        "ready"
    );
}
