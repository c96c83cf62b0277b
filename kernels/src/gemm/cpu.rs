//! Matrix products on the CPU.
//!
//! Few rows are bound by reading the weight once (`thin`); many rows are bound by arithmetic and go
//! through blocks that stay in the caches (`blocked`). Both add the same products in the same order, so a
//! row's result is the same bits in either.

mod blocked;
mod thin;

use super::Gemm;
use crate::cpu::context::CpuContext;
use crate::cpu::simd::Element;
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
    let Gemm { x, weight, bias, y } = op;
    let shape = Shape {
        n: weight.n_rows(),
        k: weight.n_cols(),
        row_stride: weight.row_stride(),
    };
    let m = x.len() / shape.k;
    if m <= THIN_ROWS_MAX {
        thin::run(
            context,
            thin::Operands {
                shape,
                x,
                rows,
                bias,
                y,
            },
        );
    } else {
        blocked::run(
            context,
            blocked::Operands {
                shape,
                x,
                rows,
                bias,
                y,
            },
        );
    }
}

/// Sizes of a product's weight.
#[derive(Clone, Copy)]
struct Shape {
    /// Rows of the weight.
    n: usize,
    /// Columns of the weight.
    k: usize,
    /// Elements between its rows, at least `k` rounded up to whole vectors.
    row_stride: usize,
}
