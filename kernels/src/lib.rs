//! The compute operations of the engine, one contract each, with a CPU side.
//!
//! Owns the arithmetic, the instruction sets and every line of `unsafe` in the workspace. Must not know
//! models, requests, files' formats or HTTP: it sees shapes, dtypes and slices.

mod error;

pub use error::KernelError;
