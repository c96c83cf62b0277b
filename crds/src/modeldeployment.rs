//! `ModelDeployment`: one model, one endpoint, as many replicas as asked for.
//!
//! No PodSpec inside. Every string and list has a bound, so that the cost of the CEL rules passes a real API
//! server. The schema holds only fields that have an effect.

#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each struct inside a private block"
)]

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::Toleration,
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Condition},
};
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::settings::{
    EngineSettings, ModelSettings, OpenaiSettings, ProcessSettings, ServingSettings, Settings,
    StreamingSettings, TokenizerSettings,
};

/// Replicas if the spec names none.
pub const REPLICAS_DEFAULT: i32 = 1;
/// Seconds a replica may take from start to ready, downloads not counted.
pub const STARTUP_TIMEOUT_SECONDS_DEFAULT: u32 = 1200;
/// Resource name of one GPU.
pub const GPU_RESOURCE_DEFAULT: &str = "nvidia.com/gpu";
/// Key of a Secret that holds the hub's token.
pub const TOKEN_KEY_DEFAULT: &str = "HF_TOKEN";
/// Key of a Secret that holds the API keys, one or a comma list.
pub const API_KEYS_KEY_DEFAULT: &str = "OPENAI_API_KEYS";

/// What to serve and how. Everything but the model has a sensible default.
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
    validation = Rule::new("size(self.metadata.name) <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("name: at most 40 of a-z, 0-9 and '-', a letter first; it becomes the name of the Service")
)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentSpec {
    /// Where the weights come from and what clients call them.
    pub model: ModelSource,
    /// Text to tokens, and messages to text.
    #[serde(default, skip_serializing_if = "is_default")]
    pub tokenizer: TokenizerSettings,
    /// How the engine loads and runs the model. Absent means the engine's default.
    #[serde(default, skip_serializing_if = "is_default")]
    pub engine: EngineSettings,
    /// How many tokens a stream item of a job holds.
    #[serde(default, skip_serializing_if = "is_default")]
    pub streaming: StreamingSettings,
    /// What the OpenAI routes answer.
    #[serde(default, skip_serializing_if = "is_default")]
    pub openai: OpenaiSettings,
    /// How one replica serves.
    #[serde(default, skip_serializing_if = "is_default")]
    pub serving: ServingSettings,
    /// Settings as environment variables, with the names of worker-vllm and vLLM. A field above wins over
    /// the variable of the same setting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    #[x_kube(validation = Rule::new("self.all(e, !(e.name in ['HOST', 'PORT', 'MODEL_NAME', 'MODEL_REVISION', 'HF_TOKEN', 'API_KEY', 'OPENAI_API_KEYS', 'VLLM_API_KEY', 'SSL_CERTFILE', 'SSL_KEYFILE', 'SSL_CA_CERTS', 'DRAIN_TIMEOUT_SECONDS']))")
        .message("HOST and PORT are the operator's, and TLS is the gateway's; the model is spec.model.huggingFace, the hub token spec.model.tokenSecretRef, API keys spec.auth.apiKeysSecretRef, the drain timeout spec.rollout.drainTimeoutSeconds"))]
    pub env: Vec<EnvVar>,
    /// Volume that keeps the downloaded model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// What one replica gets of a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// On which nodes replicas may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduling: Option<Scheduling>,
    /// Number of replicas. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: Option<i32>,
    /// How new replicas replace older ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// Who may ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<Auth>,
    /// The image that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// Longest time from the start of a replica's engine to ready, in seconds. Default: 1200.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86400))]
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

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Where the weights come from and what clients call them.
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugging_face: Option<HuggingFace>,
    /// A directory of an existing PersistentVolumeClaim. It is mounted read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvc: Option<PvcSource>,
    /// Secret with the hub's token. It is mounted into the download container only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<TokenSecretRef>,
    /// What clients call the model.
    #[serde(flatten)]
    pub settings: ModelSettings,
}

/// A repository of the Hugging Face Hub.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HuggingFace {
    /// Repository, as in `Qwen/Qwen2.5-0.5B-Instruct`.
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$')")
        .message("a repository is 'owner/name'"))]
    pub repo: String,
    /// Branch, tag or commit. The status contains the commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub revision: Option<String>,
    /// Address of the hub, if it is not the public one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.startsWith('http://') || self.startsWith('https://')")
        .message("an endpoint starts with http:// or https://"))]
    pub endpoint: Option<String>,
    /// Download only files that match one of these patterns (`*` and `?`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns_schema")]
    pub allow_patterns: Vec<String>,
    /// Do not download files that match one of these patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "patterns_schema")]
    pub ignore_patterns: Vec<String>,
}

/// A directory of an existing claim.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PvcSource {
    /// Name of the PersistentVolumeClaim in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: String,
    /// Directory in the volume that holds `config.json`. Default: its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.contains('..')")
        .message("a path relative to the volume's root, without '..'"))]
    pub path: Option<String>,
}

/// Key of a Secret with the hub's token.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TokenSecretRef {
    /// Name of the Secret in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret. Default: `HF_TOKEN`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// Key of a Secret with the API keys.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeysSecretRef {
    /// Name of the Secret in this namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in the Secret; its value is one API key or a comma list. Default: `OPENAI_API_KEYS`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
}

/// A variable and its value.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Name of the variable.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its value; an empty one counts as absent.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// Volume that keeps the downloaded model.
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
    /// `PVC` survives the pod and is shared by replicas; `Ephemeral` goes with the pod.
    #[serde(rename = "type")]
    pub type_: CacheType,
    /// Size of the volume. Default: 100Gi for `PVC`, the node's for `Ephemeral`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_quantity_schema")]
    pub size: Option<Quantity>,
    /// Storage class of the claim. Default: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// `ReadWriteMany` lets replicas on several nodes share the volume, if the class can do it. Default:
    /// ReadWriteOnce, one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<AccessMode>,
    /// Existing claim to use instead of one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub claim_name: Option<String>,
    /// Keep the claim when the ModelDeployment is deleted. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
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

/// From how many nodes a volume is written.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessMode {
    /// From one.
    #[default]
    ReadWriteOnce,
    /// From many.
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

/// What one replica gets of a node.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// GPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// CPU cores asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_quantity_schema")]
    pub cpu: Option<Quantity>,
    /// Memory asked for, which is also the limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_quantity_schema")]
    pub memory: Option<Quantity>,
}

/// GPUs of one replica.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// How many.
    #[schemars(range(min = 0, max = 64))]
    pub count: u32,
    /// Resource name of one. Default: `nvidia.com/gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub resource_name: Option<String>,
    /// Value that the node's label `nvidia.com/gpu.product` must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub product: Option<String>,
}

/// On which nodes replicas may run.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// Labels a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels_schema")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that are tolerated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "tolerations_schema")]
    pub tolerations: Vec<Toleration>,
    /// PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// RuntimeClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
}

/// How new replicas replace older ones.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Longest time a stopping replica may take to finish its requests, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 3600))]
    pub drain_timeout_seconds: Option<u32>,
}

/// Who may ask.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Secret with the API keys; a client must present one of them as a bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_keys_secret_ref: Option<ApiKeysSecretRef>,
}

/// The image that serves.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Runtime {
    /// Image of the runtime. Default: the one the operator was installed with, kept in the status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub image: Option<String>,
    /// When to pull it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,
}

/// When to pull an image.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// At every start.
    Always,
    /// If the node does not have it.
    IfNotPresent,
    /// The node must have it.
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

/// What is there, observed and not wished for.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentStatus {
    /// Generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One word for where things stand, derived from the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Pods that exist.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that answer.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Pods of the current spec.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Pods that the spec asks for.
    #[serde(default)]
    pub desired_replicas: i32,
    /// Label selector of the pods, for `kubectl scale` and autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// `ready/desired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Base URL for clients inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// First name under which clients ask for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// The model as it was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelStatus>,
    /// One line on a download or load that is going on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// Download that is going on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub download: Option<TransferStatus>,
    /// Load that is going on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<TransferStatus>,
    /// How long the newest ready replica took to start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<ColdStart>,
    /// The last failure of a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
    /// What became of variables in `spec.env` that are not honoured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingsStatus>,
    /// Image that serves, pinned when the ModelDeployment was first seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_image: Option<String>,
    /// Truths with reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// One word for where things stand.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for a node, an image or a volume.
    Pending,
    /// The model is being downloaded.
    Downloading,
    /// The engine reads the weights.
    Loading,
    /// Everything asked for is there.
    Ready,
    /// It answers, while something is being changed.
    Updating,
    /// Nothing runs because nothing is asked for.
    ScaledToZero,
    /// It does not answer as asked, and will not by itself.
    Failed,
}

/// The model as it was found.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelStatus {
    /// Commit that the revision stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Architecture that its configuration names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub architecture: Option<String>,
    /// Size of its weights in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// Longest context in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_model_len: Option<i64>,
}

/// Bytes under way.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TransferStatus {
    /// Pod that reports it.
    pub pod: String,
    /// Bytes done.
    pub bytes_done: i64,
    /// Bytes in all.
    pub bytes_total: i64,
    /// Share done, 0 to 100.
    pub percent: i32,
    /// Bytes per second, lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<i64>,
    /// Seconds to go at that rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<i64>,
}

/// Where the time of a start went, in seconds.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ColdStart {
    /// From the pod's creation to a node.
    pub scheduled_seconds: i64,
    /// From there to the end of the download, the images included.
    pub download_seconds: i64,
    /// From there to ready.
    pub load_seconds: i64,
    /// All of it.
    pub total_seconds: i64,
}

/// The last failure of a pod.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct LastFailure {
    /// Pod.
    pub pod: String,
    /// Container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Cause.
    pub reason: String,
    /// Exit code of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What happened.
    pub message: String,
    /// What to change.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
}

/// Variables in `spec.env` that are not honoured.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SettingsStatus {
    /// Recognised, without effect in this engine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<String>,
    /// Unknown to Slipway; passed to the container as they are.
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

fn labels_schema(_: &mut SchemaGenerator) -> Schema {
    schemars::json_schema!({
        "type": "object", "maxProperties": 32, "additionalProperties": {"type": "string", "maxLength": 63}
    })
}

fn tolerations_schema(_: &mut SchemaGenerator) -> Schema {
    let text = serde_json::json!({"type": "string", "maxLength": 253});
    schemars::json_schema!({
        "type": "array", "maxItems": 32,
        "items": {"type": "object", "properties": {
            "key": text, "operator": {"type": "string", "enum": ["Exists", "Equal"]}, "value": text,
            "effect": {"type": "string", "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
            "tolerationSeconds": {"type": "integer", "format": "int64"}
        }}
    })
}
