//! The runtime: an OpenAI-compatible server over a paged-KV engine, and the model download.
//!
//! Owns HTTP, tokenization, the engine and the models. Must not know Kubernetes: what the operator wants
//! reaches it as a settings file, environment variables and flags.

pub mod api;
pub mod batch;
pub mod bench;
pub mod chat_template;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod engine;
pub mod fetch;
#[doc(hidden)]
pub mod fuzzing;
pub mod grammar;
pub mod http;
pub mod inspect;
pub mod jinja;
pub mod listen;
pub mod model;
pub mod parsers;
pub mod preparation;
pub mod server;
pub mod serving;
pub mod startup;
pub mod telemetry;
pub mod tokenizer;
