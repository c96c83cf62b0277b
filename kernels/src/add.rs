//! Weighted sum of two activations: the residual connection.

mod cpu;
#[cfg(feature = "cuda")]
pub(crate) mod cuda;

use crate::cpu::context::CpuContext;
use crate::error::{Contract, KernelError};

/// `x += scale · y`, element by element; with a scale of 1 exact to one rounding, else to two.
///
/// # Errors
/// The lengths differ.
pub fn add(context: &CpuContext, x: &mut [f32], scale: f32, y: &[f32]) -> Result<(), KernelError> {
    Contract("add").len("y", y.len(), x.len())?;
    cpu::run(context, x, scale, y);
    Ok(())
}

/// Operands of [`add_rows`].
pub struct AddRows<'a> {
    /// Activations that are added to. `[m, d]`
    pub x: &'a mut [f32],
    /// Which rows of `x`. `[n]`
    pub rows: &'a [u32],
    /// Factor of each row of `y`, absent if all are 1. `[n]`
    pub weights: Option<&'a [f32]>,
    /// Activations that are added. `[n, d]`
    pub y: &'a [f32],
}

/// `x[rows[i]] += weights[i] · y[i]` for one `i` after the other.
///
/// # Errors
/// The shapes do not agree, or a row is beyond `x`; nothing was added then.
pub fn add_rows(context: &CpuContext, op: AddRows<'_>) -> Result<(), KernelError> {
    if let Some(weights) = op.weights {
        Contract("add_rows").len("weights", weights.len(), op.rows.len())?;
    }
    let d = op.y.len().checked_div(op.rows.len()).unwrap_or(0);
    Contract("add_rows").len("y", op.y.len(), op.rows.len() * d)?;
    if d == 0 {
        return Ok(());
    }
    Contract("add_rows").len("x", op.x.len(), op.x.len() / d * d)?;
    for &row in op.rows {
        let inside = (row as usize) < op.x.len() / d;
        Contract("add_rows").range(inside, "row", row as usize, "below the rows of x")?;
    }
    cpu::run_rows(context, op);
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
    fn weighted_rows_are_added_where_they_belong() {
        let context = CpuContext::new(1).unwrap();
        let mut x = [1.0; 6];
        let run = |x: &mut [f32], rows: &[u32], weights: &[f32], y: &[f32]| {
            let weights = Some(weights);
            add_rows(&context, AddRows { x, rows, weights, y })
        };
        run(&mut x, &[2, 0], &[10.0, 0.5], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert_eq!(x, [2.5, 3.0, 1.0, 1.0, 11.0, 21.0]);
        run(&mut x, &[], &[], &[]).unwrap();
        let mut sums = [1.0; 4];
        let unweighted = AddRows {
            x: &mut sums,
            rows: &[1],
            weights: None,
            y: &[2.0, 3.0],
        };
        add_rows(&context, unweighted).unwrap();
        assert_eq!(sums, [1.0, 1.0, 3.0, 4.0]);
        assert!(run(&mut x, &[3], &[1.0], &[1.0; 2]).is_err());
        assert!(run(&mut x, &[0], &[1.0; 2], &[1.0; 2]).is_err());
        assert!(run(&mut x, &[0, 1], &[1.0; 2], &[1.0; 3]).is_err());
        assert!(run(&mut x, &[0], &[1.0], &[1.0; 4]).is_err());
    }

    #[test]
    fn refuses_lengths_that_differ() {
        let context = CpuContext::new(1).unwrap();
        assert!(matches!(
            add(&context, &mut [0.0; 2], 1.0, &[0.0; 3]),
            Err(KernelError::Length { .. })
        ));
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn the_device_adds() {
        use crate::cuda::testing::{downloaded, each_order, uploaded};
        each_order(|gpu| {
            for (n, from) in [(0, 0), (1, 0), (15, 0), (4099, 0), (1000, 1)] {
                let x: Vec<f32> = (0..n + from).map(|i| i as f32 * 0.37).collect();
                let y: Vec<f32> = (0..n).map(|i| 5.0 - i as f32 * 1.1).collect();
                for scale in [1.0, -0.5] {
                    let (on_device, y_on_device) = (uploaded(gpu, &x), uploaded(gpu, &y));
                    cuda::add(
                        gpu,
                        on_device.view().range(from..n + from),
                        scale,
                        y_on_device.view(),
                    )
                    .unwrap();
                    let got = downloaded(gpu, on_device.view());
                    assert_eq!(got[..from], x[..from]);
                    for (got, (x, y)) in got[from..].iter().zip(x[from..].iter().zip(&y)) {
                        let want = f64::from(*x) + f64::from(scale) * f64::from(*y);
                        assert!((f64::from(*got) - want).abs() <= 2e-7 * want.abs().max(f64::from(x.abs())));
                    }
                }
            }
            let x = uploaded(gpu, &[0.0; 2]);
            assert!(cuda::add(gpu, x.view(), 1.0, x.view().range(0..1)).is_err());
        });
    }
}
