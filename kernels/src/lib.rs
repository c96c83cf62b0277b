//! The compute operations of the engine, one contract each, with a CPU side.
//!
//! Owns the arithmetic, the instruction sets and every line of `unsafe` in the workspace. Must not know
//! models, requests, files' formats or HTTP: it sees shapes, dtypes and slices.
//!
//! Every op takes the [`CpuContext`] first, checks its contract before it touches a number, and computes
//! each output element in one fixed order of operations that depends neither on how many rows travel with
//! it nor on how many threads work: a sequence gets the same bits alone, in a batch, or in chunks.

mod activation;
mod add;
mod attention;
mod cpu;
mod embed;
mod error;
mod gemm;
mod heads;
mod kv_cache;
mod mapped_file;
mod norm;
mod rope;
mod route;
mod weight;

pub use activation::{Activation, activate, activate_gated};
pub use add::add;
pub use attention::{Attention, AttentionRow, Mask, Scores, attention};
pub use cpu::context::CpuContext;
pub use cpu::isa::Isa;
pub use embed::embed;
pub use error::KernelError;
pub use gemm::{Gemm, gemm};
pub use heads::Heads;
pub use kv_cache::{KvCache, KvShape, KvValues, KvWrite, kv_write};
pub use mapped_file::MappedFile;
pub use norm::{Norm, NormKind, norm};
pub use rope::{Rope, RopePairs, RopeTable, rope};
pub use route::{Choice, ExpertGroups, GroupScore, Route, Scoring, route};
pub use weight::{DType, Weight};
