//! The stand-in for the CUDA driver finds what it must find: each fault is planted beside the right kernel, and the right
//! one passes under every order.
#![cfg(feature = "cuda")]
#![allow(missing_docs)]

#[path = "standin/card.rs"]
mod card;
#[path = "standin/driver.rs"]
mod driver;
#[path = "standin/kernel_faults.rs"]
mod kernel_faults;
#[path = "standin/overlap.rs"]
mod overlap;
#[path = "standin/products.rs"]
mod products;
#[path = "standin/sources.rs"]
mod sources;
