//! Requests to one replica, through the API server's port-forward to its pod.
//!
//! A port-forward needs no address that this machine can reach, is not stopped by the pod's NetworkPolicy, and leaves
//! the header `Authorization` to the model.

mod connection;
mod events;

pub use connection::{Connection, Replica};
pub use events::Events;
