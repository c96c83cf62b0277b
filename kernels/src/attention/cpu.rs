//! Attention on the CPU: tiles of neighbouring queries over threads.

mod tile;

use super::Attention;
use crate::cpu::context::CpuContext;
use crate::cpu::disjoint::DisjointMut;

/// Query rows (tokens times heads of a group) that share each pass over the keys and values.
const TILE_ROWS: usize = 16;

pub(super) fn run(context: &CpuContext, op: Attention<'_>, group: usize) {
    let Attention {
        q,
        q_stride,
        n_heads,
        cache,
        rows,
        scores,
        mask,
        out,
    } = op;
    let shared = tile::Shared {
        q,
        q_stride,
        n_heads,
        group,
        cache,
        scores,
        mask,
        out: &DisjointMut::new(out),
    };
    let queries_per_tile = (TILE_ROWS / group).max(1);
    let mut tiles = Vec::new();
    let mut row_start = 0;
    for row in rows {
        for first in (0..row.query_len).step_by(queries_per_tile) {
            let n_queries = queries_per_tile.min(row.query_len - first);
            let queries = tile::Queries {
                first_token: row_start + first,
                n_queries,
                first_position: row.context_len - row.query_len + first,
                context_len: row.context_len,
                block_table: row.block_table,
            };
            tiles.extend((0..cache.n_kv_heads()).map(|kv_head| (queries, kv_head)));
        }
        row_start += row.query_len;
    }
    context.for_each(tiles.len(), |idx| {
        let (queries, kv_head) = tiles[idx];
        context.run(tile::Tile {
            shared: &shared,
            queries,
            kv_head,
        });
    });
}
