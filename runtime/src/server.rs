//! The life of the serving process: bind, load, serve, drain.
//!
//! The port is bound first, so that probes are answered while the model loads. Must not know the routes or what a
//! request looks like.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crds::failure::{Failure, Reason, chain};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::capacity::CacheDoesNotFit;
use crate::chat_template::{ChatTemplate, TemplateError};
use crate::config::ServeConfig;
use crate::connection::{self, ConnectionLimits, Entrance};
use crate::engine::{Engine, EngineError};
use crate::fetch::FetchError;
use crate::grammar::{GrammarError, Grammars};
use crate::jobs::Jobs;
use crate::loading::load;
use crate::metrics::Metrics;
use crate::model::{ModelError, ModelInfo};
use crate::parsers::{Formats, UnknownParser};
use crate::pooling::PoolingConfig;
use crate::routes;
use crate::startup::{Stage, StartupTracker};
use crate::statistics;
use crate::tls::{self, TlsError};
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Longest wait for clients to take the rest of their answers once the engine has stopped.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What every route sees of the process.
#[derive(Debug)]
pub struct App {
    /// How far the start is.
    pub startup: StartupTracker,
    /// Settings.
    pub config: ServeConfig,
    /// Metrics.
    pub metrics: Metrics,
    /// Work that is fetched later.
    pub jobs: Jobs,
    /// The loaded model; empty while loading.
    pub serving: OnceLock<Serving>,
    draining: AtomicBool,
}

/// A loaded model and what is needed to use it.
#[derive(Debug)]
pub struct Serving {
    /// The engine.
    pub engine: Engine,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Messages to text; a checkpoint may have none.
    pub template: Option<ChatTemplate>,
    /// Grammars over its tokens, or why there can be none.
    pub grammars: Result<Grammars, GrammarError>,
    /// How calls and thoughts are found in answers.
    pub formats: Formats,
    /// What was loaded.
    pub info: ModelInfo,
    /// Longest context in tokens.
    pub max_model_len: usize,
    /// What the checkpoint says of its vectors.
    pub pooling: PoolingConfig,
    /// Commit that was downloaded, if the directory says so.
    pub revision: Option<String>,
    /// Sampling of requests that name none.
    pub defaults: crate::request::Defaults,
    /// Directory of the model.
    pub directory: PathBuf,
}

impl App {
    /// The state of a process that has not loaded its model yet.
    pub fn new(config: ServeConfig) -> Self {
        App {
            startup: StartupTracker::new(),
            metrics: Metrics::new(&config.served_names.first),
            jobs: Jobs::new(config.serving.max_concurrency() as usize),
            config,
            serving: OnceLock::new(),
            draining: AtomicBool::new(false),
        }
    }

    /// Whether clients should go elsewhere because the process is about to end.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Sends clients elsewhere, then drains. During the shutdown delay the process is not ready and closes each
    /// connection after its answer, but still answers what arrives: a Service needs a moment to drop a pod, and a kept
    /// connection does not ask the Service again.
    pub async fn shut_down(&self) {
        self.draining.store(true, Ordering::Release);
        tokio::time::sleep(self.config.shutdown_delay).await;
        self.drain().await;
    }

    /// Refuses new requests from now on and waits for those that run, at most the drain timeout; then ends them.
    pub async fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        let Some(serving) = self.serving.get() else { return };
        let finished = async {
            // Jobs that wait have yet to ask the engine.
            self.jobs.idle().await;
            serving.engine.drain();
            serving.engine.drained().await
        };
        if tokio::time::timeout(self.config.drain_timeout, finished)
            .await
            .is_err()
        {
            tracing::warn!("the drain timeout passed; ending what still runs");
            serving.engine.abort();
            serving.engine.drained().await;
        }
    }
}

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
    /// The token for the hub is none.
    #[error("the model cannot be downloaded")]
    Fetch(#[from] FetchError),
    /// The model cannot be loaded.
    #[error("the model cannot be loaded")]
    Model(#[from] ModelError),
    /// The tokenizer cannot be loaded.
    #[error("the tokenizer cannot be loaded")]
    Tokenizer(#[from] TokenizerError),
    /// The chat template is no template.
    #[error("the chat template is not valid")]
    Template(#[from] TemplateError),
    /// A parser is asked for that does not exist.
    #[error("TOOL_CALL_PARSER or REASONING_PARSER cannot be used")]
    Parser(#[from] UnknownParser),
    /// The KV cache does not fit.
    #[error("the KV cache does not fit")]
    Capacity(#[from] CacheDoesNotFit),
    /// The engine does not start.
    #[error("the engine does not start")]
    Engine(#[from] EngineError),
    /// The model computes no answer.
    #[error("the model answers no test request: {reason}")]
    WarmUp {
        /// What happened.
        reason: String,
    },
    /// generation_config.json cannot be used.
    #[error("the checkpoint's sampling cannot be used")]
    Defaults(#[from] crate::request::DefaultsError),
    /// No directory for downloads.
    #[error("there is no directory for downloads")]
    NoCacheDirectory,
    /// A task of the process died.
    #[error("loading stopped on an internal error")]
    Panicked,
}

impl ServeError {
    /// The failure that the process ends with.
    pub fn failure(&self) -> Failure {
        let lower = "Lower MAX_MODEL_LEN, or give the container more memory.";
        let (reason, remedy) = match self {
            ServeError::Fetch(error) => return error.failure(),
            ServeError::Model(error) => model_failure(error),
            ServeError::Bind { .. } => (Reason::InvalidSetting, "Choose another HOST or PORT."),
            ServeError::Tls(_) => (
                Reason::InvalidSetting,
                "Correct SSL_CERTFILE, SSL_KEYFILE or SSL_CA_CERTS.",
            ),
            ServeError::Defaults(_) => (
                Reason::InvalidCheckpoint,
                "Correct or remove generation_config.json.",
            ),
            ServeError::Tokenizer(_) => (Reason::InvalidCheckpoint, "Name a tokenizer with TOKENIZER."),
            ServeError::Template(_) => (
                Reason::InvalidSetting,
                "Give a template with CUSTOM_CHAT_TEMPLATE.",
            ),
            ServeError::Parser(_) => (
                Reason::InvalidSetting,
                "Correct the value; docs/settings.md lists them all.",
            ),
            ServeError::Capacity(_) => (Reason::OutOfMemory, lower),
            ServeError::Engine(_) => (Reason::InvalidSetting, "Lower the sizes of the engine."),
            ServeError::NoCacheDirectory => (Reason::InvalidSetting, "Set HOME, XDG_CACHE_HOME or HF_HOME."),
            ServeError::WarmUp { .. } | ServeError::Panicked => {
                (Reason::CrashLoop, "This is a bug; the log has the details.")
            }
        };
        Failure::new(reason, chain(self), remedy)
    }
}

/// What an error of the model means to somebody who deploys it.
fn model_failure(error: &ModelError) -> (Reason, &'static str) {
    match error {
        ModelError::UnsupportedArchitecture { .. } => (
            Reason::UnsupportedArchitecture,
            "Choose a model of a supported architecture.",
        ),
        ModelError::UnsupportedOption { .. } => (
            Reason::UnsupportedArchitecture,
            "Choose a model that does without this option.",
        ),
        ModelError::MaxModelLen { .. } => (Reason::InvalidSetting, "Lower MAX_MODEL_LEN."),
        ModelError::Cache { .. } => (Reason::OutOfMemory, "Lower MAX_MODEL_LEN or MAX_NUM_SEQS."),
        ModelError::Read { .. }
        | ModelError::Json { .. }
        | ModelError::Config { .. }
        | ModelError::WeightFile { .. }
        | ModelError::MissingFile { .. }
        | ModelError::MissingTensor { .. }
        | ModelError::UnknownTensor { .. }
        | ModelError::TensorShape { .. }
        | ModelError::TensorDtype { .. } => (
            Reason::InvalidCheckpoint,
            "Check the repository and its revision; delete a damaged copy from the cache.",
        ),
        ModelError::Kernel(_) => (Reason::CrashLoop, "This is a bug; the log has the details."),
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
    let entrance = Entrance { listener, tls };
    let app = Arc::new(App::new(config));
    let stop_http = CancellationToken::new();
    let router = routes::router(Arc::clone(&app));
    let http = connection::serve(entrance, router, ConnectionLimits::default(), stop_http.clone());
    let http = tokio::spawn(http);
    let mut signals = Signals::listen().map_err(bind)?;
    let loaded = tokio::select! {
        loaded = load(Arc::clone(&app)) => loaded,
        () = signals.next() => return Ok(()),
    };
    let serving = loaded?;
    announce(&app.config, &serving, &address);
    app.serving.set(serving).expect("the model is loaded once");
    app.startup.enter(Stage::Ready);
    if !app.config.serving.disable_log_stats() {
        tokio::spawn(statistics::log(Arc::clone(&app)));
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
