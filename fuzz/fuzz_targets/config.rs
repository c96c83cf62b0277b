//! A config.json and the tensors that it asks for.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runtime::fuzzing::config(bytes));
