//! The operands of attention on the device, and their contract as far as the host sees it.

use super::workspace::AttentionWorkspace;
use crate::attention::Mask;
use crate::cuda::View;
use crate::error::{Contract, KernelError};
use crate::kv_cache::KvPages;

/// Operands of [`super::attention`]. What may change from one replay of a graph to the next is on the device: the
/// rows, the tables and the numbers.
pub struct Attention<'a> {
    /// Queries, heads side by side at the start of each row, already rotated. `[n_tokens, q_stride]`
    pub q: View<f32>,
    /// Elements of a row of `q`.
    pub q_stride: usize,
    /// Query heads, a multiple of the cache's heads: `n_heads / n_kv_heads` neighbours share one.
    pub n_heads: usize,
    /// Keys and values, those of the new tokens included.
    pub cache: KvPages,
    /// The sequences, in the order of their tokens in `q`, as the words of [`AttentionRow`]. `[n_rows, 4]`
    pub rows: View<u32>,
    /// The most new tokens of a row: with 1, no row has more, whatever a replay finds in `rows`.
    pub max_query_len: usize,
    /// Rows with at most one new token; the others have more.
    pub n_single_rows: usize,
    /// The blocks of all sequences. Blocks that no token of the step sees are never read, whatever their
    /// entry is.
    pub blocks: View<u32>,
    /// How queries and keys become scores.
    pub scores: Scores,
    /// Which positions a token sees.
    pub mask: Mask,
    /// Working memory.
    pub workspace: &'a AttentionWorkspace,
    /// Result; overwritten. Tokens of rows without new tokens become zeros. `[n_tokens, n_heads * value_dim]`
    pub out: View<f32>,
}

/// How queries and keys become the scores that the softmax is taken of, as the CPU's.
#[derive(Clone, Copy, Debug)]
pub struct Scores {
    /// Factor of the products, usually `head_dim^-½`.
    pub scale: f32,
    /// Scores become `softcap · tanh(score / softcap)`.
    pub softcap: Option<f32>,
    /// Per head, what each position of distance takes off a score. `[n_heads]`
    pub alibi_slopes: Option<View<f32>>,
    /// Per head, a score that takes part in the softmax and has no value. `[n_heads]`
    pub sinks: Option<View<f32>>,
    /// What the distance between two positions adds to a score.
    pub relative: Option<RelativeBias>,
}

/// A learned bias of scores by distance, as the CPU's.
#[derive(Clone, Copy, Debug)]
pub struct RelativeBias {
    /// The bucket of each distance `key - query` from `-reach` to `reach`; longer distances count as these.
    /// `[2 reach + 1]`
    pub buckets: View<u16>,
    /// What is added to the scores of a bucket.
    pub values: BiasValues,
}

/// What a [`RelativeBias`] adds to the scores of a bucket, as the CPU's.
#[derive(Clone, Copy, Debug)]
pub enum BiasValues {
    /// The same for all tokens. `[n_buckets, n_heads]`
    Table(View<f32>),
    /// [`Scores::scale`] times a number of the query's token and one of the key's token. Each sequence must be new as a
    /// whole, whatever a replay finds in `rows`.
    OfTokens {
        /// Of the query's token. `[n_tokens, n_heads, n_buckets]`
        queries: Option<View<f32>>,
        /// Of the key's token. `[n_tokens, n_heads, n_buckets]`
        keys: Option<View<f32>>,
        /// Numbers of a token and head.
        n_buckets: usize,
    },
}

/// One sequence of an [`Attention`], as the device reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionRow {
    /// Its first token in `q`. Rows are in the order of their tokens, each at another one.
    pub query_start: u32,
    /// New tokens, the last ones of the context. 0 for padding: the token at `query_start` gets zeros.
    pub query_len: u32,
    /// Tokens in the cache, the new ones included; at least `query_len`.
    pub context_len: u32,
    /// First of the sequence's blocks in the table; they are there in order, enough for the context.
    pub first_block: u32,
}

impl AttentionRow {
    /// The words of the row in [`Attention::rows`].
    pub fn words(self) -> [u32; 4] {
        [
            self.query_start,
            self.query_len,
            self.context_len,
            self.first_block,
        ]
    }
}

/// What follows from the operands.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) n_tokens: usize,
    pub(super) n_rows: usize,
    /// Query heads per head of the cache.
    pub(super) group: usize,
}

/// Checks the contract as far as the host sees it.
pub(super) fn check(op: &Attention<'_>) -> Result<Step, KernelError> {
    let contract = Contract("attention");
    let (n_heads, n_kv_heads) = (op.n_heads, op.cache.shape.n_heads);
    let grouped = n_heads > 0 && n_heads.is_multiple_of(n_kv_heads);
    contract.range(grouped, "n_heads", n_heads, "a multiple of n_kv_heads")?;
    let width = n_heads * op.cache.shape.key_dim;
    contract.range(
        op.q_stride >= width,
        "q_stride",
        op.q_stride,
        "at least n_heads * key_dim",
    )?;
    let windowless = op.mask != Mask::Causal { window: Some(0) };
    contract.range(windowless, "window", 0, "at least 1")?;
    let n_tokens = op.q.len() / op.q_stride;
    check_scores(&op.scores, n_heads, n_tokens)?;
    contract.len("q", op.q.len(), n_tokens * op.q_stride)?;
    let out_width = n_heads * op.cache.shape.value_dim();
    contract.len("out", op.out.len(), n_tokens * out_width)?;
    let n_rows = op.rows.len() / 4;
    contract.len("rows", op.rows.len(), n_rows * 4)?;
    contract.range(
        n_rows > 0 || n_tokens == 0,
        "rows",
        n_rows,
        "at least one, if there are tokens",
    )?;
    let n_single = op.n_single_rows;
    contract.range(n_single <= n_rows, "n_single_rows", n_single, "at most the rows")?;
    let longest = op.max_query_len;
    let agree = longest > 0 && (longest > 1) == (n_single < n_rows);
    contract.range(
        agree,
        "max_query_len",
        longest,
        "1 exactly if all rows are single",
    )?;
    Ok(Step {
        n_tokens,
        n_rows,
        group: n_heads / n_kv_heads,
    })
}

/// Checks what changes the scores. The buckets are on the device: whoever made them answers for their range.
fn check_scores(scores: &Scores, n_heads: usize, n_tokens: usize) -> Result<(), KernelError> {
    let contract = Contract("attention");
    for (operand, per_head) in [("alibi_slopes", scores.alibi_slopes), ("sinks", scores.sinks)] {
        contract.len(operand, per_head.map_or(n_heads, View::len), n_heads)?;
    }
    let Some(bias) = scores.relative else {
        return Ok(());
    };
    let n_distances = bias.buckets.len();
    contract.range(n_distances % 2 == 1, "buckets", n_distances, "an odd number")?;
    match bias.values {
        BiasValues::Table(values) => contract.len("values", values.len(), values.len() / n_heads * n_heads),
        BiasValues::OfTokens {
            queries,
            keys,
            n_buckets,
        } => {
            let len = n_tokens * n_heads * n_buckets;
            contract.len("queries", queries.map_or(len, |values| values.len()), len)?;
            contract.len("keys", keys.map_or(len, |values| values.len()), len)
        }
    }
}
