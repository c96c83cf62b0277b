//! Which tokens a sequence has seen, kept on the device for each place.

use crate::cuda::{Arg, Gpu, Launch, Overlap, View};
use crate::error::{Contract, KernelError};

/// Changes of what places have seen, packed for one copy each to [`EditSeen::edits`] and [`EditSeen::lists`].
///
/// A place has one word for each token: how often the answer contains it, and in the highest bit whether the prompt does.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeenEdits {
    edits: Vec<u32>,
    lists: Vec<u32>,
}

impl SeenEdits {
    /// Words of an edit.
    pub const N_WORDS: usize = 6;

    /// Forgets all edits and keeps their memory.
    pub fn clear(&mut self) {
        self.edits.clear();
        self.lists.clear();
    }

    /// The place begins a sequence of this prompt and this part of the answer.
    pub fn begin(&mut self, place: u32, prompt: &[u32], output: &[u32]) {
        self.edits.extend([place, 1]);
        for tokens in [prompt, output] {
            self.edits.extend([self.lists.len() as u32, tokens.len() as u32]);
            self.lists.extend(tokens);
        }
    }

    /// The answer goes on with tokens that were not drawn at the place. A place has one edit at a time.
    pub fn extend(&mut self, place: u32, output: &[u32]) {
        let first = self.lists.len() as u32;
        self.edits.extend([place, 0, 0, 0, first, output.len() as u32]);
        self.lists.extend(output);
    }

    /// The words of all edits, to copy to the device. `[len * SeenEdits::N_WORDS]`
    pub fn edits(&self) -> &[u32] {
        &self.edits
    }

    /// The lists of all edits, to copy to the device.
    pub fn lists(&self) -> &[u32] {
        &self.lists
    }

    /// Whether there is no edit.
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty()
    }
}

/// Operands of [`edit_seen`].
#[derive(Clone, Copy, Debug)]
pub struct EditSeen {
    /// What places have seen. `[n_places, vocab_size]`
    pub seen: View<u32>,
    /// Elements of a place.
    pub vocab_size: usize,
    /// [`SeenEdits::edits`].
    pub edits: View<u32>,
    /// [`SeenEdits::lists`]; may be longer.
    pub lists: View<u32>,
}

/// Changes what places have seen. Tokens beyond the vocabulary are left out.
///
/// # Errors
/// The shapes do not agree, or the device fails.
pub fn edit_seen(gpu: &Gpu, op: EditSeen) -> Result<(), KernelError> {
    let contract = Contract("edit_seen");
    contract.range(op.vocab_size > 0, "vocab_size", op.vocab_size, "at least 1")?;
    contract.len(
        "seen",
        op.seen.len(),
        op.seen.len() / op.vocab_size * op.vocab_size,
    )?;
    let n_edits = op.edits.len() / SeenEdits::N_WORDS;
    contract.len("edits", op.edits.len(), n_edits * SeenEdits::N_WORDS)?;
    if n_edits == 0 {
        return Ok(());
    }
    let launch = Launch {
        kernel: "edit_seen",
        grid: [n_edits as u32, 1, 1],
        block: super::n_threads(op.vocab_size),
        shared_bytes: 0,
        overlap: Overlap::Previous,
    };
    let args = [
        op.seen.into(),
        op.edits.into(),
        op.lists.into(),
        Arg::size(op.vocab_size),
    ];
    Ok(gpu.launch(&launch, &args)?)
}
