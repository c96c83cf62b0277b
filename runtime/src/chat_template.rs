//! Chat templates: turn messages into a prompt.
//!
//! Owns the choice of the template and how its prompt ends. A template comes from the Hub or from a request, so it is
//! tried in a process of its own first; a request's template is also rendered there. Must not know requests, tokens or
//! HTTP.

mod compiled;
mod content;
mod conversation;
mod dialect;
mod error;
mod named;
pub mod sandbox;
#[cfg(test)]
mod tests;

use crds::settings::ContentFormat;
use serde_json::Value as Json;

use crate::tokenizer::TokenizerConfig;

use compiled::CompiledTemplate;
pub use content::text;
pub use conversation::{Conversation, Ending, SpecialTokens};
pub use error::{RenderError, TemplateError};
pub use named::NamedTemplate;

/// Longest template, in bytes. The longest on the Hub have about 20 kB.
const BYTES_MAX: usize = 256 << 10;
/// Longest template of a request, in bytes.
const REQUEST_BYTES_MAX: usize = 128 << 10;

/// A chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    body: Body,
    special_tokens: SpecialTokens,
    content_format: ContentFormat,
}

#[derive(Debug)]
enum Body {
    /// Compiled in this process.
    Compiled(CompiledTemplate),
    /// The template of a request: each rendering compiles it in a process of its own.
    Sandboxed,
}

impl ChatTemplate {
    /// Compiles `custom` if it is given, else the template of the checkpoint; `None` if it has none.
    ///
    /// # Errors
    /// [`TemplateError`] for a template that is not valid.
    pub fn choose(custom: Option<&str>, config: &TokenizerConfig) -> Result<Option<Self>, TemplateError> {
        let tokens = [
            ("bos_token", &config.bos_token),
            ("eos_token", &config.eos_token),
            ("pad_token", &config.pad_token),
            ("unk_token", &config.unk_token),
        ];
        let known = tokens
            .into_iter()
            .filter_map(|(name, token)| Some((name, token.clone()?)));
        let source = custom.or(config.chat_template.as_deref());
        source
            .map(|source| Self::compile(source, known.collect()))
            .transpose()
    }

    /// Compiles a template. A process of its own compiles it first, so that a template that overflows the stack or
    /// takes too long is an error.
    ///
    /// # Errors
    /// [`TemplateError`] for a template that is not valid.
    pub fn compile(source: &str, special_tokens: SpecialTokens) -> Result<Self, TemplateError> {
        check_size(source, BYTES_MAX)?;
        sandbox::check(source, &special_tokens)?;
        let compiled = CompiledTemplate::compile(source, special_tokens.clone())?;
        Ok(Self {
            source: source.to_owned(),
            content_format: compiled.content_format(),
            body: Body::Compiled(compiled),
            special_tokens,
        })
    }

    /// The template of a request, which is compiled and rendered in a process of its own.
    ///
    /// # Errors
    /// [`TemplateError`] for a template that is too long. A template that is not valid is an error of
    /// [`ChatTemplate::render`], or of this function if no sandbox is enabled.
    pub fn of_request(source: &str, special_tokens: SpecialTokens) -> Result<Self, TemplateError> {
        check_size(source, REQUEST_BYTES_MAX)?;
        if !sandbox::is_enabled() {
            return Self::compile(source, special_tokens);
        }
        Ok(Self {
            source: source.to_owned(),
            body: Body::Sandboxed,
            special_tokens,
            content_format: ContentFormat::Auto,
        })
    }

    /// Sets the form of contents that the template reads; `Auto` keeps the detected form.
    pub fn with_content_format(self, content_format: ContentFormat) -> Self {
        match content_format {
            ContentFormat::Auto => self,
            ContentFormat::String | ContentFormat::Openai => Self {
                content_format,
                ..self
            },
        }
    }

    /// The form of contents that the template reads.
    pub fn content_format(&self) -> ContentFormat {
        self.content_format
    }

    /// The template in Jinja.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Variables such as `bos_token`, for another template of the same model.
    pub fn special_tokens(&self) -> SpecialTokens {
        self.special_tokens.clone()
    }

    /// Renders the prompt of a conversation.
    ///
    /// # Errors
    /// [`RenderError`] if the template rejects the messages, fails, or takes too long.
    pub fn render(&self, conversation: &Conversation) -> Result<String, RenderError> {
        let prompt = match &self.body {
            Body::Sandboxed => sandbox::render(&self.source, &self.special_tokens, conversation)?,
            Body::Compiled(compiled) => compiled.render(conversation, self.content_format)?,
        };
        match conversation.ending {
            Ending::GenerationPrompt | Ending::Messages => Ok(prompt),
            Ending::OpenMessage => open_message(prompt, conversation.messages.last()),
        }
    }
}

fn check_size(source: &str, n_bytes_max: usize) -> Result<(), TemplateError> {
    if source.len() <= n_bytes_max {
        return Ok(());
    }
    Err(TemplateError {
        reason: format!(
            "the template has {} bytes; at most {n_bytes_max} are allowed",
            source.len()
        ),
    })
}

/// Removes the text after the content of the last message.
fn open_message(mut prompt: String, last: Option<&Json>) -> Result<String, RenderError> {
    let content = last
        .map(|message| content::text(&message["content"]))
        .unwrap_or_default();
    let content = content.as_ref();
    // Templates may trim contents at both ends. The answer continues after the rest of this one.
    let (untrimmed, trimmed) = (prompt.rfind(content), prompt.rfind(content.trim()));
    let end = untrimmed
        .map(|start| start + content.len())
        .or(trimmed.map(|start| start + content.trim().len()));
    let end = end
        .filter(|_| !content.trim().is_empty())
        .ok_or_else(|| RenderError {
            reason: "continue_final_message: the template does not write the last message's content".into(),
        })?;
    prompt.truncate(end);
    Ok(prompt)
}
