//! A mark in the stream that the host can wait for.

use cudarc::driver::sys::{self, CUresult};

use super::error::{CudaError, check};
use super::gpu::Gpu;

/// A mark in the stream. A thread that waits for it sleeps.
pub struct Event {
    handle: sys::CUevent,
    gpu: Gpu,
}

// SAFETY: the driver's events may be used from any thread that has made the context current, which every call does.
unsafe impl Send for Event {}
// SAFETY: as above; the driver locks for itself.
unsafe impl Sync for Event {}

impl Gpu {
    /// An event that is not recorded yet: waiting for it returns at once.
    ///
    /// # Errors
    /// The driver fails.
    pub fn event(&self) -> Result<Event, CudaError> {
        self.bind()?;
        let flags = sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC as u32
            | sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as u32;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the pointer is valid for the call.
        check("cuEventCreate", unsafe { sys::cuEventCreate(&mut handle, flags) })?;
        Ok(Event {
            handle,
            gpu: self.clone(),
        })
    }

    /// Moves the event to the end of what is enqueued at present.
    ///
    /// # Errors
    /// The driver fails.
    pub fn record(&self, event: &Event) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: event and stream live as long as their owners.
        check("cuEventRecord", unsafe {
            sys::cuEventRecord(event.handle, self.shared.stream)
        })
    }
}

impl Event {
    /// Waits until everything in front of the event is done.
    ///
    /// # Errors
    /// Work in front of it has failed.
    pub fn wait(&self) -> Result<(), CudaError> {
        self.gpu.bind()?;
        // SAFETY: the event lives as long as `self`.
        check("cuEventSynchronize", unsafe {
            sys::cuEventSynchronize(self.handle)
        })
    }

    /// Whether everything in front of the event is done.
    ///
    /// # Errors
    /// Work in front of it has failed.
    pub fn is_done(&self) -> Result<bool, CudaError> {
        self.gpu.bind()?;
        // SAFETY: the event lives as long as `self`.
        match unsafe { sys::cuEventQuery(self.handle) } {
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            status => check("cuEventQuery", status).map(|()| true),
        }
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            // SAFETY: nobody else has the handle; the driver frees it when the work in front is done.
            let _ = unsafe { sys::cuEventDestroy_v2(self.handle) };
        }
    }
}
