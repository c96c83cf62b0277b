//! Products with factors on the CPU, by the calling thread: each is over before another would have woken up.

use crate::cpu::context::CpuContext;
use crate::cpu::simd::{Simd, SimdTask};

pub(super) fn scale(context: &CpuContext, x: &mut [f32], factor: f32) {
    context.run(Scale { x, factor });
}

pub(super) fn scale_columns(context: &CpuContext, x: &mut [f32], factors: &[f32]) {
    context.run(ScaleColumns { x, factors });
}

pub(super) fn scale_rows(context: &CpuContext, x: &mut [f32], factors: &[f32]) {
    for (x, &factor) in x.chunks_exact_mut(x.len() / factors.len()).zip(factors) {
        context.run(Scale { x, factor });
    }
}

pub(super) fn gate_rows(context: &CpuContext, x: &mut [f32], gates: &[f32]) {
    for (x, gate) in x.chunks_exact_mut(x.len() / gates.len()).zip(gates) {
        let factor = 1.0 / (1.0 + (-gate).exp());
        context.run(Scale { x, factor });
    }
}

/// Plain loops: compiled inside the chosen set's features, they become that set's vectors.
struct Scale<'a> {
    x: &'a mut [f32],
    factor: f32,
}

struct ScaleColumns<'a> {
    x: &'a mut [f32],
    factors: &'a [f32],
}

impl SimdTask for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        self.x.iter_mut().for_each(|x| *x *= self.factor);
    }
}

impl SimdTask for ScaleColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        for row in self.x.chunks_exact_mut(self.factors.len()) {
            row.iter_mut()
                .zip(self.factors)
                .for_each(|(x, factor)| *x *= factor);
        }
    }
}
