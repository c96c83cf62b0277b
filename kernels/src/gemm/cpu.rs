//! Matrix products on the CPU.
//!
//! A task computes some panels of the weight, which are neighbouring columns of the result. Few rows are bound by
//! reading the weight once (`few`); many rows are bound by arithmetic and go through blocks that stay in the caches
//! (`many`). Both add the same products in the same order (`tile`), so a row's result is the same bits in either.

mod activations;
mod few;
mod many;
mod storage;
mod tile;

use super::Gemm;
use crate::columns::Columns;
use crate::cpu::context::CpuContext;
use crate::cpu::disjoint::DisjointMut;
use crate::then::Then;
use crate::weight::{DType, PANEL_ROWS, Panels};

use activations::Packed;
use storage::{Bf16, F16, F32, Storage};

/// Rows whose activations are packed at once, which bounds the memory for them.
pub(super) const ROWS_AT_ONCE: usize = 512;

pub(super) fn run(context: &CpuContext, op: Gemm<'_>, panels: Panels<'_>) {
    match panels.dtype {
        DType::F32 => run_stored::<F32>(context, op, panels),
        DType::F16 => run_stored::<F16>(context, op, panels),
        DType::BF16 => run_stored::<Bf16>(context, op, panels),
    }
}

fn run_stored<T: Storage>(context: &CpuContext, op: Gemm<'_>, panels: Panels<'_>) {
    let (n, k) = (op.weight.n_rows(), op.weight.n_cols());
    let n_steps = panels.panel_bytes / T::STEP_BYTES;
    let x_stride = op.x_columns.row_stride;
    let m = op.x.len() / x_stride;
    let result = Rows {
        y: DisjointMut::new(op.y),
        columns: op.y_columns,
        n,
        bias: op.bias,
        then: op.then,
    };
    let n_floats = Packed::n_floats(m.min(ROWS_AT_ONCE), n_steps);
    context.with_shared_scratch(n_floats, |memory| {
        for first_row in (0..m).step_by(ROWS_AT_ONCE) {
            let rows = first_row..m.min(first_row + ROWS_AT_ONCE);
            let x = &op.x[rows.start * x_stride..rows.end * x_stride];
            let product = Product {
                x: Packed::new(context, (x, op.x_columns), k, n_steps, memory),
                panels,
                n_steps,
                first_row,
                result: &result,
            };
            if product.x.groups().len() == 1 {
                few::run::<T>(context, &product);
            } else {
                many::run::<T>(context, &product);
            }
        }
    });
}

/// A checked product of some rows.
struct Product<'a> {
    x: Packed<'a>,
    panels: Panels<'a>,
    /// Steps of a panel.
    n_steps: usize,
    /// The first of the rows in the result.
    first_row: usize,
    result: &'a Rows<'a>,
}

/// The result of a product.
struct Rows<'a> {
    y: DisjointMut<'a>,
    columns: Columns,
    /// Columns.
    n: usize,
    bias: Option<&'a [f32]>,
    then: Then,
}

impl Product<'_> {
    /// Panels of the weight.
    fn n_panels(&self) -> usize {
        self.result.n.div_ceil(PANEL_ROWS)
    }

    /// Writes the sums of a row and a panel, with the bias.
    ///
    /// # Safety
    /// No other task may write them.
    #[inline(always)]
    unsafe fn write(&self, row: usize, panel: usize, sums: &[f32]) {
        let Rows {
            y,
            columns,
            n,
            bias,
            then,
        } = self.result;
        let first = panel * PANEL_ROWS;
        let n = PANEL_ROWS.min(n - first);
        let at = (self.first_row + row) * columns.row_stride + columns.first + first;
        // SAFETY: the caller's promise.
        let y = unsafe { y.part(at, n) };
        let sums = &sums[..n];
        match bias {
            None => then.write(y, |j| sums[j]),
            Some(bias) => {
                let bias = &bias[first..first + n];
                then.write(y, |j| sums[j] + bias[j]);
            }
        }
    }
}
