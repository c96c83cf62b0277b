//! Norms on the CPU: rows over threads, a head in vectors.

use super::{Norm, NormKind};
use crate::cpu::context::CpuContext;
use crate::cpu::disjoint::DisjointMut;
use crate::cpu::simd::{Simd, SimdTask};

pub(super) fn run(context: &CpuContext, op: Norm<'_>, n_rows: usize) {
    let Norm {
        x: from,
        out,
        heads,
        kind,
        weight,
        bias,
        eps,
    } = op;
    let out = DisjointMut::new(out);
    let rows_per_task = (TASK_ELEMENTS / heads.width()).max(1);
    context.for_each(n_rows.div_ceil(rows_per_task), |task| {
        for row in task * rows_per_task..((task + 1) * rows_per_task).min(n_rows) {
            // SAFETY: no other task writes this row.
            let x = unsafe { out.part(row * heads.row_stride + heads.first, heads.width()) };
            if let Some(from) = from {
                x.copy_from_slice(&from[row * heads.row_stride..][..heads.row_stride]);
            }
            context.run(Row {
                x,
                head_dim: heads.head_dim,
                kind,
                weight,
                bias,
                eps,
            });
        }
    });
}

/// Elements worth a task of their own (some tens of microseconds of one core, an estimate).
const TASK_ELEMENTS: usize = 1 << 17;

/// The heads of one row.
struct Row<'a> {
    x: &'a mut [f32],
    head_dim: usize,
    kind: NormKind,
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    eps: f32,
}

impl<'a> SimdTask for Row<'a> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let d = self.head_dim;
        for (head, x) in self.x.chunks_exact_mut(d).enumerate() {
            let of_head = |vector: Option<&'a [f32]>| vector.map(|v| &v[head * d % v.len()..][..d]);
            if self.kind == NormKind::Layer {
                let mean = sum(simd, x, |simd, total, v| simd.add(total, v)) / d as f32;
                x.iter_mut().for_each(|x| *x -= mean);
            }
            let squares = sum(simd, x, |simd, total, v| simd.mul_add(v, v, total));
            let scale = 1.0 / (squares / d as f32 + self.eps).sqrt();
            match of_head(self.weight) {
                Some(weight) => {
                    let scaled = x.iter_mut().zip(weight);
                    scaled.for_each(|(x, weight)| *x = *x * scale * weight);
                }
                None => x.iter_mut().for_each(|x| *x *= scale),
            }
            if let Some(bias) = of_head(self.bias) {
                x.iter_mut().zip(bias).for_each(|(x, bias)| *x += bias);
            }
        }
    }
}

/// Adds up `x` with `add(total, element)`, lane by lane, then the lanes.
#[inline(always)]
fn sum<S: Simd>(simd: S, x: &[f32], add: impl Fn(S, S::V, S::V) -> S::V) -> f32 {
    let whole = x.len() - x.len() % S::LANES;
    let mut total = simd.splat(0.0);
    for at in (0..whole).step_by(S::LANES) {
        total = add(simd, total, simd.load_slice(&x[at..]));
    }
    simd.sum(add(simd, total, simd.load_partial(&x[whole..])))
}
