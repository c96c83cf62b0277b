//! One template of a model, and what it makes of a conversation.

use crds::settings::ContentFormat;
use serde_json::Value as Json;

use super::content::Contents;
use super::conversation::{Conversation, Ending, SpecialTokens};
use super::error::{RenderError, TemplateError};
use super::open_message::{Mark, cut};
use crate::jinja::Template;

/// A compiled template.
#[derive(Debug)]
pub(super) struct CompiledTemplate {
    source: String,
    template: Template,
    contents: Contents,
    /// Whether the template mentions the role `developer`.
    knows_developers: bool,
}

impl CompiledTemplate {
    /// Compiles a template.
    ///
    /// # Errors
    /// [`TemplateError`] for a template that is not valid.
    pub(super) fn compile(source: &str) -> Result<Self, TemplateError> {
        let template = Template::parse(source).map_err(|error| TemplateError {
            reason: format!("the template cannot be compiled: {error}"),
        })?;
        let contents = Contents::of(&template, |messages| {
            let variables = [
                ("messages", messages),
                ("tools", &Json::Null),
                ("documents", &Json::Null),
            ];
            template.render(&variables).unwrap_or_default()
        });
        Ok(Self {
            contents,
            template,
            knows_developers: source.contains("developer"),
            source: source.to_owned(),
        })
    }

    /// The template in Jinja.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// The form of contents that the template reads.
    pub(super) fn content_format(&self) -> ContentFormat {
        match self.contents {
            Contents::Texts => ContentFormat::String,
            Contents::Parts | Contents::Both => ContentFormat::Openai,
        }
    }

    /// Renders a conversation. Its contents get this form; `Auto` is the form that the template reads.
    ///
    /// # Errors
    /// [`RenderError`] if the template rejects the messages, fails, or exceeds a bound.
    pub(super) fn render(
        &self,
        conversation: &Conversation,
        special_tokens: &SpecialTokens,
        content_format: ContentFormat,
    ) -> Result<String, RenderError> {
        let contents = Contents::of_setting(content_format).unwrap_or(self.contents);
        let rendered = self.render_as(contents, conversation, special_tokens);
        match rendered {
            // Some templates refuse an empty text and take it in a part.
            Err(error) if contents == Contents::Both => {
                let as_parts = self.render_as(Contents::Parts, conversation, special_tokens);
                as_parts.map_err(|_| error)
            }
            rendered => rendered,
        }
    }

    fn render_as(
        &self,
        contents: Contents,
        conversation: &Conversation,
        special_tokens: &SpecialTokens,
    ) -> Result<String, RenderError> {
        let mut messages = contents.convert(&conversation.messages);
        self.rename_developers(&mut messages);
        if conversation.ending != Ending::OpenMessage {
            return self.write(messages, conversation, special_tokens);
        }
        let mark = Mark::outside_of(&[&self.source, &Json::from(messages.clone()).to_string()]);
        mark.put_behind(messages.last_mut())?;
        cut(self.write(messages, conversation, special_tokens)?, &mark)
    }

    /// Renames OpenAI's newer role `developer` to `system`, unless the template mentions it. Otherwise the template
    /// would skip these messages silently.
    fn rename_developers(&self, messages: &mut [Json]) {
        if self.knows_developers {
            return;
        }
        for message in messages
            .iter_mut()
            .filter(|message| message["role"] == "developer")
        {
            message["role"] = Json::from("system");
        }
    }

    /// Renders `messages` with the variables and the ending of `conversation`.
    fn write(
        &self,
        messages: Vec<Json>,
        conversation: &Conversation,
        special_tokens: &SpecialTokens,
    ) -> Result<String, RenderError> {
        let messages = Json::from(messages);
        let adds_prompt = Json::from(conversation.ending == Ending::GenerationPrompt);
        let tokens: Vec<(&str, Json)> = special_tokens
            .iter()
            .map(|(name, token)| (*name, Json::from(token.as_str())))
            .collect();
        // The first value of a name counts.
        let mut variables: Vec<(&str, &Json)> =
            vec![("messages", &messages), ("add_generation_prompt", &adds_prompt)];
        variables.extend(
            conversation
                .variables
                .iter()
                .map(|(name, value)| (&**name, value)),
        );
        variables.extend(tokens.iter().map(|(name, token)| (*name, token)));
        // As in transformers, these exist always.
        variables.extend([("tools", &Json::Null), ("documents", &Json::Null)]);
        self.template.render(&variables).map_err(|error| RenderError {
            reason: error.to_string(),
        })
    }
}
