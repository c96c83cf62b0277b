//! Activations in the order in which the tiles read them.

use super::storage::Storage;
use super::tile::{ROWS_MAX, WIDENED_ROWS};
use crate::columns::Columns;
use crate::cpu::bf16;
use crate::cpu::context::CpuContext;
use crate::cpu::disjoint::DisjointMut;

/// Some rows of activations.
#[derive(Clone, Copy)]
pub(super) struct Activations<'a> {
    /// `[m, columns.row_stride]`
    pub(super) x: &'a [f32],
    pub(super) columns: Columns,
    /// Columns that are multiplied.
    pub(super) k: usize,
    /// The first of the rows in the result.
    pub(super) first_row: usize,
}

impl<'a> Activations<'a> {
    /// Rows.
    pub(super) fn m(&self) -> usize {
        self.x.len() / self.columns.row_stride
    }

    /// The columns of a row.
    pub(super) fn row(&self, row: usize) -> &'a [f32] {
        &self.x[row * self.columns.row_stride + self.columns.first..][..self.k]
    }
}

/// Rows of activations, in blocks of steps, and in each block in groups of rows that a tile computes together:
/// `[block][group][steps of the block, T::X_FLOATS, rows of the group]`. Columns beyond those of the weight are zero.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    floats: &'a [f32],
    groups: Groups,
    n_steps: usize,
    /// Steps of each block but the last.
    block_steps: usize,
}

/// `m` rows in groups whose sizes differ by one at most: a small group wastes registers.
#[derive(Clone, Copy)]
pub(super) struct Groups {
    m: usize,
    n: usize,
}

impl Groups {
    /// Of `m` rows.
    pub(super) fn of(m: usize) -> Groups {
        let n = match m {
            0..=ROWS_MAX => m.min(1),
            // The registers of AVX2 do not suffice for six rows and for widening numbers as they are multiplied.
            _ if m <= WIDENED_ROWS => m.div_ceil(ROWS_MAX - 1),
            _ => m.div_ceil(ROWS_MAX),
        };
        Groups { m, n }
    }

    /// Groups.
    pub(super) fn len(self) -> usize {
        self.n
    }

    /// The first row of group `idx`, or `m` for `len()`.
    pub(super) fn first_row(self, idx: usize) -> usize {
        (idx * self.m).checked_div(self.n).unwrap_or(0)
    }
}

impl<'a> Packed<'a> {
    /// Floats of `m` rows.
    pub(super) fn n_floats<T: Storage>(m: usize, n_steps: usize) -> usize {
        m * T::X_FLOATS * n_steps
    }

    /// Packs rows for a weight of `n_steps` steps, in blocks of `block_steps`.
    pub(super) fn new<T: Storage>(
        context: &CpuContext,
        some: Activations<'_>,
        (n_steps, block_steps): (usize, usize),
        memory: &'a mut [f32],
    ) -> Packed<'a> {
        /// Floats that are worth a task.
        const TASK_FLOATS: usize = 1 << 16;
        let (m, groups) = (some.m(), Groups::of(some.m()));
        let n_together = (TASK_FLOATS / (ROWS_MAX * T::X_FLOATS * n_steps)).max(1);
        let shared = DisjointMut::new(&mut *memory);
        context.for_each(groups.len().div_ceil(n_together), |task| {
            for group in task * n_together..((task + 1) * n_together).min(groups.len()) {
                let rows = groups.first_row(group)..groups.first_row(group + 1);
                for first in (0..n_steps).step_by(block_steps) {
                    let n = T::X_FLOATS * block_steps.min(n_steps - first);
                    let at = T::X_FLOATS * first * m + n * rows.start;
                    // SAFETY: no other task has this group.
                    let to = unsafe { shared.part(at, n * rows.len()) };
                    let x: [&[f32]; ROWS_MAX] = std::array::from_fn(|idx| {
                        let row = some.row((rows.start + idx).min(rows.end - 1));
                        &row[row.len().min(2 * first)..]
                    });
                    match rows.len() {
                        1 => pack::<T, 1>(&x, to),
                        2 => pack::<T, 2>(&x, to),
                        3 => pack::<T, 3>(&x, to),
                        4 => pack::<T, 4>(&x, to),
                        5 => pack::<T, 5>(&x, to),
                        _ => pack::<T, 6>(&x, to),
                    }
                }
            }
        });
        Packed {
            floats: memory,
            groups,
            n_steps,
            block_steps,
        }
    }

    /// The groups.
    pub(super) fn groups(&self) -> Groups {
        self.groups
    }

    /// Steps of each block but the last.
    pub(super) fn block_steps(&self) -> usize {
        self.block_steps
    }

    /// The activations of a group in the block of steps that begins with `first_step`.
    pub(super) fn group<T: Storage>(&self, group: usize, first_step: usize) -> &[f32] {
        let n = T::X_FLOATS * self.block_steps.min(self.n_steps - first_step);
        let block = &self.floats[T::X_FLOATS * first_step * self.groups.m..];
        &block[n * self.groups.first_row(group)..n * self.groups.first_row(group + 1)]
    }
}

/// Packs the first `R` rows of `x`, of which those of zeros are written that `to` has room for.
fn pack<T: Storage, const R: usize>(x: &[&[f32]; ROWS_MAX], to: &mut [f32]) {
    // Columns of a float that is read as one.
    let n_together = 2 / T::X_FLOATS;
    let n_whole = (x[0].len() / n_together).min(to.len() / R);
    let (whole, rest) = to.split_at_mut(n_whole * R);
    let x: [&[f32]; R] = std::array::from_fn(|r| &x[r][..x[0].len()]);
    for (column, to) in whole.chunks_exact_mut(R).enumerate() {
        for r in 0..R {
            to[r] = match n_together {
                1 => x[r][column],
                _ => paired(x[r][2 * column], x[r][2 * column + 1]),
            };
        }
    }
    rest.fill(0.0);
    if n_together == 2 && x[0].len() % 2 == 1 && !rest.is_empty() {
        for r in 0..R {
            rest[r] = paired(x[r][x[r].len() - 1], 0.0);
        }
    }
}

/// Two numbers in bf16, as the bits of a float.
fn paired(first: f32, second: f32) -> f32 {
    f32::from_bits(bf16::pair(first, second))
}
