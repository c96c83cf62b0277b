//! A device of the stand-in with the planted kernels, through the driver's own functions.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::Mutex;

use cudarc::driver::sys::{self, CUresult, CUtensorMap};
use kernels::cuda::testing::{self, Driver};

/// Devices of the stand-in that no test holds. A fault stays with its device until the test gives the device back.
static FREE: Mutex<Vec<i32>> = Mutex::new(Vec::new());
static MADE: Mutex<i32> = Mutex::new(0);

/// A device, a stream, and the library of planted kernels.
pub(crate) struct Card {
    ordinal: i32,
    context: sys::CUcontext,
    pub(crate) stream: sys::CUstream,
    module: sys::CUmodule,
    seed: i64,
    functions: RefCell<HashMap<String, sys::CUfunction>>,
}

/// How a kernel is launched.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) grid: u32,
    pub(crate) block: u32,
    pub(crate) shared: u32,
    pub(crate) overlaps: bool,
}

/// `grid` blocks of `block` threads.
pub(crate) fn shape(grid: u32, block: u32) -> Shape {
    Shape {
        grid,
        block,
        shared: 0,
        overlaps: false,
    }
}

impl Shape {
    pub(crate) fn shared(self, bytes: u32) -> Shape {
        Shape {
            shared: bytes,
            ..self
        }
    }
    pub(crate) fn overlapping(self) -> Shape {
        Shape {
            overlaps: true,
            ..self
        }
    }
}

/// An argument of a kernel.
#[derive(Clone, Copy)]
pub(crate) enum Arg {
    At(u64),
    Int(i32),
    Map(CUtensorMap),
}

impl Arg {
    fn pointer(&self) -> *mut c_void {
        let at: *const c_void = match self {
            Arg::At(value) => std::ptr::from_ref(value).cast(),
            Arg::Int(value) => std::ptr::from_ref(value).cast(),
            Arg::Map(value) => std::ptr::from_ref(value).cast(),
        };
        at.cast_mut()
    }
}

/// Panics with the driver's status.
fn ok(call: &str, status: CUresult) {
    assert_eq!(status, CUresult::CUDA_SUCCESS, "{call}");
}

/// Calls `test` under eight orders of blocks, warps and lanes. Prints why if there is no stand-in.
pub(crate) fn each_order(mut test: impl FnMut(&Card)) {
    for seed in 0..8 {
        let Some(card) = Card::open(seed) else { return };
        test(&card);
    }
}

impl Card {
    /// A device that no other test uses; `None`, and a line that says why, without a stand-in.
    pub(crate) fn open(seed: i64) -> Option<Card> {
        if testing::driver() != Some(Driver::StandIn) {
            testing::skip("no stand-in for the driver was built");
            return None;
        }
        let ordinal = FREE
            .lock()
            .expect("no test fails in here")
            .pop()
            .unwrap_or_else(|| {
                let mut made = MADE.lock().expect("no test fails in here");
                *made += 1;
                *made
            });
        let (mut context, mut stream, mut module) =
            (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        let folder = testing::standin().expect("the stand-in has a folder");
        let image = format!("standin-library:{}", folder.join("libplanted.so").display());
        let image = CString::new(image).expect("a path without zeros");
        // SAFETY: the pointers are valid for the calls, and the image is text that ends with zero.
        unsafe {
            ok("cuInit", sys::cuInit(0));
            ok(
                "cuDevicePrimaryCtxRetain",
                sys::cuDevicePrimaryCtxRetain(&mut context, ordinal),
            );
            ok("cuCtxSetCurrent", sys::cuCtxSetCurrent(context));
            ok("cuStreamCreate", sys::cuStreamCreate(&mut stream, 1));
            ok(
                "cuModuleLoadData",
                sys::cuModuleLoadData(&mut module, image.as_ptr().cast()),
            );
        }
        let card = Card {
            ordinal,
            context,
            stream,
            module,
            seed,
            functions: RefCell::default(),
        };
        card.set("seed", seed);
        card.set("capability", 90);
        Some(card)
    }

    /// Makes the device current on this thread: another card of the test may have been.
    fn bind(&self) {
        // SAFETY: the context is retained until `drop`.
        ok("cuCtxSetCurrent", unsafe { sys::cuCtxSetCurrent(self.context) });
    }

    pub(crate) fn seed(&self) -> i64 {
        self.seed
    }

    /// Memory with these values.
    pub(crate) fn upload<T: bytemuck::Pod>(&self, values: &[T]) -> u64 {
        let at = self.room::<T>(values.len());
        self.write(at, values);
        at
    }

    pub(crate) fn write<T: bytemuck::Pod>(&self, at: u64, values: &[T]) {
        // SAFETY: the driver copies the values during the call.
        ok("cuMemcpyHtoDAsync", unsafe {
            sys::cuMemcpyHtoDAsync_v2(at, values.as_ptr().cast(), size_of_val(values), self.stream)
        });
    }

    /// Unset memory for `len` values.
    pub(crate) fn room<T>(&self, len: usize) -> u64 {
        self.bind();
        let mut at = 0;
        // SAFETY: the pointer is valid for the call.
        ok("cuMemAlloc", unsafe {
            sys::cuMemAlloc_v2(&mut at, len * size_of::<T>())
        });
        at
    }

    pub(crate) fn free(&self, at: u64) {
        // SAFETY: the driver checks the address.
        ok("cuMemFree", unsafe { sys::cuMemFree_v2(at) });
    }

    /// The values at an address, after all work before; or the error of that work.
    pub(crate) fn read<T: bytemuck::Pod>(&self, at: u64, len: usize) -> Result<Vec<T>, CUresult> {
        let mut values = vec![T::zeroed(); len];
        // SAFETY: the vector has room for the bytes, and the call waits.
        let status = unsafe {
            sys::cuMemcpyDtoHAsync_v2(
                values.as_mut_ptr().cast(),
                at,
                size_of_val(&values[..]),
                self.stream,
            )
        };
        if status == CUresult::CUDA_SUCCESS {
            Ok(values)
        } else {
            Err(status)
        }
    }

    /// Waits for all work.
    pub(crate) fn wait(&self) -> CUresult {
        // SAFETY: the stream lives as long as `self`.
        unsafe { sys::cuStreamSynchronize(self.stream) }
    }

    /// A kernel by its name. It cannot be looked up while a stream captures: do it before.
    pub(crate) fn function(&self, kernel: &str) -> sys::CUfunction {
        self.bind();
        if let Some(function) = self.functions.borrow().get(kernel) {
            return *function;
        }
        let name = CString::new(kernel).expect("a name without zeros");
        let mut function = std::ptr::null_mut();
        // SAFETY: the module is loaded, and the pointers are valid for the call.
        ok(kernel, unsafe {
            sys::cuModuleGetFunction(&mut function, self.module, name.as_ptr())
        });
        self.functions.borrow_mut().insert(kernel.to_owned(), function);
        function
    }

    /// Enqueues a kernel.
    pub(crate) fn launch(&self, kernel: &str, shape: Shape, args: &[Arg]) -> CUresult {
        let function = self.function(kernel);
        let mut attribute = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue {
                programmaticStreamSerializationAllowed: 1,
            },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: shape.grid,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: shape.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: shape.shared,
            hStream: self.stream,
            attrs: &mut attribute,
            numAttrs: u32::from(shape.overlaps),
        };
        let mut pointers: Vec<*mut c_void> = args.iter().map(Arg::pointer).collect();
        // SAFETY: the tests give each kernel of the library the arguments that it declares.
        unsafe { sys::cuLaunchKernelEx(&config, function, pointers.as_mut_ptr(), std::ptr::null_mut()) }
    }

    /// Enqueues a kernel that the driver takes.
    pub(crate) fn run(&self, kernel: &str, shape: Shape, args: &[Arg]) {
        ok(kernel, self.launch(kernel, shape, args));
    }

    pub(crate) fn set(&self, setting: &str, value: i64) {
        type Set = unsafe extern "C" fn(i32, *const c_char, i64) -> i32;
        let name = CString::new(setting).expect("a name without zeros");
        let library = testing_library();
        // SAFETY: the stand-in declares the function with this type.
        let status = unsafe {
            let set = library.get::<Set>(b"standin_set\0").expect("the stand-in has it");
            set(self.ordinal, name.as_ptr(), value)
        };
        assert_eq!(status, 0, "{setting}");
    }

    pub(crate) fn get(&self, name: &str) -> i64 {
        type Get = unsafe extern "C" fn(i32, *const c_char) -> i64;
        let name = CString::new(name).expect("a name without zeros");
        let library = testing_library();
        // SAFETY: the stand-in declares the function with this type.
        unsafe {
            let get = library.get::<Get>(b"standin_get\0").expect("the stand-in has it");
            get(self.ordinal, name.as_ptr())
        }
    }

    /// What the stand-in said of the last fault of this device.
    pub(crate) fn fault(&self) -> String {
        type Fault = unsafe extern "C" fn(i32) -> *const c_char;
        let library = testing_library();
        // SAFETY: the stand-in declares the function with this type, and the text stays until the next fault.
        unsafe {
            let fault = library
                .get::<Fault>(b"standin_last_fault\0")
                .expect("the stand-in has it");
            CStr::from_ptr(fault(self.ordinal)).to_string_lossy().into_owned()
        }
    }
}

/// The stand-in's library, which is loaded already.
fn testing_library() -> libloading::Library {
    let folder = testing::standin().expect("the stand-in has a folder");
    // SAFETY: it is loaded, so nothing runs.
    unsafe { libloading::Library::new(folder.join("libcuda.so.1")) }.expect("the stand-in can be loaded")
}

impl Drop for Card {
    fn drop(&mut self) {
        // SAFETY: `open` has made them. After a fault some calls fail; the release resets the device.
        unsafe {
            let _ = sys::cuCtxSetCurrent(self.context);
            let _ = sys::cuStreamDestroy_v2(self.stream);
            let _ = sys::cuDevicePrimaryCtxRelease_v2(self.ordinal);
        }
        if let Ok(mut free) = FREE.lock() {
            free.push(self.ordinal);
        }
    }
}
