//! Products with few rows: the weight streams past once, several rows of it at a time.

use std::ops::Range;

use super::Product;
use crate::cpu::context::CpuContext;
use crate::cpu::simd::{DotRows, Element, LANES_MAX, Simd, SimdTask, dot_tile};

/// Elements of the weight that are worth a task of their own (some tens of microseconds of one core, an estimate).
const TASK_ELEMENTS: usize = 1 << 18;

/// Weight rows that are read side by side when there is one row of activations; several streams keep the
/// memory controller busier than one.
const STREAMS: usize = 8;

/// Computes the product.
pub(super) fn run<W: Element>(context: &CpuContext, product: &Product<'_, W>) {
    let n_per_task = (TASK_ELEMENTS / product.k).max(1).next_multiple_of(STREAMS);
    context.for_each(product.n.div_ceil(n_per_task), |task| {
        let first = task * n_per_task;
        let columns = first..(first + n_per_task).min(product.n);
        context.run(Part { product, columns });
    });
}

/// The columns of the result that one task computes.
struct Part<'a, W> {
    product: &'a Product<'a, W>,
    columns: Range<usize>,
}

impl<W: Element> SimdTask for Part<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let m = self.product.m;
        let mut column = self.columns.start;
        while m == 1 && column + STREAMS <= self.columns.end {
            self.tile::<S, 1, STREAMS>(simd, 0, column);
            column += STREAMS;
        }
        while column + 4 <= self.columns.end {
            self.all_rows::<S, 4>(simd, m, column);
            column += 4;
        }
        while column < self.columns.end {
            self.all_rows::<S, 1>(simd, m, column);
            column += 1;
        }
    }
}

impl<W: Element> Part<'_, W> {
    /// The columns `column .. column + N` of the result; from the second group of rows on, the weight's
    /// rows come from a cache.
    #[inline(always)]
    fn all_rows<S: Simd, const N: usize>(&self, simd: S, m: usize, column: usize) {
        let mut row = 0;
        while row + 4 <= m {
            self.tile::<S, 4, N>(simd, row, column);
            row += 4;
        }
        match m - row {
            3 => self.tile::<S, 3, N>(simd, row, column),
            2 => self.tile::<S, 2, N>(simd, row, column),
            1 => self.tile::<S, 1, N>(simd, row, column),
            _ => {}
        }
    }

    /// The rows `row .. row + M` of the columns `column .. column + N`.
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const N: usize>(&self, simd: S, row: usize, column: usize) {
        let k = self.product.k;
        let n_steps = k / S::LANES;
        let whole = n_steps * S::LANES;
        let x: [&[f32]; M] = std::array::from_fn(|i| self.product.x(row + i));
        let w: [&[W]; N] = std::array::from_fn(|j| self.product.weights(column + j));
        let mut sums = [[simd.splat(0.0); N]; M];
        // SAFETY: the slices of `x` have k elements and those of `w` at least as many; n_steps full vectors
        // are within both.
        unsafe {
            dot_tile(
                simd,
                DotRows {
                    x: x.map(<[f32]>::as_ptr),
                    w: w.map(<[W]>::as_ptr),
                },
                n_steps,
                &mut sums,
            )
        };
        if whole < k {
            let mut tail = [[0.0; LANES_MAX]; M];
            for i in 0..M {
                tail[i][..k - whole].copy_from_slice(&x[i][whole..]);
            }
            let tail: [*const f32; M] = std::array::from_fn(|i| tail[i].as_ptr());
            // SAFETY: `tail` has LANES_MAX elements; a row of the weight is readable to its stride, which
            // is k rounded up to full vectors of any set.
            unsafe {
                dot_tile(
                    simd,
                    DotRows {
                        x: tail,
                        w: w.map(|w| w.as_ptr().add(whole)),
                    },
                    1,
                    &mut sums,
                )
            };
        }
        for i in 0..M {
            // SAFETY: no other task writes these columns.
            let y = unsafe { self.product.y(row + i, column, N) };
            let mut values = [0.0; N];
            for j in 0..N {
                values[j] = simd.sum(sums[i][j]) + self.product.bias(column + j);
            }
            self.product.then.write(y, |j| values[j]);
        }
    }
}
