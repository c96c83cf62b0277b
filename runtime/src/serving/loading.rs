//! From settings to an engine that has answered once: download, tokenizer, weights, cache, warm-up.
//!
//! Reports its progress to the start-up tracker. Must not know HTTP.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crds::failure::chain;
use crds::settings::{CHUNKS_ANYWAY, EngineSettings};
use serde_json::{Map, Value};

use super::capacity::{self, Demand};
use super::files::{self, own_tokenizer};
use super::from_settings::{load_options, overrides};
use super::memory::{self, Growth};
use super::{LoadError, Serving, quantization};
use crate::batch::Forward;
use crate::chat_template::{ChatTemplate, Conversation, Ending, NamedTemplate};
use crate::config::{ModelSource, ServeConfig};
use crate::engine::scheduler::N_SCORED_MAX;
use crate::engine::{
    Engine, EngineConfig, Event, GenerateRequest, Pace, PoolRequest, PreemptionMode, SamplingParams,
};
use crate::fetch::Manifest;
use crate::grammar::{GrammarError, Grammars};
use crate::model::PoolingConfig;
use crate::model::{DeviceMemory, Model, ModelInfo, Outline, StepLimits, Task};
use crate::parsers::{FormatNames, Formats, Template, UnknownParser};
use crate::startup::Stage;
use crate::startup::StartupTracker;
use crate::tokenizer::Tokenizer;

/// Bytes of a GiB.
const GIB: u64 = 1 << 30;

/// From settings to an engine that has answered once.
///
/// # Errors
/// [`LoadError`] for the first step that fails.
pub async fn load(config: Arc<ServeConfig>, startup: StartupTracker) -> Result<Serving, LoadError> {
    // An unknown name is refused before the download starts.
    let formats = FormatNames::of(&config.openai)?;
    let load = Loading { config, startup };
    let (directory, tokenizer) = files::directories(&load.config, &load.startup).await?;
    let worker = load.clone();
    let loading = tokio::task::spawn_blocking(move || worker.load_files(&directory, &tokenizer, &formats));
    let (mut serving, growth) = loading.await.map_err(|_| LoadError::Panicked)??;
    load.startup.enter(Stage::WarmingUp);
    warm_up(&serving.engine, &serving.info).await?;
    serving.memory_bytes = memory::bytes_max(growth);
    Ok(serving)
}

/// Whether a model's directory can be served with these settings, as far as it shows without loading weights. A
/// repository is not downloaded, so nothing shows of it.
///
/// # Errors
/// [`LoadError`] for the first step of [`load`] that would fail.
pub fn check(config: &ServeConfig) -> Result<(), LoadError> {
    let formats = FormatNames::of(&config.openai)?;
    let ModelSource::Directory(directory) = &config.model else {
        return Ok(());
    };
    let outline = Outline::read_with(directory, &overrides(&config.engine))?;
    outline.check_length(config.engine.max_model_len())?;
    quantization::check(&config.engine)?;
    outline.check_weights(directory)?;
    let tokenizer = match &config.tokenizer {
        Some(ModelSource::Directory(tokenizer)) => tokenizer.clone(),
        Some(ModelSource::Repository(_)) | None => own_tokenizer(directory),
    };
    let tokenizer = load_tokenizer(config, &tokenizer, outline.vocab_size)?;
    let template = template(config, config.conv_template.map(NamedTemplate::of), &tokenizer)?;
    formats_of(template.as_ref(), &formats)?;
    crate::api::request::Defaults::load(directory)?;
    PoolingConfig::read(directory)?;
    Ok(())
}

/// What every step of loading reads and reports to.
#[derive(Clone)]
struct Loading {
    config: Arc<ServeConfig>,
    startup: StartupTracker,
}

impl Loading {
    /// The engine and what it needs beside it, from files on this machine; and the memory that it may still take.
    fn load_files(
        &self,
        directory: &Path,
        tokenizer: &Path,
        formats: &FormatNames,
    ) -> Result<(Serving, Growth), LoadError> {
        let Self { config, startup } = self;
        let outline = Outline::read_with(directory, &overrides(&config.engine))?;
        let tokenizer = load_tokenizer(config, tokenizer, outline.vocab_size)?;
        let named = config.conv_template.map(NamedTemplate::of);
        let template = template(config, named, &tokenizer)?;
        let formats = formats_of(template.as_ref(), formats)?;
        tracing::info!(
            tool_call_parser = formats.calls.map_or("none", |format| format.names[0]),
            reasoning_parser = formats.reasoning.map_or("none", |format| format.names[0]),
            "parsers chosen"
        );
        let options = load_options(&config.engine, &outline)?;
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
        check_token_types(&tokenizer, &info)?;
        let stops = named.map_or(&[][..], |named| named.stops);
        let stops = stops.iter().filter_map(|stop| tokenizer.tokens().id_of(stop));
        info.eos_token_ids.extend(stops);
        let grammars = if tokenizer.is_skipped() {
            Err(GrammarError::Vocabulary {
                reason: "there is no tokenizer (SKIP_TOKENIZER_INIT)".to_owned(),
            })
        } else {
            Grammars::new(tokenizer.tokens(), &info.eos_token_ids, info.vocab_size)
        };
        if let Err(error) = &grammars {
            tracing::warn!(%error, "there are no structured outputs");
        }
        let (engine, growth) = sized_engine(model, &info, config, |model| Box::new(model))?;
        let serving = Serving {
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
            memory_bytes: None,
            info,
        };
        Ok((serving, growth))
    }
}

/// The tokenizer in a folder, or none for a vocabulary of `n_ids` tokens.
fn load_tokenizer(config: &ServeConfig, folder: &Path, n_ids: usize) -> Result<Tokenizer, LoadError> {
    if config.skip_tokenizer {
        return Ok(Tokenizer::skipped(n_ids));
    }
    Ok(Tokenizer::load(folder)?)
}

/// Checks that the model has every kind of segment with which the tokenizer marks pairs. A text of its own is kind 0.
fn check_token_types(tokenizer: &Tokenizer, info: &ModelInfo) -> Result<(), LoadError> {
    let (Some(n_token_types), Ok(pair)) = (info.n_token_types, tokenizer.encode_pair("a", "b")) else {
        return Ok(());
    };
    match pair.token_types.into_iter().max() {
        Some(written) if written as usize >= n_token_types => Err(LoadError::TokenTypes {
            written,
            n_token_types,
        }),
        Some(_) | None => Ok(()),
    }
}

/// Starts the engine as a server would, of a model that `wrap` may put something around.
///
/// # Errors
/// [`LoadError`] if there is no memory for the cache, or no engine of the configured sizes.
pub fn start_engine(
    model: Model,
    info: &ModelInfo,
    config: &ServeConfig,
    wrap: impl FnOnce(Model) -> Box<dyn Forward + Send>,
) -> Result<Engine, LoadError> {
    sized_engine(model, info, config, wrap).map(|(engine, _)| engine)
}

/// Sizes the cache by the memory that is left, and starts the engine.
fn sized_engine(
    mut model: Model,
    info: &ModelInfo,
    config: &ServeConfig,
    wrap: impl FnOnce(Model) -> Box<dyn Forward + Send>,
) -> Result<(Engine, Growth), LoadError> {
    let settings = &config.engine;
    let block_size = settings.block_size() as usize;
    let max_concurrency = config.serving.max_concurrency() as usize;
    let max_model_len = info.max_model_len as usize;
    let groups = model.kv_groups();
    let demand = Demand {
        kv_bytes_per_token: info.kv_bytes_per_token,
        groups: &groups,
        block_size,
        max_model_len,
        max_num_seqs: max_concurrency.min(settings.max_num_seqs() as usize),
    };
    let is_chunked = !settings.wants_whole_prompts(info.max_model_len);
    if is_chunked && !model.whole_prompts() {
        warn_of_chunks(settings, max_model_len);
    }
    // A prompt that must be computed in one step would else be refused although the model can read it.
    let n_step_tokens_min = if model.whole_prompts() { max_model_len } else { 1 };
    let max_num_batched_tokens = n_step_tokens_min.max(settings.max_num_batched_tokens() as usize);
    let n_sequences = demand.max_num_seqs.min(max_num_batched_tokens);
    let device_memory = model.reserve(&StepLimits {
        n_tokens: max_num_batched_tokens,
        n_sequences,
        n_logits: n_sequences + N_SCORED_MAX,
        context_len: max_model_len,
        block_size,
    })?;
    let (n_blocks, n_host_blocks) = cache_sizes(demand, settings, device_memory)?;
    model.allocate_cache(n_blocks, block_size, n_host_blocks)?;
    // The cache of a device is in its own memory.
    let is_host = device_memory.is_none();
    let growth = Growth {
        cache_bytes: if is_host {
            demand.bytes_per_block() * n_blocks as u64
        } else {
            0
        },
        host_bytes: demand.bytes_per_block() * n_host_blocks as u64,
        host_share: settings.preemption_cpu_capacity() / 100.0,
        step_bytes: model.step_bytes(max_num_batched_tokens, demand.max_num_seqs + N_SCORED_MAX),
    };
    let engine = Engine::start(
        wrap(model),
        EngineConfig {
            n_blocks,
            n_host_blocks,
            block_size,
            enable_chunked_prefill: is_chunked,
            pace: Pace::of(settings),
            enable_prefix_caching: settings.enable_prefix_caching(),
            preemption_mode: settings.preemption_mode(),
            scheduling_policy: settings.scheduling_policy(),
            max_num_seqs: demand.max_num_seqs,
            max_num_batched_tokens,
            max_model_len,
            max_waiting: max_concurrency,
            seed: settings.seed(),
            eos_token_ids: info.eos_token_ids.as_slice().into(),
        },
    )?;
    Ok((engine, growth))
}

/// Warns that prompts are computed in chunks though this is switched off. Where the settings alone decide it, the start of
/// the log has said it.
fn warn_of_chunks(settings: &EngineSettings, max_model_len: usize) {
    let is_news = settings.max_model_len.is_none() && settings.max_num_batched_tokens.is_some();
    if is_news && !settings.enable_chunked_prefill() {
        tracing::warn!(
            max_model_len,
            "ENABLE_CHUNKED_PREFILL has no effect: {CHUNKS_ANYWAY}"
        );
    }
}

/// Blocks of the cache and of the host memory that blocks are swapped out to.
fn cache_sizes(
    demand: Demand<'_>,
    settings: &EngineSettings,
    device_memory: Option<DeviceMemory>,
) -> Result<(usize, usize), LoadError> {
    let bytes_free = capacity::bytes_free();
    let n_blocks = match (settings.num_gpu_blocks_override(), device_memory) {
        (Some(n_blocks), _) => n_blocks as usize,
        (None, None) => capacity::n_blocks(demand, capacity::of_host(bytes_free))?,
        (None, Some(memory)) => {
            let bytes_available = capacity::of_device(memory, settings.gpu_memory_utilization());
            capacity::n_blocks(demand, bytes_available).map_err(LoadError::DeviceCapacity)?
        }
    };
    let n_host_blocks = match settings.preemption_mode() {
        PreemptionMode::Recompute => 0,
        PreemptionMode::Swap | PreemptionMode::Save => {
            let swap_space_bytes = u64::from(settings.swap_space()) * GIB;
            let share = settings.preemption_cpu_capacity() / 100.0;
            capacity::n_host_blocks(
                demand,
                swap_space_bytes,
                capacity::for_swapping(bytes_free, share),
            )
        }
    };
    Ok((n_blocks, n_host_blocks))
}

/// The formats of a model's answers, which its template shows.
fn formats_of(template: Option<&ChatTemplate>, names: &FormatNames) -> Result<Formats, UnknownParser> {
    let Some(template) = template else {
        return names.formats(None);
    };
    let render = |messages: Vec<Value>, tools: Value| {
        let conversation = Conversation {
            messages,
            ending: Ending::Messages,
            variables: Map::from_iter([("tools".to_owned(), tools)]),
        };
        template.render(&conversation).ok()
    };
    names.formats(Some(&Template {
        source: template.source(),
        render: &render,
    }))
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
    tracing::info!(content_format = %template.content_format(), "chat template loaded");
    Ok(Some(template))
}

/// Computes one token, so that the first client does not wait for cold pages.
async fn warm_up(engine: &Engine, info: &ModelInfo) -> Result<(), LoadError> {
    let failed = |reason: String| LoadError::WarmUp { reason };
    let mut tickets = match info.task {
        Task::Generate => engine.submit(vec![one_token()]),
        Task::Embed { .. } | Task::Score { .. } => engine.submit_pooling(vec![PoolRequest {
            prompt: vec![0].into(),
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
        prompt: vec![0].into(),
        sampling: SamplingParams {
            temperature: 0.0,
            ..SamplingParams::default()
        }
        .into(),
        max_tokens: Some(1),
        ignore_eos: true,
        ..GenerateRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::KvGroup;
    use crate::config::{self, Environment, ServeArguments};

    #[test]
    fn swapped_blocks_have_their_share_of_the_memory() {
        let demand = Demand {
            kv_bytes_per_token: 1 << 20,
            groups: &[KvGroup { window: None }],
            block_size: 16,
            max_model_len: 64,
            max_num_seqs: 4,
        };
        let n_host_blocks = |capacity: f64, mode: PreemptionMode| {
            let settings = EngineSettings {
                num_gpu_blocks_override: Some(4),
                preemption_mode: Some(mode),
                preemption_cpu_capacity: Some(capacity),
                ..EngineSettings::default()
            };
            cache_sizes(demand, &settings, None).unwrap().1
        };
        assert_eq!(n_host_blocks(0.0, PreemptionMode::Swap), 0);
        assert!(n_host_blocks(20.0, PreemptionMode::Save) > 0);
        assert_eq!(n_host_blocks(20.0, PreemptionMode::Recompute), 0);
    }

    #[tokio::test]
    async fn an_unknown_parser_is_refused_before_the_download() {
        let flags = [("model", "org/name"), ("tool-call-parser", "unknown")];
        let arguments = ServeArguments {
            flags: flags.map(|(name, text)| (name.into(), text.into())).to_vec(),
            ..ServeArguments::default()
        };
        let config = config::resolve(&arguments, &Environment::default()).unwrap();
        let loaded = load(Arc::new(config), StartupTracker::new()).await;
        assert!(matches!(loaded, Err(LoadError::Parser(_))), "{loaded:?}");
    }
}
