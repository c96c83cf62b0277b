//! OpenAI's harmony format, which gpt-oss speaks: an answer is a row of messages, each with a header that tells its
//! channel and its recipient.
//!
//! `<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…`; a call is a message to
//! `functions.name`. Source: the format's description in the repository openai/harmony.

use std::sync::Arc;

use openai_protocol::common::Tool;

use super::calls::CallReader;
use super::sink::Sink;
use super::{content_to, marks};

const CHANNEL: &str = "<|channel|>";
const MESSAGE: &str = "<|message|>";
const START: &str = "<|start|>";
/// With what an answer begins that has a header; the prompt has already said whose message it is.
const BEGINNINGS: &[&str] = &[CHANNEL, MESSAGE, START, "to="];
/// What ends a message. The last two end it where the model forgot to.
const ENDS: &[&str] = &["<|end|>", "<|call|>", "<|return|>", START, CHANNEL];

/// Takes messages apart: gives thoughts and calls to the sink, and content to whoever finds other calls in it.
#[derive(Debug)]
pub(super) struct HarmonyReader {
    /// What may be called; a message to anyone else is content.
    tools: Arc<[Tool]>,
    at: At,
    /// Text that is not read yet.
    input: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Nothing but space so far.
    Start,
    Header,
    Body(Kind),
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Thoughts,
    Content,
    Arguments,
}

impl HarmonyReader {
    pub(super) fn new(tools: Arc<[Tool]>) -> Self {
        Self {
            tools,
            at: At::Start,
            input: String::new(),
        }
    }

    /// Takes more text.
    pub(super) fn push(&mut self, text: &str, calls: &mut Option<CallReader>, sink: &mut Sink) {
        self.input.push_str(text);
        while match self.at {
            At::Start => self.start(),
            At::Header => self.header(sink),
            At::Body(kind) => self.body(kind, calls, sink),
        } {}
    }

    /// An answer without a header, as a grammar may make it, is content.
    fn start(&mut self) -> bool {
        let text = self.input.trim_start();
        let begins = |beginning: &&str| text.starts_with(*beginning);
        self.at = if BEGINNINGS.iter().any(begins) {
            At::Header
        } else if BEGINNINGS.iter().any(|beginning| beginning.starts_with(text)) {
            return false;
        } else {
            At::Body(Kind::Content)
        };
        true
    }

    fn header(&mut self, sink: &mut Sink) -> bool {
        let Some(end) = self.input.find(MESSAGE) else {
            return false;
        };
        let rest = self.input.split_off(end + MESSAGE.len());
        let header = std::mem::replace(&mut self.input, rest);
        let recipient = word_behind(&header, "to=");
        let name = recipient.map(|recipient| recipient.strip_prefix("functions.").unwrap_or(recipient));
        let called = name.filter(|name| self.tools.iter().any(|tool| tool.function.name == *name));
        self.at = At::Body(match called {
            Some(name) => {
                sink.call(name);
                Kind::Arguments
            }
            None if word_behind(&header, CHANNEL) == Some("analysis") => Kind::Thoughts,
            None => Kind::Content,
        });
        true
    }

    fn body(&mut self, kind: Kind, calls: &mut Option<CallReader>, sink: &mut Sink) -> bool {
        let end = marks::first(&self.input, ENDS);
        let n_settled = end.map_or_else(|| marks::settled(&self.input, ENDS), |(at, _)| at);
        kind.tell(&self.input[..n_settled], calls, sink);
        self.input.drain(..n_settled);
        if end.is_some() {
            self.at = At::Header;
        }
        end.is_some()
    }

    /// Takes the end of the text. A header without a message says nothing.
    pub(super) fn finish(&mut self, calls: &mut Option<CallReader>, sink: &mut Sink) {
        if let At::Body(kind) = self.at {
            kind.tell(&std::mem::take(&mut self.input), calls, sink);
        }
    }

    pub(super) fn is_inside(&self) -> bool {
        self.at == At::Body(Kind::Thoughts)
    }
}

impl Kind {
    fn tell(self, text: &str, calls: &mut Option<CallReader>, sink: &mut Sink) {
        match self {
            Kind::Thoughts => sink.reasoning(text),
            Kind::Content => content_to(calls, text, sink),
            Kind::Arguments => sink.arguments(text),
        }
    }
}

/// The word behind a mark: up to a space or the next mark.
fn word_behind<'t>(header: &'t str, mark: &str) -> Option<&'t str> {
    let (_, behind) = header.split_once(mark)?;
    let end = behind.find(|char: char| char.is_whitespace() || char == '<');
    Some(&behind[..end.unwrap_or(behind.len())])
}
