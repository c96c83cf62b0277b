//! One step's draws: which answer takes its next token from which row of logits, who draws it, and under which grammar.
//!
//! Grammars compute what they allow while the model computes. Must not know tickets or the scheduler's queues.

use std::ops::Range;

use rayon::ThreadPool;
use rayon::prelude::*;

use super::request::{StopRules, Task};
use super::sampler::{
    Draw, SampleError, Sampled, SamplingParams, TokenLogprobs, ends_of_bad_words, given_logprobs, sample,
};
use super::scheduler::Scheduler;
use super::sequence::{Branch, Next, Sequence, SequenceId};
use super::step::{Step, StepRow};
use super::ticket::RequestFailure;
use crate::batch::{DrawSpec, LateInput, Logits, TokenDraw};
use crate::grammar::{FollowError, Followed, Follower, Grammar, Mask};

/// Logits of a step from which on several threads draw: a few rows of a small vocabulary are not worth waking one.
const SHARED_LOGITS_MIN: usize = 32 << 10;

/// The draws of a step in flight.
pub(super) struct DrawPlan {
    draws: Vec<PlannedDraw>,
    /// For each entry of the batch's `logits_at` its row among the logits that the model returns, or that of the
    /// next entry if the model draws.
    logits_rows: Vec<usize>,
    n_logits: usize,
    /// Some of the model's draws lack what the token before decides.
    pub(super) has_late_inputs: bool,
}

/// One answer's draw.
#[derive(Clone, Copy)]
struct PlannedDraw {
    branch: Branch,
    /// The sequence that computes its logits: its own, or that of the prompt that it forks off from.
    sequence: SequenceId,
    /// Index among the entries of the batch's `logits_at`.
    logits_idx: usize,
    by_model: bool,
}

/// One answer that draws in this step.
pub(super) struct Drawing<'a> {
    /// Index among the draws of the step.
    draw: usize,
    planned: PlannedDraw,
    /// The text so far.
    sequence: &'a Sequence,
    /// Where it is in its grammar, if it has one.
    guide: Option<Box<Guide>>,
    /// What the model drew, if it did.
    by_model: Option<Result<Sampled, SampleError>>,
}

/// A grammar's part in a draw.
pub(super) struct Guide {
    follower: Follower,
    mask: Option<Result<Mask, FollowError>>,
}

/// A drawn token.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Drawn {
    pub(super) sampled: Sampled,
    /// Nothing but the end may follow.
    pub(super) is_complete: bool,
}

/// What became of one draw.
pub(super) type Outcome = Result<Drawn, RequestFailure>;

/// Log-probabilities of the tokens of one prompt that a step reveals.
pub(super) type Scored = (SequenceId, Result<Vec<TokenLogprobs>, SampleError>);

/// The rows of logits of a step, by their index among the entries of the batch's `logits_at`.
pub(super) struct StepLogits<'a> {
    logits: &'a Logits,
    rows: &'a [usize],
}

impl DrawPlan {
    /// The draws of a step that was scheduled and not assumed. With `depth` 2 the model draws what it can.
    pub(super) fn new(scheduler: &Scheduler, step: &Step, depth: usize) -> DrawPlan {
        let mut plan = DrawPlan {
            draws: Vec::new(),
            logits_rows: Vec::new(),
            n_logits: 0,
            has_late_inputs: false,
        };
        for (logits, row) in step.with_logits() {
            let sequence = scheduler.sequence(row.id);
            let by_model = depth > 1 && row.n_draws == 1 && sequence.is_drawn_by_model();
            for logits_idx in logits.clone() {
                plan.logits_rows.push(plan.n_logits);
                let is_drawn = by_model && logits_idx + 1 == logits.end;
                plan.n_logits += usize::from(!is_drawn);
            }
            let branches = sequence.branches().iter().take(row.n_draws);
            plan.draws.extend(branches.map(|&branch| PlannedDraw {
                branch,
                sequence: row.id,
                logits_idx: logits.end - 1,
                by_model,
            }));
            plan.has_late_inputs |= by_model && has_late_inputs(sequence);
        }
        plan
    }

    /// What is requested of the model: one entry per entry of the batch's `logits_at`.
    pub(super) fn specs<'a>(&self, scheduler: &'a Scheduler) -> Vec<DrawSpec<'a>> {
        let mut specs = vec![DrawSpec::Logits; self.logits_rows.len()];
        for planned in self.draws.iter().filter(|planned| planned.by_model) {
            let sequence = scheduler.sequence(planned.sequence);
            let (sampling, _) = generation(sequence);
            specs[planned.logits_idx] = DrawSpec::Token(TokenDraw {
                id: planned.branch.id.arrival,
                params: sampling,
                seed: planned.branch.seed,
                prompt: sequence.prompt(),
                generated: sequence.generated(),
            });
        }
        specs
    }

    /// Some draws are the model's.
    pub(super) fn is_drawn_by_model(&self) -> bool {
        self.draws.iter().any(|planned| planned.by_model)
    }

    /// The draws whose sequences have not ended since, each with the guide that `lend` has for its branch.
    pub(super) fn drawings<'a>(
        &self,
        scheduler: &'a Scheduler,
        mut lend: impl FnMut(SequenceId) -> Option<Box<Guide>>,
    ) -> Vec<Drawing<'a>> {
        let drawing = |(draw, &planned): (usize, &PlannedDraw)| {
            Some(Drawing {
                draw,
                planned,
                sequence: scheduler.find(planned.sequence)?,
                guide: lend(planned.branch.id),
                by_model: None,
            })
        };
        self.draws.iter().enumerate().filter_map(drawing).collect()
    }

    /// The rows of `logits`, which the model returned.
    ///
    /// # Panics
    /// If they are of another shape.
    pub(super) fn logits<'a>(&'a self, logits: &'a Logits, vocab_size: usize) -> StepLogits<'a> {
        assert_eq!(
            logits.values.len(),
            self.n_logits * vocab_size,
            "the model returned logits of another shape"
        );
        StepLogits {
            logits,
            rows: &self.logits_rows,
        }
    }

    /// Hands the tokens that the model drew to their drawings.
    ///
    /// # Panics
    /// If there is not one per draw of the model.
    pub(super) fn hand_over(&self, drawn: Vec<Result<Sampled, SampleError>>, drawings: &mut [Drawing<'_>]) {
        let by_model = self
            .draws
            .iter()
            .enumerate()
            .filter(|(_, planned)| planned.by_model);
        assert_eq!(
            by_model.clone().count(),
            drawn.len(),
            "the model returned another number of tokens"
        );
        let mut drawings = drawings.iter_mut().peekable();
        for ((draw, _), drawn) in by_model.zip(drawn) {
            while drawings.next_if(|drawing| drawing.draw < draw).is_some() {}
            // Without a drawing the sequence has ended: an overrun.
            if let Some(drawing) = drawings.next_if(|drawing| drawing.draw == draw) {
                drawing.by_model = Some(drawn);
            }
        }
    }

    /// One outcome per draw of the step, `None` for sequences that have ended. Drawings are independent, so the
    /// processor's cores share them.
    pub(super) fn draw(
        &self,
        samplers: &ThreadPool,
        drawings: &mut [Drawing<'_>],
        logits: &StepLogits<'_>,
    ) -> Vec<Option<Outcome>> {
        let draw = |drawing: &mut Drawing<'_>| (drawing.draw, drawing.draw(logits));
        let is_guided = |drawing: &Drawing<'_>| drawing.by_model.is_some() && drawing.guide.is_some();
        let is_shared = logits.logits.values.len() >= SHARED_LOGITS_MIN || drawings.iter().any(is_guided);
        let drawn: Vec<(usize, Outcome)> = if drawings.len() < 2 || !is_shared {
            drawings.iter_mut().map(draw).collect()
        } else {
            samplers.install(|| drawings.par_iter_mut().map(draw).collect())
        };
        let mut outcomes: Vec<Option<Outcome>> = self.draws.iter().map(|_| None).collect();
        for (draw, outcome) in drawn {
            outcomes[draw] = Some(outcome);
        }
        outcomes
    }
}

/// Computes, and at the same time the masks of the drawings that are not the model's.
pub(super) fn guided<R>(
    samplers: &ThreadPool,
    drawings: &mut [Drawing<'_>],
    compute: impl FnOnce() -> R,
) -> R {
    let by_engine = drawings.iter_mut().filter(|drawing| !drawing.planned.by_model);
    with_masks(samplers, by_engine, compute)
}

/// What the model's draws lack, in the order of the draws. Of a grammar that can no longer be followed it is nothing:
/// the draw fails when it is collected.
pub(super) fn late_inputs<'a>(samplers: &ThreadPool, drawings: &'a mut [Drawing<'_>]) -> Vec<LateInput<'a>> {
    let by_model = drawings.iter_mut().filter(|drawing| drawing.planned.by_model);
    with_masks(samplers, by_model, || ());
    drawings.iter().filter_map(Drawing::late_input).collect()
}

fn with_masks<'a, 'b: 'a, R>(
    samplers: &ThreadPool,
    drawings: impl Iterator<Item = &'a mut Drawing<'b>>,
    compute: impl FnOnce() -> R,
) -> R {
    let guides: Vec<&mut Guide> = drawings
        .filter_map(|drawing| drawing.guide.as_deref_mut())
        .collect();
    if guides.is_empty() {
        return compute();
    }
    samplers.in_place_scope(|scope| {
        for guide in guides {
            scope.spawn(move |_| guide.mask = Some(guide.follower.mask()));
        }
        compute()
    })
}

/// Scores the tokens of prompts whose logits a step has; one entry per row that wants any.
pub(super) fn score(
    samplers: &ThreadPool,
    scheduler: &Scheduler,
    step: &Step,
    logits: &StepLogits<'_>,
) -> Vec<Scored> {
    let score_row = |(rows, row): (Range<usize>, &StepRow)| {
        let sequence = scheduler.sequence(row.id);
        let n_top = sequence.prompt_logprobs().unwrap_or(0);
        let following = &sequence.prompt()[row.scores.start + 1..row.scores.end + 1];
        let given: Vec<(usize, u32)> = rows.zip(following.iter().copied()).collect();
        let score = |&(idx, token): &(usize, u32)| given_logprobs(logits.row(idx), token, n_top);
        (row.id, samplers.install(|| given.par_iter().map(score).collect()))
    };
    step.with_logits()
        .filter(|(_, row)| !row.scores.is_empty())
        .map(score_row)
        .collect()
}

/// How a sequence draws its tokens, and when it ends.
fn generation(sequence: &Sequence) -> (&SamplingParams, &StopRules) {
    let Task::Generate { sampling, stop, .. } = &sequence.task else {
        unreachable!("only answers are drawn");
    };
    (sampling, stop)
}

/// What may be drawn next depends on the tokens before it.
fn has_late_inputs(sequence: &Sequence) -> bool {
    let Task::Generate {
        sampling,
        stop,
        grammar,
        ..
    } = &sequence.task
    else {
        return false;
    };
    let n_generated = sequence.n_tokens() - sequence.prompt().len();
    grammar.is_some() || !sampling.bad_words.is_empty() || n_generated < stop.min_tokens
}

impl Guide {
    pub(super) fn new(grammar: &Grammar) -> Guide {
        Guide {
            follower: grammar.follow(),
            mask: None,
        }
    }
}

impl StepLogits<'_> {
    /// The logits at an entry of the batch's `logits_at`.
    pub(super) fn row(&self, idx: usize) -> &[f32] {
        self.logits.row(self.rows[idx])
    }
}

impl Drawing<'_> {
    /// Its branch, and the guide that was lent.
    pub(super) fn into_guide(self) -> (SequenceId, Option<Box<Guide>>) {
        (self.planned.branch.id, self.guide)
    }

    fn draw(&mut self, logits: &StepLogits<'_>) -> Outcome {
        let (sampling, stop) = generation(self.sequence);
        let mask = self.guide.as_mut().and_then(|guide| guide.mask.take());
        let mask = mask.transpose().map_err(RequestFailure::Grammar)?;
        let sampled = self.by_model.take().unwrap_or_else(|| {
            let draw = Draw {
                params: sampling,
                prompt: self.sequence.prompt(),
                generated: self.sequence.generated(),
                forbidden: &stop.forbidden(self.sequence.generated().len()),
                mask: mask.as_ref().map(Mask::words),
                seed: self.planned.branch.seed,
            };
            sample(logits.row(self.planned.logits_idx), &draw)
        });
        let sampled = sampled.map_err(RequestFailure::Sampling)?;
        let followed = match &mut self.guide {
            Some(guide) => guide
                .follower
                .advance(sampled.token)
                .map_err(RequestFailure::Grammar)?,
            None => Followed::GoesOn,
        };
        Ok(Drawn {
            sampled,
            is_complete: followed == Followed::Complete,
        })
    }

    fn late_input(&self) -> Option<LateInput<'_>> {
        let (sampling, stop) = generation(self.sequence);
        let generated = self.sequence.generated();
        let mask = self.guide.as_ref().and_then(|guide| guide.mask.as_ref());
        let mask = mask.and_then(|mask| mask.as_ref().ok()).map(Mask::words);
        let mut forbidden = stop.forbidden(generated.len());
        forbidden.extend(ends_of_bad_words(sampling, generated));
        let is_late = self.planned.by_model && (mask.is_some() || !forbidden.is_empty());
        is_late.then_some(LateInput {
            draw: self.planned.logits_idx,
            mask,
            forbidden,
        })
    }
}

impl Drawn {
    /// What the scheduler needs of it.
    pub(super) fn next(&self) -> Next {
        Next {
            token: self.sampled.token,
            is_complete: self.is_complete,
        }
    }
}
