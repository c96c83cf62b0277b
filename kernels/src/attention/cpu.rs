//! Attention on the CPU: tiles of neighbouring queries over threads, or parts of their contexts if there are few tiles.

mod micro;
mod rows;
mod scores;
mod softmax;
mod tile;
mod values;

use super::{Attention, AttentionTiles};
use crate::cpu::context::CpuContext;
use crate::cpu::disjoint::DisjointMut;
use crate::kv_cache::{KvElement, with_element};

use softmax::Softmax;
pub(super) use tile::Queries;
use tile::{PartOf, Shared, Tile, Whole};

/// Rows (tokens times heads of a group) that share each pass over the keys and values.
const TILE_ROWS: usize = 64;
/// Heads of a group that are computed together.
const TILE_HEADS: usize = 32;
/// Tiles per thread from which on contexts are not cut.
const TILES_PER_THREAD: usize = 4;

/// A part of a tile's context.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    /// The tile.
    tile: usize,
    /// The number of the part in its sequence.
    number: usize,
    /// Where its softmax is kept.
    at: usize,
}

pub(super) fn run(context: &CpuContext, op: Attention<'_>, group: usize) {
    with_element!(op.cache.dtype(), E => run_on::<E>(context, op, group));
}

/// The same for a cache of numbers of one type.
fn run_on<E: KvElement>(context: &CpuContext, op: Attention<'_>, group: usize) {
    let AttentionTiles {
        queries,
        parts,
        softmaxes,
    } = op.tiles;
    let n_heads = group.min(TILE_HEADS);
    let n_queries = (TILE_ROWS / n_heads).max(1);
    queries.clear();
    let mut row_start = 0;
    for row in op.rows {
        for first in (0..row.query_len).step_by(n_queries) {
            queries.push(Queries {
                first_token: row_start + first,
                n_queries: n_queries.min(row.query_len - first),
                first_position: row.context_len - row.query_len + first,
                context_len: row.context_len,
                first_block: row.first_block,
            });
        }
        row_start += row.query_len;
    }
    let tiles = Tiles {
        shared: &Shared {
            q: op.q,
            q_stride: op.q_stride,
            n_heads: op.n_heads,
            group,
            cache: op.cache,
            numbers: op.cache.numbers::<E>(),
            blocks: op.blocks,
            scores: op.scores,
            mask: op.mask,
            out: &DisjointMut::new(op.out),
        },
        queries,
        n_heads,
        n_floats: tile::n_floats(n_queries * n_heads, op.cache),
    };
    let n_threads = context.n_threads();
    if n_threads == 1 || tiles.len() >= TILES_PER_THREAD * n_threads {
        tiles.run_whole(context);
    } else {
        tiles.run_in_parts(context, (parts, softmaxes));
    }
}

/// All tiles of a call.
struct Tiles<'a, E> {
    shared: &'a Shared<'a, E>,
    queries: &'a [Queries],
    /// Heads of a group that are computed together.
    n_heads: usize,
    /// Working memory of a tile.
    n_floats: usize,
}

impl<E: KvElement> Tiles<'_, E> {
    /// Tiles of a group's heads.
    fn per_group(&self) -> usize {
        self.shared.group.div_ceil(self.n_heads)
    }

    fn len(&self) -> usize {
        self.queries.len() * self.shared.cache.n_kv_heads() * self.per_group()
    }

    fn tile(&self, idx: usize) -> Tile<'_, E> {
        let (idx, of_group) = (idx / self.per_group(), idx % self.per_group());
        let n_kv_heads = self.shared.cache.n_kv_heads();
        let first_head = of_group * self.n_heads;
        Tile {
            shared: self.shared,
            queries: self.queries[idx / n_kv_heads],
            kv_head: idx % n_kv_heads,
            heads: first_head..self.shared.group.min(first_head + self.n_heads),
        }
    }

    /// Computes each tile by itself.
    fn run_whole(&self, context: &CpuContext) {
        context.for_each_with_scratch(self.len(), self.n_floats, |scratch, idx| {
            context.run(Whole {
                tile: self.tile(idx),
                scratch,
            });
        });
    }

    /// Computes the parts of all tiles, and merges those of each tile in their order. The bits are the same.
    fn run_in_parts(&self, context: &CpuContext, (parts, softmaxes): (&mut Vec<Part>, &mut Vec<f32>)) {
        let value_stride = self.shared.cache.value_stride();
        parts.clear();
        let mut at = 0;
        for idx in 0..self.len() {
            let tile = self.tile(idx);
            for number in tile.parts() {
                parts.push(Part {
                    tile: idx,
                    number,
                    at,
                });
                at += Softmax::n_floats(tile.n_rows(), value_stride);
            }
        }
        if parts.len() == self.len() {
            return self.run_whole(context);
        }
        if softmaxes.len() < at {
            softmaxes.resize(at, 0.0);
        }
        let softmaxes = DisjointMut::new(softmaxes);
        context.for_each_with_scratch(parts.len(), self.n_floats, |scratch, idx| {
            let Part { tile, number, at } = parts[idx];
            let tile = self.tile(tile);
            let n_floats = Softmax::n_floats(tile.n_rows(), value_stride);
            context.run(PartOf {
                // SAFETY: no other part has this memory.
                memory: unsafe { softmaxes.part(at, n_floats) },
                tile,
                part: number,
                scratch,
            });
        });
        context.for_each_with_scratch(self.len(), self.n_floats, |mut scratch, idx| {
            let tile = self.tile(idx);
            let n_rows = tile.n_rows();
            let mut merged = Softmax::within(&mut scratch, n_rows, value_stride);
            tile.begin_merged(&mut merged);
            let first = parts.partition_point(|part| part.tile < idx);
            for part in parts[first..].iter().take_while(|part| part.tile == idx) {
                let n_floats = Softmax::n_floats(n_rows, value_stride);
                // SAFETY: all parts are written, and only this task reads those of the tile.
                let mut memory = unsafe { softmaxes.part(part.at, n_floats) };
                merged.merge(&Softmax::within(&mut memory, n_rows, value_stride));
            }
            tile.finish(&merged);
        });
    }
}
