//! What every reconcile uses: clients, the recorder of Events, metrics, backoffs and the options of the installation.

use std::sync::{Arc, atomic::AtomicBool};

use crds::modeldeployment::Network;
use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};

use crate::{
    autoscaler::Autoscaler, backoff::Backoffs, demand::Demand, metrics::Metrics, names::FIELD_MANAGER,
    polls::Polls, probe::Probe, watched::Watched, written::Written,
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
    /// Namespaces whose ModelDeployments are reconciled; all if there are none.
    pub watch_namespaces: Vec<String>,
    /// Service of the gateways, in the namespace of the operator's own pod; `None`: there is no gateway.
    pub gateway_service: Option<String>,
}

/// What every reconcile uses.
pub struct Context {
    /// Client of the API server.
    pub client: Client,
    /// Requests to replicas, and their answers.
    pub polls: Polls,
    /// Decides numbers of replicas.
    pub autoscaler: Autoscaler,
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
    /// Whether the API server has no `pods/resize`, as was found out.
    pub resize_is_absent: AtomicBool,
    /// Options of the installation.
    pub installation: Installation,
}

impl Context {
    /// A context for one term of leadership, without watches. Gateways report to `demand`.
    ///
    /// # Errors
    /// When the client for requests to replicas cannot be built.
    pub fn new(
        client: Client,
        metrics: Metrics,
        installation: Installation,
        demand: Arc<Demand>,
    ) -> Result<Self, reqwest::Error> {
        let reporter = Reporter {
            controller: FIELD_MANAGER.into(),
            instance: None,
        };
        let probe = Probe::new()?;
        let polls = Polls::new(probe.clone());
        Ok(Self {
            autoscaler: Autoscaler::new(probe, demand, polls.notifier()),
            polls,
            recorder: Recorder::new(client.clone(), reporter),
            watched: Watched::default(),
            written: Written::default(),
            client,
            metrics,
            backoffs: Backoffs::default(),
            resize_is_absent: AtomicBool::default(),
            installation,
        })
    }

    /// The same context with what these watches see.
    pub fn watching(self, watched: Watched) -> Self {
        Self { watched, ..self }
    }
}
