//! One step's draws: which answer takes its next token from which row of logits, and under which grammar.
//!
//! Grammars say what they allow while the model computes. Must not know tickets or the scheduler's queues.

use std::ops::Range;

use rayon::ThreadPool;
use rayon::prelude::*;

use super::request::Task;
use super::sampler::{Draw, SampleError, Sampled, TokenLogprobs, given_logprobs, sample};
use super::scheduler::{Scheduler, Step, StepRow};
use super::sequence::{Branch, Next, Sequence, SequenceId};
use super::ticket::RequestFailure;
use crate::batch::Logits;
use crate::grammar::{FollowError, Followed, Follower, Grammar, Mask};

/// Logits of a step from which on several threads draw: a few rows of a small vocabulary are not worth waking one.
const SHARED_LOGITS_MIN: usize = 32 << 10;

/// One answer that draws in this step.
pub(super) struct Drawing<'a> {
    pub(super) branch: Branch,
    /// The text so far.
    pub(super) sequence: &'a Sequence,
    /// Index of its logits among those of the step.
    pub(super) logits_idx: usize,
    /// Where it is in its grammar, if it has one.
    pub(super) guide: Option<Guide>,
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

/// Computes while the grammars of `drawings` find out what they allow.
pub(super) fn guided<R>(
    samplers: &ThreadPool,
    drawings: &mut [Drawing<'_>],
    compute: impl FnOnce() -> R,
) -> R {
    let guides: Vec<&mut Guide> = drawings
        .iter_mut()
        .filter_map(|drawing| drawing.guide.as_mut())
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

/// One outcome per drawing. They are independent, so the processor's cores share them.
pub(super) fn draw(samplers: &ThreadPool, drawings: &mut [Drawing<'_>], logits: &Logits) -> Vec<Outcome> {
    let draw = |drawing: &mut Drawing<'_>| drawing.draw(logits);
    if drawings.len() < 2 || logits.values.len() < SHARED_LOGITS_MIN {
        return drawings.iter_mut().map(draw).collect();
    }
    samplers.install(|| drawings.par_iter_mut().map(draw).collect())
}

/// Scores the tokens of prompts that a step's logits tell of; one entry per row that wants any.
pub(super) fn score(
    samplers: &ThreadPool,
    scheduler: &Scheduler,
    step: &Step,
    logits: &Logits,
) -> Vec<Scored> {
    let score_row = |(rows, row): (Range<usize>, &StepRow)| {
        let sequence = scheduler.sequence(row.id);
        let n_top = sequence.prompt_logprobs().unwrap_or(0);
        let behind = &sequence.prompt()[row.scores.start + 1..row.scores.end + 1];
        let given: Vec<(usize, u32)> = rows.zip(behind.iter().copied()).collect();
        let score = |&(idx, token): &(usize, u32)| given_logprobs(logits.row(idx), token, n_top);
        (row.id, samplers.install(|| given.par_iter().map(score).collect()))
    };
    step.with_logits()
        .filter(|(_, row)| !row.scores.is_empty())
        .map(score_row)
        .collect()
}

impl Guide {
    pub(super) fn new(grammar: &Grammar) -> Guide {
        Guide {
            follower: grammar.follow(),
            mask: None,
        }
    }
}

impl Drawing<'_> {
    fn draw(&mut self, logits: &Logits) -> Outcome {
        let Task::Generate { sampling, stop, .. } = &self.sequence.task else {
            unreachable!("only answers are drawn");
        };
        let mask = self.guide.as_mut().and_then(|guide| guide.mask.take());
        let mask = mask.transpose().map_err(RequestFailure::Grammar)?;
        let draw = Draw {
            params: sampling,
            prompt: self.sequence.prompt(),
            generated: self.sequence.generated(),
            forbidden: &stop.forbidden(self.sequence.generated().len()),
            mask: mask.as_ref().map(Mask::words),
            seed: self.branch.seed,
        };
        let sampled = sample(logits.row(self.logits_idx), &draw).map_err(RequestFailure::Sampling)?;
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
}

impl Drawn {
    /// What the scheduler wants to know of it.
    pub(super) fn next(&self) -> Next {
        Next {
            token: self.sampled.token,
            is_complete: self.is_complete,
        }
    }
}
