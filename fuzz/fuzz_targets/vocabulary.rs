//! Vocabularies of sentencepiece and tiktoken.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runtime::fuzzing::vocabulary(bytes));
