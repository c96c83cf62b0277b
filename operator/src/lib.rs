//! The operator: reconciles `ModelDeployment` into Kubernetes objects and truthful status.
//!
//! The only crate that knows Kubernetes' API. It knows the runtime by its image, its flags, its probes and its
//! termination message; it must not know models, tensors or the OpenAI protocol.

pub mod backoff;
pub mod context;
pub mod controller;
pub mod health;
pub mod leader;
pub mod metrics;
pub mod names;
pub mod pods;
pub mod probe;
pub mod reconcile;
