//! Attention on the CPU: tiles of neighbouring queries over threads.

mod tile;

use super::{Attention, AttentionTiles};
use crate::cpu::context::CpuContext;
use crate::cpu::disjoint::DisjointMut;
use crate::kv_cache::{KvElement, with_element};

/// Query rows (tokens times heads of a group) that share each pass over the keys and values.
const TILE_ROWS: usize = 16;

/// Neighbouring queries of one sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queries {
    /// Row of the first in `q` and `out`.
    first_token: usize,
    /// How many.
    n_queries: usize,
    /// Position of the first in its sequence.
    first_position: usize,
    /// Positions of the sequence that are in the cache.
    context_len: usize,
    /// First of the sequence's blocks.
    first_block: usize,
}

pub(super) fn run(context: &CpuContext, op: Attention<'_>, group: usize) {
    with_element!(op.cache.dtype(), E => run_on::<E>(context, op, group));
}

/// The same for a cache of numbers of one type.
fn run_on<E: KvElement>(context: &CpuContext, op: Attention<'_>, group: usize) {
    let queries_per_tile = (TILE_ROWS / group).max(1);
    let AttentionTiles(tiles) = op.tiles;
    tiles.clear();
    let mut row_start = 0;
    for row in op.rows {
        for first in (0..row.query_len).step_by(queries_per_tile) {
            tiles.push(Queries {
                first_token: row_start + first,
                n_queries: queries_per_tile.min(row.query_len - first),
                first_position: row.context_len - row.query_len + first,
                context_len: row.context_len,
                first_block: row.first_block,
            });
        }
        row_start += row.query_len;
    }
    let shared = tile::Shared {
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
    };
    let n_kv_heads = op.cache.n_kv_heads();
    let n_floats = tile::State::n_floats(queries_per_tile * group, op.cache);
    context.for_each_with_scratch(tiles.len() * n_kv_heads, n_floats, |scratch, idx| {
        context.run(tile::Tile {
            shared: &shared,
            queries: tiles[idx / n_kv_heads],
            kv_head: idx % n_kv_heads,
            scratch,
        });
    });
}
