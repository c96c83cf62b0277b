//! Rows of a table on the CPU, by the calling thread: copying is bound by memory.

use super::Embed;
use crate::cpu::context::CpuContext;
use crate::cpu::simd::{Simd, SimdTask};
use crate::weight::Elements;

pub(super) fn run(context: &CpuContext, op: Embed<'_>) {
    match op.table.elements() {
        Elements::F32(elements) => context.run(Gather { op, elements }),
        Elements::F16(elements) => context.run(Gather { op, elements }),
        Elements::BF16(elements) => context.run(Gather { op, elements }),
    }
}

/// The rows, by one thread.
struct Gather<'a, W> {
    op: Embed<'a>,
    elements: &'a [W],
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
            let place = table.row_place(id as usize);
            for (idx, out) in out.chunks_mut(place.run).enumerate() {
                let run = &self.elements[place.first + idx * place.step..][..out.len()];
                then.write(out, |i| run[i].into());
            }
        }
    }
}
