//! Models: a checkpoint folder becomes something that turns a [`crate::batch::Batch`] into a
//! [`crate::batch::StepOutput`].
//!
//! Owns config.json, weight names, programs and their execution, and the KV cache. Must not know requests, sampling,
//! text or HTTP; it knows tokens only as numbers.
//!
//! `config` reads the JSON, `families` maps it to a `spec` (one model described as data), `program` lowers that to a
//! list of ops, `checkpoint` loads the weights, `cpu` or `cuda` executes the program, and `loaded` joins them.

mod check;
mod checkpoint;
mod config;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod device;
mod error;
mod executor;
mod families;
pub(crate) mod fuzzing;
mod graph_mode;
mod inputs;
mod kv_dtype;
mod kv_layout;
mod loaded;
mod modules;
mod outline;
mod overrides;
mod pooling;
mod program;
mod quantization;
mod rope;
mod source;
mod spans;
mod spec;
mod step_limits;
mod unread;

pub use kernels::available_threads;

pub use checkpoint::{DtypeChoice, LoadFormat, LoadProgress};
pub use config::generation_config;
pub use device::Device;
pub use error::ModelError;
pub use graph_mode::GraphMode;
pub use kernels::QuantFormat;
pub use kv_dtype::KvDtypeChoice;
pub use loaded::{Model, ModelInfo, Task};
pub use outline::{ModelKind, Outline};
pub use overrides::{Overrides, TaskChoice};
pub use pooling::{Lengths, PoolingConfig, ScoreActivation};
pub use program::{Cost, Costs, OpCost, Results, StepShape};
pub use source::LoadOptions;
pub use step_limits::{DeviceMemory, StepLimits};
