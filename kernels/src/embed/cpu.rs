//! Rows of a table on the CPU, by the calling thread: copying is bound by memory.

use crate::weight::{Rows, Weight};

pub(super) fn run(table: &Weight, ids: &[u32], out: &mut [f32]) {
    match table.rows() {
        Rows::F32(rows) => gather(rows, table, ids, out),
        Rows::F16(rows) => gather(rows, table, ids, out),
        Rows::BF16(rows) => gather(rows, table, ids, out),
    }
}

fn gather<W: Copy + Into<f32>>(rows: &[W], table: &Weight, ids: &[u32], out: &mut [f32]) {
    for (&id, out) in ids.iter().zip(out.chunks_exact_mut(table.n_cols())) {
        let row = &rows[id as usize * table.row_stride()..];
        for (out, &value) in out.iter_mut().zip(row) {
            *out = value.into();
        }
    }
}
