//! Why something failed: the closed list of reasons of the runtime's exit codes, its termination messages and the
//! conditions of a `ModelDeployment`.
//!
//! A process that gives up writes a [`Failure`] as JSON to its termination message and exits with
//! [`Reason::exit_code`]; the operator reads the message and shows it with its remedy.

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest termination message that the kubelet keeps, in bytes.
pub const TERMINATION_MESSAGE_BYTES_MAX: usize = 4096;

/// Longest message or remedy in a termination message, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal),+ $(,)?) => {
        /// Machine-readable cause of a failure. The names are part of the API.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        pub enum Reason { $($(#[$doc])* $name),+ }

        impl Reason {
            /// Every reason, in declaration order.
            pub const ALL: &'static [Reason] = &[$(Reason::$name),+];

            /// The name in conditions, Events and metric labels.
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$name => stringify!($name)),+ }
            }

            /// Exit code of a process that gives up for this reason. Each reason has its own code, outside 0–2, 64–78
            /// and 125–255, which shells, clap, sysexits and signals use.
            pub const fn exit_code(self) -> u8 {
                match self { $(Reason::$name => $code),+ }
            }
        }
    };
}

reasons! {
    /// A setting has a value that cannot be used.
    InvalidSetting = 10,
    /// A setting of another server that this one does not have; the message names its replacement.
    RemovedSetting = 11,
    /// No node has the GPUs that one replica requests.
    InsufficientGPU = 12,
    /// The runtime image cannot be pulled.
    ImagePullFailed = 13,
    /// A referenced Secret or key does not exist.
    SecretMissing = 14,
    /// The hub refuses the token, or requires one (HTTP 401 or 403).
    DownloadUnauthorized = 15,
    /// The repository, revision or file does not exist (HTTP 404).
    DownloadNotFound = 16,
    /// No bytes arrived for the stall timeout, and retries did not help.
    DownloadStalled = 17,
    /// The cache volume is too small for the model.
    DiskFull = 18,
    /// A downloaded file does not have the checksum that the hub lists.
    ChecksumMismatch = 19,
    /// The architecture of the checkpoint is not supported.
    UnsupportedArchitecture = 20,
    /// Weights and KV cache do not fit the GPU's memory.
    OutOfGPUMemory = 21,
    /// Weights and KV cache do not fit the memory of the container.
    OutOfMemory = 22,
    /// A file of the checkpoint is missing, damaged, or contradicts another file.
    InvalidCheckpoint = 23,
    /// The container fails again and again, without a known reason.
    CrashLoop = 24,
    /// The replica was not ready within `startupTimeoutSeconds`.
    StartupTimeout = 25,
    /// A rollout waits because there is no room for a new pod beside the old ones.
    RolloutBlockedNoRoom = 26,
    /// The pod fits no node, for another reason than GPUs.
    Unschedulable = 27,
    /// The cache volume claim is not bound.
    VolumeNotBound = 28,
    /// The hub or the network cannot be reached.
    DownloadFailed = 29,
    /// An object with the name of a child does not belong to the ModelDeployment.
    NameTaken = 30,
    /// The kubelet cannot start the container as it is configured.
    ContainerStartFailed = 31,
    /// The API server refuses to create the pods, because of a quota or a policy.
    PodsRefused = 32,
    /// A quota of the namespace is used up.
    QuotaExceeded = 33,
    /// A webhook, a policy or an admission plugin refuses a child.
    PolicyRefused = 34,
    /// The namespace is being deleted.
    NamespaceTerminating = 35,
    /// The operator lacks a right that it needs.
    OperatorForbidden = 36,
    /// The API server could not do an operation; the operator tries it again.
    ApplyFailed = 37,
    /// Objects of a deleted ModelDeployment of the same name still exist.
    Waiting = 38,
    /// The object does not have the form of a ModelDeployment.
    Unreadable = 39,
    /// Somebody added fields to the Deployment that the ModelDeployment does not have.
    Drifted = 40,
    /// A replica was ready and does not answer its readiness probe any more.
    ReplicaUnready = 41,
    /// The node of a replica does not report any more.
    NodeLost = 42,
    /// The replica is to compute on a GPU, and its container has none that can be used.
    GPUUnavailable = 43,
    /// The GPU or its driver failed while the replica served.
    GPUFailed = 44,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The reason of a failure, what happened, and what the reader can do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Machine-readable reason.
    pub reason: Reason,
    /// What happened, with the operation and its operands.
    pub message: String,
    /// What to change; empty only if no remedy is known.
    pub remedy: String,
}

impl Failure {
    /// A failure with the given texts.
    pub fn new(reason: Reason, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// One line of JSON that fits into a termination message.
    pub fn to_termination_message(&self) -> String {
        let fitting = Failure {
            reason: self.reason,
            message: truncated(&self.message),
            remedy: truncated(&self.remedy),
        };
        serde_json::to_string(&fitting).expect("a struct of strings serializes")
    }

    /// Reads a termination message; `None` if the text is not a failure.
    pub fn from_termination_message(text: &str) -> Option<Self> {
        serde_json::from_str(text.trim()).ok()
    }

    /// Writes the termination message to `path`.
    ///
    /// # Errors
    /// When the file cannot be written, as on a machine without a kubelet.
    pub fn write_termination_message(&self, path: &Path) -> std::io::Result<()> {
        std::fs::write(path, self.to_termination_message())
    }
}

/// An error and its causes on one line, separated by colons. A cause that the line already contains is skipped: some
/// libraries repeat the cause in the error's own text.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.fold(String::new(), |line, cause| match cause.to_string() {
        known if line.contains(&known) => line,
        first if line.is_empty() => first,
        next => format!("{line}: {next}"),
    })
}

fn truncated(text: &str) -> String {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn exit_codes_are_distinct_and_unreserved() {
        let codes: BTreeSet<u8> = Reason::ALL.iter().map(|r| r.exit_code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert!(codes.iter().all(|c| (10..64).contains(c)));
    }

    #[test]
    fn termination_message_round_trips_and_fits() {
        let failure = Failure::new(Reason::DiskFull, "ä\"\n".repeat(2000), "b".repeat(5000));
        let text = failure.to_termination_message();
        assert!(text.len() <= TERMINATION_MESSAGE_BYTES_MAX, "{}", text.len());
        let back = Failure::from_termination_message(&text).unwrap();
        assert_eq!(back.reason, Reason::DiskFull);
        assert!(back.message.starts_with("ä\"\n"));
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Link {
        text: &'static str,
        #[source]
        source: Option<Box<Link>>,
    }

    #[test]
    fn a_chain_names_each_cause_once() {
        let link = |text, source: Option<Link>| Link {
            text,
            source: source.map(Box::new),
        };
        let refused = link("connection refused", None);
        let repeated = link("cannot connect: connection refused", Some(refused));
        let error = link("cannot read the Service", Some(link("gave up", Some(repeated))));
        assert_eq!(
            chain(&error),
            "cannot read the Service: gave up: cannot connect: connection refused"
        );
    }

    #[test]
    fn foreign_text_is_not_a_failure() {
        assert_eq!(Failure::from_termination_message("panicked at main.rs"), None);
        assert_eq!(
            Failure::from_termination_message(r#"{"reason":"NoSuchReason","message":"","remedy":""}"#),
            None
        );
    }
}
