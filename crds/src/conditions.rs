//! Condition types of a `ModelDeployment`, and the reasons that are not failures.

/// The conditions, in the order from the spec to the answer. Each is named after its `True` state; a healthy
/// object has neither `Reconciling` nor `Stalled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConditionType {
    /// The spec can be honoured.
    Accepted,
    /// Every current replica has its model files.
    ModelReady,
    /// Every current replica has a node.
    Scheduled,
    /// Every current replica's engine has loaded the model.
    EngineReady,
    /// Some replica, of any generation, would answer a request now.
    Available,
    /// A change is in progress.
    Progressing,
    /// The autoscaler reads the load of the replicas, or waits for a request. Only objects with `spec.autoscaling` have it.
    AutoscalingActive,
    /// Every requested replica is current and ready, and there are no others.
    Ready,
    /// The operator or Kubernetes is working towards the spec. Tools that follow kstatus wait for its end.
    Reconciling,
    /// It cannot become ready without a change by a person. Tools that follow kstatus report it as failed.
    Stalled,
}

impl ConditionType {
    /// Every type, in this order.
    pub const ALL: &'static [ConditionType] = &[
        ConditionType::Accepted,
        ConditionType::ModelReady,
        ConditionType::Scheduled,
        ConditionType::EngineReady,
        ConditionType::Available,
        ConditionType::Progressing,
        ConditionType::AutoscalingActive,
        ConditionType::Ready,
        ConditionType::Reconciling,
        ConditionType::Stalled,
    ];

    /// The name in `status.conditions[].type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ConditionType::Accepted => "Accepted",
            ConditionType::ModelReady => "ModelReady",
            ConditionType::Scheduled => "Scheduled",
            ConditionType::EngineReady => "EngineReady",
            ConditionType::Available => "Available",
            ConditionType::Progressing => "Progressing",
            ConditionType::AutoscalingActive => "AutoscalingActive",
            ConditionType::Ready => "Ready",
            ConditionType::Reconciling => "Reconciling",
            ConditionType::Stalled => "Stalled",
        }
    }
}

/// Reasons of conditions that report progress or success. Failures use [`crate::failure::Reason`].
pub mod reason {
    /// The spec was accepted.
    pub const ACCEPTED: &str = "Accepted";
    /// All replicas are current and ready.
    pub const READY: &str = "Ready";
    /// The state is not known yet.
    pub const PENDING: &str = "Pending";
    /// The model is being downloaded.
    pub const DOWNLOADING: &str = "Downloading";
    /// The model's files are complete.
    pub const DOWNLOADED: &str = "Downloaded";
    /// A pod waits for a node.
    pub const SCHEDULING: &str = "Scheduling";
    /// Pods have nodes.
    pub const SCHEDULED: &str = "Scheduled";
    /// The image is being pulled or the container created.
    pub const STARTING: &str = "Starting";
    /// The engine loads the weights.
    pub const LOADING: &str = "Loading";
    /// The engine has loaded the model.
    pub const LOADED: &str = "Loaded";
    /// New pods replace older ones.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// The number of replicas is being changed.
    pub const SCALING: &str = "Scaling";
    /// No change is in progress.
    pub const STABLE: &str = "Stable";
    /// There are no replicas, because the spec requests none, or because no request came.
    pub const SCALED_TO_ZERO: &str = "ScaledToZero";
    /// There are no replicas, and gateways tell the autoscaler of requests.
    pub const WAITING_FOR_REQUESTS: &str = "WaitingForRequests";
    /// The autoscaler reads the load of the replicas.
    pub const LOAD_READ: &str = "LoadRead";
    /// Ready replicas do not answer the autoscaler.
    pub const NO_ANSWER: &str = "NoAnswer";
    /// A replica has found no node for some time.
    pub const NO_ROOM: &str = "NoRoom";
    /// At least one replica is ready.
    pub const SERVING: &str = "Serving";
    /// No replica is ready.
    pub const NO_READY_REPLICA: &str = "NoReadyReplica";
}
