//! The operator: makes Kubernetes objects for each `ModelDeployment` and reports their state in its status.
//!
//! The only crate that knows Kubernetes' API. It knows the runtime's image, flags, probes and termination message; it
//! must not know models, tensors or the OpenAI protocol.

pub mod autoscaler;
pub mod backoff;
pub mod console;
pub mod context;
pub mod controller;
pub mod demand;
pub mod gateway;
pub mod health;
pub mod leader;
pub mod metrics;
pub mod names;
pub mod pods;
pub mod polls;
pub mod probe;
pub mod reconcile;
pub mod watched;
pub mod written;
