//! Bounds on the CPU.

use crate::cpu::context::CpuContext;
use crate::cpu::disjoint::DisjointMut;

pub(super) fn clamp(x: &mut [f32], limit: f32) {
    x.iter_mut().for_each(|x| *x = x.clamp(-limit, limit));
}

/// Elements worth a task of their own: a tangent takes some ten nanoseconds.
const TASK_ELEMENTS: usize = 1 << 12;

pub(super) fn softcap(context: &CpuContext, x: &mut [f32], cap: f32) {
    let n = x.len();
    let x = DisjointMut::new(x);
    context.for_each(n.div_ceil(TASK_ELEMENTS), |task| {
        let at = task * TASK_ELEMENTS;
        // SAFETY: no other task writes these elements.
        let x = unsafe { x.part(at, TASK_ELEMENTS.min(n - at)) };
        x.iter_mut().for_each(|x| *x = cap * (*x / cap).tanh());
    });
}
