//! Rotary position embedding (Su et al. 2021), half-split pairs: element `i` turns with `i + dim/2`.

use crate::disjoint::DisjointMut;
use crate::error::{check_len, check_range};
use crate::{CpuContext, KernelError};

/// Cosines and sines of some tokens' positions, computed once per step and used by every layer.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeTable {
    half_dim: usize,
    /// `[n_tokens, half_dim]`
    cos: Vec<f32>,
    /// `[n_tokens, half_dim]`
    sin: Vec<f32>,
}

impl RopeTable {
    /// The angles `positions[t] · inv_freq[i]` (in f32, as the reference implementations compute them),
    /// their cosines and sines scaled by `scale`, which is 1 but for yarn.
    pub fn new(positions: &[u32], inv_freq: &[f32], scale: f32) -> RopeTable {
        let angles = || {
            positions
                .iter()
                .flat_map(|&p| inv_freq.iter().map(move |f| p as f32 * f))
        };
        RopeTable {
            half_dim: inv_freq.len(),
            cos: angles().map(|angle| angle.cos() * scale).collect(),
            sin: angles().map(|angle| angle.sin() * scale).collect(),
        }
    }
}

/// Operands of [`rope`].
pub struct Rope<'a> {
    /// Activations; heads lie side by side at the start of each row. `[n_tokens, row_stride]`
    pub x: &'a mut [f32],
    /// Elements of a row, at least `n_heads * head_dim`.
    pub row_stride: usize,
    /// Heads to turn.
    pub n_heads: usize,
    /// Elements of a head, at least twice the table's frequencies; those beyond keep their value.
    pub head_dim: usize,
    /// Cosines and sines of the rows' positions.
    pub table: &'a RopeTable,
}

/// Turns the first `2 * half_dim` elements of each head, in place:
/// `a' = a·cos - b·sin` and `b' = b·cos + a·sin` for the pair `a = x[i]`, `b = x[i + half_dim]`.
///
/// # Errors
/// The shapes do not agree.
pub fn rope(context: &CpuContext, op: Rope<'_>) -> Result<(), KernelError> {
    let Rope {
        x,
        row_stride,
        n_heads,
        head_dim,
        table,
    } = op;
    let half_dim = table.half_dim;
    check_range(half_dim > 0, "rope", ("half_dim", half_dim), "at least 1")?;
    check_range(
        2 * half_dim <= head_dim,
        "rope",
        ("head_dim", head_dim),
        "at least twice half_dim",
    )?;
    let heads_fit = n_heads
        .checked_mul(head_dim)
        .is_some_and(|width| width <= row_stride);
    check_range(
        heads_fit,
        "rope",
        ("row_stride", row_stride),
        "at least n_heads * head_dim",
    )?;
    let n_tokens = table.cos.len() / half_dim;
    check_len("rope", "x", x.len(), n_tokens * row_stride)?;
    let x = DisjointMut::new(x);
    let tokens_per_task = (TASK_ELEMENTS / row_stride).max(1);
    context.for_each(n_tokens.div_ceil(tokens_per_task), |task| {
        for token in task * tokens_per_task..((task + 1) * tokens_per_task).min(n_tokens) {
            // SAFETY: no other task writes this row.
            let row = unsafe { x.part(token * row_stride, n_heads * head_dim) };
            let angles = token * half_dim..(token + 1) * half_dim;
            let (cos, sin) = (&table.cos[angles.clone()], &table.sin[angles]);
            for head in row.chunks_exact_mut(head_dim) {
                turn(head, cos, sin);
            }
        }
    });
    Ok(())
}

/// Elements worth a task of their own (some tens of microseconds of one core, an estimate).
const TASK_ELEMENTS: usize = 1 << 16;

/// Turns one head.
fn turn(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(cos.len());
    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn agrees_with_wide_arithmetic_on_every_path() {
        let inv_freq = [1.0, 0.1, 0.001];
        let positions = [0, 1, 7, 3000];
        let table = RopeTable::new(&positions, &inv_freq, 1.25);
        let (head_dim, n_heads, row_stride) = (8, 2, 19);
        let before: Vec<f32> = (0..4 * row_stride).map(|i| (i % 13) as f32 - 6.0).collect();
        for isa in Isa::available() {
            let context = CpuContext::with_isa(2, isa).unwrap();
            let mut x = before.clone();
            rope(
                &context,
                Rope {
                    x: &mut x,
                    row_stride,
                    n_heads,
                    head_dim,
                    table: &table,
                },
            )
            .unwrap();
            for (i, (&got, &was)) in x.iter().zip(&before).enumerate() {
                let (token, column) = (i / row_stride, i % row_stride);
                let (head, at) = (column / head_dim, column % head_dim);
                if head >= n_heads || at >= 6 {
                    assert_eq!(got, was, "only the turned part changes");
                    continue;
                }
                let partner = f64::from(before[if at < 3 { i + 3 } else { i - 3 }]);
                let angle = f64::from(positions[token] as f32 * inv_freq[at % 3]);
                let sign = if at < 3 { -1.0 } else { 1.0 };
                let want = 1.25 * (f64::from(was) * angle.cos() + sign * partner * angle.sin());
                assert!((f64::from(got) - want).abs() < 1e-5, "{isa:?} [{i}] {got} {want}");
            }
        }
    }

    #[test]
    fn refuses_shapes_that_disagree() {
        let context = CpuContext::new(1).unwrap();
        let table = RopeTable::new(&[0, 1], &[1.0, 0.5], 1.0);
        let mut x = [0.0; 16];
        for (row_stride, n_heads, head_dim) in [(8, 2, 3), (8, 3, 4), (7, 1, 4), (9, 1, 4)] {
            let op = Rope {
                x: &mut x,
                row_stride,
                n_heads,
                head_dim,
                table: &table,
            };
            assert!(rope(&context, op).is_err(), "{row_stride} {n_heads} {head_dim}");
        }
    }
}
