//! The engine's load now, and counts since it started.
//!
//! Owns plain numbers that any thread may read. Must not know how they are exported.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::config::Limits;

/// The engine's load at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Sequences that hold blocks of the cache.
    pub n_running: usize,
    /// Requests that were accepted and hold none yet, or lost them to older ones.
    pub n_waiting: usize,
    /// Sequences that can run at once.
    pub n_running_max: usize,
    /// Blocks of the cache that are owned.
    pub n_blocks_used: usize,
    /// Blocks of the cache.
    pub n_blocks: usize,
    /// Tokens per block.
    pub block_size: usize,
}

/// Counts since the engine started; each only grows.
#[derive(Debug, Default)]
pub struct Counters {
    /// Prompt tokens of sequences whose prompt was computed; recomputation is not counted again.
    pub prompt_tokens: Count,
    /// Tokens drawn.
    pub generation_tokens: Count,
    /// Prompt tokens looked up in the prefix cache.
    pub prefix_cache_queries: Count,
    /// Those that were found.
    pub prefix_cache_hits: Count,
    /// Times a sequence lost its blocks.
    pub preemptions: Count,
    /// Steps computed.
    pub steps: Count,
    /// Requests whose ticket was dropped before their end.
    pub cancelled: Count,
    /// Tokens computed per step.
    pub step_tokens: StepTokens,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

/// Histogram of the tokens computed per step.
#[derive(Debug, Default)]
pub struct StepTokens {
    sum: Count,
    counts: [Count; STEP_TOKENS_BOUNDS.len() + 1],
}

/// Upper bounds of the buckets of [`StepTokens`], inclusive; vLLM's for `iteration_tokens_total`.
pub const STEP_TOKENS_BOUNDS: [usize; 13] = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384];

/// Bounds of the advice when to try again, seconds.
const RETRY_AFTER_S: std::ops::RangeInclusive<u64> = 1..=60;

/// The state that the engine thread publishes and the handle reads.
#[derive(Debug)]
pub(super) struct LoadGauge {
    pub(super) counters: Counters,
    started_at: Instant,
    /// Milliseconds from `started_at` to the beginning of the latest turn.
    turned_ms: AtomicU64,
    n_held: AtomicUsize,
    n_held_max: usize,
    n_running: AtomicUsize,
    n_blocks_used: AtomicUsize,
    /// Exponential moving average of the time between a request's first step and its end.
    run_ms_mean: AtomicU64,
    is_aborting: AtomicBool,
}

impl LoadGauge {
    pub(super) fn new(n_held_max: usize) -> LoadGauge {
        LoadGauge {
            counters: Counters::default(),
            started_at: Instant::now(),
            turned_ms: AtomicU64::new(0),
            n_held: AtomicUsize::new(0),
            n_held_max,
            n_running: AtomicUsize::new(0),
            n_blocks_used: AtomicUsize::new(0),
            run_ms_mean: AtomicU64::new(0),
            is_aborting: AtomicBool::new(false),
        }
    }

    /// A turn of the loop begins.
    pub(super) fn beat(&self) {
        self.turned_ms
            .store(self.started_at.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    pub(super) fn turned_ago(&self) -> Duration {
        let turned_at = Duration::from_millis(self.turned_ms.load(Ordering::Relaxed));
        self.started_at.elapsed().saturating_sub(turned_at)
    }

    /// Reserves places for `n` requests, all or none.
    pub(super) fn hold(&self, n: usize) -> bool {
        let hold = |n_held: usize| Some(n_held + n).filter(|&wanted| wanted <= self.n_held_max);
        self.n_held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, hold)
            .is_ok()
    }

    /// Gives back the places of `n` requests that never reached the engine thread.
    pub(super) fn unhold(&self, n: usize) {
        self.n_held.fetch_sub(n, Ordering::AcqRel);
    }

    /// A request ended, whose first step was at `scheduled_at`.
    pub(super) fn ended(&self, scheduled_at: Option<Instant>) {
        self.unhold(1);
        if let Some(scheduled_at) = scheduled_at {
            let run_ms = scheduled_at.elapsed().as_millis() as u64;
            let mean = self.run_ms_mean.load(Ordering::Relaxed);
            self.run_ms_mean.store((7 * mean + run_ms) / 8, Ordering::Relaxed);
        }
    }

    pub(super) fn publish(&self, n_running: usize, n_blocks_used: usize) {
        self.n_running.store(n_running, Ordering::Release);
        self.n_blocks_used.store(n_blocks_used, Ordering::Release);
    }

    pub(super) fn load(&self, limits: &Limits) -> Load {
        let n_running = self.n_running.load(Ordering::Acquire);
        Load {
            n_running,
            n_waiting: self.n_held.load(Ordering::Acquire).saturating_sub(n_running),
            n_running_max: limits.n_running_max(),
            n_blocks_used: self.n_blocks_used.load(Ordering::Acquire),
            n_blocks: limits.config.n_blocks,
            block_size: limits.config.block_size,
        }
    }

    /// When a place is likely to be free, seconds: running requests end one by one in the mean time of one.
    pub(super) fn retry_after_s(&self) -> u64 {
        let n_running = self.n_running.load(Ordering::Relaxed).max(1) as u64;
        let place_s = (self.run_ms_mean.load(Ordering::Relaxed) / n_running).div_ceil(1000);
        place_s.clamp(*RETRY_AFTER_S.start(), *RETRY_AFTER_S.end())
    }

    pub(super) fn abort(&self) {
        self.is_aborting.store(true, Ordering::Release);
    }

    pub(super) fn is_aborting(&self) -> bool {
        self.is_aborting.load(Ordering::Acquire)
    }
}

impl Count {
    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }
}

impl StepTokens {
    /// Tokens computed in all steps.
    pub fn sum(&self) -> u64 {
        self.sum.get()
    }

    /// Steps per bucket, not cumulative; the last one has no upper bound.
    pub fn counts(&self) -> [u64; STEP_TOKENS_BOUNDS.len() + 1] {
        self.counts.each_ref().map(Count::get)
    }

    pub(super) fn observe(&self, n_tokens: usize) {
        self.sum.add(n_tokens);
        self.counts[STEP_TOKENS_BOUNDS.partition_point(|&bound| bound < n_tokens)].add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_falls_into_the_first_bucket_that_holds_it() {
        let histogram = StepTokens::default();
        for n_tokens in [1, 2, 8, 9, 16384, 16385] {
            histogram.observe(n_tokens);
        }
        assert_eq!(histogram.counts(), [1, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(histogram.sum(), 1 + 2 + 8 + 9 + 16384 + 16385);
    }
}
