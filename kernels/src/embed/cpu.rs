//! Rows of a table on the CPU, by the calling thread: copying is bound by memory.

use super::Embed;
use crate::cpu::context::CpuContext;
use crate::cpu::simd::{Simd, SimdTask};
use crate::weight::Rows;

pub(super) fn run(context: &CpuContext, op: Embed<'_>) {
    match op.table.rows() {
        Rows::F32(rows) => context.run(Gather { op, rows }),
        Rows::F16(rows) => context.run(Gather { op, rows }),
        Rows::BF16(rows) => context.run(Gather { op, rows }),
    }
}

/// The rows, by one thread.
struct Gather<'a, W> {
    op: Embed<'a>,
    rows: &'a [W],
}

impl<W: Copy + Into<f32>> SimdTask for Gather<'_, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        let Embed {
            table,
            ids,
            out,
            then,
        } = self.op;
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(table.n_cols())) {
            let row = &self.rows[id as usize * table.row_stride()..][..out.len()];
            then.write(out, |i| row[i].into());
        }
    }
}
