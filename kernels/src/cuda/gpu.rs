//! One card: its context, its stream and what it can do.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use cudarc::driver::sys;
use sys::CUdevice_attribute as Attribute;

use super::driver;
use super::error::{CudaError, check};
use super::module::Modules;

/// A card that this process uses: a context, one stream and the kernels. Clones share them.
#[derive(Clone)]
pub struct Gpu {
    pub(super) shared: Arc<Shared>,
}

/// What the clones of a [`Gpu`] share.
pub(super) struct Shared {
    device: sys::CUdevice,
    pub(super) context: sys::CUcontext,
    pub(super) stream: sys::CUstream,
    pub(super) modules: Modules,
    info: Info,
    /// Allocations of memory so far, on the device and pinned.
    pub(super) n_allocations: AtomicUsize,
    /// Whether calls are recorded into a graph at present.
    pub(super) is_capturing: AtomicBool,
}

/// What does not change while a card is in use.
struct Info {
    name: String,
    capability: (u32, u32),
    n_sms: usize,
    shared_bytes_max: usize,
    total_memory: usize,
    driver_version: String,
}

// SAFETY: the driver's handles may be used from any thread that has made the context current, which every call does.
unsafe impl Send for Shared {}
// SAFETY: as above; the driver locks for itself.
unsafe impl Sync for Shared {}

impl Gpu {
    /// Cards of this machine; 0 where there is no driver.
    ///
    /// # Errors
    /// The driver is there and fails.
    pub fn count() -> Result<usize, CudaError> {
        match driver::ready() {
            Err(CudaError::NoDevice { .. }) => return Ok(0),
            ready => ready?,
        };
        let mut count = 0;
        // SAFETY: the pointer is valid for the call.
        check("cuDeviceGetCount", unsafe { sys::cuDeviceGetCount(&mut count) })?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// Why this machine has no card that can be used; `None` if it has one.
    pub fn unavailable() -> Option<String> {
        match driver::ready().and_then(|_| Gpu::count()) {
            Ok(0) => Some("the driver finds no card".to_owned()),
            Ok(_) => None,
            Err(CudaError::NoDevice { reason }) => Some(reason),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Opens a card.
    ///
    /// # Errors
    /// There is no such card, or the driver fails.
    pub fn open(ordinal: usize) -> Result<Gpu, CudaError> {
        let version = driver::ready()?;
        let count = Gpu::count()?;
        if ordinal >= count {
            return Err(CudaError::NoDevice {
                reason: format!("device {ordinal} was requested, this machine has {count}"),
            });
        }
        let mut device = 0;
        // SAFETY: the pointer is valid for the call.
        check("cuDeviceGet", unsafe {
            sys::cuDeviceGet(&mut device, ordinal as i32)
        })?;
        let (context, stream) = open_context(device)?;
        let mut shared = Shared {
            device,
            context,
            stream,
            modules: Modules::default(),
            info: info(device, version)?,
            n_allocations: AtomicUsize::new(0),
            is_capturing: AtomicBool::new(false),
        };
        shared.modules = Modules::load()?;
        Ok(Gpu {
            shared: Arc::new(shared),
        })
    }

    /// Its name, such as `NVIDIA H200`.
    pub fn name(&self) -> &str {
        &self.shared.info.name
    }

    /// Compute capability: `(9, 0)` for Hopper.
    pub fn capability(&self) -> (u32, u32) {
        self.shared.info.capability
    }

    /// Multiprocessors.
    pub fn n_sms(&self) -> usize {
        self.shared.info.n_sms
    }

    /// Most dynamic shared memory that a block may have, in bytes.
    pub fn shared_bytes_max(&self) -> usize {
        self.shared.info.shared_bytes_max
    }

    /// Its memory in bytes.
    pub fn total_memory(&self) -> usize {
        self.shared.info.total_memory
    }

    /// Newest version of CUDA that its driver supports, such as `13.0`.
    pub fn driver_version(&self) -> &str {
        &self.shared.info.driver_version
    }

    /// Memory that is free at present, in bytes.
    ///
    /// # Errors
    /// The driver fails.
    pub fn free_memory(&self) -> Result<usize, CudaError> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the pointers are valid for the call.
        check("cuMemGetInfo", unsafe {
            sys::cuMemGetInfo_v2(&mut free, &mut total)
        })?;
        Ok(free)
    }

    /// Allocations so far. It stays the same while the engine serves.
    pub fn n_allocations(&self) -> usize {
        self.shared.n_allocations.load(Ordering::Relaxed)
    }

    /// Waits until everything that was enqueued is done.
    ///
    /// # Errors
    /// Work that was enqueued has failed.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: the stream lives as long as `self`.
        check("cuStreamSynchronize", unsafe {
            sys::cuStreamSynchronize(self.shared.stream)
        })
    }

    /// Makes the context current on this thread.
    pub(super) fn bind(&self) -> Result<(), CudaError> {
        self.shared.bind()
    }
}

impl Shared {
    fn bind(&self) -> Result<(), CudaError> {
        // SAFETY: the context is retained until `drop`.
        check("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.context) })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A lost device reports errors here again; its memory goes with the process.
        if self.bind().is_err() {
            return;
        }
        // SAFETY: stream and context were made by `open_context`, and nobody else has them. No kernel runs when the
        // modules go.
        unsafe {
            let _ = sys::cuStreamSynchronize(self.stream);
            self.modules.unload();
            let _ = sys::cuStreamDestroy_v2(self.stream);
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.device);
        }
    }
}

/// The card's primary context, whose waits block instead of spinning, and a stream in it.
fn open_context(device: sys::CUdevice) -> Result<(sys::CUcontext, sys::CUstream), CudaError> {
    let flags = sys::CUctx_flags::CU_CTX_SCHED_BLOCKING_SYNC as u32;
    let (mut context, mut stream) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the pointers are valid for the calls, and the device exists.
    unsafe {
        check(
            "cuDevicePrimaryCtxSetFlags",
            sys::cuDevicePrimaryCtxSetFlags_v2(device, flags),
        )?;
        check(
            "cuDevicePrimaryCtxRetain",
            sys::cuDevicePrimaryCtxRetain(&mut context, device),
        )?;
        check("cuCtxSetCurrent", sys::cuCtxSetCurrent(context))?;
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        check("cuStreamCreate", sys::cuStreamCreate(&mut stream, flags))?;
    }
    Ok((context, stream))
}

fn info(device: sys::CUdevice, version: i32) -> Result<Info, CudaError> {
    let mut name = [0; 128];
    let mut total_memory = 0;
    // SAFETY: the pointers are valid for the calls, and the name's length is given.
    unsafe {
        check(
            "cuDeviceGetName",
            sys::cuDeviceGetName(name.as_mut_ptr(), name.len() as i32, device),
        )?;
        check(
            "cuDeviceTotalMem",
            sys::cuDeviceTotalMem_v2(&mut total_memory, device),
        )?;
    }
    // SAFETY: the driver has written a string that ends with zero, and the array is zero behind it.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }
        .to_string_lossy()
        .into_owned();
    let of = |attribute| attribute_of(device, attribute);
    Ok(Info {
        name,
        capability: (
            of(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as u32,
            of(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as u32,
        ),
        n_sms: of(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_bytes_max: of(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        total_memory,
        driver_version: driver::text(version),
    })
}

fn attribute_of(device: sys::CUdevice, attribute: Attribute) -> Result<usize, CudaError> {
    let mut value = 0;
    // SAFETY: the pointer is valid for the call.
    check("cuDeviceGetAttribute", unsafe {
        sys::cuDeviceGetAttribute(&mut value, attribute, device)
    })?;
    Ok(usize::try_from(value).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    #[test]
    fn a_card_says_what_it_is() {
        let Some(gpu) = testing::gpu(0) else {
            assert!(Gpu::unavailable().is_some());
            return;
        };
        assert!(Gpu::count().unwrap() > 0 && Gpu::unavailable().is_none());
        assert!(!gpu.name().is_empty() && gpu.n_sms() > 0 && gpu.capability() >= (8, 0));
        assert!(gpu.shared_bytes_max() >= 96 << 10);
        assert!(gpu.driver_version().starts_with("1"));
        assert!(gpu.free_memory().unwrap() <= gpu.total_memory());
        assert!(matches!(Gpu::open(1000), Err(CudaError::NoDevice { .. })));
    }

    #[test]
    fn allocations_are_counted() {
        let Some(gpu) = testing::gpu(0) else { return };
        let before = gpu.n_allocations();
        let buffer = gpu.alloc::<f32>(5).unwrap();
        let _pinned = gpu.alloc_pinned::<f32>(5).unwrap();
        let _empty = gpu.alloc::<f32>(0).unwrap();
        gpu.fill(buffer.view(), 0).unwrap();
        assert_eq!(gpu.n_allocations(), before + 2);
        assert_eq!((buffer.len(), buffer.view().len()), (5, 5));
    }

    #[test]
    fn an_event_follows_the_work_in_front_of_it() {
        testing::each_order(|gpu| {
            let event = gpu.event().unwrap();
            assert!(event.is_done().unwrap());
            let buffer = gpu.alloc::<f32>(100).unwrap();
            gpu.fill(buffer.view(), 1).unwrap();
            gpu.record(&event).unwrap();
            event.wait().unwrap();
            assert!(event.is_done().unwrap());
        });
    }
}
