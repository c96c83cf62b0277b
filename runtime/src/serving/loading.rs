//! From settings to an engine that has answered once: download, tokenizer, weights, cache, warm-up.
//!
//! Reports its progress to the start-up tracker. Must not know HTTP.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crds::failure::chain;
use crds::settings::Dtype;

use super::capacity::{self, Demand};
use super::{LoadError, Serving};
use crate::batch::Forward;
use crate::chat_template::{ChatTemplate, NamedTemplate};
use crate::config::{ModelSource, Repository, ServeConfig};
use crate::engine::{
    Engine, EngineConfig, Event, GenerateRequest, PoolRequest, PreemptionMode, SamplingParams,
};
use crate::fetch::{self, FetchError, FetchOptions, Manifest, Patterns, TOKENIZER_FOLDER, Token};
use crate::grammar::Grammars;
use crate::model::{DtypeChoice, LoadFormat, LoadOptions, Model, ModelInfo, Task};
use crate::pooling::PoolingConfig;
use crate::startup::Stage;
use crate::startup::StartupTracker;
use crate::tokenizer::Tokenizer;

/// From settings to an engine that has answered once.
///
/// # Errors
/// [`LoadError`] for the first step that fails.
pub async fn load(config: Arc<ServeConfig>, startup: StartupTracker) -> Result<Serving, LoadError> {
    let directory = directory_of(&startup, &config.model, "").await?;
    let tokenizer = match &config.tokenizer {
        Some(source) => directory_of(&startup, source, TOKENIZER_SUFFIX).await?,
        None => own_tokenizer(&directory),
    };
    let tracker = startup.clone();
    let load = move || load_from(&config, &tracker, &directory, &tokenizer);
    let loading = tokio::task::spawn_blocking(load);
    let serving = loading.await.map_err(|_| LoadError::Panicked)??;
    startup.enter(Stage::WarmingUp);
    warm_up(&serving.engine, &serving.info).await?;
    Ok(serving)
}

/// A tokenizer of another repository does not share a folder with that repository's weights.
const TOKENIZER_SUFFIX: &str = "--tokenizer";

/// `fetch` puts a tokenizer of another repository into a folder of its own.
fn own_tokenizer(directory: &Path) -> PathBuf {
    let folder = directory.join(TOKENIZER_FOLDER);
    if Tokenizer::file_in(&folder).is_some() {
        folder
    } else {
        directory.to_path_buf()
    }
}

async fn directory_of(
    startup: &StartupTracker,
    source: &ModelSource,
    suffix: &str,
) -> Result<PathBuf, LoadError> {
    let repository = match source {
        ModelSource::Directory(path) => return Ok(path.clone()),
        ModelSource::Repository(repository) => repository,
    };
    let destination = cache_directory()
        .ok_or(LoadError::NoCacheDirectory)?
        .join(repository.repo.replace('/', "--") + suffix);
    tracing::info!(repo = repository.repo, revision = repository.revision, to = %destination.display(), "downloading");
    let options = options(repository, destination.clone())?;
    fetch::fetch(options, startup.clone(), fetch::print_line).await?;
    Ok(destination)
}

fn options(repository: &Repository, destination: PathBuf) -> Result<FetchOptions, FetchError> {
    Ok(FetchOptions {
        revision: repository.revision.clone(),
        token: Token::parse(repository.token.as_deref().unwrap_or_default(), "HF_TOKEN")?,
        endpoint: repository.endpoint.clone(),
        patterns: Patterns {
            allow: repository.allow_patterns.clone(),
            ignore: repository.ignore_patterns.clone(),
        },
        ..FetchOptions::new(&repository.repo, destination)
    })
}

/// Where downloads outside a cluster are kept.
fn cache_directory() -> Option<PathBuf> {
    let from = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let base = from("HF_HOME")
        .or_else(|| from("XDG_CACHE_HOME"))
        .or_else(|| Some(from("HOME")?.join(".cache")))?;
    Some(base.join("slipway").join("models"))
}

fn load_from(
    config: &ServeConfig,
    startup: &StartupTracker,
    directory: &Path,
    tokenizer: &Path,
) -> Result<Serving, LoadError> {
    Model::check(directory)?;
    let tokenizer = Tokenizer::load(tokenizer)?;
    let tokenizer = match config.tokenizer_threads {
        Some(n_threads) => tokenizer.with_threads(n_threads),
        None => tokenizer,
    };
    let named = config.conv_template.map(NamedTemplate::of);
    let template = template(config, named, &tokenizer)?;
    let source = template.as_ref().map(ChatTemplate::source);
    let formats = config.formats.formats(source)?;
    tracing::info!(
        tool_calls = formats.calls.map_or("none", |format| format.names[0]),
        reasoning = formats.reasoning.map_or("none", |format| format.names[0]),
        "parsers of answers"
    );
    let options = LoadOptions {
        format: LoadFormat::Auto,
        dtype: dtype(config.dtype),
        n_threads: None,
        max_model_len: config.max_model_len,
    };
    startup.enter(Stage::Loading);
    let bytes_seen = AtomicU64::new(0);
    let model = Model::load(directory, &options, &|progress| {
        let seen = bytes_seen.swap(progress.bytes_done, Ordering::Relaxed);
        if seen == 0 {
            startup.begin(Stage::Loading, 0, progress.bytes_total);
        }
        startup.add(progress.bytes_done.saturating_sub(seen));
    })?;
    let mut info = model.info().clone();
    let stops = named.map_or(&[][..], |named| named.stops);
    let stops = stops.iter().filter_map(|stop| tokenizer.tokens().id_of(stop));
    info.eos_token_ids.extend(stops);
    let grammars = Grammars::new(tokenizer.tokens(), &info.eos_token_ids, info.vocab_size);
    if let Err(error) = &grammars {
        tracing::warn!(%error, "there are no structured outputs");
    }
    let engine = start_engine(model, &info, config)?;
    Ok(Serving {
        engine: Arc::new(engine),
        grammars,
        tokenizer: Arc::new(tokenizer),
        template,
        formats,
        defaults: crate::api::request::Defaults::load(directory)?,
        max_model_len: info.max_model_len as usize,
        pooling: PoolingConfig::read(directory)?,
        revision: Manifest::read(directory).map(|manifest| manifest.commit),
        directory: directory.to_path_buf(),
        info,
    })
}

/// Sizes the cache by the memory that is left, and starts the engine.
fn start_engine(mut model: Model, info: &ModelInfo, config: &ServeConfig) -> Result<Engine, LoadError> {
    let max_model_len = info.max_model_len as usize;
    let groups = model.kv_groups();
    let demand = Demand {
        kv_bytes_per_token: info.kv_bytes_per_token,
        groups: &groups,
        block_size: config.block_size,
        max_model_len,
        max_num_seqs: config.max_num_seqs.min(config.max_concurrency),
    };
    let bytes_free = capacity::bytes_free();
    let n_blocks = match config.n_blocks {
        Some(n_blocks) => n_blocks,
        None => capacity::n_blocks(demand, bytes_free)?,
    };
    let n_host_blocks = match config.preemption_mode {
        PreemptionMode::Recompute => 0,
        PreemptionMode::Swap | PreemptionMode::Save => {
            capacity::n_host_blocks(demand, config.swap_space_bytes, bytes_free)
        }
    };
    model.allocate_cache(n_blocks, config.block_size, n_host_blocks)?;
    // A prompt that must be computed in one step would else be refused although the model can read it.
    let n_step_tokens_min = if model.whole_prompts() { max_model_len } else { 1 };
    let engine = Engine::start(
        Box::new(model),
        EngineConfig {
            n_blocks,
            n_host_blocks,
            block_size: config.block_size,
            enable_prefix_caching: config.enable_prefix_caching,
            preemption_mode: config.preemption_mode,
            scheduling_policy: config.scheduling_policy,
            max_num_seqs: demand.max_num_seqs,
            max_num_batched_tokens: config.max_num_batched_tokens.max(n_step_tokens_min),
            max_model_len,
            max_waiting: config.max_concurrency,
            seed: config.seed,
            eos_token_ids: info.eos_token_ids.as_slice().into(),
        },
    )?;
    Ok(engine)
}

/// The chat template: the setting's text, the named one, or the checkpoint's.
fn template(
    config: &ServeConfig,
    named: Option<NamedTemplate>,
    tokenizer: &Tokenizer,
) -> Result<Option<ChatTemplate>, LoadError> {
    let source = config.chat_template.as_deref();
    let source = source.or(named.and_then(|named| named.source));
    let Some(template) = ChatTemplate::choose(source, tokenizer.config())? else {
        return Ok(None);
    };
    let template = template.with_content_format(config.content_format);
    tracing::info!(format = %template.content_format(), "the form of contents for the chat template");
    Ok(Some(template))
}

fn dtype(setting: Dtype) -> DtypeChoice {
    match setting {
        Dtype::Auto => DtypeChoice::Auto,
        Dtype::Half | Dtype::Float16 => DtypeChoice::Float16,
        Dtype::Bfloat16 => DtypeChoice::BFloat16,
        Dtype::Float | Dtype::Float32 => DtypeChoice::Float32,
    }
}

/// One token through the whole path, so that the first client does not pay for cold pages.
async fn warm_up(engine: &Engine, info: &ModelInfo) -> Result<(), LoadError> {
    let failed = |reason: String| LoadError::WarmUp { reason };
    let mut tickets = match info.task {
        Task::Generate => engine.submit(vec![one_token()]),
        Task::Embed { .. } | Task::Score { .. } => engine.submit_pooling(vec![PoolRequest {
            prompt: vec![0],
            ..PoolRequest::default()
        }]),
    }
    .map_err(|error| failed(chain(&error)))?;
    let mut ticket = tickets.pop().ok_or_else(|| failed("no ticket".into()))?;
    loop {
        match ticket.next().await {
            Some(Event::Prompt(_) | Event::Token { .. }) => {}
            Some(Event::Finished { .. } | Event::Beams(_) | Event::Pooled(_)) => return Ok(()),
            Some(Event::Failed(failure)) => return Err(failed(failure.to_string())),
            None => return Err(failed("it ended without a word".into())),
        }
    }
}

fn one_token() -> GenerateRequest {
    GenerateRequest {
        prompt: vec![0],
        sampling: SamplingParams {
            temperature: 0.0,
            ..SamplingParams::default()
        },
        max_tokens: Some(1),
        ignore_eos: true,
        ..GenerateRequest::default()
    }
}
