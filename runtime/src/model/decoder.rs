//! A model in memory: weights, a paged KV cache, and the step that turns a batch into logits or vectors.
//!
//! Executes what a description says, with the ops of `kernels`. Must not know families or files' names
//! beyond the description.

mod attention;
mod cache;
mod check;
mod ffn;
mod step;

use std::path::Path;
use std::sync::Arc;

use kernels::{CpuContext, Weight, embed};

use super::checkpoint::{Checkpoint, Dummy, Linear, LoadFormat, Loaded, Loader};
use super::config::{Fields, SpecialTokens};
use super::pooling::{Pooling, PoolingKind};
use super::spec::{Convert as _, ModelSpec, Task as TaskSpec};
use super::{DtypeChoice, LoadProgress, ModelError, families};
use crate::batch::{Batch, DrawSpec, Forward, KvGroup, StepError, StepOutput};

use cache::{Cache, Layout};
use check::{Limits, check_batch, inconsistent};
use step::Step;

/// How to load a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Which files to read the weights from.
    pub format: LoadFormat,
    /// In which dtype to keep the weights.
    pub dtype: DtypeChoice,
    /// Compute threads; by default as many as the process may use.
    pub n_threads: Option<usize>,
    /// Longest sequence; by default the model's context.
    pub max_model_len: Option<u32>,
}

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
    /// Telling how well two texts go together: the pooled vector is one raw score per label.
    Score {
        /// Labels.
        n_labels: usize,
    },
}

/// What is known of a loaded model.
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
    /// Token that begins a text.
    pub bos_token_id: Option<u32>,
    /// Layers.
    pub n_layers: usize,
    /// Parameters, a shared embedding counted once.
    pub n_params: u64,
    /// Bytes of the weights in memory.
    pub weights_bytes: u64,
    /// Bytes that a token takes in the KV cache, in each of the groups of [`Forward::kv_groups`].
    pub kv_bytes_per_token: u64,
    /// Dtype of the weights in memory: `float32`, `float16` or `bfloat16`.
    pub dtype: &'static str,
}

/// A loaded model with its KV cache.
#[derive(Debug)]
pub struct Model {
    context: CpuContext,
    info: ModelInfo,
    network: Loaded,
    /// How vectors are made, `None` if the model generates.
    pooling: Option<Pooling>,
    /// Factors that give the head's rows length 1, where the model wants that.
    head_scales: Option<Vec<f32>>,
    cache: Cache,
    /// The step that is computed when it is collected.
    submitted: Option<Arc<Batch>>,
}

impl Model {
    /// Whether the checkpoint in `dir` can be run at all, told by its configuration alone and so in no time.
    ///
    /// # Errors
    /// [`ModelError`] for an architecture or an option that is not implemented, or a configuration that cannot be read.
    pub fn check(dir: &Path) -> Result<(), ModelError> {
        describe(dir, &Fields::read_config(dir)?).map(|_| ())
    }

    /// Loads the checkpoint in `dir` with all threads, telling `progress` after each tensor.
    ///
    /// # Errors
    /// See [`ModelError`]; nothing is kept then.
    pub fn load(
        dir: &Path,
        options: &LoadOptions,
        progress: &(dyn Fn(LoadProgress) + Sync),
    ) -> Result<Model, ModelError> {
        let config = Fields::read_config(dir)?;
        let generation = Fields::read_generation_config(dir)?;
        let (spec, pooling) = describe(dir, &config)?;
        let tokens = SpecialTokens::from(&config, generation.as_ref())?;
        let max_model_len = max_model_len(&spec, options.max_model_len)?;
        let n_threads = options.n_threads.unwrap_or_else(available_threads);
        let context = CpuContext::new(n_threads)?;
        let (network, n_params, weights_bytes) = if options.format == LoadFormat::Dummy {
            let dummy = Dummy::new(options.dtype, config.dtype()?);
            let network = context.enter(|| dummy.network(&spec))?;
            let n_params = spec
                .tensors()?
                .iter()
                .map(|t| t.shape.iter().product::<usize>() as u64)
                .sum();
            (network, n_params, dummy.weights_bytes())
        } else {
            let checkpoint = Checkpoint::open(dir, options.format, &spec.tensors()?, &spec.ignored)?;
            let loader = Loader::new(&checkpoint, options.dtype, progress);
            let network = context.enter(|| loader.network(&spec))?;
            (network, checkpoint.n_params(), loader.weights_bytes())
        };
        let layout = Layout::of(&network);
        let info = ModelInfo {
            architecture: config.architecture()?.to_owned(),
            task: task(&network, pooling, &tokens.eos),
            vocab_size: spec.vocab_size,
            embedding_size: spec.hidden_size,
            max_model_len,
            eos_token_ids: tokens.eos,
            bos_token_id: tokens.bos,
            n_layers: spec.layers.len(),
            n_params,
            weights_bytes,
            kv_bytes_per_token: layout.slot_bytes() as u64,
            dtype: network.embedding.tokens.weight.dtype().name(),
        };
        Ok(Model {
            head_scales: head_scales(&context, &network)?,
            cache: Cache::empty(layout),
            submitted: None,
            context,
            info,
            network,
            pooling,
        })
    }

    /// What is known of it.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The instruction set and the number of threads it computes with, for the log.
    pub fn compute(&self) -> (&'static str, usize) {
        (self.context.isa().name(), self.context.n_threads())
    }

    /// Makes room for `n_blocks` blocks of `block_size` tokens, and for `n_host_blocks` that are swapped out;
    /// an earlier cache is gone.
    ///
    /// The cache is in f32: the engine promises the reference's greedy tokens, and 16-bit keys would move
    /// logits by more than many a margin between two tokens. Memory is taken as blocks are first written.
    ///
    /// # Errors
    /// [`ModelError::Cache`] if there is no room or a size is zero.
    pub fn allocate_cache(
        &mut self,
        n_blocks: usize,
        block_size: usize,
        n_host_blocks: usize,
    ) -> Result<(), ModelError> {
        self.cache.allocate(n_blocks, block_size, n_host_blocks)
    }

    /// Runs one step: moves blocks, writes the keys and values of the batch's tokens to their slots, and
    /// returns all the logits and the pooled vectors that the batch asks for, in its order.
    ///
    /// # Errors
    /// A batch that contradicts itself or the cache (see [`StepError::Batch`]); nothing was computed then.
    pub fn forward(&mut self, batch: &Batch) -> Result<StepOutput, StepError> {
        self.check_batch(batch)?;
        self.cache.move_blocks(&batch.moves)?;
        if batch.rows.is_empty() {
            return Ok(StepOutput::default());
        }
        let Model {
            context,
            info,
            network,
            pooling,
            head_scales,
            cache,
            submitted: _,
        } = self;
        let step = Step::new(context, network, batch);
        context.enter(|| {
            let x = step.hidden(cache)?;
            let mut output = StepOutput::default();
            output.logits.vocab_size = info.vocab_size;
            if let TaskSpec::Generate(head) = &network.task {
                let d = network.hidden_size;
                let wanted = batch.logits_at.iter().map(|&at| at as usize);
                let rows = wanted.flat_map(|at| &x[at * d..(at + 1) * d]).copied().collect();
                output.logits.values = step.logits(head, head_scales.as_deref(), rows)?;
            }
            if let Some(pooling) = pooling {
                for &row in &batch.pooled_rows {
                    output.pooled.push(step.pooled(pooling.kind, &x, row as usize)?);
                }
            }
            Ok(output)
        })
    }
    fn check_batch(&self, batch: &Batch) -> Result<(), StepError> {
        if self.cache.n_blocks() == 0 {
            return Err(inconsistent("there is no cache".to_owned()));
        }
        let types = self.network.embedding.types.as_ref();
        let limits = Limits {
            vocab_size: self.info.vocab_size,
            n_types: types.map(|types| types.weight.n_rows()),
            pools: self.pooling.is_some(),
            generates: self.pooling.is_none(),
            whole_prompts: self.whole_prompts(),
            cache: &self.cache,
        };
        check_batch(batch, &limits)
    }
}

impl Forward for Model {
    fn vocab_size(&self) -> usize {
        self.info.vocab_size
    }

    fn kv_groups(&self) -> Vec<KvGroup> {
        self.cache.groups().to_vec()
    }

    fn whole_prompts(&self) -> bool {
        let pools_all = self
            .pooling
            .is_some_and(|pooling| pooling.kind != PoolingKind::Last);
        !self.network.is_causal || pools_all
    }

    fn prefix_salt(&self, prompt_len: usize) -> u64 {
        // At most one of a model's rotary positions depends on the length.
        let variants = self.network.ropes.iter().map(|rope| rope.variant(prompt_len));
        variants.max().unwrap_or(0)
    }

    fn submit(&mut self, batch: Arc<Batch>, _: &[DrawSpec<'_>]) -> Result<(), StepError> {
        self.submitted = Some(batch);
        Ok(())
    }

    fn collect(&mut self) -> Result<StepOutput, StepError> {
        let batch = self.submitted.take().ok_or_else(StepError::not_submitted)?;
        self.forward(&batch)
    }
}

/// The description of the checkpoint in `dir`, and how it makes vectors if it does.
fn describe(dir: &Path, config: &Fields) -> Result<(ModelSpec, Option<Pooling>), ModelError> {
    let mut spec = families::describe(config)?;
    let stored = Pooling::read(dir)?;
    let pooling = match &spec.task {
        TaskSpec::Embed => Some(stored.unwrap_or(Pooling::DEFAULT)),
        TaskSpec::Classify { .. } => Some(Pooling {
            kind: PoolingKind::First,
            normalises: false,
        }),
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

/// Where the last token counts, that is the end of the text: of several tokens that end an answer the last one, for
/// those before it end a turn.
fn task(network: &Loaded, pooling: Option<Pooling>, eos: &[u32]) -> Task {
    match &network.task {
        TaskSpec::Generate(_) => Task::Generate,
        TaskSpec::Classify { out, .. } => Task::Score {
            n_labels: out.weight.n_rows(),
        },
        TaskSpec::Embed => Task::Embed {
            normalises: pooling.is_some_and(|pooling| pooling.normalises),
            closing_token: pooling
                .filter(|pooling| pooling.kind == PoolingKind::Last)
                .and_then(|_| eos.last().copied()),
        },
    }
}

/// One over the length of each row of the head, where the model wants rows of length 1.
fn head_scales(context: &CpuContext, network: &Loaded) -> Result<Option<Vec<f32>>, ModelError> {
    let TaskSpec::Generate(head) = &network.task else {
        return Ok(None);
    };
    if !head.has_unit_rows {
        return Ok(None);
    }
    let Linear { weight, .. } = head.weight.as_ref().unwrap_or(&network.embedding.tokens);
    let mut scales = Vec::with_capacity(weight.n_rows());
    for row in 0..weight.n_rows() as u32 {
        scales.push(1.0 / length(context, weight, row)?);
    }
    Ok(Some(scales))
}

/// The Euclidean length of a row.
fn length(context: &CpuContext, weight: &Weight, row: u32) -> Result<f32, ModelError> {
    let mut values = vec![0.0; weight.n_cols()];
    embed(context, weight, &[row], &mut values)?;
    let squares: f64 = values.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    // A row of zeros has no direction; transformers' normalize keeps it zero the same way.
    Ok((squares.sqrt() as f32).max(1e-12))
}

/// The longest sequence: what is asked, if the model's context allows it.
fn max_model_len(spec: &ModelSpec, asked: Option<u32>) -> Result<u32, ModelError> {
    let limit = u32::try_from(spec.context_len).unwrap_or(u32::MAX);
    match asked {
        None => Ok(limit),
        Some(asked) if (1..=limit).contains(&asked) => Ok(asked),
        Some(asked) => Err(ModelError::MaxModelLen { asked, limit }),
    }
}

/// Threads this process may use; one if the system does not say.
fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
