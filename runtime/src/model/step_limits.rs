//! The largest steps that a device must have memory for, and what it then has left.

/// The largest steps that an engine submits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// Tokens.
    pub n_tokens: usize,
    /// Sequences.
    pub n_sequences: usize,
    /// Tokens whose logits are requested.
    pub n_logits: usize,
    /// Tokens of a sequence.
    pub context_len: usize,
    /// Tokens in a block of the KV cache.
    pub block_size: usize,
}

/// Memory of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceMemory {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What is free, in bytes.
    pub free_bytes: u64,
}
