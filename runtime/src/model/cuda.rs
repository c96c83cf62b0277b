//! The CUDA executor of a program: weights, a paged KV cache and one arena for all activations on a card.
//!
//! It enqueues op after op on one stream. Must not know families, descriptions or files.

mod cache;
mod operands;
mod ops;
mod step;
mod weights;
mod workspace;

use kernels::cuda::Gpu;
use kernels::{DType, KernelError};

use super::inputs::Inputs;
use super::kv_layout::KvLayout;
use super::program::Program;
use super::rope::RopeSpec;
use super::spans::Spans;
use crate::batch::{Batch, BlockMove, KvGroup, StepError};

use cache::{Cache, CacheSizes};
use operands::Operands;
use ops::{Execution, Queries};
use step::{Layout, StepShape};
use workspace::{Needs, Workspace};

pub(super) use weights::{OnDevice, Weights};
pub(super) use workspace::Bounds;

/// A program with everything that its execution needs.
pub(super) struct Cuda {
    gpu: Gpu,
    program: Program,
    weights: Weights,
    operands: Operands,
    cache: Cache,
    inputs: Inputs,
    workspace: Workspace,
}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cuda")
            .field("gpu", &self.gpu.name())
            .finish_non_exhaustive()
    }
}

impl Cuda {
    /// An executor without a cache, which keeps keys and values in `cache_dtype`.
    ///
    /// # Errors
    /// The device has no memory for it, or fails.
    pub(super) fn new(
        gpu: Gpu,
        program: Program,
        weights: Weights,
        (layout, cache_dtype): (KvLayout, DType),
        ropes: &[RopeSpec],
    ) -> Result<Cuda, KernelError> {
        let inputs = Inputs::new(&program, ropes);
        let operands = Operands::new(&gpu, &program, &weights)?;
        let needs = Needs {
            gpu: &gpu,
            program: &program,
            weights: &weights,
            operands: &operands,
            inputs: &inputs,
            layout: &layout,
        };
        let workspace = Workspace::new(&needs, Bounds::NONE)?;
        Ok(Cuda {
            cache: Cache::empty(layout, cache_dtype),
            gpu,
            program,
            weights,
            operands,
            inputs,
            workspace,
        })
    }

    /// Makes room for steps within `bounds`.
    ///
    /// # Errors
    /// The device has no memory for them.
    pub(super) fn reserve(&mut self, bounds: Bounds) -> Result<(), KernelError> {
        let needs = Needs {
            gpu: &self.gpu,
            program: &self.program,
            weights: &self.weights,
            operands: &self.operands,
            inputs: &self.inputs,
            layout: self.cache.layout(),
        };
        self.workspace.reserve(&needs, bounds)?;
        Ok(())
    }

    /// The card.
    pub(super) fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Takes memory for a cache; what was there is gone.
    ///
    /// # Errors
    /// The device has no memory for it.
    pub(super) fn allocate(
        &mut self,
        n_blocks: usize,
        block_size: usize,
        n_host_blocks: usize,
    ) -> Result<(), KernelError> {
        let sizes = CacheSizes {
            n_blocks,
            block_size,
            n_host_blocks,
        };
        self.cache.allocate(&self.gpu, sizes)
    }

    /// The weights.
    pub(super) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// Bytes that a token takes in all groups together.
    pub(super) fn token_bytes(&self) -> usize {
        self.groups().len() * self.cache.block_bytes(1)
    }

    /// Groups of layers.
    pub(super) fn groups(&self) -> &[KvGroup] {
        self.cache.layout().groups()
    }

    /// Tokens per block; zero before memory was taken.
    pub(super) fn block_size(&self) -> usize {
        self.cache.block_size()
    }

    /// Blocks.
    pub(super) fn n_blocks(&self) -> usize {
        self.cache.n_blocks()
    }

    /// Blocks on the host.
    pub(super) fn n_host_blocks(&self) -> usize {
        self.cache.n_host_blocks()
    }

    /// Enqueues checked moves, one after the other.
    ///
    /// # Errors
    /// The device fails.
    pub(super) fn move_blocks(&mut self, moves: &[BlockMove]) -> Result<(), StepError> {
        self.cache.move_blocks(&self.gpu, moves)
    }

    /// Executes the program for a checked batch of at least one row, and waits. `output` becomes one row for each token
    /// of [`Batch::logits_at`] or each sequence of [`Batch::pooled_rows`].
    ///
    /// # Errors
    /// There is no memory for a step of this size, an op refuses its operands, or the device fails.
    pub(super) fn execute(&mut self, batch: &Batch, output: &mut Vec<f32>) -> Result<(), StepError> {
        let n_groups = self.groups().len();
        self.inputs.read(batch, n_groups, self.cache.block_size())?;
        let shape = StepShape::of(batch);
        self.reserve(bounds_of(shape, &self.inputs))?;
        let layout = Layout::new(shape, &self.inputs, n_groups);
        let inputs = self.workspace.inputs.view();
        let slot = self.workspace.slot();
        let n_words = layout.write(
            slot.as_mut_slice().map_err(KernelError::from)?,
            batch,
            &self.inputs,
        );
        self.gpu
            .upload_pinned(slot, 0..n_words, inputs.range(0..n_words))
            .map_err(KernelError::from)?;
        self.enqueue(&layout, queries(batch))?;
        let n_outputs = shape.sizes.n_logits + shape.sizes.n_pooled;
        output.resize(n_outputs * self.program.buffer(self.program.output).width, 0.0);
        let computed = self.workspace.output.view().range(0..output.len());
        self.gpu.download(computed, output).map_err(KernelError::from)?;
        Ok(())
    }

    fn enqueue(&self, layout: &Layout, queries: Queries) -> Result<(), KernelError> {
        let mut execution = Execution {
            gpu: &self.gpu,
            program: &self.program,
            weights: &self.weights,
            operands: &self.operands,
            cache: &self.cache,
            workspace: &self.workspace,
            inputs: &self.inputs,
            layout,
            queries,
            spans: Spans::new(&self.program, layout.shape.sizes),
        };
        execution.run()
    }
}

/// What a step needs of a workspace.
fn bounds_of(shape: StepShape, inputs: &Inputs) -> Bounds {
    Bounds {
        n_tokens: shape.sizes.n_tokens,
        n_rows: shape.n_rows,
        n_logits: shape.sizes.n_logits,
        n_pooled: shape.sizes.n_pooled,
        n_table_entries: inputs.groups.iter().map(|group| group.blocks.len()).sum(),
    }
}

/// What the host knows of a batch's new tokens.
fn queries(batch: &Batch) -> Queries {
    let lengths = batch.rows.iter().map(|row| row.query_len);
    Queries {
        max_len: lengths.clone().max().unwrap_or(1),
        n_single: lengths.filter(|&len| len == 1).count(),
    }
}
