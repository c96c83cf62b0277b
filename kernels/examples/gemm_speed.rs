//! How fast products are on this processor: `gemm_speed [N K [ROUNDS [DTYPE [THREADS]]]]`.
//!
//! Prints what the processor can do at most (bytes read, f32 multiply-adds) beside what products of some numbers of rows
//! reach: medians over rounds, each of which measures all.

use std::env;
use std::hint::black_box;
use std::time::Instant;

use kernels::{CpuContext, DType, Gemm, QuantFormat, Weight, gemm};

/// Rows of activations.
const ROWS: [usize; 10] = [1, 2, 3, 4, 6, 8, 12, 16, 64, 512];

/// Bytes of all copies of the weight, so that no cache holds them.
const COPIES_BYTES: usize = 1 << 29;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize, default: usize| {
        arguments
            .get(at)
            .map_or(default, |text| text.parse().expect("a number"))
    };
    let (n, k, n_rounds) = (number(0, 2048), number(1, 2048), number(2, 5));
    let best = |all: &mut Vec<f64>| all.iter().copied().fold(f64::INFINITY, f64::min);
    let (dtype, format) = match arguments.get(3).map(String::as_str) {
        None | Some("bf16") => (DType::BF16, None),
        Some("f16") => (DType::F16, None),
        Some("f32") => (DType::F32, None),
        Some("int8") => (DType::F32, Some(QuantFormat::Int8)),
        Some("fp8") => (DType::F32, Some(QuantFormat::Fp8)),
        Some("nf4") => (DType::F32, Some(QuantFormat::Nf4)),
        Some(other) => panic!("{other} is no dtype"),
    };
    let name = format.map_or(dtype.name(), QuantFormat::name);
    let first = weight((dtype, format), n, k, 0);
    let weight_bytes = first.size_bytes();
    let others = 1..(COPIES_BYTES / weight_bytes).max(2);
    let weights: Vec<Weight> = std::iter::once(first)
        .chain(others.map(|seed| weight((dtype, format), n, k, seed as u64)))
        .collect();
    let n_threads = number(4, std::thread::available_parallelism().map_or(1, usize::from));
    let context = CpuContext::new(n_threads).expect("the threads start");
    let memory = vec![1_u64; COPIES_BYTES / 8];
    println!(
        "{name} {n} x {k}, {} threads, {}",
        n_threads,
        context.isa().name()
    );
    let mut results = vec![Vec::new(); ROWS.len() + 2];
    for _ in 0..n_rounds {
        results[0].push(read_speed(&memory, n_threads));
        results[1].push(multiply_speed(n_threads));
        for (m, results) in ROWS.iter().zip(&mut results[2..]) {
            results.push(product_seconds(&context, &weights, *m));
        }
    }
    // Of long products the best: others use the processor, too.
    let medians: Vec<f64> = results
        .iter_mut()
        .enumerate()
        .map(|(at, all)| if at > 9 { best(all) } else { median(all) })
        .collect();
    println!("read {:.1} GB/s, f32 peak {:.0} GFLOP/s", medians[0], medians[1]);
    for (m, seconds) in ROWS.iter().zip(&medians[2..]) {
        let gigabytes = weight_bytes as f64 / seconds / 1e9;
        let gigaflops = (2 * m * n * k) as f64 / seconds / 1e9;
        println!(
            "m {m:4}: {:9.1} us, {gigabytes:6.1} GB/s ({:3.0} %), {gigaflops:7.1} GFLOP/s ({:3.0} %)",
            seconds * 1e6,
            gigabytes / medians[0] * 100.0,
            gigaflops / medians[1] * 100.0
        );
    }
}

fn weight((dtype, format): (DType, Option<QuantFormat>), n: usize, k: usize, seed: u64) -> Weight {
    let empty = match format {
        Some(format) => Weight::quantised(format, n, k),
        None => Weight::zeroed(dtype, n, k),
    };
    let mut weight = empty.expect("there is memory");
    weight.fill_uniform(seed, 0.1).expect("it is not packed");
    weight.pack();
    weight
}

/// Seconds of one product, the shortest of some over all weights: others use the processor, too.
fn product_seconds(context: &CpuContext, weights: &[Weight], m: usize) -> f64 {
    let (n, k) = (weights[0].n_rows(), weights[0].n_cols());
    let x = vec![0.5; m * k];
    let mut y = vec![0.0; m * n];
    let mut seconds: Vec<f64> = weights
        .iter()
        .take(if m > 16 { 3 } else { usize::MAX })
        .map(|weight| {
            let begun = Instant::now();
            gemm(context, Gemm::of_rows(&x, weight, None, &mut y)).expect("the shapes agree");
            begun.elapsed().as_secs_f64()
        })
        .collect();
    black_box(&y);
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 4]
}

/// GB/s that all threads read together, four streams each: the best quarter of some pieces.
fn read_speed(memory: &[u64], n_threads: usize) -> f64 {
    const PIECE: usize = 1 << 19;
    let per_thread = memory.chunks(memory.len() / n_threads);
    let speeds: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = per_thread
            .map(|memory| {
                scope.spawn(move || {
                    let mut seconds: Vec<f64> = memory
                        .chunks_exact(PIECE)
                        .map(|piece| {
                            let begun = Instant::now();
                            black_box(sum_of_streams(piece));
                            begun.elapsed().as_secs_f64()
                        })
                        .collect();
                    seconds.sort_by(f64::total_cmp);
                    (PIECE * 8) as f64 / seconds[seconds.len() / 4] / 1e9
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("it ends"))
            .collect()
    });
    speeds.iter().sum()
}

/// The sum of numbers that are read as four streams.
fn sum_of_streams(piece: &[u64]) -> u64 {
    let quarter = piece.len() / 4;
    let (a, rest) = piece.split_at(quarter);
    let (b, rest) = rest.split_at(quarter);
    let (c, d) = rest.split_at(quarter);
    let mut sums = [0_u64; 16];
    let streams = a
        .chunks_exact(16)
        .zip(b.chunks_exact(16))
        .zip(c.chunks_exact(16).zip(d.chunks_exact(16)));
    for ((a, b), (c, d)) in streams {
        for i in 0..16 {
            sums[i] = sums[i].wrapping_add(a[i] ^ b[i]).wrapping_add(c[i] ^ d[i]);
        }
    }
    sums.iter().fold(0, |sum, next| sum.wrapping_add(*next))
}

/// GFLOP/s of f32 multiply-adds in registers, of all threads together.
fn multiply_speed(n_threads: usize) -> f64 {
    const N: usize = 1 << 14;
    let speeds: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..n_threads)
            .map(|_| {
                scope.spawn(|| {
                    let mut seconds: Vec<f64> = (0..200)
                        .map(|_| {
                            let begun = Instant::now();
                            black_box(multiply(black_box(0.5), N));
                            begun.elapsed().as_secs_f64()
                        })
                        .collect();
                    seconds.sort_by(f64::total_cmp);
                    (N * SUMS * 2) as f64 / seconds[seconds.len() / 4] / 1e9
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("it ends"))
            .collect()
    });
    speeds.iter().sum()
}

/// Sums that are in work at once.
const SUMS: usize = 12 * 8;

#[cfg(target_arch = "x86_64")]
fn multiply(factor: f32, n: usize) -> f32 {
    /// Twelve vectors of eight floats.
    #[target_feature(enable = "avx2,fma")]
    fn with_avx2(factor: f32, n: usize) -> f32 {
        use std::arch::x86_64::*;
        let factor = _mm256_set1_ps(factor);
        let mut sums = [factor; SUMS / 8];
        for _ in 0..n {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, factor, factor);
            }
        }
        sums.into_iter().map(|sum| _mm256_cvtss_f32(sum)).sum()
    }
    assert!(
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        "the probe needs AVX2"
    );
    // SAFETY: the processor has them, as asserted.
    unsafe { with_avx2(factor, n) }
}

#[cfg(not(target_arch = "x86_64"))]
fn multiply(factor: f32, n: usize) -> f32 {
    let mut sums = [factor; SUMS];
    for _ in 0..n {
        for sum in &mut sums {
            *sum = *sum * factor + factor;
        }
    }
    sums.iter().sum()
}

fn median(all: &mut [f64]) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}
