//! Where the inputs of a step are on the device: one array of 32-bit words, whose parts depend on the padded sizes of the
//! step alone, so that a recorded graph finds them at the same addresses.

use std::ops::Range;

use kernels::gpu::AttentionRow;

use crate::batch::Batch;
use crate::model::inputs::{Angles, GroupInputs, Inputs};
use crate::model::spans::StepSizes;

/// The padded sizes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct StepShape {
    /// Rows of the buffers.
    pub(super) sizes: StepSizes,
    /// Sequences.
    pub(super) n_rows: usize,
}

/// The parts, in words.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) shape: StepShape,
    /// Ids. `[n_tokens]`
    pub(super) tokens: Range<usize>,
    /// For each token the draw of the step before that decides it, or -1. `[n_tokens]`
    pub(super) draws: Range<usize>,
    /// Rows of the table of positions. `[n_tokens]`
    pub(super) position_rows: Range<usize>,
    /// Rows of the table of segments. `[n_tokens]`
    pub(super) types: Range<usize>,
    /// Of each group of layers.
    pub(super) groups: Vec<GroupLayout>,
    /// Of each of the model's rotary positions.
    pub(super) angles: Vec<AngleLayout>,
    /// Tokens whose logits are requested. `[n_logits]`
    pub(super) logits_at: Range<usize>,
    /// First token of what each vector is made of. `[n_pooled]`
    pub(super) pooled_from: Range<usize>,
    /// How many tokens each vector is made of. `[n_pooled]`
    pub(super) pooled_len: Range<usize>,
    /// First word of the block tables of all groups, which end the array.
    pub(super) blocks: usize,
}

/// What attention reads in the layers of a group.
#[derive(Debug, Clone)]
pub(super) struct GroupLayout {
    /// Slot of each token, -1 for none. `[n_tokens]`
    pub(super) slots: Range<usize>,
    /// The sequences, as the words of [`AttentionRow`]. `[n_rows, 4]`
    pub(super) rows: Range<usize>,
}

/// The angles of a rotary position. `[n_tokens, half_dim]` each
#[derive(Debug, Clone)]
pub(super) struct AngleLayout {
    /// Pairs that turn.
    pub(super) half_dim: usize,
    /// Cosines and sines.
    pub(super) table: [Range<usize>; 2],
    /// Those of queries, where they differ.
    pub(super) query_table: Option<[Range<usize>; 2]>,
}

/// Words of a sequence in [`GroupLayout::rows`].
const ROW_WORDS: usize = 4;

/// Parts start on so many words: 256 bytes.
const ALIGNMENT: usize = 64;

/// What a slot or a draw is that does not exist: -1.
const NONE: u32 = u32::MAX;

/// Gives out words, one part after another.
#[derive(Default)]
struct Words(usize);

impl Words {
    fn take(&mut self, n: usize) -> Range<usize> {
        let start = self.0;
        self.0 = (start + n).next_multiple_of(ALIGNMENT);
        start..start + n
    }
}

impl StepShape {
    /// The sizes of a batch, not padded.
    pub(super) fn of(batch: &Batch) -> StepShape {
        StepShape {
            sizes: StepSizes::of(batch),
            n_rows: batch.rows.len(),
        }
    }
}

impl Layout {
    /// The parts of a step of this shape, for a model with these inputs and so many groups.
    pub(super) fn new(shape: StepShape, inputs: &Inputs, n_groups: usize) -> Layout {
        let StepShape { sizes, n_rows } = shape;
        let n_tokens = sizes.n_tokens;
        let mut words = Words::default();
        let if_any = |has: bool| if has { n_tokens } else { 0 };
        Layout {
            shape,
            tokens: words.take(n_tokens),
            draws: words.take(n_tokens),
            position_rows: words.take(if_any(inputs.has_positions())),
            types: words.take(if_any(inputs.has_types())),
            groups: (0..n_groups)
                .map(|_| GroupLayout {
                    slots: words.take(n_tokens),
                    rows: words.take(n_rows * ROW_WORDS),
                })
                .collect(),
            angles: inputs
                .angles
                .iter()
                .map(|angles| AngleLayout::new(angles, n_tokens, &mut words))
                .collect(),
            logits_at: words.take(sizes.n_logits),
            pooled_from: words.take(sizes.n_pooled),
            pooled_len: words.take(sizes.n_pooled),
            blocks: words.0,
        }
    }

    /// Words of a step whose block tables have so many entries.
    pub(super) fn n_words(&self, n_table_entries: usize) -> usize {
        self.blocks + n_table_entries
    }

    /// Writes a batch into its parts; returns the number of words. `draws` are the indices of the tokens that the step
    /// before draws. Pad rows read token 0 and write nothing.
    pub(super) fn write(&self, to: &mut [u32], (batch, draws): (&Batch, &[u32]), inputs: &Inputs) -> usize {
        fill(&mut to[self.tokens.clone()], &batch.tokens, 0);
        let previous = &mut to[self.draws.clone()];
        previous.fill(NONE);
        for (pending, &draw) in batch.from_previous.iter().zip(draws) {
            previous[pending.token as usize] = draw;
        }
        fill(&mut to[self.position_rows.clone()], &inputs.position_rows, 0);
        fill(&mut to[self.types.clone()], &inputs.types, 0);
        for (angles, layout) in inputs.angles.iter().zip(&self.angles) {
            layout.write(to, angles);
        }
        fill(&mut to[self.logits_at.clone()], &batch.logits_at, 0);
        for (range, value) in [(&self.pooled_from, 0), (&self.pooled_len, 1)] {
            let values = inputs
                .pooled
                .iter()
                .map(|tokens| [tokens.start, tokens.len()][value] as u32);
            for (to, value) in to[range.clone()].iter_mut().zip(values) {
                *to = value;
            }
        }
        let mut n_entries = 0;
        for (group, layout) in inputs.groups.iter().zip(&self.groups) {
            fill(&mut to[layout.slots.clone()], &group.slots, NONE);
            write_rows(&mut to[layout.rows.clone()], group, n_entries);
            let at = self.blocks + n_entries;
            to[at..at + group.blocks.len()].copy_from_slice(&group.blocks);
            n_entries += group.blocks.len();
        }
        self.n_words(n_entries)
    }
}

impl AngleLayout {
    fn new(angles: &Angles, n_tokens: usize, words: &mut Words) -> AngleLayout {
        let half_dim = angles.half_dim();
        let mut table = || [(); 2].map(|()| words.take(n_tokens * half_dim));
        AngleLayout {
            half_dim,
            table: table(),
            query_table: angles.query_table.is_some().then(table),
        }
    }

    fn write(&self, to: &mut [u32], angles: &Angles) {
        let tables = [
            (Some(&self.table), Some(&angles.table)),
            (self.query_table.as_ref(), angles.query_table.as_ref()),
        ];
        for (ranges, table) in tables {
            let (Some([cos, sin]), Some(table)) = (ranges, table) else {
                continue;
            };
            write_floats(&mut to[cos.clone()], table.cos());
            write_floats(&mut to[sin.clone()], table.sin());
        }
    }
}

/// The sequences as attention reads them. A pad row has a token and nothing new.
fn write_rows(to: &mut [u32], group: &GroupInputs, first_entry: usize) {
    let mut query_start = 0;
    for (idx, to) in to.chunks_exact_mut(ROW_WORDS).enumerate() {
        let row = group.rows.get(idx);
        let row_or_pad = AttentionRow {
            query_start: query_start as u32,
            query_len: row.map_or(0, |row| row.query_len as u32),
            context_len: row.map_or(0, |row| row.context_len as u32),
            first_block: row.map_or(0, |row| (first_entry + row.first_block) as u32),
        };
        to.copy_from_slice(&row_or_pad.words());
        query_start += row.map_or(1, |row| row.query_len);
    }
}

/// Copies `values` and fills the rest with `pad`.
fn fill(to: &mut [u32], values: &[u32], pad: u32) {
    let n = values.len().min(to.len());
    let (known, rest) = to.split_at_mut(n);
    known.copy_from_slice(&values[..n]);
    rest.fill(pad);
}

fn write_floats(to: &mut [u32], values: &[f32]) {
    let (known, rest) = to.split_at_mut(values.len());
    for (to, value) in known.iter_mut().zip(values) {
        *to = value.to_bits();
    }
    rest.fill(0);
}
