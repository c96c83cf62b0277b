//! Bounds on the device.

use crate::cuda::{Arg, Gpu, View};
use crate::error::KernelError;

/// `x = cap · tanh(x / cap)`
///
/// # Errors
/// The device fails.
pub fn softcap(gpu: &Gpu, x: View<f32>, cap: f32) -> Result<(), KernelError> {
    Ok(gpu.launch_elements(
        "softcap",
        x.len(),
        &[x.into(), Arg::U32(x.len() as u32), Arg::F32(cap)],
    )?)
}
