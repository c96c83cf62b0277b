//! The CPU executor of a program: weights, a paged KV cache, and one arena for all activations.
//!
//! It executes op after op with the kernels, each element in one fixed order of operations, and allocates nothing in
//! a step that is not larger than an earlier one. Must not know families, descriptions or files.

mod arena;
mod cache;
mod ops;

use std::time::Duration;

use kernels::{AttentionTiles, CpuContext, KernelError, Routing, embed};

use super::checkpoint::Weights;
use super::inputs::Inputs;
use super::program::{Op, Program};
use super::rope::RopeSpec;
use super::spans::{Spans, StepSizes};
use super::spec::MatrixId;
use crate::batch::{Batch, BlockMove, StepError};

use arena::{Arena, Buffers};
pub(super) use cache::Cache;
use ops::Execution;

/// A program with everything that its execution needs.
#[derive(Debug)]
pub(super) struct Cpu {
    context: CpuContext,
    program: Program,
    weights: Weights,
    cache: Cache,
    inputs: Inputs,
    arena: Arena,
    routing: Routing,
    tiles: AttentionTiles,
    /// Factors that give rows of the head length 1, where the program needs them.
    unit_scales: Vec<f32>,
}

impl Cpu {
    /// An executor; `cache` has no blocks yet. Packs the weights of products.
    ///
    /// # Errors
    /// A row of the head cannot be read.
    pub(super) fn new(
        context: CpuContext,
        program: Program,
        mut weights: Weights,
        cache: Cache,
        ropes: &[RopeSpec],
    ) -> Result<Cpu, KernelError> {
        // Each with all threads: no other copy of a weight is made.
        context.enter(|| {
            for id in program.multiplied() {
                weights.matrices[id.index].weight.pack();
            }
        });
        let unit_rows = program.ops.iter().find_map(|op| match op {
            Op::UnitRows { weight, .. } => Some(*weight),
            _ => None,
        });
        let unit_scales = match unit_rows {
            Some(weight) => unit_scales(&context, &weights, weight)?,
            None => Vec::new(),
        };
        Ok(Cpu {
            inputs: Inputs::new(&program, ropes),
            context,
            program,
            weights,
            cache,
            arena: Arena::default(),
            routing: Routing::default(),
            tiles: AttentionTiles::default(),
            unit_scales,
        })
    }

    /// The program.
    pub(super) fn program(&self) -> &Program {
        &self.program
    }

    /// The weights.
    pub(super) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// The cache.
    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The cache, to take memory for it.
    pub(super) fn cache_mut(&mut self) -> &mut Cache {
        &mut self.cache
    }

    /// Bytes of the activations and the result of a step of so many tokens and results.
    pub(super) fn step_bytes(&self, n_tokens: usize, n_outputs: usize) -> u64 {
        let sizes = StepSizes {
            n_tokens,
            n_logits: n_outputs,
            n_pooled: n_outputs,
        };
        let width = self.program.buffer(self.program.output).width;
        let activations = Spans::new(&self.program, sizes).n_floats() * size_of::<f32>();
        (activations + n_outputs * width * size_of::<f32>()) as u64
    }

    /// Does checked moves, one after the other.
    ///
    /// # Errors
    /// A block is beyond the cache.
    pub(super) fn move_blocks(&mut self, moves: &[BlockMove]) -> Result<(), StepError> {
        self.cache.move_blocks(moves)
    }

    /// Executes the program for a checked batch of at least one row. `output` becomes one row for each token of
    /// [`Batch::logits_at`] or each sequence of [`Batch::pooled_rows`]. The time of each op of the program is added to
    /// `times`, where they are wanted.
    ///
    /// # Errors
    /// There is no memory for a step of this size, or an op refuses its operands.
    pub(super) fn execute(
        &mut self,
        batch: &Batch,
        output: &mut Vec<f32>,
        times: Option<&mut [Duration]>,
    ) -> Result<(), StepError> {
        let n_outputs = batch.logits_at.len() + batch.pooled_rows.len();
        output.resize(n_outputs * self.program.buffer(self.program.output).width, 0.0);
        let (n_groups, block_size) = (self.cache.groups().len(), self.cache.block_size());
        self.inputs.read(batch, n_groups, block_size)?;
        let spans = Spans::new(&self.program, StepSizes::of(batch));
        let arena = self.arena.of_step(spans.n_floats())?;
        let mut execution = Execution {
            context: &self.context,
            program: &self.program,
            weights: &self.weights,
            cache: &mut self.cache,
            batch,
            inputs: &self.inputs,
            spans,
            buffers: Buffers::new(arena, output),
            routing: &mut self.routing,
            tiles: &mut self.tiles,
            unit_scales: &self.unit_scales,
            times,
        };
        Ok(self.context.step(|| execution.run())?)
    }
}

/// One over the length of each row of the head.
fn unit_scales(context: &CpuContext, weights: &Weights, head: MatrixId) -> Result<Vec<f32>, KernelError> {
    let mut row = vec![0.0; head.n_cols];
    let mut scales = Vec::with_capacity(head.n_rows);
    for id in 0..head.n_rows as u32 {
        let op = kernels::Embed {
            table: &weights.matrix(head).weight,
            ids: &[id],
            out: &mut row,
            then: kernels::Then::Store,
        };
        embed(context, op)?;
        let squares: f64 = row.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
        // A row of zeros has no direction; transformers' normalize keeps it zero the same way.
        scales.push(1.0 / (squares.sqrt() as f32).max(1e-12));
    }
    Ok(scales)
}
