//! [`Plan`]: what has to exist, with every default resolved and every value checked.
//!
//! Types only. `validate` makes a plan, or a [`Refusal`], from the spec; the later steps read these and never the spec.

use std::collections::BTreeMap;

use crds::{
    failure::Failure,
    modeldeployment::{AccessMode, PodMetadata, PullPolicy, Scheduling, SettingsStatus},
};
use k8s_openapi::{
    api::networking::v1::NetworkPolicyPeer,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference},
    jiff::SignedDuration,
};
use serde_json::{Map, Value};

use crate::autoscaler::Autoscaled;

/// What has to exist: the spec with every default resolved and every value checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Name of the ModelDeployment, and of most children.
    pub name: String,
    /// Namespace of all of them.
    pub namespace: String,
    /// The ModelDeployment as owner.
    pub owner: OwnerReference,
    /// Number of replicas.
    pub replicas: i32,
    /// The autoscaler's decision, if the number is its.
    pub autoscaled: Option<Autoscaled>,
    /// Whether the autoscaler may end all replicas.
    pub may_be_at_zero: bool,
    /// The image that serves.
    pub image: Image,
    /// Where the model comes from.
    pub source: Source,
    /// Directory of the model inside the container.
    pub model_dir: String,
    /// The name of the model in requests; the first one, if the settings name several.
    pub served_name: String,
    /// Repository of the tokenizer, if it is not the model's own.
    pub tokenizer: Option<Repository>,
    /// The runtime's configuration file: flag names and values.
    pub config: Map<String, Value>,
    /// Variables of `spec.env` that are not settings; the containers get them unchanged.
    pub env: BTreeMap<String, String>,
    /// GPUs of one replica; `None` on the CPU.
    pub gpu: Option<Gpus>,
    /// CPU cores of one replica.
    pub cpu: Option<Quantity>,
    /// Most CPU cores of one replica.
    pub cpu_limit: Option<Quantity>,
    /// Memory of one replica.
    pub memory: Option<Quantity>,
    /// The nodes on which replicas may run.
    pub scheduling: Scheduling,
    /// Labels and annotations of the pods, besides the operator's.
    pub pod_metadata: PodMetadata,
    /// User and groups of the pods.
    pub identity: Identity,
    /// Which connections the NetworkPolicy allows; `None` if there is no policy.
    pub network: Option<Connections>,
    /// Secret with the API keys.
    pub api_keys: Option<SecretKey>,
    /// Longest drain of a stopping replica.
    pub drain_timeout_seconds: u32,
    /// Longest time from the engine's start to ready.
    pub startup_timeout_seconds: u32,
    /// In which order a rollout starts and ends pods.
    pub pod_order: PodOrder,
    /// Whether a Job downloads the model before the first pod.
    pub prefetch: Prefetch,
    /// The nodes that the model's volume allows.
    pub volume_reach: VolumeReach,
    /// The variables of `spec.env` that have no effect or are unknown, for the status.
    pub settings: SettingsStatus,
    /// Notes on settings without effect, for the `Accepted` condition.
    pub notes: Vec<String>,
    /// Namespace of the operator, if it runs in the cluster.
    pub operator_namespace: Option<String>,
}

impl Plan {
    /// Name of the download's source: equal for equal repositories, revisions and patterns. It is the last part of the
    /// model's directory.
    pub fn source_key(&self) -> &str {
        self.model_dir.rsplit('/').next().unwrap_or(&self.model_dir)
    }

    /// Replicas that may exist now.
    pub fn replicas_now(&self) -> i32 {
        match self.prefetch {
            Prefetch::Running | Prefetch::Outdated => 0,
            Prefetch::NotNeeded | Prefetch::Done => self.replicas,
        }
    }

    /// Whether a Job reads the spec before pods do.
    pub fn has_check(&self) -> bool {
        self.pod_order == PodOrder::CheckFirst || matches!(self.prefetch, Prefetch::Running | Prefetch::Done)
    }

    /// Longest time from the engine's start to ready.
    pub fn startup_timeout(&self) -> SignedDuration {
        SignedDuration::from_secs(i64::from(self.startup_timeout_seconds))
    }

    /// Longest drain of a stopping replica.
    pub fn drain_timeout(&self) -> SignedDuration {
        SignedDuration::from_secs(i64::from(self.drain_timeout_seconds))
    }
}

/// A spec that cannot be honoured. The children stay as they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Replicas that the spec requests all the same; the status shows them.
    pub replicas: i32,
    /// Why, with a remedy.
    pub failure: Failure,
}

/// The image that serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Its reference.
    pub reference: String,
    /// The image of a spec that names none. It is fixed when the operator first sees the ModelDeployment.
    pub default: String,
    /// When to pull it; `None` is Kubernetes' default.
    pub pull_policy: Option<PullPolicy>,
    /// Names of the Secrets with the credentials of its registry.
    pub pull_secrets: Vec<String>,
}

/// User and groups of the pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Identity {
    /// These.
    Fixed {
        /// User of the containers.
        user: i64,
        /// Group of the containers.
        group: i64,
        /// Group that owns the volumes.
        fs_group: i64,
    },
    /// Those that the cluster assigns.
    Platform,
}

/// Which connections to the pods the NetworkPolicy allows.
#[derive(Clone, Debug, PartialEq)]
pub struct Connections {
    /// Peers that may send requests; `None` means every pod of the cluster.
    pub clients: Option<Vec<NetworkPolicyPeer>>,
    /// Peers that may read metrics, besides the operator.
    pub monitoring: Vec<NetworkPolicyPeer>,
}

/// A repository of the hub at one revision.
#[derive(Clone, Debug, PartialEq)]
pub struct Repository {
    /// `owner/name`.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
}

/// Where the model comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A repository that is downloaded.
    Hub(Box<Hub>),
    /// A claim that already has the files.
    Claim {
        /// The claim.
        name: String,
    },
}

/// A download.
#[derive(Clone, Debug, PartialEq)]
pub struct Hub {
    /// Repository and revision.
    pub repository: Repository,
    /// Address of the hub if it is not the public one.
    pub endpoint: Option<String>,
    /// Commit of the revision, if pods of this ModelDeployment already have it: later pods get the same.
    pub commit: Option<String>,
    /// Patterns of the files to download.
    pub allow_patterns: Vec<String>,
    /// Patterns of the files not to download.
    pub ignore_patterns: Vec<String>,
    /// Secret with the token.
    pub token: Option<SecretKey>,
    /// ConfigMap with the certificates of further authorities.
    pub ca_bundle: Option<ConfigMapKey>,
    /// Where the files are kept.
    pub cache: CacheVolume,
}

/// Where downloaded files are kept.
#[derive(Clone, Debug, PartialEq)]
pub enum CacheVolume {
    /// In a volume that is deleted with the pod.
    Ephemeral {
        /// Largest size.
        size: Option<Quantity>,
    },
    /// In a claim that the operator makes.
    Own {
        /// Requested size.
        size: Quantity,
        /// Storage class; `None` is the cluster's default.
        storage_class: Option<String>,
        /// Whether one node or many can write to it.
        access_mode: AccessMode,
        /// What happens to it when the ModelDeployment is deleted.
        lifetime: ClaimLifetime,
    },
    /// In a claim that the user made.
    Existing {
        /// The claim.
        name: String,
    },
}

/// What happens to a claim when its ModelDeployment is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimLifetime {
    /// It is deleted too.
    Owned,
    /// It stays.
    Retained,
}

/// A key of a Secret.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretKey {
    /// Name of the Secret.
    pub name: String,
    /// Key in it.
    pub key: String,
}

/// A key of a ConfigMap.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigMapKey {
    /// Name of the ConfigMap.
    pub name: String,
    /// Key in it.
    pub key: String,
}

/// GPUs of one replica.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpus {
    /// Number of GPUs, at least one.
    pub count: u32,
    /// Kubernetes' resource name of one GPU.
    pub resource_name: String,
    /// Value that the node's label for the GPU product must have.
    pub product: Option<String>,
}

/// In which order a rollout starts and ends pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodOrder {
    /// A new pod is ready before an old one ends.
    NewFirst,
    /// As `NewFirst`, but there is no room for a new pod, so a Job checks the new spec without the pod's resources.
    CheckFirst,
    /// There is no room for a new pod, and the new spec is checked: an old pod ends before a new one starts.
    OldFirst,
}

/// How far the download before the first pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefetch {
    /// Pods download the model themselves, or it is there.
    NotNeeded,
    /// A Job of another spec must end first.
    Outdated,
    /// A Job downloads it.
    Running,
    /// The Job has downloaded it; the first pod has not said so yet.
    Done,
}

/// The nodes that can mount the model's volume at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VolumeReach {
    /// All of them.
    EveryNode,
    /// One, so that all replicas must run on it.
    OneNode,
}
