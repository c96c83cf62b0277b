//! The same cases on the device, under several orders of blocks and warps.

use half::{bf16, f16};

use super::*;
use crate::attention::cuda::{
    Attention as GpuAttention, AttentionSizes, AttentionWorkspace, BiasValues as GpuBiasValues, Card,
    RelativeBias as GpuBias, Scores as GpuScores, enqueue,
};
use crate::cuda::testing::each_order;
use crate::cuda::{DeviceBuffer, Element, Gpu};
use crate::kv_cache::KvPages;

/// An H100 but for the number of blocks.
const HOPPER: Card = Card {
    capability: (9, 0),
    shared_bytes_max: 227 << 10,
    n_resident: 1,
};

/// What a step's rows look like on the device.
struct Step {
    q: Vec<f32>,
    rows: Vec<u32>,
    blocks: Vec<u32>,
    pages: Vec<u8>,
    n_blocks: usize,
    /// Rows of padding at the end.
    n_padding: usize,
}

/// The bytes of a number in a page.
fn bytes_of(dtype: DType, x: f32) -> Vec<u8> {
    match dtype {
        DType::F32 => x.to_le_bytes().to_vec(),
        DType::F16 => f16::from_f32(x).to_le_bytes().to_vec(),
        DType::BF16 => bf16::from_f32(x).to_le_bytes().to_vec(),
    }
}

fn on_device<T: Element>(gpu: &Gpu, from: &[T]) -> DeviceBuffer<T> {
    let buffer = gpu.alloc(from.len()).unwrap();
    gpu.upload(from, buffer.view()).unwrap();
    buffer
}

impl Case {
    /// Groups of 128 bytes of a key and of a value beside it.
    fn groups(&self) -> (usize, usize) {
        let groups = |dim: usize| (dim * self.dtype.size_bytes()).div_ceil(128);
        match self.values {
            KvValues::Own { value_dim } => (groups(self.head_dim), groups(value_dim)),
            KvValues::InKeys { .. } => (groups(self.head_dim), 0),
        }
    }

    /// Writes a vector and the zeros that fill its last group up; `part` is its keys or values of a block.
    fn write(&self, part: &mut [u8], at: usize, vector: &[f32]) {
        let size = self.dtype.size_bytes();
        let n_groups = (vector.len() * size).div_ceil(128);
        for i in 0..n_groups * 128 / size {
            let byte = i * size;
            let (group, piece) = (byte / 128, byte % 128 / 16);
            let to = (group * self.block_size + at) * 128 + (piece ^ (at % 8)) * 16 + byte % 16;
            let x = vector.get(i).copied().unwrap_or(0.0);
            part[to..to + size].copy_from_slice(&bytes_of(self.dtype, x));
        }
    }

    /// Pages that hold NaN wherever no token of a row is, and tables whose blocks before what is seen do not exist.
    fn step(&self, n_padding: usize) -> Step {
        let n_blocks = self
            .rows
            .iter()
            .map(|&(_, len)| len.div_ceil(self.block_size))
            .sum::<usize>()
            + 1;
        let (key_groups, own_groups) = self.groups();
        let head_bytes = (key_groups + own_groups) * self.block_size * 128;
        let mut step = Step {
            q: Vec::new(),
            rows: Vec::new(),
            blocks: vec![7],
            pages: vec![0xFF; n_blocks * self.n_kv_heads * head_bytes],
            n_blocks,
            n_padding,
        };
        let mut next = n_blocks;
        for (row, &(query_len, len)) in self.rows.iter().enumerate() {
            let n_tokens = step.q.len() / self.width();
            step.rows
                .extend([n_tokens, query_len, len, step.blocks.len()].map(|n| n as u32));
            step.q
                .extend((len - query_len..len).flat_map(|position| self.query(row, position)));
            let first_seen = self.mask.seen(len - query_len, len).start;
            for first in (0..len).step_by(self.block_size) {
                if first + self.block_size <= first_seen {
                    step.blocks.push(u32::MAX);
                    continue;
                }
                next -= 1;
                step.blocks.push(next as u32);
                for position in first..len.min(first + self.block_size) {
                    let kv = self.keys_values(row, position);
                    let (keys, values) = kv.split_at(self.n_kv_heads * self.head_dim);
                    for head in 0..self.n_kv_heads {
                        let part =
                            &mut step.pages[(next * self.n_kv_heads + head) * head_bytes..][..head_bytes];
                        let (key_part, value_part) = part.split_at_mut(key_groups * self.block_size * 128);
                        let at = position % self.block_size;
                        self.write(key_part, at, &keys[head * self.head_dim..][..self.head_dim]);
                        let value_dim = values.len() / self.n_kv_heads;
                        self.write(value_part, at, &values[head * value_dim..][..value_dim]);
                    }
                }
            }
        }
        for i in 0..n_padding {
            let n_tokens = step.q.len() / self.width();
            step.rows
                .extend([n_tokens as u32, 0, 0, if i % 2 == 0 { 0 } else { u32::MAX }]);
            step.q.extend(vec![f32::NAN; self.width()]);
        }
        step
    }

    /// The device's result with the kernels for a card.
    fn run_on(&self, gpu: &Gpu, step: &Step, card: Card) -> Vec<f32> {
        let shape = self.shape();
        let q = on_device(gpu, &step.q);
        let pages = on_device(gpu, &step.pages);
        let rows = on_device(gpu, &step.rows);
        let blocks = on_device(gpu, &step.blocks);
        let slopes = on_device(gpu, &self.per_head(3));
        let sinks = on_device(gpu, &self.per_head(4));
        let table: Vec<f32> = (0..3).flat_map(|bucket| self.per_head(5 + bucket)).collect();
        let (table, buckets) = (on_device(gpu, &table), on_device(gpu, &BUCKETS));
        let of_queries = on_device(gpu, &self.of_tokens(20));
        let of_keys = on_device(gpu, &self.of_tokens(21));
        let of_tokens = |queries| GpuBiasValues::OfTokens {
            queries,
            keys: Some(of_keys.view()),
            n_buckets: N_BUCKETS,
        };
        let n_tokens = step.q.len() / self.width();
        let mut host = vec![f32::NAN; n_tokens * self.n_heads() * shape.value_dim()];
        let out = gpu.alloc(host.len()).unwrap();
        let sizes = AttentionSizes {
            n_heads: self.n_heads(),
            n_kv_heads: self.n_kv_heads,
            value_dim: shape.value_dim(),
        };
        let n_rows = step.rows.len() / 4;
        let workspace = AttentionWorkspace::new(gpu, &[sizes], n_rows).unwrap();
        let single = self.rows.iter().filter(|&&(query_len, _)| query_len == 1).count();
        // Twice, as what the first leaves behind must not change the second.
        for _ in 0..2 {
            gpu.upload(&host, out.view()).unwrap();
            let op = GpuAttention {
                q: q.view(),
                q_stride: self.width(),
                n_heads: self.n_heads(),
                cache: KvPages {
                    view: pages.view(),
                    n_blocks: step.n_blocks,
                    block_size: self.block_size,
                    shape,
                    dtype: self.dtype,
                },
                rows: rows.view(),
                max_query_len: self.rows.iter().map(|row| row.0).max().unwrap_or(1),
                n_single_rows: single + step.n_padding,
                blocks: blocks.view(),
                scores: GpuScores {
                    scale: (self.head_dim as f32).powf(-0.5),
                    softcap: self.softcap,
                    alibi_slopes: self.has_slopes.then_some(slopes.view()),
                    sinks: self.has_sinks.then_some(sinks.view()),
                    relative: self.bias.map(|bias| GpuBias {
                        buckets: buckets.view(),
                        values: match bias {
                            Bias::Table => GpuBiasValues::Table(table.view()),
                            Bias::OfTokens => of_tokens(Some(of_queries.view())),
                            Bias::OfKeys => of_tokens(None),
                        },
                    }),
                },
                mask: self.mask,
                workspace: &workspace,
                out: out.view(),
            };
            enqueue(gpu, &op, card).unwrap();
        }
        gpu.download(out.view(), &mut host).unwrap();
        host
    }

    /// How far a result may be from the reference: the rounding of weights to the type of the products.
    fn tolerance(&self) -> f64 {
        match self.dtype {
            DType::F32 => 128.0 * f64::from(f32::EPSILON),
            DType::F16 => 1.0 / 1024.0,
            DType::BF16 => 1.0 / 128.0,
        }
    }

    /// Compares the device with the reference, in every order of blocks and warps; the bits never change.
    fn check_on_device(&self, n_padding: usize, n_resident: usize) {
        let card = Card { n_resident, ..HOPPER };
        self.check_on_card(n_padding, card);
    }

    /// The same with the kernels for a card.
    fn check_on_card(&self, n_padding: usize, card: Card) {
        let step = self.step(n_padding);
        let width = self.n_heads() * self.shape().value_dim();
        let mut want = Vec::new();
        for (row, &(query_len, len)) in self.rows.iter().enumerate() {
            want.extend((len - query_len..len).flat_map(|position| self.reference(row, position)));
        }
        want.extend(vec![0.0; n_padding * width]);
        let mut first: Option<Vec<f32>> = None;
        each_order(|gpu| {
            let got = self.run_on(gpu, &step, card);
            for (i, (&got, &want)) in got.iter().zip(&want).enumerate() {
                let close = (f64::from(got) - want).abs() < self.tolerance();
                assert!(
                    close,
                    "{self:?} token {} element {}: {got} {want}",
                    i / width,
                    i % width
                );
            }
            assert_eq!(first.get_or_insert_with(|| got.clone()), &got, "{self:?}");
        });
    }
}

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::BF16];

/// All masks, with a window and a reach that do not end at multiples of anything.
const MASKS: [Mask; 5] = [
    Mask::Causal { window: None },
    Mask::Causal { window: Some(1) },
    Mask::Causal { window: Some(37) },
    Mask::Around { reach: 13 },
    Mask::Full,
];

#[test]
fn any_shape_in_f32() {
    for (mask, block_size) in MASKS.into_iter().zip([1, 16, 5, 32, 16]) {
        let case = Case {
            n_kv_heads: 2,
            group: 3,
            head_dim: 20,
            values: KvValues::Own { value_dim: 35 },
            block_size,
            mask,
            rows: vec![(1, 300), (4, 4), (3, 71), (1, 1)],
            ..PLAIN
        };
        case.check_on_device(2, 1);
    }
}

#[test]
fn decode_splits_contexts_and_joins_them() {
    // Nine tiles of 64 positions go round a ring of four stages twice with one block; with more, chunks are joined.
    for (head_dim, dtype, n_resident) in [
        (64, DType::BF16, 1),
        (80, DType::F16, 5),
        (128, DType::BF16, 5),
        (192, DType::F16, 1),
        (250, DType::BF16, 2),
    ] {
        let case = Case {
            n_kv_heads: 2,
            group: 3,
            head_dim,
            values: KvValues::Own { value_dim: head_dim },
            dtype,
            rows: vec![(1, 520), (1, 1), (1, 129)],
            ..PLAIN
        };
        for capability in [(8, 0), (9, 0)] {
            let card = Card {
                capability,
                n_resident,
                ..HOPPER
            };
            case.check_on_card(2, card);
        }
    }
}

#[test]
fn what_a_stage_holds_behind_the_end_does_not_leak() {
    // Each block begins with a part of a tile, so the rest of the stage is what shared memory held before: NaN.
    for (head_dim, capability) in [(64, (8, 0)), (64, (9, 0)), (256, (8, 0)), (256, (9, 0))] {
        let case = Case {
            n_kv_heads: 2,
            group: 2,
            head_dim,
            values: KvValues::Own { value_dim: head_dim },
            mask: Mask::Causal { window: Some(19) },
            dtype: DType::BF16,
            rows: vec![(1, 5), (1, 93), (1, 22)],
            ..PLAIN
        };
        let card = Card {
            capability,
            n_resident: 8,
            ..HOPPER
        };
        case.check_on_card(0, card);
    }
}

#[test]
fn each_capability_has_kernels_of_its_own() {
    let heads = Case {
        group: 5,
        head_dim: 64,
        values: KvValues::Own { value_dim: 64 },
        mask: MASKS[2],
        dtype: DType::BF16,
        rows: vec![(1, 300), (9, 70)],
        ..PLAIN
    };
    let latent = Case {
        group: 17,
        head_dim: 576,
        values: KvValues::InKeys { value_dim: 500 },
        rows: vec![(1, 70), (2, 40)],
        ..heads.clone()
    };
    for (capability, shared_kib) in [
        ((7, 5), 64),
        ((8, 0), 163),
        ((8, 6), 99),
        ((9, 0), 227),
        ((10, 0), 227),
    ] {
        let card = Card {
            capability,
            shared_bytes_max: shared_kib << 10,
            n_resident: 2,
        };
        heads.check_on_card(1, card);
        latent.check_on_card(1, card);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn odd_shapes(case in odd_case(), dtype in proptest::sample::select(&DTYPES[..])) {
        Case { dtype, ..case }.check_on_device(1, 2);
    }
}

#[test]
fn decode_sees_what_each_mask_allows() {
    for (mask, block_size) in MASKS.into_iter().zip([1, 16, 5, 32, 24]) {
        let case = Case {
            group: 20,
            head_dim: 33,
            values: KvValues::Own { value_dim: 61 },
            block_size,
            mask,
            dtype: DType::BF16,
            rows: vec![(1, 300), (1, 17), (1, 64)],
            ..PLAIN
        };
        case.check_on_device(1, 3);
    }
}

#[test]
fn prefill_chunks_after_a_prefix_beside_single_tokens() {
    for (head_dim, dtype, mask) in [
        (64, DType::F16, MASKS[0]),
        (80, DType::BF16, MASKS[2]),
        (96, DType::F16, MASKS[3]),
        (128, DType::BF16, MASKS[0]),
        (192, DType::BF16, MASKS[4]),
        (256, DType::F16, MASKS[1]),
    ] {
        let case = Case {
            n_kv_heads: 2,
            group: 3,
            head_dim,
            values: KvValues::Own { value_dim: head_dim },
            mask,
            dtype,
            rows: vec![(22, 150), (1, 70), (7, 7), (2, 66)],
            ..PLAIN
        };
        case.check_on_device(1, 3);
    }
}

#[test]
fn tensor_cores_shape_scores_as_the_reference() {
    for (softcap, has_slopes, has_sinks, bias) in SHAPED {
        let case = Case {
            n_kv_heads: 2,
            group: 2,
            head_dim: 40,
            values: KvValues::Own { value_dim: 40 },
            softcap,
            has_slopes,
            has_sinks,
            bias,
            mask: MASKS[2],
            dtype: DType::F16,
            rows: vec![(20, 90), (1, 300), (1, 40)],
            ..PLAIN
        };
        case.check_on_device(0, 5);
        let exact = Case {
            dtype: DType::F32,
            ..case
        };
        exact.check_on_device(0, 1);
    }
}

#[test]
fn biases_of_tokens_on_any_card() {
    for (bias, dtype) in [
        (Bias::OfTokens, DType::F32),
        (Bias::OfTokens, DType::BF16),
        (Bias::OfKeys, DType::F16),
    ] {
        let case = Case {
            n_kv_heads: 2,
            group: 2,
            head_dim: 40,
            values: KvValues::Own { value_dim: 40 },
            bias: Some(bias),
            mask: Mask::Full,
            dtype,
            rows: vec![(150, 150), (1, 1), (20, 20)],
            ..PLAIN
        };
        case.check_on_device(0, 2);
    }
}

#[test]
fn latent_values_are_the_beginnings_of_keys() {
    for (group, dtype, rows) in [
        (16, DType::BF16, vec![(1, 200), (1, 5)]),
        (40, DType::F16, vec![(1, 200), (1, 33), (3, 70)]),
    ] {
        let case = Case {
            group,
            head_dim: 576,
            values: KvValues::InKeys { value_dim: 512 },
            dtype,
            rows,
            ..PLAIN
        };
        case.check_on_device(1, 3);
    }
    let short = Case {
        group: 5,
        head_dim: 25,
        values: KvValues::InKeys { value_dim: 17 },
        dtype: DType::BF16,
        rows: vec![(1, 200), (3, 5)],
        ..PLAIN
    };
    short.check_on_device(1, 1);
}
