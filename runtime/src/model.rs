//! Models: a checkpoint folder becomes something that turns a [`Batch`] into a [`StepOutput`].
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
pub(crate) mod fuzzing;
mod load;
mod mxfp4;
mod pickle;
mod pooling;
mod rope;
mod safetensors;
mod spec;
mod weights;

pub use decoder::{LoadOptions, Model, ModelInfo, Task};
pub use error::ModelError;
pub use weights::{DtypeChoice, LoadProgress};

use crate::engine::batch::{Batch, KvGroup, StepOutput};

/// What the engine needs of a model. The engine's tests bring their own.
pub trait Forward {
    /// Length of a row of logits; token ids must be below it.
    fn vocab_size(&self) -> usize;

    /// The layers, grouped by what they see: one block table of a row for each group, in this order; at least
    /// one. Unless a model says otherwise, one that sees the whole context.
    fn kv_groups(&self) -> Vec<KvGroup> {
        vec![KvGroup::default()]
    }

    /// A prompt must be computed in one step, because its tokens see the later ones too.
    fn whole_prompts(&self) -> bool {
        false
    }

    /// What else the keys and values of a prompt of this length depend on: two prompts share cached blocks only
    /// if it is the same number.
    fn prefix_salt(&self, _prompt_len: usize) -> u64 {
        0
    }

    /// Runs one step: moves blocks, writes the keys and values of the batch's tokens to their slots, and
    /// returns the logits and the pooled vectors that the batch asks for, in its order.
    ///
    /// # Errors
    /// A batch that contradicts itself or the cache (see [`ModelError::Batch`]); nothing was computed then.
    fn forward(&mut self, batch: &Batch) -> Result<StepOutput, ModelError>;
}
