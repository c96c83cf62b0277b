//! The state of an online softmax (Milakov and Gimelshein 2018) of some rows, and how two of them become one.

/// Largest scores, sums of weights relative to them, and values weighted so.
pub(super) struct Softmax<'a> {
    /// Weighted values. `[n_rows, value_stride]`
    pub(super) sums: &'a mut [f32],
    /// Largest score. `[n_rows]`
    pub(super) max: &'a mut [f32],
    /// Sum of the weights. `[n_rows]`
    pub(super) total: &'a mut [f32],
}

impl<'a> Softmax<'a> {
    /// Floats that a state takes.
    pub(super) fn n_floats(n_rows: usize, value_stride: usize) -> usize {
        n_rows * (value_stride + 2)
    }

    /// Lays out the memory, which holds anything; `memory` becomes what follows.
    pub(super) fn within(memory: &mut &'a mut [f32], n_rows: usize, value_stride: usize) -> Softmax<'a> {
        Softmax {
            sums: take(memory, n_rows * value_stride),
            max: take(memory, n_rows),
            total: take(memory, n_rows),
        }
    }

    /// Before any score.
    pub(super) fn clear(&mut self) {
        self.sums.fill(0.0);
        self.max.fill(f32::NEG_INFINITY);
        self.total.fill(0.0);
    }

    /// Adds what later positions gave.
    pub(super) fn merge(&mut self, later: &Softmax<'_>) {
        let value_stride = self.sums.len() / self.max.len();
        let sums = self.sums.chunks_exact_mut(value_stride);
        for (row, (sums, more)) in sums.zip(later.sums.chunks_exact(value_stride)).enumerate() {
            // A row that saw nothing adds nothing.
            if later.max[row] == f32::NEG_INFINITY {
                continue;
            }
            let max = self.max[row].max(later.max[row]);
            let (shrink, shrink_more) = ((self.max[row] - max).exp(), (later.max[row] - max).exp());
            for (sum, more) in sums.iter_mut().zip(more) {
                *sum = *sum * shrink + more * shrink_more;
            }
            self.max[row] = max;
            self.total[row] = self.total[row] * shrink + later.total[row] * shrink_more;
        }
    }
}

/// The first `n` floats of `memory`, which becomes the rest.
pub(super) fn take<'a>(memory: &mut &'a mut [f32], n: usize) -> &'a mut [f32] {
    let (first, rest) = std::mem::take(memory).split_at_mut(n);
    *memory = rest;
    first
}
