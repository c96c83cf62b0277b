//! Why a model cannot be served, and what a user can do about it.

use std::path::PathBuf;

use crds::failure::{Failure, Reason, chain};

use super::capacity::CacheDoesNotFit;
use crate::chat_template::TemplateError;
use crate::engine::EngineError;
use crate::fetch::FetchError;
use crate::model::ModelError;
use crate::parsers::UnknownParser;
use crate::tokenizer::TokenizerError;

/// Why the model cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The token for the hub is malformed, or the download failed.
    #[error("the model cannot be downloaded")]
    Fetch(#[from] FetchError),
    /// The model cannot be loaded.
    #[error("the model cannot be loaded")]
    Model(#[from] ModelError),
    /// The tokenizer cannot be loaded.
    #[error("the tokenizer cannot be loaded")]
    Tokenizer(#[from] TokenizerError),
    /// The chat template is no template.
    #[error("the chat template is not valid")]
    Template(#[from] TemplateError),
    /// A setting names a parser that does not exist.
    #[error("TOOL_CALL_PARSER or REASONING_PARSER cannot be used")]
    Parser(#[from] UnknownParser),
    /// The KV cache does not fit.
    #[error("the KV cache does not fit")]
    Capacity(#[from] CacheDoesNotFit),
    /// The KV cache does not fit the GPU.
    #[error("the KV cache does not fit the GPU")]
    DeviceCapacity(#[source] CacheDoesNotFit),
    /// The engine does not start.
    #[error("the engine does not start")]
    Engine(#[from] EngineError),
    /// The model computes no answer.
    #[error("the model answers no test request: {reason}")]
    WarmUp {
        /// What happened.
        reason: String,
    },
    /// generation_config.json cannot be used.
    #[error("the checkpoint's sampling cannot be used")]
    Defaults(#[from] crate::api::request::DefaultsError),
    /// No directory for downloads.
    #[error("there is no directory for downloads")]
    NoCacheDirectory,
    /// A model that is to be downloaded is on this machine.
    #[error("MODEL_NAME is the directory {}: there is nothing to download", path.display())]
    NothingToBake {
        /// The directory.
        path: PathBuf,
    },
    /// The tokenizer marks pairs of texts with kinds of segments that the model does not have.
    #[error("the tokenizer writes token type {written}, and the model has {n_token_types} token types")]
    TokenTypes {
        /// The largest type of a pair.
        written: u32,
        /// Types of the model.
        n_token_types: usize,
    },
    /// Two settings name the number of loading threads.
    #[error("MAX_PARALLEL_LOADING_WORKERS is {workers}, and MODEL_LOADER_EXTRA_CONFIG means {threads}")]
    LoadingThreads {
        /// By the one.
        workers: u32,
        /// By the other.
        threads: u32,
    },
    /// A task of the process died.
    #[error("loading stopped on an internal error")]
    Panicked,
}

impl LoadError {
    /// The failure that the process ends with.
    pub fn failure(&self) -> Failure {
        let lower = "Lower MAX_MODEL_LEN, or give the container more memory.";
        let (reason, remedy) = match self {
            LoadError::Fetch(error) => return error.failure(),
            LoadError::Model(error) => model_failure(error),
            LoadError::Defaults(_) => (
                Reason::InvalidCheckpoint,
                "Correct or remove generation_config.json.",
            ),
            LoadError::Tokenizer(_) => (Reason::InvalidCheckpoint, "Name a tokenizer with TOKENIZER."),
            LoadError::Template(_) => (
                Reason::InvalidSetting,
                "Give a template with CUSTOM_CHAT_TEMPLATE.",
            ),
            LoadError::Parser(_) => (
                Reason::InvalidSetting,
                "Correct the value; docs/settings.md lists them all.",
            ),
            LoadError::Capacity(_) => (Reason::OutOfMemory, lower),
            LoadError::DeviceCapacity(_) => (Reason::OutOfGPUMemory, LOWER_ON_GPU),
            LoadError::Engine(_) => (Reason::InvalidSetting, "Lower the sizes of the engine."),
            LoadError::NoCacheDirectory => (Reason::InvalidSetting, "Set HOME, XDG_CACHE_HOME or HF_HOME."),
            LoadError::NothingToBake { .. } => (
                Reason::InvalidSetting,
                "Name a repository of the hub, in the form owner/name.",
            ),
            LoadError::TokenTypes { .. } => (
                Reason::InvalidCheckpoint,
                "Correct the pair template of tokenizer.json, or type_vocab_size in config.json.",
            ),
            LoadError::LoadingThreads { .. } => (Reason::InvalidSetting, "Remove one of them."),
            LoadError::WarmUp { .. } => (
                Reason::InvalidCheckpoint,
                "The weights and config.json do not fit together, or are damaged: check the repository and its revision.",
            ),
            LoadError::Panicked => (Reason::CrashLoop, "This is a bug; the log has the details."),
        };
        Failure::new(reason, chain(self), remedy)
    }
}

/// What helps where a GPU's memory is too small.
const LOWER_ON_GPU: &str = "Lower MAX_MODEL_LEN, MAX_NUM_SEQS or MAX_NUM_BATCHED_TOKENS, raise GPU_MEMORY_UTILIZATION, or choose a GPU with more memory.";

/// What an error of the model means to somebody who deploys it.
fn model_failure(error: &ModelError) -> (Reason, &'static str) {
    match error {
        ModelError::UnsupportedArchitecture { .. } => (
            Reason::UnsupportedArchitecture,
            "Choose a model of a supported architecture.",
        ),
        ModelError::UnsupportedOption { .. } | ModelError::UnreadField { .. } => (
            Reason::UnsupportedArchitecture,
            "Choose a model that does without this option.",
        ),
        ModelError::Setting { .. } => (
            Reason::InvalidSetting,
            "Correct the value, or remove the setting.",
        ),
        ModelError::MaxModelLen { .. } => (Reason::InvalidSetting, "Lower MAX_MODEL_LEN."),
        ModelError::KvCacheDtype { .. } => (
            Reason::InvalidSetting,
            "Set KV_CACHE_DTYPE=auto, or choose the type with DTYPE, or set DEVICE=cpu.",
        ),
        ModelError::QuantizedOnDevice { .. } => (
            Reason::InvalidSetting,
            "Set QUANTIZATION=none, or compute on the CPU with DEVICE=cpu.",
        ),
        ModelError::Cache { .. } => (Reason::OutOfMemory, "Lower MAX_MODEL_LEN or MAX_NUM_SEQS."),
        ModelError::Read { .. }
        | ModelError::Json { .. }
        | ModelError::Config { .. }
        | ModelError::WeightFile { .. }
        | ModelError::MissingFile { .. }
        | ModelError::MissingTensor { .. }
        | ModelError::UnknownTensor { .. }
        | ModelError::TensorShape { .. }
        | ModelError::TensorDtype { .. }
        | ModelError::NotFinite { .. } => (
            Reason::InvalidCheckpoint,
            "Check the repository and its revision; delete a damaged copy from the cache.",
        ),
        ModelError::NoDevice { .. } => (
            Reason::GPUUnavailable,
            "Request a GPU with resources.gpu and install its driver on the node, or set DEVICE=cpu.",
        ),
        ModelError::Kernel(error) if error.is_out_of_device_memory() => {
            (Reason::OutOfGPUMemory, LOWER_ON_GPU)
        }
        ModelError::Kernel(error) if error.is_of_device() => (
            Reason::GPUFailed,
            "Start the replica again; if this happens again, check the GPU and its driver on the node.",
        ),
        ModelError::Kernel(_) => (Reason::CrashLoop, "This is a bug; the log has the details."),
    }
}
