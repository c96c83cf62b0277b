//! OpenAI's words: what requests may contain, what answers look like, and which errors clients see.
//!
//! Owns the reading and checking of bodies, answers as they arrive, RunPod's jobs, errors and the OpenAPI document.
//! It knows no web framework, so that jobs, documents and fuzz targets can use it without one.

pub mod answer;
pub mod error;
pub mod jobs;
pub mod openapi;
pub mod request;
pub mod response;
pub mod text;
pub mod vectors;
