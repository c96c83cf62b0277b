//! Why a model could not be loaded.

use std::path::PathBuf;

use kernels::KernelError;

/// A checkpoint that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file of the checkpoint could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A JSON file of the checkpoint is too large, not JSON, or nested too deeply.
    #[error("{path} is not usable JSON: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A field of config.json is missing or has a value that makes no sense.
    #[error("config.json: {field} {reason}")]
    Config {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No family of this runtime describes the architecture.
    #[error("architecture {architecture} is not supported; supported are {}", supported.join(", "))]
    UnsupportedArchitecture {
        /// The name in config.json.
        architecture: String,
        /// Every name this runtime knows.
        supported: Vec<&'static str>,
    },
    /// The architecture is known, but one of its options is not.
    #[error("config.json: {option} = {value} is not supported; supported are {supported}")]
    UnsupportedOption {
        /// The option.
        option: &'static str,
        /// Its value in the checkpoint.
        value: String,
        /// What is supported.
        supported: &'static str,
    },
    /// A setting contradicts the checkpoint.
    #[error("{setting}: {reason}")]
    Setting {
        /// The setting's variable.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A field changes what the model computes, and the code for this architecture does not read it.
    #[error(
        "{file}: {field} = {value} changes what the model computes, and is not supported for this architecture"
    )]
    UnreadField {
        /// The file.
        file: String,
        /// The field, with the objects that contain it.
        field: String,
        /// Its value.
        value: String,
    },
    /// A weight file is truncated, corrupt, contradicts its own header, or contains more than weights need.
    #[error("{path} is not a usable weight file: {reason}")]
    WeightFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder holds no weights, or a shard of the index is not there.
    #[error("weight file {path} is missing")]
    MissingFile {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// The architecture needs a tensor that no weight file holds.
    #[error("tensor {name} is missing")]
    MissingTensor {
        /// The tensor.
        name: String,
    },
    /// A weight file holds a tensor that the architecture does not use.
    #[error("tensor {name} is not part of the architecture")]
    UnknownTensor {
        /// The tensor.
        name: String,
    },
    /// A tensor's shape contradicts config.json.
    #[error("tensor {name} has shape {got:?}, config.json gives {want:?}")]
    TensorShape {
        /// The tensor.
        name: String,
        /// Its shape in the file.
        got: Vec<usize>,
        /// The shape that config.json gives.
        want: Vec<usize>,
    },
    /// A tensor's element type is not one that can be computed with.
    #[error("tensor {name} has dtype {got}; supported are F32, F16, BF16")]
    TensorDtype {
        /// The tensor.
        name: String,
        /// Its dtype in the file.
        got: String,
    },
    /// A tensor that is to be quantised contains a number that cannot be.
    #[error("tensor {name} contains NaN or an infinity in row {row} and cannot be quantised")]
    NotFinite {
        /// The tensor.
        name: String,
        /// The row of the matrix that it is part of.
        row: usize,
    },
    /// Quantised weights are requested on a GPU.
    #[error("weights cannot be quantised to {format} on a GPU in this version")]
    QuantizedOnDevice {
        /// The format.
        format: &'static str,
    },
    /// `max_model_len` is beyond what the checkpoint was trained for, or zero.
    #[error("max_model_len {asked} is not within 1..={limit}, the context of the model")]
    MaxModelLen {
        /// The value of the setting.
        asked: u32,
        /// What config.json allows.
        limit: u32,
    },
    /// The requested KV cache cannot be allocated.
    #[error("cannot allocate a KV cache of {n_blocks} blocks of {block_size} tokens ({kv_bytes} bytes)")]
    Cache {
        /// Blocks requested.
        n_blocks: usize,
        /// Tokens per block.
        block_size: usize,
        /// Bytes that would take.
        kv_bytes: u128,
    },
    /// The card keeps its cache in the type of the weights only.
    #[error(
        "KV_CACHE_DTYPE {requested} is not supported on a GPU, whose KV cache has the type of the weights, {weights}"
    )]
    KvCacheDtype {
        /// The value of the setting.
        requested: &'static str,
        /// The type of the weights in memory.
        weights: &'static str,
    },
    /// A card was requested, and there is none that can be used.
    #[error("no GPU can be used: {reason}")]
    NoDevice {
        /// What is missing.
        reason: String,
    },
    /// An op refused its operands, which is a bug of the model, or its device failed.
    #[error("an op of the model failed")]
    Kernel(#[from] KernelError),
}
