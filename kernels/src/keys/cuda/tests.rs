//! Keys on the device against the ops that the CPU composes of them, and against the layout of pages.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::cpu::context::CpuContext;
use crate::cuda::DeviceBuffer;
use crate::cuda::testing::{downloaded, each_order, uploaded};
use crate::kv_cache::cuda::{KvBlocks, KvSizes};
use crate::kv_cache::{KvShape, KvValues};
use crate::norm::Norm;
use crate::rope::{Rope, RopeTable};
use crate::{clamp, norm, rope};

/// A step's shapes and options.
#[derive(Clone, Debug)]
struct Case {
    n_tokens: usize,
    n_q_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    /// Elements before the queries and after the values.
    gap: usize,
    clip: Option<f32>,
    norms: Norms,
    kind: NormKind,
    /// Pairs that turn; 0: none.
    half_dim: usize,
    pairs: RopePairs,
    own_query_table: bool,
    block_size: usize,
    dtype: DType,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Norms {
    are_taken: bool,
    after_rope: bool,
    over_all_heads: bool,
    of_values: bool,
}

fn cases() -> impl Strategy<Value = Case> {
    let shapes = (1..5_usize, 1..7_usize, 1..6_usize, 1..150_usize, 0..5_usize);
    let norms = proptest::array::uniform4(any::<bool>());
    let options = (
        norms,
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        0..76_usize,
    );
    let dtypes = prop_oneof![Just(DType::F32), Just(DType::F16), Just(DType::BF16)];
    (shapes, options, 1..20_usize, dtypes).prop_map(|(shapes, options, block_size, dtype)| {
        let (n_tokens, n_q_heads, n_kv_heads, head_dim, gap) = shapes;
        let (norms, clips, is_layer, are_neighbours, own_query_table, half_dim) = options;
        Case {
            n_tokens,
            n_q_heads,
            n_kv_heads,
            head_dim,
            gap,
            clip: clips.then_some(1.5),
            norms: Norms {
                are_taken: norms[0],
                after_rope: norms[1],
                over_all_heads: norms[2],
                of_values: norms[3],
            },
            kind: if is_layer { NormKind::Layer } else { NormKind::Rms },
            half_dim: half_dim.min(head_dim / 2),
            pairs: if are_neighbours {
                RopePairs::Interleaved
            } else {
                RopePairs::HalfSplit
            },
            own_query_table,
            block_size,
            dtype,
        }
    })
}

/// Numbers between -2 and 2 that differ from place to place.
fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * 37 + seed * 101) % 389) as f32 / 97.25 - 2.0)
        .collect()
}

impl Case {
    fn row_stride(&self) -> usize {
        self.head_dim * (self.n_q_heads + 2 * self.n_kv_heads) + 2 * self.gap
    }

    fn heads(&self, first_head: usize, n_heads: usize) -> Heads {
        Heads {
            row_stride: self.row_stride(),
            first: self.gap + first_head * self.head_dim,
            n_heads,
            head_dim: self.head_dim,
        }
    }

    /// Where queries, keys and values are.
    fn parts(&self) -> [Heads; 3] {
        let (q, kv) = (self.n_q_heads, self.n_kv_heads);
        [self.heads(0, q), self.heads(q, kv), self.heads(q + kv, kv)]
    }

    fn table(&self, scale: f32) -> RopeTable {
        let mut table = RopeTable::default();
        let inv_freq: Vec<f32> = (0..self.half_dim).map(|i| 0.9_f32.powi(i as i32)).collect();
        let positions: Vec<u32> = (0..self.n_tokens as u32).map(|i| i * 17 + 3).collect();
        table.extend(&positions, &inv_freq, scale).unwrap();
        table
    }

    /// Weight and bias of the norm of a part.
    fn vectors(&self, part: usize) -> [Vec<f32>; 2] {
        let heads = self.parts()[part];
        let is_whole = self.norms.over_all_heads || part == 1;
        let n = if is_whole { heads.width() } else { heads.head_dim };
        [numbers(n, part + 5), numbers(n, part + 9)]
    }

    /// What the CPU makes of a row of queries, keys and values.
    fn expected(&self, qkv: &[f32]) -> Vec<f32> {
        let context = CpuContext::new(1).unwrap();
        let mut x = qkv.to_vec();
        if let Some(limit) = self.clip {
            clamp(&mut x, limit).unwrap();
        }
        let norms = |x: &mut [f32]| {
            let n_parts = if self.norms.of_values { 3 } else { 2 };
            for (part, heads) in self.parts().into_iter().enumerate().take(n_parts) {
                let [weight, bias] = self.vectors(part);
                let op = Norm {
                    x: None,
                    out: x,
                    heads: if self.norms.over_all_heads {
                        heads.as_one()
                    } else {
                        heads
                    },
                    kind: self.kind,
                    weight: Some(&weight),
                    bias: Some(&bias),
                    eps: 1e-5,
                };
                norm(&context, op).unwrap();
            }
        };
        if self.norms.are_taken && !self.norms.after_rope {
            norms(&mut x);
        }
        if self.half_dim > 0 {
            let [queries, keys, _] = self.parts();
            let own = if self.own_query_table { 1.25 } else { 1.0 };
            for (heads, table) in [(queries, self.table(own)), (keys, self.table(1.0))] {
                let op = Rope {
                    x: &mut x,
                    heads,
                    from: 0,
                    pairs: self.pairs,
                    table: &table,
                };
                rope(&context, op).unwrap();
            }
        }
        if self.norms.are_taken && self.norms.after_rope {
            norms(&mut x);
        }
        x
    }

    /// The slot of each token; the last one has none.
    fn slots(&self) -> Vec<i32> {
        let mut slots: Vec<i32> = (0..self.n_tokens as i32)
            .map(|token| (token * 5 + 3) % self.n_slots() as i32)
            .collect();
        slots[self.n_tokens - 1] = if self.gap.is_multiple_of(2) {
            -1
        } else {
            self.n_slots() as i32
        };
        slots
    }

    fn n_slots(&self) -> usize {
        // More than 5 tokens may take, so that no two have the same one.
        self.block_size * 23_usize.div_ceil(self.block_size)
    }
}

/// The caches of one layer, filled with bytes that no op writes.
fn pages(gpu: &Gpu, shape: KvShape, sizes: KvSizes) -> (DeviceBuffer<u8>, KvPages) {
    let memory = gpu
        .alloc::<u8>(sizes.n_blocks * sizes.block_bytes(&[shape]))
        .unwrap();
    gpu.fill(memory.view(), 0xA5).unwrap();
    let pages = KvBlocks::new(memory.view(), &[shape], sizes).unwrap().pages(0);
    (memory, pages)
}

/// The row of a head in a slot: of its key, or of its value. Elements and zeros behind them, widened.
fn row(bytes: &[u8], pages: &KvPages, (slot, head): (usize, usize), is_value: bool) -> Option<Vec<f32>> {
    let (block, row) = (slot / pages.block_size, slot % pages.block_size);
    let (key_groups, value_groups) = (pages.key_groups(), pages.value_groups());
    let groups = if is_value {
        key_groups..key_groups + value_groups
    } else {
        0..key_groups
    };
    let page = (block * pages.shape.n_heads + head) * (key_groups + value_groups);
    let mut found = Vec::new();
    for group in groups {
        for piece in 0..8 {
            let at = ((page + group) * pages.block_size + row) * 128 + (piece ^ (row % 8)) * 16;
            found.extend_from_slice(&bytes[at..at + 16]);
        }
    }
    if found.iter().all(|&byte| byte == 0xA5) {
        return None;
    }
    Some(pages.dtype.widen(&found).unwrap())
}

/// Compares a row of a page with what was to be written.
fn check_row(got: &[f32], want: &[f32], dtype: DType) {
    let (got, padding) = got.split_at(want.len());
    assert!(padding.iter().all(|&v| v == 0.0), "{padding:?} behind the row");
    let unit = match dtype {
        DType::F32 => 2e-5,
        DType::F16 => 1e-3,
        DType::BF16 => 8e-3,
    };
    for (got, want) in got.iter().zip(want) {
        assert!(
            (got - want).abs() <= unit * want.abs().max(1.0),
            "{dtype:?} {got} {want}"
        );
    }
}

fn run(gpu: &Gpu, case: &Case) {
    let qkv = numbers(case.n_tokens * case.row_stride(), 1);
    let shape = KvShape::of_heads(case.n_kv_heads, case.head_dim);
    let sizes = KvSizes {
        n_blocks: case.n_slots() / case.block_size,
        block_size: case.block_size,
        dtype: case.dtype,
    };
    let (memory, pages) = pages(gpu, shape, sizes);
    let [queries, keys_at, _] = case.parts();
    let vectors: Vec<[DeviceBuffer<f32>; 2]> = (0..3)
        .map(|part| case.vectors(part).map(|vector| uploaded(gpu, &vector)))
        .collect();
    let head_norm = |part: usize| HeadNorm {
        kind: case.kind,
        weight: Some(vectors[part][0].view()),
        bias: Some(vectors[part][1].view()),
        eps: 1e-5,
    };
    let norms = HeadNorms {
        after_rope: case.norms.after_rope,
        over_all_heads: case.norms.over_all_heads,
        q: head_norm(0),
        k: head_norm(1),
        v: case.norms.of_values.then(|| head_norm(2)),
    };
    let tables = [1.0, if case.own_query_table { 1.25 } else { 1.0 }].map(|scale| case.table(scale));
    let tables = tables.map(|table| (uploaded(gpu, table.cos()), uploaded(gpu, table.sin())));
    let [of_keys, of_queries] = [&tables[0], &tables[1]].map(|(cos, sin)| Angles {
        cos: cos.view(),
        sin: sin.view(),
    });
    let turn = Turn {
        pairs: case.pairs,
        half_dim: case.half_dim,
        keys: of_keys,
        queries: of_queries,
    };
    let (x, slots) = (uploaded(gpu, &qkv), uploaded(gpu, &case.slots()));
    let op = Keys {
        qkv: x.view(),
        queries,
        keys: keys_at,
        clip: case.clip,
        norms: case.norms.are_taken.then_some(norms),
        turn: (case.half_dim > 0).then_some(turn),
        pages,
        slots: slots.view(),
    };
    keys(gpu, op).unwrap();
    check(
        case,
        &downloaded(gpu, x.view()),
        &downloaded(gpu, memory.view()),
        &pages,
    );
}

fn check(case: &Case, got: &[f32], bytes: &[u8], pages: &KvPages) {
    let qkv = numbers(case.n_tokens * case.row_stride(), 1);
    let want = case.expected(&qkv);
    let [queries, keys_at, values] = case.parts();
    let rows = |of: &[f32]| {
        of.chunks_exact(case.row_stride())
            .map(<[f32]>::to_vec)
            .collect::<Vec<_>>()
    };
    let mut written = vec![false; case.n_slots()];
    for ((got, want), slot) in rows(got).iter().zip(rows(&want)).zip(case.slots()) {
        let range = |heads: Heads| heads.first..heads.first + heads.width();
        check_row(&got[range(queries)], &want[range(queries)], DType::F32);
        let Some(is_written) = usize::try_from(slot).ok().and_then(|slot| written.get_mut(slot)) else {
            continue;
        };
        *is_written = true;
        for head in 0..case.n_kv_heads {
            for (heads, is_value) in [(keys_at, false), (values, true)] {
                let want = &want[heads.first + head * heads.head_dim..][..heads.head_dim];
                let got = row(bytes, pages, (slot as usize, head), is_value).expect("the slot was written");
                check_row(&got, want, case.dtype);
            }
        }
    }
    for (slot, is_written) in written.into_iter().enumerate() {
        let found = row(bytes, pages, (slot, case.n_kv_heads - 1), true);
        assert_eq!(found.is_some(), is_written, "slot {slot}");
    }
}

#[test]
fn the_device_agrees_with_what_the_cpu_composes() {
    each_order(|gpu| {
        let config = Config {
            cases: 12,
            failure_persistence: None,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(
            config,
            proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
        );
        runner
            .run(&cases(), |case| {
                run(gpu, &case);
                Ok(())
            })
            .unwrap();
    });
}

#[test]
fn the_device_makes_latent_keys_ready() {
    let (n_tokens, n_heads, head_dim, turn_from, rank, half_dim) = (3, 6, 20, 11, 37, 4);
    let heads = Heads {
        row_stride: n_heads * head_dim + 3,
        first: 2,
        n_heads,
        head_dim,
    };
    let key_dim = rank + 2 * half_dim;
    let (q, short) = (
        numbers(n_tokens * heads.row_stride, 2),
        numbers(n_tokens * key_dim, 3),
    );
    let weight = numbers(rank, 4);
    let mut table = RopeTable::default();
    table.extend(&[5, 6, 900], &[1.0, 0.5, 0.1, 0.01], 1.0).unwrap();
    let context = CpuContext::new(1).unwrap();
    let (mut want_q, mut want_short) = (q.clone(), short.clone());
    let turn = |x: &mut [f32], heads, from| {
        let pairs = RopePairs::Interleaved;
        rope(
            &context,
            Rope {
                x,
                heads,
                from,
                pairs,
                table: &table,
            },
        )
        .unwrap();
    };
    turn(&mut want_q, heads, turn_from);
    turn(&mut want_short, Heads::whole(key_dim), rank);
    let normed = Norm {
        x: None,
        out: &mut want_short,
        heads: Heads {
            head_dim: rank,
            ..Heads::whole(key_dim)
        },
        kind: NormKind::Rms,
        weight: Some(&weight),
        bias: None,
        eps: 1e-6,
    };
    norm(&context, normed).unwrap();
    let shape = KvShape {
        n_heads: 1,
        key_dim,
        values: KvValues::InKeys { value_dim: rank },
    };
    each_order(|gpu| {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let sizes = KvSizes {
                n_blocks: 3,
                block_size: 4,
                dtype,
            };
            let (memory, pages) = pages(gpu, shape, sizes);
            let (x, latent, weight) = (uploaded(gpu, &q), uploaded(gpu, &short), uploaded(gpu, &weight));
            let (cos, sin) = (uploaded(gpu, table.cos()), uploaded(gpu, table.sin()));
            let slots = uploaded(gpu, &[9, -1, 2]);
            let angles = Angles {
                cos: cos.view(),
                sin: sin.view(),
            };
            let op = LatentKeys {
                q: x.view(),
                heads,
                turn_from,
                short: latent.view(),
                rank,
                norm: HeadNorm {
                    kind: NormKind::Rms,
                    weight: Some(weight.view()),
                    bias: None,
                    eps: 1e-6,
                },
                turn: Turn {
                    pairs: RopePairs::Interleaved,
                    half_dim,
                    keys: angles,
                    queries: angles,
                },
                pages,
                slots: slots.view(),
            };
            latent_keys(gpu, op).unwrap();
            check_row(&downloaded(gpu, x.view()), &want_q, DType::F32);
            let bytes = downloaded(gpu, memory.view());
            for slot in 0..12 {
                let token = [9, 99, 2].iter().position(|&of| of == slot);
                let got = row(&bytes, &pages, (slot, 0), false);
                assert_eq!(got.is_some(), token.is_some(), "slot {slot}");
                if let (Some(got), Some(token)) = (got, token) {
                    check_row(&got, &want_short[token * key_dim..][..key_dim], dtype);
                }
            }
        }
    });
}

#[test]
fn shapes_that_disagree_are_refused() {
    each_order(|gpu| {
        let shape = KvShape::of_heads(1, 4);
        let sizes = KvSizes {
            n_blocks: 1,
            block_size: 4,
            dtype: DType::F32,
        };
        let (_memory, pages) = pages(gpu, shape, sizes);
        let (x, slots) = (uploaded(gpu, &[0.0; 24]), uploaded(gpu, &[0, 1]));
        let heads = |first| Heads {
            row_stride: 12,
            first,
            n_heads: 1,
            head_dim: 4,
        };
        let op = Keys {
            qkv: x.view(),
            queries: heads(0),
            keys: heads(4),
            clip: None,
            norms: None,
            turn: None,
            pages,
            slots: slots.view(),
        };
        keys(gpu, op).unwrap();
        let wrong = [
            Keys { keys: heads(5), ..op },
            Keys {
                slots: slots.view().range(0..1),
                ..op
            },
            Keys {
                qkv: x.view().range(0..23),
                ..op
            },
        ];
        assert!(wrong.into_iter().all(|op| keys(gpu, op).is_err()));
    });
}
