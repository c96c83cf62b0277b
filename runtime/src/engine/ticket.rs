//! A ticket: what a caller holds for one request it submitted.
//!
//! Owns the events that come back and their times. Must not know the scheduler, text or HTTP.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::request::FinishReason;
use super::sampler::{SampleError, TokenLogprobs};
use super::unread::Unread;
use crate::grammar::FollowError;

/// One request's side of the engine. Dropping it cancels the request: its blocks are free on the engine's
/// next turn.
#[derive(Debug)]
pub struct Ticket {
    events: EventReceiver,
    timing: Timing,
    n_cached: usize,
    ended: bool,
}

/// What happens to a request. The last one is neither [`Event::Prompt`] nor [`Event::Token`]; all others are.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The log-probabilities of the prompt's tokens, where the request wants them; `None` for the first token.
    /// Comes once, before any token, and to each of several answers.
    Prompt(Arc<[Option<TokenLogprobs>]>),
    /// A token that belongs to the answer. A token that ended the answer (end of sequence, stop token)
    /// is not sent; [`FinishReason`] carries it.
    Token {
        /// Its id.
        token: u32,
        /// Log-probabilities, where the request wants them.
        logprobs: Option<TokenLogprobs>,
    },
    /// The answer is complete.
    Finished {
        /// Why it ended.
        reason: FinishReason,
        /// The last token where it belongs to the answer: of one that is complete or as long as it may get. It comes
        /// here and in no [`Event::Token`], so that a stream's last piece has both text and reason.
        last: Option<(u32, Option<TokenLogprobs>)>,
        /// Log-probabilities of the token that ended the answer and is no part of it, where the request wants them.
        ended_by: Option<TokenLogprobs>,
        /// Tokens the model generated, the one that ended the answer included.
        n_generated: usize,
    },
    /// The beam search has ended; the best text comes first.
    Beams(Vec<Beam>),
    /// The pooled vector of the prompt is complete.
    Pooled(Vec<f32>),
    /// The request failed; the tokens sent so far are all there will be.
    Failed(RequestFailure),
}

/// A finished text.
#[derive(Clone, Debug, PartialEq)]
pub struct Beam {
    /// Its tokens; one that ended it is carried by `reason`.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub reason: FinishReason,
    /// Sum of its tokens' log-probabilities, the one that ended it included.
    pub cumulative_logprob: f64,
    /// What it is ranked by.
    pub score: f64,
}

/// Why one request failed while others may go on.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RequestFailure {
    /// The model's logits gave no token to draw.
    #[error("no token could be drawn")]
    Sampling(#[source] SampleError),
    /// The request's grammar became too much to follow.
    #[error("the grammar could not be followed any further")]
    Grammar(#[source] FollowError),
    /// More of the answer waited for the client than is kept.
    #[error("the client did not read its answer")]
    Unread,
    /// The engine is dead; no request will succeed until the process is restarted.
    #[error("the engine stopped on an internal error")]
    EngineDead,
}

/// When the stages of a request's life happened, as far as its events have been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// The request was submitted.
    pub queued_at: Instant,
    /// Its first prompt tokens were scheduled.
    pub scheduled_at: Option<Instant>,
    /// Its first token was drawn, sent or not.
    pub first_token_at: Option<Instant>,
    /// The latest event read was born.
    pub last_event_at: Option<Instant>,
}

/// An event with the times the ticket keeps.
#[derive(Clone, Debug)]
pub(crate) struct Stamped {
    pub(crate) event: Event,
    pub(crate) at: Instant,
    pub(crate) scheduled_at: Option<Instant>,
    pub(crate) first_token_at: Option<Instant>,
    pub(crate) n_cached: usize,
}

impl Stamped {
    /// Bytes that it takes while it waits. Log-probabilities of a prompt are shared by all answers to it.
    fn n_bytes(&self) -> usize {
        let n_top =
            |logprobs: &Option<TokenLogprobs>| logprobs.as_ref().map_or(0, |logprobs| logprobs.top.len());
        let n_pairs = match &self.event {
            Event::Token { logprobs, .. } => n_top(logprobs),
            Event::Finished { last, ended_by, .. } => {
                last.as_ref().map_or(0, |(_, logprobs)| n_top(logprobs)) + n_top(ended_by)
            }
            Event::Prompt(_) | Event::Beams(_) | Event::Pooled(_) | Event::Failed(_) => 0,
        };
        size_of::<Self>() + n_pairs * size_of::<(u32, f32)>()
    }
}

/// The engine's end of a ticket.
#[derive(Debug)]
pub(super) struct EventSender {
    events: mpsc::Sender<Stamped>,
    unread: Arc<Unread>,
}

/// The ticket's end.
#[derive(Debug)]
pub(super) struct EventReceiver {
    events: mpsc::Receiver<Stamped>,
    unread: Arc<Unread>,
}

/// The two ends of a ticket's channel, which holds this many events.
pub(super) fn channel(n_events_max: usize, unread: Arc<Unread>) -> (EventSender, EventReceiver) {
    let (sender, receiver) = mpsc::channel(n_events_max);
    let sender = EventSender {
        events: sender,
        unread: Arc::clone(&unread),
    };
    let receiver = EventReceiver {
        events: receiver,
        unread,
    };
    (sender, receiver)
}

impl EventSender {
    /// The ticket was dropped.
    pub(super) fn is_closed(&self) -> bool {
        self.events.is_closed()
    }

    /// Nobody reads the answer; see [`Unread::is_too_much`].
    pub(super) fn is_unread(&self, n_answers: usize) -> bool {
        self.unread.is_too_much(n_answers)
    }

    /// Sends without waiting. The channel is never full: it has room for every event of the request. A closed one
    /// belongs to a dropped ticket.
    pub(super) fn send(&self, stamped: Stamped) {
        let n_bytes = stamped.n_bytes();
        self.unread.sent(n_bytes);
        match self.events.try_send(stamped) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => self.unread.read(n_bytes),
            Err(mpsc::error::TrySendError::Full(_)) => {
                unreachable!("a request sent more events than its channel holds")
            }
        }
    }
}

impl EventReceiver {
    async fn recv(&mut self) -> Option<Stamped> {
        let stamped = self.events.recv().await?;
        self.unread.read(stamped.n_bytes());
        Some(stamped)
    }

    fn try_recv(&mut self) -> Option<Stamped> {
        let stamped = self.events.try_recv().ok()?;
        self.unread.read(stamped.n_bytes());
        Some(stamped)
    }
}

impl Ticket {
    pub(super) fn new(events: EventReceiver, queued_at: Instant) -> Ticket {
        let timing = Timing {
            queued_at,
            scheduled_at: None,
            first_token_at: None,
            last_event_at: None,
        };
        Ticket {
            events,
            timing,
            n_cached: 0,
            ended: false,
        }
    }

    /// The next event; `None` after the one that ended the request. Cancel-safe.
    pub async fn next(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        // The engine thread may be gone without a last event; that is an end too, so that no caller waits forever.
        let Some(stamped) = self.events.recv().await else {
            self.ended = true;
            return Some(Event::Failed(RequestFailure::EngineDead));
        };
        Some(self.read(stamped))
    }

    /// The next event if it is there already.
    pub fn next_ready(&mut self) -> Option<Event> {
        if self.ended {
            return None;
        }
        let stamped = self.events.try_recv()?;
        Some(self.read(stamped))
    }

    fn read(&mut self, stamped: Stamped) -> Event {
        self.timing.scheduled_at = stamped.scheduled_at;
        self.timing.first_token_at = stamped.first_token_at;
        self.timing.last_event_at = Some(stamped.at);
        self.n_cached = stamped.n_cached;
        self.ended = !matches!(stamped.event, Event::Prompt(_) | Event::Token { .. });
        stamped.event
    }

    /// Tokens of the prompt that the prefix cache had; 0 before the first event was read.
    pub fn n_cached_tokens(&self) -> usize {
        self.n_cached
    }

    /// When the stages of this request's life happened, as far as its events have been read.
    pub fn timing(&self) -> Timing {
        self.timing
    }
}
