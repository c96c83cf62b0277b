//! Each op of a program as calls of kernels. Where a program fuses what kernels do not, they are composed here.

use std::time::{Duration, Instant};

use kernels::{
    ActivateGated, Activation, AddRows, Attention, AttentionTiles, BiasValues, Columns, CopyColumns,
    CpuContext, ExpertTokens, Gemm, Heads, KernelError, KvCache, KvWrite, Norm as NormRowsOf, RelativeBias,
    Rope, Routing, Scores, activate, activate_gated, add, add_rows, attention, clamp, copy_columns, embed,
    gate_rows, gather_rows, gemm, kv_write, mean_of_rows, norm, rope, route, scale, scale_columns,
    scale_rows, softcap,
};

use super::arena::Buffers;
use super::cache::Cache;
use crate::batch::Batch;
use crate::model::checkpoint::Weights;
use crate::model::inputs::Inputs;
use crate::model::kv_layout::Place;
use crate::model::program::{
    Attend, BufferId, CHUNK_ROWS, CopyHeads, Embed, Experts, Extent, HeadColumns, Index, Keys, LatentKeys,
    Linear, NormRows, Op, PerHead, Program, RelativeValues, Route, Then,
};
use crate::model::spans::{Span, Spans};
use crate::model::spec::{MatrixId, Mlp, Norm, QkNorms, VectorId};

/// A step in execution.
pub(super) struct Execution<'a> {
    pub(super) context: &'a CpuContext,
    pub(super) program: &'a Program,
    pub(super) weights: &'a Weights,
    pub(super) cache: &'a mut Cache,
    pub(super) batch: &'a Batch,
    pub(super) inputs: &'a Inputs,
    pub(super) spans: Spans<'a>,
    pub(super) buffers: Buffers<'a>,
    pub(super) routing: &'a mut Routing,
    pub(super) tiles: &'a mut AttentionTiles,
    /// Factors that give rows of the head length 1.
    pub(super) unit_scales: &'a [f32],
    /// What the time of each op of the program is added to, where it is wanted.
    pub(super) times: Option<&'a mut [Duration]>,
}

impl Execution<'_> {
    /// Executes the program.
    pub(super) fn run(&mut self) -> Result<(), KernelError> {
        let n_tokens = self.spans.n_tokens();
        for run in &self.program.runs {
            let n_together = match run.extent {
                Extent::Step => n_tokens,
                Extent::Chunks => CHUNK_ROWS,
            };
            for first in (0..n_tokens).step_by(n_together) {
                self.spans.enter(first..(first + n_together).min(n_tokens));
                for at in run.ops.clone() {
                    let op = &self.program.ops[at];
                    if self.spans.n_rows(self.program.rows_of(op)) > 0 {
                        self.timed(at, op)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn timed(&mut self, at: usize, op: &Op) -> Result<(), KernelError> {
        if self.times.is_none() {
            return self.op(op);
        }
        let begun = Instant::now();
        self.op(op)?;
        if let Some(times) = &mut self.times {
            times[at] += begun.elapsed();
        }
        Ok(())
    }

    fn op(&mut self, op: &Op) -> Result<(), KernelError> {
        match op {
            Op::Embed(op) => self.embed(op),
            Op::Norm(NormRows { x, heads, norm, out }) => self.norm(norm, *heads, *x, *out),
            Op::Linear(op) => self.linear(op),
            Op::Keys(op) => self.keys(op),
            Op::LatentKeys(op) => self.latent_keys(op),
            Op::Attend(op) => self.attend(op),
            Op::PerHead(op) => self.per_head(op),
            Op::CopyHeads(op) => self.copy_heads(op),
            Op::Route(op) => self.route(op),
            Op::Experts(op) => self.experts(op),
            Op::Pool { x, out, .. } => self.pool(*x, *out),
            Op::Scale { x, factor } => {
                let x = self.spans.all(*x);
                scale(self.context, self.buffers.one(x), *factor);
                Ok(())
            }
            Op::Softcap { x, cap } => {
                let x = self.spans.all(*x);
                softcap(self.context, self.buffers.one(x), *cap);
                Ok(())
            }
            Op::Multiply { x, factor } => {
                let factor = self.weights.vector(*factor).first().copied();
                let x = self.spans.all(*x);
                scale(self.context, self.buffers.one(x), factor.unwrap_or(1.0));
                Ok(())
            }
            Op::Xielu { x, curve } => {
                let activation = xielu(self.weights.vector(*curve));
                let x = self.spans.all(*x);
                activate(self.context, activation, self.buffers.one(x));
                Ok(())
            }
            Op::UnitRows { x, .. } => {
                let x = self.spans.all(*x);
                scale_columns(self.context, self.buffers.one(x), self.unit_scales)
            }
            Op::Gate { x, gates } => {
                let (gates, x) = self.both(*gates, *x);
                let (gates, x) = self.buffers.two(gates, x);
                gate_rows(self.context, x, gates)
            }
            Op::Add { x, y, scale } => {
                let (y, x) = self.both(*y, *x);
                let (y, x) = self.buffers.two(y, x);
                add(self.context, x, *scale, y)
            }
            Op::Gather { x, out } => {
                let (x, out) = self.both(*x, *out);
                let (x, out) = self.buffers.two(x, out);
                gather_rows(x, &self.batch.logits_at, out)
            }
        }
    }

    /// All that is seen of two buffers.
    fn both(&self, read: BufferId, write: BufferId) -> (Span, Span) {
        (self.spans.all(read), self.spans.all(write))
    }

    fn embed(&mut self, op: &Embed) -> Result<(), KernelError> {
        let ids = match op.index {
            Index::Tokens => &self.batch.tokens,
            Index::Positions { .. } => &self.inputs.position_rows,
            Index::Types => &self.inputs.types,
        };
        let out = self.spans.all(op.out);
        let op = kernels::Embed {
            table: &self.weights.matrix(op.table).weight,
            ids,
            out: self.buffers.one(out),
            then: op.then,
        };
        embed(self.context, op)
    }

    fn norm(
        &mut self,
        of: &Norm<VectorId>,
        heads: Heads,
        x: BufferId,
        out: BufferId,
    ) -> Result<(), KernelError> {
        let (read, write) = self.both(x, out);
        let (x, out) = if x == out {
            (None, self.buffers.one(write))
        } else {
            let (x, out) = self.buffers.two(read, write);
            (Some(x), out)
        };
        let op = NormRowsOf {
            x,
            out,
            heads,
            kind: of.kind,
            weight: of.weight.map(|id| self.weights.vector(id)),
            bias: of.bias.map(|id| self.weights.vector(id)),
            eps: of.eps,
        };
        norm(self.context, op)
    }

    fn linear(&mut self, op: &Linear) -> Result<(), KernelError> {
        let x = match &op.norm {
            None => op.x,
            Some(prologue) => {
                let heads = Heads::whole(self.spans.width(op.x));
                self.norm(&prologue.norm, heads, op.x, prologue.normed)?;
                prologue.normed
            }
        };
        let (x, out) = self.both(x, op.out);
        match op.then {
            Then::Store => self.product(op.weight, x, out, kernels::Then::Store),
            Then::AddTo { scale } => self.product(op.weight, x, out, kernels::Then::AddTo { scale }),
            Then::Act(activation) => {
                self.product(op.weight, x, out.clone(), kernels::Then::Store)?;
                activate(self.context, activation, self.buffers.one(out));
                Ok(())
            }
            Then::Gated { activation, product } => {
                let product = self.spans.all(product);
                self.product(op.weight, x, product.clone(), kernels::Then::Store)?;
                let width = self.spans.width(op.out);
                let (gate_up, out) = self.buffers.two(product, out);
                let op = ActivateGated {
                    activation,
                    gate_up,
                    width,
                    out,
                };
                activate_gated(self.context, op)
            }
        }
    }

    /// A product of all columns.
    fn product(
        &mut self,
        weight: MatrixId,
        x: Span,
        out: Span,
        then: kernels::Then,
    ) -> Result<(), KernelError> {
        let linear = self.weights.matrix(weight);
        let (x, y) = self.buffers.two(x, out);
        let op = Gemm::of_rows(x, &linear.weight, linear.bias.as_deref(), y);
        gemm(self.context, Gemm { then, ..op })
    }

    fn keys(&mut self, op: &Keys) -> Result<(), KernelError> {
        let qkv = self.spans.all(op.qkv);
        if let Some(limit) = op.clip {
            clamp(self.buffers.one(qkv.clone()), limit)?;
        }
        let norms_at = |after_rope| op.norms.as_ref().filter(|norms| norms.after_rope == after_rope);
        if let Some(norms) = norms_at(false) {
            self.norm_queries_and_keys(norms, op)?;
        }
        if let Some(rope) = op.rope {
            let both = Heads {
                n_heads: op.queries.n_heads + op.keys.n_heads,
                ..op.queries
            };
            if self.inputs.angles[rope].query_table.is_none() {
                self.turn(qkv.clone(), both, 0, rope)?;
            } else {
                self.turn_queries(qkv.clone(), op.queries, rope)?;
                self.turn(qkv.clone(), op.keys, 0, rope)?;
            }
        }
        if let Some(norms) = norms_at(true) {
            self.norm_queries_and_keys(norms, op)?;
        }
        let columns = Columns {
            row_stride: op.keys.row_stride,
            first: op.keys.first,
        };
        self.write_keys(op.place, qkv, columns)
    }

    fn norm_queries_and_keys(&mut self, norms: &QkNorms<VectorId>, op: &Keys) -> Result<(), KernelError> {
        let values = Heads {
            first: op.keys.first + op.keys.n_heads * op.keys.head_dim,
            ..op.keys
        };
        let of_values = norms.v.iter().map(|norm| (norm, values));
        let of_both = [(&norms.q, op.queries), (&norms.k, op.keys)];
        for (norm, heads) in of_both.into_iter().chain(of_values) {
            let as_one = Heads {
                n_heads: 1,
                head_dim: heads.n_heads * heads.head_dim,
                ..heads
            };
            let heads = if norms.over_all_heads { as_one } else { heads };
            self.norm(norm, heads, op.qkv, op.qkv)?;
        }
        Ok(())
    }

    fn latent_keys(&mut self, op: &LatentKeys) -> Result<(), KernelError> {
        let (q, short) = self.both(op.q, op.short);
        self.turn(q, op.heads, op.turn_from, op.rope)?;
        let key_dim = self.spans.width(op.short);
        let normed = Heads {
            head_dim: op.rank,
            ..Heads::whole(key_dim)
        };
        self.norm(&op.norm, normed, op.short, op.short)?;
        self.turn(short.clone(), Heads::whole(key_dim), op.rank, op.rope)?;
        self.write_keys(op.place, short, Columns::all(key_dim))
    }

    fn turn(&mut self, x: Span, heads: Heads, from: usize, idx: usize) -> Result<(), KernelError> {
        let angles = &self.inputs.angles[idx];
        let op = Rope {
            x: self.buffers.one(x),
            heads,
            from,
            pairs: angles.pairs(),
            table: &angles.table,
        };
        rope(self.context, op)
    }

    /// Turns queries by a table of their own.
    fn turn_queries(&mut self, x: Span, heads: Heads, idx: usize) -> Result<(), KernelError> {
        let angles = &self.inputs.angles[idx];
        let op = Rope {
            x: self.buffers.one(x),
            heads,
            from: 0,
            pairs: angles.pairs(),
            table: angles.query_table.as_ref().unwrap_or(&angles.table),
        };
        rope(self.context, op)
    }

    fn write_keys(&mut self, place: Place, x: Span, keys: Columns) -> Result<(), KernelError> {
        let op = KvWrite {
            x: self.buffers.one(x),
            row_stride: keys.row_stride,
            keys_at: keys.first,
            slots: &self.inputs.groups[place.group].slots,
        };
        kv_write(self.cache.at_mut(place), op)
    }

    fn attend(&mut self, op: &Attend) -> Result<(), KernelError> {
        let q_stride = self.spans.width(op.q);
        let values = op.relative.as_ref().map(|relative| relative.values);
        let of_tokens = match values {
            Some(RelativeValues::OfTokens { queries, keys, .. }) => [queries, keys],
            Some(RelativeValues::Table(_)) | None => [None, None],
        };
        let [of_queries, of_keys] = of_tokens.map(|buffer| buffer.unwrap_or(op.q));
        let reads = [op.q, of_queries, of_keys].map(|buffer| self.spans.all(buffer));
        let ([q, of_queries, of_keys], out) = self.buffers.several(reads, self.spans.all(op.out));
        let values = values.map(|values| match values {
            RelativeValues::Table(id) => BiasValues::Table(self.weights.vector(id)),
            RelativeValues::OfTokens {
                queries,
                keys,
                n_buckets,
            } => BiasValues::OfTokens {
                queries: queries.map(|_| of_queries),
                keys: keys.map(|_| of_keys),
                n_buckets,
            },
        });
        let buckets = op.relative.as_ref().map(|relative| &relative.buckets[..]);
        let group = &self.inputs.groups[op.place.group];
        let cache: &KvCache = self.cache.at(op.place);
        let op = Attention {
            q,
            q_stride,
            n_heads: op.n_heads,
            cache,
            rows: &group.rows,
            blocks: &group.blocks,
            scores: Scores {
                scale: op.scale,
                softcap: op.softcap,
                alibi_slopes: op.alibi_slopes.as_deref(),
                sinks: op.sinks.map(|id| self.weights.vector(id)),
                relative: buckets
                    .zip(values)
                    .map(|(buckets, values)| RelativeBias { buckets, values }),
            },
            mask: op.mask,
            tiles: &mut *self.tiles,
            out,
        };
        attention(self.context, op)
    }

    fn per_head(&mut self, op: &PerHead) -> Result<(), KernelError> {
        let (x_stride, out_stride) = (self.spans.width(op.x), self.spans.width(op.out));
        let (x, out) = self.both(op.x, op.out);
        let (x, y) = self.buffers.two(x, out);
        for (head, weight) in op.weights.iter().enumerate() {
            let linear = self.weights.matrix(*weight);
            let product = Gemm {
                x,
                x_columns: of_head(op.x_at, head, x_stride),
                weight: &linear.weight,
                bias: linear.bias.as_deref(),
                y: &mut *y,
                y_columns: of_head(op.out_at, head, out_stride),
                then: kernels::Then::Store,
            };
            gemm(self.context, product)?;
        }
        Ok(())
    }

    fn copy_heads(&mut self, op: &CopyHeads) -> Result<(), KernelError> {
        let (x_stride, out_stride) = (self.spans.width(op.x), self.spans.width(op.out));
        let (x, out) = self.both(op.x, op.out);
        let (x, out) = self.buffers.two(x, out);
        for head in 0..op.n_heads {
            copy_columns(CopyColumns {
                x,
                x_columns: of_head(op.x_at, head, x_stride),
                width: op.width,
                out: &mut *out,
                out_columns: of_head(op.out_at, head, out_stride),
            })?;
        }
        Ok(())
    }

    fn route(&mut self, op: &Route) -> Result<(), KernelError> {
        let logits = self.spans.all(op.logits);
        let op = kernels::Route {
            logits: self.buffers.one(logits),
            n_experts: op.n_experts,
            n_chosen: op.n_chosen,
            scoring: op.scoring,
            choice_bias: op.choice_bias.map(|id| self.weights.vector(id)),
            groups: op.groups,
            renormalise: op.renormalise,
            scale: op.scale,
        };
        route(&op, self.routing)
    }

    /// Each expert computes its tokens together.
    fn experts(&mut self, op: &Experts) -> Result<(), KernelError> {
        let out = self.spans.all(op.out);
        self.buffers.one(out).fill(0.0);
        // Taken out, so that it can be read while the products use the rest; nothing is allocated for its place.
        let routing = std::mem::take(self.routing);
        let done = op
            .experts
            .iter()
            .zip(routing.experts())
            .filter(|(_, tokens)| !tokens.rows.is_empty())
            .try_for_each(|(expert, tokens)| self.expert(expert, tokens, op));
        *self.routing = routing;
        done
    }

    /// Adds an expert's weighted output to that of its tokens.
    fn expert(
        &mut self,
        of: &Mlp<MatrixId>,
        tokens: ExpertTokens<'_>,
        op: &Experts,
    ) -> Result<(), KernelError> {
        let n = tokens.rows.len();
        let (x, out) = self.both(op.x, op.out);
        let rows = self.spans.first(op.scratch.rows, n * of.up.n_cols);
        let product = self.spans.first(op.scratch.product, n * of.up.n_rows);
        let activated = self.spans.first(op.scratch.activated, n * of.width);
        let computed = self.spans.first(op.scratch.computed, n * of.down.n_rows);
        let (all, gathered) = self.buffers.two(x, rows.clone());
        gather_rows(all, tokens.rows, gathered)?;
        if op.weighs_input {
            let rows = self.buffers.one(rows.clone());
            scale_rows(self.context, rows, tokens.weights)?;
        }
        self.product(of.up, rows, product.clone(), kernels::Then::Store)?;
        if of.is_gated {
            let (gate_up, out) = self.buffers.two(product, activated.clone());
            let op = ActivateGated {
                activation: of.activation,
                gate_up,
                width: of.width,
                out,
            };
            activate_gated(self.context, op)?;
        } else {
            activate(self.context, of.activation, self.buffers.one(product));
        }
        self.product(of.down, activated, computed.clone(), kernels::Then::Store)?;
        let (y, x) = self.buffers.two(computed, out);
        let op = AddRows {
            x,
            rows: tokens.rows,
            weights: (!op.weighs_input).then_some(tokens.weights),
            y,
        };
        add_rows(self.context, op)
    }

    fn pool(&mut self, x: BufferId, out: BufferId) -> Result<(), KernelError> {
        let d = self.spans.width(out);
        let (x, out) = self.both(x, out);
        let (x, out) = self.buffers.two(x, out);
        for (tokens, out) in self.inputs.pooled.iter().zip(out.chunks_exact_mut(d)) {
            mean_of_rows(&x[tokens.start * d..tokens.end * d], out)?;
        }
        Ok(())
    }
}

/// The activation function that a curve of [`Xielu`] stands for.
///
/// [`Xielu`]: crate::model::spec::Xielu
fn xielu(curve: &[f32]) -> Activation {
    let at = |idx: usize| curve.get(idx).copied().unwrap_or_default();
    let softplus = |x: f32| x.max(0.0) + (-x.abs()).exp().ln_1p();
    Activation::Xielu {
        alpha_p: softplus(at(0)),
        alpha_n: at(2) + softplus(at(1)),
        beta: at(2),
    }
}

/// Where the columns of a head are.
fn of_head(at: HeadColumns, head: usize, row_stride: usize) -> Columns {
    Columns {
        row_stride,
        first: at.first + head * at.step,
    }
}
