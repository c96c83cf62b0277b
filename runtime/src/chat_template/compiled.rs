//! A template that is compiled and rendered in this process.

use std::collections::BTreeMap;

use crds::settings::ContentFormat;
use minijinja::value::Serde;
use minijinja::{Environment, Value};
use serde_json::{Map, Value as Json, json};

use super::content;
use super::conversation::{Conversation, Ending, SpecialTokens};
use super::dialect::{NAME, described, environment};
use super::error::{RenderError, TemplateError};

/// Stack of the thread that compiles: the compiler recurses without bound over chains such as `- - - 1`. It is larger
/// than the stack of the process that tries a template first. Only used pages take memory.
const COMPILE_STACK_BYTES: usize = 64 << 20;

/// A compiled template.
#[derive(Debug)]
pub(super) struct CompiledTemplate {
    environment: Environment<'static>,
    special_tokens: SpecialTokens,
    /// Whether the template mentions the role `developer`.
    knows_developers: bool,
}

impl CompiledTemplate {
    /// Compiles a template on a thread with a large stack.
    ///
    /// # Errors
    /// [`TemplateError`] for a template that is not valid.
    pub(super) fn compile(source: &str, special_tokens: SpecialTokens) -> Result<Self, TemplateError> {
        let failed = |reason: &dyn std::fmt::Display| TemplateError {
            reason: format!("the template cannot be compiled: {reason}"),
        };
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("template".to_owned())
                .stack_size(COMPILE_STACK_BYTES);
            let compiling = thread
                .spawn_scoped(scope, || Self::compile_here(source, special_tokens))
                .map_err(|error| failed(&error))?;
            compiling
                .join()
                .unwrap_or_else(|_| Err(failed(&"the compiler panicked")))
        })
    }

    /// Compiles a template on this thread. A hostile one may overflow the stack.
    ///
    /// # Errors
    /// [`TemplateError`] for a template that is not valid.
    pub(super) fn compile_here(source: &str, special_tokens: SpecialTokens) -> Result<Self, TemplateError> {
        Ok(Self {
            environment: environment(source)?,
            special_tokens,
            knows_developers: source.contains("developer"),
        })
    }

    /// The form of contents that the template reads.
    pub(super) fn content_format(&self) -> ContentFormat {
        content::detect(|content| {
            let conversation = Conversation {
                messages: Vec::new(),
                ending: Ending::GenerationPrompt,
                variables: Map::new(),
            };
            let messages = [json!({"role": "user", "content": content})];
            self.write(&messages, &conversation).unwrap_or_default()
        })
    }

    /// Renders a conversation, with its contents in this form.
    ///
    /// # Errors
    /// [`RenderError`] if the template rejects the messages, fails, or takes too many steps.
    pub(super) fn render(
        &self,
        conversation: &Conversation,
        content_format: ContentFormat,
    ) -> Result<String, RenderError> {
        let mut messages = content::with_contents(&conversation.messages, content_format);
        self.rename_developers(&mut messages);
        self.write(&messages, conversation)
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
    fn write(&self, messages: &[Json], conversation: &Conversation) -> Result<String, RenderError> {
        let template = self
            .environment
            .get_template(NAME)
            .expect("the environment has this template");
        let mut variables: BTreeMap<&str, Value> = BTreeMap::new();
        for (name, value) in &conversation.variables {
            variables.insert(name, Value::from(Serde(value)));
        }
        for (name, token) in &self.special_tokens {
            variables.insert(name, Value::from(token.as_str()));
        }
        let adds_prompt = conversation.ending == Ending::GenerationPrompt;
        variables.insert("messages", Value::from(Serde(messages)));
        variables.insert("add_generation_prompt", Value::from(adds_prompt));
        template.render(variables).map_err(|error| RenderError {
            reason: described(&error),
        })
    }
}
