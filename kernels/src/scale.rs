//! Products of activations with factors: of all elements, of columns, of rows, and of rows by a gate.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::cpu::context::CpuContext;
use crate::error::{Contract, KernelError};

/// `x *= factor`
pub fn scale(context: &CpuContext, x: &mut [f32], factor: f32) {
    cpu::scale(context, x, factor);
}

/// `x[i, j] *= factors[j]`; `x` is `[m, factors.len()]`.
///
/// # Errors
/// There are no factors, or `x` is not whole rows of them.
pub fn scale_columns(context: &CpuContext, x: &mut [f32], factors: &[f32]) -> Result<(), KernelError> {
    let n = factors.len();
    Contract("scale_columns").range(n > 0, "factors", n, "at least 1")?;
    Contract("scale_columns").len("x", x.len(), x.len() / n * n)?;
    cpu::scale_columns(context, x, factors);
    Ok(())
}

/// `x[i, j] *= factors[i]`; `x` is `[factors.len(), d]`.
///
/// # Errors
/// `x` is not the same number of elements for each factor.
pub fn scale_rows(context: &CpuContext, x: &mut [f32], factors: &[f32]) -> Result<(), KernelError> {
    let d = x.len().checked_div(factors.len()).unwrap_or(0);
    Contract("scale_rows").len("x", x.len(), factors.len() * d)?;
    if d > 0 {
        cpu::scale_rows(context, x, factors);
    }
    Ok(())
}

/// `x[i, j] *= 1 / (1 + e^-gates[i])`; `x` is `[gates.len(), d]`.
///
/// # Errors
/// `x` is not the same number of elements for each gate.
pub fn gate_rows(context: &CpuContext, x: &mut [f32], gates: &[f32]) -> Result<(), KernelError> {
    let d = x.len().checked_div(gates.len()).unwrap_or(0);
    Contract("gate_rows").len("x", x.len(), gates.len() * d)?;
    if d > 0 {
        cpu::gate_rows(context, x, gates);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;

    #[test]
    fn every_element_is_multiplied_on_every_path() {
        for isa in Isa::available() {
            let context = CpuContext::with_isa(2, isa).unwrap();
            let mut x: Vec<f32> = (0..40).map(|i| i as f32).collect();
            scale(&context, &mut x, 0.5);
            assert_eq!(x, (0..40).map(|i| i as f32 * 0.5).collect::<Vec<_>>());
            let mut x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
            scale_columns(&context, &mut x, &[1.0, 10.0]).unwrap();
            assert_eq!(x, [1.0, 20.0, 3.0, 40.0, 5.0, 60.0]);
            let mut x = [1.0, 2.0, 3.0, 4.0];
            scale_rows(&context, &mut x, &[10.0, 0.5]).unwrap();
            assert_eq!(x, [10.0, 20.0, 1.5, 2.0]);
            let mut x = [1.0, 2.0, 3.0, 4.0];
            gate_rows(&context, &mut x, &[0.0, f32::INFINITY]).unwrap();
            assert_eq!(x, [0.5, 1.0, 3.0, 4.0]);
        }
    }

    #[test]
    fn refuses_lengths_that_disagree() {
        let context = CpuContext::new(1).unwrap();
        assert!(scale_columns(&context, &mut [1.0; 3], &[]).is_err());
        assert!(scale_columns(&context, &mut [1.0; 3], &[1.0, 2.0]).is_err());
        assert!(gate_rows(&context, &mut [1.0; 3], &[1.0, 2.0]).is_err());
        assert!(gate_rows(&context, &mut [1.0; 3], &[]).is_err());
        assert!(scale_rows(&context, &mut [1.0; 3], &[1.0, 2.0]).is_err());
        assert!(scale_rows(&context, &mut [], &[]).is_ok());
        assert!(gate_rows(&context, &mut [], &[]).is_ok());
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_device_multiplies() {
        use crate::cuda::testing::{downloaded, each_order, uploaded};
        each_order(|gpu| {
            let before: Vec<f32> = (0..3000).map(|i| i as f32).collect();
            let factors = uploaded(gpu, &[1.0, 10.0, 0.5]);
            let check = |run: &dyn Fn(crate::cuda::View<f32>), factor: &dyn Fn(usize) -> f32| {
                let x = uploaded(gpu, &before);
                run(x.view());
                let want: Vec<f32> = before.iter().enumerate().map(|(i, x)| x * factor(i)).collect();
                assert_eq!(downloaded(gpu, x.view()), want);
            };
            let of = [1.0, 10.0, 0.5];
            check(&|x| cuda::scale(gpu, x, 0.25).unwrap(), &|_| 0.25);
            check(
                &|x| cuda::multiply(gpu, x, factors.view().range(1..2)).unwrap(),
                &|_| 10.0,
            );
            check(&|x| cuda::scale_columns(gpu, x, factors.view()).unwrap(), &|i| {
                of[i % 3]
            });
            let gates = uploaded(gpu, &[0.0, f32::INFINITY, f32::NEG_INFINITY]);
            check(&|x| cuda::gate_rows(gpu, x, gates.view()).unwrap(), &|i| {
                [0.5, 1.0, 0.0][i / 1000]
            });
            let x = uploaded(gpu, &before);
            assert!(cuda::scale_columns(gpu, x.view().range(0..4), factors.view()).is_err());
            assert!(cuda::gate_rows(gpu, x.view().range(0..4), gates.view()).is_err());
        });
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_device_finds_the_lengths_of_rows() {
        use crate::cuda::testing::{downloaded, each_order};
        use crate::weight::tests::weight_of;
        use crate::weight::{DType, Matrix};
        each_order(|gpu| {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let values: Vec<f32> = (0..3 * 301)
                    .map(|i| if i < 301 { 0.0 } else { i as f32 * 0.01 })
                    .collect();
                let (weight, rounded) = weight_of(dtype, 301, &values);
                let (_memory, matrix) = Matrix::upload(gpu, &weight).unwrap();
                let out = gpu.alloc(3).unwrap();
                cuda::unit_scales(gpu, matrix, out.view()).unwrap();
                let got = downloaded(gpu, out.view());
                for (row, got) in rounded.chunks_exact(301).zip(got) {
                    let length = row.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
                    assert!((f64::from(got) * length - 1.0).abs() < 2e-7, "{dtype:?} {got}");
                }
            }
        });
    }
}
