//! Products of a few rows: a warp takes two rows of the weight, and the norm is part of the kernel.

use super::input::norm_code;
use super::operands::Linear;
use super::{ProductThen, then_args};
use crate::cuda::{Arg, Gpu, Launch, Overlap};
use crate::error::KernelError;
use crate::weight::DType;

/// Most rows of a product that this computes on a card of this capability.
pub(super) fn rows_max((major, _): (u32, u32)) -> usize {
    // From Hopper on, tiles of its matrix units pay earlier.
    if major >= 9 { 4 } else { 8 }
}

/// Rows of the weight that a block takes.
const ROWS: usize = 16;

/// Computes `op` for `m` rows, at most [`rows_max`].
pub(super) fn run(gpu: &Gpu, op: &Linear<'_>, m: usize) -> Result<(), KernelError> {
    let half = match op.then {
        ProductThen::Gated(_) => op.weight.n_rows / 2,
        _ => 0,
    };
    let launch = Launch {
        kernel: kernel(op.weight.dtype, m),
        grid: [op.weight.n_rows.div_ceil(ROWS) as u32, 1, 1],
        block: 256,
        shared_bytes: 0,
        overlap: Overlap::Previous,
    };
    let [then, scale, act, a, b, c] = then_args(op.then);
    let args = [
        Arg::Address(op.x.range(op.x_columns.first..op.x.len()).address()),
        Arg::size(op.x_columns.row_stride),
        Arg::size(m),
        Arg::I32(norm_code(op.norm)),
        Arg::optional(op.norm.and_then(|norm| norm.weight)),
        Arg::optional(op.norm.and_then(|norm| norm.bias)),
        Arg::F32(op.norm.map_or(0.0, |norm| norm.eps)),
        op.weight.data.into(),
        Arg::size(op.weight.row_stride),
        Arg::size(op.weight.n_rows),
        Arg::size(op.weight.n_cols),
        Arg::size(half),
        Arg::optional(op.bias),
        Arg::Address(op.out.range(op.out_columns.first..op.out.len()).address()),
        Arg::size(op.out_columns.row_stride),
        then,
        scale,
        act,
        a,
        b,
        c,
    ];
    Ok(gpu.launch(&launch, &args)?)
}

fn kernel(dtype: DType, m: usize) -> &'static str {
    match (dtype, m) {
        (DType::F32, 1) => "gemv_1_f32",
        (DType::F32, 2) => "gemv_2_f32",
        (DType::F32, 3..=4) => "gemv_4_f32",
        (DType::F32, _) => "gemv_8_f32",
        (DType::F16, 1) => "gemv_1_f16",
        (DType::F16, 2) => "gemv_2_f16",
        (DType::F16, 3..=4) => "gemv_4_f16",
        (DType::F16, _) => "gemv_8_f16",
        (DType::BF16, 1) => "gemv_1_bf16",
        (DType::BF16, 2) => "gemv_2_bf16",
        (DType::BF16, 3..=4) => "gemv_4_bf16",
        (DType::BF16, _) => "gemv_8_bf16",
    }
}
