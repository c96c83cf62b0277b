//! The runtime: an OpenAI-compatible server over a paged-KV engine, and the model download.
//!
//! Owns HTTP, tokenization, the engine and the models. Must not know Kubernetes: what the operator wants
//! reaches it as a settings file, environment variables and flags.

pub mod answer;
pub mod auth;
pub mod batch;
pub mod capacity;
pub mod chat_template;
pub mod cli;
pub mod config;
pub mod connection;
pub mod cors;
pub mod engine;
pub mod error;
pub mod fetch;
#[doc(hidden)]
pub mod fuzzing;
pub mod grammar;
pub mod jobs;
pub mod loading;
pub mod metrics;
pub mod model;
pub mod openapi;
pub mod parsers;
pub mod pooling;
pub mod request;
pub mod request_log;
pub mod response;
pub mod routes;
pub mod server;
pub mod startup;
pub mod statistics;
pub mod text;
pub mod tls;
pub mod tokenizer;
