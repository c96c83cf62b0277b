//! A product for each head with a weight of its own.

use super::input::{self, Input};
use super::scratch::rows_bytes;
use super::tile::{self, Rows, TileProduct, Tiles, Weights};
use super::{K_MAX, ProductScratch, ProductThen};
use crate::columns::HeadColumns;
use crate::cuda::{Gpu, View};
use crate::error::{Contract, KernelError};
use crate::weight::{DType, MatrixList};

/// Operands of [`per_head`].
pub struct PerHead<'a> {
    /// Activations. `[m, x_at.row_stride]`
    pub x: View<f32>,
    /// Where each head of `x` is; it has `k` columns.
    pub x_at: HeadColumns,
    /// A matrix for each head. `[n, k]`
    pub weights: &'a MatrixList,
    /// Result. `[m, out_at.row_stride]`
    pub out: View<f32>,
    /// Where each head of `out` is; it has `n` columns.
    pub out_at: HeadColumns,
    /// Working memory, at least of the sizes of [`ScratchSizes::per_head`].
    pub scratch: &'a ProductScratch,
}

/// `out[head] = weights[head] · x[head] + bias[head]`; `m` follows from the length of `x` and may be zero.
///
/// # Errors
/// The lengths of the operands do not agree with the weights, the scratch is too small, or the device fails.
pub fn per_head(gpu: &Gpu, op: &PerHead<'_>) -> Result<(), KernelError> {
    let contract = Contract("per_head");
    let n_heads = op.weights.len();
    let (n, k) = (op.weights.n_rows(), op.weights.n_cols());
    let m = op.x_at.check(contract, "x", op.x.len(), (n_heads, k))?;
    op.out_at.check(contract, "out", op.out.len(), (n_heads, n))?;
    contract.len("out", op.out.len(), m * op.out_at.row_stride)?;
    contract.range(k <= K_MAX, "k", k, "at most 2^24")?;
    if m == 0 {
        return Ok(());
    }
    let dtype = op.weights.dtype();
    let rows = op.scratch.rows(contract, rows_bytes(dtype, n_heads * m, k))?;
    let input = Input {
        x: op.x.range(op.x_at.first..op.x.len()).address(),
        row_stride: op.x_at.row_stride,
        heads: (n_heads, op.x_at.step),
        n_rows: m,
        k,
        taken: None,
        factors: None,
        norm: None,
        dtype,
        out: rows,
    };
    input::prepare(gpu, &input)?;
    let tiles = Tiles::of_heads(m, op.weights);
    let product = TileProduct {
        weights: Weights::OfHeads(op.weights),
        x: input.prepared(),
        m,
        out: Rows {
            address: op.out.range(op.out_at.first..op.out.len()).address(),
            row_stride: op.out_at.row_stride,
            step: op.out_at.step,
        },
        out_dtype: DType::F32,
        then: ProductThen::Store,
        tiles,
        working: op.scratch.of_tiles(contract, gpu, &tiles)?,
    };
    tile::run(gpu, &product)
}
