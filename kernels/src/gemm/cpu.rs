//! Matrix products on the CPU.
//!
//! Few rows are bound by reading the weight once (`thin`); many rows are bound by arithmetic and go
//! through blocks that stay in the caches (`blocked`). Both add the same products in the same order, so a
//! row's result is the same bits in either.

mod blocked;
mod thin;

use super::Gemm;
use crate::columns::Columns;
use crate::cpu::context::CpuContext;
use crate::cpu::disjoint::DisjointMut;
use crate::cpu::simd::Element;
use crate::then::Then;
use crate::weight::Rows;

#[cfg(test)]
pub(super) use blocked::M_BLOCK;

pub(super) fn run(context: &CpuContext, op: Gemm<'_>) {
    match op.weight.rows() {
        Rows::F32(rows) => run_typed(context, op, rows),
        Rows::F16(rows) => run_typed(context, op, rows),
        Rows::BF16(rows) => run_typed(context, op, rows),
    }
}

/// Most rows for which reading the weight costs more than the arithmetic.
const THIN_ROWS_MAX: usize = 16;

fn run_typed<W: Element>(context: &CpuContext, op: Gemm<'_>, rows: &[W]) {
    let product = Product {
        m: op.x.len() / op.x_columns.row_stride,
        n: op.weight.n_rows(),
        k: op.weight.n_cols(),
        x: op.x,
        x_columns: op.x_columns,
        weights: rows,
        weight_stride: op.weight.row_stride(),
        bias: op.bias,
        y: DisjointMut::new(op.y),
        y_columns: op.y_columns,
        then: op.then,
    };
    if product.m <= THIN_ROWS_MAX {
        thin::run(context, &product);
    } else {
        blocked::run(context, &product);
    }
}

/// A checked product.
struct Product<'a, W> {
    /// Rows of the activations.
    m: usize,
    /// Rows of the weight.
    n: usize,
    /// Columns of the weight.
    k: usize,
    x: &'a [f32],
    x_columns: Columns,
    weights: &'a [W],
    /// Elements between rows of the weight, at least `k` rounded up to full vectors.
    weight_stride: usize,
    bias: Option<&'a [f32]>,
    y: DisjointMut<'a>,
    y_columns: Columns,
    then: Then,
}

impl<W> Product<'_, W> {
    /// The `k` activations of a row.
    #[inline(always)]
    fn x(&self, row: usize) -> &[f32] {
        &self.x[row * self.x_columns.row_stride + self.x_columns.first..][..self.k]
    }

    /// The weights of a column of the result, up to the end of the last vector.
    #[inline(always)]
    fn weights(&self, column: usize) -> &[W] {
        &self.weights[column * self.weight_stride..][..self.weight_stride]
    }

    /// The bias of a column of the result.
    #[inline(always)]
    fn bias(&self, column: usize) -> f32 {
        self.bias.map_or(0.0, |bias| bias[column])
    }

    /// Columns `first .. first + n` of a row of the result.
    ///
    /// # Safety
    /// No other task may write them.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "disjointness is the caller's promise")]
    unsafe fn y(&self, row: usize, first: usize, n: usize) -> &mut [f32] {
        let at = row * self.y_columns.row_stride + self.y_columns.first + first;
        // SAFETY: the caller's promise.
        unsafe { self.y.part(at, n) }
    }
}
