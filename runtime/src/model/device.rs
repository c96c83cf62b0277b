//! What computes a model: the processor, or a CUDA card.

use std::fmt;

#[cfg(feature = "cuda")]
use kernels::cuda::Gpu;

use super::error::ModelError;

/// What computes a model.
#[derive(Clone, Default)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// A CUDA card.
    #[cfg(feature = "cuda")]
    Cuda(Gpu),
}

impl Device {
    /// The first CUDA card of this machine.
    ///
    /// # Errors
    /// [`ModelError::NoDevice`] if there is none that can be used.
    #[cfg(feature = "cuda")]
    pub fn cuda() -> Result<Device, ModelError> {
        if let Some(reason) = Gpu::unavailable() {
            return Err(ModelError::NoDevice { reason });
        }
        match Gpu::open(0) {
            Ok(gpu) => Ok(Device::Cuda(gpu)),
            Err(error) => Err(ModelError::NoDevice {
                reason: error.to_string(),
            }),
        }
    }

    /// The first CUDA card of this machine.
    ///
    /// # Errors
    /// [`ModelError::NoDevice`], always: this program was built without CUDA.
    #[cfg(not(feature = "cuda"))]
    pub fn cuda() -> Result<Device, ModelError> {
        Err(ModelError::NoDevice {
            reason: "this program was built without CUDA".to_owned(),
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("CPU"),
            #[cfg(feature = "cuda")]
            Device::Cuda(gpu) => {
                let (major, minor) = gpu.capability();
                write!(f, "{} (compute capability {major}.{minor})", gpu.name())
            }
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
