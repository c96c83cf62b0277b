//! Compiles the CUDA kernels, and the stand-in for the driver that the tests run them on. The work is in `cuda/build.py`.

use std::env;
use std::path::PathBuf;
use std::process::{Command, exit};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_CUDA").is_none() {
        return;
    }
    for input in ["cuda", "standin", "src"] {
        println!("cargo::rerun-if-changed={input}");
    }
    for variable in ["SLIPWAY_CUDA_TARGETS", "PYTHON"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let python = env::var("PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let status = Command::new(&python).arg("cuda/build.py").arg(&out).status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => {
            println!(
                "cargo::error=cuda/build.py ended with {status}; SLIPWAY_CUDA_TARGETS=none needs no compiler for CUDA, --no-default-features no CUDA at all"
            );
            exit(1);
        }
        Err(error) => {
            println!("cargo::error=cannot run {python} (set PYTHON): {error}");
            exit(1);
        }
    }
}
