//! What every reconcile is given: the clients, the recorder of Events, the metrics and the installation's choices.

use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};

use crate::{backoff::Backoffs, metrics::Metrics, names::FIELD_MANAGER, probe::Probe};

/// What was chosen when the operator was installed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Installation {
    /// Image of the runtime for ModelDeployments that name none and have none pinned yet.
    pub runtime_image: String,
    /// Namespace of the operator's own pod; `None` outside a cluster.
    pub namespace: Option<String>,
}

/// What every reconcile is given.
pub struct Context {
    /// Client of the API server.
    pub client: Client,
    /// Reads the progress of starting pods.
    pub probe: Probe,
    /// Publishes Events.
    pub recorder: Recorder,
    /// Counters and durations.
    pub metrics: Metrics,
    /// Waits between retries, per object.
    pub backoffs: Backoffs,
    /// Choices of the installation.
    pub installation: Installation,
}

impl Context {
    /// A context for one process.
    ///
    /// # Errors
    /// When the HTTP client for progress cannot be built.
    pub fn new(client: Client, metrics: Metrics, installation: Installation) -> Result<Self, reqwest::Error> {
        let reporter = Reporter {
            controller: FIELD_MANAGER.into(),
            instance: None,
        };
        Ok(Self {
            recorder: Recorder::new(client.clone(), reporter),
            probe: Probe::new()?,
            client,
            metrics,
            backoffs: Backoffs::default(),
            installation,
        })
    }
}
