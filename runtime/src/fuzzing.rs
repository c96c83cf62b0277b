//! What the fuzz targets call: every reader of a stranger's bytes, with what must hold of its answer.
//!
//! Part of the library so that tests run the same functions over inputs that once broke them; no API.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, json};

use crate::api::request::{Defaults, Rules, chat, completion};
use crate::chat_template::{ChatTemplate, Conversation, Ending};
use crate::config::ServedNames;
use crate::grammar::GrammarError;
use crate::model::Lengths;
use crate::model::Task;
pub use crate::model::fuzzing::{config, pickle, safetensors};
use crate::preparation::Budget;
use crate::tokenizer::{AddedToken, Begin, Special, Tokenizer, TokenizerConfig};

/// Loads a `tokenizer.json` and encodes and decodes with it.
pub fn tokenizer(file: &[u8]) {
    let path = Path::new("tokenizer.json");
    let Ok(tokenizer) = Tokenizer::from_bytes(path, file, TokenizerConfig::default()) else {
        return;
    };
    if let Ok(ids) = tokenizer.encode("Hello, wörld! \u{1F600} 1+1\n", Begin::Add) {
        let _ = tokenizer.tokens().decode(&ids, Special::Show);
    }
}

/// Loads a vocabulary of each format beside `tokenizer.json` and encodes and decodes with it.
pub fn vocabulary(file: &[u8]) {
    for path in [
        "tokenizer.model",
        "qwen.tiktoken",
        "tekken.json",
        "tokenizer.model.v3",
        "vocab.txt",
    ] {
        let config = TokenizerConfig {
            bos_token: Some("<s>".into()),
            add_bos_token: Some(true),
            added_tokens: vec![AddedToken::special("<s>".into(), None)],
            model_type: Some("bert".into()),
            ..TokenizerConfig::default()
        };
        let Ok(tokenizer) = Tokenizer::from_bytes(Path::new(path), file, config) else {
            continue;
        };
        let text = " ab<s>  ab ﬁve 日本 \u{1F600}\n";
        let ids = tokenizer.encode(text, Begin::Add).unwrap_or_default();
        let _ = tokenizer.tokens().decode(&ids, Special::Show);
        let all: Vec<u32> = (0..tokenizer.tokens().n_ids() as u32 + 2).collect();
        let _ = tokenizer.tokens().decode(&all, Special::Skip);
    }
}

/// Checks the body of a chat completion, and of a completion.
pub fn request(body: &[u8], tokenizer: &Tokenizer, template: Option<&ChatTemplate>) {
    let rules = Rules {
        served: &ServedNames {
            first: "m".to_owned(),
            others: Vec::new(),
        },
        task: Task::Generate,
        embedding_size: 0,
        lengths: &Lengths::Whole,
        max_logprobs: Some(20),
        max_model_len: 256,
        defaults: &Defaults::default(),
        template,
        response_role: "assistant",
        grammars: Err(&GrammarError::Vocabulary {
            reason: "grammars have a target of their own".to_owned(),
        }),
        strict: false,
        formats: crate::parsers::Formats::default(),
        tokenizer,
        budget: &Budget::unlimited(),
    };
    for prepare in [chat, completion] {
        if let Ok(prepared) = prepare(body, &rules) {
            assert!(!prepared.prompts.is_empty(), "{prepared:?} has no prompt");
        }
    }
}

/// Compiles a chat template and renders a conversation with it.
pub fn chat_template(source: &[u8]) {
    let Ok(source) = std::str::from_utf8(source) else {
        return;
    };
    let Ok(template) = ChatTemplate::compile(source, BTreeMap::from([("bos_token", "<s>".to_owned())]))
    else {
        return;
    };
    let _ = template.render(&Conversation {
        messages: vec![
            json!({"role": "system", "content": "Be brief."}),
            json!({"role": "user", "content": "Hello"}),
        ],
        ending: Ending::GenerationPrompt,
        variables: Map::new(),
    });
}
