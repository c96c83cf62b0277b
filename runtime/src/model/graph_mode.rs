//! Which steps of a model are recorded as CUDA graphs.

/// Which steps are recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum GraphMode {
    /// None: each step is enqueued op by op.
    #[default]
    Eager,
    /// Steps in which each sequence has one new token and at most this many in all.
    Decode {
        /// Longest context of a recorded step.
        max_context_len: usize,
    },
}
