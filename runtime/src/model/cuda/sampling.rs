//! Draws on the device: parameters and late inputs of a step go there, tokens and log-probabilities come back.

use kernels::KernelError;
use kernels::cuda::{DeviceBuffer, Gpu, PinnedBuffer, View};
use kernels::gpu::{
    Draw, Drawn, Draws, EditSeen, Refusal, Sample, SampleWorkspace, SeenEdits, edit_seen, sample,
};

use crate::batch::{
    Batch, DrawSpec, LateInput, SampleError, Sampled, SamplingParams, TokenDraw, TokenLogprobs,
};

/// What draws of a step need, for at most so many draws and places.
pub(super) struct Sampling {
    vocab_size: usize,
    workspace: SampleWorkspace,
    /// What each place has seen of each token. `[n_places, vocab_size]`
    seen: DeviceBuffer<u32>,
    /// Whose tokens these are.
    places: Vec<Option<Seen>>,
    edits: SeenEdits,
    /// Edits, draws and their lists.
    words: DeviceBuffer<u32>,
    /// Where the host writes them, in turn.
    slots: Vec<PinnedBuffer<u32>>,
    /// The tokens of the step submitted last.
    drawn: DeviceBuffer<u32>,
    results: DeviceBuffer<u32>,
    /// Where the host reads them, in turn.
    result_slots: Vec<PinnedBuffer<u32>>,
    next_slot: usize,
}

/// The answer at a place, and how many of its tokens count there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    id: u64,
    n_generated: usize,
}

/// A draw that waits for its late input.
pub(super) struct OwnDraw {
    /// Index among the draws of the step.
    idx: usize,
    place: u32,
    seed: u64,
    position: u64,
    params: SamplingParams,
}

/// Draws that were enqueued.
pub(super) struct Enqueued {
    draws: Draws,
    slot: usize,
}

/// Slots of each kind: one more than steps in flight.
const N_SLOTS: usize = 3;

impl Sampling {
    /// Memory for at most `n_draws` draws of a step from `vocab_size` tokens.
    ///
    /// # Errors
    /// The device has not so much.
    pub(super) fn new(gpu: &Gpu, vocab_size: usize, n_draws: usize) -> Result<Sampling, KernelError> {
        let n_words = n_draws * (Draws::N_WORDS + SeenEdits::N_WORDS + vocab_size.div_ceil(32));
        let pinned = |len: usize| {
            (0..N_SLOTS)
                .map(move |_| gpu.alloc_pinned(len))
                .collect::<Result<_, _>>()
        };
        Ok(Sampling {
            vocab_size,
            workspace: SampleWorkspace::new(gpu, vocab_size, n_draws)?,
            seen: gpu.alloc_zeroed(n_draws * vocab_size)?,
            places: vec![None; n_draws],
            edits: SeenEdits::default(),
            words: gpu.alloc(n_words)?,
            slots: pinned(n_words)?,
            drawn: gpu.alloc_zeroed(n_draws)?,
            results: gpu.alloc(n_draws * Drawn::N_WORDS)?,
            result_slots: pinned(n_draws * Drawn::N_WORDS)?,
            next_slot: 0,
        })
    }

    /// The tokens of the step submitted last, one for each of its draws on the device.
    pub(super) fn drawn(&self) -> View<u32> {
        self.drawn.view()
    }

    /// The draws of a step that the device is to do, and what places must know for them.
    pub(super) fn begin(&mut self, batch: &Batch, specs: &[DrawSpec<'_>]) -> Vec<OwnDraw> {
        self.edits.clear();
        let mut own = Vec::new();
        let mut rows = batch.rows.iter();
        let mut pending = batch.from_previous.iter().peekable();
        let mut row = rows.next();
        for (idx, (&at, spec)) in batch.logits_at.iter().zip(specs).enumerate() {
            while row.is_some_and(|row| row.query_start + row.query_len <= at as usize) {
                row = rows.next();
            }
            let (DrawSpec::Token(draw), Some(row)) = (spec, row) else {
                continue;
            };
            while pending.next_if(|pending| pending.token < at).is_some() {}
            let n_pending = usize::from(pending.peek().is_some_and(|pending| pending.token == at));
            let n_generated = draw.generated.len() + n_pending;
            if is_penalised(draw.params) {
                self.see(row.place, draw, n_generated);
            }
            own.push(OwnDraw {
                idx,
                place: row.place,
                seed: draw.seed,
                position: (draw.prompt.len() + n_generated) as u64,
                params: draw.params.clone(),
            });
        }
        own
    }

    /// Lets a place know the tokens of its sequence, and counts the one that will be drawn.
    fn see(&mut self, place: u32, draw: &TokenDraw<'_>, n_generated: usize) {
        let Some(seen) = self.places.get_mut(place as usize) else {
            return;
        };
        let id = draw.id;
        if *seen != Some(Seen { id, n_generated }) {
            self.edits.begin(place, draw.prompt, draw.generated);
        }
        *seen = Some(Seen {
            id,
            n_generated: n_generated + 1,
        });
    }

    /// Enqueues the draws of the step submitted last, with what they lacked.
    ///
    /// # Errors
    /// The device fails, or has no memory for lists of this length.
    pub(super) fn enqueue(
        &mut self,
        gpu: &Gpu,
        own: &[OwnDraw],
        (late, logits): (&[LateInput<'_>], View<f32>),
    ) -> Result<Enqueued, KernelError> {
        let mut draws = Draws::default();
        let mut late = late.iter().peekable();
        for own in own {
            while late.next_if(|late| late.draw < own.idx).is_some() {}
            let late = late.next_if(|late| late.draw == own.idx);
            draws.push(&own.draw(late));
        }
        self.next_slot = (self.next_slot + 1) % N_SLOTS;
        let parts = [
            self.edits.edits(),
            self.edits.lists(),
            draws.rows(),
            draws.lists(),
        ];
        let n_words = parts.iter().map(|part| part.len()).sum();
        reserve(gpu, n_words, (&mut self.words, &mut self.slots))?;
        let slot = &mut self.slots[self.next_slot];
        let words = slot.as_mut_slice()?;
        let mut at = 0;
        let views = parts.map(|part| {
            let range = at..at + part.len();
            words[range.clone()].copy_from_slice(part);
            at = range.end;
            self.words.view().range(range)
        });
        gpu.upload_pinned(slot, 0..n_words, self.words.view().range(0..n_words))?;
        self.launch(gpu, views, logits)?;
        let n_results = draws.len() * Drawn::N_WORDS;
        let results = self.results.view().range(0..n_results);
        gpu.download_pinned(results, &mut self.result_slots[self.next_slot], 0..n_results)?;
        self.edits.clear();
        Ok(Enqueued {
            draws,
            slot: self.next_slot,
        })
    }

    fn launch(
        &self,
        gpu: &Gpu,
        [edits, edit_lists, draws, lists]: [View<u32>; 4],
        logits: View<f32>,
    ) -> Result<(), KernelError> {
        let (seen, vocab_size) = (self.seen.view(), self.vocab_size);
        let edit = EditSeen {
            seen,
            vocab_size,
            edits,
            lists: edit_lists,
        };
        edit_seen(gpu, edit)?;
        let n_draws = draws.len() / Draws::N_WORDS;
        let op = Sample {
            logits,
            vocab_size,
            draws,
            lists,
            seen,
            workspace: &self.workspace,
            drawn: self.drawn.view().range(0..n_draws),
            results: self.results.view().range(0..n_draws * Drawn::N_WORDS),
        };
        sample(gpu, op)
    }

    /// Waits for draws, and returns what became of them.
    ///
    /// # Errors
    /// The device fails.
    pub(super) fn collect(
        &self,
        enqueued: &Enqueued,
    ) -> Result<Vec<Result<Sampled, SampleError>>, KernelError> {
        let words = self.result_slots[enqueued.slot].as_slice()?;
        let drawn = Drawn::read(words, &enqueued.draws);
        Ok(drawn.into_iter().map(outcome).collect())
    }
}

impl OwnDraw {
    /// Index among the draws of the step.
    pub(super) fn idx(&self) -> usize {
        self.idx
    }

    fn draw<'a>(&'a self, late: Option<&'a LateInput<'_>>) -> Draw<'a> {
        let params = &self.params;
        Draw {
            logits_row: self.idx as u32,
            place: is_penalised(params).then_some(self.place),
            seed: self.seed,
            position: self.position,
            temperature: params.temperature,
            top_p: params.top_p,
            top_k: params.top_k,
            min_p: params.min_p,
            repetition_penalty: params.repetition_penalty,
            presence_penalty: params.presence_penalty,
            frequency_penalty: params.frequency_penalty,
            logprobs: params.logprobs,
            logit_bias: &params.logit_bias,
            allowed: params.allowed_token_ids.as_deref(),
            forbidden: late.map_or(&[], |late| &late.forbidden),
            mask: late.and_then(|late| late.mask),
        }
    }
}

/// Whether a draw depends on what its sequence has seen.
fn is_penalised(params: &SamplingParams) -> bool {
    params.repetition_penalty != 1.0 || params.presence_penalty != 0.0 || params.frequency_penalty != 0.0
}

/// Makes room for `n_words` words. Lists of tokens may be as long as a vocabulary for each draw; that is rare, so memory
/// for them is taken when they come.
fn reserve(
    gpu: &Gpu,
    n_words: usize,
    (words, slots): (&mut DeviceBuffer<u32>, &mut [PinnedBuffer<u32>]),
) -> Result<(), KernelError> {
    if n_words <= words.len() {
        return Ok(());
    }
    let n_words = n_words.next_power_of_two();
    for slot in slots {
        *slot = gpu.alloc_pinned(n_words)?;
    }
    *words = gpu.alloc(n_words)?;
    Ok(())
}

/// What became of a draw, in the engine's words.
fn outcome(drawn: Result<Drawn, Refusal>) -> Result<Sampled, SampleError> {
    match drawn {
        Ok(drawn) => Ok(Sampled {
            token: drawn.token,
            logprobs: drawn.logprobs.map(|logprobs| TokenLogprobs {
                chosen: logprobs.chosen,
                rank: logprobs.rank,
                top: logprobs.top,
            }),
        }),
        Err(Refusal::BadLogit { token, value }) => Err(SampleError::BadLogit {
            token: token as usize,
            value,
        }),
        Err(Refusal::NoCandidate) => Err(SampleError::NoCandidate),
    }
}
