//! Draws of tokens from rows of logits on the device. The runtime's sampler defines the results.

pub(crate) mod cuda;
