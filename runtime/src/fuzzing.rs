//! What the fuzz targets call: every reader of a stranger's bytes, with what must hold of its answer.
//!
//! Part of the library so that tests run the same functions over inputs that once broke them; no API.

use std::collections::BTreeMap;

use serde_json::{Map, json};

use crate::chat_template::{ChatTemplate, Conversation, Ending};
pub use crate::model::fuzzing::{config, pickle, safetensors};

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
