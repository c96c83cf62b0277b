//! Norms on the device: a warp or a block for each vector, which stays in registers where it fits.

use super::{Lengths, NormKind};
use crate::cuda::{Arg, Gpu, Launch, Overlap, View};
use crate::error::KernelError;
use crate::heads::Heads;

/// Operands of [`norm`], as the CPU's.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// Activations that are normalised; `None`: those in `out`. Only whole rows can come from elsewhere. As long as `out`
    pub x: Option<View<f32>>,
    /// Result. `[n_rows, heads.row_stride]`
    pub out: View<f32>,
    /// The vectors to normalise, each on its own.
    pub heads: Heads,
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

/// Longest vector that a warp keeps in registers.
const WARP_DIM_MAX: usize = 512;
/// Longest vector that a block keeps in registers.
const BLOCK_DIM_MAX: usize = 16 << 10;
/// Vectors of a block whose warps take one each.
const WARPS_PER_BLOCK: usize = 4;

/// Normalises every head of every row; there may be no rows.
///
/// # Errors
/// The shapes do not agree, or the device fails.
pub fn norm(gpu: &Gpu, op: Norm) -> Result<(), KernelError> {
    let Norm { heads, out, .. } = op;
    let lengths = Lengths {
        x: op.x.map(|x| x.len()),
        out: out.len(),
        weight: op.weight.map(|weight| weight.len()),
        bias: op.bias.map(|bias| bias.len()),
    };
    let n_rows = lengths.check(heads)?;
    let n_vectors = n_rows * heads.n_heads;
    if n_vectors == 0 {
        return Ok(());
    }
    let x = op.x.unwrap_or(out);
    let (kernel, block, vectors_per_block) = shape_of(&op, x);
    let step = |vector: Option<View<f32>>| match vector {
        Some(vector) if vector.len() > heads.head_dim => heads.head_dim,
        _ => 0,
    };
    let launch = Launch {
        kernel,
        grid: [n_vectors.div_ceil(vectors_per_block) as u32, 1, 1],
        block,
        shared_bytes: 0,
        overlap: Overlap::Previous,
    };
    let args = [
        x.into(),
        out.into(),
        Arg::optional(op.weight),
        Arg::optional(op.bias),
        Arg::size(n_vectors),
        Arg::size(heads.n_heads),
        Arg::size(heads.head_dim),
        Arg::size(heads.row_stride),
        Arg::size(heads.first),
        Arg::size(step(op.weight)),
        Arg::size(step(op.bias)),
        Arg::F32(op.eps),
        Arg::I32(i32::from(op.kind == NormKind::Layer)),
    ];
    Ok(gpu.launch(&launch, &args)?)
}

/// The kernel, threads of a block, and vectors of a block.
fn shape_of(op: &Norm, x: View<f32>) -> (&'static str, u32, usize) {
    let Heads {
        row_stride,
        first,
        head_dim,
        ..
    } = op.heads;
    let views = [Some(x), Some(op.out), op.weight, op.bias];
    let are_pieces = [row_stride, first, head_dim].iter().all(|n| n.is_multiple_of(4))
        && views.iter().flatten().all(|view| view.is_aligned(16));
    match head_dim {
        dim if are_pieces && dim <= WARP_DIM_MAX => {
            ("norm_warp", 32 * WARPS_PER_BLOCK as u32, WARPS_PER_BLOCK)
        }
        dim if are_pieces && dim <= BLOCK_DIM_MAX / 4 => ("norm_block_4", 256, 1),
        dim if are_pieces && dim <= BLOCK_DIM_MAX => ("norm_block_16", 256, 1),
        _ => ("norm_any", 256, 1),
    }
}
