//! The gated activation: `out = silu(gate) · up` with `silu(g) = g / (1 + e^-g)`.

use crate::disjoint::DisjointMut;
use crate::error::{check_len, check_range};
use crate::simd::{Simd, SimdTask};
use crate::{CpuContext, KernelError};

/// `out[i, j] = silu(gate_up[i, j]) · gate_up[i, width + j]`.
///
/// `gate_up` is `[m, 2 * width]`, gates first, and `out` is `[m, width]`; `m` may be zero. The relative
/// error is below 6 ulp.
///
/// # Errors
/// `width` is zero, or the lengths do not agree.
pub fn silu_mul(
    context: &CpuContext,
    gate_up: &[f32],
    width: usize,
    out: &mut [f32],
) -> Result<(), KernelError> {
    check_range(width > 0, "silu_mul", ("width", width), "at least 1")?;
    let m = out.len() / width;
    check_len("silu_mul", "out", out.len(), m * width)?;
    check_len("silu_mul", "gate_up", gate_up.len(), 2 * m * width)?;
    let out = DisjointMut::new(out);
    let rows_per_task = (TASK_ELEMENTS / width).max(1);
    context.for_each(m.div_ceil(rows_per_task), |task| {
        let rows = task * rows_per_task..((task + 1) * rows_per_task).min(m);
        // SAFETY: no other task writes these rows.
        let out = unsafe { out.part(rows.start * width, rows.len() * width) };
        context.run(SiluMul {
            gate_up: &gate_up[rows.start * 2 * width..rows.end * 2 * width],
            width,
            out,
        });
    });
    Ok(())
}

/// Elements worth a task of their own (some tens of microseconds of one core, an estimate).
const TASK_ELEMENTS: usize = 1 << 16;

/// Some rows of the activation.
struct SiluMul<'a> {
    gate_up: &'a [f32],
    width: usize,
    out: &'a mut [f32],
}

impl SimdTask for SiluMul<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (row, out) in self
            .gate_up
            .chunks_exact(2 * self.width)
            .zip(self.out.chunks_exact_mut(self.width))
        {
            let (gate, up) = row.split_at(self.width);
            let whole = self.width - self.width % S::LANES;
            for at in (0..whole).step_by(S::LANES) {
                let v = silu_times(simd, simd.load_slice(&gate[at..]), simd.load_slice(&up[at..]));
                simd.store_slice(&mut out[at..], v);
            }
            let v = silu_times(
                simd,
                simd.load_partial(&gate[whole..]),
                simd.load_partial(&up[whole..]),
            );
            simd.store_partial(&mut out[whole..], v);
        }
    }
}

/// `silu(gate) · up`
#[inline(always)]
fn silu_times<S: Simd>(simd: S, gate: S::V, up: S::V) -> S::V {
    let falling = simd.exp(simd.sub(simd.splat(0.0), gate));
    simd.mul(simd.div(gate, simd.add(simd.splat(1.0), falling)), up)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn agrees_with_wide_arithmetic_on_every_path() {
        for isa in Isa::available() {
            let context = CpuContext::with_isa(2, isa).unwrap();
            for (m, width) in [(0, 3), (1, 1), (3, 16), (5, 37), (40, 4000)] {
                let gate_up: Vec<f32> = (0..2 * m * width).map(|i| (i % 61) as f32 * 0.7 - 20.0).collect();
                let mut out = vec![f32::NAN; m * width];
                silu_mul(&context, &gate_up, width, &mut out).unwrap();
                for (i, &got) in out.iter().enumerate() {
                    let (row, column) = (i / width, i % width);
                    let gate = f64::from(gate_up[row * 2 * width + column]);
                    let up = f64::from(gate_up[row * 2 * width + width + column]);
                    let want = gate / (1.0 + (-gate).exp()) * up;
                    let error = (f64::from(got) - want).abs();
                    assert!(
                        error <= 6.0 * f64::from(f32::EPSILON) * want.abs(),
                        "{isa:?} {got} {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn far_gates_saturate() {
        for isa in Isa::available() {
            let context = CpuContext::with_isa(1, isa).unwrap();
            let mut out = [f32::NAN; 2];
            silu_mul(&context, &[-1e4, 1e4, 1.0, 1.0], 2, &mut out).unwrap();
            assert!(out[0].abs() < 1e-30 && out[1] == 1e4, "{isa:?} {out:?}");
        }
    }

    #[test]
    fn refuses_lengths_that_disagree() {
        let context = CpuContext::new(1).unwrap();
        assert!(silu_mul(&context, &[0.0; 4], 0, &mut []).is_err());
        assert!(silu_mul(&context, &[0.0; 4], 2, &mut [0.0; 3]).is_err());
        assert!(silu_mul(&context, &[0.0; 5], 2, &mut [0.0; 2]).is_err());
    }
}
