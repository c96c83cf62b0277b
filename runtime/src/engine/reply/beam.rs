//! Beam searches: all texts at once, when the search has ended.
//!
//! Owns the searches under way. Must not know how a search ranks its texts.

use std::time::Instant;

use super::Replies;
use super::kinds::{BeamReply, Recipient, Reply};
use crate::engine::beam::Continuation;
use crate::engine::draw::StepLogits;
use crate::engine::request::Task;
use crate::engine::sampler::SampleError;
use crate::engine::scheduler::Scheduler;
use crate::engine::sequence::{Sequence, SequenceId};
use crate::engine::step::Step;
use crate::engine::ticket::{Event, RequestFailure};

/// How a search goes on.
pub(in crate::engine) struct Advanced {
    id: SequenceId,
    continuations: Result<Vec<Continuation>, SampleError>,
}

impl Replies {
    /// Advances every search whose rows yield logits.
    pub(in crate::engine) fn advance_searches(
        &mut self,
        scheduler: &Scheduler,
        step: &Step,
        logits: &StepLogits<'_>,
    ) -> Vec<Advanced> {
        let texts: Vec<(usize, &Sequence)> = step
            .drawing()
            .filter_map(|(idx, row)| Some((idx, scheduler.find(row.id)?)))
            .filter(|(_, sequence)| sequence.is_searching())
            .collect();
        let mut advanced = Vec::new();
        for texts in texts.chunk_by(|(_, a), (_, b)| a.request == b.request) {
            let (_, first) = texts[0];
            let Task::Search { stop, .. } = &first.task else {
                continue;
            };
            let Some(Reply::Beam(reply)) = self.due.get_mut(&first.request) else {
                unreachable!("a search has a reply");
            };
            let running: Vec<_> = texts
                .iter()
                .map(|(idx, text)| (text.generated(), logits.row(*idx)))
                .collect();
            advanced.push(Advanced {
                id: first.request,
                continuations: reply.search.advance(&running, stop),
            });
        }
        advanced
    }

    /// Lets the searches of a committed step go on, and sends the texts of those that ended.
    pub(in crate::engine) fn send_beams(&mut self, scheduler: &mut Scheduler, advanced: Vec<Advanced>) {
        let now = Instant::now();
        let mut ends = Vec::new();
        for Advanced { id, continuations } in advanced {
            let next = continuations.as_deref().unwrap_or_default();
            scheduler.continue_search(id, next);
            self.gauge.counters.generation_tokens.add(next.len());
            if next.is_empty() {
                ends.push(self.end_of_search(id, continuations.err()));
            }
        }
        self.send_ends(scheduler, ends, now);
    }

    fn end_of_search(&mut self, id: SequenceId, error: Option<SampleError>) -> (Recipient, Event) {
        let Reply::Beam(BeamReply { recipient, search }) = self.forget(id) else {
            unreachable!("a search has a reply");
        };
        if let Some(error) = error {
            return (recipient, Event::Failed(RequestFailure::Sampling(error)));
        }
        self.gauge.counters.prompt_tokens.add(recipient.n_prompt);
        (recipient, Event::Beams(search.into_beams()))
    }
}
