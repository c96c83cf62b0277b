//! Filling a batch: the arrays of a step.
//!
//! Owns the order of tokens in the arrays. Must not know why a row is part of the step.

use std::ops::Range;

use super::Scheduler;
use crate::batch::{Batch, BatchRow, MediaPiece, PreviousDraw};
use crate::engine::sequence::Sequence;
use crate::engine::step::{Step, Yield};

impl Scheduler {
    /// Writes the arrays that the model needs for `step` into `batch`, whatever was there.
    pub fn fill(&self, batch: &mut Batch, step: &Step) {
        let Batch {
            moves,
            tokens,
            from_previous,
            media,
            token_types,
            positions,
            rows,
            logits_at,
            pooled_rows,
        } = batch;
        moves.clone_from(&step.moves);
        for array in [&mut *tokens, token_types, positions, logits_at, pooled_rows] {
            array.clear();
        }
        from_previous.clear();
        media.clear();
        rows.resize_with(step.rows.len(), BatchRow::default);
        for ((row, batch_row), row_idx) in step.rows.iter().zip(rows).zip(0..) {
            let sequence = self.sequence(row.id);
            let computed = sequence.n_computed()..sequence.n_computed() + row.n_tokens;
            fill_row(batch_row, sequence, tokens.len(), row.n_tokens);
            if !sequence.token_types().is_empty() {
                token_types.resize(tokens.len(), 0);
                token_types.extend_from_slice(&sequence.token_types()[computed.clone()]);
            }
            let scored = row.scores.clone();
            logits_at.extend(scored.map(|position| (tokens.len() + position - computed.start) as u32));
            push_media(media, sequence, tokens.len(), computed.clone());
            push_tokens(tokens, from_previous, sequence, computed.clone());
            positions.extend(computed.map(|position| position as u32));
            match row.yields {
                Yield::Nothing => {}
                Yield::Logits => logits_at.push(tokens.len() as u32 - 1),
                Yield::Pooled => pooled_rows.push(row_idx),
            }
        }
        if !token_types.is_empty() {
            token_types.resize(tokens.len(), 0);
        }
    }
}

/// Appends the pieces of media among the tokens of a sequence at `positions`, the first of which is token `first`.
fn push_media(media: &mut Vec<MediaPiece>, sequence: &Sequence, first: usize, positions: Range<usize>) {
    let pieces = sequence.content().media_in(positions);
    media.extend(pieces.map(|piece| MediaPiece {
        token: piece.token + first as u32,
        ..piece
    }));
}

/// Appends the tokens of a sequence at `positions`. The last of them may be one that is not known yet.
fn push_tokens(
    tokens: &mut Vec<u32>,
    from_previous: &mut Vec<PreviousDraw>,
    sequence: &Sequence,
    positions: Range<usize>,
) {
    let known = sequence.tokens();
    tokens.extend_from_slice(&known[positions.start.min(known.len())..positions.end.min(known.len())]);
    if let Some(draw) = sequence.pending_draw()
        && positions.end > known.len()
    {
        let token = tokens.len() as u32;
        from_previous.push(PreviousDraw { token, draw });
        tokens.push(Batch::PENDING);
    }
}

/// Writes a row of `query_len` new tokens; its tables keep the memory that they have.
fn fill_row(row: &mut BatchRow, sequence: &Sequence, query_start: usize, query_len: usize) {
    row.query_start = query_start;
    row.query_len = query_len;
    row.context_len = sequence.n_computed() + query_len;
    row.place = sequence.place.expect("a running sequence has a place");
    row.prompt_len = sequence.prompt().len();
    row.block_tables
        .resize_with(sequence.tables.groups().len(), Vec::new);
    for (table, blocks) in row.block_tables.iter_mut().zip(sequence.tables.groups()) {
        table.clear();
        table.extend_from_slice(blocks);
    }
}
