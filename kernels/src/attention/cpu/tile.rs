//! One tile of attention: some neighbouring queries of a sequence against one head of the cache.

use std::ops::Range;

use super::Queries;
use crate::attention::{BiasValues, Mask, Scores};
use crate::cpu::disjoint::DisjointMut;
use crate::cpu::simd::{DotRows, LANES_MAX, Simd, SimdTask, dot_tile};
use crate::kv_cache::{KvCache, KvElement, KvNumbers, Slot};

/// Positions whose scores are computed before the softmax moves on.
const POSITIONS: usize = 32;

/// What all tiles of a call share.
pub(super) struct Shared<'a, E> {
    pub(super) q: &'a [f32],
    pub(super) q_stride: usize,
    pub(super) n_heads: usize,
    /// Query heads per head of the cache.
    pub(super) group: usize,
    pub(super) cache: &'a KvCache,
    /// What is in it.
    pub(super) numbers: KvNumbers<'a, E>,
    pub(super) blocks: &'a [u32],
    pub(super) scores: Scores<'a>,
    pub(super) mask: Mask,
    pub(super) out: &'a DisjointMut<'a>,
}

/// The work of one task.
pub(super) struct Tile<'a, E> {
    pub(super) shared: &'a Shared<'a, E>,
    pub(super) queries: Queries,
    pub(super) kv_head: usize,
    pub(super) scratch: &'a mut [f32],
}

/// State of the softmax of a tile; a row is one head of one query: `query * group + head`.
pub(super) struct State<'a> {
    /// Queries, scaled, followed by zeros. `[n_rows, key_stride]`
    q: &'a mut [f32],
    /// Weighted values so far. `[n_rows, value_stride]`
    sums: &'a mut [f32],
    /// Scores, then weights, of the current positions. `[n_rows, POSITIONS]`
    weights: &'a mut [f32],
    /// Largest score so far. `[n_rows]`
    max: &'a mut [f32],
    /// Sum of the weights so far. `[n_rows]`
    total: &'a mut [f32],
    /// What the last new maximum shrinks the sums by. `[n_rows]`
    shrink: &'a mut [f32],
}

impl<'a> State<'a> {
    /// Floats that a state of `n_rows` rows takes.
    pub(super) fn n_floats(n_rows: usize, cache: &KvCache) -> usize {
        n_rows * (cache.key_stride() + cache.value_stride() + POSITIONS + 3)
    }

    /// Lays out the memory; it holds anything.
    fn within(scratch: &'a mut [f32], n_rows: usize, cache: &KvCache) -> State<'a> {
        let (q, rest) = scratch.split_at_mut(n_rows * cache.key_stride());
        let (sums, rest) = rest.split_at_mut(n_rows * cache.value_stride());
        let (weights, rest) = rest.split_at_mut(n_rows * POSITIONS);
        let (max, rest) = rest.split_at_mut(n_rows);
        let (total, rest) = rest.split_at_mut(n_rows);
        State {
            q,
            sums,
            weights,
            max,
            total,
            shrink: &mut rest[..n_rows],
        }
    }
}

impl<E: KvElement> SimdTask for Tile<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let n_rows = self.queries.n_queries * self.shared.group;
        let scratch = std::mem::take(&mut self.scratch);
        let mut state = State::within(scratch, n_rows, self.shared.cache);
        self.begin(&mut state);
        let first_seen = self.seen_by(0).start;
        let end = self.seen_by(self.queries.n_queries - 1).end;
        let mut first = first_seen - first_seen % POSITIONS;
        while first < end {
            let positions = first..end.min(first + POSITIONS);
            self.scores(simd, &positions, &mut state);
            self.reshape_scores(simd, &positions, &mut state);
            self.softmax(simd, &positions, &mut state);
            self.weigh_values(simd, &positions, &mut state);
            first += POSITIONS;
        }
        self.finish(&state);
    }
}

impl<E: KvElement> Tile<'_, E> {
    /// The state before any position was seen.
    fn begin(&self, state: &mut State<'_>) {
        let Shared {
            q,
            q_stride,
            group,
            cache,
            scores,
            ..
        } = *self.shared;
        let (key_dim, key_stride) = (cache.key_dim(), cache.key_stride());
        for (row, to) in state.q.chunks_exact_mut(key_stride).enumerate() {
            let token = self.queries.first_token + row / group;
            let from = token * q_stride + self.head(row) * key_dim;
            for (to, from) in to.iter_mut().zip(&q[from..from + key_dim]) {
                *to = from * scores.scale;
            }
            to[key_dim..].fill(0.0);
        }
        state.sums.fill(0.0);
        state.shrink.fill(1.0);
        // A sink is a score that was seen before all others: it weighs 1 relative to itself.
        for (row, (max, total)) in state.max.iter_mut().zip(&mut *state.total).enumerate() {
            match scores.sinks.map(|sinks| sinks[self.head(row)]) {
                Some(sink) => (*max, *total) = (sink, 1.0),
                None => (*max, *total) = (f32::NEG_INFINITY, 0.0),
            }
        }
    }

    /// The query head of a row.
    fn head(&self, row: usize) -> usize {
        self.kv_head * self.shared.group + row % self.shared.group
    }

    /// The position of a row's query in its sequence.
    fn position(&self, row: usize) -> usize {
        self.queries.first_position + row / self.shared.group
    }

    /// Positions that the query `idx` of the tile sees.
    fn seen_by(&self, idx: usize) -> Range<usize> {
        let position = self.queries.first_position + idx;
        self.shared.mask.seen(position, self.queries.context_len)
    }

    /// The slot of `position`. For a position before all that the tile's queries see, the slot of the first one that they
    /// see: the block of the other may belong to another sequence by now, and its score is masked.
    fn slot(&self, position: usize) -> Slot {
        let block_size = self.shared.cache.block_size();
        let position = position.max(self.seen_by(0).start);
        Slot {
            block: self.shared.blocks[self.queries.first_block + position / block_size] as usize,
            offset: position % block_size,
        }
    }

    /// The scores of every row and position, as products of four rows and four keys.
    #[inline(always)]
    fn scores<S: Simd>(&self, simd: S, positions: &Range<usize>, state: &mut State<'_>) {
        let n_rows = state.max.len();
        for at in (0..positions.len()).step_by(4) {
            let n_keys = 4.min(positions.len() - at);
            // After the last position its key is read again and the product dropped.
            let keys: [&[E]; 4] = std::array::from_fn(|i| {
                let slot = self.slot(positions.start + at + i.min(n_keys - 1));
                self.shared.numbers.key(slot, self.kv_head)
            });
            let mut row = 0;
            while row < n_rows {
                if S::TILE_ROWS == 4 && row + 4 <= n_rows {
                    score_tile::<S, E, 4>(simd, Corner { row, at }, keys, state);
                    row += 4;
                } else if S::TILE_ROWS >= 2 && row + 2 <= n_rows {
                    score_tile::<S, E, 2>(simd, Corner { row, at }, keys, state);
                    row += 2;
                } else {
                    score_tile::<S, E, 1>(simd, Corner { row, at }, keys, state);
                    row += 1;
                }
            }
        }
    }

    /// Caps the scores, and takes off what distance takes off, where the model does.
    #[inline(always)]
    fn reshape_scores<S: Simd>(&self, simd: S, positions: &Range<usize>, state: &mut State<'_>) {
        let Scores {
            softcap,
            alibi_slopes,
            relative,
            ..
        } = self.shared.scores;
        for (row, scores) in state.weights.chunks_exact_mut(POSITIONS).enumerate() {
            if let Some(cap) = softcap {
                for scores in scores.chunks_exact_mut(S::LANES) {
                    let v = simd.mul(simd.load_slice(scores), simd.splat(1.0 / cap));
                    simd.store_slice(scores, simd.mul(simd.tanh(v), simd.splat(cap)));
                }
            }
            if let Some(slopes) = alibi_slopes {
                let slope = slopes[self.head(row)];
                let distance = self.position(row) as f32 - positions.start as f32;
                for (i, score) in scores.iter_mut().enumerate() {
                    *score -= slope * (distance - i as f32);
                }
            }
            if let Some(bias) = relative {
                let reach = bias.buckets.len() / 2;
                for (i, score) in scores.iter_mut().enumerate() {
                    let ahead = (positions.start + i + reach).saturating_sub(self.position(row));
                    let bucket = usize::from(bias.buckets[ahead.min(2 * reach)]);
                    *score += self.bias(bias.values, bucket, row, positions.start + i);
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

    /// Masks the scores, turns them into weights relative to the largest so far, and adds those up.
    #[inline(always)]
    fn softmax<S: Simd>(&self, simd: S, positions: &Range<usize>, state: &mut State<'_>) {
        for (row, weights) in state.weights.chunks_exact_mut(POSITIONS).enumerate() {
            let seen = self.seen_by(row / self.shared.group);
            let from = seen.start.clamp(positions.start, positions.end) - positions.start;
            let to = seen.end.clamp(positions.start, positions.end) - positions.start;
            weights[..from].fill(f32::NEG_INFINITY);
            weights[to.max(from)..].fill(f32::NEG_INFINITY);
            let max = state.max[row].max(largest(simd, weights));
            if max == f32::NEG_INFINITY {
                // Nothing seen yet: no weight, and nothing to shrink.
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
            state.shrink[row] = (state.max[row] - max).exp();
            state.max[row] = max;
            state.total[row] = state.total[row] * state.shrink[row] + simd.sum(total);
        }
    }

    /// Adds the weighted values to the sums.
    #[inline(always)]
    fn weigh_values<S: Simd>(&self, simd: S, positions: &Range<usize>, state: &mut State<'_>) {
        let values: [&[E]; POSITIONS] = std::array::from_fn(|i| {
            let slot = self.slot((positions.start + i).min(positions.end - 1));
            self.shared.numbers.value(slot, self.kv_head)
        });
        let values = &values[..positions.len()];
        let n_rows = state.max.len();
        let mut row = 0;
        while row < n_rows {
            if S::TILE_ROWS >= 2 && row + 4 <= n_rows {
                weigh_tile::<S, E, 4>(simd, row, values, state);
                row += 4;
            } else {
                weigh_tile::<S, E, 1>(simd, row, values, state);
                row += 1;
            }
        }
    }

    /// Divides by the total weight and writes the result.
    fn finish(&self, state: &State<'_>) {
        let Shared {
            n_heads,
            group,
            cache,
            out,
            ..
        } = *self.shared;
        let value_dim = cache.value_dim();
        for (row, sums) in state.sums.chunks_exact(cache.value_stride()).enumerate() {
            let token = self.queries.first_token + row / group;
            let at = (token * n_heads + self.head(row)) * value_dim;
            // SAFETY: no other tile has this token and head.
            let out = unsafe { out.part(at, value_dim) };
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum / state.total[row];
            }
        }
    }
}

/// Where a register tile starts.
#[derive(Clone, Copy)]
struct Corner {
    /// The first row.
    row: usize,
    /// The first position, or the first element of the head.
    at: usize,
}

/// The scores of rows `row .. row + R` with four keys, whose positions are `at ..` in the tile's.
#[inline(always)]
fn score_tile<S: Simd, E: KvElement, const R: usize>(
    simd: S,
    corner: Corner,
    keys: [&[E]; 4],
    state: &mut State<'_>,
) {
    let Corner { row, at } = corner;
    let head_stride = keys[0].len();
    let q: [&[f32]; R] = std::array::from_fn(|r| &state.q[(row + r) * head_stride..][..head_stride]);
    let mut sums = [[simd.splat(0.0); 4]; R];
    let pointers = DotRows {
        x: q.map(<[f32]>::as_ptr),
        w: keys.map(<[E]>::as_ptr),
    };
    // SAFETY: every slice has head_stride elements, a multiple of LANES_MAX and so of LANES.
    unsafe { dot_tile(simd, pointers, head_stride / S::LANES, &mut sums) };
    for r in 0..R {
        let scores = simd.sum4(sums[r]);
        state.weights[(row + r) * POSITIONS + at..][..4].copy_from_slice(&scores);
    }
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

/// Adds the weighted values to the sums of rows `row .. row + R`, two vectors of the head at a time.
#[inline(always)]
fn weigh_tile<S: Simd, E: KvElement, const R: usize>(
    simd: S,
    row: usize,
    values: &[&[E]],
    state: &mut State<'_>,
) {
    let head_stride = state.sums.len() / state.max.len();
    let mut at = 0;
    while at + 2 * S::LANES <= head_stride {
        weigh_columns::<S, E, R, 2>(simd, Corner { row, at }, values, state);
        at += 2 * S::LANES;
    }
    while at < head_stride {
        weigh_columns::<S, E, R, 1>(simd, Corner { row, at }, values, state);
        at += S::LANES;
    }
}

/// The same for `C` vectors of the head from `at` on.
#[inline(always)]
fn weigh_columns<S: Simd, E: KvElement, const R: usize, const C: usize>(
    simd: S,
    corner: Corner,
    values: &[&[E]],
    state: &mut State<'_>,
) {
    let Corner { row, at } = corner;
    let head_stride = state.sums.len() / state.max.len();
    let mut sums = [[simd.splat(0.0); C]; R];
    for r in 0..R {
        let shrink = simd.splat(state.shrink[row + r]);
        for c in 0..C {
            let from = &state.sums[(row + r) * head_stride + at + c * S::LANES..];
            sums[r][c] = simd.mul(simd.load_slice(from), shrink);
        }
    }
    let weights: [&[f32]; R] = std::array::from_fn(|r| &state.weights[(row + r) * POSITIONS..][..POSITIONS]);
    for (i, values) in values.iter().enumerate() {
        let mut v = [simd.splat(0.0); C];
        for c in 0..C {
            let from = &values[at + c * S::LANES..][..S::LANES];
            // SAFETY: `LANES` elements are readable.
            v[c] = unsafe { E::load(simd, from.as_ptr()) };
        }
        for r in 0..R {
            let weight = simd.splat(weights[r][i]);
            for c in 0..C {
                sums[r][c] = simd.mul_add(weight, v[c], sums[r][c]);
            }
        }
    }
    for r in 0..R {
        for c in 0..C {
            simd.store_slice(
                &mut state.sums[(row + r) * head_stride + at + c * S::LANES..],
                sums[r][c],
            );
        }
    }
}
