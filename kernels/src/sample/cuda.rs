//! The sampler on the device: a block for each row of logits.

mod drawn;
mod draws;
mod seen;

use crate::cuda::{Arg, Gpu, Launch, Overlap, View};
use crate::error::{Contract, KernelError};

pub use drawn::{Drawn, DrawnLogprobs, Refusal};
pub use draws::{Draw, Draws};
pub use seen::{EditSeen, SeenEdits, edit_seen};

/// Largest vocabulary: an id is two digits of 10 and 11 bits.
const VOCAB_MAX: usize = 1 << 21;

/// Operands of [`sample`].
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Raw logits. `[n_rows, vocab_size]`
    pub logits: View<f32>,
    /// Elements of a row.
    pub vocab_size: usize,
    /// [`Draws::rows`]. `[n_draws * Draws::N_WORDS]`
    pub draws: View<u32>,
    /// [`Draws::lists`]; may be longer.
    pub lists: View<u32>,
    /// What each place has seen of each token, kept by [`edit_seen`] and by the draws themselves; empty if no draw has a
    /// place. `[n_places, vocab_size]`
    pub seen: View<u32>,
    /// Working memory for draws that change their logits first; may be longer. `[Draws::n_shaped, vocab_size]`
    pub shaped: View<f32>,
    /// The token of each draw, for the next step; 0 where none was drawn. `[n_draws]`
    pub drawn: View<u32>,
    /// What [`Drawn::read`] reads. `[n_draws * Drawn::N_WORDS]`
    pub results: View<u32>,
}

/// Draws a token from a row of logits for each of the draws. Rows, places and ids beyond their tables are the caller's to
/// avoid.
///
/// # Errors
/// The shapes do not agree, or the device fails.
pub fn sample(gpu: &Gpu, op: Sample) -> Result<(), KernelError> {
    let (contract, vocab_size) = (Contract("sample"), op.vocab_size);
    contract.range(
        (1..=VOCAB_MAX).contains(&vocab_size),
        "vocab_size",
        vocab_size,
        "1 to 2^21",
    )?;
    contract.len(
        "logits",
        op.logits.len(),
        op.logits.len() / vocab_size * vocab_size,
    )?;
    contract.len("seen", op.seen.len(), op.seen.len() / vocab_size * vocab_size)?;
    let n_draws = op.drawn.len();
    contract.len("draws", op.draws.len(), n_draws * Draws::N_WORDS)?;
    contract.len("results", op.results.len(), n_draws * Drawn::N_WORDS)?;
    if n_draws == 0 {
        return Ok(());
    }
    let launch = Launch {
        kernel: "sample",
        grid: [n_draws as u32, 1, 1],
        block: n_threads(vocab_size),
        shared_bytes: 0,
        overlap: Overlap::Previous,
    };
    let args = [
        op.logits.into(),
        op.draws.into(),
        op.lists.into(),
        op.seen.into(),
        op.shaped.into(),
        op.drawn.into(),
        op.results.into(),
        Arg::size(vocab_size),
    ];
    Ok(gpu.launch(&launch, &args)?)
}

/// Threads of a block, whole warps: enough for the vocabulary at four tokens a thread.
fn n_threads(vocab_size: usize) -> u32 {
    (vocab_size.div_ceil(4).next_multiple_of(32)).clamp(32, 512) as u32
}
