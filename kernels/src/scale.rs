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
}
