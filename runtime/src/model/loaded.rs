//! A model that was loaded from a checkpoint, and the step that turns a batch into logits or vectors.
//!
//! Joins what the other files make: a description, its program, the weights, and the executor.

mod profile;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::check::{Limits, check_batch, inconsistent};
use super::checkpoint::LoadProgress;
use super::config::{Fields, eos_token_ids, invalid, read_json};
use super::error::ModelError;
use super::executor::{Executor, Parts};
use super::families;
use super::kv_layout::KvLayout;
use super::modules::{Modules, trained_len};
use super::overrides::Overrides;
use super::pooling::{Pooling, PoolingKind};
use super::program::lower;
use super::quantization::quantisable;
use super::rope::RopeSpec;
use super::source::{LoadOptions, Source};
use super::spec::{Matrix, ModelSpec, Projection, Task as TaskSpec};
use super::step_limits::{DeviceMemory, StepLimits};
use super::unread;
#[cfg(feature = "cuda")]
use crate::batch::LateInput;
use crate::batch::{Batch, DrawSpec, Forward, KvGroup, StepError, StepOutput};

/// Largest hf_quant_config.json: the largest ones list a few thousand layers.
const QUANTIZATION_BYTES_MAX: u64 = 8 << 20;

/// What a model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Continuing a text.
    Generate,
    /// Making a vector of a text.
    Embed {
        /// Whether vectors are to have length 1.
        normalises: bool,
        /// The token whose activations are the vector: a text is to end with it.
        closing_token: Option<u32>,
    },
    /// Scoring how well two texts go together: the pooled vector is one raw score per label.
    Score {
        /// Labels.
        n_labels: usize,
    },
}

/// Facts about a loaded model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// The name in config.json's `architectures`.
    pub architecture: String,
    /// What it is for.
    pub task: Task,
    /// Length of a row of logits.
    pub vocab_size: usize,
    /// Length of a vector of an embedding model.
    pub embedding_size: usize,
    /// Longest sequence, prompt and answer together.
    pub max_model_len: u32,
    /// Tokens that end an answer.
    pub eos_token_ids: Vec<u32>,
    /// Layers.
    pub n_layers: usize,
    /// Parameters, a shared embedding counted once.
    pub n_params: u64,
    /// Bytes of the weights in memory.
    pub weights_bytes: u64,
    /// Bytes that a token takes in the KV cache, in all groups of [`Forward::kv_groups`] together.
    pub kv_bytes_per_token: u64,
    /// What computes it: the processor, or the name of a card.
    pub device: String,
    /// Dtype of the weights in memory: `float32`, `float16` or `bfloat16`.
    pub dtype: &'static str,
    /// The type of the numbers in the KV cache: one of those, `fp8_e4m3` or `fp8_e5m2`.
    pub kv_cache_dtype: &'static str,
    /// Kinds of segments; `None` if the model does not tell segments apart.
    pub n_token_types: Option<usize>,
}

/// A loaded model with its KV cache.
#[derive(Debug)]
pub struct Model {
    info: ModelInfo,
    ropes: Vec<RopeSpec>,
    is_causal: bool,
    /// How vectors are made, `None` if the model generates.
    pooling: Option<Pooling>,
    executor: Executor,
    /// The pooled vectors of a step, one after another.
    pooled: Vec<f32>,
    /// The step that is computed when it is collected.
    submitted: Option<Arc<Batch>>,
}

impl Model {
    /// Whether the checkpoint in `dir` can be run at all. Reads its configuration only, and so takes no time.
    ///
    /// # Errors
    /// [`ModelError`] for an architecture or an option that is not implemented, or a configuration that cannot be read.
    pub fn check(dir: &Path) -> Result<(), ModelError> {
        described(dir, &Overrides::default()).map(|_| ())
    }

    /// Loads the checkpoint in `dir` with all threads. Calls `progress` after each tensor.
    ///
    /// # Errors
    /// See [`ModelError`]; nothing is kept then.
    pub fn load(
        dir: &Path,
        options: &LoadOptions,
        progress: &(dyn Fn(LoadProgress) + Sync),
    ) -> Result<Model, ModelError> {
        let Described {
            config,
            spec,
            pooling,
        } = described(dir, &options.overrides)?;
        let generation = Fields::read_generation_config(dir)?;
        warn_of_unknown(&unread::check(&config)?);
        let eos_token_ids = eos_token_ids(&config, generation.as_ref())?;
        let trained_len = match &spec.task {
            TaskSpec::Generate(_) => None,
            TaskSpec::Embed | TaskSpec::Classify(_) => trained_len(dir)?,
        };
        let max_model_len = max_model_len(spec.context_len, trained_len, options.max_model_len)?;

        let (network, list) = spec.numbered();
        let source = Source {
            dir,
            config: &config,
            options,
            progress,
        };
        let context = source.context()?;
        let layout = KvLayout::of(&network);
        let program = lower(&network, &layout, pooling.unwrap_or(Pooling::DEFAULT).kind);
        let parts = Parts {
            context,
            program,
            layout,
            ropes: &network.ropes,
            tokens: network.embedding.tokens,
            quantised: quantisable(&network),
        };
        let executor = parts.load(&options.device, &source, (&list, &spec.ignored))?;
        let info = ModelInfo {
            architecture: config.architecture()?.to_owned(),
            task: task(&spec, pooling, &eos_token_ids),
            vocab_size: spec.vocab_size,
            embedding_size: spec
                .projections
                .last()
                .map_or(spec.hidden_size, |last| last.weight.n_rows()),
            max_model_len,
            eos_token_ids,
            device: options.device.to_string(),
            n_layers: spec.layers.len(),
            n_params: list.n_params(),
            weights_bytes: executor.weights_bytes(),
            kv_bytes_per_token: executor.kv_bytes_per_token() as u64,
            dtype: executor.dtype(network.embedding.tokens).name(),
            kv_cache_dtype: executor.kv_cache_dtype().name(),
            n_token_types: network.embedding.types.map(|types| types.n_rows),
        };
        Ok(Model {
            info,
            is_causal: network.is_causal,
            pooling,
            executor,
            ropes: network.ropes,
            pooled: Vec::new(),
            submitted: None,
        })
    }

    /// Facts about it.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Bytes of the host's memory that the largest step takes: its activations and its result.
    pub fn step_bytes(&self, n_tokens_max: usize, n_outputs_max: usize) -> u64 {
        self.executor.step_bytes(n_tokens_max, n_outputs_max)
    }

    /// Takes the memory for steps within `limits`, so that no later step takes any, and returns what the device has left
    /// for a KV cache. `None` for the processor, which takes memory as it needs it.
    ///
    /// # Errors
    /// [`ModelError`] if the device has no memory for such steps.
    pub fn reserve(&mut self, limits: &StepLimits) -> Result<Option<DeviceMemory>, ModelError> {
        self.executor.reserve(limits)
    }

    /// Makes room for `n_blocks` blocks of `block_size` tokens, and for `n_host_blocks` that are swapped out;
    /// an earlier cache is gone.
    ///
    /// The cache has the type of the weights, or on the CPU that of [`LoadOptions::kv_cache_dtype`]. The CPU takes its
    /// memory as blocks are first written, a card at once.
    ///
    /// # Errors
    /// [`ModelError::Cache`] if there is no room or a size is zero.
    pub fn allocate_cache(
        &mut self,
        n_blocks: usize,
        block_size: usize,
        n_host_blocks: usize,
    ) -> Result<(), ModelError> {
        self.executor.allocate(n_blocks, block_size, n_host_blocks)
    }

    /// Runs one step and writes its result into `output`, whose memory is used again: a step that is not larger than
    /// an earlier one allocates nothing.
    ///
    /// # Errors
    /// A batch that contradicts itself or the cache (see [`StepError::Batch`]); nothing was computed then.
    pub fn compute(&mut self, batch: &Batch, output: &mut StepOutput) -> Result<(), StepError> {
        self.step(batch, output, None)
    }

    fn step(
        &mut self,
        batch: &Batch,
        output: &mut StepOutput,
        times: Option<&mut [Duration]>,
    ) -> Result<(), StepError> {
        self.check_batch(batch)?;
        match &mut self.executor {
            Executor::Cpu(cpu) => {
                cpu.move_blocks(&batch.moves)?;
                output.logits.vocab_size = self.info.vocab_size;
                if batch.rows.is_empty() {
                    output.logits.values.clear();
                    output.pooled.clear();
                    return Ok(());
                }
                if self.pooling.is_none() {
                    output.pooled.clear();
                    return cpu.execute(batch, &mut output.logits.values, times);
                }
                output.logits.values.clear();
                cpu.execute(batch, &mut self.pooled, times)?;
            }
            #[cfg(feature = "cuda")]
            Executor::Cuda(cuda) => {
                cuda.submit(batch, &vec![DrawSpec::Logits; batch.logits_at.len()])?;
                *output = cuda.collect()?;
                return Ok(());
            }
        }
        let n_pooled = batch.pooled_rows.len();
        output.pooled.resize_with(n_pooled, Vec::new);
        let width = self.pooled.len().checked_div(n_pooled).unwrap_or(1);
        for (to, from) in output.pooled.iter_mut().zip(self.pooled.chunks_exact(width)) {
            to.clear();
            to.extend_from_slice(from);
        }
        Ok(())
    }

    /// Runs one step: moves blocks, writes the keys and values of the batch's tokens to their slots, and
    /// returns all the logits and the pooled vectors that the batch requests, in its order.
    ///
    /// # Errors
    /// As [`Model::compute`].
    pub fn forward(&mut self, batch: &Batch) -> Result<StepOutput, StepError> {
        let mut output = StepOutput::default();
        self.compute(batch, &mut output)?;
        Ok(output)
    }

    fn check_batch(&self, batch: &Batch) -> Result<(), StepError> {
        let cache = self.executor.cache_facts();
        if cache.n_blocks == 0 {
            return Err(inconsistent("there is no cache".to_owned()));
        }
        let limits = Limits {
            vocab_size: self.info.vocab_size,
            n_types: self.info.n_token_types,
            pools: self.pooling.is_some(),
            generates: self.pooling.is_none(),
            whole_prompts: self.whole_prompts(),
            groups: self.executor.groups(),
            block_size: cache.block_size,
            n_blocks: cache.n_blocks,
            n_host_blocks: cache.n_host_blocks,
        };
        check_batch(batch, &limits)
    }
}

impl Forward for Model {
    fn vocab_size(&self) -> usize {
        self.info.vocab_size
    }

    fn kv_groups(&self) -> Vec<KvGroup> {
        self.executor.groups().to_vec()
    }

    fn whole_prompts(&self) -> bool {
        let pools_all = self
            .pooling
            .is_some_and(|pooling| pooling.kind != PoolingKind::Last);
        !self.is_causal || pools_all
    }

    fn prefix_salt(&self, prompt_len: usize) -> u64 {
        // At most one of a model's rotary positions depends on the length.
        let variants = self.ropes.iter().map(|rope| rope.variant(prompt_len));
        variants.max().unwrap_or(0)
    }

    fn depth(&self) -> usize {
        match &self.executor {
            Executor::Cpu(_) => 1,
            #[cfg(feature = "cuda")]
            Executor::Cuda(_) => super::cuda::DEPTH,
        }
    }

    #[cfg_attr(
        not(feature = "cuda"),
        expect(unused_variables, reason = "the CPU draws nothing")
    )]
    fn submit(&mut self, batch: Arc<Batch>, draws: &[DrawSpec<'_>]) -> Result<(), StepError> {
        #[cfg(feature = "cuda")]
        if matches!(self.executor, Executor::Cuda(_)) {
            self.check_batch(&batch)?;
        }
        match &mut self.executor {
            Executor::Cpu(_) => self.submitted = Some(batch),
            #[cfg(feature = "cuda")]
            Executor::Cuda(cuda) => cuda.submit(&batch, draws)?,
        }
        Ok(())
    }

    #[cfg(feature = "cuda")]
    fn late(&mut self, inputs: &[LateInput<'_>]) -> Result<(), StepError> {
        match &mut self.executor {
            Executor::Cpu(_) => Ok(()),
            Executor::Cuda(cuda) => cuda.late(inputs),
        }
    }

    fn collect(&mut self) -> Result<StepOutput, StepError> {
        #[cfg(feature = "cuda")]
        if let Executor::Cuda(cuda) = &mut self.executor {
            return cuda.collect();
        }
        let batch = self.submitted.take().ok_or_else(StepError::not_submitted)?;
        self.forward(&batch)
    }
}

/// A checkpoint's configuration and what it says.
pub(super) struct Described {
    /// config.json with the rotary parameters of the settings.
    pub(super) config: Fields,
    /// The description.
    pub(super) spec: ModelSpec,
    /// How it makes vectors, if it does.
    pub(super) pooling: Option<Pooling>,
}

/// The description of the checkpoint in `dir` with what settings change in it.
pub(super) fn described(dir: &Path, overrides: &Overrides) -> Result<Described, ModelError> {
    let mut config = Fields::read_config(dir)?;
    overrides.write(&mut config)?;
    let (mut spec, pooling) = match describe(dir, &config, overrides) {
        Ok(described) => described,
        // What the model accepts without the setting is refused because of it.
        Err(error) if !overrides.keep_config() => {
            describe(dir, &Fields::read_config(dir)?, overrides)?;
            return Err(ModelError::Setting {
                setting: overrides.setting(),
                reason: error.to_string(),
            });
        }
        Err(error) => return Err(error),
    };
    overrides.check_read(&config)?;
    overrides.widen(&mut spec);
    Ok(Described {
        config,
        spec,
        pooling,
    })
}

fn describe(
    dir: &Path,
    config: &Fields,
    overrides: &Overrides,
) -> Result<(ModelSpec, Option<Pooling>), ModelError> {
    let mut spec = families::describe(config)?;
    check_quantization(dir, config)?;
    let stored = Modules::read(dir)?;
    let (stored, projections) = match stored {
        Some(modules) => (Some(modules.pooling), modules.projections),
        None => (None, Vec::new()),
    };
    check_sizes(&projections, spec.hidden_size)?;
    spec.projections = projections;
    let stored = overrides.assign(&mut spec, stored)?;
    let pooling = match &spec.task {
        TaskSpec::Embed => Some(stored.unwrap_or(Pooling::DEFAULT)),
        TaskSpec::Classify(classifier) => Some(Pooling {
            kind: classifier.pooling,
            normalises: false,
        }),
        TaskSpec::Generate(_) if stored.is_none() && !spec.is_causal => {
            return Err(ModelError::UnsupportedOption {
                option: "is_causal or use_bidirectional_attention",
                value: "attention to later tokens".to_owned(),
                supported: "decoders that look back only, and models that make vectors",
            });
        }
        // A decoder with a pooling module beside it is an embedding model that kept its name.
        TaskSpec::Generate(_) => {
            if stored.is_some() {
                spec.task = TaskSpec::Embed;
            }
            stored
        }
    };
    Ok((spec, pooling))
}

/// Checks that each projection reads what the one before it writes.
fn check_sizes(projections: &[Projection<Matrix>], hidden_size: usize) -> Result<(), ModelError> {
    let mut size = hidden_size;
    for projection in projections {
        let Matrix { n_cols, .. } = projection.weight;
        if n_cols != size {
            let reason = format!("is {n_cols}, and the vector before it has {size} elements");
            return Err(invalid("in_features", reason));
        }
        size = projection.weight.n_rows();
    }
    Ok(())
}

/// Refuses a checkpoint of ModelOpt, which names its quantization in a file of its own.
fn check_quantization(dir: &Path, config: &Fields) -> Result<(), ModelError> {
    const FILE: &str = "hf_quant_config.json";
    if config.object("quantization_config")?.is_some() {
        return Ok(());
    }
    let Some(file) = read_json(&dir.join(FILE), QUANTIZATION_BYTES_MAX)? else {
        return Ok(());
    };
    let inner = file.object("quantization")?.unwrap_or(file);
    let algorithm = inner.text(&["quant_algo"])?.unwrap_or("unnamed");
    Err(ModelError::UnsupportedOption {
        option: FILE,
        value: algorithm.to_owned(),
        supported: "unquantized checkpoints",
    })
}

/// Where the last token counts, that is the end of the text: of several tokens that end an answer the last one, for
/// those before it end a turn.
fn task(spec: &ModelSpec, pooling: Option<Pooling>, eos: &[u32]) -> Task {
    match &spec.task {
        TaskSpec::Generate(_) => Task::Generate,
        TaskSpec::Classify(classifier) => Task::Score {
            n_labels: classifier.out.n_rows(),
        },
        TaskSpec::Embed => Task::Embed {
            normalises: pooling.is_some_and(|pooling| pooling.normalises),
            closing_token: pooling
                .filter(|pooling| pooling.kind == PoolingKind::Last)
                .and_then(|_| eos.last().copied()),
        },
    }
}

/// The longest sequence: the requested one, if the model's context allows it; else the context, or the length that an
/// embedding model was trained for.
pub(super) fn max_model_len(
    context_len: usize,
    trained_len: Option<usize>,
    asked: Option<u32>,
) -> Result<u32, ModelError> {
    let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let limit = length(context_len);
    match asked {
        None => Ok(trained_len.map_or(limit, length).min(limit)),
        Some(asked) if (1..=limit).contains(&asked) => Ok(asked),
        Some(asked) => Err(ModelError::MaxModelLen { asked, limit }),
    }
}
/// Names fields of config.json that nothing has read.
fn warn_of_unknown(unknown: &[String]) {
    if !unknown.is_empty() {
        let fields = unknown.join(", ");
        tracing::warn!(
            fields,
            "config.json has fields that this version does not know and passes over"
        );
    }
}
