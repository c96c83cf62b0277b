//! Weighted sum of two activations: the residual connection.

mod cpu;

use crate::cpu::context::CpuContext;
use crate::error::{KernelError, check_len};

/// `x += scale · y`, element by element; with a scale of 1 exact to one rounding, else to two.
///
/// # Errors
/// The lengths differ.
pub fn add(context: &CpuContext, x: &mut [f32], scale: f32, y: &[f32]) -> Result<(), KernelError> {
    check_len("add", "y", y.len(), x.len())?;
    cpu::run(context, x, scale, y);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;

    #[test]
    fn is_the_sum_on_every_path() {
        for isa in Isa::available() {
            let context = CpuContext::with_isa(1, isa).unwrap();
            for n in [0, 1, 15, 16, 33, 1000] {
                let mut x: Vec<f32> = (0..n).map(|i| i as f32 * 0.37).collect();
                let y: Vec<f32> = (0..n).map(|i| 5.0 - i as f32 * 1.1).collect();
                for scale in [1.0, -0.5] {
                    let want: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + scale * y).collect();
                    add(&context, &mut x, scale, &y).unwrap();
                    assert_eq!(x, want, "{isa:?}");
                }
            }
        }
    }

    #[test]
    fn refuses_lengths_that_differ() {
        let context = CpuContext::new(1).unwrap();
        assert!(matches!(
            add(&context, &mut [0.0; 2], 1.0, &[0.0; 3]),
            Err(KernelError::Length { .. })
        ));
    }
}
