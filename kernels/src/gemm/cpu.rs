//! Matrix products on the CPU.
//!
//! A task computes some panels of the weight, which are neighbouring columns of the result. Few rows are bound by
//! reading the weight once (`few`); many rows are bound by arithmetic and go through blocks that stay in the caches
//! (`many`). Both add the same products in the same order (`tile`), so a row's result is the same bits in either.

mod activations;
mod few;
mod many;
mod quantised;
mod storage;
mod tile;

use super::Gemm;
use crate::columns::Columns;
use crate::cpu::context::CpuContext;
use crate::cpu::disjoint::DisjointMut;
use crate::then::Then;
use crate::weight::{DType, GROUP, PANEL_ROWS, Panels, QuantFormat};

use activations::Packed;
use quantised::{Fp8, Int8, Nf4};
use storage::{Bf16, F16, F32, Storage};

/// Rows whose activations are packed at once, which bounds the memory for them.
pub(super) const ROWS_AT_ONCE: usize = 512;

pub(super) fn run(context: &CpuContext, op: Gemm<'_>, panels: Panels<'_>) {
    if let Some(scales) = panels.scales {
        return match scales.format {
            QuantFormat::Int8 => run_stored::<Int8>(context, op, panels),
            QuantFormat::Fp8 => run_stored::<Fp8>(context, op, panels),
            QuantFormat::Nf4 => run_stored::<Nf4>(context, op, panels),
        };
    }
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

    /// The scales from a panel and a step on, where there are any; floats from a panel's to the next's; and how many of
    /// `n_steps` steps share one.
    #[inline(always)]
    fn scales(&self, panel: usize, step: usize, n_steps: usize) -> (*const f32, usize, usize) {
        const GROUP_STEPS: usize = GROUP / 2;
        match self.panels.scales {
            None => (std::ptr::null(), 0, n_steps),
            Some(scales) => {
                let at = panel * scales.panel_floats + step / GROUP_STEPS * PANEL_ROWS;
                (scales.floats[at..].as_ptr(), scales.panel_floats, GROUP_STEPS)
            }
        }
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
