//! Rows on the CPU, by the calling thread: copying is bound by memory.

use super::CopyColumns;

pub(super) fn gather_rows(x: &[f32], rows: &[u32], out: &mut [f32]) {
    let d = out.len() / rows.len();
    for (&row, out) in rows.iter().zip(out.chunks_exact_mut(d)) {
        out.copy_from_slice(&x[row as usize * d..][..d]);
    }
}

pub(super) fn copy_columns(op: CopyColumns<'_>) {
    let CopyColumns {
        x,
        x_columns,
        width,
        out,
        out_columns,
    } = op;
    let from = x.chunks_exact(x_columns.row_stride);
    let to = out.chunks_exact_mut(out_columns.row_stride);
    for (from, to) in from.zip(to) {
        to[out_columns.first..][..width].copy_from_slice(&from[x_columns.first..][..width]);
    }
}

pub(super) fn mean_of_rows(x: &[f32], out: &mut [f32]) {
    let n_rows = (x.len() / out.len()) as f32;
    out.fill(0.0);
    for row in x.chunks_exact(out.len()) {
        out.iter_mut().zip(row).for_each(|(out, x)| *out += x);
    }
    out.iter_mut().for_each(|out| *out /= n_rows);
}
