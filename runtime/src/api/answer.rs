//! Answers while they are generated: the tokens of a ticket become text, stop strings end it, and its times are measured.
//!
//! Owns the way from a [`Ticket`](crate::engine::Ticket) to [`Delta`]s, for streams and complete answers alike, so that
//! both have the same text. Must not know the shapes of responses, nor HTTP.

mod choice;
mod delta;
mod running;
mod whole;

pub use choice::{Choice, ChoicePlan};
pub use delta::{Delta, Finish, PromptLogprobs, StopReason, Token, TokenCounts};
pub use running::{Deltas, Running};
pub use whole::{Whole, best};
