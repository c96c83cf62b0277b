//! The residual connection on the device.

use crate::cuda::{Arg, Gpu, View};
use crate::error::{Contract, KernelError};

/// `x += scale · y`, element by element; with a scale of 1 exact to one rounding, else to two.
///
/// # Errors
/// The lengths differ, or the device fails.
pub fn add(gpu: &Gpu, x: View<f32>, scale: f32, y: View<f32>) -> Result<(), KernelError> {
    Contract("add").len("y", y.len(), x.len())?;
    Ok(gpu.launch_elements(
        "add",
        x.len(),
        &[x.into(), y.into(), Arg::U32(x.len() as u32), Arg::F32(scale)],
    )?)
}
