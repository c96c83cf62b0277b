//! A program in words and numbers, for people and for snapshots.
//!
//! `#3` is a buffer, `m3` a matrix, `v3` a vector; `->` names what is written, `+>` what is added to.

use std::fmt::{Display, Formatter, Result};

use kernels::{Activation, Heads, Mask, NormKind};

use super::{
    Attend, BufferId, Embed, Experts, Extent, HeadColumns, Index, Keys, LatentKeys, Linear, Op, Program,
    RelativeValues, Route, Rows, Then,
};
use crate::model::kv_layout::Place;
use crate::model::spec::{MatrixId, Norm, VectorId};

impl Display for Program {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        writeln!(f, "buffers (f32, offset in columns of the section)")?;
        for (id, buffer) in self.buffers.iter().enumerate() {
            let (name, rows, width, offset) = (buffer.name, buffer.rows, buffer.width, buffer.offset);
            write!(f, "  #{id:<3} {name:<18} {rows} x {width} ")?;
            if BufferId(id) == self.output {
                writeln!(f, "output")?;
            } else {
                writeln!(f, "at {offset}")?;
            }
        }
        write!(f, "arena")?;
        let all = [Rows::Tokens, Rows::Chunk, Rows::Logits, Rows::Pooled];
        for rows in all.into_iter().filter(|rows| self.sections.of(*rows) > 0) {
            write!(f, " {rows} x {}", self.sections.of(rows))?;
        }
        writeln!(f, "\nops")?;
        for (idx, op) in self.ops.iter().enumerate() {
            if let Some(layer) = self.layers.iter().position(|ops| ops.start == idx) {
                writeln!(f, "layer {layer}")?;
            } else if self.layers.last().is_some_and(|ops| ops.end == idx) {
                writeln!(f, "end")?;
            }
            let run = self.runs.iter().find(|run| run.ops.contains(&idx));
            let is_chunked = run.is_some_and(|run| run.extent == Extent::Chunks);
            writeln!(f, "  {} {op}", if is_chunked { "|" } else { " " })?;
        }
        Ok(())
    }
}

impl Display for BufferId {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "#{}", self.0)
    }
}

impl Display for Rows {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_str(match self {
            Rows::Tokens => "tokens",
            Rows::Chunk => "chunk",
            Rows::Logits => "logits",
            Rows::Pooled => "pooled",
        })
    }
}

impl Display for MatrixId {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "m{}[{},{}]", self.index, self.n_rows, self.n_cols)
    }
}

impl Display for VectorId {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "v{}", self.index)
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "kv {}.{}", self.group, self.slot)
    }
}

impl Op {
    /// Its name in texts.
    pub(in crate::model) fn name(&self) -> &'static str {
        match self {
            Op::Embed(_) => "embed",
            Op::Scale { .. } => "scale",
            Op::Norm(_) => "norm",
            Op::Linear(_) => "linear",
            Op::Keys(_) => "keys",
            Op::LatentKeys(_) => "latent keys",
            Op::Attend(_) => "attend",
            Op::PerHead(_) => "per head",
            Op::CopyHeads(_) => "copy",
            Op::Route(_) => "route",
            Op::Experts(_) => "experts",
            Op::Gate { .. } => "gate",
            Op::Add { .. } => "add",
            Op::Gather { .. } => "gather",
            Op::Pool { .. } => "pool",
            Op::UnitRows { .. } => "unit rows",
            Op::Softcap { .. } => "softcap",
            Op::Xielu { .. } => "xielu",
            Op::Multiply { .. } => "multiply",
        }
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{:<11} ", self.name())?;
        match self {
            Op::Embed(op) => write!(f, "{op}"),
            Op::Scale { x, factor } => write!(f, "{x} by {factor}"),
            Op::Norm(op) => {
                write!(f, "{}{} {}", op.x, heads(&op.heads), norm(&op.norm))?;
                write!(f, " -> {}", op.out)
            }
            Op::Linear(op) => write!(f, "{op}"),
            Op::Keys(op) => write!(f, "{op}"),
            Op::LatentKeys(op) => write!(f, "{op}"),
            Op::Attend(op) => write!(f, "{op}"),
            Op::PerHead(op) => {
                let (n, first) = (op.weights.len(), op.weights[0]);
                let (x_at, out_at) = (columns(op.x_at), columns(op.out_at));
                write!(f, "{}{x_at} {n} of {first} -> {}{out_at}", op.x, op.out)
            }
            Op::CopyHeads(op) => {
                let (n, width) = (op.n_heads, op.width);
                let (x_at, out_at) = (columns(op.x_at), columns(op.out_at));
                write!(f, "{}{x_at} {n} of {width} -> {}{out_at}", op.x, op.out)
            }
            Op::Route(op) => write!(f, "{op}"),
            Op::Experts(op) => write!(f, "{op}"),
            Op::Gate { x, gates } => write!(f, "{x} by sigmoid {gates}"),
            Op::Add { x, y, scale } => write!(f, "{y}{} +> {x}", times(*scale)),
            Op::Gather { x, out } => write!(f, "{x} -> {out}"),
            Op::Pool { x, kind, out } => write!(f, "{x} {kind:?} -> {out}"),
            Op::UnitRows { x, weight } => write!(f, "{x} of {weight}"),
            Op::Softcap { x, cap } => write!(f, "{x} at {cap}"),
            Op::Xielu { x, curve } => write!(f, "{x} by {curve}"),
            Op::Multiply { x, factor } => write!(f, "{x} by {factor}"),
        }
    }
}

impl Display for Embed {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.index {
            Index::Tokens => write!(f, "{} by token", self.table)?,
            Index::Positions { from } => write!(f, "{} by position + {from}", self.table)?,
            Index::Types => write!(f, "{} by type", self.table)?,
        }
        match self.then {
            kernels::Then::Store => write!(f, " -> {}", self.out),
            kernels::Then::AddTo { scale } => write!(f, "{} +> {}", times(scale), self.out),
        }
    }
}

impl Display for Linear {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}", self.x)?;
        if let Some(prologue) = &self.norm {
            write!(f, " {} ({})", norm(&prologue.norm), prologue.normed)?;
        }
        write!(f, " {}", self.weight)?;
        match self.then {
            Then::Store => write!(f, " -> {}", self.out),
            Then::AddTo { scale } => write!(f, "{} +> {}", times(scale), self.out),
            Then::Act(activation) => write!(f, " {} -> {}", act(activation), self.out),
            Then::Gated { activation, product } => {
                write!(f, " gated {} ({product}) -> {}", act(activation), self.out)
            }
        }
    }
}

impl Display for Keys {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}", self.qkv)?;
        if let Some(clip) = self.clip {
            write!(f, " clip {clip}")?;
        }
        if let Some(norms) = &self.norms {
            let over = if norms.over_all_heads {
                "all heads"
            } else {
                "each head"
            };
            write!(f, " q {} k {}", norm(&norms.q), norm(&norms.k))?;
            if let Some(of_values) = &norms.v {
                write!(f, " v {}", norm(of_values))?;
            }
            let after = if norms.after_rope { " after rope" } else { "" };
            write!(f, " over {over}{after}")?;
        }
        if let Some(rope) = self.rope {
            write!(f, " rope {rope}")?;
        }
        let (q, kv, d) = (self.queries.n_heads, self.keys.n_heads, self.keys.head_dim);
        write!(f, " {q}+{kv}+{kv} heads of {d} -> {}", self.place)
    }
}

impl Display for LatentKeys {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (q, from, rope) = (self.q, self.turn_from, self.rope);
        write!(f, "{q}{} rope {rope} from {from},", heads(&self.heads))?;
        let (short, rank) = (self.short, self.rank);
        write!(f, " {short} {} of {rank} then rope", norm(&self.norm))?;
        write!(f, " -> {}", self.place)
    }
}

impl Display for Attend {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (n, d) = (self.n_heads, self.key_dim);
        write!(f, "{} {n} heads of {d} {}", self.q, self.place)?;
        match self.mask {
            Mask::Causal { window: None } => write!(f, " causal")?,
            Mask::Causal { window: Some(window) } => write!(f, " window {window}")?,
            Mask::Full => write!(f, " full")?,
            Mask::Around { reach } => write!(f, " around {reach}")?,
        }
        write!(f, " scale {}", self.scale)?;
        if let Some(cap) = self.softcap {
            write!(f, " softcap {cap}")?;
        }
        if self.alibi_slopes.is_some() {
            write!(f, " alibi")?;
        }
        if let Some(relative) = &self.relative {
            let n_distances = relative.buckets.len();
            write!(f, " bias ")?;
            match relative.values {
                RelativeValues::Table(values) => write!(f, "{values}")?,
                RelativeValues::OfTokens { .. } => {
                    let buffers: Vec<String> = self.bias_buffers().map(|id| id.to_string()).collect();
                    write!(f, "{}", buffers.join(" and "))?;
                }
            }
            write!(f, " of {n_distances} distances")?;
        }
        if let Some(sinks) = self.sinks {
            write!(f, " sinks {sinks}")?;
        }
        write!(f, " -> {}", self.out)
    }
}

impl Display for Route {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (chosen, n) = (self.n_chosen, self.n_experts);
        write!(f, "{} {chosen} of {n} by {:?}", self.logits, self.scoring)?;
        if let Some(bias) = self.choice_bias {
            write!(f, " bias {bias}")?;
        }
        if let Some(groups) = self.groups {
            let (kept, n, score) = (groups.n_kept, groups.n_groups, groups.score);
            write!(f, " {kept} of {n} groups by {score:?}")?;
        }
        if self.renormalise {
            write!(f, " to 1")?;
        }
        write!(f, "{}", times(self.scale))
    }
}

impl Display for Experts {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        write!(f, "{}", self.x)?;
        if let Some(mlp) = self.experts.first() {
            let gated = if mlp.is_gated { " gated" } else { "" };
            let (n, activation) = (self.experts.len(), act(mlp.activation));
            write!(f, " {n} of {}{gated} {activation} {}", mlp.up, mlp.down)?;
        }
        let scratch = &self.scratch;
        let (rows, product) = (scratch.rows, scratch.product);
        let (activated, computed) = (scratch.activated, scratch.computed);
        let weighed = if self.weighs_input { " weighed first" } else { "" };
        write!(
            f,
            "{weighed} ({rows} {product} {activated} {computed}) -> {}",
            self.out
        )
    }
}

fn norm(norm: &Norm<VectorId>) -> String {
    let mut text = match norm.kind {
        NormKind::Rms => "rms".to_owned(),
        NormKind::Layer => "layer norm".to_owned(),
    };
    for vector in norm.weight.iter().chain(&norm.bias) {
        text += &format!(" {vector}");
    }
    text
}

/// Nothing for heads that are whole rows.
fn heads(heads: &Heads) -> String {
    if *heads == Heads::whole(heads.row_stride) {
        return String::new();
    }
    let Heads {
        first,
        n_heads,
        head_dim,
        ..
    } = heads;
    format!("[{n_heads} heads of {head_dim} from {first}]")
}

fn columns(at: HeadColumns) -> String {
    format!("[{} step {}]", at.first, at.step)
}

/// Nothing for a factor of 1.
fn times(scale: f32) -> String {
    if scale == 1.0 {
        String::new()
    } else {
        format!(" by {scale}")
    }
}

fn act(activation: Activation) -> String {
    match activation {
        Activation::Silu => "silu".to_owned(),
        Activation::Gelu => "gelu".to_owned(),
        Activation::GeluTanh => "gelu tanh".to_owned(),
        Activation::Relu => "relu".to_owned(),
        Activation::SquaredRelu => "relu2".to_owned(),
        Activation::ClampedSwiglu { limit } => format!("swiglu within {limit}"),
        Activation::Xielu { .. } => "xielu".to_owned(),
    }
}
