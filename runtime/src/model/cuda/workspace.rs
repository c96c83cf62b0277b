//! What a step needs beside weights and cache, for steps up to a size: the arena, the output, the inputs and the working
//! memory of the ops.

use kernels::KernelError;
use kernels::cuda::{DeviceBuffer, Gpu, PinnedBuffer};
use kernels::gpu::{AttentionSizes, AttentionWorkspace, ProductScratch, Routing, ScratchSizes};

use super::operands::Operands;
use super::sampling::Sampling;
use super::step::{Layout, StepShape};
use super::weights::Weights;
use crate::model::inputs::Inputs;
use crate::model::kv_layout::KvLayout;
use crate::model::program::{Attend, Op, Program, Rows};
use crate::model::spans::{Spans, StepSizes};

/// The largest step, and the longest block tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::model) struct Bounds {
    pub(in crate::model) n_tokens: usize,
    pub(in crate::model) n_rows: usize,
    pub(in crate::model) n_logits: usize,
    pub(in crate::model) n_pooled: usize,
    /// Entries of the block tables of all rows and groups together.
    pub(in crate::model) n_table_entries: usize,
}

/// Slots for inputs: the host fills one while the copies of the others are waited for.
const N_SLOTS: usize = 4;

/// Memory for steps within bounds.
pub(super) struct Workspace {
    bounds: Bounds,
    /// Activations.
    pub(super) arena: DeviceBuffer<f32>,
    /// The program's output, which leaves the step.
    pub(super) output: DeviceBuffer<f32>,
    /// The step's inputs.
    pub(super) inputs: DeviceBuffer<u32>,
    /// Where the host writes them, in turn.
    slots: Vec<PinnedBuffer<u32>>,
    next_slot: usize,
    /// Working memory of products.
    pub(super) products: ProductScratch,
    /// Working memory of attention.
    pub(super) attention: AttentionWorkspace,
    /// What draws need, where the model has logits.
    pub(super) sampling: Option<Sampling>,
    /// The choice of experts, where the model has some.
    pub(super) routing: Option<Routing>,
}

/// What the sizes of a workspace depend on.
pub(super) struct Needs<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) program: &'a Program,
    pub(super) weights: &'a Weights,
    pub(super) operands: &'a Operands,
    pub(super) inputs: &'a Inputs,
    pub(super) layout: &'a KvLayout,
}

impl Bounds {
    /// The sizes of a step, with room for growth where it is larger than these.
    fn grown(self, to: Bounds) -> Bounds {
        let grown = |own: usize, to: usize| own.max(to);
        Bounds {
            n_tokens: grown(self.n_tokens, to.n_tokens),
            n_rows: grown(self.n_rows, to.n_rows),
            n_logits: grown(self.n_logits, to.n_logits),
            n_pooled: grown(self.n_pooled, to.n_pooled),
            n_table_entries: grown(self.n_table_entries, to.n_table_entries),
        }
    }

    fn shape(self) -> StepShape {
        StepShape {
            sizes: StepSizes {
                n_tokens: self.n_tokens,
                n_logits: self.n_logits,
                n_pooled: self.n_pooled,
            },
            n_rows: self.n_rows,
        }
    }

    fn n_rows_of(self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens | Rows::Chunk => self.n_tokens,
            Rows::Logits => self.n_logits,
            Rows::Pooled => self.n_pooled,
        }
    }
}

impl Workspace {
    /// Memory for steps within `bounds`.
    ///
    /// # Errors
    /// The device has not so much.
    pub(super) fn new(needs: &Needs<'_>, bounds: Bounds) -> Result<Workspace, KernelError> {
        let Needs { gpu, program, .. } = *needs;
        let shape = bounds.shape();
        let output = program.buffer(program.output);
        let layout = Layout::new(shape, needs.inputs, needs.layout.groups().len());
        let n_words = layout.n_words(bounds.n_table_entries);
        let slots = (0..N_SLOTS).map(|_| gpu.alloc_pinned(n_words));
        Ok(Workspace {
            bounds,
            arena: gpu.alloc(Spans::new(program, shape.sizes).n_floats())?,
            output: gpu.alloc(bounds.n_rows_of(output.rows) * output.width)?,
            inputs: gpu.alloc(n_words)?,
            slots: slots.collect::<Result<_, _>>()?,
            next_slot: 0,
            products: ProductScratch::new(gpu, &product_sizes(needs, bounds))?,
            attention: AttentionWorkspace::new(gpu, &attention_sizes(needs), bounds.n_rows)?,
            sampling: match output.rows {
                Rows::Logits => Some(Sampling::new(gpu, output.width, bounds.n_rows)?),
                _ => None,
            },
            routing: routing(needs, bounds)?,
        })
    }

    /// Whether it has room for steps within `bounds`.
    pub(super) fn holds(&self, bounds: Bounds) -> bool {
        self.bounds.grown(bounds) == self.bounds
    }

    /// Makes room for steps within `bounds`. All of its memory is other memory then.
    ///
    /// # Errors
    /// The device has not so much.
    pub(super) fn grow(&mut self, needs: &Needs<'_>, bounds: Bounds) -> Result<(), KernelError> {
        let grown = self.bounds.grown(bounds);
        // The old memory is given back first: both may not fit.
        *self = Workspace::new(needs, Bounds::NONE)?;
        *self = Workspace::new(needs, grown)?;
        Ok(())
    }

    /// The next slot for inputs.
    pub(super) fn slot(&mut self) -> &mut PinnedBuffer<u32> {
        self.next_slot = (self.next_slot + 1) % N_SLOTS;
        &mut self.slots[self.next_slot]
    }
}

impl Bounds {
    /// No step at all.
    pub(super) const NONE: Bounds = Bounds {
        n_tokens: 0,
        n_rows: 0,
        n_logits: 0,
        n_pooled: 0,
        n_table_entries: 0,
    };
}

/// The most that the products of a program need.
fn product_sizes(needs: &Needs<'_>, bounds: Bounds) -> ScratchSizes {
    let mut sizes = ScratchSizes::default();
    for (idx, op) in needs.program.ops.iter().enumerate() {
        let m = bounds.n_rows_of(needs.program.rows_of(op));
        match op {
            Op::Linear(op) => sizes = sizes.linear(m, &needs.weights.matrix(op.weight)),
            Op::PerHead(_) => {
                if let Some(weights) = needs.operands.per_head(idx) {
                    sizes = sizes.per_head(m, weights);
                }
            }
            Op::Experts(op) => {
                if let Some(experts) = needs.operands.experts(idx) {
                    sizes = sizes.experts(m, op.n_chosen, experts);
                }
            }
            _ => {}
        }
    }
    sizes
}

/// The sizes of every attention of a program.
fn attention_sizes(needs: &Needs<'_>) -> Vec<AttentionSizes> {
    let attentions = needs.program.ops.iter().filter_map(|op| match op {
        Op::Attend(attend) => Some(attend),
        _ => None,
    });
    let sizes = |attend: &Attend| {
        let shape = needs.layout.shapes()[attend.place.slot];
        AttentionSizes {
            n_heads: attend.n_heads,
            n_kv_heads: shape.n_heads,
            value_dim: shape.value_dim(),
        }
    };
    attentions.map(sizes).collect()
}

/// Room for the largest choice of experts.
fn routing(needs: &Needs<'_>, bounds: Bounds) -> Result<Option<Routing>, KernelError> {
    let routes = needs.program.ops.iter().filter_map(|op| match op {
        Op::Route(route) => Some((route.n_experts, route.n_chosen)),
        _ => None,
    });
    let largest = routes.reduce(|a, b| (a.0.max(b.0), a.1.max(b.1)));
    largest
        .map(|sizes| Routing::new(needs.gpu, bounds.n_tokens, sizes))
        .transpose()
}
