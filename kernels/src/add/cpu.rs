//! The sum on the CPU, by the calling thread.

use crate::cpu::context::CpuContext;
use crate::cpu::simd::{Simd, SimdTask};

pub(super) fn run(context: &CpuContext, x: &mut [f32], scale: f32, y: &[f32]) {
    context.run(Add { x, scale, y });
}

/// The whole sum; it is over before another thread would have woken up.
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
