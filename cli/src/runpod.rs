//! A RunPod block of environment variables becomes a ModelDeployment.
//!
//! Owns the reading of the block in each of its forms, and what becomes of each variable. Must not know a cluster.

mod block;
mod import;

pub use block::{BlockError, Given, Variable, read};
pub use import::{Fate, Import, Note, Options, import};

#[cfg(test)]
mod tests;
