//! Every name, label, annotation, port and path of a child, and the names under which the operator itself writes.
//!
//! Names only. Imports no other file of the crate.

use crds::ModelDeployment;
use kube::{ResourceExt, api::ObjectMeta};

/// The field manager of everything that the operator writes.
pub const FIELD_MANAGER: &str = "slipway-operator";

/// The field manager of the number of replicas, where the operator writes it without the rest of the Deployment.
pub const REPLICAS_MANAGER: &str = "slipway-replicas";

/// Label of every child and pod; its value is the name of the ModelDeployment. It selects the pods.
pub const OWNER_LABEL: &str = "slipway.dev/model-deployment";
/// Annotation of a pod: the hash of the template that it was made from.
pub const TEMPLATE_HASH: &str = "slipway.dev/template-hash";
/// Label of the pods of the Job that checks a new spec; its value is the name of the ModelDeployment.
pub const CHECK_LABEL: &str = "slipway.dev/check-of";
/// Annotation of a child: the hash of what the operator applied.
pub const APPLIED_HASH: &str = "slipway.dev/applied-hash";
/// Label of a pod, its ReplicaSet and its ConfigMap: the hash of the configuration file.
pub const CONFIG_HASH: &str = "slipway.dev/config-hash";
/// Annotation of the Deployment: the image of a spec that names none.
pub const DEFAULT_IMAGE: &str = "slipway.dev/default-image";
/// Annotation of the Deployment, and of the ConfigMap with the commit: the source of the model.
pub const SOURCE: &str = "slipway.dev/source";
/// Annotation of the ConfigMap with the commit: the commit.
pub const COMMIT: &str = "slipway.dev/commit";
/// Label that every tool knows: the name of the program.
pub const NAME_LABEL: &str = "app.kubernetes.io/name";
/// Label that every tool knows: the name of this instance of the program.
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
/// Label that every tool knows: the part of the application.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// Label that every tool knows: the application.
pub const PART_OF_LABEL: &str = "app.kubernetes.io/part-of";
/// Label that every tool knows: who manages the object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// The labels of every child, besides those of this project.
const OWN_LABELS: [&str; 5] = [
    NAME_LABEL,
    INSTANCE_LABEL,
    COMPONENT_LABEL,
    PART_OF_LABEL,
    MANAGED_BY_LABEL,
];
/// Label of a node with its GPU's product; the GPU operator sets it.
pub const GPU_PRODUCT_LABEL: &str = "nvidia.com/gpu.product";
/// Label of every node with its own name.
pub const NODE_NAME_LABEL: &str = "kubernetes.io/hostname";
/// Label of every namespace with its own name.
pub const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// The init container that downloads the model.
pub const FETCH_CONTAINER: &str = "fetch";
/// The container that serves the model.
pub const RUNTIME_CONTAINER: &str = "runtime";

/// Port on which both containers answer the kubelet, the operator and Prometheus.
pub const CONTROL_PORT: u16 = 8001;
/// Name of [`CONTROL_PORT`].
pub const CONTROL_PORT_NAME: &str = "control";
/// Port on which the runtime serves.
pub const SERVE_PORT: u16 = 8000;
/// Name of [`SERVE_PORT`] and of the Service's port.
pub const SERVE_PORT_NAME: &str = "http";
/// Port of the Service.
pub const SERVICE_PORT: u16 = 80;

/// Path that answers 200 while a replica takes requests.
pub const READY_PATH: &str = "/readyz";
/// Path that answers 200 while a replica can make progress.
pub const LIVE_PATH: &str = "/livez";

/// Volume with the model's files.
pub const MODELS_VOLUME: &str = "models";
/// Where [`MODELS_VOLUME`] is mounted.
pub const MODELS_DIR: &str = "/models";
/// Directory below the model's, for a tokenizer from another repository.
pub const TOKENIZER_DIR: &str = "tokenizer";
/// Volume with the runtime's configuration file.
pub const CONFIG_VOLUME: &str = "config";
/// Where [`CONFIG_VOLUME`] is mounted.
pub const CONFIG_DIR: &str = "/etc/slipway/config";
/// The configuration file: the key of the ConfigMap, and the file's name in [`CONFIG_DIR`].
pub const CONFIG_FILE: &str = "config.yaml";
/// Volume with the API keys.
pub const API_KEYS_VOLUME: &str = "api-keys";
/// Where [`API_KEYS_VOLUME`] is mounted.
pub const API_KEYS_DIR: &str = "/etc/slipway/api-keys";
/// The file with the API keys in [`API_KEYS_DIR`].
pub const API_KEYS_FILE: &str = "keys";
/// Volume with the certificates of further authorities.
pub const CA_BUNDLE_VOLUME: &str = "ca-bundle";
/// Where [`CA_BUNDLE_VOLUME`] is mounted.
pub const CA_BUNDLE_DIR: &str = "/etc/slipway/ca-bundle";
/// The file with the certificates in [`CA_BUNDLE_DIR`].
pub const CA_BUNDLE_FILE: &str = "ca.crt";
/// Volume for temporary files.
pub const TMP_VOLUME: &str = "tmp";
/// Where [`TMP_VOLUME`] is mounted.
pub const TMP_DIR: &str = "/tmp";

/// Names of the children of one ModelDeployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Service, Deployment, ServiceAccount and NetworkPolicy.
    pub main: String,
    /// ConfigMaps with configuration files, before the hash of each.
    pub config_map: String,
    /// ConfigMap with the commit of the model's revision.
    pub commit: String,
    /// The claim of a cache that the ModelDeployment owns.
    pub claim: String,
    /// The Job that checks a new spec.
    pub check: String,
}

impl Names {
    /// The names for the ModelDeployment `name`.
    pub fn of(name: &str) -> Self {
        Self {
            main: name.to_string(),
            config_map: format!("{name}-config"),
            commit: format!("{name}-commit"),
            claim: format!("{name}-cache"),
            check: format!("{name}-check"),
        }
    }
}

/// Whether the operator sets this label of pods.
pub fn is_own_label(key: &str) -> bool {
    is_own_annotation(key) || OWN_LABELS.contains(&key)
}

/// Whether the operator sets this annotation of pods.
pub fn is_own_annotation(key: &str) -> bool {
    key.starts_with("slipway.dev/")
}

/// Base URL for clients inside the cluster.
pub fn url(object: &ModelDeployment) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("http://{}.{namespace}.svc/v1", object.name_any())
}

/// Label selector of the pods of the ModelDeployment `name`.
pub fn pod_selector(name: &str) -> String {
    format!("{OWNER_LABEL}={name}")
}

/// Label selector of the pods that check a new spec of the ModelDeployment `name`.
pub fn check_selector(name: &str) -> String {
    format!("{CHECK_LABEL}={name}")
}

/// The hash of the pod template, read from the annotations of a pod or of a template.
pub fn template_hash(metadata: &ObjectMeta) -> Option<&str> {
    Some(metadata.annotations.as_ref()?.get(TEMPLATE_HASH)?.as_str())
}
