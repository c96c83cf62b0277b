//! Chat templates: turn messages into a prompt.
//!
//! Owns the choice of the template, the form of its messages, and how its prompt ends. Must not know requests, tokens
//! or HTTP.

mod compiled;
mod content;
mod conversation;
mod error;
mod named;
mod open_message;
mod slots;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::settings::ContentFormat;

use crate::tokenizer::TokenizerConfig;

use compiled::CompiledTemplate;
pub use content::text;
pub use conversation::{Conversation, Ending, SpecialTokens};
pub use error::{RenderError, TemplateError};
pub use named::NamedTemplate;
use slots::Slots;

/// The template that is used where tools are given, if the model has it.
const TOOL_USE: &str = "tool_use";
/// Longest template of a request, in bytes. The longest on the Hub have about 30 kB.
const REQUEST_BYTES_MAX: usize = 128 << 10;
/// Templates of requests that are rendered at once.
const OF_REQUESTS_MAX: usize = 2;

static OF_REQUESTS: Slots = Slots::new(OF_REQUESTS_MAX);

/// A chat template, or several with names.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    default: Arc<CompiledTemplate>,
    named: BTreeMap<String, Arc<CompiledTemplate>>,
    /// What all templates say.
    sources: Arc<str>,
    special_tokens: SpecialTokens,
    content_format: ContentFormat,
    is_of_request: bool,
}

impl ChatTemplate {
    /// Compiles `custom` if it is given, else the templates of the checkpoint; `None` if it has none.
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
            .filter_map(|(name, token)| Some((name, token.clone()?)))
            .collect();
        if let Some(custom) = custom {
            return Self::compile(custom, known).map(Some);
        }
        let Some(default) = &config.chat_template else {
            return Ok(None);
        };
        let mut template = Self::compile(default, known)?;
        for (name, source) in &config.named_chat_templates {
            let compiled = CompiledTemplate::compile(source).map_err(|error| TemplateError {
                reason: format!("the template {name}: {error}"),
            })?;
            template.named.insert(name.clone(), Arc::new(compiled));
        }
        let sources = template.named.values().map(|named| named.source());
        let sources: Vec<&str> = std::iter::once(default.as_str()).chain(sources).collect();
        template.sources = sources.join("\n").into();
        Ok(Some(template))
    }

    /// Compiles a template.
    ///
    /// # Errors
    /// [`TemplateError`] for a template that is not valid.
    pub fn compile(source: &str, special_tokens: SpecialTokens) -> Result<Self, TemplateError> {
        Ok(Self {
            default: Arc::new(CompiledTemplate::compile(source)?),
            named: BTreeMap::new(),
            sources: source.into(),
            special_tokens,
            content_format: ContentFormat::Auto,
            is_of_request: false,
        })
    }

    /// The template that a request contains; few such are rendered at once.
    ///
    /// # Errors
    /// [`TemplateError`] for a template that is too long or not valid.
    pub fn of_request(source: &str, special_tokens: SpecialTokens) -> Result<Self, TemplateError> {
        if source.len() > REQUEST_BYTES_MAX {
            let n_bytes = source.len();
            return Err(TemplateError {
                reason: format!("the template has {n_bytes} bytes; at most {REQUEST_BYTES_MAX} are allowed"),
            });
        }
        let template = Self::compile(source, special_tokens)?;
        Ok(Self {
            is_of_request: true,
            ..template
        })
    }

    /// The model's template with this name.
    pub fn named(&self, name: &str) -> Option<Self> {
        let default = match name {
            "default" => &self.default,
            name => self.named.get(name)?,
        };
        Some(Self {
            default: default.clone(),
            named: BTreeMap::new(),
            ..self.clone()
        })
    }

    /// Sets the form of contents that the template reads; `Auto` keeps the detected form.
    pub fn with_content_format(self, content_format: ContentFormat) -> Self {
        Self {
            content_format,
            ..self
        }
    }

    /// The form of contents that the template reads.
    pub fn content_format(&self) -> ContentFormat {
        match self.content_format {
            ContentFormat::Auto => self.default.content_format(),
            format => format,
        }
    }

    /// The text of the template, or of all templates.
    pub fn source(&self) -> &str {
        &self.sources
    }

    /// Variables such as `bos_token`, for another template of the same model.
    pub fn special_tokens(&self) -> SpecialTokens {
        self.special_tokens.clone()
    }

    /// Renders the prompt of a conversation. A conversation with tools is rendered by the template `tool_use`, if there
    /// is one.
    ///
    /// # Errors
    /// [`RenderError`] if the template rejects the messages, fails, or takes too long.
    pub fn render(&self, conversation: &Conversation) -> Result<String, RenderError> {
        let has_tools = conversation
            .variables
            .get("tools")
            .is_some_and(|tools| !tools.is_null());
        let tool_use = self.named.get(TOOL_USE).filter(|_| has_tools);
        let template = tool_use.unwrap_or(&self.default);
        let _slot = self.is_of_request.then(|| OF_REQUESTS.take());
        template.render(conversation, &self.special_tokens, self.content_format)
    }
}
