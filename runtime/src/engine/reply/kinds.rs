//! The kinds of reply, and the way back to a ticket that each of them has.
//!
//! Must not know when something is sent; that is in one file per kind.

use std::time::Instant;

use crate::engine::beam::BeamSearch;
use crate::engine::draw::Guide;
use crate::engine::request::BeamParams;
use crate::engine::ticket::{Event, EventSender, Stamped};
use crate::grammar::Grammar;

/// What one ticket waits for.
///
/// The log-probabilities of a prompt are no kind of their own: they precede the text on the same ticket.
pub(super) enum Reply {
    Text(TextReply),
    Beam(BeamReply),
    Pooled(PooledReply),
}

/// The sending side of one ticket.
pub(super) struct Recipient {
    pub(super) events: EventSender,
    /// Prompt tokens to count when the prompt is computed; one of several answers counts them.
    pub(super) n_prompt: usize,
    pub(super) n_cached: usize,
    pub(super) scheduled_at: Option<Instant>,
    pub(super) first_token_at: Option<Instant>,
}

/// The reply to one answer of a request that generates.
pub(super) struct TextReply {
    pub(super) recipient: Recipient,
    /// Where the text is in its grammar; lent out while a step draws. It follows the tokens, so preemption does not
    /// touch it.
    pub(super) guide: Option<Box<Guide>>,
}

impl TextReply {
    pub(super) fn new(recipient: Recipient, grammar: Option<&Grammar>) -> TextReply {
        let guide = grammar.map(|grammar| Box::new(Guide::new(grammar)));
        TextReply { recipient, guide }
    }
}

/// The reply to one beam search.
pub(super) struct BeamReply {
    pub(super) recipient: Recipient,
    pub(super) search: BeamSearch,
}

impl BeamReply {
    pub(super) fn new(recipient: Recipient, params: BeamParams) -> BeamReply {
        BeamReply {
            recipient,
            search: BeamSearch::new(params),
        }
    }
}

/// The reply to one pooling request.
pub(super) struct PooledReply {
    pub(super) recipient: Recipient,
}

impl PooledReply {
    pub(super) fn new(recipient: Recipient) -> PooledReply {
        PooledReply { recipient }
    }
}

impl Reply {
    pub(super) fn recipient(&self) -> &Recipient {
        match self {
            Reply::Text(text) => &text.recipient,
            Reply::Beam(beam) => &beam.recipient,
            Reply::Pooled(pooled) => &pooled.recipient,
        }
    }

    pub(super) fn into_recipient(self) -> Recipient {
        match self {
            Reply::Text(text) => text.recipient,
            Reply::Beam(beam) => beam.recipient,
            Reply::Pooled(pooled) => pooled.recipient,
        }
    }

    pub(super) fn recipient_mut(&mut self) -> &mut Recipient {
        match self {
            Reply::Text(text) => &mut text.recipient,
            Reply::Beam(beam) => &mut beam.recipient,
            Reply::Pooled(pooled) => &mut pooled.recipient,
        }
    }
}

impl Recipient {
    /// Sends without waiting. The next turn cancels the request if its ticket was dropped.
    pub(super) fn send(&self, event: Event, at: Instant) {
        let stamped = Stamped {
            event,
            at,
            scheduled_at: self.scheduled_at,
            first_token_at: self.first_token_at,
            n_cached: self.n_cached,
        };
        self.events.send(stamped);
    }
}
