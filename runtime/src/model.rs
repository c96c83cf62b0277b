//! Models: a checkpoint folder becomes something that turns a [`Batch`] into [`Logits`].
//!
//! Owns config.json, weight names, the decoder and its KV cache. Must not know requests, sampling, text
//! or HTTP; it knows tokens only as numbers.

mod error;

pub use error::ModelError;

use crate::engine::batch::{Batch, Logits};

/// What the engine needs of a model. The engine's tests bring their own.
pub trait Forward {
    /// Length of a row of logits; token ids must be below it.
    fn vocab_size(&self) -> usize;

    /// Runs one step: writes the keys and values of the batch's tokens to their slots, and returns the
    /// logits of [`Batch::logits_at`] in that order.
    ///
    /// # Errors
    /// A batch that contradicts itself or the cache (see [`ModelError::Batch`]); nothing was computed then.
    fn forward(&mut self, batch: &Batch) -> Result<Logits, ModelError>;
}
