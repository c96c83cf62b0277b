//! What the CPU sides of the ops share: threads, vector instructions and memory.
//!
//! Must not know any op.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
pub(crate) mod bf16;
pub(crate) mod buffer;
pub(crate) mod context;
pub(crate) mod disjoint;
pub(crate) mod isa;
pub(crate) mod nf4;
pub(crate) mod pool;
pub(crate) mod simd;
