//! Activations in the order in which the tiles read them.

use super::Activations;
use super::storage::Storage;
use super::tile::ROWS_MAX;
use crate::cpu::bf16;
use crate::cpu::context::CpuContext;
use crate::cpu::disjoint::DisjointMut;

/// Rows of activations, in groups that a tile computes together: `[group][n_steps, T::X_FLOATS, rows of the group]`.
/// Columns beyond those of the weight are zero.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    floats: &'a [f32],
    groups: Groups,
    /// Floats of a row.
    row_floats: usize,
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
    pub(super) fn n_floats<T: Storage>(m: usize, n_steps: usize) -> usize {
        m * T::X_FLOATS * n_steps
    }

    /// Packs rows for a weight of `n_steps` steps.
    pub(super) fn new<T: Storage>(
        context: &CpuContext,
        some: Activations<'_>,
        n_steps: usize,
        memory: &'a mut [f32],
    ) -> Packed<'a> {
        /// Floats that are worth a task.
        const TASK_FLOATS: usize = 1 << 16;
        let groups = Groups::of(some.m());
        let row_floats = T::X_FLOATS * n_steps;
        let n_together = (TASK_FLOATS / (ROWS_MAX * row_floats)).max(1);
        let shared = DisjointMut::new(&mut *memory);
        context.for_each(groups.len().div_ceil(n_together), |task| {
            for group in task * n_together..((task + 1) * n_together).min(groups.len()) {
                let rows = groups.first_row(group)..groups.first_row(group + 1);
                let n_rows = rows.len();
                // SAFETY: no other task has this group.
                let to = unsafe { shared.part(rows.start * row_floats, n_rows * row_floats) };
                for (idx, row) in rows.enumerate() {
                    let to = to[idx..].iter_mut().step_by(n_rows);
                    if T::X_FLOATS == 1 {
                        write_pairs(some.row(row), to);
                    } else {
                        let x = some.row(row).iter().copied().chain(std::iter::repeat(0.0));
                        to.zip(x).for_each(|(to, x)| *to = x);
                    }
                }
            }
        });
        Packed {
            floats: memory,
            groups,
            row_floats,
        }
    }

    /// The groups.
    pub(super) fn groups(&self) -> Groups {
        self.groups
    }

    /// The activations of a group from a step on.
    pub(super) fn group<T: Storage>(&self, group: usize, first_step: usize) -> &[f32] {
        let (first, end) = (self.groups.first_row(group), self.groups.first_row(group + 1));
        let all = &self.floats[self.row_floats * first..self.row_floats * end];
        &all[T::X_FLOATS * first_step * (end - first)..]
    }
}

/// Writes a row as pairs of bf16 numbers, in the bits of floats.
fn write_pairs<'a>(x: &[f32], to: impl Iterator<Item = &'a mut f32>) {
    let mut pairs = x.chunks(2);
    for to in to {
        let pair = pairs.next().unwrap_or_default();
        let at = |idx: usize| pair.get(idx).copied().unwrap_or(0.0);
        *to = f32::from_bits(bf16::pair(at(0), at(1)));
    }
}
