//! The web server: connections, the routes below them, and what all routes have in common.

pub mod app;
pub mod auth;
mod background;
mod body;
mod chunks;
mod client;
pub mod connection;
pub mod cors;
mod error;
mod events;
mod extract;
mod generation;
mod ignored;
mod places;
mod prefix;
mod request_id;
mod route;
pub mod routes;
mod shape;
pub mod tls;
mod typed_events;
mod vectors;
