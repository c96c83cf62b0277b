//! Memory that the sampler works in.

use crate::cuda::{DeviceBuffer, Gpu};
use crate::error::{Contract, KernelError};

/// Working memory of [`sample`](super::sample()) for draws from one vocabulary.
pub struct SampleWorkspace {
    pub(super) vocab_size: usize,
    pub(super) n_draws_max: usize,
    n_sms: usize,
    /// Rows of draws that change their logits first.
    pub(super) shaped: DeviceBuffer<f32>,
    /// What is known of each part of a row.
    pub(super) parts: DeviceBuffer<u64>,
    /// The candidates of each part by the first digit of their words.
    pub(super) bins: DeviceBuffer<u64>,
}

/// Largest vocabulary: an id is two digits of 10 and 11 bits.
const VOCAB_MAX: usize = 1 << 21;
/// Parts of a row at most: joining them must cost less than a part.
const N_PARTS_MAX: usize = 8;
/// Tokens of a part at least, of all but the last.
const PART_MIN: usize = 1024;
/// Words of a `Part` in `kernel.cu`.
const PART_WORDS: usize = 6;
/// Words of a `PartBins`.
const BINS_WORDS: usize = 2048 * 5 / 2;

impl SampleWorkspace {
    /// Memory for at most `n_draws_max` draws at a time from a vocabulary of `vocab_size` tokens.
    ///
    /// # Errors
    /// `vocab_size` is 0 or above 2^21, or there is no device memory.
    pub fn new(gpu: &Gpu, vocab_size: usize, n_draws_max: usize) -> Result<SampleWorkspace, KernelError> {
        Contract("sample").range(
            (1..=VOCAB_MAX).contains(&vocab_size),
            "vocab_size",
            vocab_size,
            "1 to 2^21",
        )?;
        // Only few draws have several parts each: together at most as many as there are multiprocessors.
        let n_parts = n_draws_max.max(gpu.n_sms().min(n_draws_max * N_PARTS_MAX));
        Ok(SampleWorkspace {
            vocab_size,
            n_draws_max,
            n_sms: gpu.n_sms(),
            shaped: gpu.alloc(n_draws_max.saturating_mul(vocab_size))?,
            parts: gpu.alloc(n_parts * PART_WORDS)?,
            bins: gpu.alloc(n_parts * BINS_WORDS)?,
        })
    }

    /// Parts of each row of `n_draws`.
    pub(super) fn n_parts(&self, n_draws: usize) -> usize {
        let most = N_PARTS_MAX.min(self.vocab_size.div_ceil(PART_MIN));
        (self.n_sms / n_draws).clamp(1, most)
    }
}
