//! The HTTP surface against the shipped model, and against models that fail on purpose.

mod answers;
mod errors;
mod faults;
mod fixture;
mod probes;
mod sockets;
