//! What a step costs: bytes that are moved and operations that are computed, op by op, from the shapes alone.

use kernels::Mask;

use super::{Attend, BufferId, Experts, Op, Program, Rows, Then};
use crate::model::spec::MatrixId;

/// A step of equal sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepShape {
    /// Sequences.
    pub n_sequences: usize,
    /// New tokens of each.
    pub query_len: usize,
    /// Tokens of each after the step, the new ones included.
    pub context_len: usize,
}

/// Bytes and operations. Activations are in f32; they count once for each op that reads or writes them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of weights that are read.
    pub weight_bytes: u64,
    /// Bytes of the cache that are read or written.
    pub kv_bytes: u64,
    /// Bytes of activations that are read or written.
    pub activation_bytes: u64,
    /// Floating-point operations: two for each product that is added up, none for what is not a product.
    pub flops: u64,
}

impl Cost {
    /// Bytes of all kinds.
    pub fn bytes(&self) -> u64 {
        self.weight_bytes + self.kv_bytes + self.activation_bytes
    }
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.weight_bytes += other.weight_bytes;
        self.kv_bytes += other.kv_bytes;
        self.activation_bytes += other.activation_bytes;
        self.flops += other.flops;
    }
}

/// What some equal ops of a program cost together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpCost {
    /// What they compute.
    pub op: String,
    /// How many there are.
    pub n: usize,
    /// What they cost together.
    pub cost: Cost,
}

/// Whether logits or vectors are requested of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Results {
    /// One row of each sequence.
    Requested,
    /// None: a part of a prompt that is not its last one. The ops behind the layers are not executed.
    None,
}

/// What steps of a loaded model cost.
#[derive(Debug, Clone)]
pub struct Costs {
    program: Program,
    /// Bytes of each matrix in memory, by number.
    matrix_bytes: Vec<u64>,
    /// Bytes of a number in the KV cache.
    kv_bytes: u64,
}

const FLOAT_BYTES: u64 = 4;

/// How large the numbers are that a step reads.
#[derive(Clone, Copy)]
pub(in crate::model) struct Stored<'a> {
    /// Bytes of a matrix in memory.
    pub(in crate::model) matrix_bytes: &'a dyn Fn(MatrixId) -> u64,
    /// Bytes of a number in the KV cache.
    pub(in crate::model) kv_bytes: u64,
}

impl Costs {
    pub(in crate::model) fn new(program: Program, matrix_bytes: Vec<u64>, kv_bytes: u64) -> Costs {
        Costs {
            program,
            matrix_bytes,
            kv_bytes,
        }
    }

    /// What the ops of a step cost: one entry for all ops of the same kind and shape, in the order of their first one.
    pub fn of_ops(&self, step: StepShape, results: Results) -> Vec<OpCost> {
        let stored = Stored {
            matrix_bytes: &|id| self.matrix_bytes[id.index],
            kv_bytes: self.kv_bytes,
        };
        let mut costs = self.program.costs(step, stored);
        if results == Results::None {
            let of_results = |op: &&Op| matches!(self.program.rows_of(op), Rows::Logits | Rows::Pooled);
            for label in self.program.ops.iter().filter(of_results).map(Op::label) {
                let same = costs.iter_mut().filter(|op| op.op == label);
                same.for_each(|op| op.cost = Cost::default());
            }
        }
        costs
    }

    /// What all ops of a step cost together.
    pub fn of_step(&self, step: StepShape, results: Results) -> Cost {
        let mut total = Cost::default();
        for op in self.of_ops(step, results) {
            total += op.cost;
        }
        total
    }
}

impl Program {
    /// What a step costs: one entry for all ops of the same kind and shape, in the order of their first one.
    pub(in crate::model) fn costs(&self, step: StepShape, stored: Stored<'_>) -> Vec<OpCost> {
        let mut costs: Vec<OpCost> = Vec::new();
        for op in &self.ops {
            let (label, cost) = (op.label(), self.cost(op, step, stored));
            match costs.iter_mut().find(|other| other.op == label) {
                Some(same) => {
                    same.n += 1;
                    same.cost += cost;
                }
                None => costs.push(OpCost {
                    op: label,
                    n: 1,
                    cost,
                }),
            }
        }
        costs
    }

    /// What an op costs in a step.
    pub(in crate::model) fn cost(&self, op: &Op, shape: StepShape, stored: Stored<'_>) -> Cost {
        let bytes_of = stored.matrix_bytes;
        let mut cost = Cost {
            activation_bytes: self.activation_bytes(op, shape),
            ..Cost::default()
        };
        let m = shape.n_rows(self.rows_of(op));
        let products = |weight: MatrixId, m: u64| 2 * m * (weight.n_rows * weight.n_cols) as u64;
        match op {
            Op::Embed(op) => cost.weight_bytes = bytes_of(op.table) * m / op.table.n_rows as u64,
            Op::Linear(op) => {
                cost.weight_bytes = bytes_of(op.weight);
                cost.flops = products(op.weight, m);
            }
            Op::PerHead(op) => {
                cost.weight_bytes = op.weights.iter().map(|weight| bytes_of(*weight)).sum();
                cost.flops = op.weights.iter().map(|weight| products(*weight, m)).sum();
            }
            Op::Experts(op) => cost += experts_cost(op, m, bytes_of),
            Op::Keys(op) => {
                let values = op.keys.n_heads * op.keys.head_dim;
                cost.kv_bytes = m * 2 * values as u64 * stored.kv_bytes;
            }
            Op::LatentKeys(op) => {
                cost.kv_bytes = m * self.buffer(op.short).width as u64 * stored.kv_bytes;
            }
            Op::Attend(op) => cost += self.attention_cost(op, shape, stored.kv_bytes),
            _ => {}
        }
        cost
    }

    /// What all ops of a step cost.
    pub(in crate::model) fn total_cost(&self, shape: StepShape, stored: Stored<'_>) -> Cost {
        let mut total = Cost::default();
        for op in &self.ops {
            total += self.cost(op, shape, stored);
        }
        total
    }

    /// Every buffer of an op once for each time that it is read or written.
    fn activation_bytes(&self, op: &Op, shape: StepShape) -> u64 {
        let of = |id: BufferId| {
            let buffer = self.buffer(id);
            shape.n_rows(buffer.rows) * buffer.width as u64 * FLOAT_BYTES
        };
        // What only an executor that cannot fuse needs is not counted, and an expert's rows are in its own cost.
        let read: u64 = match op {
            Op::Embed(op) if op.then == kernels::Then::Store => 0,
            Op::Linear(op) => {
                of(op.x)
                    + if matches!(op.then, Then::AddTo { .. }) {
                        of(op.out)
                    } else {
                        0
                    }
            }
            Op::Norm(op) => of(op.x),
            Op::Attend(op) => {
                let queries = shape.n_tokens() * (op.n_heads * op.key_dim) as u64 * FLOAT_BYTES;
                queries + op.bias_buffers().map(of).sum::<u64>()
            }
            Op::LatentKeys(op) => of(op.short) + 2 * of(op.q),
            Op::PerHead(op) => of(op.x),
            Op::CopyHeads(op) => 2 * shape.n_tokens() * (op.n_heads * op.width) as u64 * FLOAT_BYTES,
            Op::Experts(op) => of(op.x),
            Op::Gate { x, gates } => of(*x) + of(*gates),
            Op::Add { x, y, .. } => of(*x) + of(*y),
            Op::Gather { out, .. } => of(*out),
            Op::Pool { x, .. } => of(*x),
            Op::Embed(_)
            | Op::Scale { .. }
            | Op::Keys(_)
            | Op::Route(_)
            | Op::UnitRows { .. }
            | Op::Softcap { .. }
            | Op::Xielu { .. }
            | Op::Multiply { .. } => of(op.written()),
        };
        let written = match op {
            Op::CopyHeads(_) | Op::Route(_) => 0,
            op => of(op.written()),
        };
        read + written
    }

    fn attention_cost(&self, op: &Attend, shape: StepShape, kv_bytes: u64) -> Cost {
        let value_dim = self.buffer(op.out).width / op.n_heads;
        let window = match op.mask {
            Mask::Causal { window } => window.unwrap_or(usize::MAX),
            Mask::Full | Mask::Around { .. } => usize::MAX,
        };
        let first = shape.context_len - shape.query_len;
        let seen: usize = match op.mask {
            Mask::Full => shape.query_len * shape.context_len,
            Mask::Around { reach } => shape.query_len * shape.context_len.min(2 * reach + 1),
            Mask::Causal { .. } => (first..shape.context_len)
                .map(|position| (position + 1).min(window))
                .sum(),
        };
        let n_read = shape
            .context_len
            .min(window.saturating_add(shape.query_len.saturating_sub(1)));
        let n_sequences = shape.n_sequences as u64;
        Cost {
            kv_bytes: n_sequences * (n_read * op.kv_floats) as u64 * kv_bytes,
            flops: n_sequences * 2 * (seen * op.n_heads * (op.key_dim + value_dim)) as u64,
            ..Cost::default()
        }
    }
}

impl Op {
    /// Its kind and the shape of its weights.
    pub(in crate::model) fn label(&self) -> String {
        let shape = |id: &MatrixId| format!("[{}, {}]", id.n_rows, id.n_cols);
        let name = self.name();
        match self {
            Op::Embed(op) => format!("{name} {}", shape(&op.table)),
            Op::Linear(op) => format!("{name} {}", shape(&op.weight)),
            Op::PerHead(op) => {
                let first = op.weights.first().map(shape).unwrap_or_default();
                format!("{name} {} x {first}", op.weights.len())
            }
            Op::Experts(op) => {
                let up = op.experts.first().map(|mlp| shape(&mlp.up)).unwrap_or_default();
                format!("{name} {} of {} x {up}", op.n_chosen, op.experts.len())
            }
            Op::Attend(op) => format!("{name} {} heads of {}", op.n_heads, op.key_dim),
            _ => name.to_owned(),
        }
    }
}

/// The weights of the experts that are expected to be chosen by `m` tokens, were the choice uniform.
fn experts_cost(op: &Experts, m: u64, bytes_of: &dyn Fn(MatrixId) -> u64) -> Cost {
    let n_experts = op.experts.len() as f64;
    let share = op.n_chosen as f64 / n_experts;
    let is_chosen = 1.0 - (1.0 - share).powf(m as f64);
    let of_all = |of: &dyn Fn(MatrixId) -> u64| -> u64 {
        let both = op.experts.iter().flat_map(|mlp| [mlp.up, mlp.down]);
        both.map(of).sum()
    };
    let products = of_all(&|weight| 2 * m * (weight.n_rows * weight.n_cols) as u64);
    let rows = of_all(&|weight| m * (weight.n_rows + weight.n_cols) as u64 * FLOAT_BYTES);
    Cost {
        weight_bytes: (of_all(bytes_of) as f64 * is_chosen) as u64,
        activation_bytes: (rows as f64 * share) as u64,
        flops: (products as f64 * share) as u64,
        ..Cost::default()
    }
}

impl StepShape {
    /// New tokens of all sequences.
    fn n_tokens(self) -> u64 {
        (self.n_sequences * self.query_len) as u64
    }

    /// Rows of a buffer, in all chunks together.
    fn n_rows(self, rows: Rows) -> u64 {
        match rows {
            Rows::Tokens | Rows::Chunk => self.n_tokens(),
            Rows::Logits | Rows::Pooled => self.n_sequences as u64,
        }
    }
}
