//! What the tests bring along: stand-ins for the services that Slipway talks to.
//!
//! Owns the Hub-protocol server, as a library for tests in one process and as the binary `hub` for pods. Must
//! not know the crates under test: they meet it over HTTP only.

pub mod hub;
