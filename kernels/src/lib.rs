//! The compute operations of the engine, one contract each, with a CPU side.
//!
//! Owns the arithmetic, the instruction sets and every line of `unsafe` in the workspace. Must not know
//! models, requests, files' formats or HTTP: it sees shapes, dtypes and slices.
//!
//! Every op takes the [`CpuContext`] first, checks its contract before it touches a number, and computes
//! each output element in one fixed order of operations that depends neither on how many rows travel with
//! it nor on how many threads work: a sequence gets the same bits alone, in a batch, or in chunks.

mod add;
mod attention;
mod buffer;
mod context;
mod disjoint;
mod embed;
mod error;
mod gemm;
mod kv_cache;
mod mapped_file;
mod rms_norm;
mod rope;
mod silu_mul;
mod simd;
mod weight;

pub use add::add;
pub use attention::{Attention, AttentionRow, attention};
pub use context::{CpuContext, Isa};
pub use embed::embed;
pub use error::KernelError;
pub use gemm::{Gemm, gemm};
pub use kv_cache::{KvCache, KvWrite, kv_write};
pub use mapped_file::MappedFile;
pub use rms_norm::{RmsNorm, rms_norm};
pub use rope::{Rope, RopeTable, rope};
pub use silu_mul::silu_mul;
pub use weight::{DType, Weight};
