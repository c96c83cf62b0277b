//! The driver's library: whether it is there, and which one is used.

use std::path::Path;
use std::sync::OnceLock;

use cudarc::driver::sys;

use super::error::{CudaError, check};

/// Oldest driver that can load this program's kernels, as `cuDriverGetVersion` counts.
const DRIVER_VERSION_MIN: i32 = 13_000;

/// Loads the driver's library from `path` and uses it for the rest of the process, instead of the system's.
///
/// # Errors
/// The file cannot be loaded.
pub fn load_driver(path: &Path) -> Result<(), CudaError> {
    // SAFETY: the caller names a driver's library; its initialisers run as those of the system's would.
    let library = unsafe { libloading::Library::new(path) }.map_err(|error| CudaError::NoDevice {
        reason: format!("cannot load {}: {error}", path.display()),
    })?;
    // It stays loaded: a later search for the same name finds it.
    std::mem::forget(library);
    Ok(())
}

/// Makes the driver ready, once per process; returns its version.
pub(super) fn ready() -> Result<i32, CudaError> {
    static READY: OnceLock<Result<i32, CudaError>> = OnceLock::new();
    READY.get_or_init(start).clone()
}

fn start() -> Result<i32, CudaError> {
    // SAFETY: it only tries to open the library.
    if !unsafe { sys::is_culib_present() } {
        return Err(CudaError::NoDevice {
            reason: "the NVIDIA driver's library libcuda.so.1 is not installed".to_owned(),
        });
    }
    let mut version = 0;
    // SAFETY: the pointer is valid for the call.
    check("cuDriverGetVersion", unsafe {
        sys::cuDriverGetVersion(&mut version)
    })?;
    if version < DRIVER_VERSION_MIN {
        return Err(CudaError::NoDevice {
            reason: format!(
                "the driver supports CUDA {}, at least {} is needed (driver 580 or newer)",
                text(version),
                text(DRIVER_VERSION_MIN)
            ),
        });
    }
    // SAFETY: it has no arguments but the flags, which must be 0.
    check("cuInit", unsafe { sys::cuInit(0) }).map_err(|error| CudaError::NoDevice {
        reason: error.to_string(),
    })?;
    Ok(version)
}

/// `13.0` for 13000.
pub(super) fn text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}
