//! Activations in the order in which the tiles read them.

use super::tile::ROWS_MAX;
use crate::columns::Columns;
use crate::cpu::context::CpuContext;
use crate::cpu::disjoint::DisjointMut;

/// Rows of activations, in groups that a tile computes together. `[group][n_steps, 2, rows of the group]`; columns beyond
/// those of the weight are zero.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    floats: &'a [f32],
    groups: Groups,
    n_steps: usize,
}

/// `m` rows in as few groups as there can be, whose sizes differ by one at most: a small group wastes registers.
#[derive(Clone, Copy)]
pub(super) struct Groups {
    m: usize,
    n: usize,
}

impl Groups {
    /// Of `m` rows.
    pub(super) fn of(m: usize) -> Groups {
        Groups {
            m,
            n: m.div_ceil(ROWS_MAX),
        }
    }

    /// Groups.
    pub(super) fn len(self) -> usize {
        self.n
    }

    /// The first row of group `idx`, or `m` for `len()`.
    pub(super) fn first_row(self, idx: usize) -> usize {
        if self.n == 0 { 0 } else { idx * self.m / self.n }
    }
}

impl<'a> Packed<'a> {
    /// Floats of `m` rows.
    pub(super) fn n_floats(m: usize, n_steps: usize) -> usize {
        m * 2 * n_steps
    }

    /// Packs the columns of the rows of `x`, of which there are `k`.
    pub(super) fn new(
        context: &CpuContext,
        (x, columns): (&[f32], Columns),
        k: usize,
        n_steps: usize,
        memory: &'a mut [f32],
    ) -> Packed<'a> {
        /// Rows that are worth a task.
        const TASK_FLOATS: usize = 1 << 16;
        let m = x.len() / columns.row_stride;
        let groups = Groups::of(m);
        let n_columns = 2 * n_steps;
        let n_together = (TASK_FLOATS / (ROWS_MAX * n_columns)).max(1);
        let shared = DisjointMut::new(memory);
        context.for_each(groups.len().div_ceil(n_together), |task| {
            for group in task * n_together..((task + 1) * n_together).min(groups.len()) {
                let (first, end) = (groups.first_row(group), groups.first_row(group + 1));
                let n_rows = end - first;
                // SAFETY: no other task has this group.
                let to = unsafe { shared.part(first * n_columns, n_rows * n_columns) };
                for row in first..end {
                    let from = &x[row * columns.row_stride + columns.first..][..k];
                    let to = to[row - first..].iter_mut().step_by(n_rows);
                    let mut from = from.iter();
                    to.for_each(|to| *to = from.next().copied().unwrap_or(0.0));
                }
            }
        });
        Packed {
            floats: memory,
            groups,
            n_steps,
        }
    }

    /// The groups.
    pub(super) fn groups(&self) -> Groups {
        self.groups
    }

    /// The activations of a group from a step on.
    pub(super) fn group(&self, group: usize, first_step: usize) -> &[f32] {
        let (first, end) = (self.groups.first_row(group), self.groups.first_row(group + 1));
        &self.floats[2 * self.n_steps * first..2 * self.n_steps * end][2 * first_step * (end - first)..]
    }
}
