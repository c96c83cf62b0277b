//! Products with many rows: blocks of weight and activations that stay in the caches.
//!
//! For each block of [`M_BLOCK`] activation rows and [`N_BLOCK`] weight rows, [`K_BLOCK`] columns at a time:
//! the weight block is widened to f32 once and stays in the first-level cache while all activation rows
//! pass; the partial sums of every element are kept as full vectors, so blocking changes no order.

use std::ops::Range;

use super::Product;
use crate::cpu::context::CpuContext;
use crate::cpu::simd::{DotRows, Element, LANES_MAX, Simd, SimdTask, dot_tile};

/// Activation rows of a block: its sums take 96 KiB of the second-level cache, and widening the weight is
/// a few percent of the work.
pub(in crate::gemm) const M_BLOCK: usize = 128;
/// Weight rows of a block.
const N_BLOCK: usize = 12;
/// Columns of a block: the widened weight takes 24 KiB, half of the first-level cache, and leaves the rest
/// to the activations and sums that pass.
const K_BLOCK: usize = 512;
/// Weight rows of a register tile: with four activation rows, 24 sums and their operands fill 32 registers.
const TILE_COLUMNS: usize = 6;

/// The widened weight of a block. `[N_BLOCK, K_BLOCK]`
type Weights = [f32; N_BLOCK * K_BLOCK];
/// The vectors of partial sums of a block. `[M_BLOCK, N_BLOCK, LANES]`
type Sums = [f32; M_BLOCK * N_BLOCK * LANES_MAX];

/// Floats of a block's working memory.
const SCRATCH_FLOATS: usize = N_BLOCK * K_BLOCK + M_BLOCK * N_BLOCK * LANES_MAX;

/// Computes the product.
pub(super) fn run<W: Element>(context: &CpuContext, product: &Product<'_, W>) {
    let n_blocks = product.n.div_ceil(N_BLOCK);
    let n_tasks = product.m.div_ceil(M_BLOCK) * n_blocks;
    context.for_each_with_scratch(n_tasks, SCRATCH_FLOATS, |scratch, task| {
        let (first_row, first_column) = (task / n_blocks * M_BLOCK, task % n_blocks * N_BLOCK);
        let (weights, sums) = scratch.split_at_mut(N_BLOCK * K_BLOCK);
        // Arrays, because the compiler knows their lengths in the loops below.
        let weights = weights.try_into().expect("it was cut to this length");
        let sums = sums.try_into().expect("it is as long as was requested");
        context.run(BlockTask {
            product,
            rows: first_row..(first_row + M_BLOCK).min(product.m),
            columns: first_column..(first_column + N_BLOCK).min(product.n),
            weights,
            sums,
        });
    });
}

/// One block of the result.
struct BlockTask<'a, W> {
    product: &'a Product<'a, W>,
    rows: Range<usize>,
    columns: Range<usize>,
    weights: &'a mut Weights,
    sums: &'a mut Sums,
}

impl<W: Element> SimdTask for BlockTask<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let mut first_k = 0;
        while first_k < self.product.k {
            let k_range = first_k..(first_k + K_BLOCK).min(self.product.k);
            self.widen(simd, k_range.clone());
            match S::TILE_ROWS {
                4 => self.all_rows::<S, 4>(simd, k_range),
                2 => self.all_rows::<S, 2>(simd, k_range),
                _ => self.all_rows::<S, 1>(simd, k_range),
            }
            first_k += K_BLOCK;
        }
        self.finish(simd);
    }
}

impl<W: Element> BlockTask<'_, W> {
    /// Widens the weight block's columns `k_range`, with the zeros that follow them up to full vectors. Rows of
    /// the scratch beyond the weight's last row keep what they had: their sums are never read.
    #[inline(always)]
    fn widen<S: Simd>(&mut self, simd: S, k_range: Range<usize>) {
        let n_steps = k_range.len().div_ceil(S::LANES);
        for (j, column) in self.columns.clone().enumerate() {
            let from = &self.product.weights(column)[k_range.start..];
            let to = &mut self.weights[j * K_BLOCK..(j + 1) * K_BLOCK];
            assert!(from.len() >= n_steps * S::LANES && to.len() >= n_steps * S::LANES);
            for step in 0..n_steps {
                // SAFETY: both are long enough, as asserted.
                unsafe {
                    let v = W::load(simd, from.as_ptr().add(step * S::LANES));
                    simd.store(to.as_mut_ptr().add(step * S::LANES), v);
                }
            }
        }
    }

    /// Adds the products of columns `k_range` to the sums of every row of the block.
    #[inline(always)]
    fn all_rows<S: Simd, const R: usize>(&mut self, simd: S, k_range: Range<usize>) {
        let n_rows = self.rows.len();
        let mut i = 0;
        while i + R <= n_rows {
            self.tile_row::<S, R>(simd, i, k_range.clone());
            i += R;
        }
        while i < n_rows {
            self.tile_row::<S, 1>(simd, i, k_range.clone());
            i += 1;
        }
    }

    /// The same for rows `i .. i + R` of the block.
    #[inline(always)]
    fn tile_row<S: Simd, const R: usize>(&mut self, simd: S, i: usize, k_range: Range<usize>) {
        let n_steps = k_range.len() / S::LANES;
        let whole = n_steps * S::LANES;
        let x: [&[f32]; R] =
            std::array::from_fn(|r| &self.product.x(self.rows.start + i + r)[k_range.clone()]);
        let mut tails = [[0.0; LANES_MAX]; R];
        for r in 0..R {
            tails[r][..x[r].len() - whole].copy_from_slice(&x[r][whole..]);
        }
        for j in (0..self.columns.len()).step_by(TILE_COLUMNS) {
            let (weights, sums) = (&*self.weights, &mut *self.sums);
            let w: [&[f32]; TILE_COLUMNS] = std::array::from_fn(|c| &weights[(j + c) * K_BLOCK..][..K_BLOCK]);
            let mut tile = [[simd.splat(0.0); TILE_COLUMNS]; R];
            if k_range.start > 0 {
                for r in 0..R {
                    for c in 0..TILE_COLUMNS {
                        tile[r][c] = simd.load_slice(&sums[sum_at(i + r, j + c)..]);
                    }
                }
            }
            // SAFETY: `x` has at least `whole` elements per row, and a row of the scratch K_BLOCK.
            unsafe {
                dot_tile(
                    simd,
                    DotRows {
                        x: x.map(<[f32]>::as_ptr),
                        w: w.map(<[f32]>::as_ptr),
                    },
                    n_steps,
                    &mut tile,
                )
            };
            if whole < k_range.len() {
                let tail: [*const f32; R] = std::array::from_fn(|r| tails[r].as_ptr());
                // SAFETY: `tails` has LANES_MAX elements per row; the scratch holds whole vectors.
                unsafe {
                    dot_tile(
                        simd,
                        DotRows {
                            x: tail,
                            w: w.map(|w| w.as_ptr().add(whole)),
                        },
                        1,
                        &mut tile,
                    )
                };
            }
            for r in 0..R {
                for c in 0..TILE_COLUMNS {
                    simd.store_slice(&mut sums[sum_at(i + r, j + c)..], tile[r][c]);
                }
            }
        }
    }

    /// Adds up the lanes and the bias, and writes the block.
    #[inline(always)]
    fn finish<S: Simd>(&self, simd: S) {
        let first = self.columns.start;
        for (i, row) in self.rows.clone().enumerate() {
            // SAFETY: no other task writes these columns of these rows.
            let y = unsafe { self.product.y(row, first, self.columns.len()) };
            let mut values = [0.0; N_BLOCK];
            for j in 0..self.columns.len() {
                let sum = simd.sum(simd.load_slice(&self.sums[sum_at(i, j)..]));
                values[j] = sum + self.product.bias(first + j);
            }
            self.product.then.write(y, |j| values[j]);
        }
    }
}

/// Where the vector of sums of row `i` and column `j` of a block is.
#[inline(always)]
fn sum_at(i: usize, j: usize) -> usize {
    (i * N_BLOCK + j) * LANES_MAX
}
