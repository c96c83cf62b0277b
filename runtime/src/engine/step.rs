//! A step: which sequences compute how many tokens, and what for.
//!
//! Owns the order of its rows' logits. Must not know how it was decided, or who draws.

use std::ops::Range;

use super::sequence::SequenceId;
use crate::batch::BlockMove;

/// What to compute next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Step {
    /// Blocks to move first, in order.
    pub moves: Vec<BlockMove>,
    /// One row per sequence: those that decode first.
    pub rows: Vec<StepRow>,
    /// Tokens of all rows.
    pub n_tokens: usize,
    /// Sequences that lost their blocks to others and wait again, the last in order first.
    pub preempted: Vec<SequenceId>,
    /// Sequences that got a place for the first time.
    pub admitted: Vec<Admission>,
    /// No other step may be in flight with it.
    pub is_alone: bool,
}

/// One sequence's part of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepRow {
    /// The sequence.
    pub id: SequenceId,
    /// Its next tokens to compute, at least 1.
    pub n_tokens: usize,
    /// Positions of the prompt whose logits are wanted, to score the token after each; never the last token of a row
    /// that yields logits.
    pub scores: Range<usize>,
    /// What the last of them is for.
    pub yields: Yield,
    /// Tokens that are drawn from its logits: one per branch, none for a search.
    pub n_draws: usize,
}

/// What a row's last token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Yield {
    /// Nothing yet: more tokens of the sequence follow in a later step.
    Nothing,
    /// Its logits: one token is drawn for each branch.
    Logits,
    /// The pooled vector of the prompt.
    Pooled,
}

/// A sequence that got a place for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// Its branches.
    pub branches: Vec<SequenceId>,
    /// Tokens of its prompt that were looked up in the prefix cache.
    pub n_queried: usize,
    /// Those that were found.
    pub n_cached: usize,
}

impl Step {
    /// Nothing to submit.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.moves.is_empty()
    }

    /// The rows, each with the indices of its logits among those of the step: of the positions that it scores, then
    /// of its last token, if it yields logits.
    pub fn with_logits(&self) -> impl Iterator<Item = (Range<usize>, &StepRow)> {
        let mut n_before = 0;
        self.rows.iter().map(move |row| {
            let first = n_before;
            n_before += row.scores.len() + usize::from(row.yields == Yield::Logits);
            (first..n_before, row)
        })
    }

    /// Rows that draw or search, each with the index of its last token's logits among those of the step.
    pub fn drawing(&self) -> impl Iterator<Item = (usize, &StepRow)> {
        self.with_logits()
            .filter(|(_, row)| row.yields == Yield::Logits)
            .map(|(logits, row)| (logits.end - 1, row))
    }
}
