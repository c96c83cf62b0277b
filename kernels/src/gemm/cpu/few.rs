//! Products with as few rows as one tile takes: the weight streams past once, several panels side by side.

use std::marker::PhantomData;
use std::ops::Range;

use super::Product;
use super::storage::Storage;
use super::tile::{Ahead, Operands, PANELS_MAX, Tile, panels_together};
use crate::cpu::context::CpuContext;
use crate::cpu::simd::{Simd, SimdTask};
use crate::weight::PANEL_ROWS;

/// Bytes of the weight that are worth a task of their own (some tens of microseconds of one core, an estimate).
const TASK_BYTES: usize = 1 << 19;

/// How far ahead in each panel to ask for cache lines: about the latency of memory at the rate one core reads.
const AHEAD_BYTES: usize = 2048;

/// Computes the product.
pub(super) fn run<T: Storage>(context: &CpuContext, product: &Product<'_>) {
    let n_rows = product.x.groups().first_row(1);
    let n_together = (TASK_BYTES / product.panels.panel_bytes).max(1);
    let n_together = n_together.next_multiple_of(PANELS_MAX);
    let n_panels = product.result.n_panels();
    let n_floats = n_rows * PANEL_ROWS * PANELS_MAX;
    context.for_each_with_scratch(n_panels.div_ceil(n_together), n_floats, |sums, task| {
        let first = task * n_together;
        let part = Part::<T> {
            product,
            n_rows,
            panels: first..n_panels.min(first + n_together),
            sums,
            storage: PhantomData,
        };
        T::run(context, part);
    });
}

/// The panels of one task.
struct Part<'a, T> {
    product: &'a Product<'a>,
    n_rows: usize,
    panels: Range<usize>,
    sums: &'a mut [f32],
    storage: PhantomData<T>,
}

impl<T: Storage> SimdTask for Part<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.n_rows {
            1 => self.rows::<S, 1>(simd),
            2 => self.rows::<S, 2>(simd),
            3 => self.rows::<S, 3>(simd),
            4 => self.rows::<S, 4>(simd),
            5 => self.rows::<S, 5>(simd),
            _ => self.rows::<S, 6>(simd),
        }
    }
}

impl<T: Storage> Part<'_, T> {
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(self, simd: S) {
        match const { panels_together::<S>(R) } {
            1 => self.panels::<S, R, 1>(simd),
            2 => self.panels::<S, R, 2>(simd),
            4 => self.panels::<S, R, 4>(simd),
            _ => self.panels::<S, R, PANELS_MAX>(simd),
        }
    }

    /// As many panels at once as fit, and the last ones one by one.
    #[inline(always)]
    fn panels<S: Simd, const R: usize, const P: usize>(mut self, simd: S) {
        let mut panel = self.panels.start;
        while panel + P <= self.panels.end {
            self.tile::<S, R, P>(simd, panel);
            panel += P;
        }
        while panel < self.panels.end {
            self.tile::<S, R, 1>(simd, panel);
            panel += 1;
        }
    }

    #[inline(always)]
    fn tile<S: Simd, const R: usize, const P: usize>(&mut self, simd: S, panel: usize) {
        let Product {
            x,
            panels,
            n_steps,
            first_row,
            result,
        } = *self.product;
        let sums = &mut self.sums[..P * R * PANEL_ROWS];
        let bytes = &panels.bytes[panel * panels.panel_bytes..][..P * panels.panel_bytes];
        let (scales, panel_scales, group_steps) = self.product.scales(panel, 0, n_steps);
        // SAFETY: the activations are those of R rows, the panels and the sums were cut to their length, and a weight has
        // scales for all of its panels.
        simd.call(unsafe {
            Tile::<T, R, P>::new(Operands {
                x: x.group::<T>(0, 0).as_ptr(),
                w: bytes.as_ptr(),
                panel_bytes: panels.panel_bytes,
                n_steps,
                ahead: Ahead {
                    first: bytes.as_ptr().wrapping_add(AHEAD_BYTES),
                    step_bytes: T::STEP_BYTES,
                    panel_bytes: panels.panel_bytes,
                },
                scales,
                panel_scales,
                group_steps,
                sums: sums.as_mut_ptr(),
                panel_sums: R * PANEL_ROWS,
                is_first: true,
            })
        });
        for (idx, sums) in sums.chunks_exact(PANEL_ROWS).enumerate() {
            // SAFETY: no other task has this panel.
            unsafe { result.write(first_row + idx % R, panel + idx / R, sums) };
        }
    }
}
