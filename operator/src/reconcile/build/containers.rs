//! The two containers of a pod: `fetch`, which downloads the model, and `runtime`, which serves it.
//!
//! Knows the runtime's commands, flags and routes.

use std::collections::BTreeMap;

use crds::startup;
use k8s_openapi::{
    api::core::v1::{
        Capabilities, ConfigMapKeySelector, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction,
        Probe, ResourceRequirements, SecretKeySelector, SecurityContext, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, util::intstr::IntOrString},
};

use crate::{
    names::{
        API_KEYS_DIR, API_KEYS_FILE, API_KEYS_VOLUME, CA_BUNDLE_DIR, CA_BUNDLE_FILE, CA_BUNDLE_VOLUME,
        CONFIG_DIR, CONFIG_FILE, CONFIG_VOLUME, CONTROL_PORT, CONTROL_PORT_NAME, FETCH_CONTAINER, LIVE_PATH,
        MODELS_DIR, MODELS_VOLUME, Names, READY_PATH, RUNTIME_CONTAINER, SERVE_PORT, SERVE_PORT_NAME,
        TMP_DIR, TMP_VOLUME,
    },
    reconcile::plan::{CacheVolume, Hub, Plan, SecretKey},
};

/// Every address of the pod, of both families.
const EVERY_ADDRESS: &str = "::";
/// After this time every node's proxy has removed a pod that is not ready from its Service.
const SHUTDOWN_DELAY_SECONDS: u32 = 5;
const STARTUP_PERIOD_SECONDS: u32 = 2;
/// CPU that the download requests, if the replica requests none.
const FETCH_CPU: &str = "10m";
/// Memory that the download requests, if the replica requests none: it writes to the disk through bounded buffers.
const FETCH_MEMORY: &str = "64Mi";

/// Memory limit of the check of a new spec, page cache included.
const CHECK_MEMORY_MAX: &str = "512Mi";

pub(super) fn fetch(plan: &Plan, hub: &Hub) -> Container {
    let mut args: Vec<String> = vec!["fetch".into()];
    let mut flag = |name: &str, value: &str| args.extend([name.to_string(), escaped(value)]);
    flag("--destination", &plan.model_dir);
    flag("--progress-listen", &format!("[{EVERY_ADDRESS}]:{CONTROL_PORT}"));
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
    // Others may write to a claim that the operator did not make.
    if matches!(hub.cache, CacheVolume::Existing { .. }) {
        args.push("--verify-contents".into());
    }
    let ca_file = format!("{CA_BUNDLE_DIR}/{CA_BUNDLE_FILE}");
    let own = [
        Some(plain_env("MODEL_NAME", &hub.repository.repo)),
        Some(plain_env("MODEL_REVISION", &hub.repository.revision)),
        Some(commit_env(plan)),
        hub.endpoint.as_ref().map(|url| plain_env("HF_ENDPOINT", url)),
        hub.ca_bundle
            .as_ref()
            .map(|_| plain_env("SSL_CERT_FILE", &ca_file)),
        hub.token.as_ref().map(|token| secret_env("HF_TOKEN", token)),
    ];
    let mut mounts = vec![mount(MODELS_VOLUME, MODELS_DIR), mount(TMP_VOLUME, TMP_DIR)];
    if hub.ca_bundle.is_some() {
        mounts.push(read_only(CA_BUNDLE_VOLUME, CA_BUNDLE_DIR));
    }
    Container {
        args: Some(args),
        env: Some(env(plan, own.into_iter().flatten())),
        ports: Some(vec![container_port(CONTROL_PORT_NAME, CONTROL_PORT)]),
        resources: Some(fetch_resources(plan)),
        volume_mounts: Some(mounts),
        ..container(plan, FETCH_CONTAINER)
    }
}

pub(super) fn runtime(plan: &Plan) -> Container {
    let mut args: Vec<String> = vec!["serve".into()];
    let mut flag = |name: &str, value: &str| args.extend([name.to_string(), escaped(value)]);
    flag("--model", &plan.model_dir);
    flag("--config", &format!("{CONFIG_DIR}/{CONFIG_FILE}"));
    flag("--host", EVERY_ADDRESS);
    flag("--port", &SERVE_PORT.to_string());
    flag("--control-port", &CONTROL_PORT.to_string());
    flag("--shutdown-delay-seconds", &SHUTDOWN_DELAY_SECONDS.to_string());
    let mut mounts = vec![
        read_only(MODELS_VOLUME, MODELS_DIR),
        read_only(CONFIG_VOLUME, CONFIG_DIR),
        mount(TMP_VOLUME, TMP_DIR),
    ];
    if plan.api_keys.is_some() {
        flag("--api-keys-file", &format!("{API_KEYS_DIR}/{API_KEYS_FILE}"));
        mounts.push(read_only(API_KEYS_VOLUME, API_KEYS_DIR));
    }
    let env = env(plan, std::iter::empty());
    Container {
        args: Some(args),
        env: (!env.is_empty()).then_some(env),
        ports: Some(vec![
            container_port(SERVE_PORT_NAME, SERVE_PORT),
            container_port(CONTROL_PORT_NAME, CONTROL_PORT),
        ]),
        resources: Some(runtime_resources(plan)),
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
        volume_mounts: Some(mounts),
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

type Quantities = BTreeMap<String, Quantity>;

/// Requests and limits of CPU and memory. Memory is both. CPU is a request, and a limit only if the spec sets one, so
/// that a replica can use the idle cores of its node.
fn requests_and_limits(plan: &Plan) -> (Quantities, Quantities) {
    let named = |quantities: [(&str, &Option<Quantity>); 2]| {
        let present = quantities
            .into_iter()
            .filter_map(|(name, quantity)| Some((name.to_string(), quantity.clone()?)));
        present.collect()
    };
    (
        named([("cpu", &plan.cpu), ("memory", &plan.memory)]),
        named([("cpu", &plan.cpu_limit), ("memory", &plan.memory)]),
    )
}

/// What a replica requests, without GPUs. It costs nothing: a pod counts as the larger of its download and its runtime.
fn fetch_resources(plan: &Plan) -> ResourceRequirements {
    let (mut requests, limits) = requests_and_limits(plan);
    for (name, quantity) in [("cpu", FETCH_CPU), ("memory", FETCH_MEMORY)] {
        let is_limited = limits.contains_key(name);
        if !is_limited {
            requests
                .entry(name.into())
                .or_insert_with(|| Quantity(quantity.into()));
        }
    }
    requirements(requests, limits)
}

/// What the download and a look at the configuration take. Limits are there only where those of a replica are, because
/// a quota may require them.
pub(super) fn check_resources(plan: &Plan) -> ResourceRequirements {
    let quantity = |name: &str, value: &str| (name.to_string(), Quantity(value.into()));
    let (_, mut limits) = requests_and_limits(plan);
    for (name, limit) in &mut limits {
        if name == "memory" {
            *limit = Quantity(CHECK_MEMORY_MAX.into());
        }
    }
    let requests = Quantities::from([quantity("cpu", FETCH_CPU), quantity("memory", FETCH_MEMORY)]);
    requirements(requests, limits)
}

/// GPUs are limits, as Kubernetes requires.
fn runtime_resources(plan: &Plan) -> ResourceRequirements {
    let (requests, mut limits) = requests_and_limits(plan);
    if let Some(gpu) = &plan.gpu {
        limits.insert(gpu.resource_name.clone(), Quantity(gpu.count.to_string()));
    }
    requirements(requests, limits)
}

fn requirements(requests: Quantities, limits: Quantities) -> ResourceRequirements {
    ResourceRequirements {
        requests: (!requests.is_empty()).then_some(requests),
        limits: (!limits.is_empty()).then_some(limits),
        ..ResourceRequirements::default()
    }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: name.into(),
        mount_path: path.into(),
        ..VolumeMount::default()
    }
}

fn read_only(name: &str, path: &str) -> VolumeMount {
    VolumeMount {
        read_only: Some(true),
        ..mount(name, path)
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

fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String(CONTROL_PORT_NAME.into()),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

/// The user's variables and the operator's, which win.
fn env(plan: &Plan, own: impl Iterator<Item = EnvVar>) -> Vec<EnvVar> {
    let user = plan.env.iter().map(|(name, value)| plain_env(name, value));
    let by_name: BTreeMap<String, EnvVar> = user.chain(own).map(|env| (env.name.clone(), env)).collect();
    by_name.into_values().collect()
}

fn plain_env(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: Some(escaped(value)),
        ..EnvVar::default()
    }
}

/// Kubernetes replaces `$(NAME)` and `$$` in arguments and variables; a user's text has no such meaning.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

/// The commit that the first pods have downloaded, if there are such pods. It is not part of the template, because it
/// becomes known later.
fn commit_env(plan: &Plan) -> EnvVar {
    EnvVar {
        name: "MODEL_COMMIT".into(),
        value_from: Some(EnvVarSource {
            config_map_key_ref: Some(ConfigMapKeySelector {
                name: Names::of(&plan.name).commit,
                key: plan.source_key().into(),
                optional: Some(true),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
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
