//! What the CPU sides of the ops share: threads, vector instructions and memory.
//!
//! Must not know any op.

pub(crate) mod buffer;
pub(crate) mod context;
pub(crate) mod disjoint;
pub(crate) mod isa;
pub(crate) mod pool;
pub(crate) mod simd;
