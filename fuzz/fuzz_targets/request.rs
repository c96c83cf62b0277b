//! Bodies of chat completions and completions, with a small model's tokenizer and template.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use runtime::chat_template::ChatTemplate;
use runtime::tokenizer::Tokenizer;

static MODEL: LazyLock<(Tokenizer, Option<ChatTemplate>)> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/models/tiny-trained");
    let tokenizer = Tokenizer::load(Path::new(folder)).expect("the shipped tokenizer loads");
    let template = ChatTemplate::choose(None, tokenizer.config()).expect("the shipped template compiles");
    (tokenizer, template)
});

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let (tokenizer, template) = &*MODEL;
    runtime::fuzzing::request(body, tokenizer, template.as_ref());
});
