//! Matrix products on the CPU.
//!
//! A task computes some panels of the weight, which are neighbouring columns of the result. Few rows are bound by
//! reading the weight once (`few`); many rows are bound by arithmetic and go through blocks that stay in the caches
//! (`many`). Both add the same products in the same order (`tile`), so a row's result is the same bits in either.
//! Processors with AMX compute products of bf16 weights in tiles, whatever the number of rows (`amx`).

mod activations;
#[cfg(target_arch = "x86_64")]
mod amx;
mod few;
mod many;
mod quantised;
mod storage;
mod tile;

use super::Gemm;
use crate::columns::Columns;
use crate::cpu::context::CpuContext;
use crate::cpu::disjoint::DisjointMut;
use crate::cpu::isa::Isa;
use crate::then::Then;
use crate::weight::{DType, GROUP, PANEL_ROWS, Panels, QuantFormat};

use activations::{Activations, Packed};
use quantised::{Fp8, Int8, Nf4};
use storage::{Bf16, Bf16Pairs, F16, F32, Storage};
use tile::ROWS_MAX;

/// Rows whose activations are packed at once, which bounds the memory for them.
pub(super) const ROWS_AT_ONCE: usize = 512;

pub(super) fn run(context: &CpuContext, op: Gemm<'_>, panels: Panels<'_>) {
    let (isa, k) = (context.isa(), op.weight.n_cols());
    let columns = op.x_columns;
    let m = op.x.len() / columns.row_stride;
    let result = Rows {
        y: DisjointMut::new(op.y),
        columns: op.y_columns,
        n: op.weight.n_rows(),
        bias: op.bias,
        then: op.then,
    };
    for first_row in (0..m).step_by(ROWS_AT_ONCE) {
        let rows = first_row..m.min(first_row + ROWS_AT_ONCE);
        let some = Activations {
            x: &op.x[rows.start * columns.row_stride..rows.end * columns.row_stride],
            columns,
            k,
            first_row,
        };
        match (panels.scales.map(|scales| scales.format), panels.dtype) {
            (Some(QuantFormat::Int8), _) => run_stored::<Int8>(context, some, panels, &result),
            (Some(QuantFormat::Fp8), _) => run_stored::<Fp8>(context, some, panels, &result),
            (Some(QuantFormat::Nf4), _) => run_stored::<Nf4>(context, some, panels, &result),
            (None, DType::F32) => run_stored::<F32>(context, some, panels, &result),
            (None, DType::F16) => run_stored::<F16>(context, some, panels, &result),
            #[cfg(target_arch = "x86_64")]
            (None, DType::BF16) if isa == Isa::AmxBf16 => amx::run(context, some, panels, &result),
            (None, DType::BF16) if isa.multiplies_bf16() => {
                run_stored::<Bf16Pairs>(context, some, panels, &result);
            }
            (None, DType::BF16) => run_stored::<Bf16>(context, some, panels, &result),
        }
    }
}

fn run_stored<T: Storage>(
    context: &CpuContext,
    some: Activations<'_>,
    panels: Panels<'_>,
    result: &Rows<'_>,
) {
    let n_steps = panels.panel_bytes / T::STEP_BYTES;
    let block_steps = match some.m() {
        0..=ROWS_MAX => n_steps,
        _ => many::block_steps(context.isa()),
    };
    context.with_shared_scratch(Packed::n_floats::<T>(some.m(), n_steps), |memory| {
        let product = Product {
            x: Packed::new::<T>(context, some, (n_steps, block_steps), memory),
            panels,
            n_steps,
            first_row: some.first_row,
            result,
        };
        if product.x.groups().len() == 1 {
            few::run::<T>(context, &product);
        } else {
            many::run::<T>(context, &product);
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

impl Product<'_> {
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

impl Rows<'_> {
    /// Panels of the weight.
    fn n_panels(&self) -> usize {
        self.n.div_ceil(PANEL_ROWS)
    }

    /// Writes the sums of a row and a panel, with the bias.
    ///
    /// # Safety
    /// No other task may write them.
    #[inline(always)]
    unsafe fn write(&self, row: usize, panel: usize, sums: &[f32]) {
        let first = panel * PANEL_ROWS;
        let n = PANEL_ROWS.min(self.n - first);
        let at = row * self.columns.row_stride + self.columns.first + first;
        // SAFETY: the caller's promise.
        let y = unsafe { self.y.part(at, n) };
        let sums = &sums[..n];
        match self.bias {
            None => self.then.write(y, |j| sums[j]),
            Some(bias) => {
                let bias = &bias[first..first + n];
                self.then.write(y, |j| sums[j] + bias[j]);
            }
        }
    }
}
