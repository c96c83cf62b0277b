//! Products with many rows: blocks of weight and activations that stay in the caches.
//!
//! A task computes at most [`GROUPS`] groups of rows and [`PANELS`] panels, [`block_steps`] steps at a time. Those steps of
//! a panel are widened to f32 once and stay in the first-level cache while all rows of the task pass; the rows' activations
//! stay in the second-level cache while all panels pass.

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;

use super::Product;
use super::storage::Storage;
use super::tile::{Ahead, Operands, ROWS_MAX, Tile, WIDENED_ROWS, panels_together};
use crate::cpu::context::CpuContext;
use crate::cpu::isa::Isa;
use crate::cpu::simd::{Simd, SimdTask};
use crate::weight::PANEL_ROWS;

/// Groups of rows of a task.
const GROUPS: usize = 24;

/// Panels of a task.
const PANELS: usize = 8;

/// Floats of widened steps: [`block_steps`] of the panels that a tile computes together.
const WIDENED_FLOATS: usize = 8192;

/// Steps of a block: the widened ones take at most two thirds of a first-level cache.
pub(super) fn block_steps(isa: Isa) -> usize {
    match isa {
        Isa::Portable | Isa::Avx2 => 128,
        Isa::Avx512 | Isa::Avx512Bf16 | Isa::AmxBf16 => 64,
    }
}

/// Computes the product.
pub(super) fn run<T: Storage>(context: &CpuContext, product: &Product<'_>) {
    let (n_groups, n_panels) = (product.x.groups().len(), product.result.n_panels());
    let n_blocks = n_groups.div_ceil(GROUPS);
    let n_tasks = n_panels.div_ceil(PANELS) * n_blocks;
    let n_sums = GROUPS * ROWS_MAX * PANELS * PANEL_ROWS;
    context.for_each_with_scratch(n_tasks, n_sums + WIDENED_FLOATS, |scratch, task| {
        let (first_panel, block) = (task / n_blocks * PANELS, task % n_blocks);
        let (sums, widened) = scratch.split_at_mut(n_sums);
        let block = Block::<T> {
            product,
            groups: block * n_groups / n_blocks..(block + 1) * n_groups / n_blocks,
            panels: first_panel..n_panels.min(first_panel + PANELS),
            sums,
            widened,
            storage: PhantomData,
        };
        T::run(context, block);
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
        let (n_steps, block_steps) = (self.product.n_steps, self.product.x.block_steps());
        for first in (0..n_steps).step_by(block_steps) {
            let steps = first..n_steps.min(first + block_steps);
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
        let (first_row, n_rows) = (self.rows().start, self.rows().len());
        let panel_sums = n_rows * PANEL_ROWS;
        let sums = &mut self.sums[(panel - self.panels.start) * panel_sums..][..P * panel_sums];
        let bytes = &panels.bytes[panel * panels.panel_bytes..][..P * panels.panel_bytes];
        let at = steps.start * T::STEP_BYTES;
        // Either the next panels, or the next steps of the first ones.
        let next = if panel + P < self.panels.end {
            bytes.as_ptr().wrapping_add(P * panels.panel_bytes + at)
        } else {
            let first = &panels.bytes[self.panels.start * panels.panel_bytes..];
            first.as_ptr().wrapping_add(steps.end * T::STEP_BYTES)
        };
        // Each group prefetches its share.
        let ahead_bytes = steps.len() * T::STEP_BYTES / self.groups.len();
        let (scales, panel_scales, group_steps) = self.product.scales(panel, steps.start, steps.len());
        let mut operands = Operands {
            x: ptr::null(),
            w: bytes[at..].as_ptr(),
            panel_bytes: panels.panel_bytes,
            n_steps: steps.len(),
            ahead: Ahead {
                first: next,
                step_bytes: ahead_bytes / steps.len(),
                panel_bytes: panels.panel_bytes,
            },
            scales,
            panel_scales,
            group_steps,
            sums: ptr::null_mut(),
            panel_sums,
            is_first: steps.start == 0,
        };
        let is_direct = T::IS_DIRECT || n_rows <= WIDENED_ROWS && S::LANES < PANEL_ROWS;
        if !is_direct {
            let n_floats = 2 * PANEL_ROWS * steps.len();
            for (p, to) in self.widened[..P * n_floats]
                .chunks_exact_mut(n_floats)
                .enumerate()
            {
                widen::<S, T>(simd, &bytes[p * panels.panel_bytes + at..], to);
            }
            operands.w = self.widened.as_ptr().cast();
            operands.panel_bytes = n_floats * size_of::<f32>();
        }
        for group in self.groups.clone() {
            let rows = x.groups().first_row(group)..x.groups().first_row(group + 1);
            operands.x = x.group::<T>(group, steps.start).as_ptr();
            operands.sums = sums[(rows.start - first_row) * PANEL_ROWS..].as_mut_ptr();
            // SAFETY: the activations and sums are those of the group's rows, and `w` holds the steps of P panels; a
            // weight has scales for all of them.
            unsafe {
                if is_direct {
                    tile::<S, T, P>(simd, rows.len(), operands);
                } else {
                    tile::<S, T::Widened, P>(simd, rows.len(), operands);
                }
            }
            operands.ahead.first = operands.ahead.first.wrapping_add(ahead_bytes);
        }
    }

    /// Writes the result.
    fn finish(&self) {
        let Product {
            first_row, result, ..
        } = *self.product;
        let rows = self.rows();
        for (panel, sums) in self
            .panels
            .clone()
            .zip(self.sums.chunks_exact(rows.len() * PANEL_ROWS))
        {
            for (row, sums) in rows.clone().zip(sums.chunks_exact(PANEL_ROWS)) {
                // SAFETY: no other task has these rows of this panel.
                unsafe { result.write(first_row + row, panel, sums) };
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
        let step = &from[step * T::STEP_BYTES..];
        let mut row = 0;
        while row < PANEL_ROWS {
            // SAFETY: `from` has that many steps, as asserted.
            let columns = unsafe { T::load(simd, step.as_ptr(), row) };
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
unsafe fn tile<S: Simd, T: Storage, const P: usize>(simd: S, n_rows: usize, o: Operands) {
    // SAFETY: the caller's promise.
    unsafe {
        match n_rows {
            3 => simd.call(Tile::<T, 3, P>::new(o)),
            4 => simd.call(Tile::<T, 4, P>::new(o)),
            5 => simd.call(Tile::<T, 5, P>::new(o)),
            6 => simd.call(Tile::<T, 6, P>::new(o)),
            _ => unreachable!("more than {ROWS_MAX} rows make groups of at least half as many"),
        }
    }
}
