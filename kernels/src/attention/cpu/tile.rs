//! One tile of attention: some rows, each a head of a query, against one head of the cache.

use std::ops::Range;

use super::softmax::{Softmax, take};
use crate::attention::{Mask, Scores};
use crate::cpu::disjoint::DisjointMut;
use crate::cpu::simd::{LANES_MAX, Simd, SimdTask};
use crate::kv_cache::{KvCache, KvElement, KvNumbers};

/// Neighbouring queries of one sequence.
#[derive(Clone, Copy, Debug)]
pub(in crate::attention) struct Queries {
    /// Row of the first in `q` and `out`.
    pub(super) first_token: usize,
    /// How many.
    pub(super) n_queries: usize,
    /// Position of the first in its sequence.
    pub(super) first_position: usize,
    /// Positions of the sequence that are in the cache.
    pub(super) context_len: usize,
    /// First of the sequence's blocks.
    pub(super) first_block: usize,
}

/// Positions whose scores are computed before the softmax moves on; tiles start at multiples of it.
pub(super) const POSITIONS: usize = 64;
/// Positions of a part of the context, a multiple of [`POSITIONS`]: a part has a softmax of its own, and those of a row's
/// parts are merged in their order.
pub(super) const PART: usize = 256;

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

/// Some queries, and the heads of a group that are computed together.
pub(super) struct Tile<'a, E> {
    pub(super) shared: &'a Shared<'a, E>,
    pub(super) queries: Queries,
    pub(super) kv_head: usize,
    /// The first of the heads, and how many.
    pub(super) heads: Range<usize>,
}

/// Computes all of a tile and writes its results.
pub(super) struct Whole<'a, E> {
    pub(super) tile: Tile<'a, E>,
    pub(super) scratch: &'a mut [f32],
}

/// Computes the softmax of one part of the context.
pub(super) struct PartOf<'a, E> {
    pub(super) tile: Tile<'a, E>,
    /// The number of the part.
    pub(super) part: usize,
    pub(super) scratch: &'a mut [f32],
    /// Where the result goes.
    pub(super) memory: &'a mut [f32],
}

/// Working memory of a tile.
pub(super) struct State<'a> {
    /// Queries, scaled. `[n_rows, key_dim]`
    pub(super) q: &'a mut [f32],
    /// Scores, then weights, of the current positions. `[n_rows, POSITIONS]`
    pub(super) weights: &'a mut [f32],
    /// What the last new maximum shrinks the sums by. `[n_rows]`
    pub(super) shrink: &'a mut [f32],
    /// Two vectors of each element of the keys, or of each value, in f32. `[max(key_dim, POSITIONS), 2 LANES]`
    pub(super) strip: &'a mut [f32],
}

/// Floats of working memory that a tile of `n_rows` takes, a softmax of one part and a merged one included.
pub(super) fn n_floats(n_rows: usize, cache: &KvCache) -> usize {
    let strip = cache.key_dim().max(POSITIONS) * 2 * LANES_MAX;
    n_rows * (cache.key_dim() + POSITIONS + 1) + strip + 2 * Softmax::n_floats(n_rows, cache.value_stride())
}

impl<E: KvElement> SimdTask for Whole<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Whole { tile, mut scratch } = self;
        let (n_rows, value_stride) = (tile.n_rows(), tile.shared.cache.value_stride());
        let mut state = tile.begin(&mut scratch);
        let mut part = Softmax::within(&mut scratch, n_rows, value_stride);
        let mut merged = Softmax::within(&mut scratch, n_rows, value_stride);
        tile.begin_merged(&mut merged);
        for number in tile.parts() {
            tile.part(simd, number, &mut state, &mut part);
            merged.merge(&part);
        }
        tile.finish(&merged);
    }
}

impl<E: KvElement> SimdTask for PartOf<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        let (n_rows, value_stride) = (self.tile.n_rows(), self.tile.shared.cache.value_stride());
        let mut state = self.tile.begin(&mut self.scratch);
        let mut part = Softmax::within(&mut self.memory, n_rows, value_stride);
        self.tile.part(simd, self.part, &mut state, &mut part);
    }
}

impl<E: KvElement> Tile<'_, E> {
    /// Rows: `query * n_heads + head`, of the tile's heads.
    pub(super) fn n_rows(&self) -> usize {
        self.queries.n_queries * self.heads.len()
    }

    /// The parts of the context that the queries see.
    pub(super) fn parts(&self) -> Range<usize> {
        let seen = self.seen_by_any(0..self.queries.n_queries);
        seen.start / PART..seen.end.div_ceil(PART)
    }

    /// Reads the queries into working memory.
    fn begin<'m>(&self, scratch: &mut &'m mut [f32]) -> State<'m> {
        let Shared {
            q,
            q_stride,
            cache,
            scores,
            ..
        } = *self.shared;
        let (n_rows, key_dim) = (self.n_rows(), cache.key_dim());
        let state = State {
            strip: take(scratch, key_dim.max(POSITIONS) * 2 * LANES_MAX),
            q: take(scratch, n_rows * key_dim),
            weights: take(scratch, n_rows * POSITIONS),
            shrink: take(scratch, n_rows),
        };
        for (row, to) in state.q.chunks_exact_mut(key_dim).enumerate() {
            let token = self.queries.first_token + row / self.heads.len();
            let from = token * q_stride + self.head(row) * key_dim;
            for (to, from) in to.iter_mut().zip(&q[from..from + key_dim]) {
                *to = from * scores.scale;
            }
        }
        state
    }

    /// A softmax of the sinks, if there are any.
    pub(super) fn begin_merged(&self, merged: &mut Softmax<'_>) {
        merged.clear();
        if let Some(sinks) = self.shared.scores.sinks {
            // A sink is a score that was seen before all others: it weighs 1 relative to itself.
            for (row, (max, total)) in merged.max.iter_mut().zip(&mut *merged.total).enumerate() {
                (*max, *total) = (sinks[self.head(row)], 1.0);
            }
        }
    }

    /// The softmax of one part of the context.
    #[inline(always)]
    fn part<S: Simd>(&self, simd: S, number: usize, state: &mut State<'_>, part: &mut Softmax<'_>) {
        part.clear();
        let seen = self.seen_by_any(0..self.queries.n_queries);
        let begin = seen.start.max(number * PART);
        let end = seen.end.min((number + 1) * PART);
        let mut first = begin - begin % POSITIONS;
        while first < end {
            let positions = begin.max(first)..end.min(first + POSITIONS);
            self.scores(simd, &positions, state);
            self.reshape_scores(simd, first, state);
            self.softmax(simd, first, (state, part));
            self.weigh_values(simd, &positions, (state, part));
            first += POSITIONS;
        }
    }

    /// The query head of a row.
    pub(super) fn head(&self, row: usize) -> usize {
        self.kv_head * self.shared.group + self.heads.start + row % self.heads.len()
    }

    /// The position of a row's query in its sequence.
    pub(super) fn position(&self, row: usize) -> usize {
        self.queries.first_position + row / self.heads.len()
    }

    /// Positions that the query `idx` of the tile sees.
    fn seen_by(&self, idx: usize) -> Range<usize> {
        let position = self.queries.first_position + idx;
        self.shared.mask.seen(position, self.queries.context_len)
    }

    /// Positions that at least one of some neighbouring queries sees.
    fn seen_by_any(&self, queries: Range<usize>) -> Range<usize> {
        self.seen_by(queries.start).start..self.seen_by(queries.end - 1).end
    }

    /// Of `first .. first + POSITIONS` those that some rows see, counted from `first`.
    pub(super) fn seen_from(&self, first: usize, rows: Range<usize>) -> Range<usize> {
        let n_heads = self.heads.len();
        let seen = self.seen_by_any(rows.start / n_heads..(rows.end - 1) / n_heads + 1);
        let within = |position: usize| position.clamp(first, first + POSITIONS) - first;
        within(seen.start)..within(seen.end)
    }

    /// The block of `position` and its place in it.
    pub(super) fn slot(&self, position: usize) -> (usize, usize) {
        let block_size = self.shared.cache.block_size();
        let block = self.shared.blocks[self.queries.first_block + position / block_size];
        (block as usize, position % block_size)
    }

    /// Divides by the total weight and writes the result.
    pub(super) fn finish(&self, merged: &Softmax<'_>) {
        let Shared {
            n_heads, cache, out, ..
        } = *self.shared;
        let value_dim = cache.value_dim();
        for (row, sums) in merged.sums.chunks_exact(cache.value_stride()).enumerate() {
            let token = self.queries.first_token + row / self.heads.len();
            let at = (token * n_heads + self.head(row)) * value_dim;
            // SAFETY: no other tile has this token and head.
            let out = unsafe { out.part(at, value_dim) };
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = sum / merged.total[row];
            }
        }
    }

    pub(super) fn key_dim(&self) -> usize {
        self.shared.cache.key_dim()
    }

    pub(super) fn value_stride(&self) -> usize {
        self.shared.cache.value_stride()
    }
}
