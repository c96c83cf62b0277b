//! A batch as the ops read it: flat arrays, kept so that a step of the same size allocates nothing.

use std::ops::Range;

use kernels::{AttentionRow, KernelError, RopePairs, RopeTable};

use crate::batch::{Batch, BatchRow};
use crate::model::pooling::PoolingKind;
use crate::model::program::{Index, Op, Program};
use crate::model::rope::RopeSpec;

/// What the ops read of a step beside activations.
#[derive(Debug)]
pub(in crate::model) struct Inputs {
    /// Rows of the table of positions, if the model has one. `[n_tokens]`
    pub(in crate::model) position_rows: Vec<u32>,
    /// Rows of the table of segments, if the model has one. `[n_tokens]`
    pub(in crate::model) types: Vec<u32>,
    /// For each group of layers, what its attention reads.
    pub(in crate::model) groups: Vec<GroupInputs>,
    /// The angles of each of the model's rotary positions.
    pub(in crate::model) angles: Vec<Angles>,
    /// The tokens that each requested vector is made of.
    pub(in crate::model) pooled: Vec<Range<usize>>,
    pooling: Option<PoolingKind>,
    /// Row of position 0 in the table of positions.
    positions_from: Option<usize>,
    has_types: bool,
}

/// What attention reads in the layers of a group.
#[derive(Debug, Default)]
pub(in crate::model) struct GroupInputs {
    /// Slot of each new token. `[n_tokens]`
    pub(in crate::model) slots: Vec<u32>,
    /// The sequences.
    pub(in crate::model) rows: Vec<AttentionRow>,
    /// Blocks of all sequences, one table after another.
    pub(in crate::model) blocks: Vec<u32>,
}

/// The angles of the new tokens for one rotary position.
#[derive(Debug)]
pub(in crate::model) struct Angles {
    spec: RopeSpec,
    /// Which frequencies `inv_freq` has.
    variant: Option<u64>,
    inv_freq: Vec<f32>,
    /// Cosines and sines.
    pub(in crate::model) table: RopeTable,
    /// Those of queries, where they differ.
    pub(in crate::model) query_table: Option<RopeTable>,
}

impl Inputs {
    /// Inputs of a program whose layers refer to `ropes`.
    pub(in crate::model) fn new(program: &Program, ropes: &[RopeSpec]) -> Inputs {
        let indices = || {
            program.ops.iter().filter_map(|op| match op {
                Op::Embed(embed) => Some(embed.index),
                _ => None,
            })
        };
        let angles = |spec: &RopeSpec| Angles {
            spec: spec.clone(),
            variant: None,
            inv_freq: Vec::new(),
            table: RopeTable::default(),
            query_table: spec.query_factor(0).map(|_| RopeTable::default()),
        };
        Inputs {
            position_rows: Vec::new(),
            types: Vec::new(),
            groups: Vec::new(),
            angles: ropes.iter().map(angles).collect(),
            pooled: Vec::new(),
            pooling: program.ops.iter().find_map(|op| match op {
                Op::Pool { kind, .. } => Some(*kind),
                _ => None,
            }),
            positions_from: indices().find_map(|index| match index {
                Index::Positions { from } => Some(from),
                _ => None,
            }),
            has_types: indices().any(|index| index == Index::Types),
        }
    }

    /// Whether the model has a table of positions.
    pub(in crate::model) fn has_positions(&self) -> bool {
        self.positions_from.is_some()
    }

    /// Whether the model has a table of segments.
    pub(in crate::model) fn has_types(&self) -> bool {
        self.has_types
    }

    /// Takes over a checked batch of a model whose cache has blocks of `block_size` tokens for so many groups.
    pub(in crate::model) fn read(
        &mut self,
        batch: &Batch,
        n_groups: usize,
        block_size: usize,
    ) -> Result<(), KernelError> {
        self.position_rows.clear();
        if let Some(from) = self.positions_from {
            let rows = batch.positions.iter().map(|position| position + from as u32);
            self.position_rows.extend(rows);
        }
        self.types.clear();
        if self.has_types {
            self.types.extend(&batch.token_types);
            self.types.resize(batch.tokens.len(), 0);
        }
        self.groups.resize_with(n_groups, GroupInputs::default);
        for (group, inputs) in self.groups.iter_mut().enumerate() {
            inputs.read(batch, group, block_size);
        }
        for angles in &mut self.angles {
            angles.read(batch)?;
        }
        self.pooled.clear();
        if let Some(kind) = self.pooling {
            let rows = batch.pooled_rows.iter().map(|&row| &batch.rows[row as usize]);
            self.pooled.extend(rows.map(|row| pooled_tokens(row, kind)));
        }
        Ok(())
    }
}

impl GroupInputs {
    fn read(&mut self, batch: &Batch, group: usize, block_size: usize) {
        self.slots.clear();
        self.rows.clear();
        self.blocks.clear();
        for row in &batch.rows {
            let table = &row.block_tables[group];
            self.rows.push(AttentionRow {
                query_len: row.query_len,
                context_len: row.context_len,
                first_block: self.blocks.len(),
            });
            self.blocks.extend(table.iter().map(|block| block.0));
            let slot = |&position: &u32| {
                let block = table[position as usize / block_size];
                block.0 * block_size as u32 + position % block_size as u32
            };
            self.slots.extend(positions(batch, row).iter().map(slot));
        }
    }
}

impl Angles {
    /// Pairs that turn.
    pub(in crate::model) fn half_dim(&self) -> usize {
        self.spec.half_dim()
    }

    /// Which elements of a head turn together.
    pub(in crate::model) fn pairs(&self) -> RopePairs {
        self.spec.pairs
    }

    fn read(&mut self, batch: &Batch) -> Result<(), KernelError> {
        self.table.clear();
        self.query_table.iter_mut().for_each(RopeTable::clear);
        let scale = self.spec.attention_factor();
        for row in &batch.rows {
            // For nearly every model there is one variant, and its frequencies are computed once.
            let variant = self.spec.variant(row.prompt_len);
            if self.variant != Some(variant) {
                self.spec.write_inv_freq(row.prompt_len, &mut self.inv_freq);
                self.variant = Some(variant);
            }
            self.table.extend(positions(batch, row), &self.inv_freq, scale)?;
            if let Some(table) = &mut self.query_table {
                for &position in positions(batch, row) {
                    let scale = scale * self.spec.query_factor(position).unwrap_or(1.0);
                    table.extend(&[position], &self.inv_freq, scale)?;
                }
            }
        }
        Ok(())
    }
}

/// Positions of a row's new tokens.
fn positions<'a>(batch: &'a Batch, row: &BatchRow) -> &'a [u32] {
    &batch.positions[row.query_start..row.query_start + row.query_len]
}

/// The tokens that a sequence's vector is made of.
fn pooled_tokens(row: &BatchRow, kind: PoolingKind) -> Range<usize> {
    let end = row.query_start + row.query_len;
    match kind {
        PoolingKind::First => row.query_start..row.query_start + 1,
        PoolingKind::Last => end - 1..end,
        PoolingKind::Mean => row.query_start..end,
    }
}
