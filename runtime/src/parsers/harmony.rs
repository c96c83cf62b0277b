//! OpenAI's harmony format, which gpt-oss uses: an answer is a list of messages, each with a header that names its
//! channel and its recipient.
//!
//! `<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…`; a call is a message to
//! `functions.name`. Source: the format's description in the repository openai/harmony.

use std::sync::Arc;

use openai_protocol::common::Tool;

use super::calls::{CallReader, push_content};
use super::marks;
use super::sink::Sink;

const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const START: &str = "<|start|>";
/// What an answer with a header begins with; the prompt already contains the author of the message.
const BEGINNINGS: &[&str] = &[CHANNEL, MESSAGE, START, "to="];
/// What ends a message. The last two begin another one and end a message that the model did not end.
const ENDS: &[&str] = &["<|end|>", "<|call|>", "<|return|>", START, CHANNEL];

/// Parses messages: sends reasoning and calls to the sink, and content to the parser of other calls.
#[derive(Debug)]
pub(super) struct HarmonyReader {
    /// The tools that may be called; a message to another recipient is content.
    tools: Arc<[Tool]>,
    state: State,
    /// Text that is not parsed yet.
    input: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Only space so far.
    Start,
    Header,
    Body(MessageKind),
}

/// What a message contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MessageKind {
    Reasoning,
    Content,
    Arguments,
}

impl HarmonyReader {
    pub(super) fn new(tools: Arc<[Tool]>) -> Self {
        Self {
            tools,
            state: State::Start,
            input: String::new(),
        }
    }

    /// Parses more text.
    pub(super) fn push(&mut self, text: &str, calls: &mut Option<CallReader>, sink: &mut Sink) {
        self.input.push_str(text);
        while match self.state {
            State::Start => self.start(),
            State::Header => self.header(sink),
            State::Body(kind) => self.body(kind, calls, sink),
        } {}
    }

    /// An answer without a header, which a grammar may enforce, is content.
    fn start(&mut self) -> bool {
        let text = self.input.trim_start();
        let begins = |beginning: &&str| text.starts_with(*beginning);
        self.state = if BEGINNINGS.iter().any(begins) {
            State::Header
        } else if BEGINNINGS.iter().any(|beginning| beginning.starts_with(text)) {
            return false;
        } else {
            State::Body(MessageKind::Content)
        };
        true
    }

    fn header(&mut self, sink: &mut Sink) -> bool {
        let Some(end) = self.input.find(MESSAGE) else {
            return false;
        };
        let rest = self.input.split_off(end + MESSAGE.len());
        let header = std::mem::replace(&mut self.input, rest);
        let recipient = word_after(&header, "to=");
        let name = recipient.map(|recipient| recipient.strip_prefix("functions.").unwrap_or(recipient));
        let called = name.filter(|name| self.tools.iter().any(|tool| tool.function.name == *name));
        self.state = State::Body(match called {
            Some(name) => {
                sink.call(name, None);
                MessageKind::Arguments
            }
            None if word_after(&header, CHANNEL) == Some("analysis") => MessageKind::Reasoning,
            None => MessageKind::Content,
        });
        true
    }

    fn body(&mut self, kind: MessageKind, calls: &mut Option<CallReader>, sink: &mut Sink) -> bool {
        let end = marks::first(&self.input, ENDS);
        let n_settled = end.map_or_else(|| marks::settled(&self.input, ENDS), |(at, _)| at);
        kind.send(&self.input[..n_settled], calls, sink);
        self.input.drain(..n_settled);
        if end.is_some() {
            self.state = State::Header;
        }
        end.is_some()
    }

    /// Ends the text. A header without a message is dropped.
    pub(super) fn finish(&mut self, calls: &mut Option<CallReader>, sink: &mut Sink) {
        if let State::Body(kind) = self.state {
            kind.send(&std::mem::take(&mut self.input), calls, sink);
        }
    }

    pub(super) fn is_inside(&self) -> bool {
        self.state == State::Body(MessageKind::Reasoning)
    }
}

impl MessageKind {
    fn send(self, text: &str, calls: &mut Option<CallReader>, sink: &mut Sink) {
        match self {
            MessageKind::Reasoning => sink.reasoning(text),
            MessageKind::Content => push_content(calls, text, sink),
            MessageKind::Arguments => sink.arguments(text),
        }
    }
}

/// The word after a mark, up to a space or the next mark.
fn word_after<'t>(header: &'t str, mark: &str) -> Option<&'t str> {
    let (_, rest) = header.split_once(mark)?;
    let end = rest.find(|char: char| char.is_whitespace() || char == '<');
    Some(&rest[..end.unwrap_or(rest.len())])
}
