//! The compiled kernels: one image for each file of kernels, loaded when a card is opened.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Mutex, PoisonError};

use cudarc::driver::sys::{self, CUresult};

use super::error::{self, CudaError, check};

/// An image of compiled kernels: machine code for several architectures, and PTX.
#[repr(C, align(64))]
pub(super) struct Image<Bytes: ?Sized>(pub(super) Bytes);

include!(concat!(env!("OUT_DIR"), "/images.rs"));

/// The loaded images, and the functions that were looked up.
#[derive(Default)]
pub(super) struct Modules {
    modules: Vec<sys::CUmodule>,
    functions: Mutex<HashMap<&'static str, Function>>,
}

/// A kernel of the device.
#[derive(Clone)]
pub(super) struct Function {
    pub(super) handle: sys::CUfunction,
    /// Bytes of each parameter.
    pub(super) sizes: std::sync::Arc<[usize]>,
    /// Dynamic shared memory that a block may have at present, in bytes.
    pub(super) shared_bytes: usize,
}

/// Dynamic shared memory that a kernel may have without asking for more.
const SHARED_BYTES_DEFAULT: usize = 48 << 10;

impl Modules {
    /// Loads every image into the current context.
    pub(super) fn load() -> Result<Modules, CudaError> {
        let mut modules = Modules::default();
        for (name, image) in IMAGES {
            let mut module = std::ptr::null_mut();
            // SAFETY: the image is a whole file of the compiler, or a text that the driver refuses.
            let status = unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) };
            if status != CUresult::CUDA_SUCCESS {
                return Err(CudaError::NoKernel {
                    kernel: format!("{name}.cu"),
                    status: error::name(status),
                });
            }
            modules.modules.push(module);
        }
        Ok(modules)
    }

    /// The kernel of this name, which may have `shared_bytes` of dynamic shared memory.
    pub(super) fn function(&self, name: &'static str, shared_bytes: usize) -> Result<Function, CudaError> {
        let mut functions = self.functions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut function = match functions.get(name) {
            Some(function) => function.clone(),
            None => self.find(name)?,
        };
        if shared_bytes > function.shared_bytes {
            // SAFETY: the handle belongs to a loaded module.
            check("cuFuncSetAttribute", unsafe {
                sys::cuFuncSetAttribute(
                    function.handle,
                    sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                    i32::try_from(shared_bytes).unwrap_or(i32::MAX),
                )
            })?;
            function.shared_bytes = shared_bytes;
        }
        functions.insert(name, function.clone());
        Ok(function)
    }

    fn find(&self, name: &'static str) -> Result<Function, CudaError> {
        let symbol = CString::new(name).unwrap_or_default();
        let mut status = CUresult::CUDA_ERROR_NOT_FOUND;
        for &module in &self.modules {
            let mut handle = std::ptr::null_mut();
            // SAFETY: the module is loaded, and the pointers are valid for the call.
            status = unsafe { sys::cuModuleGetFunction(&mut handle, module, symbol.as_ptr()) };
            match status {
                CUresult::CUDA_SUCCESS => {
                    return Ok(Function {
                        handle,
                        sizes: parameter_sizes(handle).into(),
                        shared_bytes: SHARED_BYTES_DEFAULT,
                    });
                }
                CUresult::CUDA_ERROR_NOT_FOUND => {}
                _ => break,
            }
        }
        Err(CudaError::NoKernel {
            kernel: name.to_owned(),
            status: error::name(status),
        })
    }

    /// Unloads the images; the context is current.
    pub(super) fn unload(&mut self) {
        for module in self.modules.drain(..) {
            // SAFETY: `load` has loaded it, and no work runs any more.
            let _ = unsafe { sys::cuModuleUnload(module) };
        }
    }
}

/// Bytes of each parameter of a kernel.
fn parameter_sizes(handle: sys::CUfunction) -> Vec<usize> {
    let size_of_parameter = |index| {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: the pointers are valid for the call; an index behind the last parameter is an error.
        let status = unsafe { sys::cuFuncGetParamInfo(handle, index, &mut offset, &mut size) };
        (status == CUresult::CUDA_SUCCESS).then_some(size)
    };
    (0..).map_while(size_of_parameter).collect()
}
