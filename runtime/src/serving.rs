//! From files to an engine that has answered once.
//!
//! Owns loading, the size of the KV cache, and why a process cannot serve. Must not know HTTP.

pub mod capacity;
mod error;
mod files;
mod from_settings;
mod loading;
mod memory;
pub mod quantization;

use std::path::PathBuf;
use std::sync::Arc;

use crate::api::request::Defaults;
use crate::chat_template::ChatTemplate;
use crate::engine::Engine;
use crate::grammar::{GrammarError, Grammars};
use crate::model::ModelInfo;
use crate::model::PoolingConfig;
use crate::parsers::Formats;
use crate::tokenizer::Tokenizer;

pub use error::LoadError;
pub use files::{bake, check_configuration};
pub use from_settings::{load_options, overrides};
pub use loading::{check, load, start_engine};

/// A loaded model and what is needed to use it.
#[derive(Debug)]
pub struct Serving {
    /// The engine.
    pub engine: Arc<Engine>,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Messages to text; a checkpoint may have none.
    pub template: Option<ChatTemplate>,
    /// Grammars over its tokens, or why there can be none.
    pub grammars: Result<Grammars, GrammarError>,
    /// How calls and thoughts are found in answers.
    pub formats: Formats,
    /// What was loaded.
    pub info: ModelInfo,
    /// Longest context in tokens.
    pub max_model_len: usize,
    /// Bytes of memory that the process takes at most; `None` where the system does not say what it takes now.
    pub memory_bytes: Option<u64>,
    /// How the checkpoint makes vectors.
    pub pooling: PoolingConfig,
    /// Commit that was downloaded, if the directory records it.
    pub revision: Option<String>,
    /// Sampling of requests that name none.
    pub defaults: Defaults,
    /// Directory of the model.
    pub directory: PathBuf,
}
