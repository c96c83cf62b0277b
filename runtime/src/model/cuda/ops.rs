//! Each op of a program as launches on the device.

use std::ops::Range;

use kernels::cuda::{Gpu, View};
use kernels::gpu::{
    self, Angles, BiasValues, GatherRows, HeadNorm, HeadNorms, MeanOfRows, ProductThen, RelativeBias,
    ResolveIds, RowNorm, Scores, Turn,
};
use kernels::{Columns, Heads, KernelError};

use super::cache::Cache;
use super::operands::Operands;
use super::step::Layout;
use super::weights::Weights;
use super::workspace::Workspace;
use crate::model::inputs::Inputs;
use crate::model::program::{
    Attend, BufferId, CHUNK_ROWS, CopyHeads, Embed, Experts, Extent, HeadColumns, Index, Keys, LatentKeys,
    Linear, NormRows, Op, PerHead, Program, RelativeValues, Route, Then,
};
use crate::model::spans::{Span, Spans};
use crate::model::spec::{Norm, VectorId};

/// A step that is enqueued op by op.
pub(super) struct Execution<'a> {
    pub(super) gpu: &'a Gpu,
    pub(super) program: &'a Program,
    pub(super) weights: &'a Weights,
    pub(super) operands: &'a Operands,
    pub(super) cache: &'a Cache,
    pub(super) workspace: &'a Workspace,
    /// Which elements turn together.
    pub(super) inputs: &'a Inputs,
    /// Where the inputs are.
    pub(super) layout: &'a Layout,
    pub(super) queries: Queries,
    /// The tokens of the step before.
    pub(super) drawn: View<u32>,
    pub(super) spans: Spans<'a>,
}

/// What the host knows of the new tokens of a step's sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Queries {
    /// The most of a sequence.
    pub(super) max_len: usize,
    /// Sequences with at most one.
    pub(super) n_single: usize,
}

impl Execution<'_> {
    /// Enqueues the program.
    pub(super) fn run(&mut self) -> Result<(), KernelError> {
        let n_tokens = self.spans.n_tokens();
        let ids = ResolveIds {
            ids: self.words(&self.layout.tokens),
            previous: self.words(&self.layout.draws).cast(),
            drawn: self.drawn,
        };
        gpu::resolve_ids(self.gpu, ids)?;
        for run in &self.program.runs {
            let n_together = match run.extent {
                Extent::Step => n_tokens,
                Extent::Chunks => CHUNK_ROWS,
            };
            for first in (0..n_tokens).step_by(n_together) {
                self.spans.enter(first..(first + n_together).min(n_tokens));
                for idx in run.ops.clone() {
                    let op = &self.program.ops[idx];
                    if self.spans.n_rows(self.program.rows_of(op)) > 0 {
                        self.op(idx, op)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn op(&self, idx: usize, op: &Op) -> Result<(), KernelError> {
        let gpu = self.gpu;
        match op {
            Op::Embed(op) => self.embed(op),
            Op::Norm(NormRows { x, heads, norm, out }) => self.norm(norm, *heads, *x, *out),
            Op::Linear(op) => self.linear(op),
            Op::Keys(op) => self.keys(op),
            Op::LatentKeys(op) => self.latent_keys(op),
            Op::Attend(op) => self.attend(idx, op),
            Op::PerHead(op) => self.per_head(idx, op),
            Op::CopyHeads(op) => self.copy_heads(op),
            Op::Route(op) => self.route(op),
            Op::Experts(op) => self.experts(idx, op),
            Op::Pool { x, out, .. } => self.pool(*x, *out),
            Op::Scale { x, factor } => gpu::scale(gpu, self.all(*x), *factor),
            Op::Softcap { x, cap } => gpu::softcap(gpu, self.all(*x), *cap),
            Op::Multiply { x, factor } => gpu::multiply(gpu, self.all(*x), self.weights.vector(*factor)),
            Op::Xielu { x, curve } => gpu::xielu(gpu, self.all(*x), self.weights.vector(*curve)),
            Op::UnitRows { x, .. } => match self.operands.unit_scales(idx) {
                Some(scales) => gpu::scale_columns(gpu, self.all(*x), scales),
                None => Ok(()),
            },
            Op::Gate { x, gates } => gpu::gate_rows(gpu, self.all(*x), self.all(*gates)),
            Op::Add { x, y, scale } => gpu::add(gpu, self.all(*x), *scale, self.all(*y)),
            Op::Gather { x, out } => {
                let op = GatherRows {
                    x: self.all(*x),
                    rows: self.words(&self.layout.logits_at),
                    out: self.all(*out),
                };
                gpu::gather_rows(gpu, op)
            }
        }
    }

    /// All that is seen of a buffer.
    fn all(&self, id: BufferId) -> View<f32> {
        match self.spans.all(id) {
            Span::Arena(range) => self.workspace.arena.view().range(range),
            Span::Output(range) => self.workspace.output.view().range(range),
        }
    }

    /// A part of the step's inputs.
    fn words(&self, range: &Range<usize>) -> View<u32> {
        self.workspace.inputs.view().range(range.clone())
    }

    /// What is seen of a part of the inputs that has one word for each token.
    fn of_tokens(&self, range: &Range<usize>) -> View<u32> {
        self.words(range).range(self.spans.chunk())
    }

    fn angles(&self, [cos, sin]: &[Range<usize>; 2]) -> Angles {
        Angles {
            cos: self.words(cos).cast(),
            sin: self.words(sin).cast(),
        }
    }

    fn turn(&self, rope: usize) -> Turn {
        let layout = &self.layout.angles[rope];
        let keys = self.angles(&layout.table);
        Turn {
            pairs: self.inputs.angles[rope].pairs(),
            half_dim: layout.half_dim,
            keys,
            queries: layout
                .query_table
                .as_ref()
                .map_or(keys, |table| self.angles(table)),
        }
    }

    fn vector(&self, id: Option<VectorId>) -> Option<View<f32>> {
        id.map(|id| self.weights.vector(id))
    }

    fn head_norm(&self, norm: &Norm<VectorId>) -> HeadNorm {
        HeadNorm {
            kind: norm.kind,
            weight: self.vector(norm.weight),
            bias: self.vector(norm.bias),
            eps: norm.eps,
        }
    }

    fn embed(&self, op: &Embed) -> Result<(), KernelError> {
        let ids = match op.index {
            Index::Tokens => &self.layout.tokens,
            Index::Positions { .. } => &self.layout.position_rows,
            Index::Types => &self.layout.types,
        };
        let op = gpu::Embed {
            table: self.weights.matrix(op.table),
            ids: self.of_tokens(ids),
            out: self.all(op.out),
            then: op.then,
        };
        gpu::embed(self.gpu, op)
    }

    fn norm(&self, of: &Norm<VectorId>, heads: Heads, x: BufferId, out: BufferId) -> Result<(), KernelError> {
        let op = gpu::Norm {
            x: (x != out).then(|| self.all(x)),
            out: self.all(out),
            heads,
            kind: of.kind,
            weight: self.vector(of.weight),
            bias: self.vector(of.bias),
            eps: of.eps,
        };
        gpu::norm(self.gpu, op)
    }

    fn linear(&self, op: &Linear) -> Result<(), KernelError> {
        let weight = self.weights.matrix(op.weight);
        let (x, out) = (self.all(op.x), self.all(op.out));
        let product = gpu::Linear {
            x,
            x_columns: Columns::all(self.spans.width(op.x)),
            norm: op.norm.as_ref().map(|prologue| RowNorm {
                kind: prologue.norm.kind,
                weight: self.vector(prologue.norm.weight),
                bias: self.vector(prologue.norm.bias),
                eps: prologue.norm.eps,
            }),
            weight,
            bias: self.weights.bias(op.weight),
            out,
            out_columns: Columns::all(self.spans.width(op.out)),
            then: match op.then {
                Then::Store => ProductThen::Store,
                Then::AddTo { scale } => ProductThen::AddTo { scale },
                Then::Act(activation) => ProductThen::Act(activation),
                Then::Gated { activation, .. } => ProductThen::Gated(activation),
            },
            scratch: &self.workspace.products,
        };
        gpu::linear(self.gpu, &product)
    }

    fn keys(&self, op: &Keys) -> Result<(), KernelError> {
        let group = &self.layout.groups[op.place.group];
        let Some(pages) = self.cache.at(op.place) else {
            return Ok(());
        };
        let keys = gpu::Keys {
            qkv: self.all(op.qkv),
            queries: op.queries,
            keys: op.keys,
            clip: op.clip,
            norms: op.norms.as_ref().map(|norms| HeadNorms {
                after_rope: norms.after_rope,
                over_all_heads: norms.over_all_heads,
                q: self.head_norm(&norms.q),
                k: self.head_norm(&norms.k),
                v: norms.v.as_ref().map(|norm| self.head_norm(norm)),
            }),
            turn: op.rope.map(|rope| self.turn(rope)),
            pages,
            slots: self.of_tokens(&group.slots).cast(),
        };
        gpu::keys(self.gpu, keys)
    }

    fn latent_keys(&self, op: &LatentKeys) -> Result<(), KernelError> {
        let group = &self.layout.groups[op.place.group];
        let Some(pages) = self.cache.at(op.place) else {
            return Ok(());
        };
        let keys = gpu::LatentKeys {
            q: self.all(op.q),
            heads: op.heads,
            turn_from: op.turn_from,
            short: self.all(op.short),
            rank: op.rank,
            norm: self.head_norm(&op.norm),
            turn: self.turn(op.rope),
            pages,
            slots: self.of_tokens(&group.slots).cast(),
        };
        gpu::latent_keys(self.gpu, keys)
    }

    fn attend(&self, idx: usize, op: &Attend) -> Result<(), KernelError> {
        let group = &self.layout.groups[op.place.group];
        let Some(cache) = self.cache.at(op.place) else {
            return Ok(());
        };
        let inputs = self.workspace.inputs.view();
        let values = op.relative.as_ref().map(|bias| match bias.values {
            RelativeValues::Table(values) => BiasValues::Table(self.weights.vector(values)),
            RelativeValues::OfTokens {
                queries,
                keys,
                n_buckets,
            } => BiasValues::OfTokens {
                queries: queries.map(|buffer| self.all(buffer)),
                keys: keys.map(|buffer| self.all(buffer)),
                n_buckets,
            },
        });
        let attention = gpu::Attention {
            q: self.all(op.q),
            q_stride: self.spans.width(op.q),
            n_heads: op.n_heads,
            cache,
            rows: self.words(&group.rows),
            max_query_len: self.queries.max_len,
            n_single_rows: self.queries.n_single,
            blocks: inputs.range(self.layout.blocks..inputs.len()),
            scores: Scores {
                scale: op.scale,
                softcap: op.softcap,
                alibi_slopes: self.operands.alibi_slopes(idx),
                sinks: self.vector(op.sinks),
                relative: self
                    .operands
                    .buckets(idx)
                    .zip(values)
                    .map(|(buckets, values)| RelativeBias { buckets, values }),
            },
            mask: op.mask,
            workspace: &self.workspace.attention,
            out: self.all(op.out),
        };
        gpu::attention(self.gpu, attention)
    }

    fn per_head(&self, idx: usize, op: &PerHead) -> Result<(), KernelError> {
        let Some(weights) = self.operands.per_head(idx) else {
            return Ok(());
        };
        let op = gpu::PerHead {
            x: self.all(op.x),
            x_at: self.heads_at(op.x_at, op.x),
            weights,
            out: self.all(op.out),
            out_at: self.heads_at(op.out_at, op.out),
            scratch: &self.workspace.products,
        };
        gpu::per_head(self.gpu, &op)
    }

    fn copy_heads(&self, op: &CopyHeads) -> Result<(), KernelError> {
        let op = gpu::CopyHeads {
            x: self.all(op.x),
            x_at: self.heads_at(op.x_at, op.x),
            n_heads: op.n_heads,
            width: op.width,
            out: self.all(op.out),
            out_at: self.heads_at(op.out_at, op.out),
        };
        gpu::copy_heads(self.gpu, op)
    }

    fn heads_at(&self, at: HeadColumns, of: BufferId) -> gpu::HeadColumns {
        gpu::HeadColumns {
            row_stride: self.spans.width(of),
            first: at.first,
            step: at.step,
        }
    }

    fn route(&self, op: &Route) -> Result<(), KernelError> {
        let Some(routing) = &self.workspace.routing else {
            return Ok(());
        };
        let op = gpu::Route {
            logits: self.all(op.logits),
            n_experts: op.n_experts,
            n_chosen: op.n_chosen,
            scoring: op.scoring,
            choice_bias: self.vector(op.choice_bias),
            groups: op.groups,
            renormalise: op.renormalise,
            scale: op.scale,
        };
        gpu::route(self.gpu, &op, routing)
    }

    fn experts(&self, idx: usize, op: &Experts) -> Result<(), KernelError> {
        let (Some([up, down]), Some(routing), Some(first)) = (
            self.operands.experts(idx),
            &self.workspace.routing,
            op.experts.first(),
        ) else {
            return Ok(());
        };
        let op = gpu::Experts {
            x: self.all(op.x),
            routing,
            n_chosen: op.n_chosen,
            up,
            then: if first.is_gated {
                ProductThen::Gated(first.activation)
            } else {
                ProductThen::Act(first.activation)
            },
            down,
            weighs_input: op.weighs_input,
            out: self.all(op.out),
            scratch: &self.workspace.products,
        };
        gpu::experts(self.gpu, &op)
    }

    fn pool(&self, x: BufferId, out: BufferId) -> Result<(), KernelError> {
        let op = MeanOfRows {
            x: self.all(x),
            first: self.words(&self.layout.pooled_from),
            n_rows: self.words(&self.layout.pooled_len),
            out: self.all(out),
        };
        gpu::mean_of_rows(self.gpu, op)
    }
}
