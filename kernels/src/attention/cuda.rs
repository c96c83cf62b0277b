//! Attention on the device: a kernel for every shape and option, and faster ones for the usual shapes.

mod card;
mod operands;
mod path;
mod workspace;

pub(super) use card::Card;
pub use operands::{Attention, AttentionRow, BiasValues, RelativeBias, Scores};
use operands::{Step, check};
use path::Path;
pub use workspace::{AttentionSizes, AttentionWorkspace};

use super::Mask;
use crate::cuda::{Arg, Gpu};
use crate::error::KernelError;

/// `out = softmax(scores(q, K), masked) · V`, for every token and head.
///
/// The softmax is computed online (Milakov and Gimelshein 2018; Dao et al. 2022) in f32. Over a cache of 16-bit
/// elements, queries and weights are rounded to its type for the products; their sums are f32. The order of a
/// token's sums depends on the shapes and the lengths of the step's rows only.
///
/// # Errors
/// The shapes do not agree, the workspace is too small, or the device fails.
pub fn attention(gpu: &Gpu, op: Attention<'_>) -> Result<(), KernelError> {
    enqueue(gpu, &op, Card::of(gpu))
}

/// [`attention`] with the kernels for a card.
pub(super) fn enqueue(gpu: &Gpu, op: &Attention<'_>, card: Card) -> Result<(), KernelError> {
    let step = check(op)?;
    if step.n_tokens == 0 {
        return Ok(());
    }
    for launch in Path::of(card, op).launches(op, step, card.n_resident)? {
        let mut args = arguments(op, step);
        args.extend(launch.more);
        gpu.launch(&launch.launch, &args)?;
    }
    Ok(())
}

/// Positions that a token sees on one side when all are seen: longer than any context.
const UNLIMITED: usize = 1 << 30;

/// How many positions before and after its own a token sees.
fn reaches(mask: Mask) -> (usize, usize) {
    match mask {
        Mask::Causal { window: None } => (UNLIMITED, 0),
        Mask::Causal { window: Some(window) } => ((window - 1).min(UNLIMITED), 0),
        Mask::Full => (UNLIMITED, UNLIMITED),
        Mask::Around { reach } => (reach.min(UNLIMITED), reach.min(UNLIMITED)),
    }
}

/// The parameters that all kernels have, in their order.
fn arguments(op: &Attention<'_>, step: Step) -> Vec<Arg<'static>> {
    let (before, after) = reaches(op.mask);
    let reach = op.scores.relative.map_or(0, |bias| bias.buckets.len() / 2);
    let (table, of_queries, of_keys, n_buckets) = match op.scores.relative.map(|bias| bias.values) {
        None => (None, None, None, 0),
        Some(BiasValues::Table(table)) => (Some(table), None, None, 0),
        Some(BiasValues::OfTokens {
            queries,
            keys,
            n_buckets,
        }) => (None, queries, keys, n_buckets),
    };
    vec![
        op.q.into(),
        op.out.into(),
        op.cache.view.into(),
        op.rows.into(),
        op.blocks.into(),
        Arg::optional(op.scores.alibi_slopes),
        Arg::optional(op.scores.sinks),
        Arg::optional(op.scores.relative.map(|bias| bias.buckets)),
        Arg::optional(table),
        Arg::optional(of_queries),
        Arg::optional(of_keys),
        Arg::size(n_buckets),
        Arg::size(reach),
        Arg::size(step.n_rows),
        Arg::size(op.n_heads),
        Arg::size(op.cache.shape.n_heads),
        Arg::size(op.cache.shape.key_dim),
        Arg::size(op.cache.shape.value_dim()),
        Arg::size(op.q_stride),
        Arg::size(op.cache.block_size),
        Arg::size(op.cache.key_groups()),
        Arg::size(op.cache.value_groups()),
        Arg::size(before),
        Arg::size(after),
        Arg::F32(op.scores.scale),
        Arg::F32(op.scores.softcap.unwrap_or(0.0)),
    ]
}
