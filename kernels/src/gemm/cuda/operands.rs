//! The operands of a product of all columns.

use super::scratch::ProductScratch;
use super::{ProductThen, RowNorm};
use crate::columns::Columns;
use crate::cuda::View;
use crate::weight::Matrix;

/// Operands of [`linear`](super::linear()).
pub struct Linear<'a> {
    /// Activations. `[m, x_columns.row_stride]`
    pub x: View<f32>,
    /// Which columns of `x` are multiplied; there are `k`.
    pub x_columns: Columns,
    /// Norm of these columns of each row before the product.
    pub norm: Option<RowNorm>,
    /// Weight. `[n, k]`
    pub weight: Matrix,
    /// Added to every row of the product. `[n]`
    pub bias: Option<View<f32>>,
    /// Result. `[m, out_columns.row_stride]`
    pub out: View<f32>,
    /// Which columns of `out` are written; there are `n`, and half as many after [`ProductThen::Gated`].
    pub out_columns: Columns,
    /// What becomes of the products.
    pub then: ProductThen,
    /// Working memory, at least of the sizes of [`ScratchSizes::linear`].
    pub scratch: &'a ProductScratch,
}

impl<'a> Linear<'a> {
    /// A product of whole rows that replaces `out`: `x` is `[m, k]` and `out` is `[m, n]`.
    pub fn of_rows(x: View<f32>, weight: Matrix, out: View<f32>, scratch: &'a ProductScratch) -> Linear<'a> {
        Linear {
            x,
            x_columns: Columns::all(weight.n_cols),
            norm: None,
            weight,
            bias: None,
            out,
            out_columns: Columns::all(weight.n_rows),
            then: ProductThen::Store,
            scratch,
        }
    }
}

/// The rows of a product as kernels read them: normalised, in the type of the weight.
#[derive(Clone, Copy)]
pub(super) struct Prepared {
    /// Rows.
    pub(super) m: usize,
    /// `[m, row_len(dtype, k)]`
    pub(super) rows: View<u8>,
}
