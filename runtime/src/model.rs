//! Models: a checkpoint folder becomes something that turns a [`crate::batch::Batch`] into a [`crate::batch::StepOutput`].
//!
//! Owns config.json, weight names, the decoder and its KV cache. Must not know requests, sampling, text
//! or HTTP; it knows tokens only as numbers.
//!
//! `config` reads the JSON, `families` maps it to a `spec` (one decoder described as data), `weights`
//! checks and maps the files, `decoder` loads and runs.

mod checkpoint;
mod config;
mod decoder;
mod error;
mod families;
pub(crate) mod fuzzing;
mod pooling;
mod rope;
mod spec;

pub use checkpoint::{DtypeChoice, LoadFormat, LoadProgress};
pub use decoder::{LoadOptions, Model, ModelInfo, Task};
pub use error::ModelError;
