//! The engine: one thread that owns the model, the scheduler and the KV cache.
//!
//! Async ends at its two bounded channels. It knows tokens, never text, HTTP or JSON.

pub mod batch;
