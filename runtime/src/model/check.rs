//! Whether a batch agrees with itself, the model and the cache: a bug of the scheduler must not become a
//! wrong answer.

use crate::batch::{Batch, BlockId, BlockMove, HostBlockId, KvGroup, StepError};

/// What a batch must agree with.
pub(super) struct Limits<'a> {
    /// Token ids are below this.
    pub(super) vocab_size: usize,
    /// Kinds of segments, `None` if the model distinguishes none.
    pub(super) n_types: Option<usize>,
    /// Whether rows can be pooled.
    pub(super) pools: bool,
    /// Whether rows can have logits.
    pub(super) generates: bool,
    /// A prompt must be computed in one step.
    pub(super) whole_prompts: bool,
    /// Groups of layers.
    pub(super) groups: &'a [KvGroup],
    /// Tokens per block.
    pub(super) block_size: usize,
    /// Blocks of the cache.
    pub(super) n_blocks: usize,
    /// Blocks on the host.
    pub(super) n_host_blocks: usize,
}

pub(super) fn inconsistent(reason: String) -> StepError {
    StepError::Batch { reason }
}

/// Checks a batch.
pub(super) fn check_batch(batch: &Batch, limits: &Limits<'_>) -> Result<(), StepError> {
    let n_tokens = batch.tokens.len();
    if batch.positions.len() != n_tokens {
        let n_positions = batch.positions.len();
        return Err(inconsistent(format!(
            "{n_tokens} tokens and {n_positions} positions"
        )));
    }
    let vocab_size = limits.vocab_size;
    let is_known = |&(_, &token): &(usize, &u32)| (token as usize) < vocab_size;
    let is_pending = |&(idx, &token): &(usize, &u32)| {
        let drawn = batch
            .from_previous
            .binary_search_by_key(&(idx as u32), |pending| pending.token);
        token == Batch::PENDING && drawn.is_ok()
    };
    let mut tokens = batch.tokens.iter().enumerate();
    if let Some((_, token)) = tokens.find(|token| !is_known(token) && !is_pending(token)) {
        return Err(inconsistent(format!(
            "token {token} is not below the vocabulary's {vocab_size}"
        )));
    }
    check_types(batch, limits)?;
    check_indices("logits_at", &batch.logits_at, n_tokens, limits.generates)?;
    check_indices("pooled_rows", &batch.pooled_rows, batch.rows.len(), limits.pools)?;
    let mut next = 0;
    for (idx, row) in batch.rows.iter().enumerate() {
        if row.query_start != next || row.query_len == 0 || row.query_len > n_tokens - next {
            return Err(inconsistent(format!(
                "row {idx} does not continue the tokens of the rows before it"
            )));
        }
        next += row.query_len;
        check_row(batch, idx, limits)?;
    }
    if next != n_tokens {
        return Err(inconsistent(format!(
            "the rows cover {next} of {n_tokens} tokens"
        )));
    }
    check_moves(&batch.moves, limits.n_blocks, limits.n_host_blocks)
}

/// Checks the kinds of segments: none, or one per token that the model has.
fn check_types(batch: &Batch, limits: &Limits<'_>) -> Result<(), StepError> {
    // A model without kinds of segments reads none: its tokenizer may name them for pairs of texts.
    let n_types = limits.n_types.unwrap_or(usize::MAX);
    let types = &batch.token_types;
    let fits = types.is_empty() || types.len() == batch.tokens.len();
    match types.iter().find(|kind| **kind as usize >= n_types) {
        None if fits => Ok(()),
        None => Err(inconsistent(format!(
            "{} tokens and {} token types",
            batch.tokens.len(),
            types.len()
        ))),
        Some(kind) => Err(inconsistent(format!(
            "token type {kind} is not below the model's {n_types}"
        ))),
    }
}

/// Checks an ascending list of indices that may have to be empty.
fn check_indices(name: &str, indices: &[u32], below: usize, is_possible: bool) -> Result<(), StepError> {
    if !is_possible && !indices.is_empty() {
        return Err(inconsistent(format!("this model has nothing to give for {name}")));
    }
    if indices.is_sorted() && indices.iter().all(|at| (*at as usize) < below) {
        return Ok(());
    }
    Err(inconsistent(format!(
        "{name} is not an ascending list of indices below {below}"
    )))
}

/// Checks that a row's positions are those of the end of its context, and that its blocks hold what its new
/// tokens see.
fn check_row(batch: &Batch, idx: usize, limits: &Limits<'_>) -> Result<(), StepError> {
    let row = &batch.rows[idx];
    let Some(first_position) = row.context_len.checked_sub(row.query_len) else {
        return Err(inconsistent(format!(
            "row {idx} has more new tokens than context"
        )));
    };
    if limits.whole_prompts && first_position > 0 {
        return Err(inconsistent(format!("row {idx} is not a whole prompt")));
    }
    let (groups, n_tables) = (limits.groups, row.block_tables.len());
    if n_tables != groups.len() {
        let n_groups = groups.len();
        return Err(inconsistent(format!(
            "row {idx} has {n_tables} block tables, the model {n_groups} groups of layers"
        )));
    }
    let block_size = limits.block_size;
    for (group, table) in groups.iter().zip(&row.block_tables) {
        let Some(needed) = table.get(..row.context_len.div_ceil(block_size)) else {
            return Err(inconsistent(format!(
                "a block table of row {idx} is too short for its context"
            )));
        };
        let seen_from = group
            .window
            .map_or(0, |window| (first_position + 1).saturating_sub(window));
        let mut seen = needed.iter().skip(seen_from / block_size);
        if seen.any(|block| block.0 as usize >= limits.n_blocks) {
            return Err(inconsistent(format!("row {idx} has a block beyond the cache")));
        }
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
fn check_moves(moves: &[BlockMove], n_blocks: usize, n_host_blocks: usize) -> Result<(), StepError> {
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
