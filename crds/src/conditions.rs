//! Condition types of a `ModelDeployment`, and the reasons that are not failures.

/// The conditions, in the order a reader wants them: from the spec to the answer. Positive polarity.
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
    /// A request sent now would be answered by some replica, of any generation.
    Available,
    /// Something is still being changed.
    Progressing,
    /// Everything asked for is there, and nothing else.
    Ready,
}

impl ConditionType {
    /// Every type, in reading order.
    pub const ALL: &'static [ConditionType] = &[
        ConditionType::Accepted,
        ConditionType::ModelReady,
        ConditionType::Scheduled,
        ConditionType::EngineReady,
        ConditionType::Available,
        ConditionType::Progressing,
        ConditionType::Ready,
    ];

    /// The name as it stands in `status.conditions[].type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ConditionType::Accepted => "Accepted",
            ConditionType::ModelReady => "ModelReady",
            ConditionType::Scheduled => "Scheduled",
            ConditionType::EngineReady => "EngineReady",
            ConditionType::Available => "Available",
            ConditionType::Progressing => "Progressing",
            ConditionType::Ready => "Ready",
        }
    }
}

/// Reasons of conditions that report progress or success. Failures use [`crate::failure::Reason`].
pub mod reason {
    /// The spec was accepted.
    pub const ACCEPTED: &str = "Accepted";
    /// All replicas are current and answer.
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
    /// The engine reads the weights.
    pub const LOADING: &str = "Loading";
    /// The engine has loaded the model.
    pub const LOADED: &str = "Loaded";
    /// New pods replace older ones.
    pub const ROLLING_OUT: &str = "RollingOut";
    /// The number of replicas is being changed.
    pub const SCALING: &str = "Scaling";
    /// Nothing is being changed.
    pub const STABLE: &str = "Stable";
    /// There are no replicas because the spec asks for none.
    pub const SCALED_TO_ZERO: &str = "ScaledToZero";
    /// At least one replica answers.
    pub const SERVING: &str = "Serving";
    /// No replica answers.
    pub const NO_READY_REPLICA: &str = "NoReadyReplica";
}
