//! Products with one to four rows: the weight streams past once, several rows of it at a time.

use super::Shape;
use crate::CpuContext;
use crate::disjoint::DisjointMut;
use crate::simd::{Element, Simd, SimdTask, dot_tile};

/// Operands of a product with at most four rows.
pub(super) struct Operands<'a, W> {
    pub(super) shape: Shape,
    pub(super) x: &'a [f32],
    pub(super) rows: &'a [W],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) y: &'a mut [f32],
}

/// Elements of the weight that are worth a task of their own (about 20 µs of one core).
const TASK_ELEMENTS: usize = 1 << 18;

/// Weight rows that are read side by side when there is one row of activations; several streams keep the
/// memory controller busier than one.
const STREAMS: usize = 8;

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
    let n_per_task = (TASK_ELEMENTS / shape.k).max(1).next_multiple_of(STREAMS);
    let y = DisjointMut::new(y);
    context.for_each(shape.n.div_ceil(n_per_task), |task| {
        let first = task * n_per_task;
        let columns = first..(first + n_per_task).min(shape.n);
        let part = Part {
            shape,
            x,
            rows,
            bias,
            y: &y,
            columns,
        };
        match m {
            0 => {}
            1 => context.run(ThinTask::<'_, W, 1>(part)),
            2 => context.run(ThinTask::<'_, W, 2>(part)),
            3 => context.run(ThinTask::<'_, W, 3>(part)),
            _ => context.run(ThinTask::<'_, W, 4>(part)),
        }
    });
}

/// The columns of the result that one task computes.
struct Part<'a, W> {
    shape: Shape,
    x: &'a [f32],
    rows: &'a [W],
    bias: Option<&'a [f32]>,
    y: &'a DisjointMut<'a>,
    columns: std::ops::Range<usize>,
}

/// A part for `M` rows of activations.
struct ThinTask<'a, W, const M: usize>(Part<'a, W>);

impl<W: Element, const M: usize> SimdTask for ThinTask<'_, W, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let part = self.0;
        let mut column = part.columns.start;
        if M == 1 {
            while column + STREAMS <= part.columns.end {
                columns::<S, W, M, STREAMS>(simd, &part, column);
                column += STREAMS;
            }
        }
        while column + 4 <= part.columns.end {
            columns::<S, W, M, 4>(simd, &part, column);
            column += 4;
        }
        while column < part.columns.end {
            columns::<S, W, M, 1>(simd, &part, column);
            column += 1;
        }
    }
}

/// The columns `column .. column + N` of the result, for all `M` rows.
#[inline(always)]
fn columns<S: Simd, W: Element, const M: usize, const N: usize>(simd: S, part: &Part<'_, W>, column: usize) {
    let Shape { k, row_stride, n } = part.shape;
    let n_steps = k / S::LANES;
    let whole = n_steps * S::LANES;
    let x: [&[f32]; M] = std::array::from_fn(|i| &part.x[i * k..(i + 1) * k]);
    let w: [&[W]; N] = std::array::from_fn(|j| &part.rows[(column + j) * row_stride..][..row_stride]);
    let mut sums = [[simd.splat(0.0); N]; M];
    // SAFETY: the slices of `x` have k elements and those of `w` row_stride ≥ k; n_steps whole vectors
    // are within both.
    unsafe {
        dot_tile(
            simd,
            (x.map(<[f32]>::as_ptr), w.map(<[W]>::as_ptr)),
            n_steps,
            &mut sums,
        )
    };
    if whole < k {
        let mut tail = [[0.0; crate::simd::LANES_MAX]; M];
        for i in 0..M {
            tail[i][..k - whole].copy_from_slice(&x[i][whole..]);
        }
        let tail: [*const f32; M] = std::array::from_fn(|i| tail[i].as_ptr());
        // SAFETY: `tail` has LANES_MAX elements; a row of the weight is readable to its stride, which is k
        // rounded up to whole vectors of any set.
        unsafe { dot_tile(simd, (tail, w.map(|w| w.as_ptr().add(whole))), 1, &mut sums) };
    }
    for (i, row) in sums.into_iter().enumerate() {
        // SAFETY: no other task writes these columns.
        let y = unsafe { part.y.part(i * n + column, N) };
        for (j, sum) in row.into_iter().enumerate() {
            y[j] = simd.sum(sum) + part.bias.map_or(0.0, |bias| bias[column + j]);
        }
    }
}
