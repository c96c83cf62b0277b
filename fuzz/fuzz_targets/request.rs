//! Bodies of chat completions, completions, embeddings and scores, checked against a small model's tokenizer and template.

#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use runtime::chat_template::ChatTemplate;
use runtime::model::Task;
use runtime::request::{Defaults, Rules, chat, completion, embeddings, scores};
use runtime::tokenizer::Tokenizer;

static MODEL: LazyLock<(Tokenizer, Option<ChatTemplate>, Defaults)> = LazyLock::new(|| {
    let folder = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/models/tiny-trained"
    ));
    let tokenizer = Tokenizer::load(folder).expect("the shipped tokenizer loads");
    let template = ChatTemplate::choose(None, tokenizer.config()).expect("the shipped template compiles");
    (
        tokenizer,
        template,
        Defaults::load(folder).expect("the shipped defaults load"),
    )
});

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    let (tokenizer, template, defaults) = &*MODEL;
    let rules = Rules {
        served: &["m".to_owned()],
        task: Task::Generate,
        embedding_size: 64,
        max_logprobs: 20,
        max_model_len: 256,
        defaults,
        template: template.as_ref(),
    };
    for prepared in [chat(body, &rules, tokenizer), completion(body, &rules, tokenizer)] {
        if let Ok(prepared) = prepared {
            assert!(prepared.prompts.iter().all(|prompt| prompt.ids.len() <= 256));
        }
    }
    let embeds = Rules {
        task: Task::Embed { normalises: true },
        ..rules
    };
    let pairs = Rules {
        task: Task::Score { n_labels: 1 },
        ..rules
    };
    let _ = embeddings(body, &embeds, tokenizer);
    let _ = scores(body, &pairs, tokenizer);
});
