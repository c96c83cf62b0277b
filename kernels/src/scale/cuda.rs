//! Products with factors on the device.

use crate::cuda::{Arg, Gpu, Launch, Overlap, View};
use crate::error::{Contract, KernelError};
use crate::weight::{DType, Matrix};

/// `x *= factor`
///
/// # Errors
/// The device fails.
pub fn scale(gpu: &Gpu, x: View<f32>, factor: f32) -> Result<(), KernelError> {
    Ok(gpu.launch_elements(
        "scale",
        x.len(),
        &[x.into(), Arg::U32(x.len() as u32), Arg::F32(factor)],
    )?)
}

/// `x *= factor[0]`, a number that the device holds; 1 if `factor` is empty.
///
/// # Errors
/// The device fails.
pub fn multiply(gpu: &Gpu, x: View<f32>, factor: View<f32>) -> Result<(), KernelError> {
    if factor.is_empty() {
        return Ok(());
    }
    Ok(gpu.launch_elements(
        "multiply",
        x.len(),
        &[x.into(), Arg::U32(x.len() as u32), factor.into()],
    )?)
}

/// `x[i, j] *= factors[j]`; `x` is `[m, factors.len()]`.
///
/// # Errors
/// There are no factors, `x` is not whole rows of them, or the device fails.
pub fn scale_columns(gpu: &Gpu, x: View<f32>, factors: View<f32>) -> Result<(), KernelError> {
    let n = factors.len();
    Contract("scale_columns").range(n > 0, "factors", n, "at least 1")?;
    Contract("scale_columns").len("x", x.len(), x.len() / n * n)?;
    Ok(gpu.launch_elements(
        "scale_columns",
        x.len(),
        &[x.into(), Arg::U32(x.len() as u32), factors.into(), Arg::size(n)],
    )?)
}

/// `x[i, j] *= 1 / (1 + e^-gates[i])`; `x` is `[gates.len(), d]`.
///
/// # Errors
/// `x` is not the same number of elements for each gate, or the device fails.
pub fn gate_rows(gpu: &Gpu, x: View<f32>, gates: View<f32>) -> Result<(), KernelError> {
    let d = x.len().checked_div(gates.len()).unwrap_or(0);
    Contract("gate_rows").len("x", x.len(), gates.len() * d)?;
    Ok(gpu.launch_elements(
        "gate_rows",
        x.len(),
        &[x.into(), Arg::U32(x.len() as u32), gates.into(), Arg::size(d)],
    )?)
}

/// `out[i] = 1 / |weight[i]|`, the factors that give rows of the head length 1. A row of zeros has no direction: its
/// factor is 1e12, and the products with it stay zero.
///
/// # Errors
/// `out` has another length than the weight's rows, or the device fails.
pub fn unit_scales(gpu: &Gpu, weight: Matrix, out: View<f32>) -> Result<(), KernelError> {
    Contract("unit_scales").len("out", out.len(), weight.n_rows)?;
    if out.is_empty() {
        return Ok(());
    }
    let launch = Launch {
        kernel: match weight.dtype {
            DType::F32 => "unit_scales_f32",
            DType::F16 => "unit_scales_f16",
            DType::BF16 => "unit_scales_bf16",
        },
        grid: [out.len() as u32, 1, 1],
        block: 128,
        shared_bytes: 0,
        overlap: Overlap::Previous,
    };
    let args = [
        weight.data.into(),
        out.into(),
        Arg::size(weight.n_cols),
        Arg::size(weight.row_stride),
    ];
    Ok(gpu.launch(&launch, &args)?)
}
