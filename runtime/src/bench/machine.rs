//! The machine: its name, and what it can do at most.

use std::fs;
use std::time::Duration;

use kernels::{CpuContext, Isa, MachineLimits, ProbeMemory};
use serde::Serialize;

use super::BenchError;
use crate::serving::capacity;

/// What computes.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Name of the processor.
    pub processor: String,
    /// Compute threads.
    pub threads: usize,
    /// Vector instructions in use: `portable`, `avx2` or `avx512`.
    pub instructions: &'static str,
    /// Bytes of its last cache; `None` where the system does not tell.
    pub last_cache_bytes: Option<u64>,
    /// What computes the model: the processor, or the name of a card.
    pub device: String,
}

/// What the processor can do at most with some threads.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// Threads.
    pub threads: usize,
    /// GB/s of memory that each thread reads from its beginning to its end.
    pub read_one_stream_gb_s: f64,
    /// GB/s of memory that each thread reads in several places at a time.
    pub read_streams_gb_s: f64,
    /// f32 GFLOP/s of multiply-adds.
    pub fma_f32_gflop_s: f64,
}

/// Seconds that one probe takes.
const PROBE_S: f64 = 1.0;
/// Bounds of the memory that is read.
const PROBE_BYTES: std::ops::RangeInclusive<u64> = 512 << 20..=2 << 30;
/// How many times as large as the last cache it is.
const CACHES: u64 = 4;

impl Machine {
    pub(super) fn of(device: &str, n_threads: usize) -> Machine {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let isa = Isa::available().last().map_or("portable", |isa| isa.name());
        Machine {
            processor: processor(&info).unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            threads: n_threads,
            instructions: isa,
            last_cache_bytes: last_cache_bytes(),
            device: device.to_owned(),
        }
    }
}

impl Limits {
    /// GB/s of the better way to read.
    pub fn read_gb_s(&self) -> f64 {
        self.read_one_stream_gb_s.max(self.read_streams_gb_s)
    }

    /// The better of each limit: whatever is measured at any time is possible.
    pub(super) fn better(self, other: Limits) -> Limits {
        Limits {
            threads: self.threads,
            read_one_stream_gb_s: self.read_one_stream_gb_s.max(other.read_one_stream_gb_s),
            read_streams_gb_s: self.read_streams_gb_s.max(other.read_streams_gb_s),
            fma_f32_gflop_s: self.fma_f32_gflop_s.max(other.fma_f32_gflop_s),
        }
    }

    fn of(limits: MachineLimits) -> Limits {
        Limits {
            threads: limits.n_threads,
            read_one_stream_gb_s: limits.read_one_stream / 1e9,
            read_streams_gb_s: limits.read_streams / 1e9,
            fma_f32_gflop_s: limits.fma_f32 / 1e9,
        }
    }
}

/// Measures with one thread, with twice as many and so on, and with `n_threads`, which come last.
pub(super) fn probe(n_threads: usize) -> Result<Vec<Limits>, BenchError> {
    let counts = thread_counts(n_threads);
    let wanted = last_cache_bytes().map_or(0, |bytes| CACHES * bytes);
    let size_bytes = wanted
        .clamp(*PROBE_BYTES.start(), *PROBE_BYTES.end())
        .min(capacity::bytes_free() / 4);
    let memory = ProbeMemory::new(size_bytes as usize)?;
    let time = Duration::from_secs_f64(PROBE_S / (3 * counts.len()) as f64);
    let limits = |n_threads| {
        let context = CpuContext::new(n_threads)?;
        Ok(Limits::of(kernels::probe(&context, &memory, time)))
    };
    counts.into_iter().map(limits).collect()
}

/// The powers of two below `n_threads`, and `n_threads`.
fn thread_counts(n_threads: usize) -> Vec<usize> {
    let doubled = std::iter::successors(Some(1), |n| Some(2 * n));
    let mut counts: Vec<usize> = doubled.take_while(|n| *n < n_threads).collect();
    counts.push(n_threads);
    counts
}

fn processor(info: &str) -> Option<String> {
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Bytes of the largest cache of the first processor.
fn last_cache_bytes() -> Option<u64> {
    let caches = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    let sizes = caches.flatten().filter_map(|cache| {
        let text = fs::read_to_string(cache.path().join("size")).ok()?;
        cache_bytes(text.trim())
    });
    sizes.max()
}

/// `32768K` as the system writes it.
fn cache_bytes(text: &str) -> Option<u64> {
    let unit = match text.chars().last()? {
        'K' => 1 << 10,
        'M' => 1 << 20,
        _ => return text.parse().ok(),
    };
    Some(text[..text.len() - 1].parse::<u64>().ok()? * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_doubled_up_to_all() {
        assert_eq!(thread_counts(1), [1]);
        assert_eq!(thread_counts(2), [1, 2]);
        assert_eq!(thread_counts(6), [1, 2, 4, 6]);
        assert_eq!(thread_counts(8), [1, 2, 4, 8]);
    }

    #[test]
    fn what_the_system_writes_is_read() {
        assert_eq!(cache_bytes("32768K"), Some(32 << 20));
        assert_eq!(cache_bytes("2M"), Some(2 << 20));
        assert_eq!(cache_bytes("64"), Some(64));
        assert_eq!(cache_bytes("many"), None);
        assert_eq!(cache_bytes(""), None);
        let info = "processor\t: 0\nmodel name\t: AMD EPYC\nflags: x\n";
        assert_eq!(processor(info).as_deref(), Some("AMD EPYC"));
        assert_eq!(processor("Features: x"), None);
    }
}
