//! Finds the format in which a chat template writes calls: the template writes one, and the parsers try to read it.
//!
//! Words of a template's source are poorer evidence, because templates compose their marks from parts and share words. They
//! count only where the template does not write calls.

use std::sync::Arc;

use openai_protocol::common::Tool;
use serde_json::{Value, json};

use super::formats::ToolFormat;
use super::output::OutputParser;
use super::piece::Parts;
use super::plan::{Calls, ParserPlan};

/// Names and texts that no template contains. Text and name have no common beginning, which would count as the prompt.
const TOOL: &str = "qzname";
const KEY: &str = "qzkey";
const VALUE: &str = "qzvalue";
const TEXT: &str = "wxtext";
/// Longest text that the log repeats, in characters.
const SHOWN_CHARS_MAX: usize = 200;

/// Renders messages with these tools; `None` if the template refuses them.
pub type Render<'a> = dyn Fn(Vec<Value>, Value) -> Option<String> + 'a;

/// A model's chat template.
pub struct Template<'a> {
    /// Its source in Jinja.
    pub source: &'a str,
    /// Renders a conversation.
    pub render: &'a Render<'a>,
}

impl Template<'_> {
    /// Whether the source contains all of these words; never if there are none.
    pub(super) fn has_all(&self, words: &[&str]) -> bool {
        !words.is_empty() && words.iter().all(|word| self.source.contains(word))
    }
}

/// How a template writes a call.
pub(super) enum Written {
    /// In a format that a parser reads.
    Read(&'static ToolFormat, WrittenCall),
    /// In a format that no parser reads.
    Unread(WrittenCall),
    /// Not at all.
    No,
}

/// A prompt with a call.
pub(super) struct WrittenCall {
    prompt: String,
    n_before: usize,
}

impl WrittenCall {
    /// What the template writes for a message with the call, shortened.
    pub(super) fn message(&self) -> String {
        self.prompt[self.n_before..]
            .chars()
            .take(SHOWN_CHARS_MAX)
            .collect()
    }

    /// Whether the prompt shows one of these marks, in its instructions for example.
    pub(super) fn shows(&self, marks: &[&str]) -> bool {
        marks.iter().any(|mark| self.prompt.contains(mark))
    }
}

/// Renders a call with the template and tries all formats in their order.
pub(super) fn written_calls(render: &Render<'_>, formats: &'static [ToolFormat]) -> Written {
    let answered = |message: Value| render(vec![json!({"role": "user", "content": "Hi"}), message], tools());
    let text = answered(json!({"role": "assistant", "content": TEXT}));
    let mut unread = None;
    for (id, arguments) in forms_of_a_call() {
        let function = json!({"name": TOOL, "arguments": arguments});
        let calls = json!([{"id": id, "type": "function", "function": function}]);
        let prompt = answered(json!({"role": "assistant", "content": "", "tool_calls": calls}));
        let Some(prompt) = prompt.filter(|prompt| prompt.contains(VALUE)) else {
            continue;
        };
        let n_before = message_start(text.as_deref().unwrap_or_default(), &prompt);
        let reading = formats.iter().filter(|format| reads(format, &prompt[n_before..]));
        // Some formats also read another one. They have more ways to begin a call.
        if let Some(format) = reading.min_by_key(|format| format.opens.len() + format.starts.len()) {
            return Written::Read(format, WrittenCall { prompt, n_before });
        }
        unread = unread.or(Some(WrittenCall { prompt, n_before }));
    }
    unread.map_or(Written::No, Written::Unread)
}

/// Ids and arguments that different templates accept: some demand an id of nine letters, some write nothing but an id that
/// contains the name, and some join the arguments to a text.
fn forms_of_a_call() -> [(String, Value); 3] {
    let arguments = json!({KEY: VALUE});
    let text = Value::from(arguments.to_string());
    [
        ("abcdefghi".to_owned(), arguments.clone()),
        (format!("functions.{TOOL}:0"), arguments),
        ("abcdefghi".to_owned(), text),
    ]
}

fn tools() -> Value {
    let properties = json!({KEY: {"type": "string", "description": "A text."}});
    let parameters = json!({"type": "object", "properties": properties, "required": [KEY]});
    let function = json!({"name": TOOL, "description": "A tool.", "parameters": parameters});
    json!([{"type": "function", "function": function}])
}

/// Where the last message of `prompt` begins: where it differs from a message with a text, apart from space. A mark is not
/// divided.
fn message_start(with_text: &str, prompt: &str) -> usize {
    let solid = |text| str::char_indices(text).filter(|(_, char)| !char.is_whitespace());
    let pairs = solid(with_text).zip(solid(prompt));
    let last = pairs.take_while(|((_, a), (_, b))| a == b).last();
    let same = last.map_or(0, |(_, (at, char))| at + char.len_utf8());
    let before = &prompt[..same];
    match (before.rfind('<'), before.rfind('>')) {
        (Some(open), None) => open,
        (Some(open), Some(close)) if open > close => open,
        _ => same,
    }
}

/// Whether a format reads the call in a message.
fn reads(format: &'static ToolFormat, message: &str) -> bool {
    let tools: Arc<[Tool]> = serde_json::from_value(tools()).unwrap_or_default();
    let mut parser = OutputParser::new(&ParserPlan {
        calls: Some(Calls::Chosen { format, tools }),
        ..ParserPlan::default()
    });
    let mut parts = Parts::default();
    parts.extend(parser.push(message.to_owned()));
    parts.extend(parser.finish());
    let [call] = parts.calls.as_slice() else {
        return false;
    };
    // The template writes the end of the message after them.
    let mut values = serde_json::Deserializer::from_str(&call.arguments).into_iter::<Value>();
    let arguments = values.next().and_then(Result::ok);
    call.name == TOOL && arguments == Some(json!({KEY: VALUE}))
}
