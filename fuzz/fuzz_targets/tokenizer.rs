//! A tokenizer.json.

#![no_main]

// The caller of the tokenizers library catches its panics, but libFuzzer's hook would end the process before.
libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|_| ())), |file: &[u8]| runtime::fuzzing::tokenizer(file));
