//! Activation functions, alone and gated: `act(x)`, and `act(gate) · up`.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::cpu::context::CpuContext;
use crate::error::{Contract, KernelError};

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
    /// `alpha_p x² + beta x` above zero, `alpha_n (e^x - 1 - x) + beta x` below (Huang and Schlag 2024, "xIELU").
    Xielu {
        /// Curvature above zero.
        alpha_p: f32,
        /// Curvature below zero.
        alpha_n: f32,
        /// Slope at zero.
        beta: f32,
    },
}

/// `x[i] = act(x[i])`, in place. The error is below `6 ulp + 2e-7 · |x|`, and
/// of [`Activation::Xielu`] below `6 ulp + 2e-7 · (|x| + alpha_n)`.
pub fn activate(context: &CpuContext, activation: Activation, x: &mut [f32]) {
    cpu::activate(context, activation, x);
}

/// Operands of [`activate_gated`].
pub struct ActivateGated<'a> {
    /// The activation function.
    pub activation: Activation,
    /// Gates, then ups. `[m, 2 * width]`
    pub gate_up: &'a [f32],
    /// Elements of a row of the result.
    pub width: usize,
    /// Result. `[m, width]`
    pub out: &'a mut [f32],
}

/// `out[i, j] = act(gate_up[i, j]) · gate_up[i, width + j]`; `m` may be zero.
///
/// The error is below `(6 ulp + 2e-7 · |gate|) · |up|`.
///
/// # Errors
/// `width` is zero, or the lengths do not agree.
pub fn activate_gated(context: &CpuContext, op: ActivateGated<'_>) -> Result<(), KernelError> {
    check_gated(op.width, op.gate_up.len(), op.out.len())?;
    cpu::activate_gated(context, op);
    Ok(())
}

/// Checks the elements of gates with ups, and of the result.
fn check_gated(width: usize, gate_up: usize, out: usize) -> Result<(), KernelError> {
    Contract("activate_gated").range(width > 0, "width", width, "at least 1")?;
    let m = out / width;
    Contract("activate_gated").len("out", out, m * width)?;
    Contract("activate_gated").len("gate_up", gate_up, 2 * m * width)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::cpu::isa::Isa;

    const ALL: [Activation; 7] = [
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::Relu,
        Activation::SquaredRelu,
        Activation::ClampedSwiglu { limit: 7.0 },
        Activation::Xielu {
            alpha_p: 0.8,
            alpha_n: 1.3,
            beta: 0.5,
        },
    ];

    fn run_gated(
        context: &CpuContext,
        activation: Activation,
        (gate_up, width): (&[f32], usize),
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let op = ActivateGated {
            activation,
            gate_up,
            width,
            out,
        };
        activate_gated(context, op)
    }

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

    pub(crate) fn reference(activation: Activation, gate: f64, up: f64) -> f64 {
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
            Activation::Xielu {
                alpha_p,
                alpha_n,
                beta,
            } => {
                let curve = if gate > 0.0 {
                    f64::from(alpha_p) * gate * gate
                } else {
                    f64::from(alpha_n) * (gate.exp_m1() - gate)
                };
                (curve + f64::from(beta) * gate) * up
            }
        }
    }

    fn check(activation: Activation, got: f32, gate: f32, up: f32) {
        let (gate, up) = (f64::from(gate), f64::from(up));
        let want = reference(activation, gate, up);
        let size = match activation {
            Activation::Xielu { alpha_n, .. } => gate.abs() + f64::from(alpha_n),
            _ => gate.abs(),
        };
        let tolerance = 6.0 * f64::from(f32::EPSILON) * want.abs() + 2e-7 * size * up.abs();
        assert!(
            (f64::from(got) - want).abs() <= tolerance,
            "{activation:?} {gate} {up}: {got}, not {want}"
        );
    }

    /// Compares what was made of gates and ups.
    fn check_all(activation: Activation, (gate_up, width): (&[f32], usize), out: &[f32]) {
        for (i, &got) in out.iter().enumerate() {
            let at = i / width * 2 * width + i % width;
            check(activation, got, gate_up[at], gate_up[at + width]);
        }
    }

    fn gates_and_ups(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i % 61) as f32 * 0.7 - 20.0).collect()
    }

    #[test]
    fn agrees_with_wide_arithmetic_on_every_path() {
        for (isa, activation) in Isa::available()
            .into_iter()
            .flat_map(|isa| ALL.map(|activation| (isa, activation)))
        {
            let context = CpuContext::with_isa(2, isa).unwrap();
            for (m, width) in [(0, 3), (1, 1), (3, 16), (5, 37), (40, 4000)] {
                let gate_up = gates_and_ups(2 * m * width);
                let mut out = vec![f32::NAN; m * width];
                run_gated(&context, activation, (&gate_up, width), &mut out).unwrap();
                check_all(activation, (&gate_up, width), &out);
                let mut x = gate_up.clone();
                activate(&context, activation, &mut x);
                for (&got, &before) in x.iter().zip(&gate_up) {
                    check(activation, got, before, 1.0);
                }
            }
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_device_agrees_with_wide_arithmetic() {
        use crate::cuda::testing::{downloaded, each_order, uploaded};
        each_order(|gpu| {
            for activation in ALL {
                for (m, width) in [(0, 3), (1, 1), (3, 16), (5, 37), (3, 400)] {
                    let gate_up = gates_and_ups(2 * m * width);
                    let on_device = uploaded(gpu, &gate_up);
                    let out = gpu.alloc(m * width).unwrap();
                    let op = cuda::ActivateGated {
                        activation,
                        gate_up: on_device.view(),
                        width,
                        out: out.view(),
                    };
                    cuda::activate_gated(gpu, op).unwrap();
                    check_all(activation, (&gate_up, width), &downloaded(gpu, out.view()));
                    cuda::activate(gpu, activation, on_device.view()).unwrap();
                    for (got, before) in downloaded(gpu, on_device.view()).into_iter().zip(gate_up) {
                        check(activation, got, before, 1.0);
                    }
                }
            }
        });
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_device_reads_the_curve_of_xielu() {
        use crate::cuda::testing::{downloaded, each_order, uploaded};
        each_order(|gpu| {
            let before = gates_and_ups(100);
            let (x, curve) = (uploaded(gpu, &before), uploaded(gpu, &[0.3, -0.7, 0.5]));
            cuda::xielu(gpu, x.view(), curve.view()).unwrap();
            let softplus = |x: f32| x.exp().ln_1p();
            let activation = Activation::Xielu {
                alpha_p: softplus(0.3),
                alpha_n: 0.5 + softplus(-0.7),
                beta: 0.5,
            };
            for (got, before) in downloaded(gpu, x.view()).into_iter().zip(before) {
                check(activation, got, before, 1.0);
            }
            assert!(cuda::xielu(gpu, x.view(), curve.view().range(0..2)).is_err());
        });
    }

    #[test]
    fn far_gates_saturate() {
        for (isa, activation) in Isa::available().into_iter().flat_map(|isa| {
            [Activation::Silu, Activation::Gelu, Activation::GeluTanh].map(|activation| (isa, activation))
        }) {
            let context = CpuContext::with_isa(1, isa).unwrap();
            let mut out = [f32::NAN; 2];
            run_gated(&context, activation, (&[-1e4, 1e4, 1.0, 1.0], 2), &mut out).unwrap();
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
            assert!(run_gated(&context, Activation::Silu, (gate_up, width), &mut out).is_err());
        }
    }
}
