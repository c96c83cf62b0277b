//! What the status codes of cuBLASLt mean for the engine.

use cudarc::cublaslt::sys::cublasStatus_t as Status;

use super::super::error::CudaError;

/// The error of a status that `operation` of the library returned.
pub(super) fn status(operation: &'static str, status: Status) -> Result<(), CudaError> {
    match status {
        Status::CUBLAS_STATUS_SUCCESS => Ok(()),
        Status::CUBLAS_STATUS_ALLOC_FAILED => Err(CudaError::OutOfMemory {
            operation,
            size_bytes: 0,
        }),
        status => Err(CudaError::Driver {
            operation,
            status: format!("{status:?} ({})", status as u32),
        }),
    }
}

/// The error of a product that cannot be computed.
pub(super) fn invalid(status: String) -> CudaError {
    CudaError::Driver {
        operation: "product by cuBLASLt",
        status,
    }
}
