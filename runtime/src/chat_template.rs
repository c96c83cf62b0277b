//! Messages become a prompt through the checkpoint's chat template.
//!
//! Owns the Jinja dialect that templates on the Hub are written in: Python's methods, `tojson` as Python writes it,
//! `raise_exception`, `strftime_now`, generation marks. A template comes from the Hub, so it runs with bounded fuel and
//! depth and sees nothing but its arguments; one that comes with a request is compiled and run in a process of its own. Must not
//! know requests, tokens or HTTP.

mod content;
mod named;
pub mod sandbox;

use std::collections::BTreeMap;

use crds::settings::ContentFormat;
use jiff::Zoned;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::tokenizer::TokenizerConfig;

pub use content::text;
pub use named::NamedTemplate;

/// Instructions that one rendering may take: 10,000 messages of a hundred instructions each. At some 30 ns each it is
/// the time that a hostile template can cost.
const FUEL: u64 = 1_000_000;
/// Depth of macros and includes.
const DEPTH_MAX: usize = 64;
/// Longest template, bytes. The longest on the Hub have some 20 kB.
const BYTES_MAX: usize = 256 << 10;
/// Longest template that a request may bring, bytes.
const REQUEST_BYTES_MAX: usize = 128 << 10;
/// Stack of the thread that compiles, larger than a process has in which a template is tried before: the compiler
/// recurses over chains such as `- - - 1` without a bound of its own. Only what is used takes memory.
const COMPILE_STACK_BYTES: usize = 64 << 20;
/// Name under which the one template is known.
const NAME: &str = "chat template";

/// A template that cannot be compiled. `Display` says where and why.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub struct TemplateError {
    /// What the compiler says, with the line.
    reason: String,
}

/// A template does not accept its messages.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct RenderError {
    reason: String,
}

/// A chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    body: Body,
    special_tokens: BTreeMap<&'static str, String>,
    content_format: ContentFormat,
}

#[derive(Debug)]
enum Body {
    /// Compiled here.
    Compiled(Box<Environment<'static>>),
    /// Compiled and rendered in a process of its own, each time: the template of a request.
    Sandboxed,
}

/// What a rendering is given beside the special tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Conversation {
    /// The messages, each an object with `role` and `content`.
    pub messages: Vec<Json>,
    /// How the prompt ends.
    pub ending: Ending,
    /// Further variables, as `chat_template_kwargs` has them. They cannot replace the messages.
    pub variables: Map<String, Json>,
}

/// How a prompt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With what begins an answer.
    GenerationPrompt,
    /// With the last message.
    Messages,
    /// Inside the last message, which the answer continues.
    OpenMessage,
}

impl ChatTemplate {
    /// The template that is used: `custom` if there is one, else the checkpoint's; `None` if it has none.
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

    /// Compiles a template. `special_tokens` are variables such as `bos_token`. A process of its own compiles it first,
    /// so that a template that overflows the stack or takes too long is an error here.
    ///
    /// # Errors
    /// [`TemplateError`] for a template that is not valid.
    pub fn compile(
        source: &str,
        special_tokens: BTreeMap<&'static str, String>,
    ) -> Result<Self, TemplateError> {
        check_size(source, BYTES_MAX)?;
        sandbox::check(source, &special_tokens)?;
        Ok(Self::of_environment(source, compiled(source)?, special_tokens))
    }

    /// Compiles a template on this thread, whose stack it may overflow.
    fn compile_here(
        source: &str,
        special_tokens: BTreeMap<&'static str, String>,
    ) -> Result<Self, TemplateError> {
        Ok(Self::of_environment(source, environment(source)?, special_tokens))
    }

    fn of_environment(
        source: &str,
        environment: Environment<'static>,
        special_tokens: BTreeMap<&'static str, String>,
    ) -> Self {
        let mut template = Self {
            source: source.to_owned(),
            body: Body::Compiled(Box::new(environment)),
            special_tokens,
            content_format: ContentFormat::Auto,
        };
        template.content_format = content::detect(&template);
        template
    }

    /// The template of a request, which is compiled and rendered where it can do no harm.
    ///
    /// # Errors
    /// [`TemplateError`] for a template that is too long; without a sandbox also for one that is not valid. With one,
    /// [`ChatTemplate::render`] finds that.
    pub fn of_request(
        source: &str,
        special_tokens: BTreeMap<&'static str, String>,
    ) -> Result<Self, TemplateError> {
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

    /// The same template, which expects contents in this form; with `Auto`, in the form that was found.
    pub fn with_content_format(self, content_format: ContentFormat) -> Self {
        match content_format {
            ContentFormat::Auto => self,
            ContentFormat::String | ContentFormat::Openai => Self {
                content_format,
                ..self
            },
        }
    }

    /// The form of contents that it is given.
    pub fn content_format(&self) -> ContentFormat {
        self.content_format
    }

    /// OpenAI's newer role is the system's where a template does not know it, which would pass over it in silence.
    fn rename_developers(&self, messages: &mut [Json]) {
        let is_developer = |message: &Json| message["role"] == "developer";
        if messages.iter().any(is_developer) && !self.source().contains("developer") {
            for message in messages.iter_mut().filter(|message| is_developer(message)) {
                message["role"] = Json::from("system");
            }
        }
    }

    /// Its Jinja text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Variables such as `bos_token`, for another template of the same model.
    pub fn special_tokens(&self) -> BTreeMap<&'static str, String> {
        self.special_tokens.clone()
    }

    /// The prompt of a conversation.
    ///
    /// # Errors
    /// [`RenderError`] when the template refuses the messages, fails on them, or takes too long.
    pub fn render(&self, conversation: &Conversation) -> Result<String, RenderError> {
        let prompt = match &self.body {
            Body::Sandboxed => sandbox::render(&self.source, &self.special_tokens, conversation)?,
            Body::Compiled(environment) => {
                let mut messages = content::with_contents(&conversation.messages, self.content_format);
                self.rename_developers(&mut messages);
                self.write(environment, &messages, conversation)?
            }
        };
        match conversation.ending {
            Ending::GenerationPrompt | Ending::Messages => Ok(prompt),
            Ending::OpenMessage => open_message(prompt, conversation.messages.last()),
        }
    }

    /// What the template makes of these messages; of the conversation's own only the rest is taken.
    fn write(
        &self,
        environment: &Environment<'_>,
        messages: &[Json],
        conversation: &Conversation,
    ) -> Result<String, RenderError> {
        let template = environment
            .get_template(NAME)
            .expect("it was added at compilation");
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

fn check_size(source: &str, n_bytes_max: usize) -> Result<(), TemplateError> {
    if source.len() <= n_bytes_max {
        return Ok(());
    }
    Err(TemplateError {
        reason: format!("it has {} bytes, and {n_bytes_max} are allowed", source.len()),
    })
}

/// Compiles on a thread with a large stack.
fn compiled(source: &str) -> Result<Environment<'static>, TemplateError> {
    let failed = |reason: &dyn std::fmt::Display| TemplateError {
        reason: format!("it cannot be compiled: {reason}"),
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("template".to_owned())
            .stack_size(COMPILE_STACK_BYTES);
        let compiling = thread
            .spawn_scoped(scope, || environment(source))
            .map_err(|error| failed(&error))?;
        compiling
            .join()
            .unwrap_or_else(|_| Err(failed(&"the compiler panicked")))
    })
}

fn environment(source: &str) -> Result<Environment<'static>, TemplateError> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    environment.set_syntax(syntax.map_err(|error| TemplateError {
        reason: described(&error),
    })?);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(DEPTH_MAX);
    environment.set_unknown_method_callback(python_method);
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment
        .add_template_owned(NAME, without_generation_marks(source))
        .map_err(|error| TemplateError {
            reason: described(&error),
        })?;
    Ok(environment)
}

/// Cuts off what the template wrote behind the last message's content.
fn open_message(mut prompt: String, last: Option<&Json>) -> Result<String, RenderError> {
    let content = last
        .map(|message| content::text(&message["content"]))
        .unwrap_or_default();
    let content = content.as_ref();
    // Templates trim contents at either end; what is left of this one is where the answer goes on.
    let (whole, trimmed) = (prompt.rfind(content), prompt.rfind(content.trim()));
    let end = whole
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

/// Training marks the answers with `{% generation %}`; they mean nothing here.
fn without_generation_marks(source: &str) -> String {
    let mut text = source.to_string();
    for word in ["generation", "endgeneration"] {
        for open in ["{%", "{%-"] {
            for close in ["%}", "-%}"] {
                // An empty comment, so that the marks' white-space control stays what it was.
                let comment = format!("{}{}", open.replace('%', "#"), close.replace('%', "#"));
                for spaced in [format!("{open} {word} {close}"), format!("{open}{word}{close}")] {
                    text = text.replace(&spaced, &comment);
                }
            }
        }
    }
    text
}

fn described(error: &Error) -> String {
    let source = std::error::Error::source(error);
    if let Some(Raised(message)) = source.and_then(|source| source.downcast_ref()) {
        return message.clone();
    }
    match (error.kind(), error.detail(), error.line()) {
        (ErrorKind::OutOfFuel, _, _) => "it takes too many steps".to_string(),
        (kind, Some(detail), Some(line)) => format!("{detail} ({kind} in line {line})"),
        (kind, Some(detail), None) => format!("{detail} ({kind})"),
        (kind, None, Some(line)) => format!("{kind} in line {line}"),
        (kind, None, None) => kind.to_string(),
    }
}

/// What a template says with `raise_exception`, written for the client.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

fn strftime_now(format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &Zoned::now()).map_err(|error| {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now({format:?}): {error}"),
        )
    })
}

/// Python's methods, and the two that the library lacks.
fn python_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let (Some(text), ValueKind::String) = (value.as_str(), value.kind()) {
        let stripped = |fix: &str| match method {
            "removeprefix" => text.strip_prefix(fix),
            _ => text.strip_suffix(fix),
        };
        if matches!(method, "removeprefix" | "removesuffix") {
            let (fix,): (&str,) = from_args(args)?;
            return Ok(Value::from(stripped(fix).unwrap_or(text)));
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

/// `json.dumps(value, ensure_ascii=False)`: tool schemas must look as they did in training.
fn tojson(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    if ensure_ascii == Some(true) {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "tojson: ensure_ascii=true is not supported",
        ));
    }
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut out = Vec::new();
    match indent {
        Some(n) => {
            let pad = " ".repeat(n.min(16));
            let format = serde_json::ser::PrettyFormatter::with_indent(pad.as_bytes());
            let mut writer = serde_json::Serializer::with_formatter(&mut out, format);
            value.serialize(&mut writer).map_err(failed)?;
        }
        None => {
            let mut writer = serde_json::Serializer::with_formatter(&mut out, PythonSeparators);
            value.serialize(&mut writer).map_err(failed)?;
        }
    }
    Ok(Value::from_safe_string(
        String::from_utf8(out).expect("JSON is UTF-8"),
    ))
}

/// `", "` and `": "`, as Python's `json.dumps` writes by default.
struct PythonSeparators;

impl serde_json::ser::Formatter for PythonSeparators {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn conversation(messages: Json, ending: Ending) -> Conversation {
        Conversation {
            messages: messages.as_array().unwrap().clone(),
            ending,
            variables: json!({"enable_thinking": false}).as_object().unwrap().clone(),
        }
    }

    fn render_with(source: &str, conversation: &Conversation) -> Result<String, String> {
        let tokens = BTreeMap::from([
            ("bos_token", "<s>".to_string()),
            ("eos_token", "</s>".to_string()),
        ]);
        let template = ChatTemplate::compile(source, tokens).map_err(|error| error.to_string())?;
        template.render(conversation).map_err(|error| error.to_string())
    }

    fn check(source: &str, expected: &str) {
        let hi = conversation(
            json!([{"role": "user", "content": " hi "}]),
            Ending::GenerationPrompt,
        );
        assert_eq!(render_with(source, &hi).as_deref(), Ok(expected), "{source}");
    }

    fn refusal(source: &str) -> String {
        let hi = conversation(
            json!([{"role": "user", "content": "hi"}]),
            Ending::GenerationPrompt,
        );
        render_with(source, &hi).unwrap_err()
    }

    const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}\
                          {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

    #[test]
    fn developers_are_the_system_where_templates_do_not_know_them() {
        let messages = json!([{"role": "developer", "content": "a"}]);
        let of =
            |source: &str| render_with(source, &conversation(messages.clone(), Ending::Messages)).unwrap();
        assert_eq!(of("{{ messages[0].role }}"), "system");
        assert_eq!(of("{{ messages[0].role }}{# developer #}"), "developer");
    }

    #[test]
    fn chatml_ends_as_asked() {
        let messages = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well, "}]);
        let render = |ending| render_with(CHATML, &conversation(messages.clone(), ending)).unwrap();
        let both = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nWell, <|im_end|>\n";
        assert_eq!(render(Ending::Messages), both);
        assert_eq!(
            render(Ending::GenerationPrompt),
            format!("{both}<|im_start|>assistant\n")
        );
        assert_eq!(
            render(Ending::OpenMessage),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nWell, "
        );
    }

    #[test]
    fn an_open_message_must_be_there() {
        let empty = conversation(
            json!([{"role": "assistant", "content": " "}]),
            Ending::OpenMessage,
        );
        assert!(
            render_with(CHATML, &empty)
                .unwrap_err()
                .contains("continue_final_message")
        );
        let trimmed = conversation(
            json!([{"role": "assistant", "content": " a "}]),
            Ending::OpenMessage,
        );
        assert_eq!(
            render_with("[{{ messages[0].content | trim }}]", &trimmed).unwrap(),
            "[a"
        );
    }

    #[test]
    fn the_dialect_of_the_hub() {
        check(
            "{{ bos_token }}{{ messages[0]['content'] | trim | upper }}",
            "<s>HI",
        );
        check("{{ {'b': 1, 'a': '<é>'} | tojson }}", r#"{"b": 1, "a": "<é>"}"#);
        check(
            "{{ [1, {'a': []}] | tojson(indent=2) }}",
            "[\n  1,\n  {\n    \"a\": []\n  }\n]",
        );
        check(
            "{% set x = 'a,b'.split(',') %}{{ x[-1] }}{{ 'abc'[::-1] }}",
            "bcba",
        );
        check(
            "{{ 'a-b'.removeprefix('a-') }}{{ 'c.x'.removesuffix('.x') }}{{ ' d '.strip() }}",
            "bcd",
        );
        check(
            "{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
            "02",
        );
        check(
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "1",
        );
        check(
            "{%- macro m(a, b=2) -%}{{ a }}{{ b }}{%- endmacro -%}{{ m(1) }}",
            "12",
        );
        check("{{ messages | map(attribute='role') | join(',') }}", "user");
        check(
            "{{ True }} {{ None }} {{ enable_thinking is false }} {{ x is defined }}",
            "True None True False",
        );
        check(
            "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
            "1",
        );
        check(
            "{%- if tools %}t{% endif -%} {{ 'x' if documents is not defined }}",
            "x",
        );
        check("  {% if true %}\n  a\n  {% endif %}\n", "  a\n");
        check("a {%- generation -%} b {% endgeneration %} c", "ab  c");
    }

    #[test]
    fn a_custom_template_wins_over_the_checkpoints() {
        let config = TokenizerConfig {
            chat_template: Some("its {{ eos_token }}".into()),
            eos_token: Some("</s>".into()),
            ..TokenizerConfig::default()
        };
        let hi = conversation(json!([]), Ending::Messages);
        let render = |custom| {
            ChatTemplate::choose(custom, &config)
                .unwrap()
                .unwrap()
                .render(&hi)
                .unwrap()
        };
        assert_eq!(render(None), "its </s>");
        assert_eq!(render(Some("mine")), "mine");
        assert!(
            ChatTemplate::choose(None, &TokenizerConfig::default())
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn the_clock_is_there() {
        let hi = conversation(json!([]), Ending::Messages);
        let year: i32 = render_with("{{ strftime_now('%Y') }}", &hi)
            .unwrap()
            .parse()
            .unwrap();
        assert!(year >= 2025);
        assert!(refusal("{{ strftime_now('%') }}").contains("strftime_now"));
    }

    #[test]
    fn what_a_template_refuses_is_said_in_its_words() {
        assert_eq!(
            refusal("{{ raise_exception('roles must alternate') }}"),
            "roles must alternate"
        );
        assert!(refusal("{{ messages.nothing.at_all }}").contains("undefined"));
    }

    #[test]
    fn a_hostile_template_ends() {
        assert!(
            refusal("{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}")
                .contains("steps")
        );
        assert!(!refusal("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").is_empty());
    }

    #[test]
    fn a_template_that_does_not_compile_is_named_with_its_line() {
        let error = ChatTemplate::compile("a\n{% if %}", BTreeMap::new()).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn variables_of_a_client_cannot_replace_the_messages() {
        let mut hi = conversation(json!([{"role": "user", "content": "hi"}]), Ending::Messages);
        hi.variables.insert("messages".into(), json!([]));
        hi.variables.insert("bos_token".into(), json!("fake"));
        assert_eq!(
            render_with("{{ messages | length }}{{ bos_token }}", &hi).unwrap(),
            "1<s>"
        );
    }
}
