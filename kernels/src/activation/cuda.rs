//! Activation functions on the device.

use super::Activation;
use crate::cuda::{Arg, Gpu, View};
use crate::error::{Contract, KernelError};

/// An activation function as kernels read it: its number in `activation.cuh`, and its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ActivationArgs {
    /// Number of the function.
    pub(crate) kind: i32,
    /// Parameters, in the order of the fields; what a function lacks is 0.
    pub(crate) parameters: [f32; 3],
}

impl Activation {
    /// How kernels read it.
    pub(crate) fn args(self) -> ActivationArgs {
        let (kind, parameters) = match self {
            Activation::Silu => (0, [0.0; 3]),
            Activation::Gelu => (1, [0.0; 3]),
            Activation::GeluTanh => (2, [0.0; 3]),
            Activation::Relu => (3, [0.0; 3]),
            Activation::SquaredRelu => (4, [0.0; 3]),
            Activation::ClampedSwiglu { limit } => (5, [limit, 0.0, 0.0]),
            Activation::Xielu {
                alpha_p,
                alpha_n,
                beta,
            } => (6, [alpha_p, alpha_n, beta]),
        };
        ActivationArgs { kind, parameters }
    }
}

/// `x[i] = act(x[i])`, in place.
///
/// # Errors
/// The device fails.
pub fn activate(gpu: &Gpu, activation: Activation, x: View<f32>) -> Result<(), KernelError> {
    let ActivationArgs { kind, parameters } = activation.args();
    let [a, b, c] = parameters.map(Arg::F32);
    Ok(gpu.launch_elements(
        "activate",
        x.len(),
        &[x.into(), Arg::U32(x.len() as u32), Arg::I32(kind), a, b, c],
    )?)
}

/// `x[i] = xielu(x[i])` with the raw parameters `[alpha_p, alpha_n, beta]` that the device holds:
/// `softplus(curve[0])`, `curve[2] + softplus(curve[1])` and `curve[2]` are those of [`Activation::Xielu`].
///
/// # Errors
/// `curve` has not three numbers, or the device fails.
pub fn xielu(gpu: &Gpu, x: View<f32>, curve: View<f32>) -> Result<(), KernelError> {
    Contract("xielu").len("curve", curve.len(), 3)?;
    Ok(gpu.launch_elements(
        "xielu",
        x.len(),
        &[x.into(), Arg::U32(x.len() as u32), curve.into()],
    )?)
}

/// Operands of [`activate_gated`], as the CPU's.
#[derive(Clone, Copy, Debug)]
pub struct ActivateGated {
    /// The activation function.
    pub activation: Activation,
    /// Gates, then ups. `[m, 2 * width]`
    pub gate_up: View<f32>,
    /// Elements of a row of the result.
    pub width: usize,
    /// Result. `[m, width]`
    pub out: View<f32>,
}

/// `out[i, j] = act(gate_up[i, j]) · gate_up[i, width + j]`; `m` may be zero.
///
/// # Errors
/// `width` is zero, the lengths do not agree, or the device fails.
pub fn activate_gated(gpu: &Gpu, op: ActivateGated) -> Result<(), KernelError> {
    let ActivateGated {
        gate_up, width, out, ..
    } = op;
    super::check_gated(width, gate_up.len(), out.len())?;
    let ActivationArgs { kind, parameters } = op.activation.args();
    let [a, b, c] = parameters.map(Arg::F32);
    let args = [
        gate_up.into(),
        out.into(),
        Arg::U32(out.len() as u32),
        Arg::size(width),
        Arg::I32(kind),
        a,
        b,
        c,
    ];
    Ok(gpu.launch_elements("activate_gated", out.len(), &args)?)
}
