//! The way from the engine thread back to the tickets: one reply per answer that a client waits for.
//!
//! Owns what each kind of reply keeps between steps, one file per kind, and in which order the load and the events
//! become visible. Must not know the model or how a step is computed.

mod beam;
mod kinds;
mod pooled;
mod scores;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::load::LoadGauge;
use super::request::{Admitted, FinishReason, Task};
use super::scheduler::Scheduler;
use super::sequence::{Branch, SequenceId};
use super::step::Admission;
use super::ticket::{Event, EventSender, RequestFailure};

use kinds::{BeamReply, PooledReply, Recipient, Reply, TextReply};

/// All replies that are due.
pub(super) struct Replies {
    due: BTreeMap<SequenceId, Reply>,
    gauge: Arc<LoadGauge>,
}

impl Replies {
    pub(super) fn new(gauge: Arc<LoadGauge>) -> Replies {
        Replies {
            due: BTreeMap::new(),
            gauge,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Adds the replies of a request: one per channel, in the order of its branches.
    pub(super) fn add(&mut self, admitted: &Admitted, branches: &[Branch], events: Vec<EventSender>) {
        for (idx, (branch, events)) in branches.iter().zip(events).enumerate() {
            let recipient = Recipient {
                events,
                n_prompt: if idx == 0 { admitted.prompt.len() } else { 0 },
                n_cached: 0,
                scheduled_at: None,
                first_token_at: None,
            };
            let reply = match &admitted.task {
                Task::Generate { grammar, .. } => Reply::Text(TextReply::new(recipient, grammar.as_ref())),
                Task::Search { params, .. } => Reply::Beam(BeamReply::new(recipient, *params)),
                Task::Pool { .. } => Reply::Pooled(PooledReply::new(recipient)),
            };
            self.due.insert(branch.id, reply);
        }
    }

    /// Notes that a sequence got a place. A search has one reply, however many branches it has.
    pub(super) fn note_admission(&mut self, admission: &Admission, now: Instant) {
        for id in &admission.branches {
            if let Some(reply) = self.due.get_mut(id) {
                let recipient = reply.recipient_mut();
                recipient.scheduled_at = Some(now);
                recipient.n_cached = admission.n_cached;
            }
        }
    }

    /// Forgets the requests whose tickets were dropped.
    pub(super) fn cancel_dropped(&mut self, scheduler: &mut Scheduler) {
        let is_dropped = |reply: &Reply| reply.recipient().events.is_closed();
        let replies = self.due.iter();
        let dropped: Vec<SequenceId> = replies
            .filter(|(_, reply)| is_dropped(reply))
            .map(|(&id, _)| id)
            .collect();
        for id in dropped {
            scheduler.cancel(id);
            self.forget(id);
            self.gauge.counters.cancelled.add(1);
        }
        self.publish(scheduler);
    }

    /// Ends the answers that nobody reads.
    pub(super) fn end_unread(&mut self, scheduler: &mut Scheduler) {
        let now = Instant::now();
        let n_answers = self.due.len();
        let replies = self.due.iter();
        let unread: Vec<SequenceId> = replies
            .filter(|(_, reply)| reply.recipient().events.is_unread(n_answers))
            .map(|(&id, _)| id)
            .collect();
        for id in unread {
            tracing::warn!(id = id.arrival, "an answer that nobody reads ends");
            scheduler.cancel(id);
            let event = Event::Failed(RequestFailure::Unread);
            self.forget(id).into_recipient().send(event, now);
        }
        self.publish(scheduler);
    }

    /// Ends everything that runs or waits.
    pub(super) fn abort_all(&mut self, scheduler: &mut Scheduler) {
        let now = Instant::now();
        for id in self.ids() {
            let n_generated = scheduler.cancel(id).unwrap_or(0);
            let event = Event::Finished {
                reason: FinishReason::Abort,
                last: None,
                ended_by: None,
                n_generated,
            };
            self.forget(id).into_recipient().send(event, now);
        }
        self.publish(scheduler);
    }

    /// Fails everything that was accepted: the model can no longer be trusted.
    pub(super) fn fail_all(&mut self, scheduler: &mut Scheduler) {
        let now = Instant::now();
        for id in self.ids() {
            scheduler.cancel(id);
            let event = Event::Failed(RequestFailure::EngineDead);
            self.forget(id).into_recipient().send(event, now);
        }
        self.publish(scheduler);
    }

    /// Makes the load visible. It is published before the end of an answer is sent, so a client that has the complete
    /// answer finds the blocks free.
    pub(super) fn publish(&self, scheduler: &Scheduler) {
        self.gauge
            .publish(scheduler.n_running(), scheduler.cache().pool().n_used());
    }

    fn ids(&self) -> Vec<SequenceId> {
        self.due.keys().copied().collect()
    }

    fn forget(&mut self, id: SequenceId) -> Reply {
        let reply = self.due.remove(&id).expect("every request has a reply");
        self.gauge.ended(reply.recipient().scheduled_at);
        reply
    }

    /// Publishes the load, then sends the events that end requests.
    fn send_ends(&self, scheduler: &Scheduler, ends: Vec<(Recipient, Event)>, now: Instant) {
        self.publish(scheduler);
        for (recipient, event) in ends {
            recipient.send(event, now);
        }
    }
}
