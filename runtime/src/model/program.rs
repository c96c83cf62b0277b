//! A model as a program: a list of fused ops over numbered buffers, made once at load.
//!
//! `lower` makes it of a description, `plan` gives every buffer its place in one arena, `cost` counts bytes and
//! operations, `text` writes it down. A program names weights by number and holds none, and knows no device: `cpu`
//! executes it, and another device would execute the same list.
//!
//! Fusion is vocabulary, not a pass: lowering emits the ops below. An executor that cannot fuse a norm or an
//! activation into a product composes them, and finds a buffer for the intermediate result in the op.

mod cost;
mod lower;
mod plan;
mod text;

use std::ops::Range;

use kernels::{Activation, ExpertGroups, Heads, Mask, Scoring};

use super::kv_layout::Place;
use super::pooling::PoolingKind;
use super::spec::{MatrixId, Mlp, Norm, QkNorms, Relative, VectorId};

pub use cost::{Cost, StepShape};
pub(super) use lower::lower;

/// A model's ops in the order of their execution, and the buffers that they read and write.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Program {
    /// The ops.
    pub(super) ops: Vec<Op>,
    /// The ops of each layer.
    pub(super) layers: Vec<Range<usize>>,
    /// The buffers, by number.
    pub(super) buffers: Vec<Buffer>,
    /// Columns of each section of the arena.
    pub(super) sections: Sections,
    /// What is executed together, in order.
    pub(super) runs: Vec<Run>,
    /// Which buffer holds the result: logits, or pooled vectors.
    pub(super) output: BufferId,
}

/// Number of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct BufferId(pub(super) usize);

/// Activations in f32, row-major without gaps.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Buffer {
    /// What it holds, for people.
    pub(super) name: &'static str,
    /// What it has one row for.
    pub(super) rows: Rows,
    /// Elements of a row.
    pub(super) width: usize,
    /// Where it starts, in columns of its section: with `n` rows in a step, `n * offset` elements after the section's
    /// start. Buffers that are needed at the same time do not overlap, whatever `n` is.
    pub(super) offset: usize,
}

/// What a buffer has one row for. Each kind is a section of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Rows {
    /// Every new token.
    Tokens,
    /// Some neighbouring new tokens at a time, at most [`CHUNK_ROWS`]: the wide activations of feed-forward parts.
    Chunk,
    /// Every token whose logits are requested.
    Logits,
    /// Every sequence whose vector is requested.
    Pooled,
}

/// Tokens that pass through a feed-forward part at once: enough to use its weights well, few enough that the widest
/// activation of an 8B model stays below 64 MB.
pub(super) const CHUNK_ROWS: usize = 512;

/// Something for each kind of rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sections {
    pub(super) tokens: usize,
    pub(super) chunk: usize,
    pub(super) logits: usize,
    pub(super) pooled: usize,
}

/// Neighbouring ops that are executed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    /// The ops.
    pub(super) ops: Range<usize>,
    /// For how many tokens at a time.
    pub(super) extent: Extent,
}

/// For how many tokens at a time a [`Run`] is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// All at once.
    Step,
    /// A chunk after the other: each op reads and writes the rows of the chunk only.
    Chunks,
}

/// One op. An op that reads and writes the same buffer works in place.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Op {
    /// Rows of a table.
    Embed(Embed),
    /// `x *= factor`
    Scale { x: BufferId, factor: f32 },
    /// `out = norm(x)`
    Norm(NormRows),
    /// `out = then(weight · norm(x) + bias)`
    Linear(Linear),
    /// Queries, keys and values are made ready, and keys and values go to the cache.
    Keys(Keys),
    /// The same for latent attention.
    LatentKeys(LatentKeys),
    /// Attention over the cache.
    Attend(Attend),
    /// One product for each head.
    PerHead(PerHead),
    /// Columns of each head, copied.
    CopyHeads(CopyHeads),
    /// Which experts each token goes to. The choice stays with the executor until the next one.
    Route(Route),
    /// The products of the chosen experts, and their weighted sum.
    Experts(Experts),
    /// `x *= sigmoid(gates)`, row by row.
    Gate { x: BufferId, gates: BufferId },
    /// `x += scale · y`
    Add { x: BufferId, y: BufferId, scale: f32 },
    /// The rows of `x` whose logits are requested.
    Gather { x: BufferId, out: BufferId },
    /// One row of each sequence whose vector is requested: of one token, or the mean of all.
    Pool {
        x: BufferId,
        kind: PoolingKind,
        out: BufferId,
    },
    /// Each column over the length of the row of `weight` that it is a product with.
    UnitRows { x: BufferId, weight: MatrixId },
    /// `x = cap · tanh(x / cap)`
    Softcap { x: BufferId, cap: f32 },
    /// `x *= factor`, one number.
    Multiply { x: BufferId, factor: VectorId },
    /// `x = xielu(x)` with the parameters in `curve`.
    Xielu { x: BufferId, curve: VectorId },
}

/// `out (=|+=) table[index]`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Embed {
    pub(super) table: MatrixId,
    pub(super) index: Index,
    pub(super) out: BufferId,
    /// Whether the rows replace the output or are added to it.
    pub(super) then: kernels::Then,
}

/// What chooses a row of a table for each token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    /// Its id.
    Tokens,
    /// Its position, and so many rows before position 0.
    Positions {
        /// Row of position 0.
        from: usize,
    },
    /// Its kind of segment.
    Types,
}

/// Norms of heads of each row.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NormRows {
    pub(super) x: BufferId,
    pub(super) heads: Heads,
    pub(super) norm: Norm<VectorId>,
    /// `x` for a norm in place. Otherwise `heads` are all of a row.
    pub(super) out: BufferId,
}

/// A product with a weight.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Linear {
    pub(super) x: BufferId,
    /// Norm of the rows of `x` before the product.
    pub(super) norm: Option<Prologue>,
    pub(super) weight: MatrixId,
    pub(super) out: BufferId,
    pub(super) then: Then,
}

/// A norm before a product.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Prologue {
    pub(super) norm: Norm<VectorId>,
    /// Where an executor that cannot fuse the norm puts its result.
    pub(super) normed: BufferId,
}

/// What becomes of a product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Then {
    /// It replaces the output.
    Store,
    /// `scale` times it is added to the output.
    AddTo { scale: f32 },
    /// An activation function of it replaces the output.
    Act(Activation),
    /// Its first half is gates and its second half ups: `act(gate) · up` replaces the output.
    Gated {
        activation: Activation,
        /// Where an executor that cannot fuse the activation puts the product.
        product: BufferId,
    },
}

/// What makes queries and keys ready, in this order: clip, norms, rotary positions, norms that come after these. Keys
/// and values then go to the cache.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Keys {
    /// Queries, keys, values; changed in place.
    pub(super) qkv: BufferId,
    pub(super) place: Place,
    /// Where the query heads are.
    pub(super) queries: Heads,
    /// Where the key heads are. The values follow them.
    pub(super) keys: Heads,
    /// All are clamped to plus and minus this.
    pub(super) clip: Option<f32>,
    pub(super) norms: Option<QkNorms<VectorId>>,
    /// Which of the model's rotary positions.
    pub(super) rope: Option<usize>,
}

/// What makes latent attention's queries and short vectors ready: rotary positions of both, the norm of the short
/// vector's first `rank` elements. The short vectors then go to the cache.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LatentKeys {
    /// Queries; their last `rope_dim` elements of each head turn in place.
    pub(super) q: BufferId,
    pub(super) heads: Heads,
    /// First element of a query head that turns.
    pub(super) turn_from: usize,
    /// Short vectors, then the keys' part with positions; changed in place.
    pub(super) short: BufferId,
    /// Elements of a short vector without positions.
    pub(super) rank: usize,
    pub(super) norm: Norm<VectorId>,
    pub(super) rope: usize,
    pub(super) place: Place,
}

/// Attention of queries over the cache.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Attend {
    /// Queries, heads side by side at the start of each row.
    pub(super) q: BufferId,
    pub(super) n_heads: usize,
    /// Elements of a query and a key.
    pub(super) key_dim: usize,
    /// Floats that the cache keeps of a token for this op.
    pub(super) kv_floats: usize,
    pub(super) place: Place,
    /// Factor of the products.
    pub(super) scale: f32,
    pub(super) softcap: Option<f32>,
    /// Per head, what each position of distance takes off a score.
    pub(super) alibi_slopes: Option<Vec<f32>>,
    /// What distance adds to a score.
    pub(super) relative: Option<Relative<VectorId>>,
    /// Per head, a score without a value.
    pub(super) sinks: Option<VectorId>,
    pub(super) mask: Mask,
    pub(super) out: BufferId,
}

/// `out[head] = weights[head] · x[head]`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PerHead {
    pub(super) x: BufferId,
    pub(super) x_at: HeadColumns,
    /// One matrix for each head, all of one shape.
    pub(super) weights: Vec<MatrixId>,
    pub(super) out: BufferId,
    pub(super) out_at: HeadColumns,
}

/// `out[head] = x[head]`
#[derive(Debug, Clone, PartialEq)]
pub(super) struct CopyHeads {
    pub(super) x: BufferId,
    pub(super) x_at: HeadColumns,
    pub(super) n_heads: usize,
    /// Elements of a head that are copied.
    pub(super) width: usize,
    pub(super) out: BufferId,
    pub(super) out_at: HeadColumns,
}

/// Where the columns of each head start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeadColumns {
    /// Column of the first head.
    pub(super) first: usize,
    /// Columns from one head to the next.
    pub(super) step: usize,
}

/// The choice of experts for each token.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Route {
    /// The router's logits.
    pub(super) logits: BufferId,
    pub(super) n_experts: usize,
    pub(super) n_chosen: usize,
    pub(super) scoring: Scoring,
    pub(super) choice_bias: Option<VectorId>,
    pub(super) groups: Option<ExpertGroups>,
    pub(super) renormalise: bool,
    pub(super) scale: f32,
}

/// The experts that the last [`Route`] chose. A token's sum is taken in the order of experts, whatever tokens it is
/// computed with.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Experts {
    pub(super) x: BufferId,
    pub(super) experts: Vec<Mlp<MatrixId>>,
    pub(super) n_chosen: usize,
    /// Whether a token's weight is a factor of the expert's rows, not of its output.
    pub(super) weighs_input: bool,
    /// Where an executor that computes one expert after the other puts its intermediate results.
    pub(super) scratch: ExpertScratch,
    pub(super) out: BufferId,
}

/// Intermediate results of one expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ExpertScratch {
    /// The expert's tokens.
    pub(super) rows: BufferId,
    /// Their product with `up`.
    pub(super) product: BufferId,
    /// Its activation; the product again where the experts are not gated.
    pub(super) activated: BufferId,
    /// What `down` makes of that.
    pub(super) computed: BufferId,
}

impl Program {
    /// A buffer.
    pub(super) fn buffer(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0]
    }

    /// What an op computes one row for.
    pub(super) fn rows_of(&self, op: &Op) -> Rows {
        self.buffer(op.written()).rows
    }

    /// The matrices that products read, some of them several times; others are tables.
    pub(super) fn multiplied(&self) -> impl Iterator<Item = MatrixId> {
        self.ops.iter().flat_map(Op::multiplied)
    }
}

impl Sections {
    /// The section of a kind of rows.
    pub(super) fn of(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens => self.tokens,
            Rows::Chunk => self.chunk,
            Rows::Logits => self.logits,
            Rows::Pooled => self.pooled,
        }
    }

    /// The section of a kind of rows, to change.
    pub(super) fn of_mut(&mut self, rows: Rows) -> &mut usize {
        match rows {
            Rows::Tokens => &mut self.tokens,
            Rows::Chunk => &mut self.chunk,
            Rows::Logits => &mut self.logits,
            Rows::Pooled => &mut self.pooled,
        }
    }
}

impl Op {
    /// The matrices of its products.
    fn multiplied(&self) -> Vec<MatrixId> {
        match self {
            Op::Linear(op) => vec![op.weight],
            Op::PerHead(op) => op.weights.clone(),
            Op::Experts(op) => {
                let experts = op.experts.iter();
                experts.flat_map(|expert| [expert.up, expert.down]).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The buffer that holds its result; of a [`Op::Route`], the logits that it reads.
    pub(super) fn written(&self) -> BufferId {
        match self {
            Op::Embed(op) => op.out,
            Op::Norm(op) => op.out,
            Op::Linear(op) => op.out,
            Op::Keys(op) => op.qkv,
            Op::LatentKeys(op) => op.short,
            Op::Attend(op) => op.out,
            Op::PerHead(op) => op.out,
            Op::CopyHeads(op) => op.out,
            Op::Route(op) => op.logits,
            Op::Experts(op) => op.out,
            Op::Gather { out, .. } | Op::Pool { out, .. } => *out,
            Op::Scale { x, .. }
            | Op::Gate { x, .. }
            | Op::Add { x, .. }
            | Op::UnitRows { x, .. }
            | Op::Softcap { x, .. }
            | Op::Xielu { x, .. }
            | Op::Multiply { x, .. } => *x,
        }
    }

    /// Every buffer that it reads or writes; some twice.
    pub(super) fn buffers(&self) -> Vec<BufferId> {
        let mut buffers = vec![self.written()];
        match self {
            Op::Embed(_) | Op::Keys(_) | Op::Route(_) => {}
            Op::Scale { .. } | Op::UnitRows { .. } | Op::Softcap { .. } => {}
            Op::Xielu { .. } | Op::Multiply { .. } => {}
            Op::Norm(op) => buffers.push(op.x),
            Op::Linear(op) => {
                buffers.push(op.x);
                buffers.extend(op.norm.as_ref().map(|norm| norm.normed));
                if let Then::Gated { product, .. } = op.then {
                    buffers.push(product);
                }
            }
            Op::LatentKeys(op) => buffers.push(op.q),
            Op::Attend(op) => buffers.push(op.q),
            Op::PerHead(op) => buffers.push(op.x),
            Op::CopyHeads(op) => buffers.push(op.x),
            Op::Experts(op) => {
                let ExpertScratch {
                    rows,
                    product,
                    activated,
                    computed,
                } = op.scratch;
                buffers.extend([op.x, rows, product, activated, computed]);
            }
            Op::Gate { gates, .. } => buffers.push(*gates),
            Op::Add { y, .. } => buffers.push(*y),
            Op::Gather { x, .. } | Op::Pool { x, .. } => buffers.push(*x),
        }
        buffers
    }
}
