//! The sum on the CPU, by the calling thread.

use super::AddRows;
use crate::cpu::context::CpuContext;
use crate::cpu::simd::{Simd, SimdTask};

pub(super) fn run(context: &CpuContext, x: &mut [f32], scale: f32, y: &[f32]) {
    context.run(Add { x, scale, y });
}

pub(super) fn run_rows(context: &CpuContext, op: AddRows<'_>) {
    let AddRows { x, rows, weights, y } = op;
    let d = y.len() / rows.len();
    for (i, (&row, y)) in rows.iter().zip(y.chunks_exact(d)).enumerate() {
        let scale = weights.map_or(1.0, |weights| weights[i]);
        let x = &mut x[row as usize * d..][..d];
        context.run(Add { x, scale, y });
    }
}

/// All elements by one thread: the sum is done before another one would have woken up.
struct Add<'a> {
    x: &'a mut [f32],
    scale: f32,
    y: &'a [f32],
}

impl SimdTask for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        // A plain loop: compiled inside the chosen set's features, it becomes that set's vectors.
        for (x, y) in self.x.iter_mut().zip(self.y) {
            *x += self.scale * y;
        }
    }
}
