//! Causal attention over the paged cache: prefill chunks and single decode tokens in one call.

mod tile;

use crate::disjoint::DisjointMut;
use crate::error::{check_len, check_range};
use crate::{CpuContext, KernelError, KvCache};

/// Operands of [`attention`].
pub struct Attention<'a> {
    /// Queries, heads side by side at the start of each row, already rotated. `[n_tokens, q_stride]`
    pub q: &'a [f32],
    /// Elements of a row of `q`.
    pub q_stride: usize,
    /// Query heads, a multiple of the cache's heads: `n_heads / n_kv_heads` neighbours share one.
    pub n_heads: usize,
    /// Keys and values, those of the new tokens included.
    pub cache: &'a KvCache,
    /// The sequences, in the order of their tokens in `q`, without gaps.
    pub rows: &'a [AttentionRow<'a>],
    /// Factor of the scores, usually `head_dim^-½`.
    pub scale: f32,
    /// A token sees itself and the `window - 1` tokens before it; without a window, all before it.
    pub window: Option<usize>,
    /// Result; overwritten. `[n_tokens, n_heads * head_dim]`
    pub out: &'a mut [f32],
}

/// One sequence of an [`Attention`].
#[derive(Clone, Copy, Debug)]
pub struct AttentionRow<'a> {
    /// New tokens, at least one: the last ones of the context.
    pub query_len: usize,
    /// Tokens in the cache, the new ones included.
    pub context_len: usize,
    /// The sequence's blocks in order, enough for the context.
    pub block_table: &'a [u32],
}

/// `out = softmax(scale · q·Kᵀ, masked) · V`, for every token and head.
///
/// Softmax is computed online over tiles of 32 positions that start at multiples of 32 (Milakov and
/// Gimelshein 2018; Dao et al. 2022), so a token's result depends neither on the chunk it arrives in nor on
/// the other rows nor on the block size. The error is a few ulp of `max |V|` per tile.
///
/// # Errors
/// The shapes do not agree, or a block is beyond the cache.
pub fn attention(context: &CpuContext, op: Attention<'_>) -> Result<(), KernelError> {
    let group = check(&op)?;
    let Attention {
        q,
        q_stride,
        n_heads,
        cache,
        rows,
        scale,
        window,
        out,
    } = op;
    let shared = tile::Shared {
        q,
        q_stride,
        n_heads,
        group,
        cache,
        scale,
        window,
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
    Ok(())
}

/// Query rows (tokens times heads of a group) that share each pass over the keys and values.
const TILE_ROWS: usize = 16;

/// Checks the contract; answers how many query heads share a head of the cache.
fn check(op: &Attention<'_>) -> Result<usize, KernelError> {
    let cache = op.cache;
    let (n_heads, n_kv_heads) = (op.n_heads, cache.n_kv_heads());
    let grouped = n_heads > 0 && n_heads.is_multiple_of(n_kv_heads);
    check_range(
        grouped,
        "attention",
        ("n_heads", n_heads),
        "a multiple of n_kv_heads",
    )?;
    let width = n_heads * cache.head_dim();
    check_range(
        op.q_stride >= width,
        "attention",
        ("q_stride", op.q_stride),
        "at least n_heads * head_dim",
    )?;
    check_range(op.window != Some(0), "attention", ("window", 0), "at least 1")?;
    let mut n_tokens = 0_usize;
    for row in op.rows {
        let (query_len, context_len) = (row.query_len, row.context_len);
        check_range(query_len > 0, "attention", ("query_len", query_len), "at least 1")?;
        let covers = context_len >= query_len;
        check_range(
            covers,
            "attention",
            ("context_len", context_len),
            "at least query_len",
        )?;
        let n_blocks = context_len.div_ceil(cache.block_size());
        let blocks = row.block_table.get(..n_blocks);
        let operand = ("block_table", row.block_table.len());
        check_range(
            blocks.is_some(),
            "attention",
            operand,
            "long enough for the context",
        )?;
        for &block in blocks.unwrap_or_default() {
            let inside = (block as usize) < cache.n_blocks();
            check_range(inside, "attention", ("block", block as usize), "within the cache")?;
        }
        n_tokens = n_tokens.saturating_add(query_len);
    }
    check_len("attention", "q", op.q.len(), n_tokens.saturating_mul(op.q_stride))?;
    check_len("attention", "out", op.out.len(), n_tokens.saturating_mul(width))?;
    Ok(n_heads / n_kv_heads)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Isa, KvWrite, kv_write};

    /// Sequences with their tokens' queries, keys and values, and the sizes of heads and cache.
    #[derive(Clone, Debug)]
    struct Case {
        n_kv_heads: usize,
        group: usize,
        head_dim: usize,
        block_size: usize,
        window: Option<usize>,
        /// `(query_len, context_len)` of each sequence.
        rows: Vec<(usize, usize)>,
    }

    /// A number in -1..1 that depends on all three arguments.
    fn number(kind: u64, row: usize, at: usize) -> f32 {
        let mut state = kind * 0x9E37_79B9 + row as u64 * 0x85EB_CA6B + at as u64 * 0xC2B2_AE35 + 1;
        for _ in 0..3 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
        }
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    impl Case {
        fn width(&self) -> usize {
            self.n_kv_heads * self.group * self.head_dim
        }

        /// Scaled up so that the softmax is neither flat nor one-hot.
        fn query(&self, row: usize, position: usize) -> Vec<f32> {
            (0..self.width())
                .map(|i| 3.0 * number(1, row, position * self.width() + i))
                .collect()
        }

        /// Keys, then values.
        fn keys_values(&self, row: usize, position: usize) -> Vec<f32> {
            let width = 2 * self.n_kv_heads * self.head_dim;
            (0..width).map(|i| number(2, row, position * width + i)).collect()
        }

        /// Fills a cache whose blocks lie in no particular order; answers it with the block tables.
        fn cache(&self, context: &CpuContext) -> (KvCache, Vec<Vec<u32>>) {
            let blocks_of = |len: usize| len.div_ceil(self.block_size);
            let n_blocks: usize = self.rows.iter().map(|&(_, len)| blocks_of(len)).sum();
            let mut cache =
                KvCache::new((n_blocks, self.block_size), (self.n_kv_heads, self.head_dim)).unwrap();
            let mut next = n_blocks as u32;
            let mut tables = Vec::new();
            for (row, &(_, len)) in self.rows.iter().enumerate() {
                let table: Vec<u32> = (0..blocks_of(len) as u32).map(|i| next - 1 - i).collect();
                next -= table.len() as u32;
                let x: Vec<f32> = (0..len)
                    .flat_map(|position| self.keys_values(row, position))
                    .collect();
                let slots: Vec<u32> = (0..len)
                    .map(|p| {
                        table[p / self.block_size] * self.block_size as u32 + (p % self.block_size) as u32
                    })
                    .collect();
                let row_stride = 2 * self.n_kv_heads * self.head_dim;
                let op = KvWrite {
                    x: &x,
                    row_stride,
                    keys_at: 0,
                    slots: &slots,
                };
                kv_write(context, &mut cache, op).unwrap();
                tables.push(table);
            }
            (cache, tables)
        }

        /// Attention of the given rows: `(row, query_len, context_len)`.
        fn run(&self, context: &CpuContext, which: &[(usize, usize, usize)]) -> Vec<f32> {
            let (cache, tables) = self.cache(context);
            let mut q = Vec::new();
            let mut rows = Vec::new();
            for &(row, query_len, context_len) in which {
                q.extend((context_len - query_len..context_len).flat_map(|p| self.query(row, p)));
                rows.push(AttentionRow {
                    query_len,
                    context_len,
                    block_table: &tables[row],
                });
            }
            let mut out = vec![f32::NAN; q.len()];
            let op = Attention {
                q: &q,
                q_stride: self.width(),
                n_heads: self.n_kv_heads * self.group,
                cache: &cache,
                rows: &rows,
                scale: (self.head_dim as f32).powf(-0.5),
                window: self.window,
                out: &mut out,
            };
            attention(context, op).unwrap();
            out
        }

        /// One token's attention in f64.
        fn reference(&self, row: usize, position: usize) -> Vec<f64> {
            let query = self.query(row, position);
            let first = self
                .window
                .map_or(0, |window| (position + 1).saturating_sub(window));
            let mut out = Vec::new();
            for (head, q) in query.chunks(self.head_dim).enumerate() {
                let at = head / self.group * self.head_dim;
                let scale = f64::from((self.head_dim as f32).powf(-0.5));
                let context: Vec<Vec<f32>> = (first..=position).map(|p| self.keys_values(row, p)).collect();
                let dot = |k: &[f32]| {
                    q.iter()
                        .zip(k)
                        .map(|(&q, &k)| f64::from(q) * f64::from(k))
                        .sum::<f64>()
                };
                let weights: Vec<f64> = context.iter().map(|kv| (scale * dot(&kv[at..])).exp()).collect();
                let total: f64 = weights.iter().sum();
                let values_at = self.n_kv_heads * self.head_dim + at;
                out.extend((values_at..values_at + self.head_dim).map(|i| {
                    context
                        .iter()
                        .zip(&weights)
                        .map(|(kv, w)| f64::from(kv[i]) * w)
                        .sum::<f64>()
                        / total
                }));
            }
            out
        }

        /// Compares every path with the reference, and each token with itself alone.
        fn check(&self) {
            for isa in Isa::available() {
                let context = CpuContext::with_isa(2, isa).unwrap();
                let all: Vec<_> = self
                    .rows
                    .iter()
                    .enumerate()
                    .map(|(i, &(q, len))| (i, q, len))
                    .collect();
                let together = self.run(&context, &all);
                let mut outputs = together.chunks(self.width());
                for &(row, query_len, context_len) in &all {
                    for position in context_len - query_len..context_len {
                        let got = outputs.next().unwrap();
                        for (got, want) in got.iter().zip(self.reference(row, position)) {
                            // A few ulp of the scores' size in each weight, and of the values' in the sum.
                            let close = (f64::from(*got) - want).abs() < 64.0 * f64::from(f32::EPSILON);
                            assert!(
                                close,
                                "{isa:?} {self:?} row {row} position {position}: {got} {want}"
                            );
                        }
                        let alone = self.run(&context, &[(row, 1, position + 1)]);
                        assert_eq!(alone, got, "{isa:?} {self:?} row {row} position {position}");
                    }
                }
            }
        }
    }

    #[test]
    fn prefill_chunks_and_decode_tokens_together() {
        let rows = vec![(1, 100), (40, 40), (7, 71), (1, 1), (33, 64)];
        for window in [None, Some(1), Some(33)] {
            let sizes = Case {
                n_kv_heads: 2,
                group: 3,
                head_dim: 20,
                block_size: 16,
                window,
                rows: rows.clone(),
            };
            sizes.check();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn odd_shapes(
            n_kv_heads in 1_usize..3,
            group in 1_usize..6,
            head_dim in 1_usize..40,
            block_size in 1_usize..40,
            window in proptest::option::of(1_usize..50),
            rows in proptest::collection::vec((1_usize..20, 0_usize..60), 1..4),
        ) {
            let rows = rows.into_iter().map(|(query_len, before)| (query_len, query_len + before)).collect();
            Case { n_kv_heads, group, head_dim, block_size, window, rows }.check();
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_block_size() {
        let context = CpuContext::new(2).unwrap();
        let of = |block_size| {
            let case = Case {
                n_kv_heads: 1,
                group: 2,
                head_dim: 16,
                block_size,
                window: None,
                rows: vec![(90, 90)],
            };
            case.run(&context, &[(0, 90, 90)])
        };
        assert_eq!(of(16), of(1));
        assert_eq!(of(16), of(128));
    }

    #[test]
    fn refuses_shapes_that_disagree() {
        let context = CpuContext::new(1).unwrap();
        let cache = KvCache::new((2, 4), (2, 8)).unwrap();
        let good = AttentionRow {
            query_len: 1,
            context_len: 5,
            block_table: &[1, 0],
        };
        let run = |n_heads, window, row: AttentionRow<'_>| {
            let op = Attention {
                q: &[0.0; 32],
                q_stride: 32,
                n_heads,
                cache: &cache,
                rows: &[row],
                scale: 1.0,
                window,
                out: &mut [0.0; 32],
            };
            attention(&context, op)
        };
        assert!(run(4, None, good).is_ok());
        assert!(run(3, None, good).is_err(), "heads that do not divide");
        assert!(run(8, None, good).is_err(), "a row too short");
        assert!(run(4, Some(0), good).is_err(), "a window of nothing");
        assert!(run(4, None, AttentionRow { query_len: 0, ..good }).is_err());
        assert!(run(4, None, AttentionRow { query_len: 2, ..good }).is_err());
        assert!(
            run(
                4,
                None,
                AttentionRow {
                    context_len: 0,
                    ..good
                }
            )
            .is_err()
        );
        assert!(
            run(
                4,
                None,
                AttentionRow {
                    context_len: 9,
                    ..good
                }
            )
            .is_err(),
            "a table too short"
        );
        assert!(
            run(
                4,
                None,
                AttentionRow {
                    block_table: &[1, 2],
                    ..good
                }
            )
            .is_err(),
            "a block too far"
        );
    }
}
