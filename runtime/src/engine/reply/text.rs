//! Texts: one token after the other, and the reason of the end.
//!
//! Owns where a text is in its grammar. Must not know how a token is drawn.

use std::time::Instant;

use super::Replies;
use super::kinds::{Reply, TextReply};
use crate::engine::draw::{Drawn, Guide, Outcome};
use crate::engine::request::FinishReason;
use crate::engine::sampler::Sampled;
use crate::engine::scheduler::{Progress, Scheduler};
use crate::engine::sequence::SequenceId;
use crate::engine::ticket::{Event, RequestFailure};

impl Replies {
    /// Lends the guide of a text, if it has one, until [`Replies::return_guide`].
    pub(in crate::engine) fn lend_guide(&mut self, id: SequenceId) -> Option<Box<Guide>> {
        self.text(id).and_then(|text| text.guide.take())
    }

    /// Takes a lent guide back.
    pub(in crate::engine) fn return_guide(&mut self, id: SequenceId, guide: Option<Box<Guide>>) {
        if let Some(text) = self.text(id) {
            text.guide = guide;
        }
    }

    /// Sends every drawn token to its ticket; `outcomes` has an entry for each draw of the step.
    pub(in crate::engine) fn send_texts(
        &mut self,
        scheduler: &Scheduler,
        progress: Vec<Progress>,
        mut outcomes: Vec<Option<Outcome>>,
    ) {
        let now = Instant::now();
        let mut ends = Vec::new();
        for progress in progress {
            let outcome = outcomes[progress.draw].take();
            let end = match outcome.expect("a branch that made progress has drawn") {
                Ok(drawn) => self.send_token(&progress, drawn, now),
                Err(error) => Some(failed(progress.id, error)),
            };
            ends.extend(end.map(|event| (self.forget(progress.id).into_recipient(), event)));
        }
        self.send_ends(scheduler, ends, now);
    }

    /// Sends a token, unless the text ends with it: then the event that ends the text is returned.
    fn send_token(&mut self, progress: &Progress, drawn: Drawn, now: Instant) -> Option<Event> {
        let counters = &self.gauge.counters;
        counters.generation_tokens.add(1);
        let Some(Reply::Text(TextReply { recipient, .. })) = self.due.get_mut(&progress.id) else {
            unreachable!("every branch that draws has a text as its reply");
        };
        if recipient.first_token_at.is_none() {
            recipient.first_token_at = Some(now);
            counters.prompt_tokens.add(recipient.n_prompt);
        }
        match progress.finished {
            Some(reason) => Some(finished(reason, drawn.sampled, progress.n_generated)),
            None => {
                let Sampled { token, logprobs } = drawn.sampled;
                recipient.send(Event::Token { token, logprobs }, now);
                None
            }
        }
    }

    fn text(&mut self, id: SequenceId) -> Option<&mut TextReply> {
        match self.due.get_mut(&id) {
            Some(Reply::Text(text)) => Some(text),
            Some(Reply::Beam(_) | Reply::Pooled(_)) | None => None,
        }
    }
}

/// The end of a text whose last token was drawn. A token that ended it is no part of it.
fn finished(reason: FinishReason, Sampled { token, logprobs }: Sampled, n_generated: usize) -> Event {
    let (last, ended_by) = match reason {
        FinishReason::Eos(_) | FinishReason::StopToken(_) => (None, logprobs),
        FinishReason::Complete | FinishReason::Length | FinishReason::Abort => {
            (Some((token, logprobs)), None)
        }
    };
    Event::Finished {
        reason,
        last,
        ended_by,
        n_generated,
    }
}

fn failed(id: SequenceId, error: RequestFailure) -> Event {
    tracing::warn!(
        id = id.arrival,
        error = &error as &dyn std::error::Error,
        "no token was drawn"
    );
    Event::Failed(error)
}
