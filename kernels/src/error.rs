//! The errors that ops return when their contract is violated.

#[cfg(feature = "cuda")]
use crate::cuda::CudaError;

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
    /// A weight is stored in another layout than the op works on.
    #[error("{op}: the weight must be {must_be}")]
    Layout {
        /// The op that was called.
        op: &'static str,
        /// The layout that it works on, in words.
        must_be: &'static str,
    },
    /// There is no memory for a buffer.
    #[error("no memory for a {what} of {size_bytes} bytes")]
    Memory {
        /// The buffer.
        what: &'static str,
        /// Bytes requested.
        size_bytes: u128,
    },
    /// A weight that is to be quantised contains a number that has no code.
    #[error("a weight is NaN or infinite in row {row}, column {column}, and cannot be quantised")]
    NotFinite {
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// The processor lacks an instruction set that was requested by name.
    #[error("this processor has no {isa}")]
    MissingIsa {
        /// The instruction set.
        isa: &'static str,
    },
    /// The card or its driver has failed.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] CudaError),
    /// The thread pool could not be started.
    #[error("cannot start {n_threads} compute threads: {reason}")]
    Threads {
        /// Threads requested.
        n_threads: usize,
        /// The error of the operating system.
        reason: String,
    },
}

impl KernelError {
    /// Whether a device failed, and not the caller.
    pub fn is_of_device(&self) -> bool {
        #[cfg(feature = "cuda")]
        if let KernelError::Cuda(error) = self {
            return !matches!(error, CudaError::Argument { .. });
        }
        false
    }

    /// Whether a device has no memory for what was requested.
    pub fn is_out_of_device_memory(&self) -> bool {
        #[cfg(feature = "cuda")]
        if let KernelError::Cuda(error) = self {
            return matches!(error, CudaError::OutOfMemory { .. });
        }
        false
    }
}

/// The contract of the op of this name: each check returns the error of a violation.
#[derive(Clone, Copy)]
pub(crate) struct Contract(pub(crate) &'static str);

impl Contract {
    /// `operand` has as many elements as the shapes need.
    pub(crate) fn len(self, operand: &'static str, got: usize, want: usize) -> Result<(), KernelError> {
        if got == want {
            return Ok(());
        }
        Err(KernelError::Length {
            op: self.0,
            operand,
            got,
            want,
        })
    }

    /// The value `got` of `operand` follows a rule.
    pub(crate) fn range(
        self,
        holds: bool,
        operand: &'static str,
        got: usize,
        rule: &'static str,
    ) -> Result<(), KernelError> {
        if holds {
            return Ok(());
        }
        Err(KernelError::Range {
            op: self.0,
            operand,
            got,
            rule,
        })
    }
}
