//! What an op answers when its contract is violated.

/// A violated contract: the op did not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// A buffer's length does not agree with the shapes of the call.
    #[error("{op}: {operand} has {got} elements, the shapes need {want}")]
    Length {
        /// The op that was called.
        op: &'static str,
        /// The operand that disagrees.
        operand: &'static str,
        /// Elements it has.
        got: usize,
        /// Elements the shapes need.
        want: usize,
    },
    /// A size or an index is outside what the op can work with.
    #[error("{op}: {operand} is {got}, must be {rule}")]
    Range {
        /// The op that was called.
        op: &'static str,
        /// The operand that is out of range.
        operand: &'static str,
        /// Its value.
        got: usize,
        /// What it must be, in words.
        rule: &'static str,
    },
    /// The thread pool could not be started.
    #[error("cannot start {n_threads} compute threads: {reason}")]
    Threads {
        /// Threads asked for.
        n_threads: usize,
        /// What the operating system said.
        reason: String,
    },
}
