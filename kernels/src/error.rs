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
    /// There is no memory for a buffer.
    #[error("no memory for a {what} of {size_bytes} bytes")]
    Memory {
        /// The buffer.
        what: &'static str,
        /// Bytes asked for.
        size_bytes: u128,
    },
    /// The processor lacks an instruction set that was asked for by name.
    #[error("this processor has no {isa}")]
    MissingIsa {
        /// The instruction set.
        isa: &'static str,
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

/// Checks that `operand` of `op` has as many elements as the shapes need.
pub(crate) fn check_len(
    op: &'static str,
    operand: &'static str,
    got: usize,
    want: usize,
) -> Result<(), KernelError> {
    if got == want {
        Ok(())
    } else {
        Err(KernelError::Length {
            op,
            operand,
            got,
            want,
        })
    }
}

/// Checks a rule about the value `got` of `operand`.
pub(crate) fn check_range(
    holds: bool,
    op: &'static str,
    (operand, got): (&'static str, usize),
    rule: &'static str,
) -> Result<(), KernelError> {
    if holds {
        Ok(())
    } else {
        Err(KernelError::Range {
            op,
            operand,
            got,
            rule,
        })
    }
}
