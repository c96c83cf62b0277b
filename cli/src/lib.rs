//! `kubectl slipway`: what a person does with ModelDeployments from a terminal.
//!
//! Pure parts (`runpod`, `manifest`, `reference`, `cards`, `display`) take values and return texts; `cluster` and
//! `replica` talk to the API server with the person's own rights; a command joins them. Imports only `crds`: the
//! operator and the runtime are other programs.

pub mod arguments;
pub mod cards;
pub mod cluster;
mod commands;
pub mod completion;
pub mod display;
pub mod endpoint;
pub mod error;
pub mod krew;
pub mod manifest;
pub mod readiness;
pub mod reference;
pub mod replica;
pub mod runpod;

pub use commands::run;
pub use error::Error;
