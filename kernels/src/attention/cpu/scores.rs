//! The scores of a tile's rows and some positions.

use std::ops::Range;

use super::micro;
use super::rows::{ROWS_DIRECT, ROWS_FEW, block_rows, each_row_block};
use super::tile::{POSITIONS, State, Tile};
use crate::attention::{BiasValues, Scores};
use crate::cpu::simd::{Element, Simd};
use crate::kv_cache::{KvDType, KvElement};

impl<E: KvElement> Tile<'_, E> {
    /// The scores of every row and position: products of some rows and some vectors of positions at a time.
    #[inline(always)]
    pub(super) fn scores<S: Simd>(&self, simd: S, positions: &Range<usize>, state: &mut State<'_>) {
        let n_rows = self.n_rows();
        let is_direct = self.has_vectors::<S>();
        if is_direct && n_rows <= ROWS_FEW {
            self.score_stored::<S, 4>(simd, positions, state);
        } else if is_direct && (n_rows <= ROWS_DIRECT || E::DTYPE == KvDType::F32) {
            self.score_stored::<S, 2>(simd, positions, state);
        } else {
            self.score_widened(simd, positions, state);
        }
    }

    /// Whether `LANES` positions of an element of the keys lie side by side.
    fn has_vectors<S: Simd>(&self) -> bool {
        let block_size = self.shared.cache.block_size();
        self.shared.numbers.key_steps().position == 1 && block_size.is_multiple_of(S::LANES)
    }

    /// Reads the keys as they are stored, `C` vectors at a time.
    #[inline(always)]
    fn score_stored<S: Simd, const C: usize>(
        &self,
        simd: S,
        positions: &Range<usize>,
        state: &mut State<'_>,
    ) {
        let (first, vectors) = vectors_of::<S>(positions);
        let step = self.shared.numbers.key_steps().element;
        for v in vectors.clone().step_by(C) {
            let keys: [*const E; C] = std::array::from_fn(|c| {
                // After the last vector it is read again, and its scores are dropped.
                self.key_vector::<S>(first + (v + c).min(vectors.end - 1) * S::LANES)
            });
            let columns = Columns {
                first,
                at: v * S::LANES,
                n: C.min(vectors.end - v),
            };
            self.score_rows(simd, columns, Keys { columns: keys, step }, state);
        }
    }

    /// Widens two vectors of the keys, and reads those.
    #[inline(always)]
    fn score_widened<S: Simd>(&self, simd: S, positions: &Range<usize>, state: &mut State<'_>) {
        let (first, vectors) = vectors_of::<S>(positions);
        let step = 2 * S::LANES;
        for v in vectors.clone().step_by(2) {
            let columns = Columns {
                first,
                at: v * S::LANES,
                n: 2.min(vectors.end - v),
            };
            let at = first + columns.at;
            if self.has_vectors::<S>() {
                self.widen_vectors(simd, at, (columns.n, state));
            } else {
                self.widen_positions(
                    at.max(positions.start)..positions.end.min(at + step),
                    (at, step),
                    state,
                );
            }
            let strip = state.strip.as_ptr();
            // SAFETY: the strip holds two vectors of each element.
            let keys = [strip, unsafe { strip.add(S::LANES) }];
            self.score_rows(simd, columns, Keys { columns: keys, step }, state);
        }
    }

    /// Where the vector of the first element of the keys from `position` on is stored.
    fn key_vector<S: Simd>(&self, position: usize) -> *const E {
        let (block, offset) = self.slot(position);
        let keys = self.shared.numbers.keys(block, self.kv_head);
        assert!(
            offset + S::LANES <= self.shared.cache.block_size(),
            "a vector of one block"
        );
        keys[offset..].as_ptr()
    }

    /// Widens vectors of positions from `at` on into the strip.
    #[inline(always)]
    fn widen_vectors<S: Simd>(&self, simd: S, at: usize, (n, state): (usize, &mut State<'_>)) {
        let step = self.shared.numbers.key_steps().element;
        for c in 0..n {
            let from = self.key_vector::<S>(at + c * S::LANES);
            for (k, to) in state
                .strip
                .chunks_exact_mut(2 * S::LANES)
                .take(self.key_dim())
                .enumerate()
            {
                // SAFETY: the block has a vector of each element of the key at this step.
                let v = unsafe { E::load(simd, from.add(k * step)) };
                simd.store_slice(&mut to[c * S::LANES..], v);
            }
        }
    }

    /// Widens the keys of some positions one by one into a strip that starts at the position `at`.
    fn widen_positions(&self, positions: Range<usize>, (at, step): (usize, usize), state: &mut State<'_>) {
        let steps = self.shared.numbers.key_steps();
        for position in positions {
            let (block, offset) = self.slot(position);
            let keys = &self.shared.numbers.keys(block, self.kv_head)[offset * steps.position..];
            let to = &mut state.strip[position - at..];
            for k in 0..self.key_dim() {
                to[k * step] = keys[k * steps.element].widened();
            }
        }
    }

    /// The scores of all rows that see some of the columns.
    #[inline(always)]
    fn score_rows<S: Simd, B: Element, const C: usize>(
        &self,
        simd: S,
        columns: Columns,
        keys: Keys<B, C>,
        state: &mut State<'_>,
    ) {
        let key_dim = self.key_dim();
        each_row_block!(S, self.n_rows(), |row, R| {
            let seen = self.seen_from(columns.first, row..row + R);
            if seen.start < columns.at + C * S::LANES && columns.at < seen.end {
                let q: [*const f32; R] =
                    std::array::from_fn(|r| state.q[(row + r) * key_dim..][..key_dim].as_ptr());
                // SAFETY: each row of q has `key_dim` floats, and each of the columns a vector for each of them.
                let sums =
                    unsafe { micro::scores::<S, B, R, C>(simd, q, keys.columns, (key_dim, keys.step)) };
                for r in 0..R {
                    let to = &mut state.weights[(row + r) * POSITIONS..][..POSITIONS];
                    for c in 0..C {
                        if c < columns.n {
                            simd.store_slice(&mut to[columns.at + c * S::LANES..], sums[r][c]);
                        }
                    }
                }
            }
        });
    }

    /// Caps the scores, and takes off what distance takes off, where the model does.
    #[inline(always)]
    pub(super) fn reshape_scores<S: Simd>(&self, simd: S, first: usize, state: &mut State<'_>) {
        let Scores {
            softcap,
            alibi_slopes,
            relative,
            ..
        } = self.shared.scores;
        if softcap.is_none() && alibi_slopes.is_none() && relative.is_none() {
            return;
        }
        for (row, scores) in state.weights.chunks_exact_mut(POSITIONS).enumerate() {
            if let Some(cap) = softcap {
                for scores in scores.chunks_exact_mut(S::LANES) {
                    let v = simd.mul(simd.load_slice(scores), simd.splat(1.0 / cap));
                    simd.store_slice(scores, simd.mul(simd.tanh(v), simd.splat(cap)));
                }
            }
            if let Some(slopes) = alibi_slopes {
                let slope = slopes[self.head(row)];
                let distance = self.position(row) as f32 - first as f32;
                for (i, score) in scores.iter_mut().enumerate() {
                    *score -= slope * (distance - i as f32);
                }
            }
            if let Some(bias) = relative {
                let reach = bias.buckets.len() / 2;
                for (i, score) in scores.iter_mut().enumerate() {
                    let ahead = (first + i + reach).saturating_sub(self.position(row));
                    let bucket = usize::from(bias.buckets[ahead.min(2 * reach)]);
                    *score += self.bias(bias.values, bucket, row, first + i);
                }
            }
        }
    }

    /// What the distance to the key at `position` adds to the score of a row. After the last position it is the last one's.
    fn bias(&self, values: BiasValues<'_>, bucket: usize, row: usize, position: usize) -> f32 {
        let (n_heads, head) = (self.shared.n_heads, self.head(row));
        match values {
            BiasValues::Table(values) => values[bucket * n_heads + head],
            BiasValues::OfTokens {
                queries,
                keys,
                n_buckets,
            } => {
                let of = |values: Option<&[f32]>, position: usize| {
                    let token = self.queries.first_token + position - self.queries.first_position;
                    values.map_or(0.0, |values| {
                        values[(token * n_heads + head) * n_buckets + bucket]
                    })
                };
                let position = position.min(self.queries.context_len - 1);
                let sum = of(queries, self.position(row)) + of(keys, position);
                self.shared.scores.scale * sum
            }
        }
    }
}

/// Neighbouring positions of a tile.
#[derive(Clone, Copy)]
struct Columns {
    /// The first position of the tile.
    first: usize,
    /// The first of these, counted from that.
    at: usize,
    /// How many vectors of them.
    n: usize,
}

/// Vectors of positions of the first element of the keys.
struct Keys<B, const C: usize> {
    columns: [*const B; C],
    /// Numbers from an element to the next.
    step: usize,
}

/// The first position of the tile, and which of its vectors hold some of `positions`.
fn vectors_of<S: Simd>(positions: &Range<usize>) -> (usize, Range<usize>) {
    let first = positions.start - positions.start % POSITIONS;
    let begin = (positions.start - first) / S::LANES;
    let end = (positions.end - first).div_ceil(S::LANES);
    (first, begin..end)
}
