//! What every reconcile uses: clients, the recorder of Events, metrics, backoffs and the options of the installation.

use crds::modeldeployment::Network;
use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};

use crate::{
    backoff::Backoffs, metrics::Metrics, names::FIELD_MANAGER, polls::Polls, probe::Probe, watched::Watched,
    written::Written,
};

/// Options of the installation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Installation {
    /// Image of the runtime, for ModelDeployments that name no image and have no pinned one.
    pub runtime_image: String,
    /// The same for ModelDeployments with GPUs; `None`: they have no image of their own.
    pub runtime_cuda_image: Option<String>,
    /// Namespace of the operator's own pod; `None` outside a cluster.
    pub namespace: Option<String>,
    /// The NetworkPolicies, for ModelDeployments that say nothing else.
    pub network: Network,
}

/// What every reconcile uses.
pub struct Context {
    /// Client of the API server.
    pub client: Client,
    /// Requests to replicas, and their answers.
    pub polls: Polls,
    /// What the watches have seen.
    pub watched: Watched,
    /// What the operator wrote last.
    pub written: Written,
    /// Publishes Events.
    pub recorder: Recorder,
    /// Counters and durations.
    pub metrics: Metrics,
    /// Waits between the retries of each object.
    pub backoffs: Backoffs,
    /// Options of the installation.
    pub installation: Installation,
}

impl Context {
    /// A context for one term of leadership, without watches.
    ///
    /// # Errors
    /// When the client for requests to replicas cannot be built.
    pub fn new(client: Client, metrics: Metrics, installation: Installation) -> Result<Self, reqwest::Error> {
        let reporter = Reporter {
            controller: FIELD_MANAGER.into(),
            instance: None,
        };
        Ok(Self {
            recorder: Recorder::new(client.clone(), reporter),
            polls: Polls::new(Probe::new()?),
            watched: Watched::default(),
            written: Written::default(),
            client,
            metrics,
            backoffs: Backoffs::default(),
            installation,
        })
    }

    /// The same context with what these watches see.
    pub fn watching(self, watched: Watched) -> Self {
        Self { watched, ..self }
    }
}
