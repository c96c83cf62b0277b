//! Queries, keys and values on the device.

#[cfg(test)]
mod tests;

use crate::cuda::{Arg, Gpu, Launch, Overlap, View};
use crate::error::{Contract, KernelError};
use crate::heads::Heads;
use crate::kv_cache::KvPages;
use crate::norm::NormKind;
use crate::rope::RopePairs;
use crate::weight::DType;

/// Cosines and sines of the rows' positions, as [`RopeTable`](crate::RopeTable) computes them.
#[derive(Clone, Copy, Debug)]
pub struct Angles {
    /// Cosines. `[n_tokens, half_dim]`
    pub cos: View<f32>,
    /// Sines. `[n_tokens, half_dim]`
    pub sin: View<f32>,
}

/// Rotary positions of heads, whose first `2 * half_dim` elements turn.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Which elements turn together.
    pub pairs: RopePairs,
    /// Pairs that turn.
    pub half_dim: usize,
    /// Angles of keys.
    pub keys: Angles,
    /// Angles of queries; where they do not differ, those of keys.
    pub queries: Angles,
}

/// A norm of heads.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorm {
    /// What is taken out.
    pub kind: NormKind,
    /// Factor of each element: of a head, the same for all heads, or of all heads.
    /// `[head_dim]` or `[n_heads * head_dim]`
    pub weight: Option<View<f32>>,
    /// Added to each element in the end; as long as a weight may be.
    pub bias: Option<View<f32>>,
    /// Added to the mean square, so that zeros have a norm.
    pub eps: f32,
}

/// Norms of queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub struct HeadNorms {
    /// They are taken after the rotary positions, not before.
    pub after_rope: bool,
    /// Over all heads together, or over each on its own.
    pub over_all_heads: bool,
    /// Of queries.
    pub q: HeadNorm,
    /// Of keys.
    pub k: HeadNorm,
    /// Of values, where they have one.
    pub v: Option<HeadNorm>,
}

/// Operands of [`keys`].
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Queries, keys, values. Queries are changed in place. Keys and values go to the cache; whether those in `qkv` are
    /// changed too is undefined. `[n_tokens, queries.row_stride]`
    pub qkv: View<f32>,
    /// Where the query heads are.
    pub queries: Heads,
    /// Where the key heads are. The values, of the same sizes, follow them.
    pub keys: Heads,
    /// All are clamped to plus and minus this.
    pub clip: Option<f32>,
    /// Norms.
    pub norms: Option<HeadNorms>,
    /// Rotary positions.
    pub turn: Option<Turn>,
    /// The cache.
    pub pages: KvPages,
    /// Slot of each token, `block * block_size + offset`; what is not below the cache's slots (so -1) writes nothing.
    /// `[n_tokens]`
    pub slots: View<i32>,
}

/// Limits, norms (where they come before), rotary positions, norms (where they come after), write to the cache: of each
/// row of `qkv`, in this order. There may be no rows.
///
/// # Errors
/// The shapes do not agree, or the device fails.
pub fn keys(gpu: &Gpu, op: Keys) -> Result<(), KernelError> {
    let n_tokens = op.check()?;
    if n_tokens == 0 {
        return Ok(());
    }
    // The heads of a block: those of one norm, or as many as it has warps.
    let over_all = op.norms.is_some_and(|norms| norms.over_all_heads);
    let n_heads = [op.queries.n_heads, op.keys.n_heads, op.keys.n_heads];
    let heads_per_block = if over_all {
        n_heads[0].max(n_heads[1])
    } else {
        N_WARPS
    };
    let n_parts: usize = n_heads.iter().map(|n| n.div_ceil(heads_per_block)).sum();
    let launch = Launch {
        kernel: match op.pages.dtype {
            DType::F32 => "keys_f32",
            DType::F16 => "keys_f16",
            DType::BF16 => "keys_bf16",
        },
        grid: [n_tokens as u32, n_parts as u32, 1],
        block: 32 * N_WARPS as u32,
        shared_bytes: heads_per_block * op.keys.head_dim * size_of::<f32>(),
        overlap: Overlap::Previous,
    };
    Ok(gpu.launch(&launch, &op.args(heads_per_block))?)
}

/// Warps of a block.
const N_WARPS: usize = 4;

impl Keys {
    /// Checks the operands; returns the number of tokens.
    fn check(&self) -> Result<usize, KernelError> {
        let (op, keys) = (Contract("keys"), self.keys);
        let n_tokens = self.queries.check("keys", self.qkv.len())?;
        let values = Heads {
            n_heads: 2 * keys.n_heads,
            ..keys
        };
        let n_rows = values.check("keys", self.qkv.len())?;
        op.len("keys", n_rows, n_tokens)?;
        op.len("key head_dim", keys.head_dim, self.queries.head_dim)?;
        op.len("slots", self.slots.len(), n_tokens)?;
        op.len("pages' heads", self.pages.shape.n_heads, keys.n_heads)?;
        op.len("pages' key_dim", self.pages.shape.key_dim, keys.head_dim)?;
        op.len("pages' value_dim", self.pages.own_value_dim(), keys.head_dim)?;
        if let Some(turn) = &self.turn {
            turn.check(op, n_tokens)?;
            op.range(
                2 * turn.half_dim <= keys.head_dim,
                "half_dim",
                turn.half_dim,
                "at most half a head",
            )?;
        }
        if let Some(norms) = &self.norms {
            let of = |heads: Heads| {
                if norms.over_all_heads {
                    heads.as_one()
                } else {
                    heads
                }
            };
            norms.q.check(op, of(self.queries))?;
            norms.k.check(op, of(keys))?;
            norms.v.map_or(Ok(()), |v| v.check(op, of(keys)))?;
        }
        Ok(n_tokens)
    }

    /// The kernel's arguments, in its order.
    fn args(&self, heads_per_block: usize) -> Vec<Arg<'static>> {
        let mut args = vec![
            self.qkv.into(),
            Arg::size(self.queries.row_stride),
            Arg::size(self.queries.first),
            Arg::size(self.queries.n_heads),
            Arg::size(self.keys.first),
            Arg::size(self.keys.n_heads),
            Arg::size(self.keys.head_dim),
            Arg::size(heads_per_block),
            Arg::F32(self.clip.unwrap_or(f32::INFINITY)),
        ];
        let when = |norms: HeadNorms| {
            let when = if norms.after_rope { AFTER_ROPE } else { BEFORE_ROPE };
            when | (i32::from(norms.over_all_heads) * OVER_ALL_HEADS)
        };
        args.push(Arg::I32(self.norms.map_or(0, when)));
        let of = |norm: Option<HeadNorm>| HeadNorm::args(norm, self.keys.head_dim);
        args.extend(of(self.norms.map(|norms| norms.q)));
        args.extend(of(self.norms.map(|norms| norms.k)));
        args.extend(of(self.norms.and_then(|norms| norms.v)));
        args.extend(Turn::args(self.turn));
        args.extend(self.pages.args());
        args.push(self.slots.into());
        args
    }
}

/// When norms are taken, as the kernel reads it.
const BEFORE_ROPE: i32 = 1;
const AFTER_ROPE: i32 = 2;
/// Added where they are taken over all heads together.
const OVER_ALL_HEADS: i32 = 4;

/// Kinds of norms, as the kernel reads them; 0 is none.
fn kind(norm: HeadNorm) -> i32 {
    match norm.kind {
        NormKind::Rms => 1,
        NormKind::Layer => 2,
    }
}

impl HeadNorm {
    fn check(&self, op: Contract, heads: Heads) -> Result<(), KernelError> {
        for (operand, vector) in [("norm weight", self.weight), ("norm bias", self.bias)] {
            let len = vector.map_or(heads.head_dim, |vector| vector.len());
            op.range(
                len == heads.head_dim || len == heads.width(),
                operand,
                len,
                "as long as one head or all heads",
            )?;
        }
        Ok(())
    }

    /// Kind, weight and elements of it from head to head, bias and elements of it, epsilon.
    fn args(norm: Option<HeadNorm>, head_dim: usize) -> [Arg<'static>; 6] {
        let step = |vector: Option<View<f32>>| match vector {
            Some(vector) if vector.len() > head_dim => Arg::size(head_dim),
            _ => Arg::I32(0),
        };
        let (weight, bias) = (norm.and_then(|norm| norm.weight), norm.and_then(|norm| norm.bias));
        [
            Arg::I32(norm.map_or(0, kind)),
            Arg::optional(weight),
            step(weight),
            Arg::optional(bias),
            step(bias),
            Arg::F32(norm.map_or(0.0, |norm| norm.eps)),
        ]
    }
}

impl Turn {
    fn check(&self, op: Contract, n_tokens: usize) -> Result<(), KernelError> {
        op.range(self.half_dim > 0, "half_dim", self.half_dim, "at least 1")?;
        for angles in [self.keys, self.queries] {
            op.len("cos", angles.cos.len(), n_tokens * self.half_dim)?;
            op.len("sin", angles.sin.len(), n_tokens * self.half_dim)?;
        }
        Ok(())
    }

    /// Pairs that turn (none: 0), whether they are neighbours, angles of queries, angles of keys.
    fn args(turn: Option<Turn>) -> [Arg<'static>; 6] {
        let Some(turn) = turn else {
            let none = || Arg::optional::<f32>(None);
            return [Arg::I32(0), Arg::I32(0), none(), none(), none(), none()];
        };
        [
            Arg::size(turn.half_dim),
            Arg::I32(i32::from(turn.pairs == RopePairs::Interleaved)),
            turn.queries.cos.into(),
            turn.queries.sin.into(),
            turn.keys.cos.into(),
            turn.keys.sin.into(),
        ]
    }
}

/// Operands of [`latent_keys`].
#[derive(Clone, Copy, Debug)]
pub struct LatentKeys {
    /// Queries; `2 * turn.half_dim` elements of each head from `turn_from` on turn in place.
    /// `[n_tokens, heads.row_stride]`
    pub q: View<f32>,
    /// Where the query heads are.
    pub heads: Heads,
    /// First element of a query head that turns.
    pub turn_from: usize,
    /// Short vectors of `rank` elements, then the keys' part with positions, all of which turns. They go to the cache;
    /// whether those in `short` are changed too is undefined. `[n_tokens, rank + 2 * turn.half_dim]`
    pub short: View<f32>,
    /// Elements of a short vector without positions.
    pub rank: usize,
    /// Norm of these elements, as of one head.
    pub norm: HeadNorm,
    /// Rotary positions.
    pub turn: Turn,
    /// The cache, of one head whose values are in the keys.
    pub pages: KvPages,
    /// Slot of each token, as in [`Keys`]. `[n_tokens]`
    pub slots: View<i32>,
}

/// Rotary positions of queries and of the keys' part with positions, the norm of the short vectors, and the write to the
/// cache. There may be no rows.
///
/// # Errors
/// The shapes do not agree, or the device fails.
pub fn latent_keys(gpu: &Gpu, op: LatentKeys) -> Result<(), KernelError> {
    let n_tokens = op.check()?;
    if n_tokens == 0 {
        return Ok(());
    }
    let launch = Launch {
        kernel: match op.pages.dtype {
            DType::F32 => "latent_keys_f32",
            DType::F16 => "latent_keys_f16",
            DType::BF16 => "latent_keys_bf16",
        },
        grid: [n_tokens as u32, 1 + op.heads.n_heads.div_ceil(N_WARPS) as u32, 1],
        block: 32 * N_WARPS as u32,
        shared_bytes: op.key_dim() * size_of::<f32>(),
        overlap: Overlap::Previous,
    };
    let mut args = vec![
        op.q.into(),
        Arg::size(op.heads.row_stride),
        Arg::size(op.heads.first),
        Arg::size(op.heads.n_heads),
        Arg::size(op.heads.head_dim),
        Arg::size(op.turn_from),
        op.short.into(),
        Arg::size(op.rank),
    ];
    args.extend(HeadNorm::args(Some(op.norm), op.rank));
    args.extend(Turn::args(Some(op.turn)));
    args.extend(op.pages.args());
    args.push(op.slots.into());
    Ok(gpu.launch(&launch, &args)?)
}

impl LatentKeys {
    /// Elements of a short vector with positions.
    fn key_dim(&self) -> usize {
        self.rank + 2 * self.turn.half_dim
    }

    /// Checks the operands; returns the number of tokens.
    fn check(&self) -> Result<usize, KernelError> {
        let op = Contract("latent_keys");
        let n_tokens = self.heads.check("latent_keys", self.q.len())?;
        self.turn.check(op, n_tokens)?;
        let turned = 2 * self.turn.half_dim;
        op.range(
            self.turn_from
                .checked_add(turned)
                .is_some_and(|end| end <= self.heads.head_dim),
            "head_dim",
            self.heads.head_dim,
            "at least turn_from + 2 * half_dim",
        )?;
        op.range(self.rank > 0, "rank", self.rank, "at least 1")?;
        op.len("short", self.short.len(), n_tokens * self.key_dim())?;
        op.len("slots", self.slots.len(), n_tokens)?;
        op.len("pages' heads", self.pages.shape.n_heads, 1)?;
        op.len("pages' key_dim", self.pages.shape.key_dim, self.key_dim())?;
        op.len("pages' value_dim", self.pages.own_value_dim(), 0)?;
        self.norm.check(op, Heads::whole(self.rank))?;
        Ok(n_tokens)
    }
}
