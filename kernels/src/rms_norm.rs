//! Root-mean-square normalisation (Zhang and Sennrich 2019, "Root Mean Square Layer Normalization").

use crate::disjoint::DisjointMut;
use crate::error::{check_len, check_range};
use crate::simd::{Simd, SimdTask};
use crate::{CpuContext, KernelError};

/// Operands of [`rms_norm`].
pub struct RmsNorm<'a> {
    /// Activations, row-major without gaps. `[m, d]`
    pub x: &'a [f32],
    /// Scale of each column; its length is `d`. `[d]`
    pub weight: &'a [f32],
    /// Added to the mean square, so that a row of zeros has a norm.
    pub eps: f32,
    /// Result; overwritten. `[m, d]`
    pub y: &'a mut [f32],
}

/// `y[i, j] = x[i, j] / sqrt(mean_j(x[i, j]²) + eps) · weight[j]`; `m` may be zero.
///
/// The relative error is below `(d/LANES + 8)` ulp.
///
/// # Errors
/// The weight is empty, or the lengths do not agree.
pub fn rms_norm(context: &CpuContext, op: RmsNorm<'_>) -> Result<(), KernelError> {
    let RmsNorm { x, weight, eps, y } = op;
    let d = weight.len();
    check_range(d > 0, "rms_norm", ("weight", d), "at least one element")?;
    let m = x.len() / d;
    check_len("rms_norm", "x", x.len(), m * d)?;
    check_len("rms_norm", "y", y.len(), m * d)?;
    let y = DisjointMut::new(y);
    let rows_per_task = (TASK_ELEMENTS / d).max(1);
    context.for_each(m.div_ceil(rows_per_task), |task| {
        let rows = task * rows_per_task..((task + 1) * rows_per_task).min(m);
        // SAFETY: no other task writes these rows.
        let y = unsafe { y.part(rows.start * d, rows.len() * d) };
        context.run(Rows {
            x: &x[rows.start * d..rows.end * d],
            weight,
            eps,
            y,
        });
    });
    Ok(())
}

/// Elements worth a task of their own (some tens of microseconds of one core, an estimate).
const TASK_ELEMENTS: usize = 1 << 17;

/// Some rows.
struct Rows<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    y: &'a mut [f32],
}

impl SimdTask for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let d = self.weight.len();
        let whole = d - d % S::LANES;
        for (x, y) in self.x.chunks_exact(d).zip(self.y.chunks_exact_mut(d)) {
            let mut squares = simd.splat(0.0);
            for at in (0..whole).step_by(S::LANES) {
                let v = simd.load_slice(&x[at..]);
                squares = simd.mul_add(v, v, squares);
            }
            let v = simd.load_partial(&x[whole..]);
            squares = simd.mul_add(v, v, squares);
            let scale = 1.0 / (simd.sum(squares) / d as f32 + self.eps).sqrt();
            for ((y, x), weight) in y.iter_mut().zip(x).zip(self.weight) {
                *y = x * scale * weight;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn agrees_with_wide_arithmetic_on_every_path() {
        for isa in Isa::available() {
            let context = CpuContext::with_isa(2, isa).unwrap();
            for (m, d) in [(0, 4), (1, 1), (2, 17), (3, 256), (70, 4099)] {
                let x: Vec<f32> = (0..m * d).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.1).collect();
                let weight: Vec<f32> = (0..d).map(|i| 1.0 + (i % 7) as f32 * 0.25).collect();
                let mut y = vec![f32::NAN; m * d];
                rms_norm(
                    &context,
                    RmsNorm {
                        x: &x,
                        weight: &weight,
                        eps: 1e-5,
                        y: &mut y,
                    },
                )
                .unwrap();
                for (x, y) in x.chunks(d).zip(y.chunks(d)) {
                    let mean = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / d as f64;
                    for j in 0..d {
                        let want = f64::from(x[j]) / (mean + 1e-5).sqrt() * f64::from(weight[j]);
                        let tolerance = f64::from(f32::EPSILON) * (d as f64 / 8.0 + 8.0) * want.abs();
                        assert!(
                            (f64::from(y[j]) - want).abs() <= tolerance,
                            "{isa:?} {} {want}",
                            y[j]
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn zeros_stay_zeros() {
        let context = CpuContext::new(1).unwrap();
        let mut y = [f32::NAN; 4];
        rms_norm(
            &context,
            RmsNorm {
                x: &[0.0; 4],
                weight: &[1.0; 4],
                eps: 1e-6,
                y: &mut y,
            },
        )
        .unwrap();
        assert_eq!(y, [0.0; 4]);
    }

    #[test]
    fn refuses_lengths_that_disagree() {
        let context = CpuContext::new(1).unwrap();
        let mut y = [0.0; 4];
        for (x, weight) in [
            (&[0.0; 4][..], &[][..]),
            (&[0.0; 3], &[1.0; 2]),
            (&[0.0; 6], &[1.0; 2]),
        ] {
            assert!(
                rms_norm(
                    &context,
                    RmsNorm {
                        x,
                        weight,
                        eps: 1e-6,
                        y: &mut y
                    }
                )
                .is_err()
            );
        }
    }
}
