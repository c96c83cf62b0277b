//! What to serve and how: the layers of settings merged into one configuration.
//!
//! Owns precedence, the environment, and the checks that concern several settings; defaults are in the rows of the
//! settings table. Must not know the command line's library, a web framework or the engine.

mod api_keys;
mod cors;
mod deployment;
mod environment;
mod error;
mod file;
mod served_names;
mod source;
mod ti_one;
mod tls;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crds::modeldeployment::HuggingFace;
use crds::settings::{
    ContentFormat, ConvTemplate, Effective, EngineSettings, Layer, OpenaiSettings, ProcessSettings,
    ServingSettings, Settings, StreamingSettings,
};

pub use api_keys::{ApiKeysConfig, ApiKeysFile};
pub use cors::{Allowed, CorsConfig};
pub use environment::Environment;
pub use error::ConfigError;
pub use served_names::ServedNames;
pub use source::{ModelSource, Repository};
pub use tls::TlsFiles;

use deployment::Deployment;
use source::Hub;

/// The command line of `serve`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServeArguments {
    /// Settings as `(flag without dashes, text)`.
    pub flags: Vec<(String, String)>,
    /// Configuration file.
    pub config: Option<PathBuf>,
    /// File with a `ModelDeployment`.
    pub from: Option<PathBuf>,
    /// Whose defaults hold.
    pub start_mode: StartMode,
}

/// Whose defaults hold where no layer gives a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartMode {
    /// `serve`: the defaults of the settings.
    #[default]
    Serve,
    /// `run`: TI-ONE's.
    Run,
}

/// Every setting with its value, and what was accepted without effect.
#[derive(Debug)]
pub struct EffectiveSettings {
    /// In the order of the form.
    pub settings: Vec<Effective>,
    /// The merged values.
    pub merged: Settings,
    /// Recognised variables without effect, as `(name, reason)`.
    pub accepted: Vec<(String, &'static str)>,
}

/// Which value each setting has, and which layer gives it.
///
/// # Errors
/// As for [`resolve`].
pub fn effective(
    arguments: &ServeArguments,
    environment: &Environment,
) -> Result<EffectiveSettings, ConfigError> {
    let merged = merge(arguments, environment)?;
    Ok(EffectiveSettings {
        settings: Settings::effective(&merged.layers),
        merged: merged.settings,
        accepted: merged.accepted,
    })
}

/// The configuration of `serve`.
///
/// Groups of settings that need no more than their accessors are here as they are; the other fields are what was made
/// of the rest.
#[derive(Clone, Debug, PartialEq)]
pub struct ServeConfig {
    /// The model: a directory, or a repository to download.
    pub model: ModelSource,
    /// Directory or repository of the tokenizer, if not the model's.
    pub tokenizer: Option<ModelSource>,
    /// Directory for downloads; `None` if the environment names none.
    pub cache_directory: Option<PathBuf>,
    /// No request is sent to the hub: what was downloaded is used.
    pub is_offline: bool,
    /// Names that clients use for the model.
    pub served_names: ServedNames,
    /// Jinja text of the chat template, if not the model's.
    pub chat_template: Option<String>,
    /// Chat template by name, for a model that has none.
    pub conv_template: Option<ConvTemplate>,
    /// Form in which the chat template expects the content of a message.
    pub content_format: ContentFormat,
    /// No tokenizer is loaded.
    pub skip_tokenizer: bool,
    /// Number of requests that are tokenized at the same time, if not one per core.
    pub tokenizer_threads: Option<usize>,
    /// How the engine loads and runs the model.
    pub engine: EngineSettings,
    /// Largest `logprobs` of a request; `None`: the size of the vocabulary.
    pub max_logprobs: Option<usize>,
    /// Number of tokens in a stream item of a job that names no sizes.
    pub streaming: StreamingSettings,
    /// Behaviour of the OpenAI routes.
    pub openai: OpenaiSettings,
    /// Role of the messages that the model writes.
    pub response_role: String,
    /// How one replica serves.
    pub serving: ServingSettings,
    /// What web pages of other origins may do.
    pub cors: CorsConfig,
    /// Path prefix of every route: empty, or with a slash at its start and none at its end.
    pub root_path: String,
    /// Keys for clients.
    pub api_keys: ApiKeysConfig,
    /// Files for TLS; `None` serves without.
    pub tls: Option<TlsFiles>,
    /// Address to listen on.
    pub host: String,
    /// Port to listen on.
    pub port: u16,
    /// Port for probes, metrics and load, if they have one of their own.
    pub control_port: Option<u16>,
    /// Longest time for running requests to finish at the end.
    pub drain_timeout: Duration,
    /// How long the server still accepts requests after SIGTERM.
    pub shutdown_delay: Duration,
    /// Recognised variables without effect, as `(name, reason)`.
    pub accepted: Vec<(String, &'static str)>,
}

/// Merges the layers: command line, environment, file, default.
///
/// # Errors
/// [`ConfigError`] for the first thing that cannot be used.
pub fn resolve(arguments: &ServeArguments, environment: &Environment) -> Result<ServeConfig, ConfigError> {
    let Merged {
        model,
        settings,
        hub,
        accepted,
        ..
    } = merge(arguments, environment)?;
    let Settings {
        model: names,
        tokenizer,
        engine,
        streaming,
        openai,
        serving,
        process,
    } = settings;
    let served_names = names.served_model_name().and_then(ServedNames::from_list);
    Ok(ServeConfig {
        served_names: served_names.unwrap_or_else(|| default_names(&model)),
        model: hub.source(&model, process.model_revision()),
        tokenizer: tokenizer
            .tokenizer()
            .map(|name| hub.source(&name, tokenizer.tokenizer_revision())),
        cache_directory: process
            .download_dir()
            .map(PathBuf::from)
            .or_else(|| environment.cache_directory()),
        is_offline: environment.is_offline(),
        chat_template: tokenizer.custom_chat_template().map(template_text).transpose()?,
        conv_template: tokenizer.conv_template(),
        skip_tokenizer: tokenizer.skip_tokenizer_init(),
        content_format: tokenizer.chat_template_content_format(),
        tokenizer_threads: Some(tokenizer.tokenizer_pool_size() as usize).filter(|n| *n > 0),
        max_logprobs: usize::try_from(engine.max_logprobs()).ok(),
        engine,
        streaming,
        response_role: openai.openai_response_role(),
        openai,
        cors: CorsConfig::of(&serving)?,
        root_path: root_path(&serving.root_path().unwrap_or_default()),
        serving,
        tls: TlsFiles::of(&process)?,
        api_keys: ApiKeysConfig::of(&process)?,
        host: process.host(),
        port: process.port(),
        control_port: control_port(&process)?,
        drain_timeout: Duration::from_secs(process.drain_timeout_seconds().into()),
        shutdown_delay: Duration::from_secs(process.shutdown_delay_seconds().into()),
        accepted,
    })
}

/// The configuration, with the hub's token of a file. A build has a secret as a file, and may have none.
///
/// # Errors
/// As for [`resolve`], and for a file that cannot be read.
pub fn resolve_with_token(
    mut arguments: ServeArguments,
    environment: &Environment,
    token_file: Option<&Path>,
) -> Result<ServeConfig, ConfigError> {
    if let Some(path) = token_file.filter(|path| path.exists()) {
        let token = file::read(path)?.trim().to_string();
        if !token.is_empty() {
            arguments.flags.push(("hf-token".into(), token));
        }
    }
    resolve(&arguments, environment)
}

/// What the layers contain together.
struct Merged {
    /// Repository or directory of the model.
    model: String,
    settings: Settings,
    /// The layers that they are merged from.
    layers: Vec<Layer>,
    hub: Hub,
    /// What was given without effect, as `(name, reason)`.
    accepted: Vec<(String, &'static str)>,
}

fn merge(arguments: &ServeArguments, environment: &Environment) -> Result<Merged, ConfigError> {
    environment.check_texts()?;
    let mut layers = vec![
        Layer::from_flags("command line", arguments.flags.clone())?,
        Layer::from_env("environment", environment.texts())?,
    ];
    let mut repository = HuggingFace::default();
    if let Some(path) = &arguments.config {
        let name = path.display().to_string();
        layers.push(Layer::from_config_file(&name, &file::read_yaml(path)?[0])?);
    }
    if let Some(path) = &arguments.from {
        let deployment = Deployment::read(path, &Settings::merge(&layers))?;
        layers.extend(deployment.layers);
        repository = deployment.repository;
    }
    repository.endpoint = environment.hub_endpoint().or(repository.endpoint);
    match arguments.start_mode {
        StartMode::Serve => {}
        StartMode::Run => layers.push(ti_one::defaults_of_run()),
    }
    let given = Settings::merge(&layers);
    let model = given.process.model().ok_or(ConfigError::NoModel)?;
    layers.push(ti_one::layer(Path::new(&model), &given)?);
    Ok(Merged {
        model,
        settings: Settings::merge(&layers),
        hub: Hub::new(repository, given.process.hf_token()),
        accepted: layers
            .iter()
            .flat_map(|layer| layer.accepted.clone())
            .chain(Settings::ineffective(&layers))
            .collect(),
        layers,
    })
}

fn control_port(process: &ProcessSettings) -> Result<Option<u16>, ConfigError> {
    match process.control_port() {
        Some(port) if port == process.port() => Err(ConfigError::SamePort { port }),
        port => Ok(port),
    }
}

/// Starts with a slash and ends without one; empty stays empty.
fn root_path(given: &str) -> String {
    match given.trim_matches('/') {
        "" => String::new(),
        path => format!("/{path}"),
    }
}

/// The last part of a directory's path, or the full name of a repository, as in vLLM.
fn default_names(model: &str) -> ServedNames {
    let path = Path::new(model);
    let directory = path.is_dir().then(|| path.canonicalize().ok()).flatten();
    let last = directory.as_deref().and_then(Path::file_name);
    ServedNames {
        first: last.map_or_else(|| model.to_string(), |name| name.to_string_lossy().into_owned()),
        others: Vec::new(),
    }
}

/// The text of a chat template that is given as its text or as the path of a file.
fn template_text(given: String) -> Result<String, ConfigError> {
    let is_path = !given.contains(['{', '\n']) && Path::new(&given).is_file();
    if is_path {
        file::read(Path::new(&given))
    } else {
        Ok(given)
    }
}

#[cfg(test)]
mod tests;
