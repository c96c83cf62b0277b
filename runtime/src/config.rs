//! What to serve and how: the layers of settings merged, with every default in its place.
//!
//! Owns precedence and defaults. Must not know the command line's library, HTTP or the engine.

mod ti_one;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crds::ModelDeploymentSpec;
use crds::failure::{Failure, Reason};
use crds::modeldeployment::HuggingFace;
use crds::schema::{self, Violation};
use crds::settings::{
    self, ContentFormat, ConvTemplate, Dtype, Layer, LogFormat, LogLevel, OpenaiSettings, Place,
    PreemptionMode, ProcessSettings, SchedulingPolicy, ServingSettings, Setting, SettingError, Settings,
    StreamingSettings, Variable,
};
use serde_json::Value;

use crate::api::jobs::batches::BatchRule;
use crate::cli::ServeArguments;
use crate::fetch::TOKENIZER_FILES;
use crate::http::cors::CorsConfig;
use crate::http::tls::TlsFiles;
use crate::parsers::{FormatNames, UnknownParser};
use crate::telemetry::request_log::RequestLog;
use ti_one::TiModelConfig;

/// Everything `serve` needs to know, defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct ServeConfig {
    /// The model: a directory, or a repository to download.
    pub model: ModelSource,
    /// Directory or repository of the tokenizer, if not the model's.
    pub tokenizer: Option<ModelSource>,
    /// Names under which clients ask for the model; at least one.
    pub served_names: Vec<String>,
    /// Jinja text of the chat template, if not the model's.
    pub chat_template: Option<String>,
    /// Name of the chat template of a model that brings none.
    pub conv_template: Option<ConvTemplate>,
    /// What the chat template expects as contents.
    pub content_format: ContentFormat,
    /// Requests that are tokenized at a time, if not one per core.
    pub tokenizer_threads: Option<usize>,
    /// Number type of the weights.
    pub dtype: Dtype,
    /// Longest context, if not the model's.
    pub max_model_len: Option<u32>,
    /// Most sequences in one step.
    pub max_num_seqs: usize,
    /// Most tokens in one step.
    pub max_num_batched_tokens: usize,
    /// Tokens in a block of the KV cache.
    pub block_size: usize,
    /// Blocks of the KV cache, if not as many as fit.
    pub n_blocks: Option<usize>,
    /// Keep the KV cache of computed texts.
    pub enable_prefix_caching: bool,
    /// What becomes of a sequence whose blocks an older one needs.
    pub preemption_mode: PreemptionMode,
    /// Bytes of the host for swapped blocks.
    pub swap_space_bytes: u64,
    /// Which waiting request goes first.
    pub scheduling_policy: SchedulingPolicy,
    /// Seed of requests without one.
    pub seed: u64,
    /// Most alternatives per token; `None`: all.
    pub max_logprobs: Option<usize>,
    /// Tokens in the stream items of a job that names no sizes.
    pub batch_rule: BatchRule,
    /// Whether stream items of a job's OpenAI route are server-sent events.
    pub raw_openai_output: bool,
    /// Role of answers.
    pub response_role: String,
    /// Unknown parameters of requests are refused instead of named.
    pub strict_parameters: bool,
    /// How calls and thoughts are found in answers.
    pub formats: FormatNames,
    /// Requests worked on at a time; as many again may wait.
    pub max_concurrency: usize,
    /// Keys of which a client must present one; none means open.
    pub api_keys: Vec<String>,
    /// What pages of other origins may do.
    pub cors: CorsConfig,
    /// What is logged of a request; `None`: nothing that it brings.
    pub request_log: Option<RequestLog>,
    /// The load is not logged.
    pub disable_log_stats: bool,
    /// Path that may stand in front of every route, without a slash at its end.
    pub root_path: String,
    /// Files to serve TLS with; `None` serves without.
    pub tls: Option<TlsFiles>,
    /// Address to listen on.
    pub host: String,
    /// Port to listen on.
    pub port: u16,
    /// Longest wait for running requests at the end.
    pub drain_timeout: Duration,
    /// How long the server still accepts requests after SIGTERM.
    pub shutdown_delay: Duration,
    /// How much is logged.
    pub log_level: LogLevel,
    /// How a line of the log looks.
    pub log_format: LogFormat,
    /// Recognised variables without effect, as `(name, reason)`.
    pub accepted: Vec<(String, &'static str)>,
}

/// Where model files come from.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelSource {
    /// They lie in this directory.
    Directory(PathBuf),
    /// They must be downloaded.
    Repository(Repository),
}

/// A repository of the hub.
#[derive(Clone, PartialEq)]
pub struct Repository {
    /// `owner/name`.
    pub repo: String,
    /// Branch, tag or commit.
    pub revision: String,
    /// Address of the hub, if not the public one.
    pub endpoint: Option<String>,
    /// Token for the hub.
    pub token: Option<String>,
    /// Files to take.
    pub allow_patterns: Vec<String>,
    /// Files to leave.
    pub ignore_patterns: Vec<String>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({}@{})", self.repo, self.revision)
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A layer holds something that cannot be used.
    #[error("a setting cannot be used")]
    Setting(#[from] SettingError),
    /// A parser is asked for that does not exist.
    #[error("TOOL_CALL_PARSER or REASONING_PARSER cannot be used")]
    Parser(#[from] UnknownParser),
    /// No layer names the model.
    #[error("no model is named")]
    NoModel,
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is no YAML.
    #[error("{} is not valid YAML: {reason}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// A file is no JSON, or not of the expected form.
    #[error("{} cannot be used: {reason}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// A file holds no ModelDeployment.
    #[error("{} holds no ModelDeployment", path.display())]
    NoModelDeployment {
        /// The file.
        path: PathBuf,
    },
    /// The ModelDeployment does not fit its schema.
    #[error("{}: {violation}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// The first thing that is wrong.
        violation: Violation,
    },
    /// A variable of `spec.env` whose setting has a field of its own.
    #[error("spec.env: {name} has no place here: {place}")]
    NotInEnv {
        /// The variable.
        name: String,
        /// Where it has its place, or why nowhere.
        place: String,
    },
    /// A setting needs another one.
    #[error("{given} needs {missing}")]
    Incomplete {
        /// The one that is there.
        given: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// A text is no origin, method or header.
    #[error("ALLOWED_ORIGINS, ALLOWED_METHODS and ALLOWED_HEADERS cannot have {text:?}")]
    Cors {
        /// The text.
        text: String,
    },
    /// The ModelDeployment asks for something that only a cluster has.
    #[error("{field} needs a cluster")]
    NeedsCluster {
        /// The field.
        field: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
}

impl ConfigError {
    /// The failure that the process ends with.
    pub fn failure(&self) -> Failure {
        let remedy = match self {
            ConfigError::Setting(SettingError::NotInThisVersion { .. }) => "Remove the setting.",
            ConfigError::Setting(_) | ConfigError::Schema { .. } | ConfigError::Parser(_) => {
                "Correct the value; docs/settings.md lists them all."
            }
            ConfigError::NoModel => "Name a repository or a directory: slipway-runtime serve MODEL.",
            ConfigError::Read { .. }
            | ConfigError::Yaml { .. }
            | ConfigError::Json { .. }
            | ConfigError::NoModelDeployment { .. } => "Correct the file or its path.",
            ConfigError::NotInEnv { .. } => "Remove the variable.",
            ConfigError::Incomplete { .. } => "Give both, or neither.",
            ConfigError::Cors { .. } => "Give origins such as https://example.com, or *.",
            ConfigError::NeedsCluster { remedy, .. } => remedy,
        };
        let message = match self {
            ConfigError::Setting(setting) => setting.to_string(),
            ConfigError::Read { source, .. } => format!("{self}: {source}"),
            other => other.to_string(),
        };
        Failure::new(Reason::InvalidSetting, message, remedy)
    }
}

/// Merges the layers: command line, environment, file, default.
///
/// # Errors
/// [`ConfigError`] for the first thing that cannot be used.
pub fn resolve<I>(arguments: &ServeArguments, environment: I) -> Result<ServeConfig, ConfigError>
where
    I: IntoIterator<Item = (String, String)>,
{
    let environment: BTreeMap<String, String> = environment.into_iter().collect();
    let endpoint = environment
        .get("HF_ENDPOINT")
        .filter(|endpoint| !endpoint.is_empty())
        .cloned();
    let mut layers = vec![
        Layer::from_flags("command line", arguments.flags.clone())?,
        Layer::from_env("environment", environment)?,
    ];
    let mut hub = HuggingFace {
        endpoint,
        ..HuggingFace::default()
    };
    if let Some(path) = &arguments.config {
        layers.push(Layer::from_config_file(
            &path.display().to_string(),
            &read_yaml(path)?[0],
        )?);
    }
    if let Some(path) = &arguments.from {
        let spec = read_model_deployment(path)?;
        let above = Settings::merge(&layers);
        layers.extend(layers_of(&spec, &above)?);
        if let Some(source) = spec.model.hugging_face {
            hub = HuggingFace {
                endpoint: hub.endpoint.or(source.endpoint.clone()),
                ..source
            };
        }
    }
    let accepted = layers.iter().flat_map(|layer| layer.accepted.clone()).collect();
    let mut settings = Settings::merge(&layers);
    settings.tokenizer.custom_chat_template = template_text(settings.tokenizer.custom_chat_template)?;
    with_defaults(settings, &hub, accepted)
}

fn with_defaults(
    settings: Settings,
    hub: &HuggingFace,
    accepted: Vec<(String, &'static str)>,
) -> Result<ServeConfig, ConfigError> {
    let Settings {
        model,
        tokenizer,
        engine,
        streaming,
        openai,
        serving,
        process,
    } = settings;
    let hub = Hub::new(&process, hub);
    let repo = process.model().or(hub.repo.clone()).ok_or(ConfigError::NoModel)?;
    let revision = match (&process.model_revision, &hub.revision) {
        (None, Some(revision)) => revision.clone(),
        (Some(_), _) | (None, None) => process.model_revision(),
    };
    let formats = formats(&openai)?;
    let ti_one = TiOne::read(Path::new(&repo), tokenizer.conv_template)?;
    let names = model.served_model_name.filter(|names| !names.is_empty());
    let names = names.or(ti_one.model_id.map(|name| vec![name]));
    let max_concurrency = match ti_one.max_concurrency {
        Some(n_max) => serving.max_concurrency.unwrap_or(n_max),
        None => serving.max_concurrency(),
    };
    Ok(ServeConfig {
        served_names: names.unwrap_or_else(|| vec![default_name(&repo)]),
        tokenizer: tokenizer
            .tokenizer()
            .map(|name| hub.source(&name, tokenizer.tokenizer_revision()))
            .map(tokenizer_only),
        model: hub.source(&repo, revision),
        chat_template: tokenizer.custom_chat_template(),
        conv_template: ti_one.conv_template,
        content_format: tokenizer.chat_template_content_format(),
        tokenizer_threads: Some(tokenizer.tokenizer_pool_size() as usize).filter(|n| *n > 0),
        dtype: engine.dtype(),
        max_model_len: engine.max_model_len,
        max_num_seqs: engine.max_num_seqs() as usize,
        max_num_batched_tokens: engine.max_num_batched_tokens() as usize,
        block_size: engine.block_size() as usize,
        n_blocks: engine.num_gpu_blocks_override.map(|n| n as usize),
        enable_prefix_caching: engine.enable_prefix_caching(),
        preemption_mode: engine.preemption_mode(),
        swap_space_bytes: u64::from(engine.swap_space()) << 30,
        scheduling_policy: engine.scheduling_policy(),
        seed: engine.seed(),
        max_logprobs: usize::try_from(engine.max_logprobs()).ok(),
        batch_rule: batch_rule(&streaming),
        raw_openai_output: openai.raw_openai_output(),
        response_role: openai.openai_response_role(),
        strict_parameters: openai.strict_parameters(),
        max_concurrency: max_concurrency as usize,
        formats,
        log_level: serving.log_level(),
        log_format: serving.log_format(),
        cors: cors(&serving)?,
        request_log: request_log(&serving),
        disable_log_stats: serving.disable_log_stats(),
        root_path: root_path(serving.root_path.as_deref()),
        tls: tls(
            process.ssl_certfile(),
            process.ssl_keyfile(),
            process.ssl_ca_certs(),
        )?,
        api_keys: process.api_key().unwrap_or_default(),
        host: process.host(),
        port: process.port(),
        drain_timeout: Duration::from_secs(u64::from(process.drain_timeout_seconds())),
        shutdown_delay: Duration::from_secs(u64::from(process.shutdown_delay_seconds())),
        accepted,
    })
}

/// What the layers say of the hub, and of the repository that a file names.
struct Hub {
    repo: Option<String>,
    revision: Option<String>,
    file: HuggingFace,
    token: Option<String>,
}

impl Hub {
    /// Revision and patterns of a file belong to the file's repository, not to another model that is named above it.
    fn new(process: &ProcessSettings, file: &HuggingFace) -> Self {
        let file = match process.model {
            None => file.clone(),
            Some(_) => HuggingFace {
                endpoint: file.endpoint.clone(),
                ..HuggingFace::default()
            },
        };
        Self {
            repo: Some(file.repo.clone()).filter(|repo| !repo.is_empty()),
            revision: file.revision.clone(),
            token: process.hf_token.clone(),
            file,
        }
    }

    fn source(&self, name: &str, revision: String) -> ModelSource {
        if Path::new(name).is_dir() {
            return ModelSource::Directory(name.into());
        }
        ModelSource::Repository(Repository {
            repo: name.to_string(),
            revision,
            endpoint: self.file.endpoint.clone(),
            token: self.token.clone(),
            allow_patterns: self.file.allow_patterns.clone(),
            ignore_patterns: self.file.ignore_patterns.clone(),
        })
    }
}

/// TI-ONE's way to start a model: by the model's folder, or by the name of a template.
struct TiOne {
    model_id: Option<String>,
    conv_template: Option<ConvTemplate>,
    /// This way has a default of its own.
    max_concurrency: Option<u32>,
}

impl TiOne {
    fn read(folder: &Path, conv_template: Option<ConvTemplate>) -> Result<Self, ConfigError> {
        let of_folder = TiModelConfig::read(folder)?;
        let is_used = of_folder.is_some() || conv_template.is_some();
        let TiModelConfig {
            model_id,
            conv_template_name,
        } = of_folder.unwrap_or_default();
        Ok(Self {
            model_id,
            conv_template: conv_template.or(conv_template_name),
            max_concurrency: is_used.then_some(128),
        })
    }
}

/// Formats of calls and thoughts, told to be unknown before anything is downloaded.
fn formats(openai: &OpenaiSettings) -> Result<FormatNames, ConfigError> {
    let formats = FormatNames {
        calls: openai.tool_call_parser(),
        reasoning: openai.reasoning_parser(),
        reads_chosen_calls: openai.enable_auto_tool_choice(),
    };
    formats.formats(None)?;
    Ok(formats)
}

fn batch_rule(streaming: &StreamingSettings) -> BatchRule {
    BatchRule {
        n_max: streaming.default_batch_size(),
        n_min: streaming.default_min_batch_size(),
        growth: streaming.default_batch_size_growth_factor(),
    }
}

fn request_log(serving: &ServingSettings) -> Option<RequestLog> {
    let log = RequestLog {
        n_chars_max: serving.max_log_len.map(|n| n as usize),
    };
    (!serving.disable_log_requests()).then_some(log)
}

fn cors(serving: &ServingSettings) -> Result<CorsConfig, ConfigError> {
    let config = CorsConfig {
        origins: serving.allowed_origins(),
        methods: serving.allowed_methods(),
        headers: serving.allowed_headers(),
        with_credentials: serving.allow_credentials(),
    };
    config.layer().map_err(|text| ConfigError::Cors { text })?;
    Ok(config)
}

/// With one slash in front and none behind; of nothing, nothing.
fn root_path(given: Option<&str>) -> String {
    match given.unwrap_or_default().trim_matches('/') {
        "" => String::new(),
        path => format!("/{path}"),
    }
}

fn tls(
    certificates: Option<String>,
    key: Option<String>,
    client_authorities: Option<String>,
) -> Result<Option<TlsFiles>, ConfigError> {
    let incomplete = |given, missing| Err(ConfigError::Incomplete { given, missing });
    match (certificates, key, client_authorities) {
        (Some(certificates), Some(key), authorities) => Ok(Some(TlsFiles {
            certificates: certificates.into(),
            key: key.into(),
            client_authorities: authorities.map(PathBuf::from),
        })),
        (Some(_), None, _) => incomplete("SSL_CERTFILE", "SSL_KEYFILE"),
        (None, Some(_), _) => incomplete("SSL_KEYFILE", "SSL_CERTFILE"),
        (None, None, Some(_)) => incomplete("SSL_CA_CERTS", "SSL_CERTFILE and SSL_KEYFILE"),
        (None, None, None) => Ok(None),
    }
}

/// Of a tokenizer's repository, nothing but the tokenizer is downloaded.
fn tokenizer_only(source: ModelSource) -> ModelSource {
    match source {
        ModelSource::Directory(path) => ModelSource::Directory(path),
        ModelSource::Repository(repository) => ModelSource::Repository(Repository {
            allow_patterns: TOKENIZER_FILES.map(str::to_owned).to_vec(),
            ignore_patterns: Vec::new(),
            ..repository
        }),
    }
}

/// A directory is called by its last part; a repository by its whole name, as vLLM does.
fn default_name(model: &str) -> String {
    let path = Path::new(model);
    let last = path.is_dir().then(|| path.canonicalize().ok()).flatten();
    let last = last
        .as_deref()
        .and_then(Path::file_name)
        .map(|name| name.to_string_lossy().into_owned());
    last.unwrap_or_else(|| model.to_string())
}

/// A chat template is given as its text or as the path of a file that holds it.
fn template_text(given: Option<String>) -> Result<Option<String>, ConfigError> {
    let Some(given) = given else { return Ok(None) };
    let is_path = !given.contains(['{', '\n']) && Path::new(&given).is_file();
    if !is_path {
        return Ok(Some(given));
    }
    read(Path::new(&given)).map(Some)
}

/// The settings of a ModelDeployment: typed fields, then `spec.env`.
fn layers_of(spec: &ModelDeploymentSpec, above: &Settings) -> Result<[Layer; 2], ConfigError> {
    if spec.model.pvc.is_some() && above.process.model.is_none() {
        return Err(ConfigError::NeedsCluster {
            field: "spec.model.pvc",
            remedy: "Name the directory of the model with --model.",
        });
    }
    let keys_wanted = spec
        .auth
        .as_ref()
        .is_some_and(|auth| auth.api_keys_secret_ref.is_some());
    if keys_wanted && above.process.api_key.is_none() {
        return Err(ConfigError::NeedsCluster {
            field: "spec.auth.apiKeysSecretRef",
            remedy: "Give the keys with --api-key or in OPENAI_API_KEYS.",
        });
    }
    for variable in &spec.env {
        if let Variable::Setting(Setting { row, .. }) = settings::variable(&variable.name)
            && let Place::At(place) | Place::RuntimeOnly(place) = row.place
        {
            return Err(ConfigError::NotInEnv {
                name: variable.name.clone(),
                place: place.into(),
            });
        }
    }
    let variables = spec
        .env
        .iter()
        .map(|variable| (variable.name.clone(), variable.value.clone()));
    Ok([
        Layer::from_settings(&spec.settings()),
        Layer::from_env("spec.env", variables)?,
    ])
}

fn read_model_deployment(path: &Path) -> Result<ModelDeploymentSpec, ConfigError> {
    let documents = read_yaml(path)?;
    let document = documents
        .into_iter()
        .find(|document| {
            document["kind"] == "ModelDeployment" && document["apiVersion"] == "slipway.dev/v1alpha1"
        })
        .ok_or_else(|| ConfigError::NoModelDeployment { path: path.into() })?;
    let crd = crds::generate::crd();
    let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut whole = document.clone();
    for known in ["apiVersion", "kind", "metadata"] {
        whole.as_object_mut().map(|fields| fields.shift_remove(known));
    }
    if let Some(violation) = schema::check(root, &whole).into_iter().next() {
        return Err(ConfigError::Schema {
            path: path.into(),
            violation,
        });
    }
    serde_json::from_value(document["spec"].clone()).map_err(|error| ConfigError::Yaml {
        path: path.into(),
        reason: error.to_string(),
    })
}

/// The documents of a file; at least one, and an empty one is null.
fn read_yaml(path: &Path) -> Result<Vec<Value>, ConfigError> {
    let text = read(path)?;
    let mut documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).map_err(|error| ConfigError::Yaml {
            path: path.into(),
            reason: error.to_string(),
        })?;
    if documents.is_empty() {
        documents.push(Value::Null);
    }
    Ok(documents)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.into(),
        source,
    })
}

#[cfg(test)]
mod tests;
