//! The engine: one thread that owns the model, the scheduler and the KV cache.
//!
//! Async ends at its two bounded channels. It knows tokens, never text, HTTP or JSON.

pub mod admission;
pub mod batch;
pub mod blocks;
pub mod philox;
pub mod sampler;
pub mod sequence;
pub mod ticket;

pub use admission::AdmitError;
pub use sampler::{SamplingParams, TokenLogprobs};
pub use sequence::GenerateRequest;
pub use ticket::{Event, FinishReason, RequestFailure, Ticket, Timing};
