//! Launches of kernels, with their arguments checked against what the kernel takes.

use std::ffi::c_void;

use cudarc::driver::sys::{self, CUresult};

use super::element::Element;
use super::error::{self, CudaError, check};
use super::gpu::Gpu;
use super::module::Function;
use super::view::View;

/// How a kernel is launched.
#[derive(Clone, Copy, Debug)]
pub struct Launch {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: usize,
    /// When it may begin.
    pub overlap: Overlap,
}

/// When a kernel may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// After all earlier work.
    None,
    /// As soon as the kernel before it allows it: it waits for the other's results itself (programmatic dependent
    /// launch).
    Previous,
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a> {
    /// A pointer to the device's memory; 0 is the null pointer.
    Address(u64),
    /// `int`
    I32(i32),
    /// `unsigned`
    U32(u32),
    /// `unsigned long long`
    U64(u64),
    /// `float`
    F32(f32),
    /// A tensor map or another structure that is passed by value.
    Bytes(&'a [u8]),
}

impl Arg<'_> {
    /// An `int` that holds a size.
    ///
    /// # Panics
    /// The size is above 2³¹ - 1: no buffer of a device that an op checks has so many rows or columns.
    pub fn size(size: usize) -> Arg<'static> {
        Arg::I32(i32::try_from(size).expect("a size of a kernel fits in 31 bits"))
    }

    /// A pointer to the view, or the null pointer.
    pub fn optional<T: Element>(view: Option<View<T>>) -> Arg<'static> {
        Arg::Address(view.map_or(0, View::address))
    }

    fn size_bytes(&self) -> usize {
        match self {
            Arg::I32(_) | Arg::U32(_) | Arg::F32(_) => 4,
            Arg::Address(_) | Arg::U64(_) => 8,
            Arg::Bytes(bytes) => bytes.len(),
        }
    }

    /// Where the driver reads its value.
    fn pointer(&self) -> *mut c_void {
        let at: *const c_void = match self {
            Arg::I32(value) => std::ptr::from_ref(value).cast(),
            Arg::U32(value) => std::ptr::from_ref(value).cast(),
            Arg::F32(value) => std::ptr::from_ref(value).cast(),
            Arg::Address(value) | Arg::U64(value) => std::ptr::from_ref(value).cast(),
            Arg::Bytes(bytes) => bytes.as_ptr().cast(),
        };
        at.cast_mut()
    }
}

impl<T: Element> From<View<T>> for Arg<'static> {
    fn from(view: View<T>) -> Arg<'static> {
        Arg::Address(view.address())
    }
}

/// Most parameters that a kernel may have.
const N_ARGS_MAX: usize = 48;

impl Gpu {
    /// Enqueues a kernel.
    ///
    /// # Errors
    /// There is no such kernel, its parameters are others, or the driver refuses the sizes.
    pub fn launch(&self, launch: &Launch, args: &[Arg<'_>]) -> Result<(), CudaError> {
        self.bind()?;
        let function = self
            .shared
            .modules
            .function(launch.kernel, launch.shared_bytes)
            .map_err(|error| launch_error(launch, error))?;
        check_args(launch.kernel, &function, args)?;
        let mut pointers = [std::ptr::null_mut(); N_ARGS_MAX];
        for (pointer, arg) in pointers.iter_mut().zip(args) {
            *pointer = arg.pointer();
        }
        let mut overlap = programmatic();
        let config = sys::CUlaunchConfig {
            gridDimX: launch.grid[0],
            gridDimY: launch.grid[1],
            gridDimZ: launch.grid[2],
            blockDimX: launch.block,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: u32::try_from(launch.shared_bytes).unwrap_or(u32::MAX),
            hStream: self.shared.stream,
            attrs: &mut overlap,
            // Drivers refuse the attribute on cards before Hopper, whose kernels never overlap.
            numAttrs: u32::from(launch.overlap == Overlap::Previous && self.capability().0 >= 9),
        };
        // SAFETY: every parameter has a pointer to a value of its size, which `check_args` has compared.
        let status = unsafe {
            sys::cuLaunchKernelEx(
                &config,
                function.handle,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        match status {
            CUresult::CUDA_SUCCESS => Ok(()),
            status if error::is_lost(status) || status == CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
                check("cuLaunchKernelEx", status)
            }
            status => Err(failed(launch, error::name(status))),
        }
    }

    /// Blocks of a kernel that one multiprocessor runs at the same time.
    ///
    /// # Errors
    /// There is no such kernel, or the driver refuses the sizes.
    pub fn blocks_per_sm(&self, launch: &Launch) -> Result<usize, CudaError> {
        self.bind()?;
        let function = self.shared.modules.function(launch.kernel, launch.shared_bytes)?;
        let mut n_blocks = 0;
        // SAFETY: the handle belongs to a loaded module, and the pointer is valid for the call.
        check("cuOccupancyMaxActiveBlocksPerMultiprocessor", unsafe {
            sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(
                &mut n_blocks,
                function.handle,
                launch.block as i32,
                launch.shared_bytes,
            )
        })?;
        Ok(usize::try_from(n_blocks).unwrap_or(0))
    }
}

/// Compares the arguments with the parameters of the kernel.
fn check_args(kernel: &'static str, function: &Function, args: &[Arg<'_>]) -> Result<(), CudaError> {
    let n_parameters = function.sizes.len();
    let wrong = |index, problem| {
        Err(CudaError::Argument {
            kernel,
            index,
            problem,
        })
    };
    if args.len() != n_parameters || args.len() > N_ARGS_MAX {
        let problem = format!("is the end of the list, the kernel takes {n_parameters}");
        return wrong(args.len(), problem);
    }
    for (index, (arg, &size)) in args.iter().zip(function.sizes.iter()).enumerate() {
        if arg.size_bytes() != size {
            let problem = format!("is {arg:?}, the kernel takes {size} bytes");
            return wrong(index, problem);
        }
    }
    Ok(())
}

/// The attribute of a launch that may begin before the kernel in front of it has ended.
fn programmatic() -> sys::CUlaunchAttribute {
    sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue {
            programmaticStreamSerializationAllowed: 1,
        },
    }
}

fn failed(launch: &Launch, status: String) -> CudaError {
    CudaError::Launch {
        kernel: launch.kernel,
        grid: launch.grid,
        block: launch.block,
        shared_bytes: launch.shared_bytes,
        status,
    }
}

/// A function that cannot have its shared memory cannot be launched.
fn launch_error(launch: &Launch, error: CudaError) -> CudaError {
    match error {
        CudaError::Driver { status, .. } => failed(launch, status),
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;
    use super::*;

    /// A kernel of the program: `add(float* x, const float* y, unsigned n, float scale)`.
    const ADD: Launch = Launch {
        kernel: "add",
        grid: [2, 1, 1],
        block: 256,
        shared_bytes: 0,
        overlap: Overlap::None,
    };

    #[test]
    fn arguments_are_compared_with_the_kernel() {
        testing::each_order(|gpu| {
            let (x, y) = (gpu.alloc_zeroed::<f32>(100).unwrap(), gpu.alloc(100).unwrap());
            gpu.upload(&[1.5; 100], y.view()).unwrap();
            let pointers = [Arg::from(x.view()), Arg::from(y.view())];
            let args = [pointers[0], pointers[1], Arg::U32(100), Arg::F32(2.0)];
            gpu.launch(&ADD, &args).unwrap();
            let mut got = [0.0; 100];
            gpu.download(x.view(), &mut got).unwrap();
            assert_eq!(got, [3.0; 100]);
            let of = |args: &[Arg<'_>]| gpu.launch(&ADD, args).unwrap_err().to_string();
            assert_eq!(
                of(&args[..3]),
                "add: argument 3 is the end of the list, the kernel takes 4"
            );
            let wide = [pointers[0], pointers[1], Arg::U64(100), Arg::F32(2.0)];
            assert_eq!(of(&wide), "add: argument 2 is U64(100), the kernel takes 4 bytes");
        });
    }

    #[test]
    fn a_launch_that_cannot_be_names_its_sizes() {
        let Some(gpu) = testing::gpu(0) else { return };
        let x = gpu.alloc_zeroed::<f32>(4).unwrap();
        let args = [
            Arg::from(x.view()),
            Arg::from(x.view()),
            Arg::U32(4),
            Arg::F32(0.0),
        ];
        let wide = Launch { block: 512, ..ADD };
        let greedy = Launch {
            shared_bytes: gpu.shared_bytes_max() + 1,
            ..ADD
        };
        for launch in [wide, greedy] {
            let error = gpu.launch(&launch, &args).unwrap_err();
            assert!(
                matches!(error, CudaError::Launch { kernel: "add", .. }),
                "{error}"
            );
        }
        let absent = Launch {
            kernel: "no_such_kernel",
            ..ADD
        };
        assert!(matches!(
            gpu.launch(&absent, &args),
            Err(CudaError::NoKernel { .. })
        ));
        gpu.launch(&ADD, &args).unwrap();
        gpu.synchronize().unwrap();
    }
}
