//! A config.json, and the tensors that it requires.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runtime::fuzzing::config(bytes));
