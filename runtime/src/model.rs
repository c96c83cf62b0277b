//! Models: a checkpoint folder becomes something that turns a [`Batch`] into [`Logits`].
//!
//! Owns config.json, weight names, the decoder and its KV cache. Must not know requests, sampling, text
//! or HTTP; it knows tokens only as numbers.
//!
//! `config` reads the JSON, `families` maps it to a `spec` (one decoder described as data), `weights`
//! checks and maps the files, `decoder` loads and runs.

mod config;
mod decoder;
mod error;
mod families;
mod rope;
mod safetensors;
mod spec;
mod weights;

pub use decoder::{LoadOptions, Model, ModelInfo};
pub use error::ModelError;
pub use weights::{DtypeChoice, LoadProgress};

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
