//! How fast a model computes, without a server: `decode_speed FOLDER [ROUNDS] [cpu|cuda] [none|int8|fp8|nf4]`. The folder needs a
//! `config.json` only: weights are made up. Prints tokens per second of a prompt of 512 tokens and of decoding at batches of 1 and 16.

use std::env;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use runtime::batch::{Batch, BatchRow, BlockId, Forward};
use runtime::model::{Device, LoadFormat, LoadOptions, Model, QuantFormat};

const BLOCK_SIZE: usize = 16;
const N_PROMPT: usize = 512;
/// Tokens of each sequence that is decoded; its cache holds zeros, which cost as much as others.
const N_CONTEXT: usize = 256;
const N_DECODED: usize = 8;
const BATCHES: [usize; 2] = [1, 16];

fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let folder = arguments
        .next()
        .context("usage: decode_speed FOLDER [ROUNDS] [cpu|cuda] [none|int8|fp8|nf4]")?;
    let n_rounds: usize = arguments.next().map_or(Ok(3), |text| text.parse())?;
    let device = match arguments.next().as_deref() {
        None | Some("cpu") => Device::Cpu,
        #[cfg(feature = "cuda")]
        Some("cuda") => Device::Cuda(kernels::cuda::Gpu::open(0)?),
        Some(other) => anyhow::bail!("there is no device {other}"),
    };
    let quantization = match arguments.next().as_deref() {
        None | Some("none") => None,
        Some("int8") => Some(QuantFormat::Int8),
        Some("fp8") => Some(QuantFormat::Fp8),
        Some("nf4") => Some(QuantFormat::Nf4),
        Some(other) => anyhow::bail!("there is no format {other}"),
    };
    let options = LoadOptions {
        device,
        quantization,
        format: LoadFormat::Dummy,
        ..LoadOptions::default()
    };
    let begun = Instant::now();
    let mut model = Model::load(Path::new(&folder), &options, &|_| {})?;
    println!("load {:.2} s", begun.elapsed().as_secs_f64());
    let n_each = (N_CONTEXT + N_DECODED).max(N_PROMPT).div_ceil(BLOCK_SIZE);
    let n_groups = model.kv_groups().len();
    model.allocate_cache(BATCHES[1] * n_each * n_groups, BLOCK_SIZE, 0)?;
    for round in 0..=n_rounds {
        let prefill = timed(&mut model, &batch(n_groups, &[(N_PROMPT, N_PROMPT)]))?;
        let mut line = format!("prefill {:.2}", N_PROMPT as f64 / prefill.as_secs_f64());
        for n_rows in BATCHES {
            let mut steps = (1..=N_DECODED)
                .map(|at| timed(&mut model, &batch(n_groups, &vec![(1, N_CONTEXT + at); n_rows])))
                .collect::<Result<Vec<_>, _>>()?;
            steps.sort();
            let median = steps[N_DECODED / 2];
            line += &format!("  decode@{n_rows} {:.2}", n_rows as f64 / median.as_secs_f64());
        }
        // The first round warms up.
        if round > 0 {
            println!("{line} tokens/s");
        }
    }
    Ok(())
}

/// The time of one step.
fn timed(model: &mut Model, batch: &Batch) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let output = model.forward(batch)?;
    let elapsed = begun.elapsed();
    anyhow::ensure!(
        output.logits.values.iter().all(|v| v.is_finite()),
        "logits are not finite"
    );
    Ok(elapsed)
}

/// Sequences of `(new tokens, tokens in the cache after the step)`, and the logits of each one's last token.
fn batch(n_groups: usize, sequences: &[(usize, usize)]) -> Batch {
    let mut batch = Batch::default();
    for (idx, &(query_len, context_len)) in sequences.iter().enumerate() {
        let query_start = batch.tokens.len();
        for position in context_len - query_len..context_len {
            batch.tokens.push((97 * idx + 31 * position) as u32 % 256);
            batch.positions.push(position as u32);
        }
        batch.logits_at.push(batch.tokens.len() as u32 - 1);
        let n_blocks = context_len.div_ceil(BLOCK_SIZE);
        let table = |group: usize| {
            let first = (idx * n_groups + group) * N_PROMPT.div_ceil(BLOCK_SIZE);
            (first..first + n_blocks)
                .map(|block| BlockId(block as u32))
                .collect()
        };
        batch.rows.push(BatchRow {
            place: idx as u32,
            query_start,
            query_len,
            context_len,
            prompt_len: context_len,
            block_tables: (0..n_groups).map(table).collect(),
        });
    }
    batch
}
