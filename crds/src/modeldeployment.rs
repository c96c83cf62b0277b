//! `ModelDeployment`: one model behind one endpoint, with the requested number of replicas.
//!
//! It contains no PodSpec. Every string and list has a bound, because a real API server limits the cost of CEL rules.
//! Every field has an effect.

#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a private block"
)]

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        core::v1::{Affinity, LocalObjectReference, Toleration},
        networking::v1::NetworkPolicyPeer,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Condition},
};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_with::skip_serializing_none;

use crate::{
    keys::WakeKeys,
    schema,
    settings::{
        EngineSettings, ModelSettings, OpenaiSettings, ProcessSettings, ServingSettings, Settings,
        StreamingSettings, TokenizerSettings,
    },
};

/// Replicas at least, with `spec.autoscaling`.
pub const REPLICAS_MIN_DEFAULT: i32 = 1;
/// Share of a replica's places that the autoscaler fills, in percent.
pub const TARGET_UTILIZATION_PERCENT_DEFAULT: i32 = 70;
/// Share of the KV cache that the autoscaler fills, in percent.
pub const KV_CACHE_TARGET_PERCENT_DEFAULT: i32 = 80;
/// Seconds over which the largest need counts before the autoscaler ends replicas.
pub const SCALE_DOWN_WINDOW_SECONDS_DEFAULT: u32 = 300;
/// Seconds without a request after which the autoscaler ends all replicas, with `minReplicas: 0`.
pub const SCALE_TO_ZERO_AFTER_SECONDS_DEFAULT: u32 = 900;
/// Replicas without `spec.replicas`.
pub const REPLICAS_DEFAULT: i32 = 1;
/// Seconds from the start of a replica's engine to ready, without downloads.
pub const STARTUP_TIMEOUT_SECONDS_DEFAULT: u32 = 1200;
/// Resource name of one GPU.
pub const GPU_RESOURCE_DEFAULT: &str = "nvidia.com/gpu";
/// Key of the hub's token in its Secret.
pub const TOKEN_KEY_DEFAULT: &str = "HF_TOKEN";
/// Key of the API keys in their Secret.
pub const API_KEYS_KEY_DEFAULT: &str = "OPENAI_API_KEYS";
/// Key of the certificates in their ConfigMap.
pub const CA_BUNDLE_KEY_DEFAULT: &str = "ca.crt";
/// Largest difference of the number of pods between two domains.
pub const MAX_SKEW_DEFAULT: i32 = 1;

/// What to serve and how. Only the model is required.
#[skip_serializing_none]
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "slipway.dev",
    version = "v1alpha1",
    kind = "ModelDeployment",
    plural = "modeldeployments",
    singular = "modeldeployment",
    shortname = "mdep",
    category = "slipway",
    namespaced,
    derive = "PartialEq",
    doc = "A private OpenAI-compatible endpoint for one model.",
    status = "ModelDeploymentStatus",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#),
    printcolumn(name = "Model", type_ = "string", json_path = ".status.modelName"),
    printcolumn(name = "Replicas", type_ = "string", json_path = ".status.summary"),
    printcolumn(name = "GPU", type_ = "integer", json_path = ".spec.resources.gpu.count"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", priority = 1),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress", priority = 1),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.model.revision", priority = 1),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.runtimeImage", priority = 1),
    validation = Rule::new("!has(self.spec.caBundle) || has(self.spec.model.huggingFace)")
        .message("caBundle is for huggingFace"),
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("name: at most 40 of a-z, 0-9 and '-', a letter first; the Service has the same name")
)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentSpec {
    /// Where the weights come from, and the names of the model for clients.
    pub model: ModelSource,
    /// From text to tokens, and from messages to text.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tokenizer: TokenizerSettings,
    /// How the engine loads and runs the model.
    #[serde(default, skip_serializing_if = "is_default")]
    pub engine: EngineSettings,
    /// Number of tokens in a stream item of a job.
    #[serde(default, skip_serializing_if = "is_default")]
    pub streaming: StreamingSettings,
    /// Behaviour of the OpenAI routes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub openai: OpenaiSettings,
    /// How one replica serves.
    #[serde(default, skip_serializing_if = "is_default")]
    pub serving: ServingSettings,
    /// Settings as environment variables, with the names of worker-vllm and vLLM. The field of a setting wins over its
    /// variable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[schemars(title = "Environment variables")]
    pub env: Vec<EnvVar>,
    /// Volume for the downloaded model. If the field is removed, the claim is kept until the ModelDeployment is deleted.
    #[schemars(title = "Cache volume")]
    pub cache: Option<Cache>,
    /// CPU, memory and GPUs of one replica.
    #[schemars(title = "Resources")]
    pub resources: Option<Resources>,
    /// On which nodes replicas may run.
    #[schemars(title = "Scheduling")]
    pub scheduling: Option<Scheduling>,
    /// Labels and annotations of the pods, besides the operator's.
    #[schemars(title = "Labels and annotations of pods")]
    pub pod_metadata: Option<PodMetadata>,
    /// Users and groups of the pods.
    #[schemars(title = "User and groups of pods")]
    pub security_context: Option<SecurityContext>,
    /// Which connections to the pods the NetworkPolicy allows.
    #[schemars(title = "Network policy")]
    pub network: Option<Network>,
    /// ConfigMap with the certificates of the authorities that the download trusts, in PEM, besides the public ones.
    #[schemars(title = "Certificates")]
    pub ca_bundle: Option<CaBundle>,
    /// Number of replicas. Without effect beside `autoscaling`.
    #[serde(default = "replicas_default")]
    #[schemars(schema_with = "replicas_schema")]
    pub replicas: Option<i32>,
    /// Let the operator choose the number of replicas by their load.
    pub autoscaling: Option<Autoscaling>,
    /// How new replicas replace older ones.
    #[schemars(title = "Rollout")]
    pub rollout: Option<Rollout>,
    /// Who may send requests.
    #[schemars(title = "API keys")]
    pub auth: Option<Auth>,
    /// The image of the replicas.
    #[schemars(title = "Image")]
    pub runtime: Option<Runtime>,
    /// Longest time from the start of a replica's engine to ready, in seconds. Default: 1200.
    #[schemars(range(min = 10, max = 86400))]
    #[schemars(title = "Startup timeout in seconds")]
    pub startup_timeout_seconds: Option<u32>,
}

impl ModelDeploymentSpec {
    /// The settings in typed fields.
    pub fn settings(&self) -> Settings {
        let rollout = self.rollout.as_ref();
        Settings {
            model: self.model.settings.clone(),
            tokenizer: self.tokenizer.clone(),
            engine: self.engine.clone(),
            streaming: self.streaming.clone(),
            openai: self.openai.clone(),
            serving: self.serving.clone(),
            process: ProcessSettings {
                drain_timeout_seconds: rollout.and_then(|rollout| rollout.drain_timeout_seconds),
                ..ProcessSettings::default()
            },
        }
    }
}

#[allow(clippy::unnecessary_wraps, reason = "the field may be absent in Rust")]
fn replicas_default() -> Option<i32> {
    Some(REPLICAS_DEFAULT)
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Where the weights come from, and the names of the model for clients.
#[skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.huggingFace), has(self.pvc)].filter(x, x).size() == 1")
        .message("exactly one of huggingFace and pvc must be set"),
    validation = Rule::new("has(self.huggingFace) || !has(self.tokenSecretRef)")
        .message("tokenSecretRef is for huggingFace")
)]
pub struct ModelSource {
    /// A repository of the Hugging Face Hub or of a server with its protocol.
    #[schemars(title = "Hugging Face")]
    pub hugging_face: Option<HuggingFace>,
    /// A directory in an existing PersistentVolumeClaim, which is mounted read-only.
    #[schemars(title = "Existing volume")]
    pub pvc: Option<PvcSource>,
    /// Secret with the hub's token. It is mounted into the download container only.
    #[schemars(title = "Token of the hub")]
    pub token_secret_ref: Option<TokenSecretRef>,
    /// Names of the model for clients.
    #[serde(flatten)]
    pub settings: ModelSettings,
}

/// A repository of the Hugging Face Hub.
#[skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HuggingFace {
    /// Repository, as in `Qwen/Qwen2.5-0.5B-Instruct`.
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$')")
        .message("a repository is 'owner/name'"))]
    #[schemars(title = "Repository")]
    pub repo: String,
    /// Branch, tag or commit. The status contains the commit.
    #[schemars(length(min = 1, max = 253))]
    pub revision: Option<String>,
    /// Address of the hub, if it is not the public one.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.startsWith('http://') || self.startsWith('https://')")
        .message("an endpoint starts with http:// or https://"))]
    pub endpoint: Option<String>,
    /// Download only files that match one of these patterns (`*` and `?`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns_schema")]
    #[schemars(title = "Only these files")]
    pub allow_patterns: Vec<String>,
    /// Do not download files that match one of these patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns_schema")]
    #[schemars(title = "Not these files")]
    pub ignore_patterns: Vec<String>,
}

/// A directory in an existing claim.
#[skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PvcSource {
    /// Name of the PersistentVolumeClaim in this namespace.
    #[schemars(length(min = 1, max = 253))]
    #[schemars(title = "Claim")]
    pub claim_name: String,
    /// Directory of the volume with `config.json`. Default: its root.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.contains('..')")
        .message("a path relative to the volume's root, without '..'"))]
    #[schemars(title = "Directory")]
    pub path: Option<String>,
}

/// Secret and key of the hub's token.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TokenSecretRef {
    /// Name of the Secret in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret. Default: `HF_TOKEN`.
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// Secret and key of the API keys.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeysSecretRef {
    /// Name of the Secret in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret. Its value is one API key, or several with commas between them. Default: `OPENAI_API_KEYS`.
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

impl ApiKeysSecretRef {
    /// Key in the Secret.
    pub fn key(&self) -> &str {
        self.key.as_deref().unwrap_or(API_KEYS_KEY_DEFAULT)
    }
}

/// A variable and its value.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its value. Empty means absent.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// Volume for the downloaded model.
#[skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.type == oldSelf.type").message("cache.type cannot be changed"),
    validation = Rule::new("self.type == 'PVC' || !(has(self.storageClassName) || has(self.accessMode) || has(self.claimName) || has(self.retain))")
        .message("storageClassName, accessMode, claimName and retain are for type PVC"),
    validation = Rule::new("!has(self.claimName) || !(has(self.storageClassName) || has(self.accessMode) || has(self.size) || has(self.retain))")
        .message("an existing claim has its own size, class, access mode and lifetime")
)]
pub struct Cache {
    /// `PVC` outlives the pod and is shared by the replicas; `Ephemeral` is deleted with the pod.
    #[serde(rename = "type")]
    pub type_: CacheType,
    /// Size of the volume. Default: 100Gi for `PVC`, the node's for `Ephemeral`.
    #[serde(default)]
    #[schemars(schema_with = "optional_quantity_schema")]
    pub size: Option<Quantity>,
    /// Storage class of the claim. Default: the cluster's.
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// `ReadWriteMany` lets replicas on several nodes share the volume, if its class supports that. Default:
    /// `ReadWriteOnce`, one node.
    pub access_mode: Option<AccessMode>,
    /// Existing claim, instead of one that the operator makes.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
    /// Keep the claim when the ModelDeployment is deleted. Default: `false`.
    pub retain: Option<bool>,
}

/// Kind of cache volume.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheType {
    /// A PersistentVolumeClaim.
    #[serde(rename = "PVC")]
    Pvc,
    /// An emptyDir.
    #[default]
    Ephemeral,
}

/// Which nodes can write to a volume.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessMode {
    /// One node.
    #[default]
    ReadWriteOnce,
    /// Many nodes.
    ReadWriteMany,
}

impl AccessMode {
    /// The name Kubernetes uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            AccessMode::ReadWriteOnce => "ReadWriteOnce",
            AccessMode::ReadWriteMany => "ReadWriteMany",
        }
    }
}

/// CPU, memory and GPUs of one replica. The download has the same CPU and memory before the replica starts.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// GPUs.
    pub gpu: Option<Gpu>,
    /// Requested CPU cores.
    #[serde(default)]
    #[schemars(schema_with = "optional_quantity_schema")]
    pub cpu: Option<Quantity>,
    /// Requested memory, which is also the limit. Default: no request; a ready replica gets the limit of
    /// `status.model.memoryBytes`.
    #[serde(default)]
    #[schemars(schema_with = "optional_quantity_schema")]
    pub memory: Option<Quantity>,
    /// Limits besides memory, for namespaces whose quota requires them.
    pub limits: Option<ResourceLimits>,
}

/// Limits of one replica besides memory.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ResourceLimits {
    /// Most CPU cores. Default: no limit, so that a replica can use the idle cores of its node.
    #[serde(default)]
    #[schemars(schema_with = "optional_quantity_schema")]
    pub cpu: Option<Quantity>,
}

/// GPUs of one replica.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// Number of GPUs.
    #[schemars(range(min = 0, max = 64))]
    #[schemars(title = "Number of GPUs")]
    pub count: u32,
    /// Kubernetes' resource name of one GPU. Default: `nvidia.com/gpu`.
    #[schemars(length(min = 1, max = 253))]
    #[schemars(title = "Resource name")]
    pub resource_name: Option<String>,
    /// Required value of the node's label `nvidia.com/gpu.product`.
    #[schemars(length(min = 1, max = 63))]
    pub product: Option<String>,
}

/// On which nodes replicas may run.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels_schema")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "tolerations_schema")]
    pub tolerations: Vec<Toleration>,
    /// PriorityClass of the pods.
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// RuntimeClass of the pods.
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
    /// Affinity of the pods, as in a pod.
    #[serde(default)]
    #[schemars(schema_with = "affinity_schema")]
    pub affinity: Option<Affinity>,
    /// How the replicas are spread over nodes, zones or other domains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub topology_spread: Vec<TopologySpread>,
}

/// How the replicas of one pod template are spread over the domains of one kind.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpread {
    /// Label of the nodes whose value is the domain, such as `topology.kubernetes.io/zone` or `kubernetes.io/hostname`.
    #[schemars(length(min = 1, max = 316))]
    pub topology_key: String,
    /// Largest difference of the number of replicas between two domains. Default: 1.
    #[schemars(range(min = 1, max = 1000))]
    pub max_skew: Option<i32>,
    /// What happens to a replica that cannot be placed so. Default: `ScheduleAnyway`.
    pub when_unsatisfiable: Option<WhenUnsatisfiable>,
}

/// What happens to a replica that cannot be placed as its spread requires.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenUnsatisfiable {
    /// It runs on another node.
    #[default]
    ScheduleAnyway,
    /// It waits.
    DoNotSchedule,
}

impl WhenUnsatisfiable {
    /// The name Kubernetes uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            WhenUnsatisfiable::ScheduleAnyway => "ScheduleAnyway",
            WhenUnsatisfiable::DoNotSchedule => "DoNotSchedule",
        }
    }
}

/// Labels and annotations of the pods, besides the operator's.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PodMetadata {
    /// Labels. The operator's own cannot be set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels_schema")]
    #[x_kube(validation = Rule::new("self.all(key, !key.startsWith('slipway.dev/') && !(key in ['app.kubernetes.io/name', 'app.kubernetes.io/instance', 'app.kubernetes.io/component', 'app.kubernetes.io/part-of', 'app.kubernetes.io/managed-by']))")
        .message("the operator sets slipway.dev/* and app.kubernetes.io/name, instance, component, part-of and managed-by"))]
    pub labels: BTreeMap<String, String>,
    /// Annotations. The operator's own cannot be set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations_schema")]
    #[x_kube(validation = Rule::new("self.all(key, !key.startsWith('slipway.dev/'))")
        .message("the operator sets slipway.dev/*"))]
    pub annotations: BTreeMap<String, String>,
}

/// Users and groups of the pods. Default: those of the runtime image, 65532.
#[skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.assignedBy) || self.assignedBy != 'Platform' || !(has(self.runAsUser) || has(self.runAsGroup) || has(self.fsGroup))")
        .message("runAsUser, runAsGroup and fsGroup are for assignedBy Spec")
)]
pub struct SecurityContext {
    /// Who chooses the user and the groups. Default: `Spec`.
    pub assigned_by: Option<AssignedBy>,
    /// User of the containers; not root. Default: 65532.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_user: Option<i64>,
    /// Group of the containers. Default: 65532.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub run_as_group: Option<i64>,
    /// Group that owns the volumes. Default: 65532.
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub fs_group: Option<i64>,
}

/// Who chooses the user and the groups of the pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AssignedBy {
    /// This spec, with the runtime image's as default.
    #[default]
    Spec,
    /// The cluster, from the range of the namespace, as OpenShift does. They still do not run as root.
    Platform,
}

/// Which connections to the pods the NetworkPolicy allows.
#[skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.policy) || self.policy != 'None' || !(has(self.clients) || has(self.monitoring))")
        .message("clients and monitoring are for policy Managed")
)]
pub struct Network {
    /// Whether the operator makes a NetworkPolicy. Default: `Managed`, unless the operator was installed without
    /// policies.
    pub policy: Option<NetworkPolicyMode>,
    /// Peers that may send requests, as in a NetworkPolicy. Default: every pod of the cluster. Load balancers and nodes
    /// need their addresses here, as in `ipBlock: {cidr: 10.0.0.0/8}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "peers_schema")]
    pub clients: Vec<NetworkPolicyPeer>,
    /// Peers that may read metrics at the control port, besides the operator's namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "peers_schema")]
    pub monitoring: Vec<NetworkPolicyPeer>,
}

/// Whether the operator makes a NetworkPolicy.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkPolicyMode {
    /// It makes one.
    Managed,
    /// It makes none; other policies of the namespace decide.
    None,
}

/// ConfigMap with certificates.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// Name of the ConfigMap in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the ConfigMap. Default: `ca.crt`.
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// How the operator chooses the number of replicas by their load.
#[skip_serializing_none]
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.scaleToZeroAfterSeconds) || (has(self.minReplicas) && self.minReplicas == 0)")
        .message("scaleToZeroAfterSeconds is for minReplicas 0"),
    validation = Rule::new("(has(self.minReplicas) ? self.minReplicas : 1) <= self.maxReplicas")
        .message("minReplicas is at most maxReplicas")
)]
pub struct Autoscaling {
    /// Replicas at least. With 0, replicas end when no request comes, and a request at the gateway starts one again.
    /// Default: 1.
    #[schemars(range(min = 0, max = 1000))]
    pub min_replicas: Option<i32>,
    /// Replicas at most.
    #[schemars(range(min = 1, max = 1000))]
    pub max_replicas: i32,
    /// Share of the requests that a replica can run at the same time, in percent: fewer replicas with a higher one, and
    /// shorter queues with a lower one. Default: 70.
    #[schemars(range(min = 10, max = 100))]
    pub target_utilization_percent: Option<i32>,
    /// Share of the KV cache above which there is one more replica, in percent. Default: 80.
    #[schemars(range(min = 10, max = 100))]
    pub kv_cache_target_percent: Option<i32>,
    /// Seconds over which the largest need counts before replicas end, one each minute. Default: 300.
    #[schemars(range(min = 10, max = 86400))]
    pub scale_down_window_seconds: Option<u32>,
    /// Seconds without a request after which all replicas end, for `minReplicas: 0`. Default: 900.
    #[schemars(range(min = 10, max = 604_800))]
    pub scale_to_zero_after_seconds: Option<u32>,
}

/// How new replicas replace older ones.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Longest time for a stopping replica to finish its requests, in seconds.
    #[schemars(range(min = 0, max = 3600))]
    #[schemars(title = "Drain timeout in seconds")]
    pub drain_timeout_seconds: Option<u32>,
}

/// Who may send requests.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Secret with the API keys. A client must send one of them as a bearer token.
    #[schemars(title = "Secret with API keys")]
    pub api_keys_secret_ref: Option<ApiKeysSecretRef>,
}

/// The image of the replicas.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Runtime {
    /// Image of the runtime. Default: the operator's, when it first sees the object; the status contains it.
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// When to pull the image.
    pub pull_policy: Option<PullPolicy>,
    /// Secrets in this namespace with the credentials of the image's registry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "pull_secrets_schema")]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

/// When to pull an image.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// If the node does not have it.
    IfNotPresent,
    /// Never; the node must have it.
    Never,
}

impl PullPolicy {
    /// The name Kubernetes uses.
    pub const fn as_str(self) -> &'static str {
        match self {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        }
    }
}

/// The observed state.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentStatus {
    /// Generation of the spec that this status describes.
    pub observed_generation: Option<i64>,
    /// Summary of the conditions in one word.
    pub phase: Option<Phase>,
    /// Pods that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that are ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Pods of the current spec.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Pods that the spec requests.
    #[serde(default)]
    pub desired_replicas: i32,
    /// Label selector of the pods, for `kubectl scale` and autoscalers.
    pub selector: Option<String>,
    /// `ready/desired`.
    pub summary: Option<String>,
    /// Base URL for clients inside the cluster.
    pub url: Option<String>,
    /// First name of the model for clients.
    pub model_name: Option<String>,
    /// The model, as its files describe it.
    pub model: Option<ModelStatus>,
    /// Progress of a download or load, in one line.
    pub progress: Option<String>,
    /// Download in progress.
    pub download: Option<TransferStatus>,
    /// Load in progress.
    pub load: Option<TransferStatus>,
    /// Durations of the newest ready replica's start, and of the last few.
    pub cold_start: Option<ColdStart>,
    /// The last failure of a pod.
    pub last_failure: Option<LastFailure>,
    /// Variables of `spec.env` without effect.
    pub settings: Option<SettingsStatus>,
    /// What the autoscaler did.
    pub autoscaling: Option<AutoscalingStatus>,
    /// Which API keys may start a replica when there is none, as salted hashes. For `spec.autoscaling.minReplicas: 0`.
    pub wake_keys: Option<WakeKeys>,
    /// Image of the pods. Without `spec.runtime.image` it is the operator's default at the time when it first saw the
    /// object.
    pub runtime_image: Option<String>,
    /// Conditions with reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Summary of the conditions in one word.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for a node, an image or a volume.
    Pending,
    /// The model is being downloaded.
    Downloading,
    /// The engine loads the weights.
    Loading,
    /// Every requested replica is current and ready.
    Ready,
    /// It serves, while replicas are being changed.
    Updating,
    /// No replica runs, because none is requested or no request came.
    ScaledToZero,
    /// It does not serve as specified, and needs a change by a person.
    Failed,
}

/// The model, as its files describe it.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelStatus {
    /// Commit of the revision.
    pub revision: Option<String>,
    /// Architecture in its `config.json`.
    pub architecture: Option<String>,
    /// Size of its weights in bytes.
    pub bytes: Option<i64>,
    /// Longest context in tokens.
    pub max_model_len: Option<i64>,
    /// Memory that a replica takes at most, in bytes. It is the memory limit of replicas without `resources.memory`.
    pub memory_bytes: Option<i64>,
}

/// Progress of a download or load.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TransferStatus {
    /// Pod that reports it.
    pub pod: String,
    /// Bytes that are done.
    pub bytes_done: i64,
    /// Bytes of the complete transfer.
    pub bytes_total: i64,
    /// Percentage that is done, 0 to 100.
    pub percent: i32,
    /// Recent bytes per second.
    pub rate_per_second: Option<i64>,
    /// Remaining seconds at that rate.
    pub eta_seconds: Option<i64>,
}

/// The newest start of a replica, and the last few.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ColdStart {
    /// The newest start.
    #[serde(flatten)]
    pub last: StartTimes,
    /// The median of each step of the last starts.
    pub p50: Option<StartTimes>,
    /// The last starts, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<RecentStart>,
}

/// One start.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct RecentStart {
    /// Pod.
    pub pod: String,
    /// When it was ready.
    pub time: String,
    /// Its durations.
    #[serde(flatten)]
    pub times: StartTimes,
}

/// Durations of a start, in seconds.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StartTimes {
    /// From the creation of the pod to its node.
    pub scheduled_seconds: i64,
    /// From there to the first container, with volumes and the pull of images.
    #[serde(default)]
    pub image_seconds: i64,
    /// From there to the end of the download.
    pub download_seconds: i64,
    /// From there to ready.
    pub load_seconds: i64,
    /// The sum.
    pub total_seconds: i64,
}

/// The last failure of a pod.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LastFailure {
    /// Pod.
    pub pod: String,
    /// Container.
    pub container: Option<String>,
    /// Cause.
    pub reason: String,
    /// Exit code of the container.
    pub exit_code: Option<i32>,
    /// What happened.
    pub message: String,
    /// What to change.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// When.
    pub time: Option<String>,
}

/// What the autoscaler did.
#[skip_serializing_none]
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct AutoscalingStatus {
    /// When it changed the number of replicas last.
    pub last_scale_time: Option<String>,
    /// Its last changes, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<ScalingStatus>,
}

/// One change of the number of replicas.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ScalingStatus {
    /// When.
    pub time: String,
    /// Replicas before.
    pub from: i32,
    /// Replicas after.
    pub to: i32,
    /// Why: `Arrivals`, `Saturation`, `KvCache`, `LessLoad`, `Idle`, `HeldRequests` or `Limits`.
    pub reason: String,
    /// The figures that led to it.
    pub message: String,
}

/// Variables of `spec.env` without effect.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SettingsStatus {
    /// Recognised; without effect in this engine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<String>,
    /// Unknown to Slipway; passed to the container unchanged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

const QUANTITY_PATTERN: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

fn optional_quantity_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "maxLength": 32,
        "nullable": true,
        "pattern": QUANTITY_PATTERN,
        "x-kubernetes-int-or-string": true
    })
}

fn patterns_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "array", "maxItems": 64, "items": {"type": "string", "minLength": 1, "maxLength": 253}
    })
}

fn replicas_schema(_: &mut SchemaGenerator) -> Schema {
    // With its default, and not null: `/scale` can be read only if the field has a value.
    schemars::json_schema!({
        "type": "integer", "format": "int32", "minimum": 0, "maximum": 1000
    })
}

fn labels_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "object", "maxProperties": 32, "additionalProperties": {"type": "string", "maxLength": 63}
    })
}

fn annotations_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "object", "maxProperties": 32, "additionalProperties": {"type": "string", "maxLength": 4096}
    })
}

fn tolerations_schema(_: &mut SchemaGenerator) -> Schema {
    list_of(schema::bounded::<Toleration>(), 32)
}

fn affinity_schema(_: &mut SchemaGenerator) -> Schema {
    Schema::try_from(schema::bounded::<Affinity>()).expect("the schema of an object")
}

fn peers_schema(_: &mut SchemaGenerator) -> Schema {
    list_of(schema::bounded::<NetworkPolicyPeer>(), 32)
}

fn pull_secrets_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "array", "maxItems": 16,
        "items": {"type": "object", "required": ["name"], "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 253}
        }}
    })
}

fn list_of(item: Value, n_max: usize) -> Schema {
    schemars::json_schema!({"type": "array", "maxItems": n_max, "items": item})
}
