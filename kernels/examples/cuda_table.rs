//! How fast products run on a card: `cuda_table [SHRINK]`. Prints one JSON object a line.
//!
//! A line is the median of several replays of a graph. Products rotate through copies of the weight, so that they find
//! none of it in the cache. SHRINK divides all sizes: with 128 it runs on the stand-in, whose times mean nothing.

use std::time::Instant;

use kernels::cuda::{CudaError, Gpu, Graph, View};
use kernels::gpu::{Linear, Matrix, ProductScratch, ScratchSizes, linear};
use kernels::{DType, KernelError};

/// Rows and columns of the weights of a layer and of the head: q|k|v, o, gate|up, down, head.
const MODELS: [(&str, &[(usize, usize)]); 2] = [
    (
        "Llama-3.1-8B",
        &[
            (6144, 4096),
            (4096, 4096),
            (28672, 4096),
            (4096, 14336),
            (128_256, 4096),
        ],
    ),
    (
        "Llama-3.2-1B",
        &[
            (3072, 2048),
            (2048, 2048),
            (16384, 2048),
            (2048, 8192),
            (128_256, 2048),
        ],
    ),
];
const ROWS: [usize; 10] = [1, 2, 4, 8, 16, 32, 64, 128, 256, 2048];
const N_RUNS: usize = 7;
/// Least length of a run.
const RUN_SECONDS: f64 = 0.02;
const N_REPLAYS_MAX: f64 = 100.0;
/// Products of a graph.
const N_PRODUCTS: usize = 16;
/// Bytes of the copies of a weight: several times the largest cache of a card.
const COPIES_BYTES: usize = 1 << 30;
const COPY_BYTES: usize = 2 << 30;
/// Bytes of the numbers that weights and activations repeat.
const NUMBERS_BYTES: usize = 16 << 20;

fn main() -> Result<(), KernelError> {
    let shrink = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    let gpu = Gpu::open(0)?;
    let (major, minor) = gpu.capability();
    println!(
        r#"{{"step": "device", "name": "{}", "capability": "{major}.{minor}", "sms": {}, "memory": {}, "driver": "{}"}}"#,
        gpu.name(),
        gpu.n_sms(),
        gpu.total_memory(),
        gpu.driver_version()
    );
    let bandwidth = copies(&gpu, shrink)?;
    for (model, shapes) in MODELS {
        for &(n, k) in shapes {
            let shape = Shape {
                model,
                n: n / shrink,
                k: (k / shrink).max(64),
            };
            products(&gpu, &shape, bandwidth)?;
        }
    }
    Ok(())
}

/// A weight of a model.
struct Shape {
    model: &'static str,
    n: usize,
    k: usize,
}

/// Copies within the device's memory; returns bytes per second, read and written ones together.
fn copies(gpu: &Gpu, shrink: usize) -> Result<f64, KernelError> {
    let half = COPY_BYTES / 2 / shrink / shrink;
    let (from, to) = (gpu.alloc_zeroed::<u8>(half)?, gpu.alloc_zeroed::<u8>(half)?);
    let graph = gpu.capture(|| gpu.copy(from.view(), to.view()))?;
    let seconds = median(gpu, &graph)?;
    let bandwidth = 2.0 * half as f64 / seconds;
    println!(
        r#"{{"step": "copy", "bytes": {half}, "seconds": {seconds:e}, "bytes_per_second": {bandwidth:e}}}"#
    );
    Ok(bandwidth)
}

/// Products of each number of rows with copies of one weight.
fn products(gpu: &Gpu, shape: &Shape, bandwidth: f64) -> Result<(), KernelError> {
    let &Shape { model, n, k } = shape;
    let size_bytes = Matrix::size_bytes_of(DType::BF16, n, k);
    let n_copies = (COPIES_BYTES / size_bytes).clamp(2, N_PRODUCTS);
    let data = gpu.alloc::<u8>(n_copies * size_bytes)?;
    fill_with_numbers(gpu, data.view())?;
    let weights: Vec<Matrix> = (0..n_copies)
        .map(|at| data.view().range(at * size_bytes..(at + 1) * size_bytes))
        .map(|view| Matrix::new(view, DType::BF16, (n, k)))
        .collect::<Result<_, _>>()?;
    let largest = ROWS[ROWS.len() - 1];
    let (x, out) = (gpu.alloc::<f32>(largest * k)?, gpu.alloc::<f32>(largest * n)?);
    fill_with_numbers(gpu, x.view().cast())?;
    let sizes = ROWS
        .iter()
        .fold(ScratchSizes::default(), |sizes, &m| sizes.linear(m, &weights[0]));
    let scratch = ProductScratch::new(gpu, &sizes)?;
    for m in ROWS {
        let run = |at: usize| {
            let (x, out) = (x.view().range(0..m * k), out.view().range(0..m * n));
            linear(gpu, &Linear::of_rows(x, weights[at % n_copies], out, &scratch))
        };
        // The first one loads the kernel, which a recording must not do.
        run(0)?;
        let graph = gpu.capture(|| (0..N_PRODUCTS).try_for_each(run))?;
        let seconds = median(gpu, &graph)? / N_PRODUCTS as f64;
        let bytes = (n * k * 2 + m * (n + k) * 4) as f64;
        let flops = 2.0 * (m * n * k) as f64;
        println!(
            r#"{{"step": "linear", "model": "{model}", "m": {m}, "n": {n}, "k": {k}, "microseconds": {:.2}, "of_copy": {:.3}, "tflops": {:.1}}}"#,
            seconds * 1e6,
            bytes / seconds / bandwidth,
            flops / seconds / 1e12
        );
    }
    Ok(())
}

/// Numbers from 2⁻¹ to 1 of either sign, as bf16 and, of other sizes, as f32: a product of zeros needs less power.
fn fill_with_numbers(gpu: &Gpu, to: View<u8>) -> Result<(), CudaError> {
    let mut state = 1_u32;
    let numbers: Vec<u16> = (0..NUMBERS_BYTES.min(to.len()) / 2)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 16) as u16 & 0x807f | 0x3f00
        })
        .collect();
    let numbers: &[u8] = bytemuck::cast_slice(&numbers);
    for at in (0..to.len()).step_by(NUMBERS_BYTES) {
        let part = to.range(at..(at + NUMBERS_BYTES).min(to.len()));
        gpu.upload(&numbers[..part.len()], part)?;
    }
    Ok(())
}

/// Seconds of a replay: the median of several runs, each of which is long beside the time that a wait takes.
fn median(gpu: &Gpu, graph: &Graph) -> Result<f64, CudaError> {
    let run = |n_replays: usize| -> Result<f64, CudaError> {
        gpu.synchronize()?;
        let begun = Instant::now();
        for _ in 0..n_replays {
            gpu.replay(graph)?;
        }
        gpu.synchronize()?;
        Ok(begun.elapsed().as_secs_f64() / n_replays as f64)
    };
    // The first replay warms up.
    run(1)?;
    let n_replays = (RUN_SECONDS / run(1)?).clamp(1.0, N_REPLAYS_MAX) as usize;
    let mut times = (0..N_RUNS)
        .map(|_| run(n_replays))
        .collect::<Result<Vec<_>, CudaError>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times[N_RUNS / 2])
}
