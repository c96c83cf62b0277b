//! The seam between engine and model: one step's work as explicit arrays, and the trait that computes it.
//!
//! The one part that engine and model both know; neither knows the other. No globals, no hidden state.

mod draw;
mod function;
mod tap;

use std::sync::Arc;

use kernels::KernelError;

pub use draw::{
    DrawSpec, LateInput, N_TOP_BY_MODEL_MAX, SampleError, Sampled, SamplingParams, TokenDraw, TokenLogprobs,
};
pub use function::FunctionModel;
pub use tap::Tap;

/// Index of a block of the KV cache.
///
/// All [`KvGroup`]s draw from one pool of equal blocks: block `b` is one page, and the layers of the one group
/// that holds it keep their keys and values there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

impl BlockId {
    /// Marks an entry of a block table whose block lay outside the group's window and was given back.
    pub const FREED: BlockId = BlockId(u32::MAX);
}

/// Index of a block of the host memory that blocks of the cache are swapped out to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostBlockId(pub u32);

/// Layers that see the same part of a context, and so keep the same blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvGroup {
    /// A token sees itself and the `window - 1` tokens before it; `None`: all before it.
    pub window: Option<usize>,
}

impl KvGroup {
    /// Blocks that a sequence of `n_tokens` needs at once at least, were its tokens computed one by one.
    pub fn n_blocks_min(self, n_tokens: usize, block_size: usize) -> usize {
        let n_all = n_tokens.div_ceil(block_size);
        self.window.map_or(n_all, |window| {
            n_all.min((window.max(1) - 1).div_ceil(block_size) + 1)
        })
    }
}

/// A block that moves before a step is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockMove {
    /// Within the cache.
    Copy {
        /// Block that is read.
        from: BlockId,
        /// Block that is overwritten.
        to: BlockId,
    },
    /// From the cache to the host.
    SwapOut {
        /// Block that is read.
        from: BlockId,
        /// Block that is overwritten.
        to: HostBlockId,
    },
    /// From the host to the cache.
    SwapIn {
        /// Block that is read.
        from: HostBlockId,
        /// Block that is overwritten.
        to: BlockId,
    },
}

/// Identity of an image or a sound: of its bytes, and of all that decides how a model reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MediaDigest(pub [u8; 32]);

/// A run of tokens that stand for a piece of an image or a sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MediaPiece {
    /// Index of the first token, in the array of tokens that the piece belongs to.
    pub token: u32,
    /// Number of tokens.
    pub n_tokens: u32,
    /// The image or sound.
    pub digest: MediaDigest,
    /// Index of the first token among all those of the image or sound.
    pub first: u32,
}

/// Sequences of one step, their new tokens concatenated ("varlen").
///
/// For sequence `i`, the new tokens are `tokens[r.query_start .. r.query_start + r.query_len]` with
/// `r = rows[i]`; after this step the cache holds `r.context_len` tokens of it, the new ones included. In each
/// group the token with index `i` in its sequence lies in block `block_table[i / block_size]`, at `i % block_size`.
/// The positions by which a model tells tokens apart are an array of their own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// Blocks to move, one after the other, before anything is computed.
    pub moves: Vec<BlockMove>,
    /// New token ids of every row, concatenated; [`Batch::PENDING`] where `from_previous` names the token.
    /// `[n_tokens]`
    pub tokens: Vec<u32>,
    /// The new tokens that the step before draws, and the engine does not know yet; ascending.
    pub from_previous: Vec<PreviousDraw>,
    /// Runs of new tokens that stand for images or sounds, ascending; empty unless [`Forward::reads_media`].
    pub media: Vec<MediaPiece>,
    /// Segment of each new token, for models that tell segments apart; empty: all 0. `[n_tokens]` or `[0]`
    pub token_types: Vec<u32>,
    /// Position of each new token, by which a model tells tokens of a sequence apart. `[n_tokens]`
    pub positions: Vec<u32>,
    /// One row per sequence.
    pub rows: Vec<BatchRow>,
    /// Indices into `tokens` whose logits are wanted, ascending. `[n_logits]`
    pub logits_at: Vec<u32>,
    /// Indices into `rows` whose pooled vector is wanted after this step, ascending. `[n_pooled]`
    pub pooled_rows: Vec<u32>,
}

/// A new token that is drawn by the step submitted before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousDraw {
    /// Index of the token in [`Batch::tokens`].
    pub token: u32,
    /// Index of its draw among the draws of that step.
    pub draw: u32,
}

impl Batch {
    /// Holds the place of a token that is not known yet; no token has this id.
    pub const PENDING: u32 = u32::MAX;
}

/// One sequence of a [`Batch`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BatchRow {
    /// First new token's index in [`Batch::tokens`].
    pub query_start: usize,
    /// Number of new tokens, at least 1.
    pub query_len: usize,
    /// Tokens in the cache after this step, the new ones included.
    pub context_len: usize,
    /// Number of the sequence's place, below the largest number of sequences: its own as long as the sequence runs,
    /// so that a model can keep the sequence's state there.
    pub place: u32,
    /// Tokens of the prompt that the request came with, the same in every step: models whose rotary
    /// frequencies depend on the length choose them by it.
    pub prompt_len: usize,
    /// The sequence's blocks in order, one table per group; each holds at least `context_len` slots. A block
    /// that no new token can see any more may be [`BlockId::FREED`].
    pub block_tables: Vec<Vec<BlockId>>,
}

/// What a step computed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StepOutput {
    /// Logits of the draws that are [`DrawSpec::Logits`].
    pub logits: Logits,
    /// Tokens of the draws that are [`DrawSpec::Token`]; an error fails only its own request.
    pub drawn: Vec<Result<Sampled, SampleError>>,
    /// One vector per entry of [`Batch::pooled_rows`].
    pub pooled: Vec<Vec<f32>>,
}

/// Logits of one step, row-major `[n_rows, vocab_size]` in fp32, in the order of the draws.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Logits {
    /// The values, row after row.
    pub values: Vec<f32>,
    /// Length of a row.
    pub vocab_size: usize,
}

impl Logits {
    /// Row `idx`.
    pub fn row(&self, idx: usize) -> &[f32] {
        &self.values[idx * self.vocab_size..(idx + 1) * self.vocab_size]
    }
}

/// Why a step was not computed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A batch contradicts itself or the cache: a bug of the scheduler.
    #[error("batch: {reason}")]
    Batch {
        /// What is wrong with it.
        reason: String,
    },
    /// An op refused its operands, which is a bug of the model, or its device failed.
    #[error("an op of the model failed")]
    Kernel(#[from] KernelError),
}

/// What the engine needs of a model.
pub trait Forward {
    /// Length of a row of logits; token ids must be below it.
    fn vocab_size(&self) -> usize;

    /// The layers, grouped by what they see: one block table of a row for each group, in this order; at least
    /// one. By default one that sees the complete context.
    fn kv_groups(&self) -> Vec<KvGroup> {
        vec![KvGroup::default()]
    }

    /// A prompt must be computed in one step, because its tokens see the later ones too.
    fn whole_prompts(&self) -> bool {
        false
    }

    /// Prompts may contain images or sounds.
    fn reads_media(&self) -> bool {
        false
    }

    /// What else the keys and values of a prompt of this length depend on: two prompts share cached blocks only
    /// if it is the same number.
    fn prefix_salt(&self, _prompt_len: usize) -> u64 {
        0
    }

    /// Steps that may be submitted and not collected: 1 or 2.
    ///
    /// With 1 the engine draws all tokens itself. With 2 it submits a step before it knows the tokens of the step
    /// before, so the model draws them.
    fn depth(&self) -> usize {
        1
    }

    /// Starts a step and does not wait for it: moves blocks, writes the keys and values of the batch's tokens to
    /// their slots, and computes what `draws` wants of [`Batch::logits_at`], one draw per entry, and the pooled
    /// vectors. Steps take effect in the order in which they are submitted.
    ///
    /// # Errors
    /// A batch that contradicts itself or the cache (see [`StepError::Batch`]), here or from
    /// [`Forward::collect`]; nothing was computed then.
    fn submit(&mut self, batch: Arc<Batch>, draws: &[DrawSpec<'_>]) -> Result<(), StepError>;

    /// Gives what the step submitted last lacks for its tokens. Called once per step with a draw that is a
    /// [`DrawSpec::Token`], before the next step is submitted; draws that lack nothing are left out.
    ///
    /// # Errors
    /// As [`Forward::submit`].
    fn late(&mut self, _inputs: &[LateInput<'_>]) -> Result<(), StepError> {
        Ok(())
    }

    /// Waits for the oldest step that is not collected, and returns what it computed.
    ///
    /// # Errors
    /// As [`Forward::submit`]; also if no step was submitted.
    fn collect(&mut self) -> Result<StepOutput, StepError>;
}

impl StepError {
    /// A step was collected that was not submitted.
    pub fn not_submitted() -> StepError {
        StepError::Batch {
            reason: "a step is collected that was not submitted".to_owned(),
        }
    }
}
