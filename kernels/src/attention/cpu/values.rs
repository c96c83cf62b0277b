//! The weights of a tile's rows, and the values that they weigh.

use std::ops::Range;

use super::micro;
use super::rows::{ROWS_DIRECT, ROWS_FEW, block_rows, each_row_block};
use super::softmax::Softmax;
use super::tile::{POSITIONS, State, Tile};
use crate::cpu::simd::{Element, LANES_MAX, Simd};
use crate::kv_cache::{KvDType, KvElement};

impl<E: KvElement> Tile<'_, E> {
    /// Masks the scores, turns them into weights relative to the largest so far, and adds those up.
    #[inline(always)]
    pub(super) fn softmax<S: Simd>(
        &self,
        simd: S,
        first: usize,
        (state, part): (&mut State<'_>, &mut Softmax<'_>),
    ) {
        for (row, all) in state.weights.chunks_exact_mut(POSITIONS).enumerate() {
            let seen = self.seen_from(first, row..row + 1);
            if seen.is_empty() {
                // No weight, and nothing to shrink.
                all.fill(0.0);
                state.shrink[row] = 1.0;
                continue;
            }
            // The vectors with a score that is seen; the others were not computed.
            let begin = seen.start - seen.start % S::LANES;
            let end = seen.end.next_multiple_of(S::LANES);
            all[..begin].fill(0.0);
            all[end..].fill(0.0);
            all[begin..seen.start].fill(f32::NEG_INFINITY);
            all[seen.end..end].fill(f32::NEG_INFINITY);
            let weights = &mut all[begin..end];
            let old = part.max[row];
            let max = old.max(largest(simd, weights));
            if max == f32::NEG_INFINITY {
                weights.fill(0.0);
                state.shrink[row] = 1.0;
                continue;
            }
            let mut total = simd.splat(0.0);
            for weights in weights.chunks_exact_mut(S::LANES) {
                let v = simd.exp(simd.sub(simd.load_slice(weights), simd.splat(max)));
                total = simd.add(total, v);
                simd.store_slice(weights, v);
            }
            let shrink = if max == old { 1.0 } else { (old - max).exp() };
            state.shrink[row] = shrink;
            part.max[row] = max;
            part.total[row] = part.total[row] * shrink + simd.sum(total);
        }
    }

    /// Adds the weighted values to the sums.
    #[inline(always)]
    pub(super) fn weigh_values<S: Simd>(
        &self,
        simd: S,
        positions: &Range<usize>,
        (state, part): (&mut State<'_>, &mut Softmax<'_>),
    ) {
        let first = positions.start - positions.start % POSITIONS;
        let step = self.shared.numbers.value_step();
        let mut values = [std::ptr::null::<E>(); POSITIONS];
        for position in positions.clone() {
            let (block, offset) = self.slot(position);
            let of_head = self.shared.numbers.values(block, self.kv_head);
            values[position - first] = of_head[offset * step..][..self.value_stride()].as_ptr();
        }
        let (n_rows, n_vectors) = (self.n_rows(), self.value_stride() / S::LANES);
        let mut v = 0;
        while v < n_vectors {
            let at = v * S::LANES;
            if n_rows <= ROWS_FEW && v + 4 <= n_vectors {
                self.weigh_rows::<S, E, 4>(
                    simd,
                    Place { first, at },
                    Values { rows: &values, at },
                    (state, part),
                );
                v += 4;
            } else if v + 2 > n_vectors {
                self.weigh_rows::<S, E, 1>(
                    simd,
                    Place { first, at },
                    Values { rows: &values, at },
                    (state, part),
                );
                v += 1;
            } else if n_rows <= ROWS_DIRECT || E::DTYPE == KvDType::F32 {
                self.weigh_rows::<S, E, 2>(
                    simd,
                    Place { first, at },
                    Values { rows: &values, at },
                    (state, part),
                );
                v += 2;
            } else {
                let mut widened = [std::ptr::null::<f32>(); POSITIONS];
                let strip = state.strip.chunks_exact_mut(2 * S::LANES);
                for (i, to) in strip.take(positions.end - first).enumerate() {
                    if i + first < positions.start {
                        continue;
                    }
                    for c in 0..2 {
                        // SAFETY: the value has these two vectors.
                        let v = unsafe { E::load(simd, values[i].add(at + c * S::LANES)) };
                        simd.store_slice(&mut to[c * S::LANES..], v);
                    }
                    widened[i] = to.as_ptr();
                }
                self.weigh_rows::<S, f32, 2>(
                    simd,
                    Place { first, at },
                    Values {
                        rows: &widened,
                        at: 0,
                    },
                    (state, part),
                );
                v += 2;
            }
        }
    }

    /// The same for `C` vectors of the values.
    #[inline(always)]
    fn weigh_rows<S: Simd, B: Element, const C: usize>(
        &self,
        simd: S,
        Place { first, at }: Place,
        values: Values<'_, B>,
        (state, part): (&mut State<'_>, &mut Softmax<'_>),
    ) {
        let value_stride = self.value_stride();
        each_row_block!(S, self.n_rows(), |row, R| {
            let seen = self.seen_from(first, row..row + R);
            if !seen.is_empty() {
                let mut sums = [[simd.splat(0.0); C]; R];
                for r in 0..R {
                    let shrink = simd.splat(state.shrink[row + r]);
                    for c in 0..C {
                        let from = &part.sums[(row + r) * value_stride + at + c * S::LANES..];
                        sums[r][c] = simd.mul(simd.load_slice(from), shrink);
                    }
                }
                let weights: [*const f32; R] = std::array::from_fn(|r| {
                    state.weights[(row + r) * POSITIONS..][..POSITIONS][seen.start..].as_ptr()
                });
                // SAFETY: the rows see these positions, so their values were found, each with all its vectors.
                unsafe {
                    let values = (&values.rows[seen.clone()], values.at);
                    micro::weigh::<S, B, R, C>(simd, weights, values, &mut sums);
                }
                for r in 0..R {
                    for c in 0..C {
                        let to = &mut part.sums[(row + r) * value_stride + at + c * S::LANES..];
                        simd.store_slice(to, sums[r][c]);
                    }
                }
            }
        });
    }
}

/// Which sums are computed.
#[derive(Clone, Copy)]
struct Place {
    /// The first position of the tile.
    first: usize,
    /// The first element of the sums.
    at: usize,
}

/// Where the values of the positions of a tile are.
struct Values<'a, B> {
    /// Null for positions that no row sees.
    rows: &'a [*const B; POSITIONS],
    /// The first element, counted from there.
    at: usize,
}

/// The largest of some scores.
#[inline(always)]
fn largest<S: Simd>(simd: S, scores: &[f32]) -> f32 {
    let mut max = simd.splat(f32::NEG_INFINITY);
    for scores in scores.chunks_exact(S::LANES) {
        max = simd.max(max, simd.load_slice(scores));
    }
    let mut lanes = [f32::NEG_INFINITY; LANES_MAX];
    simd.store_slice(&mut lanes, max);
    lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
}
