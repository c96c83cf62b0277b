//! Activation functions on the CPU, in vectors.

use super::{ActivateGated, Activation};
use crate::cpu::context::CpuContext;
use crate::cpu::disjoint::DisjointMut;
use crate::cpu::simd::{Simd, SimdTask};

pub(super) fn activate(context: &CpuContext, activation: Activation, x: &mut [f32]) {
    let n = x.len();
    let x = DisjointMut::new(x);
    context.for_each(n.div_ceil(TASK_ELEMENTS), |task| {
        let at = task * TASK_ELEMENTS;
        // SAFETY: no other task writes these elements.
        let x = unsafe { x.part(at, TASK_ELEMENTS.min(n - at)) };
        context.run(Plain { activation, x });
    });
}

pub(super) fn activate_gated(context: &CpuContext, op: ActivateGated<'_>) {
    let ActivateGated {
        activation,
        gate_up,
        width,
        out,
    } = op;
    let m = out.len() / width;
    let out = DisjointMut::new(out);
    let rows_per_task = (TASK_ELEMENTS / width).max(1);
    context.for_each(m.div_ceil(rows_per_task), |task| {
        let rows = task * rows_per_task..((task + 1) * rows_per_task).min(m);
        // SAFETY: no other task writes these rows.
        let out = unsafe { out.part(rows.start * width, rows.len() * width) };
        context.run(Gated {
            activation,
            gate_up: &gate_up[rows.start * 2 * width..rows.end * 2 * width],
            width,
            out,
        });
    });
}

/// Elements worth a task of their own (some tens of microseconds of one core, an estimate).
const TASK_ELEMENTS: usize = 1 << 16;

/// Some elements.
struct Plain<'a> {
    activation: Activation,
    x: &'a mut [f32],
}

/// Some rows of gates and ups.
struct Gated<'a> {
    activation: Activation,
    gate_up: &'a [f32],
    width: usize,
    out: &'a mut [f32],
}

impl SimdTask for Plain<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let one = simd.splat(1.0);
        for x in self.x.chunks_mut(S::LANES) {
            let v = activated(simd, self.activation, simd.load_partial(x), one);
            simd.store_partial(x, v);
        }
    }
}

impl SimdTask for Gated<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (row, out) in self
            .gate_up
            .chunks_exact(2 * self.width)
            .zip(self.out.chunks_exact_mut(self.width))
        {
            let (gate, up) = row.split_at(self.width);
            let whole = self.width - self.width % S::LANES;
            for at in (0..whole).step_by(S::LANES) {
                let (gate, up) = (simd.load_slice(&gate[at..]), simd.load_slice(&up[at..]));
                simd.store_slice(&mut out[at..], activated(simd, self.activation, gate, up));
            }
            let (gate, up) = (simd.load_partial(&gate[whole..]), simd.load_partial(&up[whole..]));
            simd.store_partial(&mut out[whole..], activated(simd, self.activation, gate, up));
        }
    }
}

/// `act(gate) · up`
#[inline(always)]
fn activated<S: Simd>(simd: S, activation: Activation, gate: S::V, up: S::V) -> S::V {
    let zero = simd.splat(0.0);
    match activation {
        Activation::Silu => simd.mul(over_one_plus_exp(simd, gate, simd.sub(zero, gate)), up),
        Activation::Gelu => simd.mul(gelu(simd, gate), up),
        Activation::GeluTanh => {
            let cubic = simd.mul(simd.mul(gate, gate), gate);
            let u = simd.mul_add(cubic, simd.splat(0.044_715), gate);
            let exponent = simd.mul(u, simd.splat(-2.0 * SQRT_2_OVER_PI));
            simd.mul(over_one_plus_exp(simd, gate, exponent), up)
        }
        Activation::Relu => simd.mul(simd.max(gate, zero), up),
        Activation::SquaredRelu => {
            let kept = simd.max(gate, zero);
            simd.mul(simd.mul(kept, kept), up)
        }
        Activation::ClampedSwiglu { limit } => {
            let limit = simd.splat(limit);
            let gate = simd.min(gate, limit);
            let up = simd.max(simd.min(up, limit), simd.sub(zero, limit));
            let exponent = simd.mul(gate, simd.splat(-1.702));
            let gated = over_one_plus_exp(simd, gate, exponent);
            simd.mul(simd.add(up, simd.splat(1.0)), gated)
        }
        Activation::Xielu {
            alpha_p,
            alpha_n,
            beta,
        } => {
            // One of the halves is zero, and with it its curve.
            let (above, below) = (simd.max(gate, zero), simd.min(gate, zero));
            let bent = simd.sub(simd.sub(simd.exp(below), simd.splat(1.0)), below);
            let curve = simd.mul_add(bent, simd.splat(alpha_n), simd.mul(gate, simd.splat(beta)));
            let curve = simd.mul_add(simd.mul(above, above), simd.splat(alpha_p), curve);
            simd.mul(curve, up)
        }
    }
}

/// `x / (1 + e^exponent)`
#[inline(always)]
fn over_one_plus_exp<S: Simd>(simd: S, x: S::V, exponent: S::V) -> S::V {
    simd.div(x, simd.add(simd.splat(1.0), simd.exp(exponent)))
}

/// `x · Φ(x) = x/2 · (1 + erf(x/√2))`, with erf after Abramowitz and Stegun, formula 7.1.26, whose error is
/// below 1.5e-7: for `z = |x|/√2`, `1 - erf(z) = (a₁t + … + a₅t⁵) · e^(-z²)`, `t = 1 / (1 + 0.3275911 z)`.
#[inline(always)]
fn gelu<S: Simd>(simd: S, x: S::V) -> S::V {
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    let size = simd.max(x, simd.sub(zero, x));
    let z = simd.mul(size, simd.splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = simd.div(one, simd.mul_add(z, simd.splat(0.327_591_1), one));
    let mut p = simd.splat(1.061_405_4);
    for coefficient in [-1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6] {
        p = simd.mul_add(p, t, simd.splat(coefficient));
    }
    let tail = simd.mul(simd.mul(p, t), simd.exp(simd.sub(zero, simd.mul(z, z))));
    // x/2 · (1 ± erf(z)) without a case: max(x, 0) - |x|/2 · tail.
    let half_tail = simd.mul(simd.mul(size, simd.splat(0.5)), tail);
    simd.sub(simd.max(x, zero), half_tail)
}

/// `√(2/π)`
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
