//! Spec and what was observed become a [`Plan`], or a [`Failure`] that says why the spec cannot be honoured.
//!
//! Pure. After this step nothing reads the raw spec. Knows no Kubernetes objects other than the names and
//! owners of those that stand in the way.

use std::collections::BTreeMap;

use crds::{
    ModelDeployment, ModelDeploymentSpec,
    failure::{Failure, Reason},
    modeldeployment::{
        API_KEYS_KEY_DEFAULT, AccessMode, Cache, CacheType, GPU_RESOURCE_DEFAULT, HuggingFace, PullPolicy,
        REPLICAS_DEFAULT, STARTUP_TIMEOUT_SECONDS_DEFAULT, Scheduling, SettingsStatus, TOKEN_KEY_DEFAULT,
    },
    settings::{Layer, SettingError, Settings, Variable, variable},
};
use k8s_openapi::{
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::OwnerReference},
    jiff::SignedDuration,
};
use kube::{Resource, ResourceExt};
use serde_json::{Map, Value};

use super::{build, fetch::Observed};
use crate::context::Installation;

/// Where a replica finds its model.
pub const MODELS_DIR: &str = "/models";
/// Size of a cache claim if the spec names none.
const CLAIM_SIZE_DEFAULT: &str = "100Gi";
/// Layer name of `spec.env` in error messages.
const ENV_LAYER: &str = "spec.env";

/// What is to be there: the spec with every default resolved, checked and narrowed.
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
    /// The image that serves.
    pub image: Image,
    /// Where the model comes from.
    pub source: Source,
    /// Directory of the model inside the container.
    pub model_dir: String,
    /// First name under which clients ask for the model.
    pub served_name: String,
    /// Repository of the tokenizer, if it is not the model's own.
    pub tokenizer: Option<Repository>,
    /// The runtime's configuration file: flag names and values.
    pub config: Map<String, Value>,
    /// Variables of `spec.env` that are no settings.
    pub env: BTreeMap<String, String>,
    /// GPUs of one replica; `None` on the CPU.
    pub gpu: Option<Gpus>,
    /// CPU cores of one replica.
    pub cpu: Option<Quantity>,
    /// Memory of one replica.
    pub memory: Option<Quantity>,
    /// On which nodes replicas may run.
    pub scheduling: Scheduling,
    /// Secret with the API keys.
    pub api_keys: Option<SecretKey>,
    /// Longest drain of a stopping replica.
    pub drain_timeout_seconds: u32,
    /// Longest time from the engine's start to ready.
    pub startup_timeout_seconds: u32,
    /// A further replica can start while all older ones run.
    pub surge: Surge,
    /// What became of `spec.env`, for the status.
    pub settings: SettingsStatus,
    /// Notes on settings without effect, for the `Accepted` condition.
    pub notes: Vec<String>,
    /// Namespace of the operator, if it runs in the cluster.
    pub operator_namespace: Option<String>,
}

/// The image that serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// Its reference.
    pub reference: String,
    /// When to pull it; `None` leaves it to Kubernetes' rule.
    pub pull_policy: Option<PullPolicy>,
}

/// A repository and what of it.
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
    /// It is downloaded.
    Hub(Hub),
    /// It is there.
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
    /// Patterns of files to take.
    pub allow_patterns: Vec<String>,
    /// Patterns of files to leave.
    pub ignore_patterns: Vec<String>,
    /// Secret with the token.
    pub token: Option<SecretKey>,
    /// Where the files are kept.
    pub cache: CacheVolume,
}

/// Where downloaded files are kept.
#[derive(Clone, Debug, PartialEq)]
pub enum CacheVolume {
    /// With the pod.
    Ephemeral {
        /// Most bytes.
        size: Option<Quantity>,
    },
    /// In a claim of the ModelDeployment's own.
    Own {
        /// Bytes asked for.
        size: Quantity,
        /// Storage class; `None` is the cluster's default.
        storage_class: Option<String>,
        /// From how many nodes it is written.
        access_mode: AccessMode,
        /// What becomes of it when the ModelDeployment goes.
        lifetime: ClaimLifetime,
    },
    /// In a claim that somebody else made.
    Existing {
        /// The claim.
        name: String,
    },
}

/// What becomes of a claim when its ModelDeployment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimLifetime {
    /// It goes too.
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

/// GPUs of one replica.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpus {
    /// How many; at least one.
    pub count: u32,
    /// Resource name of one.
    pub resource_name: String,
    /// Product that the node's label must name.
    pub product: Option<String>,
}

/// Whether a rollout may start a new pod before an old one is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surge {
    /// Start first; nothing that the pod needs is exclusive.
    Allowed,
    /// Stop first: the new pod could wait forever for the old one's GPU or volume.
    Refused,
}

/// Resolves and checks the spec.
///
/// # Errors
/// A failure with a remedy, when the spec cannot be honoured as it is.
pub fn plan(
    object: &ModelDeployment,
    observed: &Observed,
    installation: &Installation,
) -> Result<Plan, Failure> {
    let spec = &object.spec;
    check_names(object, observed)?;
    let source = source(spec)?;
    let Read { settings, report } = read_settings(spec)?;
    let model_dir = model_dir(spec, &source);
    let tokenizer = tokenizer(&settings, &source)?;
    let served_name = served_name(object, &settings);
    let gpu = gpus(spec);
    let resources = spec.resources.clone().unwrap_or_default();
    Ok(Plan {
        name: object.name_any(),
        namespace: object.namespace().unwrap_or_default(),
        owner: object.controller_owner_ref(&()).unwrap_or_default(),
        replicas: desired_replicas(object),
        image: image(object, installation),
        config: config(
            settings,
            &served_name,
            tokenizer.is_some().then_some(model_dir.as_str()),
        ),
        env: passed_env(spec, &report.unknown),
        surge: surge(gpu.as_ref(), &source, observed),
        source,
        model_dir,
        served_name,
        tokenizer,
        gpu,
        cpu: resources.cpu,
        memory: resources.memory,
        scheduling: spec.scheduling.clone().unwrap_or_default(),
        api_keys: spec
            .auth
            .as_ref()
            .and_then(|auth| auth.api_keys_secret_ref.as_ref())
            .map(|secret| SecretKey {
                name: secret.name.clone(),
                key: secret.key.clone().unwrap_or_else(|| API_KEYS_KEY_DEFAULT.into()),
            }),
        drain_timeout_seconds: drain_timeout_seconds(spec),
        startup_timeout_seconds: startup_timeout(object).as_secs() as u32,
        notes: notes(&report),
        settings: report,
        operator_namespace: installation.namespace.clone(),
    })
}

/// Replicas that the spec asks for.
pub fn desired_replicas(object: &ModelDeployment) -> i32 {
    object.spec.replicas.unwrap_or(REPLICAS_DEFAULT).max(0)
}

/// Longest time from the engine's start to ready.
pub fn startup_timeout(object: &ModelDeployment) -> SignedDuration {
    let seconds = object
        .spec
        .startup_timeout_seconds
        .unwrap_or(STARTUP_TIMEOUT_SECONDS_DEFAULT);
    SignedDuration::from_secs(i64::from(seconds))
}

fn drain_timeout_seconds(spec: &ModelDeploymentSpec) -> u32 {
    spec.settings().process.drain_timeout_seconds()
}

/// Refuses to take over what belongs to somebody else.
fn check_names(object: &ModelDeployment, observed: &Observed) -> Result<(), Failure> {
    match observed.children.foreign(object) {
        None => Ok(()),
        Some(taken) => Err(Failure::new(
            Reason::NameTaken,
            format!("{taken} exists and does not belong to this ModelDeployment"),
            "rename the ModelDeployment, or delete the other object",
        )),
    }
}

/// The spec's image, else the one pinned at first sight, else the operator's own default.
fn image(object: &ModelDeployment, installation: &Installation) -> Image {
    let runtime = object.spec.runtime.clone().unwrap_or_default();
    let pinned = object
        .status
        .as_ref()
        .and_then(|status| status.runtime_image.clone());
    Image {
        reference: runtime
            .image
            .or(pinned)
            .unwrap_or_else(|| installation.runtime_image.clone()),
        pull_policy: runtime.pull_policy,
    }
}

fn source(spec: &ModelDeploymentSpec) -> Result<Source, Failure> {
    match (&spec.model.hugging_face, &spec.model.pvc) {
        (Some(hub), None) => Ok(Source::Hub(Hub {
            repository: Repository {
                repo: hub.repo.clone(),
                revision: revision(hub),
            },
            endpoint: hub.endpoint.clone(),
            allow_patterns: hub.allow_patterns.clone(),
            ignore_patterns: hub.ignore_patterns.clone(),
            token: spec.model.token_secret_ref.as_ref().map(|secret| SecretKey {
                name: secret.name.clone(),
                key: secret.key.clone().unwrap_or_else(|| TOKEN_KEY_DEFAULT.into()),
            }),
            cache: cache(spec.cache.as_ref()),
        })),
        (None, Some(claim)) => Ok(Source::Claim {
            name: claim.claim_name.clone(),
        }),
        _ => Err(Failure::new(
            Reason::InvalidSetting,
            "spec.model names no source, or several",
            "set exactly one of spec.model.huggingFace and spec.model.pvc",
        )),
    }
}

fn revision(hub: &HuggingFace) -> String {
    hub.revision.clone().unwrap_or_else(|| "main".into())
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

/// `/models/<name>-<hash>` for a download, so that a shared cache keeps what differs apart.
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
}

/// Merges the typed fields over `spec.env`, and reports on each variable that is not honoured.
fn read_settings(spec: &ModelDeploymentSpec) -> Result<Read, Failure> {
    let variables = || spec.env.iter().map(|env| (env.name.clone(), env.value.clone()));
    let env = Layer::from_env(ENV_LAYER, variables()).map_err(refusal)?;
    let from_env = Settings::merge(std::slice::from_ref(&env));
    if from_env.process != Default::default() {
        return Err(Failure::new(
            Reason::InvalidSetting,
            "spec.env holds a variable that has its own field",
            "use spec.model.huggingFace, spec.model.tokenSecretRef, spec.auth.apiKeysSecretRef or \
             spec.rollout.drainTimeoutSeconds; HOST and PORT are the operator's",
        ));
    }
    let mut settings = Settings::merge(&[Layer::from_settings(&spec.settings()), env]);
    settings.process.drain_timeout_seconds = Some(drain_timeout_seconds(spec));
    let mut report = SettingsStatus::default();
    for env in spec.env.iter().filter(|env| !env.value.is_empty()) {
        match variable(&env.name) {
            Variable::Accepted(_) => report.accepted.push(env.name.clone()),
            Variable::Unknown => report.unknown.push(env.name.clone()),
            Variable::Setting(_) | Variable::NotInThisVersion => {}
        }
    }
    Ok(Read { settings, report })
}

fn refusal(error: SettingError) -> Failure {
    let (reason, remedy) = match &error {
        SettingError::NotInThisVersion { setting, .. } => {
            (Reason::InvalidSetting, format!("remove {setting} from spec.env"))
        }
        SettingError::Invalid { setting, .. } => (Reason::InvalidSetting, format!("correct {setting}")),
        SettingError::Contradiction { first, second, .. } => (
            Reason::InvalidSetting,
            format!("remove one of {first} and {second}"),
        ),
        SettingError::Unknown { setting, .. } => (Reason::InvalidSetting, format!("remove {setting}")),
        SettingError::NotAMap { .. } => (Reason::InvalidSetting, "write a map of settings".into()),
    };
    Failure::new(reason, error.to_string(), remedy)
}

fn notes(report: &SettingsStatus) -> Vec<String> {
    report
        .accepted
        .iter()
        .filter_map(|name| match variable(name) {
            Variable::Accepted(why) => Some(format!("{name} has no effect: {why}")),
            Variable::Setting(_) | Variable::NotInThisVersion | Variable::Unknown => None,
        })
        .collect()
}

fn passed_env(spec: &ModelDeploymentSpec, unknown: &[String]) -> BTreeMap<String, String> {
    spec.env
        .iter()
        .filter(|env| unknown.contains(&env.name))
        .map(|env| (env.name.clone(), env.value.clone()))
        .collect()
}

/// The tokenizer's repository, if the settings name one of its own.
fn tokenizer(settings: &Settings, source: &Source) -> Result<Option<Repository>, Failure> {
    let Some(repo) = settings.tokenizer.tokenizer.clone() else {
        return Ok(None);
    };
    let is_directory = repo.starts_with(['/', '.']);
    match source {
        Source::Hub(_) if !is_directory => Ok(Some(Repository {
            repo,
            revision: settings
                .tokenizer
                .tokenizer_revision
                .clone()
                .unwrap_or_else(|| "main".into()),
        })),
        Source::Hub(_) => Err(Failure::new(
            Reason::InvalidSetting,
            format!("tokenizer: '{repo}' is a directory; a pod has no such directory"),
            "name a repository of the hub, as in owner/name",
        )),
        Source::Claim { .. } => Err(Failure::new(
            Reason::InvalidSetting,
            "tokenizer: a model in a claim has its tokenizer beside its weights",
            "remove the setting and put tokenizer.json and tokenizer_config.json beside config.json",
        )),
    }
}

/// The settings' first name, else the repository, else the name of the ModelDeployment.
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
    settings.tokenizer.tokenizer =
        tokenizer_in.map(|model_dir| format!("{model_dir}/{}", build::TOKENIZER_DIR));
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

/// A new pod may start beside the old ones only if it waits for nothing they hold: no GPU, and no volume that
/// one node may keep to itself.
fn surge(gpu: Option<&Gpus>, source: &Source, observed: &Observed) -> Surge {
    let on_many_nodes = match source {
        Source::Hub(Hub {
            cache: CacheVolume::Ephemeral { .. },
            ..
        }) => true,
        Source::Hub(Hub {
            cache: CacheVolume::Own { access_mode, .. },
            ..
        }) => *access_mode == AccessMode::ReadWriteMany,
        Source::Hub(Hub {
            cache: CacheVolume::Existing { .. },
            ..
        })
        | Source::Claim { .. } => observed.named_claim_is_shared(),
    };
    if gpu.is_none() && on_many_nodes {
        Surge::Allowed
    } else {
        Surge::Refused
    }
}

#[cfg(test)]
mod tests;
