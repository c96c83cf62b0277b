//! What every route knows of the process: settings, metrics, jobs, and the model once it is loaded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::extract::FromRef;

use super::auth::ApiKeys;
use super::body::BodyMemory;
use crate::api::error::ApiError;
use crate::api::jobs::Jobs;
use crate::config::ServeConfig;
use crate::model::available_threads;
use crate::preparation::Preparation;
use crate::serving::Serving;
use crate::startup::StartupTracker;
use crate::telemetry::metrics::Metrics;

/// What every route sees of the process.
#[derive(Debug)]
pub struct App {
    /// How far the start is.
    pub startup: StartupTracker,
    /// Settings.
    pub config: Arc<ServeConfig>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The API keys that are valid now.
    pub api_keys: Arc<ApiKeys>,
    /// The places where requests are prepared.
    pub preparation: Preparation,
    /// The memory that all bodies share.
    pub(super) body_memory: BodyMemory,
    /// Work that is fetched later.
    pub jobs: Jobs,
    /// The loaded model; empty while loading.
    pub serving: OnceLock<Arc<Serving>>,
    draining: AtomicBool,
}

impl FromRef<Arc<App>> for BodyMemory {
    fn from_ref(app: &Arc<App>) -> Self {
        app.body_memory.clone()
    }
}

impl App {
    /// The state of a process that has not loaded its model yet.
    pub fn new(config: ServeConfig) -> Self {
        App {
            startup: StartupTracker::new(),
            metrics: Arc::new(Metrics::new(&config.served_names.first)),
            api_keys: Arc::new(ApiKeys::new(&config.api_keys.keys)),
            preparation: Preparation::new(n_places(&config)),
            body_memory: BodyMemory::default(),
            jobs: Jobs::new(config.serving.max_concurrency() as usize),
            config: Arc::new(config),
            serving: OnceLock::new(),
            draining: AtomicBool::new(false),
        }
    }

    /// The loaded model.
    ///
    /// # Errors
    /// [`ApiError::Loading`] while it is being loaded.
    pub fn ready(&self) -> Result<Arc<Serving>, ApiError> {
        self.serving.get().map(Arc::clone).ok_or(ApiError::Loading)
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

/// Number of requests that are prepared at once: as many as there are cores, unless a setting names another number.
fn n_places(config: &ServeConfig) -> usize {
    config.tokenizer_threads.unwrap_or_else(available_threads)
}
