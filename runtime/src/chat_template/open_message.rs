//! The end of a prompt inside its last message, which the answer continues.
//!
//! A mark behind the content shows where the template writes its end. The content itself may occur anywhere in what the
//! template writes.

use serde_json::Value as Json;

use super::error::RenderError;

/// The words of a mark; a number follows.
const WORDS: &str = "END_OF_OPEN_MESSAGE_";

/// A text that occurs nowhere else.
pub(super) struct Mark(String);

impl Mark {
    /// A mark that none of these texts contains.
    pub(super) fn outside_of(texts: &[&str]) -> Self {
        let is_new = |mark: &String| !texts.iter().any(|text| text.contains(mark.as_str()));
        let marks = (0u32..).map(|n| format!("{WORDS}{n}_"));
        Self(marks.into_iter().find(is_new).unwrap_or_else(|| WORDS.to_owned()))
    }

    /// Puts the mark and a space behind the content of a message, or behind its last part with a text.
    pub(super) fn put_behind(&self, message: Option<&mut Json>) -> Result<(), RenderError> {
        let text = message.and_then(|message| match &mut message["content"] {
            Json::String(text) => Some(text),
            Json::Array(parts) => parts
                .iter_mut()
                .rev()
                .find_map(|part| match part.get_mut("text") {
                    Some(Json::String(text)) => Some(text),
                    _ => None,
                }),
            _ => None,
        });
        let text = text.ok_or_else(|| RenderError {
            reason: "continue_final_message: the last message has no text".into(),
        })?;
        text.push_str(&self.0);
        text.push(' ');
        Ok(())
    }
}

/// Removes the mark and the text behind it.
pub(super) fn cut(mut prompt: String, mark: &Mark) -> Result<String, RenderError> {
    let at = prompt.rfind(&mark.0).ok_or_else(|| RenderError {
        reason: "continue_final_message: the template does not write the last message's content".into(),
    })?;
    // The space is gone if the template trims contents, and then this one is trimmed too.
    let is_kept = prompt[at + mark.0.len()..].starts_with(' ');
    prompt.truncate(at);
    if !is_kept {
        prompt.truncate(prompt.trim_end().len());
    }
    Ok(prompt)
}
