//! One step's work as explicit arrays: what the scheduler hands to the model. No globals, no hidden state.

/// Index of a block of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub u32);

/// Sequences of one step, their new tokens concatenated ("varlen").
///
/// For sequence `i`, the new tokens are `tokens[r.query_start .. r.query_start + r.query_len]` with
/// `r = rows[i]`; after this step the cache holds `r.context_len` tokens of it, the new ones included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// New token ids of every row, concatenated. `[n_tokens]`
    pub tokens: Vec<u32>,
    /// Position of each new token in its own sequence. `[n_tokens]`
    pub positions: Vec<u32>,
    /// Cache slot each new token's keys and values go to: `block_id * block_size + offset`. `[n_tokens]`
    pub slots: Vec<u32>,
    /// One row per sequence.
    pub rows: Vec<BatchRow>,
    /// Indices into `tokens` whose logits are wanted, ascending. `[n_logits]`
    pub logits_at: Vec<u32>,
}

/// One sequence of a [`Batch`].
#[derive(Clone, Debug, PartialEq)]
pub struct BatchRow {
    /// First new token's index in [`Batch::tokens`].
    pub query_start: usize,
    /// Number of new tokens, at least 1.
    pub query_len: usize,
    /// Tokens in the cache after this step, the new ones included.
    pub context_len: usize,
    /// The sequence's blocks in order; holds at least `context_len` slots.
    pub block_table: Vec<BlockId>,
}

/// Logits of one step, row-major `[n_logits, vocab_size]` in fp32, in the order of [`Batch::logits_at`].
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
