//! Rotary positions on the CPU: tokens over threads.

use super::{Rope, RopePairs};
use crate::cpu::context::CpuContext;
use crate::cpu::disjoint::DisjointMut;

pub(super) fn run(context: &CpuContext, op: Rope<'_>) {
    let Rope {
        x,
        heads,
        from,
        pairs,
        table,
    } = op;
    let half_dim = table.half_dim;
    let n_tokens = table.cos.len() / half_dim;
    let x = DisjointMut::new(x);
    let tokens_per_task = (TASK_ELEMENTS / heads.row_stride).max(1);
    context.for_each(n_tokens.div_ceil(tokens_per_task), |task| {
        for token in task * tokens_per_task..((task + 1) * tokens_per_task).min(n_tokens) {
            // SAFETY: no other task writes this row.
            let row = unsafe { x.part(token * heads.row_stride + heads.first, heads.width()) };
            let angles = token * half_dim..(token + 1) * half_dim;
            let (cos, sin) = (&table.cos[angles.clone()], &table.sin[angles]);
            for head in row.chunks_exact_mut(heads.head_dim) {
                let part = &mut head[from..from + 2 * half_dim];
                match pairs {
                    RopePairs::HalfSplit => turn_halves(part, cos, sin),
                    RopePairs::Interleaved => turn_neighbours(part, cos, sin),
                }
            }
        }
    });
}

/// Elements worth a task of their own (some tens of microseconds of one core, an estimate).
const TASK_ELEMENTS: usize = 1 << 16;

fn turn_halves(part: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = part.split_at_mut(cos.len());
    for (((a, b), cos), sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

fn turn_neighbours(part: &mut [f32], cos: &[f32], sin: &[f32]) {
    for ((pair, cos), sin) in part.chunks_exact_mut(2).zip(cos).zip(sin) {
        let (a, b) = (pair[0], pair[1]);
        (pair[0], pair[1]) = (a * cos - b * sin, b * cos + a * sin);
    }
}
