//! The HTTP surface against the shipped model, and against models that fail on purpose.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod answers;
mod bake;
mod binary;
mod cache;
#[path = "../oracle/fixture.rs"]
mod checkpoint;
#[cfg(feature = "cuda")]
mod cuda;
mod documents;
mod engine_settings;
mod errors;
mod faults;
mod fixture;
mod jobs;
mod pooling;
mod probes;
mod security;
mod settings;
mod sockets;
mod tools;
mod typed_answers;
