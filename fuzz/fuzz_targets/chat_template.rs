//! Chat templates, which render a conversation.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| runtime::fuzzing::chat_template(bytes));
