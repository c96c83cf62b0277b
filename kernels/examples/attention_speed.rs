//! How fast attention is on this machine: `attention_speed [ROUNDS] [THREADS]`. Prints the medians of decode steps and of
//! chunks of 512 tokens at several contexts, for the shapes of TinyLlama-1.1B and Llama-3-8B with a cache in bf16.

use std::env;
use std::time::Instant;

use kernels::{
    Attention, AttentionRow, AttentionTiles, CpuContext, KernelError, KvCache, KvDType, KvShape, KvWrite,
    Mask, Scores, attention, kv_write,
};

/// Bytes of caches that are read in turn, so that none is in the processor's own.
const TOTAL_BYTES: usize = 256 << 20;
const BLOCK_SIZE: usize = 16;

struct Model {
    name: &'static str,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
}

const MODELS: [Model; 2] = [
    Model {
        name: "TinyLlama-1.1B",
        n_heads: 32,
        n_kv_heads: 4,
        head_dim: 64,
    },
    Model {
        name: "Llama-3-8B",
        n_heads: 32,
        n_kv_heads: 8,
        head_dim: 128,
    },
];

/// New tokens, and the tokens of the context.
const CASES: [(usize, usize); 6] = [
    (1, 512),
    (1, 4096),
    (1, 16_384),
    (512, 512),
    (512, 2048),
    (512, 4096),
];

fn main() -> Result<(), KernelError> {
    let numbers: Vec<usize> = env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let n_rounds = numbers.first().copied().unwrap_or(5);
    let n_threads = numbers.get(1).copied();
    let n_threads = n_threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let context = CpuContext::new(n_threads)?;
    for model in MODELS {
        for case in CASES {
            measure(&context, &model, case, n_rounds)?;
        }
    }
    Ok(())
}

fn measure(
    context: &CpuContext,
    model: &Model,
    (query_len, context_len): (usize, usize),
    n_rounds: usize,
) -> Result<(), KernelError> {
    let shape = KvShape::of_heads(model.n_kv_heads, model.head_dim);
    let kv_bytes = context_len * shape.slot_bytes(KvDType::BF16);
    let n_caches = if query_len == 1 { TOTAL_BYTES / kv_bytes } else { 1 };
    let caches = (0..n_caches)
        .map(|_| filled(shape, context_len))
        .collect::<Result<Vec<_>, _>>()?;
    let blocks: Vec<u32> = (0..context_len.div_ceil(BLOCK_SIZE) as u32).rev().collect();
    let q = noise(query_len * model.n_heads * model.head_dim);
    let mut out = vec![0.0; q.len()];
    let mut tiles = AttentionTiles::default();
    let mut times = Vec::new();
    for _ in 0..n_rounds {
        for cache in &caches {
            let begun = Instant::now();
            let op = Attention {
                q: &q,
                q_stride: model.n_heads * model.head_dim,
                n_heads: model.n_heads,
                cache,
                rows: &[AttentionRow {
                    query_len,
                    context_len,
                    first_block: 0,
                }],
                blocks: &blocks,
                scores: Scores::scaled((model.head_dim as f32).powf(-0.5)),
                mask: Mask::Causal { window: None },
                tiles: &mut tiles,
                out: &mut out,
            };
            context.enter(|| attention(context, op))?;
            times.push(begun.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    let seconds = times[times.len() / 2];
    let n_seen = (context_len - query_len) * query_len + query_len * (query_len + 1) / 2;
    let flops = 4 * n_seen * model.n_heads * model.head_dim;
    println!(
        "{:15} {query_len:3} of {context_len:5}: {:8.3} ms {:6.1} GFLOP/s {:5.1} GB/s",
        model.name,
        seconds * 1e3,
        flops as f64 / seconds * 1e-9,
        kv_bytes as f64 / seconds * 1e-9,
    );
    Ok(())
}

fn filled(shape: KvShape, context_len: usize) -> Result<KvCache, KernelError> {
    let mut cache = KvCache::new(context_len.div_ceil(BLOCK_SIZE), BLOCK_SIZE, shape, KvDType::BF16)?;
    let width = 2 * shape.n_heads * shape.key_dim;
    for first in (0..context_len).step_by(512) {
        let slots: Vec<u32> = (first as u32..(first + 512) as u32).collect();
        let op = KvWrite {
            x: &noise(512 * width),
            row_stride: width,
            keys_at: 0,
            slots: &slots,
        };
        kv_write(&mut cache, op)?;
    }
    Ok(cache)
}

/// Numbers in -1..1.
fn noise(n: usize) -> Vec<f32> {
    (0..n as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}
