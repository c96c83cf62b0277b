//! Types of the `slipway.dev` API group, and the one table of settings that everything else derives from.
//!
//! Types only: no Kubernetes client, no async runtime, no I/O beyond what `write_termination_message` needs.
//! The operator, the runtime and code generation read the same declarations, so they cannot disagree.

pub mod conditions;
pub mod demand;
pub mod failure;
pub mod generate;
pub mod keys;
pub mod load;
pub mod modeldeployment;
pub mod schema;
pub mod settings;
pub mod startup;
pub mod wake;
pub mod worker_config;

pub use modeldeployment::{ModelDeployment, ModelDeploymentSpec, ModelDeploymentStatus};
