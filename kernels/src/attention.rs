//! Attention over the paged cache: prefill chunks and single decode tokens in one call.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use std::ops::Range;

use crate::cpu::context::CpuContext;
use crate::error::{Contract, KernelError};
use crate::kv_cache::KvCache;

/// Operands of [`attention`].
pub struct Attention<'a> {
    /// Queries, heads side by side at the start of each row, already rotated. `[n_tokens, q_stride]`
    pub q: &'a [f32],
    /// Elements of a row of `q`.
    pub q_stride: usize,
    /// Query heads, a multiple of the cache's heads: `n_heads / n_kv_heads` neighbours share one.
    pub n_heads: usize,
    /// Keys and values, those of the new tokens included.
    pub cache: &'a KvCache,
    /// The sequences, in the order of their tokens in `q`, without gaps.
    pub rows: &'a [AttentionRow],
    /// The blocks of all sequences.
    pub blocks: &'a [u32],
    /// How queries and keys become scores.
    pub scores: Scores<'a>,
    /// Which positions a token sees.
    pub mask: Mask,
    /// Working memory.
    pub tiles: &'a mut AttentionTiles,
    /// Result; overwritten. `[n_tokens, n_heads * value_dim]`
    pub out: &'a mut [f32],
}

/// How queries and keys become the scores that the softmax is taken of.
#[derive(Clone, Copy, Debug)]
pub struct Scores<'a> {
    /// Factor of the products, usually `head_dim^-½`.
    pub scale: f32,
    /// Scores become `softcap · tanh(score / softcap)` (Gemma 2).
    pub softcap: Option<f32>,
    /// Per head, what each position of distance takes off a score (Press et al. 2022, "ALiBi"). `[n_heads]`
    pub alibi_slopes: Option<&'a [f32]>,
    /// Per head, a score that takes part in the softmax and has no value (GPT-OSS). `[n_heads]`
    pub sinks: Option<&'a [f32]>,
    /// What the distance between two positions adds to a score.
    pub relative: Option<RelativeBias<'a>>,
}

/// A learned bias of scores by distance (Shaw et al. 2018; the buckets are T5's).
#[derive(Clone, Copy, Debug)]
pub struct RelativeBias<'a> {
    /// The bucket of each distance `key - query` from `-reach` to `reach`; longer distances count as these.
    /// `[2 reach + 1]`
    pub buckets: &'a [u16],
    /// What is added to the scores of a bucket.
    pub values: BiasValues<'a>,
}

/// What a [`RelativeBias`] adds to the scores of a bucket.
#[derive(Clone, Copy, Debug)]
pub enum BiasValues<'a> {
    /// The same for all tokens. `[n_buckets, n_heads]`
    Table(&'a [f32]),
    /// [`Scores::scale`] times a number of the query's token and one of the key's token (He et al. 2021, "DeBERTa",
    /// section 3.1). Each sequence must be new as a whole, so that all its tokens have numbers.
    OfTokens {
        /// Of the query's token. `[n_tokens, n_heads, n_buckets]`
        queries: Option<&'a [f32]>,
        /// Of the key's token. `[n_tokens, n_heads, n_buckets]`
        keys: Option<&'a [f32]>,
        /// Numbers of a token and head.
        n_buckets: usize,
    },
}

impl Scores<'_> {
    /// Scores that are scaled products and nothing else.
    pub fn scaled(scale: f32) -> Scores<'static> {
        Scores {
            scale,
            softcap: None,
            alibi_slopes: None,
            sinks: None,
            relative: None,
        }
    }
}

/// Which positions of its sequence a token sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// Itself and those before it; with a window, itself and the `window - 1` before it. Blocks that end
    /// before what the first new token sees are never read, whatever their entry in the table is.
    Causal {
        /// How many it sees.
        window: Option<usize>,
    },
    /// All of the context.
    Full,
    /// Itself, and those at a distance of at most `reach` on both sides.
    Around {
        /// The largest distance.
        reach: usize,
    },
}

/// Working memory of [`attention`], kept so that a call allocates nothing.
#[derive(Debug, Default)]
pub struct AttentionTiles {
    queries: Vec<cpu::Queries>,
    parts: Vec<cpu::Part>,
    /// The softmax of each part.
    softmaxes: Vec<f32>,
}

/// One sequence of an [`Attention`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionRow {
    /// New tokens, at least one: the last ones of the context.
    pub query_len: usize,
    /// Tokens in the cache, the new ones included.
    pub context_len: usize,
    /// First of the sequence's blocks in [`Attention::blocks`]; they are there in order, enough for the context.
    pub first_block: usize,
}

/// `out = softmax(scores(q, K), masked) · V`, for every token and head.
///
/// The context is cut at multiples of 256 positions. In each part the softmax is computed online over tiles of 64 positions
/// (Milakov and Gimelshein 2018; Dao et al. 2022), and those of the parts are merged in their order, so a token's result
/// depends neither on the chunk it arrives in nor on the other rows nor on the block size nor on the number of threads. A
/// score is one sum in the order of the key's elements, and an element of the result one in the order of a tile's
/// positions. The error is a few ulp of `max |V|` per tile.
///
/// # Errors
/// The shapes do not agree, or a block that is read is beyond the cache.
pub fn attention(context: &CpuContext, op: Attention<'_>) -> Result<(), KernelError> {
    let group = check(&op)?;
    cpu::run(context, op, group);
    Ok(())
}

impl Mask {
    /// The positions that the token at `position` of `context_len` sees.
    fn seen(self, position: usize, context_len: usize) -> Range<usize> {
        match self {
            Mask::Full => 0..context_len,
            Mask::Around { reach } => {
                let end = position.saturating_add(reach).saturating_add(1);
                position.saturating_sub(reach)..end.min(context_len)
            }
            Mask::Causal { window } => {
                let end = position + 1;
                window.map_or(0, |window| end.saturating_sub(window))..end
            }
        }
    }
}

/// Checks what changes the scores.
fn check_scores(scores: &Scores<'_>, n_heads: usize, n_tokens: usize) -> Result<(), KernelError> {
    for (operand, per_head) in [("alibi_slopes", scores.alibi_slopes), ("sinks", scores.sinks)] {
        let len = per_head.map_or(n_heads, <[f32]>::len);
        Contract("attention").len(operand, len, n_heads)?;
    }
    let Some(bias) = scores.relative else {
        return Ok(());
    };
    let n_distances = bias.buckets.len();
    Contract("attention").range(n_distances % 2 == 1, "buckets", n_distances, "an odd number")?;
    let n_buckets = match bias.values {
        BiasValues::Table(values) => {
            let n_buckets = values.len() / n_heads;
            Contract("attention").len("values", values.len(), n_buckets * n_heads)?;
            n_buckets
        }
        BiasValues::OfTokens {
            queries,
            keys,
            n_buckets,
        } => {
            let width = n_heads.saturating_mul(n_buckets);
            for (operand, values) in [("queries", queries), ("keys", keys)] {
                let len = n_tokens.saturating_mul(width);
                Contract("attention").len(operand, values.map_or(len, <[f32]>::len), len)?;
            }
            n_buckets
        }
    };
    for &bucket in bias.buckets {
        let bucket = usize::from(bucket);
        Contract("attention").range(bucket < n_buckets, "bucket", bucket, "below the rows of values")?;
    }
    Ok(())
}

/// Checks the contract; returns how many query heads share a head of the cache.
fn check(op: &Attention<'_>) -> Result<usize, KernelError> {
    let cache = op.cache;
    let (n_heads, n_kv_heads) = (op.n_heads, cache.n_kv_heads());
    let grouped = n_heads > 0 && n_heads.is_multiple_of(n_kv_heads);
    Contract("attention").range(grouped, "n_heads", n_heads, "a multiple of n_kv_heads")?;
    Contract("attention").range(
        op.q_stride >= n_heads * cache.key_dim(),
        "q_stride",
        op.q_stride,
        "at least n_heads * key_dim",
    )?;
    let windowless = op.mask != Mask::Causal { window: Some(0) };
    Contract("attention").range(windowless, "window", 0, "at least 1")?;
    let needs_whole = matches!(
        op.scores.relative,
        Some(RelativeBias {
            values: BiasValues::OfTokens { .. },
            ..
        })
    );
    let mut n_tokens = 0_usize;
    for row in op.rows {
        let (query_len, context_len) = (row.query_len, row.context_len);
        Contract("attention").range(query_len > 0, "query_len", query_len, "at least 1")?;
        let covers = context_len >= query_len;
        Contract("attention").range(covers, "context_len", context_len, "at least query_len")?;
        let has_all = context_len == query_len || !needs_whole;
        Contract("attention").range(
            has_all,
            "query_len",
            query_len,
            "all of context_len, for a bias of tokens",
        )?;
        let n_blocks = context_len.div_ceil(cache.block_size());
        let end = row.first_block.saturating_add(n_blocks);
        let blocks = op.blocks.get(row.first_block..end);
        Contract("attention").range(
            blocks.is_some(),
            "blocks",
            op.blocks.len(),
            "long enough for the context",
        )?;
        let first_seen = op.mask.seen(context_len - query_len, context_len).start;
        for &block in blocks
            .unwrap_or_default()
            .iter()
            .skip(first_seen / cache.block_size())
        {
            let inside = (block as usize) < cache.n_blocks();
            Contract("attention").range(inside, "block", block as usize, "within the cache")?;
        }
        n_tokens = n_tokens.saturating_add(query_len);
    }
    Contract("attention").len("q", op.q.len(), n_tokens.saturating_mul(op.q_stride))?;
    check_scores(&op.scores, n_heads, n_tokens)?;
    let width = n_heads * cache.value_dim();
    Contract("attention").len("out", op.out.len(), n_tokens.saturating_mul(width))?;
    Ok(n_heads / n_kv_heads)
}

#[cfg(test)]
mod tests;
