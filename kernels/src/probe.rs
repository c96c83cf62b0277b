//! What a machine can do with some threads: how fast it reads memory, and how fast it multiplies and adds.
//!
//! Measures with the instruction set of a context, so that an op can be compared with the limit that holds for it. Must not
//! know any op.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::cpu::buffer::Buffer;
use crate::cpu::context::CpuContext;
use crate::cpu::simd::{Simd, SimdTask};
use crate::error::KernelError;

/// Memory that [`probe`] reads.
#[derive(Debug)]
pub struct ProbeMemory {
    buffer: Buffer,
}

/// The best rates that a machine reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MachineLimits {
    /// Threads that worked.
    pub n_threads: usize,
    /// Bytes per second of memory that each thread reads from its beginning to its end.
    pub read_one_stream: f64,
    /// Bytes per second of memory that each thread reads in [`N_STREAMS`] places at a time, with prefetches.
    pub read_streams: f64,
    /// f32 operations per second of multiply-adds in registers, two operations each.
    pub fma_f32: f64,
}

/// Places in which a thread reads at a time in the second measurement of memory.
pub const N_STREAMS: usize = 4;

/// Bytes of a piece of memory that a thread reads at once.
const PIECE_BYTES: usize = 16 << 20;
/// Floats of a cache line.
const LINE_FLOATS: usize = 16;
/// How far ahead of a stream lines are prefetched.
const AHEAD_BYTES: usize = 1024;
/// Sums of multiply-adds that do not wait for each other: enough for two units with a latency of five, few enough for
/// 16 registers.
const N_SUMS: usize = 12;
/// Multiply-adds of each sum in a task.
const N_ROUNDS: usize = 100_000;
/// Tasks for each thread, so that one that begins late does not decide.
const TASKS_PER_THREAD: usize = 4;

impl MachineLimits {
    /// Bytes per second of the better way to read.
    pub fn read(&self) -> f64 {
        self.read_one_stream.max(self.read_streams)
    }
}

impl ProbeMemory {
    /// `size_bytes` of memory, written once so that the system has given all of it; rounded up to whole pieces. It must be
    /// larger than the last cache for [`probe`] to measure memory.
    ///
    /// # Errors
    /// The system has no such memory, or `size_bytes` is zero.
    pub fn new(size_bytes: usize) -> Result<ProbeMemory, KernelError> {
        let mut buffer = Buffer::zeroed("probe", size_bytes.next_multiple_of(PIECE_BYTES))?;
        let pieces = buffer.floats_mut().par_chunks_mut(PIECE_BYTES / size_of::<f32>());
        pieces.for_each(|piece| piece.fill(1.0));
        Ok(ProbeMemory { buffer })
    }
}

/// Measures with the threads of a context; each of the three measurements is repeated for `time`, at least twice, and the
/// best counts, because a limit is what nothing disturbed.
pub fn probe(context: &CpuContext, memory: &ProbeMemory, time: Duration) -> MachineLimits {
    let floats: &[f32] = memory.buffer.as_slice();
    let pieces: Vec<&[f32]> = floats.chunks_exact(PIECE_BYTES / size_of::<f32>()).collect();
    let n_bytes = size_of_val(floats) as f64;
    let n_tasks = TASKS_PER_THREAD * context.n_threads();
    context.enter(|| MachineLimits {
        n_threads: context.n_threads(),
        read_one_stream: n_bytes
            / shortest_s(time, || {
                let read = |at: usize| context.run(Read::<1, 4> { floats: pieces[at] });
                context.for_each(pieces.len(), |at| {
                    let _sum = black_box(read(at));
                });
            }),
        read_streams: n_bytes
            / shortest_s(time, || {
                let read = |at: usize| context.run(Read::<N_STREAMS, 2> { floats: pieces[at] });
                context.for_each(pieces.len(), |at| {
                    let _sum = black_box(read(at));
                });
            }),
        fma_f32: n_tasks as f64 * context.run(OperationsOfTask)
            / shortest_s(time, || {
                context.for_each(n_tasks, |_| {
                    let _sum = black_box(context.run(MultiplyAdd));
                });
            }),
    })
}

/// Seconds of the shortest of several runs.
fn shortest_s(time: Duration, work: impl Fn()) -> f64 {
    let begun = Instant::now();
    let mut shortest = Duration::MAX;
    let mut n_runs = 0;
    while n_runs < 2 || begun.elapsed() < time {
        let run = Instant::now();
        work();
        shortest = shortest.min(run.elapsed());
        n_runs += 1;
    }
    shortest.as_secs_f64().max(f64::MIN_POSITIVE)
}

/// The sum of all floats, read in `STREAMS` places at a time, `LINES` cache lines of each.
struct Read<'a, const STREAMS: usize, const LINES: usize> {
    floats: &'a [f32],
}

impl<const STREAMS: usize, const LINES: usize> SimdTask for Read<'_, STREAMS, LINES> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let n_each = self.floats.len() / STREAMS;
        let n_each = n_each - n_each % (LINES * LINE_FLOATS);
        let mut sums = [[simd.splat(0.0); LINES]; STREAMS];
        for first in (0..n_each).step_by(LINES * LINE_FLOATS) {
            for (stream, sums) in sums.iter_mut().enumerate() {
                for (line, sum) in sums.iter_mut().enumerate() {
                    let at = stream * n_each + first + line * LINE_FLOATS;
                    let from = self.floats[at..].as_ptr();
                    if STREAMS > 1 {
                        simd.prefetch(from.cast::<u8>().wrapping_add(AHEAD_BYTES));
                    }
                    for lane in (0..LINE_FLOATS).step_by(S::LANES) {
                        // SAFETY: `at` is the start of a line that lies within the floats, because each stream has whole
                        // lines and `LANES` divides a line.
                        *sum = simd.add(*sum, unsafe { simd.load(from.add(lane)) });
                    }
                }
            }
        }
        sums.iter().flatten().map(|sum| simd.sum(*sum)).sum()
    }
}

/// The operations of one [`MultiplyAdd`].
struct OperationsOfTask;

impl SimdTask for OperationsOfTask {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        (2 * N_ROUNDS * N_SUMS * S::LANES) as f64
    }
}

/// Multiply-adds of numbers that stay in registers.
struct MultiplyAdd;

impl SimdTask for MultiplyAdd {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> f32 {
        let (factor, term) = (simd.splat(black_box(0.5)), simd.splat(black_box(1.0)));
        let mut sums = [term; N_SUMS];
        for _ in 0..N_ROUNDS {
            for sum in &mut sums {
                *sum = simd.mul_add(*sum, factor, term);
            }
        }
        sums.iter().map(|sum| simd.sum(*sum)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::isa::Isa;

    #[test]
    fn every_number_is_read_once() {
        let numbers: Vec<f32> = (0..4096).map(|i| (i % 7) as f32).collect();
        let sum: f32 = numbers.iter().sum();
        for isa in Isa::available() {
            let context = CpuContext::with_isa(1, isa).unwrap();
            assert_eq!(context.run(Read::<1, 4> { floats: &numbers }), sum, "{isa:?}");
            let streams = Read::<N_STREAMS, 2> { floats: &numbers };
            assert_eq!(context.run(streams), sum, "{isa:?}");
        }
    }

    #[test]
    fn sums_reach_their_limit() {
        // x = x / 2 + 1 ends at 2 in each of the lanes.
        for isa in Isa::available() {
            let context = CpuContext::with_isa(1, isa).unwrap();
            let n_lanes = context.run(OperationsOfTask) / (2 * N_ROUNDS * N_SUMS) as f64;
            let sum = f64::from(context.run(MultiplyAdd));
            assert_eq!(sum, 2.0 * N_SUMS as f64 * n_lanes, "{isa:?}");
        }
    }

    #[test]
    fn all_rates_are_numbers() {
        let memory = ProbeMemory::new(1).unwrap();
        let context = CpuContext::new(2).unwrap();
        let limits = probe(&context, &memory, Duration::ZERO);
        assert_eq!(limits.n_threads, 2);
        for rate in [limits.read_one_stream, limits.read_streams, limits.fma_f32] {
            assert!(rate.is_finite() && rate > 0.0);
        }
        assert!(limits.read() >= limits.read_streams);
    }
}
