//! Checks the spec against the observed state and makes a [`Plan`] from it, or a [`Refusal`] with a remedy.
//!
//! Pure. The last step that reads the spec.

use std::collections::BTreeMap;

use crds::{
    ModelDeployment, ModelDeploymentSpec,
    failure::{Failure, Reason},
    modeldeployment::{
        AccessMode, AssignedBy, CA_BUNDLE_KEY_DEFAULT, Cache, CacheType, GPU_RESOURCE_DEFAULT, HuggingFace,
        NetworkPolicyMode, PodMetadata, REPLICAS_DEFAULT, REPLICAS_MIN_DEFAULT,
        STARTUP_TIMEOUT_SECONDS_DEFAULT, SettingsStatus, TOKEN_KEY_DEFAULT,
    },
    settings::{Layer, ProcessSettings, SettingError, Settings, Variable, variable, without_effect},
    wake::Known,
};
use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference};
use kube::{Resource, ResourceExt, api::ObjectMeta};
use serde_json::{Map, Value};

use super::{
    observed::{Observed, Ownership},
    plan::{
        CacheVolume, ClaimLifetime, ConfigMapKey, Connections, Gpus, Hub, Identity, Image, Plan, PodOrder,
        Prefetch, Refusal, Repository, SecretKey, Source, VolumeReach,
    },
};
use crate::{
    context::Installation,
    names::{
        COMMIT, DEFAULT_IMAGE, MODELS_DIR, Names, SOURCE, TOKENIZER_DIR, is_own_annotation, is_own_label,
    },
};

/// Size of a cache claim, if the spec does not set it.
const CLAIM_SIZE_DEFAULT: &str = "100Gi";
/// Name of `spec.env` in error messages.
const ENV_LAYER: &str = "spec.env";
/// User and group of the runtime image.
const USER_DEFAULT: i64 = 65532;

/// Resolves and checks the spec.
///
/// # Errors
/// A refusal with a remedy, when the spec cannot be honoured as it is.
pub fn plan(
    object: &ModelDeployment,
    observed: &Observed,
    installation: &Installation,
) -> Result<Plan, Refusal> {
    // The one place that decides how many replicas there are.
    let replicas = replicas(&object.spec, observed);
    let refuse = |failure| Refusal { replicas, failure };
    check_names(object, observed).map_err(refuse)?;
    let spec = &object.spec;
    let mut source = source(spec).map_err(refuse)?;
    let Read {
        settings,
        report,
        ineffective,
    } = read_settings(spec).map_err(refuse)?;
    let pod_metadata = pod_metadata(spec).map_err(refuse)?;
    let model_dir = model_dir(spec, &source);
    if let Source::Hub(hub) = &mut source {
        hub.commit = commit(object, observed, &model_dir);
    }
    let tokenizer = tokenizer(&settings, &source).map_err(refuse)?;
    let served_name = served_name(object, &settings);
    let gpu = gpus(spec);
    let resources = spec.resources.clone().unwrap_or_default();
    Ok(Plan {
        name: object.name_any(),
        namespace: object.namespace().unwrap_or_default(),
        owner: owner(object),
        replicas,
        autoscaled: observed.autoscaled.clone().filter(|_| spec.autoscaling.is_some()),
        may_be_at_zero: may_be_at_zero(spec),
        image: image(object, observed, installation),
        config: config(
            settings,
            &served_name,
            tokenizer.is_some().then_some(model_dir.as_str()),
        ),
        env: passed_env(spec, &report.unknown),
        pod_order: PodOrder::NewFirst,
        prefetch: Prefetch::NotNeeded,
        volume_reach: volume_reach(&source, observed),
        notes: notes(spec, &report, &ineffective)
            .into_iter()
            .chain(kept_claim(object, &source, observed))
            .chain(unused_cache(spec, &source))
            .chain(unused_replicas(spec))
            .chain(kept_replica(object, installation))
            .collect(),
        source,
        model_dir,
        served_name,
        tokenizer,
        gpu,
        cpu: resources.cpu,
        cpu_limit: resources.limits.and_then(|limits| limits.cpu),
        memory: resources.memory,
        scheduling: spec.scheduling.clone().unwrap_or_default(),
        pod_metadata,
        identity: identity(spec),
        network: connections(spec, installation),
        api_keys: api_keys(spec),
        drain_timeout_seconds: drain_timeout_seconds(spec),
        startup_timeout_seconds: spec
            .startup_timeout_seconds
            .unwrap_or(STARTUP_TIMEOUT_SECONDS_DEFAULT),
        settings: report,
        operator_namespace: installation.namespace.clone(),
    })
}

/// The number of the spec, or the autoscaler's within the limits of the spec.
fn replicas(spec: &ModelDeploymentSpec, observed: &Observed) -> i32 {
    let Some(autoscaling) = &spec.autoscaling else {
        return spec.replicas.unwrap_or(REPLICAS_DEFAULT).max(0);
    };
    let replicas_min = autoscaling.min_replicas.unwrap_or(REPLICAS_MIN_DEFAULT);
    let decided = observed
        .autoscaled
        .as_ref()
        .map(|autoscaled| autoscaled.decision.replicas);
    let replicas_max = autoscaling.max_replicas.max(replicas_min);
    let first = replicas_min.max(1);
    decided.unwrap_or(first).clamp(replicas_min, replicas_max)
}

fn may_be_at_zero(spec: &ModelDeploymentSpec) -> bool {
    let autoscaling = spec.autoscaling.as_ref();
    autoscaling.is_some_and(|autoscaling| autoscaling.min_replicas == Some(0))
}

/// A note on a replica that the spec does not request and that stays all the same.
fn kept_replica(object: &ModelDeployment, installation: &Installation) -> Option<String> {
    let why = match object.spec.autoscaling.as_ref()?.min_replicas {
        Some(0) if installation.gateway_service.is_none() => {
            "there is no gateway that could start the first one for a request; install the chart with gateway.enabled"
        }
        Some(0) if object.wake_keys() == Known::Nobody => {
            "no replica of this version's image has reported the API keys that may start the first one"
        }
        Some(_) | None => return None,
    };
    Some(format!(
        "one replica stays although spec.autoscaling.minReplicas is 0, because {why}"
    ))
}

/// A note on a number of replicas beside autoscaling. The schema's default cannot be told from a written 1.
fn unused_replicas(spec: &ModelDeploymentSpec) -> Option<String> {
    let is_written = spec.replicas.is_some_and(|replicas| replicas != REPLICAS_DEFAULT);
    (is_written && spec.autoscaling.is_some()).then(|| {
        "spec.replicas has no effect, because spec.autoscaling decides; another autoscaler or kubectl scale needs a spec \
         without it"
            .into()
    })
}

fn api_keys(spec: &ModelDeploymentSpec) -> Option<SecretKey> {
    let secret = spec.auth.as_ref()?.api_keys_secret_ref.as_ref()?;
    Some(SecretKey {
        name: secret.name.clone(),
        key: secret.key().into(),
    })
}

fn drain_timeout_seconds(spec: &ModelDeploymentSpec) -> u32 {
    spec.settings().process.drain_timeout_seconds()
}

/// Refuses the names of objects that somebody else owns: the operator never takes an object over.
fn check_names(object: &ModelDeployment, observed: &Observed) -> Result<(), Failure> {
    match observed.live.first(object, Ownership::Foreign) {
        None => Ok(()),
        Some(taken) => Err(Failure::new(
            Reason::NameTaken,
            format!("{taken} already exists and does not belong to this ModelDeployment"),
            "rename the ModelDeployment, or delete the other object",
        )),
    }
}

/// The ModelDeployment as the owner of its children. A foreground deletion of it waits for them.
fn owner(object: &ModelDeployment) -> OwnerReference {
    OwnerReference {
        block_owner_deletion: Some(true),
        ..object.controller_owner_ref(&()).unwrap_or_default()
    }
}

/// The image of the spec, else the default. The Deployment has the default of the time when it was made; the status has
/// it too, in case the Deployment was deleted.
fn image(object: &ModelDeployment, observed: &Observed, installation: &Installation) -> Image {
    let runtime = object.spec.runtime.clone().unwrap_or_default();
    let deployment = observed
        .live
        .ours(object, "Deployment", &Names::of(&object.name_any()).main);
    let pinned = match deployment {
        Some(live) => annotation(live, DEFAULT_IMAGE),
        None if runtime.image.is_none() => object
            .status
            .as_ref()
            .and_then(|status| status.runtime_image.clone()),
        None => None,
    };
    let for_gpus = installation.runtime_cuda_image.as_ref();
    let installed = for_gpus
        .filter(|_| gpus(&object.spec).is_some())
        .unwrap_or(&installation.runtime_image);
    let default = pinned.unwrap_or_else(|| installed.clone());
    Image {
        reference: runtime.image.unwrap_or_else(|| default.clone()),
        default,
        pull_policy: runtime.pull_policy,
        pull_secrets: runtime
            .image_pull_secrets
            .into_iter()
            .map(|secret| secret.name)
            .collect(),
    }
}

fn annotation(live: &ObjectMeta, name: &str) -> Option<String> {
    live.annotations.as_ref()?.get(name).cloned()
}

/// The commit that the first pods of this source have downloaded. A ConfigMap has it; before that, the status of the
/// pods has it.
fn commit(object: &ModelDeployment, observed: &Observed, model_dir: &str) -> Option<String> {
    let names = Names::of(&object.name_any());
    let is_of_source = |live: &&ObjectMeta| {
        annotation(live, SOURCE).is_some_and(|source| model_dir.ends_with(&format!("/{source}")))
    };
    let recorded = observed.live.ours(object, "ConfigMap", &names.commit);
    let deployment = observed.live.ours(object, "Deployment", &names.main);
    let reported = || {
        deployment.filter(is_of_source)?;
        object.status.as_ref()?.model.as_ref()?.revision.clone()
    };
    recorded
        .filter(is_of_source)
        .and_then(|live| annotation(live, COMMIT))
        .or_else(reported)
}

/// Refuses labels and annotations that the operator sets itself.
fn pod_metadata(spec: &ModelDeploymentSpec) -> Result<PodMetadata, Failure> {
    let metadata = spec.pod_metadata.clone().unwrap_or_default();
    let labels = metadata.labels.keys().filter(|key| is_own_label(key));
    let annotations = metadata.annotations.keys().filter(|key| is_own_annotation(key));
    let refused: Vec<&str> = labels.chain(annotations).map(String::as_str).collect();
    if refused.is_empty() {
        return Ok(metadata);
    }
    Err(Failure::new(
        Reason::InvalidSetting,
        format!(
            "spec.podMetadata sets {}, which the operator sets",
            refused.join(", ")
        ),
        "remove it from spec.podMetadata",
    ))
}

fn identity(spec: &ModelDeploymentSpec) -> Identity {
    let context = spec.security_context.clone().unwrap_or_default();
    match context.assigned_by.unwrap_or_default() {
        AssignedBy::Platform => Identity::Platform,
        AssignedBy::Spec => Identity::Fixed {
            user: context.run_as_user.unwrap_or(USER_DEFAULT),
            group: context.run_as_group.unwrap_or(USER_DEFAULT),
            fs_group: context.fs_group.unwrap_or(USER_DEFAULT),
        },
    }
}

/// The spec's part of the NetworkPolicy, completed by the installation's.
fn connections(spec: &ModelDeploymentSpec, installation: &Installation) -> Option<Connections> {
    let network = spec.network.clone().unwrap_or_default();
    let installed = installation.network.clone();
    match network.policy.or(installed.policy) {
        Some(NetworkPolicyMode::None) => None,
        Some(NetworkPolicyMode::Managed) | None => Some(Connections {
            clients: [network.clients, installed.clients]
                .into_iter()
                .find(|peers| !peers.is_empty()),
            monitoring: [network.monitoring, installed.monitoring].concat(),
        }),
    }
}

fn source(spec: &ModelDeploymentSpec) -> Result<Source, Failure> {
    match (&spec.model.hugging_face, &spec.model.pvc) {
        (Some(hub), None) => Ok(Source::Hub(Box::new(Hub {
            repository: Repository {
                repo: hub.repo.clone(),
                revision: revision(hub),
            },
            endpoint: hub.endpoint.clone(),
            commit: None,
            allow_patterns: hub.allow_patterns.clone(),
            ignore_patterns: hub.ignore_patterns.clone(),
            token: spec.model.token_secret_ref.as_ref().map(|secret| SecretKey {
                name: secret.name.clone(),
                key: secret.key.clone().unwrap_or_else(|| TOKEN_KEY_DEFAULT.into()),
            }),
            ca_bundle: spec.ca_bundle.as_ref().map(|bundle| ConfigMapKey {
                name: bundle.name.clone(),
                key: bundle.key.clone().unwrap_or_else(|| CA_BUNDLE_KEY_DEFAULT.into()),
            }),
            cache: cache(spec.cache.as_ref()),
        }))),
        (None, Some(claim)) => Ok(Source::Claim {
            name: claim.claim_name.clone(),
        }),
        _ => Err(Failure::new(
            Reason::InvalidSetting,
            "spec.model must have exactly one source",
            "set exactly one of spec.model.huggingFace and spec.model.pvc",
        )),
    }
}

fn revision(hub: &HuggingFace) -> String {
    let process = ProcessSettings {
        model_revision: hub.revision.clone(),
        ..ProcessSettings::default()
    };
    process.model_revision()
}

fn cache(cache: Option<&Cache>) -> CacheVolume {
    let Some(cache) = cache else {
        return CacheVolume::Ephemeral { size: None };
    };
    match (cache.type_, &cache.claim_name) {
        (CacheType::Ephemeral, _) => CacheVolume::Ephemeral {
            size: cache.size.clone(),
        },
        (CacheType::Pvc, Some(name)) => CacheVolume::Existing { name: name.clone() },
        (CacheType::Pvc, None) => CacheVolume::Own {
            size: cache
                .size
                .clone()
                .unwrap_or_else(|| Quantity(CLAIM_SIZE_DEFAULT.into())),
            storage_class: cache.storage_class_name.clone(),
            access_mode: cache.access_mode.unwrap_or_default(),
            lifetime: match cache.retain {
                Some(true) => ClaimLifetime::Retained,
                _ => ClaimLifetime::Owned,
            },
        },
    }
}

/// `/models/<name>-<hash>` for a download, so that different downloads in a shared cache have different directories.
fn model_dir(spec: &ModelDeploymentSpec, source: &Source) -> String {
    match source {
        Source::Hub(hub) => {
            let repository = &hub.repository;
            let mut hasher = blake3::Hasher::new();
            let endpoint = hub.endpoint.clone().unwrap_or_default();
            let parts = [&repository.repo, &repository.revision, &endpoint];
            for part in parts
                .into_iter()
                .chain(&hub.allow_patterns)
                .chain(&hub.ignore_patterns)
            {
                hasher.update(part.as_bytes()).update(&[0]);
            }
            let hash = hasher.finalize().to_hex();
            let short = repository.repo.rsplit('/').next().unwrap_or(&repository.repo);
            format!("{MODELS_DIR}/{short}-{}", &hash[..8])
        }
        Source::Claim { .. } => match spec.model.pvc.as_ref().and_then(|claim| claim.path.as_deref()) {
            Some(path) => format!("{MODELS_DIR}/{}", path.trim_matches('/')),
            None => MODELS_DIR.into(),
        },
    }
}

struct Read {
    settings: Settings,
    report: SettingsStatus,
    /// What has no effect beside the other settings, as `(name, reason)`.
    ineffective: Vec<(String, &'static str)>,
}

/// Merges the typed fields over `spec.env`, and reports each variable that has no effect or is unknown.
fn read_settings(spec: &ModelDeploymentSpec) -> Result<Read, Failure> {
    let variables = || spec.env.iter().map(|env| (env.name.clone(), env.value.clone()));
    let mut env = Layer::from_env(ENV_LAYER, variables()).map_err(refusal)?;
    env.drop_ignored();
    let from_env = Settings::merge(std::slice::from_ref(&env));
    if from_env.process != Default::default() {
        return Err(Failure::new(
            Reason::InvalidSetting,
            "spec.env sets a variable that has its own field in the spec",
            "set spec.model.huggingFace, spec.model.tokenSecretRef, spec.auth.apiKeysSecretRef or \
             spec.rollout.drainTimeoutSeconds; the operator sets HOST and PORT",
        ));
    }
    let layers = [Layer::from_settings("spec", &spec.settings()), env];
    let mut settings = Settings::merge(&layers);
    settings.process.drain_timeout_seconds = Some(drain_timeout_seconds(spec));
    let mut report = SettingsStatus::default();
    for env in spec.env.iter().filter(|env| !env.value.is_empty()) {
        if without_effect(&env.name, &env.value).is_some() {
            report.accepted.push(env.name.clone());
        } else if matches!(variable(&env.name, &env.value), Variable::Unknown) {
            report.unknown.push(env.name.clone());
        }
    }
    let ineffective = Settings::ineffective(&layers);
    report
        .accepted
        .extend(ineffective.iter().map(|(name, _)| name.clone()));
    Ok(Read {
        settings,
        report,
        ineffective,
    })
}

fn refusal(error: SettingError) -> Failure {
    let (reason, remedy) = match &error {
        SettingError::NotInThisVersion { setting, instead, .. } => (
            Reason::InvalidSetting,
            format!("for {setting} in spec.env: {instead}"),
        ),
        SettingError::Empty { setting, .. } => (
            Reason::InvalidSetting,
            format!("give {setting} a value, or remove it from spec.env"),
        ),
        SettingError::Invalid { setting, .. } => (Reason::InvalidSetting, format!("correct {setting}")),
        SettingError::Contradiction { first, second, .. } => (
            Reason::InvalidSetting,
            format!("remove one of {first} and {second}"),
        ),
        SettingError::Unknown { setting, .. } => (Reason::InvalidSetting, format!("remove {setting}")),
        SettingError::NotAMap { .. } => (Reason::InvalidSetting, "write the settings as a map".into()),
    };
    Failure::new(reason, error.to_string(), remedy)
}

/// One note per reason, with all variables that it is true of.
fn notes(
    spec: &ModelDeploymentSpec,
    report: &SettingsStatus,
    ineffective: &[(String, &'static str)],
) -> Vec<String> {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let accepted = spec.env.iter().filter(|env| report.accepted.contains(&env.name));
    for (env, why) in accepted.filter_map(|env| Some((env, without_effect(&env.name, &env.value)?))) {
        by_reason.entry(why).or_default().push(&env.name);
    }
    for (name, why) in ineffective {
        by_reason.entry(why).or_default().push(name);
    }
    let notes = by_reason.into_iter();
    notes
        .map(|(why, names)| format!("without effect: {} ({why})", names.join(", ")))
        .collect()
}

/// A note on the claim of a cache that the spec no longer requests. The operator never deletes data.
fn kept_claim(object: &ModelDeployment, source: &Source, observed: &Observed) -> Option<String> {
    let is_requested = match source {
        Source::Hub(hub) => matches!(hub.cache, CacheVolume::Own { .. }),
        Source::Claim { .. } => false,
    };
    let name = Names::of(&object.name_any()).claim;
    let live = observed.live.ours(object, "PersistentVolumeClaim", &name);
    live.filter(|_| !is_requested).map(|_| {
        format!("the claim {name} is kept and not used; delete it with kubectl delete pvc {name}, or set spec.cache again")
    })
}

/// A note on a cache beside a model that is not downloaded.
fn unused_cache(spec: &ModelDeploymentSpec, source: &Source) -> Option<String> {
    let is_unused = spec.cache.is_some() && matches!(source, Source::Claim { .. });
    is_unused.then(|| {
        "spec.cache has no effect, because the model of spec.model.pvc is not downloaded; remove it".into()
    })
}

fn passed_env(spec: &ModelDeploymentSpec, unknown: &[String]) -> BTreeMap<String, String> {
    spec.env
        .iter()
        .filter(|env| unknown.contains(&env.name))
        .map(|env| (env.name.clone(), env.value.clone()))
        .collect()
}

/// The repository of the tokenizer, if the settings name one.
fn tokenizer(settings: &Settings, source: &Source) -> Result<Option<Repository>, Failure> {
    let Some(repo) = settings.tokenizer.tokenizer.clone() else {
        return Ok(None);
    };
    let is_directory = repo.starts_with(['/', '.']);
    match source {
        Source::Hub(_) if !is_directory => Ok(Some(Repository {
            repo,
            revision: settings.tokenizer.tokenizer_revision(),
        })),
        Source::Hub(_) => Err(Failure::new(
            Reason::InvalidSetting,
            format!("tokenizer: '{repo}' is a directory, and the pod does not have it"),
            "set a repository of the hub, in the form owner/name",
        )),
        Source::Claim { .. } => Err(Failure::new(
            Reason::InvalidSetting,
            "tokenizer: a model in a claim must have its tokenizer in the directory of its weights",
            "remove the setting, and copy tokenizer.json and tokenizer_config.json to the directory of config.json",
        )),
    }
}

/// The first name in the settings, else the repository, else the name of the ModelDeployment.
fn served_name(object: &ModelDeployment, settings: &Settings) -> String {
    let named = settings
        .model
        .served_model_name
        .as_ref()
        .and_then(|names| names.first().cloned());
    let repo = object
        .spec
        .model
        .hugging_face
        .as_ref()
        .map(|hub| hub.repo.clone());
    named.or(repo).unwrap_or_else(|| object.name_any())
}

fn config(mut settings: Settings, served_name: &str, tokenizer_in: Option<&str>) -> Map<String, Value> {
    settings
        .model
        .served_model_name
        .get_or_insert_with(|| vec![served_name.to_string()]);
    settings.tokenizer.tokenizer = tokenizer_in.map(|model_dir| format!("{model_dir}/{}", TOKENIZER_DIR));
    settings.tokenizer.tokenizer_revision = None;
    settings.to_config_file()
}

fn gpus(spec: &ModelDeploymentSpec) -> Option<Gpus> {
    let gpu = spec
        .resources
        .as_ref()?
        .gpu
        .as_ref()
        .filter(|gpu| gpu.count > 0)?;
    Some(Gpus {
        count: gpu.count,
        resource_name: gpu
            .resource_name
            .clone()
            .unwrap_or_else(|| GPU_RESOURCE_DEFAULT.into()),
        product: gpu.product.clone(),
    })
}

fn volume_reach(source: &Source, observed: &Observed) -> VolumeReach {
    let is_shared = match source {
        Source::Hub(hub) => match &hub.cache {
            CacheVolume::Ephemeral { .. } => true,
            CacheVolume::Own { access_mode, .. } => *access_mode == AccessMode::ReadWriteMany,
            CacheVolume::Existing { .. } => observed.named_claim_is_shared(),
        },
        Source::Claim { .. } => observed.named_claim_is_shared(),
    };
    match is_shared {
        true => VolumeReach::EveryNode,
        false => VolumeReach::OneNode,
    }
}

#[cfg(test)]
mod tests;
