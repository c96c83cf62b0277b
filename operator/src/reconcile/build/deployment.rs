//! The Deployment of the pods: an init container that downloads the model, and the runtime that serves it.
//!
//! A change of the pod template restarts every model, so the template depends on the plan alone, never on the
//! operator's version. A test keeps the hashes of the templates of all examples.

use std::collections::BTreeMap;

use crds::startup;
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource,
            EnvVar, EnvVarSource, HTTPGetAction, PersistentVolumeClaimVolumeSource, PodAffinity,
            PodAffinityTerm, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements,
            SeccompProfile, SecretKeySelector, SecurityContext, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use kube::api::ObjectMeta;

use super::{config_map, labels, metadata, selector_labels};
use crate::{
    names::{
        CONFIG_DIR, CONFIG_FILE, CONFIG_HASH, CONFIG_VOLUME, FETCH_CONTAINER, FETCH_PORT, FETCH_PORT_NAME,
        GPU_PRODUCT_LABEL, LIVE_PATH, MODELS_DIR, MODELS_VOLUME, NODE_NAME_LABEL, Names, READY_PATH,
        RUNTIME_CONTAINER, SERVE_PORT, SERVE_PORT_NAME, TEMPLATE_HASH, TMP_DIR, TMP_VOLUME,
    },
    reconcile::plan::{CacheVolume, Hub, Plan, PodOrder, SecretKey, Source, VolumeReach},
};

const HASH_CHARS: usize = 16;
/// User and group of the runtime image.
const USER: i64 = 65532;
/// After this time every node's proxy has removed a pod that is not ready from its Service.
const SHUTDOWN_DELAY_SECONDS: u32 = 5;
/// Time to stop a pod on top of its drain, the shutdown delay included.
const GRACE_SECONDS: u32 = 15;
const STARTUP_PERIOD_SECONDS: u32 = 2;
/// A download that takes longer counts as a stuck rollout: a day.
const DOWNLOAD_SECONDS_MAX: u32 = 86_400;
/// Old templates that a user can go back to.
const REVISIONS_KEPT: i32 = 3;
/// CPU that the download container requests.
const FETCH_CPU: &str = "100m";
/// Memory that the download container requests: it writes to the disk through bounded buffers.
const FETCH_MEMORY: &str = "128Mi";
/// Memory limit of the download container, which includes the page cache.
const FETCH_MEMORY_MAX: &str = "1Gi";

pub(crate) fn build(plan: &Plan) -> Deployment {
    let (surge, unavailable) = match plan.pod_order {
        PodOrder::NewFirst | PodOrder::CheckFirst => (1, 0),
        PodOrder::OldFirst => (0, 1),
    };
    Deployment {
        metadata: metadata(plan, Names::of(&plan.name).main),
        spec: Some(DeploymentSpec {
            replicas: Some(plan.replicas),
            revision_history_limit: Some(REVISIONS_KEPT),
            progress_deadline_seconds: Some((plan.startup_timeout_seconds + DOWNLOAD_SECONDS_MAX) as i32),
            selector: LabelSelector {
                match_labels: Some(selector_labels(plan)),
                ..LabelSelector::default()
            },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(surge)),
                    max_unavailable: Some(IntOrString::Int(unavailable)),
                }),
            }),
            template: template(plan),
            // Written, so that a rollout that somebody paused goes on.
            paused: Some(false),
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

pub(super) fn template(plan: &Plan) -> PodTemplateSpec {
    let config_hash = hash(config_map::text(plan).as_bytes());
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels(plan)),
            annotations: Some(BTreeMap::from([(CONFIG_HASH.to_string(), config_hash)])),
            ..ObjectMeta::default()
        }),
        spec: Some(pod(plan)),
    };
    let bytes = serde_json::to_vec(&template).expect("a pod template serializes");
    let annotations = template
        .metadata
        .as_mut()
        .and_then(|metadata| metadata.annotations.as_mut());
    annotations
        .expect("set above")
        .insert(TEMPLATE_HASH.into(), hash(&bytes));
    template
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..HASH_CHARS].to_string()
}

fn pod(plan: &Plan) -> PodSpec {
    let scheduling = plan.scheduling.clone();
    let mut node_selector = scheduling.node_selector;
    if let Some(product) = plan.gpu.as_ref().and_then(|gpu| gpu.product.clone()) {
        node_selector.insert(GPU_PRODUCT_LABEL.into(), product);
    }
    let fetch = match &plan.source {
        Source::Hub(hub) => Some(vec![fetch_container(plan, hub)]),
        Source::Claim { .. } => None,
    };
    PodSpec {
        init_containers: fetch,
        containers: vec![runtime_container(plan)],
        volumes: Some(volumes(plan)),
        service_account_name: Some(Names::of(&plan.name).main),
        automount_service_account_token: Some(false),
        // A Service named "max" would set MAX_PORT and the like, and the runtime reads variables as settings.
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(i64::from(plan.drain_timeout_seconds + GRACE_SECONDS)),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        node_selector: (!node_selector.is_empty()).then_some(node_selector),
        tolerations: (!scheduling.tolerations.is_empty()).then_some(scheduling.tolerations),
        priority_class_name: scheduling.priority_class_name,
        runtime_class_name: scheduling.runtime_class_name,
        affinity: beside_other_replicas(plan),
        ..PodSpec::default()
    }
}

/// Replicas that share a volume of one node run beside each other, so that a rollout can start a new pod while an old one
/// serves. The scheduler does not apply the rule to the first of them.
fn beside_other_replicas(plan: &Plan) -> Option<Affinity> {
    let term = PodAffinityTerm {
        label_selector: Some(LabelSelector {
            match_labels: Some(selector_labels(plan)),
            ..LabelSelector::default()
        }),
        topology_key: NODE_NAME_LABEL.into(),
        ..PodAffinityTerm::default()
    };
    (plan.volume_reach == VolumeReach::OneNode).then(|| Affinity {
        pod_affinity: Some(PodAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![term]),
            ..PodAffinity::default()
        }),
        ..Affinity::default()
    })
}

fn fetch_container(plan: &Plan, hub: &Hub) -> Container {
    let mut args: Vec<String> = vec!["fetch".into()];
    let mut flag = |name: &str, value: &str| args.extend([name.to_string(), value.to_string()]);
    flag("--destination", &plan.model_dir);
    flag("--progress-listen", &format!("0.0.0.0:{FETCH_PORT}"));
    for pattern in &hub.allow_patterns {
        flag("--allow-pattern", pattern);
    }
    for pattern in &hub.ignore_patterns {
        flag("--ignore-pattern", pattern);
    }
    if let Some(tokenizer) = &plan.tokenizer {
        flag("--tokenizer-repo", &tokenizer.repo);
        flag("--tokenizer-revision", &tokenizer.revision);
    }
    let mut env = plan.env.clone();
    env.insert("MODEL_NAME".into(), hub.repository.repo.clone());
    env.insert("MODEL_REVISION".into(), hub.repository.revision.clone());
    if let Some(endpoint) = &hub.endpoint {
        env.insert("HF_ENDPOINT".into(), endpoint.clone());
    }
    let mut env = plain_env(env);
    env.extend(hub.token.as_ref().map(|token| secret_env("HF_TOKEN", token)));
    let quantity = |text: &str| Quantity(text.into());
    Container {
        args: Some(args),
        env: Some(env),
        ports: Some(vec![container_port(FETCH_PORT_NAME, FETCH_PORT)]),
        resources: Some(ResourceRequirements {
            requests: Some(BTreeMap::from([
                ("cpu".to_string(), quantity(FETCH_CPU)),
                ("memory".to_string(), quantity(FETCH_MEMORY)),
            ])),
            limits: Some(BTreeMap::from([(
                "memory".to_string(),
                quantity(FETCH_MEMORY_MAX),
            )])),
            ..ResourceRequirements::default()
        }),
        volume_mounts: Some(vec![mount(MODELS_VOLUME, MODELS_DIR), mount(TMP_VOLUME, TMP_DIR)]),
        ..container(plan, FETCH_CONTAINER)
    }
}

fn runtime_container(plan: &Plan) -> Container {
    let args = [
        "serve",
        "--model",
        &plan.model_dir,
        "--config",
        &format!("{CONFIG_DIR}/{}", CONFIG_FILE),
        "--host",
        "0.0.0.0",
        "--port",
        &SERVE_PORT.to_string(),
        "--shutdown-delay-seconds",
        &SHUTDOWN_DELAY_SECONDS.to_string(),
    ];
    let mut env = plain_env(plan.env.clone());
    env.extend(
        plan.api_keys
            .as_ref()
            .map(|keys| secret_env("OPENAI_API_KEYS", keys)),
    );
    Container {
        args: Some(args.map(str::to_string).to_vec()),
        env: (!env.is_empty()).then_some(env),
        ports: Some(vec![container_port(SERVE_PORT_NAME, SERVE_PORT)]),
        resources: Some(resources(plan)),
        startup_probe: Some(Probe {
            period_seconds: Some(STARTUP_PERIOD_SECONDS as i32),
            failure_threshold: Some(plan.startup_timeout_seconds.div_ceil(STARTUP_PERIOD_SECONDS) as i32),
            ..probe(startup::PATH)
        }),
        readiness_probe: Some(Probe {
            period_seconds: Some(2),
            ..probe(READY_PATH)
        }),
        liveness_probe: Some(Probe {
            period_seconds: Some(10),
            failure_threshold: Some(6),
            ..probe(LIVE_PATH)
        }),
        volume_mounts: Some(vec![
            VolumeMount {
                read_only: Some(true),
                ..mount(MODELS_VOLUME, MODELS_DIR)
            },
            VolumeMount {
                read_only: Some(true),
                ..mount(CONFIG_VOLUME, CONFIG_DIR)
            },
            mount(TMP_VOLUME, TMP_DIR),
        ]),
        ..container(plan, RUNTIME_CONTAINER)
    }
}

/// The common part of both containers.
fn container(plan: &Plan, name: &str) -> Container {
    Container {
        name: name.into(),
        image: Some(plan.image.reference.clone()),
        image_pull_policy: plan.image.pull_policy.map(|policy| policy.as_str().into()),
        termination_message_path: Some("/dev/termination-log".into()),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// Requests and limits of the runtime. Memory is both. CPU is only a request, so that the runtime can use the idle
/// cores of its node. GPUs are limits, as Kubernetes requires.
fn resources(plan: &Plan) -> ResourceRequirements {
    let mut requests = BTreeMap::new();
    let mut limits = BTreeMap::new();
    if let Some(cpu) = &plan.cpu {
        requests.insert("cpu".to_string(), cpu.clone());
    }
    if let Some(memory) = &plan.memory {
        requests.insert("memory".to_string(), memory.clone());
        limits.insert("memory".to_string(), memory.clone());
    }
    if let Some(gpu) = &plan.gpu {
        limits.insert(gpu.resource_name.clone(), Quantity(gpu.count.to_string()));
    }
    ResourceRequirements {
        requests: (!requests.is_empty()).then_some(requests),
        limits: (!limits.is_empty()).then_some(limits),
        ..ResourceRequirements::default()
    }
}

fn volumes(plan: &Plan) -> Vec<Volume> {
    let models = match &plan.source {
        Source::Claim { name } => claim_volume(name, Access::ReadOnly),
        Source::Hub(hub) => match &hub.cache {
            CacheVolume::Existing { name } => claim_volume(name, Access::ReadWrite),
            CacheVolume::Own { .. } => claim_volume(&Names::of(&plan.name).claim, Access::ReadWrite),
            CacheVolume::Ephemeral { size } => Volume {
                empty_dir: Some(EmptyDirVolumeSource {
                    size_limit: size.clone(),
                    ..EmptyDirVolumeSource::default()
                }),
                ..Volume::default()
            },
        },
    };
    vec![
        Volume {
            name: MODELS_VOLUME.into(),
            ..models
        },
        Volume {
            name: CONFIG_VOLUME.into(),
            config_map: Some(ConfigMapVolumeSource {
                name: Names::of(&plan.name).config_map,
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: TMP_VOLUME.into(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        },
    ]
}

/// How the pods use a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    ReadOnly,
    ReadWrite,
}

fn claim_volume(name: &str, access: Access) -> Volume {
    Volume {
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: name.into(),
            read_only: (access == Access::ReadOnly).then_some(true),
        }),
        ..Volume::default()
    }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        ..VolumeMount::default()
    }
}

fn container_port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: i32::from(number),
        protocol: Some("TCP".into()),
        ..ContainerPort::default()
    }
}

fn get(path: &str) -> HTTPGetAction {
    HTTPGetAction {
        path: Some(path.into()),
        port: IntOrString::String(SERVE_PORT_NAME.into()),
        ..HTTPGetAction::default()
    }
}

fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(get(path)),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

fn plain_env(variables: BTreeMap<String, String>) -> Vec<EnvVar> {
    variables
        .into_iter()
        .map(|(name, value)| EnvVar {
            name,
            value: Some(value),
            ..EnvVar::default()
        })
        .collect()
}

fn secret_env(variable: &str, secret: &SecretKey) -> EnvVar {
    EnvVar {
        name: variable.into(),
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.name.clone(),
                key: secret.key.clone(),
                ..SecretKeySelector::default()
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}
