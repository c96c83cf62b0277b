//! The sampler on the device. Rows of logits are cut into parts as long as multiprocessors would have nothing to do.

mod drawn;
mod draws;
mod seen;
mod workspace;

use crate::cuda::{Arg, Gpu, Launch, Overlap, View};
use crate::error::{Contract, KernelError};

pub use drawn::{Drawn, DrawnLogprobs, Refusal};
pub use draws::{Draw, Draws};
pub use seen::{EditSeen, SeenEdits, edit_seen};
pub use workspace::SampleWorkspace;

/// Operands of [`sample`].
#[derive(Clone, Copy)]
pub struct Sample<'a> {
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
    /// Working memory.
    pub workspace: &'a SampleWorkspace,
    /// The token of each draw, for the next step; 0 where none was drawn. `[n_draws]`
    pub drawn: View<u32>,
    /// What [`Drawn::read`] reads. `[n_draws * Drawn::N_WORDS]`
    pub results: View<u32>,
}

/// Draws a token from a row of logits for each of the draws. Rows, places and ids beyond their tables are the caller's to
/// avoid.
///
/// # Errors
/// The shapes do not agree, the draws are more than the workspace is for, or the device fails.
pub fn sample(gpu: &Gpu, op: Sample<'_>) -> Result<(), KernelError> {
    let n_draws = op.check()?;
    if n_draws == 0 {
        return Ok(());
    }
    let n_parts = op.workspace.n_parts(n_draws);
    let step = [
        op.logits.into(),
        op.draws.into(),
        op.workspace.shaped.view().into(),
        op.workspace.parts.view().into(),
        op.workspace.bins.view().into(),
        Arg::size(n_parts),
        Arg::size(op.vocab_size),
    ];
    let launch = |kernel, grid, args: &[Arg<'_>]| {
        let launch = Launch {
            kernel,
            grid,
            block: n_threads(op.vocab_size.div_ceil(n_parts)),
            shared_bytes: 0,
            overlap: Overlap::Previous,
        };
        gpu.launch(&launch, &[&step, args].concat())
    };
    let parts = [n_parts as u32, n_draws as u32, 1];
    launch("sample_shape", parts, &[op.lists.into(), op.seen.into()])?;
    launch("sample_weigh", parts, &[])?;
    let results = [op.seen.into(), op.drawn.into(), op.results.into()];
    Ok(launch("sample_draw", [n_draws as u32, 1, 1], &results)?)
}

impl Sample<'_> {
    /// Checks the operands; returns the number of draws.
    fn check(&self) -> Result<usize, KernelError> {
        let (contract, vocab_size, n_draws) = (Contract("sample"), self.vocab_size, self.drawn.len());
        contract.len("vocab_size", vocab_size, self.workspace.vocab_size)?;
        contract.range(
            n_draws <= self.workspace.n_draws_max,
            "n_draws",
            n_draws,
            "at most those of the workspace",
        )?;
        contract.len(
            "logits",
            self.logits.len(),
            self.logits.len() / vocab_size * vocab_size,
        )?;
        contract.len("seen", self.seen.len(), self.seen.len() / vocab_size * vocab_size)?;
        contract.len("draws", self.draws.len(), n_draws * Draws::N_WORDS)?;
        contract.len("results", self.results.len(), n_draws * Drawn::N_WORDS)?;
        Ok(n_draws)
    }
}

/// Threads of a block, whole warps: enough for its tokens at four a thread.
fn n_threads(n_tokens: usize) -> u32 {
    (n_tokens.div_ceil(4).next_multiple_of(32)).clamp(32, 512) as u32
}
