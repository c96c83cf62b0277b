//! Activation functions, alone and gated: `act(x)`, and `act(gate) · up`.

use crate::disjoint::DisjointMut;
use crate::error::{check_len, check_range};
use crate::simd::{Simd, SimdTask};
use crate::{CpuContext, KernelError};

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `x / (1 + e^-x)`, also called swish.
    Silu,
    /// `x · Φ(x)` with the normal distribution's Φ (Hendrycks and Gimpel 2016).
    Gelu,
    /// Its approximation `x / (1 + e^(-2u))`, `u = √(2/π) · (x + 0.044715 x³)`.
    GeluTanh,
    /// `max(x, 0)`
    Relu,
    /// `max(x, 0)²`
    SquaredRelu,
    /// GPT-OSS's, which is always gated: `(up + 1) · gate / (1 + e^(-1.702 gate))` of a gate clamped from
    /// above and an up clamped on both sides.
    ClampedSwiglu {
        /// Where they are clamped.
        limit: f32,
    },
}

/// `x[i] = act(x[i])`, in place. The error is below `6 ulp + 2e-7 · |x|`.
pub fn activate(context: &CpuContext, activation: Activation, x: &mut [f32]) {
    let n = x.len();
    let x = DisjointMut::new(x);
    context.for_each(n.div_ceil(TASK_ELEMENTS), |task| {
        let at = task * TASK_ELEMENTS;
        // SAFETY: no other task writes these elements.
        let x = unsafe { x.part(at, TASK_ELEMENTS.min(n - at)) };
        context.run(Plain { activation, x });
    });
}

/// `out[i, j] = act(gate_up[i, j]) · gate_up[i, width + j]`.
///
/// `gate_up` is `[m, 2 * width]`, gates first, and `out` is `[m, width]`; `m` may be zero. The error is
/// below `(6 ulp + 2e-7 · |gate|) · |up|`.
///
/// # Errors
/// `width` is zero, or the lengths do not agree.
pub fn activate_gated(
    context: &CpuContext,
    activation: Activation,
    gate_up: &[f32],
    width: usize,
    out: &mut [f32],
) -> Result<(), KernelError> {
    check_range(width > 0, "activate_gated", ("width", width), "at least 1")?;
    let m = out.len() / width;
    check_len("activate_gated", "out", out.len(), m * width)?;
    check_len("activate_gated", "gate_up", gate_up.len(), 2 * m * width)?;
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
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    const ALL: [Activation; 6] = [
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::SquaredRelu,
        Activation::ClampedSwiglu { limit: 7.0 },
    ];

    /// erf by its Taylor series, and by one minus nothing where that is far.
    fn erf(z: f64) -> f64 {
        if z.abs() > 5.0 {
            return z.signum();
        }
        let mut term = z;
        let mut sum = z;
        for n in 1..200 {
            term *= -z * z / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    }

    fn reference(activation: Activation, gate: f64, up: f64) -> f64 {
        match activation {
            Activation::Silu => gate / (1.0 + (-gate).exp()) * up,
            Activation::Gelu => gate * 0.5 * (1.0 + erf(gate / 2.0_f64.sqrt())) * up,
            Activation::GeluTanh => {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044_715 * gate.powi(3));
                gate * 0.5 * (1.0 + u.tanh()) * up
            }
            Activation::Relu => gate.max(0.0) * up,
            Activation::SquaredRelu => gate.max(0.0).powi(2) * up,
            Activation::ClampedSwiglu { limit } => {
                let limit = f64::from(limit);
                let (gate, up) = (gate.min(limit), up.clamp(-limit, limit));
                (up + 1.0) * gate / (1.0 + (-1.702 * gate).exp())
            }
        }
    }

    #[test]
    fn agrees_with_wide_arithmetic_on_every_path() {
        for (isa, activation) in Isa::available()
            .into_iter()
            .flat_map(|isa| ALL.map(|activation| (isa, activation)))
        {
            let context = CpuContext::with_isa(2, isa).unwrap();
            let check = |got: f32, gate: f32, up: f32| {
                let (gate, up) = (f64::from(gate), f64::from(up));
                let want = reference(activation, gate, up);
                let tolerance = 6.0 * f64::from(f32::EPSILON) * want.abs() + 2e-7 * (gate * up).abs();
                assert!(
                    (f64::from(got) - want).abs() <= tolerance,
                    "{isa:?} {activation:?} {gate} {up}: {got}, not {want}"
                );
            };
            for (m, width) in [(0, 3), (1, 1), (3, 16), (5, 37), (40, 4000)] {
                let gate_up: Vec<f32> = (0..2 * m * width).map(|i| (i % 61) as f32 * 0.7 - 20.0).collect();
                let mut out = vec![f32::NAN; m * width];
                activate_gated(&context, activation, &gate_up, width, &mut out).unwrap();
                for (i, &got) in out.iter().enumerate() {
                    let at = i / width * 2 * width + i % width;
                    check(got, gate_up[at], gate_up[at + width]);
                }
                let mut x = gate_up.clone();
                activate(&context, activation, &mut x);
                for (&got, &before) in x.iter().zip(&gate_up) {
                    check(got, before, 1.0);
                }
            }
        }
    }

    #[test]
    fn far_gates_saturate() {
        for (isa, activation) in Isa::available().into_iter().flat_map(|isa| {
            [Activation::Silu, Activation::Gelu, Activation::GeluTanh].map(|activation| (isa, activation))
        }) {
            let context = CpuContext::with_isa(1, isa).unwrap();
            let mut out = [f32::NAN; 2];
            activate_gated(&context, activation, &[-1e4, 1e4, 1.0, 1.0], 2, &mut out).unwrap();
            assert!(
                out[0].abs() < 1e-30 && out[1] == 1e4,
                "{isa:?} {activation:?} {out:?}"
            );
        }
    }

    #[test]
    fn refuses_lengths_that_disagree() {
        let context = CpuContext::new(1).unwrap();
        for (gate_up, width, n_out) in [(&[0.0; 4][..], 0, 0), (&[0.0; 4], 2, 3), (&[0.0; 5], 2, 2)] {
            let mut out = vec![0.0; n_out];
            assert!(activate_gated(&context, Activation::Silu, gate_up, width, &mut out).is_err());
        }
    }
}
