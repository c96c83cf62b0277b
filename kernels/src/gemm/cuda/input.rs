//! Rows of activations as a product reads them: normalised, gathered, weighed, in the type of the weight.

use super::RowNorm;
use super::scratch::row_len;
use super::tile::Rows;
use crate::cuda::{Arg, Gpu, Launch, Overlap, View};
use crate::error::KernelError;
use crate::norm::NormKind;
use crate::weight::DType;

/// Operands of [`prepare`].
pub(super) struct Input {
    /// First element of the first head of the first row.
    pub(super) x: u64,
    /// Elements from one row to the next.
    pub(super) row_stride: usize,
    /// Heads that are taken from each row, and elements from one to the next.
    pub(super) heads: (usize, usize),
    /// Rows of the result.
    pub(super) n_rows: usize,
    /// Elements of a row of the result.
    pub(super) k: usize,
    /// Which row of `x` each row of the result is.
    pub(super) taken: Option<View<u32>>,
    /// Factor of each row of the result.
    pub(super) factors: Option<View<f32>>,
    /// Norm of each row.
    pub(super) norm: Option<RowNorm>,
    /// Type of the result.
    pub(super) dtype: DType,
    /// Result. `[heads, n_rows, row_len(dtype, k)]`
    pub(super) out: View<u8>,
}

impl Input {
    /// Where the result is.
    pub(super) fn prepared(&self) -> Rows {
        let row_stride = row_len(self.dtype, self.k);
        Rows {
            address: self.out.address(),
            row_stride,
            step: self.n_rows * row_stride,
        }
    }
}

/// Writes the rows to `out`. What is between the end of a row and the start of the next one stays as it is.
pub(super) fn prepare(gpu: &Gpu, op: &Input) -> Result<(), KernelError> {
    let launch = Launch {
        kernel: match op.dtype {
            DType::F32 => "product_rows_f32",
            DType::F16 => "product_rows_f16",
            DType::BF16 => "product_rows_bf16",
        },
        grid: [op.n_rows as u32, op.heads.0 as u32, 1],
        block: 256,
        shared_bytes: 0,
        overlap: Overlap::Previous,
    };
    let args = [
        Arg::Address(op.x),
        Arg::size(op.row_stride),
        Arg::size(op.heads.1),
        Arg::optional(op.taken),
        Arg::optional(op.factors),
        Arg::I32(norm_code(op.norm)),
        Arg::optional(op.norm.and_then(|norm| norm.weight)),
        Arg::optional(op.norm.and_then(|norm| norm.bias)),
        Arg::F32(op.norm.map_or(0.0, |norm| norm.eps)),
        op.out.into(),
        Arg::size(op.k),
        Arg::size(row_len(op.dtype, op.k)),
    ];
    Ok(gpu.launch(&launch, &args)?)
}

/// How kernels read the kind of a norm.
pub(super) fn norm_code(norm: Option<RowNorm>) -> i32 {
    match norm.map(|norm| norm.kind) {
        None => 0,
        Some(NormKind::Rms) => 1,
        Some(NormKind::Layer) => 2,
    }
}
