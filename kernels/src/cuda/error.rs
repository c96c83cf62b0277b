//! What goes wrong on a card, and what the driver's status codes mean for the engine.

use cudarc::driver::sys::CUresult;

/// A call of the driver that failed, or a card that is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// This machine has no usable card.
    #[error("no CUDA device: {reason}")]
    NoDevice {
        /// What is missing.
        reason: String,
    },
    /// The memory of the device, or memory of the host that it can reach, is used up.
    #[error("{operation}: no memory for {size_bytes} bytes")]
    OutOfMemory {
        /// The call.
        operation: &'static str,
        /// Bytes requested; 0 where the driver needed them for itself.
        size_bytes: usize,
    },
    /// A kernel could not be launched with these sizes.
    #[error(
        "cannot launch {kernel} with a grid of {grid:?}, {block} threads and {shared_bytes} bytes of shared memory: {status}"
    )]
    Launch {
        /// The kernel.
        kernel: &'static str,
        /// Blocks.
        grid: [u32; 3],
        /// Threads of a block.
        block: u32,
        /// Dynamic shared memory of a block.
        shared_bytes: usize,
        /// The driver's status.
        status: String,
    },
    /// The arguments of a launch are not those that the kernel takes.
    #[error("{kernel}: argument {index} {problem}")]
    Argument {
        /// The kernel.
        kernel: &'static str,
        /// Position in the list of arguments.
        index: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The program contains no kernel of this name for this card.
    #[error("no kernel {kernel} for this device: {status}")]
    NoKernel {
        /// The kernel.
        kernel: String,
        /// The driver's status.
        status: String,
    },
    /// The device has failed, or a kernel has made its context unusable. Only a new process can use it again.
    #[error("{operation}: the CUDA device is lost: {status}")]
    DeviceLost {
        /// The call that reported it; the cause may be earlier work.
        operation: &'static str,
        /// The driver's status.
        status: String,
    },
    /// Another error of the driver.
    #[error("{operation} failed: {status}")]
    Driver {
        /// The call.
        operation: &'static str,
        /// The driver's status.
        status: String,
    },
}

impl CudaError {
    /// Whether the device cannot be used again by this process.
    pub fn is_fatal(&self) -> bool {
        matches!(self, CudaError::DeviceLost { .. })
    }
}

/// The error of a status that `operation` returned.
pub(super) fn check(operation: &'static str, status: CUresult) -> Result<(), CudaError> {
    match status {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(CudaError::OutOfMemory {
            operation,
            size_bytes: 0,
        }),
        status if is_lost(status) => Err(CudaError::DeviceLost {
            operation,
            status: name(status),
        }),
        status => Err(CudaError::Driver {
            operation,
            status: name(status),
        }),
    }
}

/// The driver's name of a status and its number.
pub(super) fn name(status: CUresult) -> String {
    format!("{status:?} ({})", status as u32)
}

/// Statuses after which every later call in the same process fails (CUDA driver API, `CUresult`).
pub(super) fn is_lost(status: CUresult) -> bool {
    use CUresult as S;
    matches!(
        status,
        S::CUDA_ERROR_DEINITIALIZED
            | S::CUDA_ERROR_DEVICE_UNAVAILABLE
            | S::CUDA_ERROR_ECC_UNCORRECTABLE
            | S::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | S::CUDA_ERROR_CONTAINED
            | S::CUDA_ERROR_ILLEGAL_ADDRESS
            | S::CUDA_ERROR_LAUNCH_TIMEOUT
            | S::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | S::CUDA_ERROR_ASSERT
            | S::CUDA_ERROR_HARDWARE_STACK_ERROR
            | S::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | S::CUDA_ERROR_MISALIGNED_ADDRESS
            | S::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | S::CUDA_ERROR_INVALID_PC
            | S::CUDA_ERROR_LAUNCH_FAILED
            | S::CUDA_ERROR_TENSOR_MEMORY_LEAK
            | S::CUDA_ERROR_EXTERNAL_DEVICE
            | S::CUDA_ERROR_UNKNOWN
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_become_the_errors_that_the_engine_acts_on() {
        assert_eq!(check("x", CUresult::CUDA_SUCCESS), Ok(()));
        let of = |status| check("cuMemAlloc", status).unwrap_err();
        assert!(matches!(
            of(CUresult::CUDA_ERROR_OUT_OF_MEMORY),
            CudaError::OutOfMemory { .. }
        ));
        assert!(of(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS).is_fatal());
        assert!(of(CUresult::CUDA_ERROR_LAUNCH_FAILED).is_fatal());
        let error = of(CUresult::CUDA_ERROR_INVALID_VALUE);
        assert!(!error.is_fatal());
        assert_eq!(
            error.to_string(),
            "cuMemAlloc failed: CUDA_ERROR_INVALID_VALUE (1)"
        );
    }
}
