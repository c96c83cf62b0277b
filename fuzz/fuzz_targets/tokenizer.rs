//! A tokenizer.json.

#![no_main]

// Panics of the tokenizers library are caught where it is called; libFuzzer's hook would end the process before.
libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|_| ())), |file: &[u8]| runtime::fuzzing::tokenizer(file));
