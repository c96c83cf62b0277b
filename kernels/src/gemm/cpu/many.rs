//! Products with many rows: blocks of weight and activations that stay in the caches.
//!
//! A task computes [`GROUPS`] groups of rows and [`PANELS`] panels, [`block_steps`] steps at a time. That piece of a panel
//! is widened to f32 once and stays in the first-level cache while all rows of the task pass; those rows' activations stay
//! in the second-level cache while all panels pass.

use std::marker::PhantomData;
use std::ops::Range;

use super::Product;
use super::storage::Storage;
use super::tile::{Operands, ROWS_MAX, Tile, panels_together};
use crate::cpu::context::CpuContext;
use crate::cpu::simd::{Simd, SimdTask};
use crate::weight::PANEL_ROWS;

/// Groups of rows of a task.
const GROUPS: usize = 24;

/// Panels of a task.
const PANELS: usize = 8;

/// Floats of the widened pieces of panels.
const WIDENED_FLOATS: usize = 8192;

/// Steps of a block: the widened piece takes half of the first-level cache.
const fn block_steps<S: Simd>() -> usize {
    match panels_together::<S>(ROWS_MAX) {
        1 => 128,
        n => WIDENED_FLOATS / (2 * PANEL_ROWS * n),
    }
}

/// Computes the product.
pub(super) fn run<T: Storage>(context: &CpuContext, product: &Product<'_>) {
    let (n_groups, n_panels) = (product.x.groups().len(), product.n_panels());
    let n_blocks = n_groups.div_ceil(GROUPS);
    let n_tasks = n_panels.div_ceil(PANELS) * n_blocks;
    let n_sums = GROUPS * ROWS_MAX * PANELS * PANEL_ROWS;
    context.for_each_with_scratch(n_tasks, n_sums + WIDENED_FLOATS, |scratch, task| {
        let (first_panel, block) = (task / n_blocks * PANELS, task % n_blocks);
        let (sums, widened) = scratch.split_at_mut(n_sums);
        context.run(Block::<T> {
            product,
            groups: block * n_groups / n_blocks..(block + 1) * n_groups / n_blocks,
            panels: first_panel..n_panels.min(first_panel + PANELS),
            sums,
            widened,
            storage: PhantomData,
        });
    });
}

/// One task.
struct Block<'a, T> {
    product: &'a Product<'a>,
    groups: Range<usize>,
    panels: Range<usize>,
    /// `[panels, rows, PANEL_ROWS]`
    sums: &'a mut [f32],
    widened: &'a mut [f32],
    storage: PhantomData<T>,
}

impl<T: Storage> SimdTask for Block<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match const { panels_together::<S>(ROWS_MAX) } {
            1 => self.all_steps::<S, 1>(simd),
            2 => self.all_steps::<S, 2>(simd),
            _ => self.all_steps::<S, 4>(simd),
        }
    }
}

impl<T: Storage> Block<'_, T> {
    #[inline(always)]
    fn all_steps<S: Simd, const P: usize>(mut self, simd: S) {
        let n_steps = self.product.n_steps;
        for first in (0..n_steps).step_by(block_steps::<S>()) {
            let steps = first..n_steps.min(first + block_steps::<S>());
            let mut panel = self.panels.start;
            while panel + P <= self.panels.end {
                self.piece::<S, P>(simd, panel, steps.clone());
                panel += P;
            }
            while panel < self.panels.end {
                self.piece::<S, 1>(simd, panel, steps.clone());
                panel += 1;
            }
        }
        self.finish();
    }

    /// Rows of the task.
    fn rows(&self) -> Range<usize> {
        let groups = self.product.x.groups();
        groups.first_row(self.groups.start)..groups.first_row(self.groups.end)
    }

    /// Adds the products of some steps of `P` panels and all rows.
    #[inline(always)]
    fn piece<S: Simd, const P: usize>(&mut self, simd: S, panel: usize, steps: Range<usize>) {
        let (x, panels) = (self.product.x, self.product.panels);
        let (first_row, panel_sums) = (self.rows().start, self.rows().len() * PANEL_ROWS);
        let sums = &mut self.sums[(panel - self.panels.start) * panel_sums..][..P * panel_sums];
        let bytes = &panels.bytes[panel * panels.panel_bytes..][..P * panels.panel_bytes];
        let at = steps.start * T::STEP_BYTES;
        let (mut w, mut panel_bytes) = (bytes[at..].as_ptr(), panels.panel_bytes);
        if !T::IS_F32 {
            let piece_floats = 2 * PANEL_ROWS * steps.len();
            for (p, to) in self.widened[..P * piece_floats]
                .chunks_exact_mut(piece_floats)
                .enumerate()
            {
                widen::<S, T>(simd, &bytes[p * panel_bytes + at..], to);
            }
            (w, panel_bytes) = (self.widened.as_ptr().cast(), piece_floats * size_of::<f32>());
        }
        let (scales, panel_scales, group_steps) = self.product.scales(panel, steps.start, steps.len());
        for group in self.groups.clone() {
            let rows = x.groups().first_row(group)..x.groups().first_row(group + 1);
            let operands = Operands {
                x: x.group(group, steps.start).as_ptr(),
                w,
                panel_bytes,
                n_steps: steps.len(),
                scales,
                panel_scales,
                group_steps,
                sums: sums[(rows.start - first_row) * PANEL_ROWS..].as_mut_ptr(),
                panel_sums,
                is_first: steps.start == 0,
            };
            // SAFETY: the activations and sums are those of the group's rows, and `w` holds the steps of P panels; a
            // weight has scales for all of them.
            unsafe { tile::<S, T::Widened, P>(simd, rows.len(), operands) };
        }
    }

    /// Writes the result.
    fn finish(&self) {
        let rows = self.rows();
        for (panel, sums) in self
            .panels
            .clone()
            .zip(self.sums.chunks_exact(rows.len() * PANEL_ROWS))
        {
            for (row, sums) in rows.clone().zip(sums.chunks_exact(PANEL_ROWS)) {
                // SAFETY: no other task has these rows of this panel.
                unsafe { self.product.write(row, panel, sums) };
            }
        }
    }
}

/// Widens the numbers of a panel to the columns `to`.
#[inline(always)]
fn widen<S: Simd, T: Storage>(simd: S, from: &[u8], to: &mut [f32]) {
    let n_steps = to.len() / (2 * PANEL_ROWS);
    assert!(from.len() >= n_steps * T::STEP_BYTES);
    for (step, to) in to.chunks_exact_mut(2 * PANEL_ROWS).enumerate() {
        let mut row = 0;
        while row < PANEL_ROWS {
            // SAFETY: `from` has that many steps, as asserted.
            let columns = unsafe { T::load(simd, from.as_ptr().add(step * T::STEP_BYTES), row) };
            simd.store_slice(&mut to[row..], columns[0]);
            simd.store_slice(&mut to[PANEL_ROWS + row..], columns[1]);
            row += S::LANES;
        }
    }
}

/// A tile of `n_rows` rows.
///
/// # Safety
/// As for [`Tile::new`].
#[inline(always)]
unsafe fn tile<S: Simd, T: Storage, const P: usize>(simd: S, n_rows: usize, operands: Operands) {
    // SAFETY: the caller's promise.
    unsafe {
        match n_rows {
            1 => simd.call(Tile::<T, 1, P, false>::new(operands)),
            2 => simd.call(Tile::<T, 2, P, false>::new(operands)),
            3 => simd.call(Tile::<T, 3, P, false>::new(operands)),
            4 => simd.call(Tile::<T, 4, P, false>::new(operands)),
            5 => simd.call(Tile::<T, 5, P, false>::new(operands)),
            _ => simd.call(Tile::<T, 6, P, false>::new(operands)),
        }
    }
}
