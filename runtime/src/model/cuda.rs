//! The CUDA executor of a program: weights, a paged KV cache and one arena for all activations on a card.
//!
//! It enqueues op after op on one stream and draws tokens there, so that a step can be submitted before the one before it is
//! collected. Must not know families, descriptions or files.

mod cache;
mod graphs;
mod operands;
mod ops;
mod sampling;
mod step;
mod weights;
mod workspace;

use std::collections::VecDeque;

use kernels::cuda::Gpu;
use kernels::{DType, KernelError};

use super::check::inconsistent;
use super::graph_mode::GraphMode;
use super::inputs::Inputs;
use super::kv_layout::KvLayout;
use super::program::Program;
use super::rope::RopeSpec;
use super::spans::{Spans, StepSizes};
use super::step_limits::{DeviceMemory, StepLimits};
use crate::batch::{Batch, DrawSpec, KvGroup, LateInput, Logits, StepError, StepOutput};

use cache::{Cache, CacheSizes};
use graphs::{Graphs, padded};
use operands::Operands;
use ops::{Execution, Queries};
use sampling::{Enqueued, OwnDraw};
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
    graphs: Graphs,
    /// Steps that are submitted and not collected, the oldest first; at most [`DEPTH`].
    in_flight: VecDeque<InFlight>,
    /// For each draw of the step submitted last its number among those of the device.
    previous: Vec<u32>,
}

/// A program and its weights, and how the cache will keep what it computes.
pub(super) struct Loaded {
    pub(super) program: Program,
    pub(super) weights: Weights,
    pub(super) layout: KvLayout,
    /// How keys and values are stored.
    pub(super) cache_dtype: DType,
}

/// Steps in flight at most.
pub(super) const DEPTH: usize = 2;

/// A step that is submitted and not collected.
struct InFlight {
    /// Draws that wait for their late inputs.
    own: Vec<OwnDraw>,
    enqueued: Option<Enqueued>,
    /// Rows of the output that the host reads: logits that it draws from, or pooled vectors.
    host_rows: Vec<usize>,
    n_logits: usize,
}

impl InFlight {
    /// A step after which no other may be submitted before it is collected: its output stays on the device till then.
    fn is_alone(&self) -> bool {
        !self.host_rows.is_empty()
    }
}

impl std::fmt::Debug for Cuda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cuda")
            .field("gpu", &self.gpu.name())
            .finish_non_exhaustive()
    }
}

impl Cuda {
    /// An executor without a cache.
    ///
    /// # Errors
    /// The device has no memory for it, or fails.
    pub(super) fn new(
        gpu: Gpu,
        loaded: Loaded,
        ropes: &[RopeSpec],
        mode: GraphMode,
    ) -> Result<Cuda, KernelError> {
        let Loaded {
            program,
            weights,
            layout,
            cache_dtype,
        } = loaded;
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
            graphs: Graphs::new(mode),
            in_flight: VecDeque::new(),
            previous: Vec::new(),
        })
    }

    /// The program.
    pub(super) fn program(&self) -> &Program {
        &self.program
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
        if self.workspace.holds(bounds) {
            return Ok(());
        }
        if !self.in_flight.is_empty() {
            // Their tokens are in the memory that would be replaced.
            return Err(KernelError::Range {
                op: "step",
                operand: "n_tokens",
                got: bounds.n_tokens,
                rule: "within what was reserved while steps are in flight",
            });
        }
        self.workspace.grow(&needs, bounds)?;
        self.graphs.clear();
        Ok(())
    }

    /// Takes the memory for steps within `limits`, and returns what is left.
    ///
    /// # Errors
    /// The device has no memory for them.
    pub(super) fn reserve_for(&mut self, limits: &StepLimits) -> Result<DeviceMemory, KernelError> {
        let n_rows = padded(limits.n_sequences);
        let n_blocks = limits.context_len.div_ceil(limits.block_size.max(1)) + 1;
        let pools = self.workspace.sampling.is_none();
        self.reserve(Bounds {
            n_tokens: limits.n_tokens.max(n_rows),
            n_rows,
            n_logits: if pools { 0 } else { limits.n_logits.max(n_rows) },
            n_pooled: if pools { n_rows } else { 0 },
            n_table_entries: n_rows * n_blocks * self.groups().len(),
        })?;
        self.gpu.synchronize()?;
        Ok(DeviceMemory {
            total_bytes: self.gpu.total_memory() as u64,
            free_bytes: self.gpu.free_memory()? as u64,
        })
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

    /// How the numbers of the cache are stored.
    pub(super) fn cache_dtype(&self) -> DType {
        self.cache.dtype()
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

    /// Starts a checked batch: moves blocks, and enqueues its step.
    ///
    /// # Errors
    /// There is no memory for a step of this size, an op refuses its operands, or the device fails.
    pub(super) fn submit(&mut self, batch: &Batch, specs: &[DrawSpec<'_>]) -> Result<(), StepError> {
        let may_follow = self.in_flight.len() < DEPTH && !self.in_flight.iter().any(InFlight::is_alone);
        if !may_follow || specs.len() != batch.logits_at.len() {
            return Err(inconsistent(format!(
                "a step of {} draws for {} rows of logits follows {} that are not collected",
                specs.len(),
                batch.logits_at.len(),
                self.in_flight.len()
            )));
        }
        self.cache.move_blocks(&self.gpu, &batch.moves)?;
        let mut own = Vec::new();
        if !batch.rows.is_empty() {
            self.enqueue_step(batch)?;
            let sampling = self.workspace.sampling.as_mut();
            own = sampling.map_or_else(Vec::new, |sampling| sampling.begin(batch, specs));
        }
        self.previous.clear();
        self.previous.resize(specs.len(), u32::MAX);
        for (number, draw) in own.iter().enumerate() {
            self.previous[draw.idx()] = number as u32;
        }
        let by_host = |(_, spec): &(usize, &DrawSpec<'_>)| **spec == DrawSpec::Logits;
        let logits = specs.iter().enumerate().filter(by_host).map(|(row, _)| row);
        self.in_flight.push_back(InFlight {
            own,
            enqueued: None,
            host_rows: logits.chain(0..batch.pooled_rows.len()).collect(),
            n_logits: batch.logits_at.len(),
        });
        Ok(())
    }

    /// Enqueues the draws of the step submitted last, with what they lacked.
    ///
    /// # Errors
    /// No step was submitted, or the device fails.
    pub(super) fn late(&mut self, inputs: &[LateInput<'_>]) -> Result<(), StepError> {
        let step = self.in_flight.back_mut().ok_or_else(StepError::not_submitted)?;
        let Workspace { sampling, output, .. } = &mut self.workspace;
        let Some(sampling) = sampling else {
            return Ok(());
        };
        let width = self.program.buffer(self.program.output).width;
        let logits = output.view().range(0..step.n_logits * width);
        let own: Vec<OwnDraw> = std::mem::take(&mut step.own);
        step.enqueued = Some(sampling.enqueue(&self.gpu, &own, (inputs, logits))?);
        Ok(())
    }

    /// Waits for the oldest step, and returns what it computed.
    ///
    /// # Errors
    /// No step was submitted, one lacks its late inputs, or the device fails.
    pub(super) fn collect(&mut self) -> Result<StepOutput, StepError> {
        let step = self.in_flight.pop_front().ok_or_else(StepError::not_submitted)?;
        if !step.own.is_empty() {
            return Err(inconsistent(
                "a step is collected before its late inputs".to_owned(),
            ));
        }
        let mut output = StepOutput::default();
        let rows = self.output_rows(&step.host_rows)?;
        let width = self.program.buffer(self.program.output).width;
        match self.workspace.sampling.as_ref() {
            Some(sampling) => {
                output.logits = Logits {
                    values: rows,
                    vocab_size: width,
                };
                if let Some(enqueued) = &step.enqueued {
                    output.drawn = sampling.collect(enqueued)?;
                }
            }
            None => output.pooled = rows.chunks_exact(width).map(<[f32]>::to_vec).collect(),
        }
        Ok(output)
    }

    /// Rows of the output, one after another; waits for them.
    fn output_rows(&self, rows: &[usize]) -> Result<Vec<f32>, KernelError> {
        let width = self.program.buffer(self.program.output).width;
        let mut values = vec![0.0; rows.len() * width];
        let mut rest = values.as_mut_slice();
        for run in rows.chunk_by(|a, b| a + 1 == *b) {
            let (to, after) = rest.split_at_mut(run.len() * width);
            let from = self
                .workspace
                .output
                .view()
                .range(run[0] * width..(run[0] + run.len()) * width);
            self.gpu.download(from, to)?;
            rest = after;
        }
        Ok(values)
    }

    /// Enqueues the ops of a step, or replays them.
    fn enqueue_step(&mut self, batch: &Batch) -> Result<(), StepError> {
        let n_groups = self.groups().len();
        self.inputs.read(batch, n_groups, self.cache.block_size())?;
        let bucket = self.graphs.bucket(batch);
        let shape = bucket.map_or_else(|| StepShape::of(batch), decode_shape);
        self.reserve(bounds_of(shape, &self.inputs))?;
        let layout = Layout::new(shape, &self.inputs, n_groups);
        let draws = self.previous_draws(batch)?;
        let inputs = self.workspace.inputs.view();
        let slot = self.workspace.slot();
        let words = slot.as_mut_slice().map_err(KernelError::from)?;
        let n_words = layout.write(words, (batch, &draws), &self.inputs);
        let copied = self.gpu.upload_pinned(slot, 0..n_words, inputs.range(0..n_words));
        copied.map_err(KernelError::from)?;
        let Some(bucket) = bucket else {
            return Ok(self.enqueue(&layout, queries(batch))?);
        };
        let mut graphs = std::mem::replace(&mut self.graphs, Graphs::new(GraphMode::Eager));
        let decode = Queries {
            max_len: 1,
            n_single: bucket,
        };
        let ran = graphs.run(&self.gpu, bucket, || self.enqueue(&layout, decode));
        self.graphs = graphs;
        Ok(ran?)
    }

    /// For each token that the step before draws, the number of the draw on the device.
    fn previous_draws(&self, batch: &Batch) -> Result<Vec<u32>, StepError> {
        let number = |draw: u32| {
            self.previous
                .get(draw as usize)
                .filter(|number| **number != u32::MAX)
        };
        let pending = batch.from_previous.iter();
        let numbers = pending.map(|pending| {
            let unknown = || {
                inconsistent(format!(
                    "the step before has no draw {} on the device",
                    pending.draw
                ))
            };
            number(pending.draw).copied().ok_or_else(unknown)
        });
        numbers.collect()
    }

    fn enqueue(&self, layout: &Layout, queries: Queries) -> Result<(), KernelError> {
        let drawn = self.workspace.sampling.as_ref().map(sampling::Sampling::drawn);
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
            drawn: drawn.unwrap_or_else(|| self.workspace.inputs.view().range(0..0)),
            spans: Spans::new(&self.program, layout.shape.sizes),
        };
        execution.run()
    }
}

/// The shape of a decode step of so many sequences.
fn decode_shape(n_rows: usize) -> StepShape {
    StepShape {
        sizes: StepSizes {
            n_tokens: n_rows,
            n_logits: n_rows,
            n_pooled: 0,
        },
        n_rows,
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
