//! Log-probabilities of prompts: sent once, before the text of each answer of the request.
//!
//! Owns their order among the events. Must not know how a token is scored.

use std::sync::Arc;
use std::time::Instant;

use super::Replies;
use crate::engine::draw::Scored;
use crate::engine::sampler::SampleError;
use crate::engine::scheduler::Scheduler;
use crate::engine::sequence::SequenceId;
use crate::engine::step::Step;
use crate::engine::ticket::{Event, RequestFailure};

/// An answer whose prompt could not be scored.
pub(in crate::engine) struct Unscored {
    id: SequenceId,
    error: SampleError,
}

impl Replies {
    /// Keeps the log-probabilities that a step found, and sends those of the prompts that are complete. The answers
    /// that are returned fail once the step is committed.
    pub(in crate::engine) fn send_scores(
        &mut self,
        scheduler: &mut Scheduler,
        step: &Step,
        scored: Vec<Scored>,
    ) -> Vec<Unscored> {
        let now = Instant::now();
        let mut unscored = Vec::new();
        for (id, scores) in scored {
            let sequence = scheduler.sequence_mut(id);
            match scores {
                Ok(scores) => sequence.add_scores(scores),
                Err(error) => {
                    let branches = sequence.branches().iter();
                    unscored.extend(branches.map(|branch| Unscored {
                        id: branch.id,
                        error: error.clone(),
                    }));
                }
            }
        }
        for (_, row) in step.drawing() {
            let Some(sequence) = scheduler.find_mut(row.id) else {
                continue;
            };
            let is_first = sequence.prompt_logprobs().is_some() && sequence.generated().is_empty();
            if !is_first || sequence.wants_scores() {
                continue;
            }
            let scores = sequence.take_scores();
            for branch in sequence.branches() {
                if let Some(reply) = self.due.get(&branch.id) {
                    reply.recipient().send(Event::Prompt(Arc::clone(&scores)), now);
                }
            }
        }
        unscored
    }

    /// Fails the answers whose prompts could not be scored, as far as they have not ended yet.
    pub(in crate::engine) fn fail_unscored(&mut self, scheduler: &mut Scheduler, unscored: Vec<Unscored>) {
        let now = Instant::now();
        let mut ends = Vec::new();
        for Unscored { id, error } in unscored {
            scheduler.cancel(id);
            if self.due.contains_key(&id) {
                let event = Event::Failed(RequestFailure::Sampling(error));
                ends.push((self.forget(id).into_recipient(), event));
            }
        }
        self.send_ends(scheduler, ends, now);
    }
}
