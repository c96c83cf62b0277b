//! One body of tests for the CPU, and for the device in `cuda`: cases, and what they give in f64.

use proptest::prelude::*;

use super::*;
use crate::cpu::isa::Isa;
use crate::kv_cache::{KvDType, KvElement, KvShape, KvValues, KvWrite, kv_write, with_element};
use crate::weight::DType;

#[cfg(feature = "cuda")]
mod cuda;

/// Sequences with their tokens' queries, keys and values, and the sizes of heads and cache.
#[derive(Clone, Debug)]
struct Case {
    n_kv_heads: usize,
    group: usize,
    head_dim: usize,
    block_size: usize,
    mask: Mask,
    values: KvValues,
    softcap: Option<f32>,
    has_slopes: bool,
    has_sinks: bool,
    bias: Option<Bias>,
    /// Which type's numbers queries, keys and values are.
    dtype: DType,
    /// The type of the numbers in the cache on the CPU.
    cache_dtype: KvDType,
    /// `(query_len, context_len)` of each sequence.
    rows: Vec<(usize, usize)>,
}

/// What distances add to scores.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Bias {
    /// The same for all tokens.
    Table,
    /// Of both tokens.
    OfTokens,
    /// Of the key's token.
    OfKeys,
}

/// One head of keys and values of 16 elements, all of which is seen.
const PLAIN: Case = Case {
    n_kv_heads: 1,
    group: 1,
    head_dim: 16,
    block_size: 16,
    mask: Mask::Causal { window: None },
    values: KvValues::Own { value_dim: 16 },
    softcap: None,
    has_slopes: false,
    has_sinks: false,
    bias: None,
    dtype: DType::F32,
    cache_dtype: KvDType::F32,
    rows: Vec::new(),
};

/// Buckets of distances from -2 to 2: far behind, near, ahead.
const BUCKETS: [u16; 5] = [0, 1, 1, 2, 2];
const N_BUCKETS: usize = 3;

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
    fn n_heads(&self) -> usize {
        self.n_kv_heads * self.group
    }

    fn width(&self) -> usize {
        self.n_heads() * self.head_dim
    }

    fn shape(&self) -> KvShape {
        KvShape {
            n_heads: self.n_kv_heads,
            key_dim: self.head_dim,
            values: self.values,
        }
    }

    fn rounded(&self, x: f32) -> f32 {
        match self.dtype {
            DType::F32 => x,
            DType::F16 => half::f16::from_f32(x).to_f32(),
            DType::BF16 => half::bf16::from_f32(x).to_f32(),
        }
    }

    /// Something per head.
    fn per_head(&self, kind: u64) -> Vec<f32> {
        (0..self.n_heads())
            .map(|head| number(kind, head, 0).abs())
            .collect()
    }

    /// What a [`Bias::OfTokens`] has for a token of a sequence. `[n_heads, n_buckets]`
    fn of_token(&self, kind: u64, row: usize, position: usize) -> Vec<f32> {
        let width = self.n_heads() * N_BUCKETS;
        (0..width)
            .map(|i| number(kind, row, position * width + i))
            .collect()
    }

    /// The same for all tokens of a step's sequences.
    fn of_tokens(&self, kind: u64) -> Vec<f32> {
        let rows = self.rows.iter().enumerate();
        rows.flat_map(|(row, &(query_len, len))| {
            (len - query_len..len).flat_map(move |position| self.of_token(kind, row, position))
        })
        .collect()
    }

    /// The reference of what distance adds.
    fn bias_of(&self, row: usize, head: usize, position: usize, key: usize) -> f64 {
        let bucket = BUCKETS[(key + 2).saturating_sub(position).min(4)];
        let at = head * N_BUCKETS + usize::from(bucket);
        let scale = f64::from((self.head_dim as f32).powf(-0.5));
        let of_key = || scale * f64::from(self.of_token(21, row, key)[at]);
        match self.bias {
            None => 0.0,
            Some(Bias::Table) => f64::from(self.per_head(5 + u64::from(bucket))[head]),
            Some(Bias::OfKeys) => of_key(),
            Some(Bias::OfTokens) => of_key() + scale * f64::from(self.of_token(20, row, position)[at]),
        }
    }

    /// Scaled up so that the softmax is neither flat nor one-hot.
    fn query(&self, row: usize, position: usize) -> Vec<f32> {
        (0..self.width())
            .map(|i| self.rounded(3.0 * number(1, row, position * self.width() + i)))
            .collect()
    }

    /// Keys, then values.
    fn keys_values(&self, row: usize, position: usize) -> Vec<f32> {
        let own = match self.values {
            KvValues::Own { value_dim } => value_dim,
            KvValues::InKeys { .. } => 0,
        };
        let width = self.n_kv_heads * (self.head_dim + own);
        (0..width)
            .map(|i| self.rounded(number(2, row, position * width + i)))
            .map(|x| with_element!(self.cache_dtype, E => E::nearest(x).widened()))
            .collect()
    }

    /// Fills a cache whose blocks are in no particular order; returns it with the block tables.
    fn cache(&self) -> (KvCache, Vec<Vec<u32>>) {
        let blocks_of = |len: usize| len.div_ceil(self.block_size);
        let n_blocks: usize = self.rows.iter().map(|&(_, len)| blocks_of(len)).sum();
        let mut cache = KvCache::new(n_blocks, self.block_size, self.shape(), self.cache_dtype).unwrap();
        let mut next = n_blocks as u32;
        let mut tables = Vec::new();
        for (row, &(_, len)) in self.rows.iter().enumerate() {
            let table: Vec<u32> = (0..blocks_of(len) as u32).map(|i| next - 1 - i).collect();
            next -= table.len() as u32;
            let x: Vec<f32> = (0..len)
                .flat_map(|position| self.keys_values(row, position))
                .collect();
            let slots: Vec<u32> = (0..len)
                .map(|p| table[p / self.block_size] * self.block_size as u32 + (p % self.block_size) as u32)
                .collect();
            let row_stride = x.len() / len;
            let op = KvWrite {
                x: &x,
                row_stride,
                keys_at: 0,
                slots: &slots,
            };
            kv_write(&mut cache, op).unwrap();
            tables.push(table);
        }
        (cache, tables)
    }

    /// Attention of the given rows: `(row, query_len, context_len)`.
    fn run(&self, context: &CpuContext, which: &[(usize, usize, usize)]) -> Vec<f32> {
        let (cache, tables) = self.cache();
        let mut q = Vec::new();
        let mut rows = Vec::new();
        let mut blocks = Vec::new();
        for &(row, query_len, context_len) in which {
            q.extend((context_len - query_len..context_len).flat_map(|p| self.query(row, p)));
            rows.push(AttentionRow {
                query_len,
                context_len,
                first_block: blocks.len(),
            });
            blocks.extend(&tables[row]);
        }
        let n_tokens = q.len() / self.width();
        let mut out = vec![f32::NAN; n_tokens * self.n_heads() * self.shape().value_dim()];
        let (slopes, sinks) = (self.per_head(3), self.per_head(4));
        let table: Vec<f32> = (0..3).flat_map(|bucket| self.per_head(5 + bucket)).collect();
        let (of_queries, of_keys) = (self.of_tokens(20), self.of_tokens(21));
        let of_tokens = |queries| BiasValues::OfTokens {
            queries,
            keys: Some(&of_keys),
            n_buckets: N_BUCKETS,
        };
        let op = Attention {
            q: &q,
            q_stride: self.width(),
            n_heads: self.n_heads(),
            cache: &cache,
            rows: &rows,
            blocks: &blocks,
            tiles: &mut AttentionTiles::default(),
            scores: Scores {
                scale: (self.head_dim as f32).powf(-0.5),
                softcap: self.softcap,
                alibi_slopes: self.has_slopes.then_some(&slopes),
                sinks: self.has_sinks.then_some(&sinks),
                relative: self.bias.map(|bias| RelativeBias {
                    buckets: &BUCKETS,
                    values: match bias {
                        Bias::Table => BiasValues::Table(&table),
                        Bias::OfTokens => of_tokens(Some(&of_queries)),
                        Bias::OfKeys => of_tokens(None),
                    },
                }),
            },
            mask: self.mask,
            out: &mut out,
        };
        attention(context, op).unwrap();
        out
    }

    /// One token's attention in f64.
    fn reference(&self, row: usize, position: usize) -> Vec<f64> {
        let query = self.query(row, position);
        let seen = self.mask.seen(position, self.rows[row].1);
        let context: Vec<Vec<f32>> = seen.clone().map(|p| self.keys_values(row, p)).collect();
        let value_dim = self.shape().value_dim();
        let mut out = Vec::new();
        for (head, q) in query.chunks(self.head_dim).enumerate() {
            let kv_head = head / self.group;
            let scale = f64::from((self.head_dim as f32).powf(-0.5));
            let weight = |(p, kv): (usize, &Vec<f32>)| {
                let key = &kv[kv_head * self.head_dim..];
                let dot: f64 = q
                    .iter()
                    .zip(key)
                    .map(|(&q, &k)| f64::from(q) * f64::from(k))
                    .sum();
                let mut score = scale * dot;
                if let Some(cap) = self.softcap.map(f64::from) {
                    score = cap * (score / cap).tanh();
                }
                if self.has_slopes {
                    score -= f64::from(self.per_head(3)[head]) * (position as f64 - p as f64);
                }
                (score + self.bias_of(row, head, position, p)).exp()
            };
            let weights: Vec<f64> = seen.clone().zip(&context).map(weight).collect();
            let sink = if self.has_sinks {
                f64::from(self.per_head(4)[head]).exp()
            } else {
                0.0
            };
            let total: f64 = weights.iter().sum::<f64>() + sink;
            let values_at = match self.values {
                KvValues::Own { .. } => self.n_kv_heads * self.head_dim + kv_head * value_dim,
                KvValues::InKeys { .. } => kv_head * self.head_dim,
            };
            out.extend((values_at..values_at + value_dim).map(|i| {
                let weighted = context.iter().zip(&weights).map(|(kv, w)| f64::from(kv[i]) * w);
                weighted.sum::<f64>() / total
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
            let mut outputs = together.chunks(self.n_heads() * self.shape().value_dim());
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
                    if !matches!(self.mask, Mask::Causal { .. }) {
                        continue; // its context is the sequence, so there is no shorter call
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
    let windows = [None, Some(1), Some(33)].map(|window| Mask::Causal { window });
    let around = [0, 1, 31].map(|reach| Mask::Around { reach });
    for mask in windows.into_iter().chain(around).chain([Mask::Full]) {
        let case = Case {
            n_kv_heads: 2,
            group: 3,
            head_dim: 20,
            values: KvValues::Own { value_dim: 20 },
            mask,
            rows: rows.clone(),
            ..PLAIN
        };
        case.check();
    }
}

/// Softcap, slopes, sinks and biases, each alone and all together.
const SHAPED: [(Option<f32>, bool, bool, Option<Bias>); 5] = [
    (Some(2.0), false, false, None),
    (None, true, false, None),
    (None, false, true, None),
    (None, false, false, Some(Bias::Table)),
    (Some(0.5), true, true, Some(Bias::Table)),
];

#[test]
fn biases_of_tokens_are_added_to_whole_sequences() {
    for bias in [Bias::OfTokens, Bias::OfKeys] {
        for mask in [Mask::Full, Mask::Around { reach: 9 }] {
            let case = Case {
                n_kv_heads: 2,
                group: 2,
                bias: Some(bias),
                mask,
                rows: vec![(40, 40), (1, 1), (71, 71)],
                ..PLAIN
            };
            case.check();
        }
    }
}

#[test]
fn a_bias_of_tokens_needs_all_of_them() {
    let context = CpuContext::new(1).unwrap();
    let cache = KvCache::new(1, 8, KvShape::of_heads(1, 8), KvDType::F32).unwrap();
    let run = |row, n_numbers| {
        let numbers = vec![0.0; n_numbers];
        let values = BiasValues::OfTokens {
            queries: Some(&numbers),
            keys: None,
            n_buckets: N_BUCKETS,
        };
        let op = Attention {
            q: &[1.0; 16],
            q_stride: 8,
            n_heads: 1,
            cache: &cache,
            rows: &[row],
            blocks: &[0],
            tiles: &mut AttentionTiles::default(),
            scores: Scores {
                relative: Some(RelativeBias {
                    buckets: &BUCKETS,
                    values,
                }),
                ..Scores::scaled(1.0)
            },
            mask: Mask::Full,
            out: &mut [0.0; 16],
        };
        attention(&context, op)
    };
    let row = |context_len| AttentionRow {
        query_len: 2,
        context_len,
        first_block: 0,
    };
    assert!(run(row(2), 2 * N_BUCKETS).is_ok());
    assert!(run(row(2), 2 * N_BUCKETS - 1).is_err(), "a token without numbers");
    assert!(run(row(3), 2 * N_BUCKETS).is_err(), "a token of an earlier step");
}

#[test]
fn scores_are_capped_take_off_distance_and_share_with_sinks() {
    let rows = vec![(5, 40), (33, 70), (1, 90)];
    for (softcap, has_slopes, has_sinks, bias) in SHAPED {
        for mask in [
            Mask::Causal { window: None },
            Mask::Causal { window: Some(20) },
            Mask::Around { reach: 9 },
            Mask::Full,
        ] {
            let case = Case {
                n_kv_heads: 2,
                group: 2,
                softcap,
                has_slopes,
                has_sinks,
                bias,
                mask,
                rows: rows.clone(),
                ..PLAIN
            };
            case.check();
        }
    }
}

#[test]
fn values_of_their_own_length_or_within_the_keys() {
    let rows = vec![(5, 40), (33, 70)];
    for values in [
        KvValues::Own { value_dim: 7 },
        KvValues::Own { value_dim: 40 },
        KvValues::InKeys { value_dim: 17 },
    ] {
        let case = Case {
            group: 5,
            head_dim: 25,
            values,
            rows: rows.clone(),
            ..PLAIN
        };
        case.check();
    }
}

#[test]
fn contexts_of_several_parts() {
    for (group, window) in [(1, None), (2, None), (3, Some(300)), (8, None), (40, Some(70))] {
        let case = Case {
            n_kv_heads: 2,
            group,
            cache_dtype: KvDType::BF16,
            mask: Mask::Causal { window },
            rows: vec![(1, 700), (3, 513), (1, 256)],
            ..PLAIN
        };
        case.check();
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let case = Case {
        group: 4,
        has_sinks: true,
        rows: vec![(1, 1500), (2, 300)],
        ..PLAIN
    };
    let of = |n_threads| {
        let context = CpuContext::new(n_threads).unwrap();
        case.run(&context, &[(0, 1, 1500), (1, 2, 300)])
    };
    assert!(of(1) == of(2) && of(1) == of(5));
}

#[test]
fn numbers_of_every_type_are_read_exactly() {
    for cache_dtype in [KvDType::F16, KvDType::BF16, KvDType::F8E4M3, KvDType::F8E5M2] {
        for values in [
            KvValues::Own { value_dim: 20 },
            KvValues::InKeys { value_dim: 17 },
        ] {
            let case = Case {
                n_kv_heads: 2,
                group: 3,
                head_dim: 20,
                values,
                cache_dtype,
                rows: vec![(1, 100), (7, 71), (33, 64)],
                ..PLAIN
            };
            case.check();
        }
    }
}

#[test]
fn blocks_before_the_window_are_never_read() {
    let context = CpuContext::new(1).unwrap();
    let cache = KvCache::new(2, 4, KvShape::of_heads(1, 8), KvDType::F32).unwrap();
    let run = |window, block_table: &[u32]| {
        let op = Attention {
            q: &[1.0; 8],
            q_stride: 8,
            n_heads: 1,
            cache: &cache,
            rows: &[AttentionRow {
                query_len: 1,
                context_len: 10,
                first_block: 0,
            }],
            blocks: block_table,
            tiles: &mut AttentionTiles::default(),
            scores: Scores::scaled(1.0),
            mask: Mask::Causal { window },
            out: &mut [0.0; 8],
        };
        attention(&context, op)
    };
    // The token at position 9 sees 4 and later ones, so the first block is not needed.
    assert!(run(Some(6), &[u32::MAX, 1, 0]).is_ok());
    assert!(run(Some(7), &[u32::MAX, 1, 0]).is_err());
    assert!(run(None, &[u32::MAX, 1, 0]).is_err());
}

/// A case of odd sizes, with a window or without.
fn odd_case() -> impl Strategy<Value = Case> {
    let heads = (1_usize..3, 1_usize..6, 1_usize..40, 1_usize..40);
    let rows = proptest::collection::vec((1_usize..20, 0_usize..60), 1..4);
    let window = proptest::option::of(1_usize..50);
    (heads, 1_usize..40, window, rows).prop_map(|(heads, block_size, window, rows)| {
        let (n_kv_heads, group, head_dim, value_dim) = heads;
        Case {
            n_kv_heads,
            group,
            head_dim,
            block_size,
            mask: Mask::Causal { window },
            values: KvValues::Own { value_dim },
            rows: rows
                .into_iter()
                .map(|(query_len, before)| (query_len, query_len + before))
                .collect(),
            ..PLAIN
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn odd_shapes(case in odd_case()) {
        case.check();
    }
}

#[test]
fn the_result_does_not_depend_on_the_block_size() {
    let context = CpuContext::new(2).unwrap();
    let of = |block_size| {
        let case = Case {
            group: 2,
            block_size,
            rows: vec![(90, 90)],
            ..PLAIN
        };
        case.run(&context, &[(0, 90, 90)])
    };
    assert_eq!(of(16), of(1));
    assert_eq!(of(16), of(128));
}

#[test]
fn refuses_shapes_that_disagree() {
    let context = CpuContext::new(1).unwrap();
    let cache = KvCache::new(2, 4, KvShape::of_heads(2, 8), KvDType::F32).unwrap();
    let good = AttentionRow {
        query_len: 1,
        context_len: 5,
        first_block: 1,
    };
    let run = |n_heads, window, row: AttentionRow, blocks: &[u32]| {
        let op = Attention {
            q: &[0.0; 32],
            q_stride: 32,
            n_heads,
            cache: &cache,
            rows: &[row],
            blocks,
            tiles: &mut AttentionTiles::default(),
            scores: Scores::scaled(1.0),
            mask: Mask::Causal { window },
            out: &mut [0.0; 32],
        };
        attention(&context, op)
    };
    let blocks = &[7, 1, 0];
    assert!(run(4, None, good, blocks).is_ok());
    assert!(run(3, None, good, blocks).is_err(), "heads that do not divide");
    assert!(run(8, None, good, blocks).is_err(), "a row too short");
    assert!(run(4, Some(0), good, blocks).is_err(), "a window of nothing");
    for (query_len, context_len) in [(0, 5), (2, 5), (1, 0)] {
        let row = AttentionRow {
            query_len,
            context_len,
            ..good
        };
        assert!(run(4, None, row, blocks).is_err(), "{row:?}");
    }
    let long = AttentionRow {
        context_len: 9,
        ..good
    };
    assert!(run(4, None, long, blocks).is_err(), "a table too short");
    let beyond = AttentionRow {
        first_block: usize::MAX,
        ..good
    };
    assert!(run(4, None, beyond, blocks).is_err(), "no table");
    assert!(run(4, None, good, &[7, 1, 2]).is_err(), "a block too far");
}
