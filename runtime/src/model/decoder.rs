//! The decoder: weights in memory, a paged KV cache, and the step that turns a batch into logits.
//!
//! Executes what a description says, with the ops of `kernels`. Must not know families or files' names
//! beyond the description.

use std::path::Path;

use kernels::{
    Attention, AttentionRow, CpuContext, DType, Gemm, KvCache, KvWrite, RmsNorm, Rope, RopeTable, Weight,
    add, attention, embed, gemm, kv_write, rms_norm, rope, silu_mul,
};

use super::config::{Fields, SpecialTokens};
use super::spec::{Bias, DecoderSpec, LinearNames, of_layer};
use super::weights::{Checkpoint, Tensor};
use super::{DtypeChoice, Forward, LoadProgress, ModelError, families};
use crate::engine::batch::{Batch, BatchRow, BlockId, BlockMove, HostBlockId, KvGroup, Logits, StepOutput};

/// How to load a model.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// In which dtype to keep the weights.
    pub dtype: DtypeChoice,
    /// Compute threads; by default as many as the process may use.
    pub n_threads: Option<usize>,
    /// Longest sequence; by default the model's context.
    pub max_model_len: Option<u32>,
}

/// What is known of a loaded model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelInfo {
    /// The name in config.json's `architectures`.
    pub architecture: String,
    /// Length of a row of logits.
    pub vocab_size: usize,
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
    /// Bytes that a token takes in the KV cache.
    pub kv_bytes_per_token: u64,
    /// Dtype of the weights in memory: `float32`, `float16` or `bfloat16`.
    pub dtype: &'static str,
}

/// A loaded model with its KV cache.
#[derive(Debug)]
pub struct Model {
    context: CpuContext,
    info: ModelInfo,
    decoder: Decoder,
    /// One per layer; empty until [`Model::allocate_cache`].
    cache: Vec<KvCache>,
    /// One per layer, for blocks that are swapped out; empty if there is no room for any.
    host: Vec<KvCache>,
}

/// The weights and how to run them.
#[derive(Debug)]
struct Decoder {
    spec: DecoderSpec,
    inv_freq: Vec<f32>,
    embed: Weight,
    layers: Vec<Layer>,
    final_norm: Vec<f32>,
    /// Absent if the embedding is the head.
    head: Option<Weight>,
}

/// One block.
#[derive(Debug)]
struct Layer {
    attention_norm: Vec<f32>,
    qkv: Linear,
    out: Linear,
    ffn_norm: Vec<f32>,
    gate_up: Linear,
    down: Linear,
}

/// A weight with its bias.
#[derive(Debug)]
struct Linear {
    weight: Weight,
    bias: Option<Vec<f32>>,
}

/// Rows that pass through the feed-forward part at once: enough to use the weight well, few enough that
/// the widest activation of an 8B model stays below 64 MB.
const FFN_ROWS: usize = 512;

impl Model {
    /// Whether the checkpoint in `dir` can be run at all, told by its configuration alone and so in no time.
    ///
    /// # Errors
    /// [`ModelError`] for an architecture or an option that is not implemented, or a configuration that cannot be read.
    pub fn check(dir: &Path) -> Result<(), ModelError> {
        families::describe(&Fields::read_config(dir)?).map(|_| ())
    }

    /// Loads the checkpoint in `dir`, telling `progress` after each tensor.
    ///
    /// # Errors
    /// See [`ModelError`]; nothing is kept then.
    pub fn load(
        dir: &Path,
        options: &LoadOptions,
        progress: &dyn Fn(LoadProgress),
    ) -> Result<Model, ModelError> {
        let config = Fields::read_config(dir)?;
        let generation = Fields::read_generation_config(dir)?;
        let spec = families::describe(&config)?;
        let tokens = SpecialTokens::from(&config, generation.as_ref())?;
        let max_model_len = max_model_len(&spec, options.max_model_len)?;
        let n_threads = options.n_threads.unwrap_or_else(available_threads);
        let context = CpuContext::new(n_threads)?;
        let checkpoint = Checkpoint::open(dir, &spec.tensors())?;
        let mut loader = Loader {
            checkpoint: &checkpoint,
            dtype: options.dtype,
            progress,
            bytes_done: 0,
        };
        let decoder = loader.decoder(spec)?;
        let spec = &decoder.spec;
        let slot_bytes = KvCache::slot_bytes(spec.n_kv_heads, spec.head_dim);
        let info = ModelInfo {
            architecture: config.architecture()?.to_owned(),
            vocab_size: spec.vocab_size,
            max_model_len,
            eos_token_ids: tokens.eos,
            bos_token_id: tokens.bos,
            n_layers: spec.n_layers(),
            n_params: checkpoint.n_params(),
            weights_bytes: decoder.weights_bytes(),
            kv_bytes_per_token: (slot_bytes * spec.n_layers()) as u64,
            dtype: decoder.embed.dtype().name(),
        };
        Ok(Model {
            context,
            info,
            decoder,
            cache: Vec::new(),
            host: Vec::new(),
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
        self.cache.clear();
        self.host.clear();
        self.cache = self.new_cache(n_blocks, block_size)?;
        if n_host_blocks > 0 {
            self.host = self.new_cache(n_host_blocks, block_size)?;
        }
        Ok(())
    }

    /// An empty cache of every layer.
    fn new_cache(&self, n_blocks: usize, block_size: usize) -> Result<Vec<KvCache>, ModelError> {
        let spec = &self.decoder.spec;
        let n_tokens = n_blocks as u128 * block_size as u128;
        let kv_bytes = n_tokens.saturating_mul(self.info.kv_bytes_per_token.into());
        let no_room = || ModelError::Cache {
            n_blocks,
            block_size,
            kv_bytes,
        };
        if kv_bytes == 0 || kv_bytes > isize::MAX as u128 {
            return Err(no_room());
        }
        (0..spec.n_layers())
            .map(|_| KvCache::new((n_blocks, block_size), (spec.n_kv_heads, spec.head_dim)))
            .collect::<Result<_, _>>()
            .map_err(|_| no_room())
    }

    /// Does checked moves in every layer.
    fn move_blocks(&mut self, moves: &[BlockMove]) -> Result<(), ModelError> {
        for &block_move in moves {
            for (layer, cache) in self.cache.iter_mut().enumerate() {
                match block_move {
                    BlockMove::Copy { from, to } => cache.copy_block(from.0, to.0)?,
                    BlockMove::SwapOut { from, to } => {
                        self.host[layer].copy_block_from(cache, from.0, to.0)?;
                    }
                    BlockMove::SwapIn { from, to } => {
                        cache.copy_block_from(&self.host[layer], from.0, to.0)?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Forward for Model {
    fn vocab_size(&self) -> usize {
        self.info.vocab_size
    }

    fn kv_groups(&self) -> Vec<KvGroup> {
        vec![KvGroup { window: None }]
    }

    fn whole_prompts(&self) -> bool {
        false
    }

    fn forward(&mut self, batch: &Batch) -> Result<StepOutput, ModelError> {
        let Some(first) = self.cache.first() else {
            return Err(inconsistent("there is no cache".to_owned()));
        };
        check_batch(batch, self.info.vocab_size, first)?;
        let n_host_blocks = self.host.first().map_or(0, KvCache::n_blocks);
        check_moves(&batch.moves, first.n_blocks(), n_host_blocks)?;
        let slots = slots(batch, first.block_size());
        self.move_blocks(&batch.moves)?;
        let Model {
            context,
            decoder,
            cache,
            info,
            host: _,
        } = self;
        let tables: Vec<Vec<u32>> = batch
            .rows
            .iter()
            .map(|row| row.block_tables[0].iter().map(|block| block.0).collect())
            .collect();
        let rows: Vec<AttentionRow<'_>> = batch
            .rows
            .iter()
            .zip(&tables)
            .map(|(row, block_table)| AttentionRow {
                query_len: row.query_len,
                context_len: row.context_len,
                block_table,
            })
            .collect();
        let work = Work {
            batch,
            slots: &slots,
            rows: &rows,
        };
        let values = context.enter(|| decoder.run(context, cache, work))?;
        let logits = Logits {
            values,
            vocab_size: info.vocab_size,
        };
        Ok(StepOutput {
            logits,
            pooled: Vec::new(),
        })
    }
}

/// A checked batch as the ops take it.
#[derive(Clone, Copy)]
struct Work<'a> {
    batch: &'a Batch,
    /// Slot of each new token.
    slots: &'a [u32],
    rows: &'a [AttentionRow<'a>],
}

impl Decoder {
    /// The logits of a checked batch. `[n_logits, vocab_size]`
    fn run(
        &self,
        context: &CpuContext,
        cache: &mut [KvCache],
        work: Work<'_>,
    ) -> Result<Vec<f32>, ModelError> {
        let batch = work.batch;
        let d = self.spec.hidden_size;
        let scale = self.spec.rope.attention_factor();
        let angles = RopeTable::new(&batch.positions, &self.inv_freq, scale);
        let mut x = vec![0.0; batch.tokens.len() * d];
        embed(context, &self.embed, &batch.tokens, &mut x)?;
        for ((layer, cache), window) in self.layers.iter().zip(cache).zip(&self.spec.windows) {
            let step = Step {
                context,
                spec: &self.spec,
                angles: &angles,
                work,
                window: *window,
            };
            step.attend(layer, cache, &mut x)?;
            for x in x.chunks_mut(FFN_ROWS * d) {
                step.feed_forward(layer, x)?;
            }
        }
        let wanted: Vec<f32> = batch
            .logits_at
            .iter()
            .flat_map(|&at| &x[at as usize * d..(at as usize + 1) * d])
            .copied()
            .collect();
        let mut normed = vec![0.0; wanted.len()];
        let eps = self.spec.norm_eps;
        rms_norm(
            context,
            RmsNorm {
                x: &wanted,
                weight: &self.final_norm,
                eps,
                y: &mut normed,
            },
        )?;
        let head = self.head.as_ref().unwrap_or(&self.embed);
        let mut logits = vec![0.0; batch.logits_at.len() * self.spec.vocab_size];
        gemm(
            context,
            Gemm {
                x: &normed,
                weight: head,
                bias: None,
                y: &mut logits,
            },
        )?;
        Ok(logits)
    }

    fn weights_bytes(&self) -> u64 {
        let linear = |linear: &Linear| {
            linear.weight.size_bytes() + linear.bias.as_ref().map_or(0, |bias| size_of_val(&bias[..]))
        };
        let layer = |layer: &Layer| {
            let norms = size_of_val(&layer.attention_norm[..]) + size_of_val(&layer.ffn_norm[..]);
            norms
                + [&layer.qkv, &layer.out, &layer.gate_up, &layer.down]
                    .map(linear)
                    .iter()
                    .sum::<usize>()
        };
        let edges = self.embed.size_bytes()
            + self.head.as_ref().map_or(0, Weight::size_bytes)
            + size_of_val(&self.final_norm[..]);
        (edges + self.layers.iter().map(layer).sum::<usize>()) as u64
    }
}

/// What the two halves of every layer share during a step.
struct Step<'a> {
    context: &'a CpuContext,
    spec: &'a DecoderSpec,
    angles: &'a RopeTable,
    work: Work<'a>,
    window: Option<usize>,
}

impl Step<'_> {
    /// `x += out(attention(norm(x)))`
    fn attend(&self, layer: &Layer, cache: &mut KvCache, x: &mut [f32]) -> Result<(), ModelError> {
        let DecoderSpec {
            n_heads,
            n_kv_heads,
            head_dim,
            ..
        } = *self.spec;
        let row_stride = (n_heads + 2 * n_kv_heads) * head_dim;
        let normed = self.norm(x, &layer.attention_norm)?;
        let mut qkv = self.linear(&normed, &layer.qkv)?;
        let turned = Rope {
            x: &mut qkv,
            row_stride,
            n_heads: n_heads + n_kv_heads,
            head_dim,
            table: self.angles,
        };
        rope(self.context, turned)?;
        let keys_at = n_heads * head_dim;
        kv_write(
            self.context,
            cache,
            KvWrite {
                x: &qkv,
                row_stride,
                keys_at,
                slots: self.work.slots,
            },
        )?;
        let mut attended = vec![0.0; self.work.batch.tokens.len() * n_heads * head_dim];
        let op = Attention {
            q: &qkv,
            q_stride: row_stride,
            n_heads,
            cache,
            rows: self.work.rows,
            scale: (head_dim as f32).powf(-0.5),
            window: self.window,
            out: &mut attended,
        };
        attention(self.context, op)?;
        let branch = self.linear(&attended, &layer.out)?;
        Ok(add(self.context, x, &branch)?)
    }

    /// `x += down(silu(gate) · up)` of `norm(x)`, for some rows.
    fn feed_forward(&self, layer: &Layer, x: &mut [f32]) -> Result<(), ModelError> {
        let width = self.spec.ffn_size;
        let normed = self.norm(x, &layer.ffn_norm)?;
        let gate_up = self.linear(&normed, &layer.gate_up)?;
        let mut gated = vec![0.0; gate_up.len() / 2];
        silu_mul(self.context, &gate_up, width, &mut gated)?;
        let branch = self.linear(&gated, &layer.down)?;
        Ok(add(self.context, x, &branch)?)
    }

    fn norm(&self, x: &[f32], weight: &[f32]) -> Result<Vec<f32>, ModelError> {
        let mut y = vec![0.0; x.len()];
        rms_norm(
            self.context,
            RmsNorm {
                x,
                weight,
                eps: self.spec.norm_eps,
                y: &mut y,
            },
        )?;
        Ok(y)
    }

    fn linear(&self, x: &[f32], linear: &Linear) -> Result<Vec<f32>, ModelError> {
        let Linear { weight, bias } = linear;
        let mut y = vec![0.0; x.len() / weight.n_cols() * weight.n_rows()];
        gemm(
            self.context,
            Gemm {
                x,
                weight,
                bias: bias.as_deref(),
                y: &mut y,
            },
        )?;
        Ok(y)
    }
}

/// Copies tensors from the mapped files into the layout of the ops.
struct Loader<'a> {
    checkpoint: &'a Checkpoint,
    dtype: DtypeChoice,
    progress: &'a dyn Fn(LoadProgress),
    bytes_done: u64,
}

impl Loader<'_> {
    fn decoder(&mut self, spec: DecoderSpec) -> Result<Decoder, ModelError> {
        let names = &spec.names;
        let embed = self.weight(&[(names.embed.to_owned(), spec.vocab_size)], spec.hidden_size)?;
        let layers = (0..spec.n_layers())
            .map(|idx| self.layer(&spec, idx))
            .collect::<Result<_, _>>()?;
        let final_norm = self.vector(&format!("{}.weight", names.final_norm))?;
        let head = match names.head {
            Some(head) => Some(self.weight(&[(head.to_owned(), spec.vocab_size)], spec.hidden_size)?),
            None => None,
        };
        Ok(Decoder {
            inv_freq: spec.rope.inv_freq(),
            embed,
            layers,
            final_norm,
            head,
            spec,
        })
    }

    fn layer(&mut self, spec: &DecoderSpec, idx: usize) -> Result<Layer, ModelError> {
        let names = &spec.names;
        Ok(Layer {
            attention_norm: self.vector(&of_layer(names.attention_norm, idx, "weight"))?,
            qkv: self.linear(&names.qkv, idx)?,
            out: self.linear(&names.out, idx)?,
            ffn_norm: self.vector(&of_layer(names.ffn_norm, idx, "weight"))?,
            gate_up: self.linear(&names.gate_up, idx)?,
            down: self.linear(&names.down, idx)?,
        })
    }

    fn linear(&mut self, names: &LinearNames, layer: usize) -> Result<Linear, ModelError> {
        let stem = |part: &str| part.replace("{i}", &layer.to_string());
        let parts: Vec<_> = names
            .parts
            .iter()
            .map(|&(part, n_rows)| (stem(part), n_rows))
            .collect();
        let weight = self.weight(&parts, names.n_cols)?;
        let bias = match names.bias {
            Bias::Absent => None,
            Bias::Present => {
                let pieces = parts.iter().map(|(part, _)| self.vector(&format!("{part}.bias")));
                Some(pieces.collect::<Result<Vec<_>, _>>()?.concat())
            }
        };
        Ok(Linear { weight, bias })
    }

    /// One weight of the rows of all parts; kept in their dtype if that is one, else in f32.
    fn weight(&mut self, parts: &[(String, usize)], n_cols: usize) -> Result<Weight, ModelError> {
        let checkpoint = self.checkpoint;
        let tensors = parts
            .iter()
            .map(|(part, n_rows)| Ok((checkpoint.tensor(&format!("{part}.weight"))?, *n_rows)))
            .collect::<Result<Vec<(Tensor<'_>, usize)>, ModelError>>()?;
        let first = tensors.first().map_or(DType::F32, |(tensor, _)| tensor.dtype);
        let stored = if tensors.iter().all(|(tensor, _)| tensor.dtype == first) {
            first
        } else {
            DType::F32
        };
        let n_rows = tensors.iter().map(|(_, n_rows)| n_rows).sum();
        let mut weight = Weight::zeroed(self.dtype.apply(stored), n_rows, n_cols)?;
        let mut row = 0;
        for (tensor, n_rows) in tensors {
            weight.write_rows(row, tensor.dtype, tensor.bytes)?;
            row += n_rows;
            self.report(tensor);
        }
        Ok(weight)
    }

    /// A norm or a bias, in f32 whatever the weights are in: it is small, and its rounding would show.
    fn vector(&mut self, name: &str) -> Result<Vec<f32>, ModelError> {
        let tensor = self.checkpoint.tensor(name)?;
        self.report(tensor);
        Ok(tensor.dtype.widen(tensor.bytes)?)
    }

    fn report(&mut self, done: Tensor<'_>) {
        self.bytes_done += done.bytes.len() as u64;
        let bytes_total = self.checkpoint.size_bytes();
        (self.progress)(LoadProgress {
            bytes_done: self.bytes_done,
            bytes_total,
        });
    }
}

/// The longest sequence: what is asked, if the model's context allows it.
fn max_model_len(spec: &DecoderSpec, asked: Option<u32>) -> Result<u32, ModelError> {
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

fn inconsistent(reason: String) -> ModelError {
    ModelError::Batch { reason }
}

/// Checks everything a batch says against itself, the vocabulary and the cache.
fn check_batch(batch: &Batch, vocab_size: usize, cache: &KvCache) -> Result<(), ModelError> {
    let n_tokens = batch.tokens.len();
    if batch.positions.len() != n_tokens {
        let n_positions = batch.positions.len();
        return Err(inconsistent(format!(
            "{n_tokens} tokens and {n_positions} positions"
        )));
    }
    if !batch.token_types.is_empty() || !batch.pooled_rows.is_empty() {
        return Err(inconsistent(
            "this model has neither token types nor pooled vectors".to_owned(),
        ));
    }
    if let Some(token) = batch.tokens.iter().find(|token| **token as usize >= vocab_size) {
        return Err(inconsistent(format!(
            "token {token} is not below the vocabulary's {vocab_size}"
        )));
    }
    if !batch.logits_at.is_sorted() || batch.logits_at.iter().any(|at| *at as usize >= n_tokens) {
        return Err(inconsistent(format!(
            "logits_at is not an ascending list of indices below {n_tokens}"
        )));
    }
    let mut next = 0;
    for (idx, row) in batch.rows.iter().enumerate() {
        if row.query_start != next || row.query_len == 0 || row.query_len > n_tokens - next {
            return Err(inconsistent(format!(
                "row {idx} does not continue the tokens of the rows before it"
            )));
        }
        next += row.query_len;
        check_row(batch, idx, cache)?;
    }
    if next != n_tokens {
        return Err(inconsistent(format!(
            "the rows cover {next} of {n_tokens} tokens"
        )));
    }
    Ok(())
}

/// Checks that a row's positions are those of the end of its context, and that its blocks hold it.
fn check_row(batch: &Batch, idx: usize, cache: &KvCache) -> Result<(), ModelError> {
    let row = &batch.rows[idx];
    let block_size = cache.block_size();
    let Some(first_position) = row.context_len.checked_sub(row.query_len) else {
        return Err(inconsistent(format!(
            "row {idx} has more new tokens than context"
        )));
    };
    let [block_table] = &row.block_tables[..] else {
        let n_tables = row.block_tables.len();
        return Err(inconsistent(format!(
            "row {idx} has {n_tables} block tables, the model one group of layers"
        )));
    };
    if row.context_len.div_ceil(block_size) > block_table.len() {
        return Err(inconsistent(format!(
            "the block table of row {idx} is too short for its context"
        )));
    }
    if block_table
        .iter()
        .any(|block| block.0 as usize >= cache.n_blocks())
    {
        return Err(inconsistent(format!("row {idx} has a block beyond the cache")));
    }
    for (offset, position) in (first_position..row.context_len).enumerate() {
        let token = row.query_start + offset;
        if batch.positions[token] as usize != position {
            let reason = format!("token {token} of row {idx} belongs at position {position}");
            return Err(inconsistent(reason));
        }
    }
    Ok(())
}

/// Checks that every move stays within the cache and the host's blocks.
fn check_moves(moves: &[BlockMove], n_blocks: usize, n_host_blocks: usize) -> Result<(), ModelError> {
    let is_inside = |block_move: &&BlockMove| {
        let in_cache = |block: BlockId| (block.0 as usize) < n_blocks;
        let in_host = |block: HostBlockId| (block.0 as usize) < n_host_blocks;
        match **block_move {
            BlockMove::Copy { from, to } => in_cache(from) && in_cache(to),
            BlockMove::SwapOut { from, to } => in_cache(from) && in_host(to),
            BlockMove::SwapIn { from, to } => in_host(from) && in_cache(to),
        }
    };
    match moves.iter().find(|block_move| !is_inside(block_move)) {
        None => Ok(()),
        Some(outside) => Err(inconsistent(format!(
            "{outside:?} is not within {n_blocks} blocks of the cache and {n_host_blocks} of the host"
        ))),
    }
}

/// Slot of each token of a checked batch: `block * block_size + offset`.
fn slots(batch: &Batch, block_size: usize) -> Vec<u32> {
    let of_row = |row: &BatchRow| {
        let tokens = row.query_start..row.query_start + row.query_len;
        let slot = |&position: &u32| {
            let block = row.block_tables[0][position as usize / block_size];
            block.0 * block_size as u32 + position % block_size as u32
        };
        batch.positions[tokens].iter().map(slot).collect::<Vec<_>>()
    };
    batch.rows.iter().flat_map(of_row).collect()
}
