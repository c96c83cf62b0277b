//! Where the tests of the kernels run: on the stand-in for the driver that the build has made, else on a card.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::driver::load_driver;
use super::gpu::Gpu;

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
        println!("skipped: no stand-in for the driver was built, and {reason}");
        return None;
    }
    set_seed(seed);
    Some(Gpu::open(0).expect("the device of the tests opens"))
}

/// The driver that tests use; the first call loads it.
pub fn driver() -> Option<Driver> {
    static DRIVER: OnceLock<Option<Driver>> = OnceLock::new();
    *DRIVER.get_or_init(|| {
        if let Some(folder) = standin() {
            load_driver(&folder.join(STANDIN)).expect("the stand-in can be loaded");
            return Some(Driver::StandIn);
        }
        matches!(Gpu::count(), Ok(1..)).then_some(Driver::Card)
    })
}

/// The stand-in's file; its name inside is `libcuda.so`, so that it is found before any other.
const STANDIN: &str = "libcuda.so.1";

/// The folder of the stand-in, which is beside the folder of the program that runs the test.
pub fn standin() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folders = program.ancestors().skip(1);
    folders
        .map(|folder| folder.join("cuda/standin"))
        .find(|folder| folder.join(STANDIN).exists())
}

/// Sets the order of blocks and warps of the stand-in.
fn set_seed(seed: u32) {
    let Some(folder) = standin() else { return };
    // SAFETY: the library is loaded already, so this finds the same one.
    let library = unsafe { libloading::Library::new(folder.join(STANDIN)) };
    let library = library.expect("the stand-in can be loaded");
    // SAFETY: the stand-in declares the function with this type.
    unsafe {
        let set = library.get::<unsafe extern "C" fn(u32)>(b"standin_set_seed\0");
        set.expect("the stand-in has the function")(seed);
    }
}
