//! Where the tests of the kernels run: on the stand-in for the driver that the build has made, else on a card.

use std::ffi::{CString, c_char};
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::buffer::DeviceBuffer;
use super::driver::load_driver;
use super::element::Element;
use super::gpu::Gpu;
use super::view::View;

/// Orders of blocks and warps under which a kernel is tested.
const N_ORDERS: u32 = 8;

/// The driver that tests use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The stand-in, which runs kernels on the CPU.
    StandIn,
    /// The system's, with a card.
    Card,
}

/// Calls `test` with a device; on the stand-in once for each of several orders in which blocks and warps run.
///
/// Without any device it prints that the test is skipped, and why.
pub fn each_order(mut test: impl FnMut(&Gpu)) {
    let n_orders = match driver() {
        Some(Driver::StandIn) => N_ORDERS,
        _ => 1,
    };
    for seed in 0..n_orders {
        let Some(gpu) = gpu(seed) else { return };
        test(&gpu);
    }
}

/// A device; on the stand-in, blocks and warps run in the order of `seed`. `None`, and a line that says why, if there is
/// none.
///
/// # Panics
/// There is one, and it cannot be opened.
pub fn gpu(seed: u32) -> Option<Gpu> {
    if driver().is_none() {
        let reason = Gpu::unavailable().unwrap_or_default();
        skip(&format!("no stand-in for the driver was built, and {reason}"));
        return None;
    }
    if driver() == Some(Driver::StandIn) {
        set("seed", seed.into());
    }
    Some(Gpu::open(0).expect("the device of the tests opens"))
}

/// Says why a test cannot run here. `make test` counts these lines, so the harness must not keep them to itself, as it
/// does with what `println!` prints.
pub fn skip(reason: &str) {
    let _ = writeln!(std::io::stdout(), "\nskipped: {reason}");
}

/// The driver that tests use; the first call loads it.
pub fn driver() -> Option<Driver> {
    static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
    *DRIVER.get_or_init(|| {
        if let Some(folder) = standin() {
            for library in [STANDIN, STANDIN_LT] {
                load_driver(&folder.join(library)).expect("the stand-in can be loaded");
            }
            assert_ne!(Gpu::count(), Ok(0), "the stand-in has a device");
            return Some(Driver::StandIn);
        }
        matches!(Gpu::count(), Ok(1..)).then_some(Driver::Card)
    })
}

/// The stand-in's file; its name inside is `libcuda.so`, so that it is found before any other.
const STANDIN: &str = "libcuda.so.1";

/// The file of the stand-in for cuBLASLt.
const STANDIN_LT: &str = "libcublasLt.so.13";

/// The folder of the stand-in, which is beside the folder of the program that runs the test.
pub fn standin() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folders = program.ancestors().skip(1);
    folders
        .map(|folder| folder.join("cuda/standin"))
        .find(|folder| folder.join(STANDIN).exists())
}

/// Changes a setting of the stand-in's first device; its README lists them.
///
/// # Panics
/// The stand-in is not in use, or has no such setting.
pub fn set(setting: &str, value: i64) {
    type Set = unsafe extern "C" fn(i32, *const c_char, i64) -> i32;
    let name = CString::new(setting).expect("a name of a setting");
    let library = library();
    // SAFETY: the stand-in declares the function with this type, and reads the name during the call.
    let status = unsafe {
        let set = library.get::<Set>(b"standin_set\0");
        set.expect("the stand-in has the function")(0, name.as_ptr(), value)
    };
    assert_eq!(status, 0, "the stand-in has no setting {setting}");
}

/// A setting or a counter of the stand-in's first device.
///
/// # Panics
/// The stand-in is not in use, or has no such value.
pub fn get(name: &str) -> i64 {
    type Get = unsafe extern "C" fn(i32, *const c_char) -> i64;
    let symbol = CString::new(name).expect("a name of a value");
    let library = library();
    // SAFETY: the stand-in declares the function with this type, and reads the name during the call.
    let value = unsafe {
        let get = library.get::<Get>(b"standin_get\0");
        get.expect("the stand-in has the function")(0, symbol.as_ptr())
    };
    assert!(value >= 0, "the stand-in has no value {name}");
    value
}

/// The stand-in's library, which is loaded already.
fn library() -> libloading::Library {
    assert_eq!(driver(), Some(Driver::StandIn), "the stand-in is not in use");
    let folder = standin().expect("it was found before");
    // SAFETY: it is the library that `driver` has loaded; its initialisers have run.
    unsafe { libloading::Library::new(folder.join(STANDIN)) }.expect("the stand-in can be loaded")
}

/// A copy of `values` on the device.
///
/// # Panics
/// The device fails.
pub fn uploaded<T: Element>(gpu: &Gpu, values: &[T]) -> DeviceBuffer<T> {
    let buffer = gpu.alloc(values.len()).expect("the device has memory");
    gpu.upload(values, buffer.view()).expect("the device copies");
    buffer
}

/// A copy of what is on the device.
///
/// # Panics
/// The device fails.
pub fn downloaded<T: Element>(gpu: &Gpu, view: View<T>) -> Vec<T> {
    let mut values = vec![T::zeroed(); view.len()];
    gpu.download(view, &mut values).expect("the device copies");
    values
}
