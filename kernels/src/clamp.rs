//! Activations kept within bounds: cut off, or bent by a hyperbolic tangent.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::cpu::context::CpuContext;
use crate::error::{Contract, KernelError};

/// `x = max(min(x, limit), -limit)`; NaN stays NaN.
///
/// # Errors
/// `limit` is negative or NaN.
pub fn clamp(x: &mut [f32], limit: f32) -> Result<(), KernelError> {
    Contract("clamp").range(limit >= 0.0, "limit", 0, "a number that is not negative")?;
    cpu::clamp(x, limit);
    Ok(())
}

/// `x = cap · tanh(x / cap)`; with a cap of 1, the hyperbolic tangent itself.
pub fn softcap(context: &CpuContext, x: &mut [f32], cap: f32) {
    cpu::softcap(context, x, cap);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clamped_numbers_are_within_the_limit() {
        let mut x = [-3.0, -0.5, 0.0, 2.0, 7.0];
        clamp(&mut x, 2.0).unwrap();
        assert_eq!(x, [-2.0, -0.5, 0.0, 2.0, 2.0]);
        let mut nan = [f32::NAN];
        clamp(&mut nan, 1.0).unwrap();
        assert!(nan[0].is_nan());
        assert!(clamp(&mut [1.0], -1.0).is_err() && clamp(&mut [1.0], f32::NAN).is_err());
    }

    #[test]
    fn capped_numbers_approach_the_cap() {
        let context = CpuContext::new(2).unwrap();
        let before: Vec<f32> = (-50_000..50_000).map(|i| i as f32 * 1e-3).collect();
        let mut x = before.clone();
        softcap(&context, &mut x, 5.0);
        for (&got, &x) in x.iter().zip(&before) {
            let want = 5.0 * (f64::from(x) / 5.0).tanh();
            assert!((f64::from(got) - want).abs() < 1e-5, "{x}: {got}, not {want}");
        }
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_device_caps() {
        use crate::cuda::testing::{downloaded, each_order, uploaded};
        each_order(|gpu| {
            let before: Vec<f32> = (-1500..1501).map(|i| i as f32 * 0.03).collect();
            let x = uploaded(gpu, &before);
            cuda::softcap(gpu, x.view(), 5.0).unwrap();
            for (got, x) in downloaded(gpu, x.view()).into_iter().zip(before) {
                let want = 5.0 * (f64::from(x) / 5.0).tanh();
                assert!((f64::from(got) - want).abs() < 1e-5, "{x}: {got}, not {want}");
            }
        });
    }
}
