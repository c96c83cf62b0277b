//! Products with many rows: blocks of weight and activations that stay in the caches.
//!
//! For each block of [`M_BLOCK`] activation rows and [`N_BLOCK`] weight rows, [`K_BLOCK`] columns at a time:
//! the weight block is widened to f32 once and stays in the first-level cache while all activation rows
//! pass; the partial sums of every element wait as whole vectors, so blocking changes no order.

use super::Shape;
use crate::CpuContext;
use crate::disjoint::DisjointMut;
use crate::simd::{Element, LANES_MAX, Simd, SimdTask, dot_tile};

/// Operands of a product.
pub(super) struct Operands<'a, W> {
    pub(super) shape: Shape,
    pub(super) x: &'a [f32],
    pub(super) rows: &'a [W],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) y: &'a mut [f32],
}

/// Activation rows of a block: its sums take 64 KiB of the second-level cache, and widening the weight is
/// a few percent of the work.
pub(super) const M_BLOCK: usize = 64;
/// Weight rows of a block.
const N_BLOCK: usize = 16;
/// Columns of a block: the widened weight takes 32 KiB, most of the first-level cache.
const K_BLOCK: usize = 512;
/// Weight rows of a register tile.
const TILE_COLUMNS: usize = 4;

/// Computes the product.
pub(super) fn run<W: Element>(context: &CpuContext, operands: Operands<'_, W>) {
    let Operands {
        shape,
        x,
        rows,
        bias,
        y,
    } = operands;
    let m = x.len() / shape.k;
    let n_blocks = shape.n.div_ceil(N_BLOCK);
    let y = DisjointMut::new(y);
    context.for_each(m.div_ceil(M_BLOCK) * n_blocks, |task| {
        let (first_row, first_column) = (task / n_blocks * M_BLOCK, task % n_blocks * N_BLOCK);
        context.run(BlockTask {
            shape,
            x,
            weights: rows,
            bias,
            y: &y,
            rows: first_row..(first_row + M_BLOCK).min(m),
            columns: first_column..(first_column + N_BLOCK).min(shape.n),
        });
    });
}

/// One block of the result.
struct BlockTask<'a, W> {
    shape: Shape,
    x: &'a [f32],
    weights: &'a [W],
    bias: Option<&'a [f32]>,
    y: &'a DisjointMut<'a>,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
}

/// A block's working memory; aligned so that vectors do not straddle cache lines.
#[repr(C, align(64))]
struct Scratch {
    /// The widened weight. `[N_BLOCK, K_BLOCK]`
    weights: [f32; N_BLOCK * K_BLOCK],
    /// The vectors of partial sums. `[M_BLOCK, N_BLOCK, LANES]`
    sums: [f32; M_BLOCK * N_BLOCK * LANES_MAX],
}

impl<W: Element> SimdTask for BlockTask<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let mut scratch = Box::new(Scratch {
            weights: [0.0; N_BLOCK * K_BLOCK],
            sums: [0.0; M_BLOCK * N_BLOCK * LANES_MAX],
        });
        let mut first_k = 0;
        while first_k < self.shape.k {
            let k_range = first_k..(first_k + K_BLOCK).min(self.shape.k);
            widen(simd, &self, k_range.clone(), &mut scratch.weights);
            match S::TILE_ROWS {
                4 => all_rows::<S, W, 4>(simd, &self, k_range, &mut scratch),
                2 => all_rows::<S, W, 2>(simd, &self, k_range, &mut scratch),
                _ => all_rows::<S, W, 1>(simd, &self, k_range, &mut scratch),
            }
            first_k += K_BLOCK;
        }
        finish(simd, &self, &scratch.sums);
    }
}

/// Widens the weight block's columns `k_range`, zeros behind them up to whole vectors included.
#[inline(always)]
fn widen<S: Simd, W: Element>(
    simd: S,
    task: &BlockTask<'_, W>,
    k_range: std::ops::Range<usize>,
    to: &mut [f32; N_BLOCK * K_BLOCK],
) {
    let n_steps = k_range.len().div_ceil(S::LANES);
    for (j, column) in task.columns.clone().enumerate() {
        let from = &task.weights[column * task.shape.row_stride..][..task.shape.row_stride][k_range.start..];
        assert!(from.len() >= n_steps * S::LANES && n_steps * S::LANES <= K_BLOCK);
        for step in 0..n_steps {
            // SAFETY: both are long enough (asserted above; row j of `to` starts at j * K_BLOCK, j < N_BLOCK).
            unsafe {
                let v = W::load(simd, from.as_ptr().add(step * S::LANES));
                simd.store(to.as_mut_ptr().add(j * K_BLOCK + step * S::LANES), v);
            }
        }
    }
}

/// Adds the products of columns `k_range` to the sums of every row of the block.
#[inline(always)]
fn all_rows<S: Simd, W: Element, const R: usize>(
    simd: S,
    task: &BlockTask<'_, W>,
    k_range: std::ops::Range<usize>,
    scratch: &mut Scratch,
) {
    let n_rows = task.rows.len();
    let mut i = 0;
    while i < n_rows {
        if i + R <= n_rows {
            tile_row::<S, W, R>(simd, task, (i, k_range.clone()), scratch);
            i += R;
        } else {
            tile_row::<S, W, 1>(simd, task, (i, k_range.clone()), scratch);
            i += 1;
        }
    }
}

/// The same for rows `i .. i + R` of the block.
#[inline(always)]
fn tile_row<S: Simd, W: Element, const R: usize>(
    simd: S,
    task: &BlockTask<'_, W>,
    (i, k_range): (usize, std::ops::Range<usize>),
    scratch: &mut Scratch,
) {
    let k = task.shape.k;
    let n_steps = k_range.len() / S::LANES;
    let whole = n_steps * S::LANES;
    let x: [&[f32]; R] =
        std::array::from_fn(|r| &task.x[(task.rows.start + i + r) * k..][..k][k_range.clone()]);
    let mut tails = [[0.0; LANES_MAX]; R];
    for r in 0..R {
        tails[r][..x[r].len() - whole].copy_from_slice(&x[r][whole..]);
    }
    for j in (0..task.columns.len()).step_by(TILE_COLUMNS) {
        let w: [&[f32]; TILE_COLUMNS] =
            std::array::from_fn(|c| &scratch.weights[(j + c) * K_BLOCK..][..K_BLOCK]);
        let sums = &mut scratch.sums;
        let at = |r: usize, c: usize| ((i + r) * N_BLOCK + j + c) * LANES_MAX;
        let mut tile: [[S::V; TILE_COLUMNS]; R] =
            std::array::from_fn(|r| std::array::from_fn(|c| simd.load_slice(&sums[at(r, c)..])));
        // SAFETY: `x` has at least `whole` elements per row, and a row of the scratch K_BLOCK.
        unsafe {
            dot_tile(
                simd,
                (x.map(<[f32]>::as_ptr), w.map(<[f32]>::as_ptr)),
                n_steps,
                &mut tile,
            )
        };
        if whole < k_range.len() {
            let tail: [*const f32; R] = std::array::from_fn(|r| tails[r].as_ptr());
            // SAFETY: `tails` has LANES_MAX elements per row; the scratch holds whole vectors (see `widen`).
            unsafe { dot_tile(simd, (tail, w.map(|w| w.as_ptr().add(whole))), 1, &mut tile) };
        }
        for (r, row) in tile.into_iter().enumerate() {
            for (c, sum) in row.into_iter().enumerate() {
                simd.store_slice(&mut sums[at(r, c)..], sum);
            }
        }
    }
}

/// Adds up the lanes and the bias, and writes the block.
#[inline(always)]
fn finish<S: Simd, W: Element>(simd: S, task: &BlockTask<'_, W>, sums: &[f32]) {
    for (i, row) in task.rows.clone().enumerate() {
        // SAFETY: no other task writes these columns of these rows.
        let y = unsafe {
            task.y
                .part(row * task.shape.n + task.columns.start, task.columns.len())
        };
        for (j, y) in y.iter_mut().enumerate() {
            let sum = simd.sum(simd.load_slice(&sums[(i * N_BLOCK + j) * LANES_MAX..]));
            *y = sum + task.bias.map_or(0.0, |bias| bias[task.columns.start + j]);
        }
    }
}
