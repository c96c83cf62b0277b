//! Products of bf16 weights in tiles (AMX). The activations are rounded to bf16; the sums are f32.

use std::ops::Range;

use super::Rows;
use super::activations::Activations;
use crate::cpu::amx::{TILE_BYTES, TILE_COLUMNS, TILE_ROWS, Tiles};
use crate::cpu::bf16;
use crate::cpu::context::CpuContext;
use crate::cpu::disjoint::DisjointMut;
use crate::cpu::simd::{Simd, SimdTask};
use crate::weight::{PANEL_ROWS, Panels};

/// Blocks of 16 rows of a task with many rows: their activations stay in the second-level cache.
const BLOCKS: usize = 8;

/// Bytes of the weight that are worth a task of their own.
const TASK_BYTES: usize = 1 << 19;

/// Floats of a tile of sums.
const SUMS: usize = TILE_ROWS * PANEL_ROWS;

/// Computes the product of some rows.
pub(super) fn run(context: &CpuContext, some: Activations<'_>, panels: Panels<'_>, result: &Rows<'_>) {
    let n_blocks = some.m().div_ceil(TILE_ROWS);
    // A block of activations takes the bytes of a panel.
    let block_floats = panels.panel_bytes / size_of::<f32>();
    context.with_shared_scratch(n_blocks * block_floats, |memory| {
        let shared = DisjointMut::new(&mut *memory);
        context.for_each(n_blocks, |block| {
            context.run(Pack {
                some,
                first_row: block * TILE_ROWS,
                // SAFETY: no other task has this block.
                to: unsafe { shared.part(block * block_floats, block_floats) },
            });
        });
        multiply(context, some, bytemuck::cast_slice(memory), (panels, result));
    });
}

fn multiply(
    context: &CpuContext,
    some: Activations<'_>,
    x: &[u8],
    (panels, result): (Panels<'_>, &Rows<'_>),
) {
    let n_blocks = some.m().div_ceil(TILE_ROWS);
    let product = Product {
        x,
        m: some.m(),
        panels,
        n_tiles: panels.panel_bytes / TILE_BYTES,
        first_row: some.first_row,
        result,
    };
    let n_panels = result.n_panels();
    let n_together = (TASK_BYTES / panels.panel_bytes).max(1).next_multiple_of(4);
    let n_parts = n_blocks.div_ceil(BLOCKS);
    context.for_each_with_scratch(n_panels.div_ceil(n_together) * n_parts, 4 * SUMS, |sums, task| {
        let (first, part) = (task / n_parts * n_together, task % n_parts);
        let blocks = part * n_blocks / n_parts..(part + 1) * n_blocks / n_parts;
        product.part(blocks, first..n_panels.min(first + n_together), sums);
    });
}

/// Rounds some rows of activations and puts them into tiles.
struct Pack<'a> {
    some: Activations<'a>,
    /// The first of at most 16.
    first_row: usize,
    /// `[tiles, TILE_ROWS, TILE_COLUMNS]` bf16 numbers, two in a float.
    to: &'a mut [f32],
}

impl SimdTask for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let to: &mut [u16] = bytemuck::cast_slice_mut(self.to);
        // The rows that a last block lacks, and the columns that a last tile lacks.
        to.fill(0);
        for row in 0..TILE_ROWS.min(self.some.m() - self.first_row) {
            let x = self.some.row(self.first_row + row);
            for (tile, x) in x.chunks(TILE_COLUMNS).enumerate() {
                let to = &mut to[(tile * TILE_ROWS + row) * TILE_COLUMNS..][..TILE_COLUMNS];
                let mut whole = [0.0; TILE_COLUMNS];
                whole[..x.len()].copy_from_slice(x);
                for i in 0..TILE_COLUMNS {
                    to[i] = bf16::rounded(whole[i]);
                }
            }
        }
    }
}

/// A checked product of some rows.
struct Product<'a> {
    /// `[blocks, n_tiles]` tiles.
    x: &'a [u8],
    m: usize,
    panels: Panels<'a>,
    n_tiles: usize,
    first_row: usize,
    result: &'a Rows<'a>,
}

impl Product<'_> {
    /// Computes the panels `panels` of the rows of some blocks.
    fn part(&self, blocks: Range<usize>, panels: Range<usize>, sums: &mut [f32]) {
        // SAFETY: this path is taken on processors with AMX alone, and the permission was given when that was found out.
        let tiles = unsafe { Tiles::new() };
        if blocks.len() == 1 {
            for first in panels.clone().step_by(4) {
                let four = [0, 1, 2, 3].map(|i| (first + i).min(panels.end - 1));
                // SAFETY: each block and each panel has `n_tiles` tiles.
                unsafe {
                    tiles.one_by_four(
                        self.block(blocks.start),
                        four.map(|p| self.panel(p)),
                        self.n_tiles,
                        self.sums(sums),
                    )
                };
                let n = 4.min(panels.end - first);
                for (panel, sums) in (first..first + n).zip(sums.chunks_exact(SUMS)) {
                    self.write(blocks.start, panel, sums);
                }
            }
            return;
        }
        for first in panels.clone().step_by(2) {
            let pair = [first, (first + 1).min(panels.end - 1)];
            let next = (first + 2).min(panels.end - 1);
            for (at, block) in blocks.clone().step_by(2).enumerate() {
                let both = [block, (block + 1).min(blocks.end - 1)];
                let ahead = self.panel(next).wrapping_add(at * self.n_tiles * TILE_BYTES / 2);
                // SAFETY: as above.
                unsafe {
                    let (x, w) = (
                        both.map(|block| self.block(block)),
                        pair.map(|panel| self.panel(panel)),
                    );
                    tiles.two_by_two(x, w, self.n_tiles, ahead, self.sums(sums));
                }
                // Where there is no second block or panel, the first was computed twice.
                for (i, sums) in sums.chunks_exact(SUMS).enumerate() {
                    let (block, panel) = (block + i / 2, first + i % 2);
                    if blocks.contains(&block) && panels.contains(&panel) {
                        self.write(block, panel, sums);
                    }
                }
            }
        }
    }

    /// The tiles of a block of rows.
    fn block(&self, block: usize) -> *const u8 {
        let n = self.n_tiles * TILE_BYTES;
        self.x[block * n..(block + 1) * n].as_ptr()
    }

    /// The tiles of a panel.
    fn panel(&self, panel: usize) -> *const u8 {
        let n = self.panels.panel_bytes;
        self.panels.bytes[panel * n..(panel + 1) * n].as_ptr()
    }

    /// Room for four tiles of sums.
    fn sums(&self, sums: &mut [f32]) -> *mut f32 {
        sums[..4 * SUMS].as_mut_ptr()
    }

    /// Writes a tile of sums to the result.
    fn write(&self, block: usize, panel: usize, sums: &[f32]) {
        let first = block * TILE_ROWS;
        for (row, sums) in (first..self.m.min(first + TILE_ROWS)).zip(sums.chunks_exact(PANEL_ROWS)) {
            // SAFETY: no other task has these rows of this panel.
            unsafe { self.result.write(self.first_row + row, panel, sums) };
        }
    }
}
