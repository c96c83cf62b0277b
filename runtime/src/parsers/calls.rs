//! Separates calls from content.

use std::sync::Arc;

use openai_protocol::common::Tool;

use super::formats::{Body, LISTED, ToolFormat};
use super::json_calls::{Effect, JsonCalls};
use super::marks;
use super::piece::Piece;
use super::plan::{Calls, ParserPlan};
use super::pythonic::ParsedCall;
use super::sections::SectionReader;
use super::sink::Sink;

/// Parses content that may contain calls.
#[derive(Clone, Debug)]
pub(super) enum CallReader {
    /// Marks begin and end the calls.
    Marked(Marked),
    /// Sections, some of which are calls.
    Sections(SectionReader),
    /// The content is the arguments of one call, which begins with the first text.
    Named { name: String, has_begun: bool },
}

#[derive(Clone, Debug)]
pub(super) struct Marked {
    format: &'static ToolFormat,
    tools: Arc<[Tool]>,
    state: State,
    /// Text that is not parsed yet.
    input: String,
}

#[derive(Clone, Debug)]
enum State {
    /// Only space so far.
    Start,
    Text,
    /// Inside JSON calls.
    Json(JsonCalls),
    /// Inside a block that is parsed once its closing mark arrives. It began with `open`. The closing mark does not
    /// begin in the first `searched` bytes of the input.
    Block {
        open: &'static str,
        searched: usize,
    },
}

impl CallReader {
    /// `None` if the parser of reasoning also parses the calls.
    pub(super) fn new(calls: Calls) -> Option<Self> {
        let marked = |format, tools| {
            Self::Marked(Marked {
                format,
                tools,
                state: State::Start,
                input: String::new(),
            })
        };
        match calls {
            Calls::Chosen { format, .. } if format.has_messages() => None,
            Calls::Chosen { format, tools } if format.has_sections() => {
                Some(Self::Sections(SectionReader::new(tools)))
            }
            Calls::Chosen { format, tools } => Some(marked(format, tools)),
            Calls::Listed { tools } => Some(marked(&LISTED, tools)),
            Calls::Named { name } => Some(Self::Named {
                name,
                has_begun: false,
            }),
        }
    }

    pub(super) fn push(&mut self, text: &str, sink: &mut Sink) {
        match self {
            Self::Marked(marked) => marked.push(text, sink),
            Self::Sections(sections) => sections.push(text, sink),
            Self::Named { name, has_begun } => {
                let text = if *has_begun { text } else { text.trim_start() };
                if !text.is_empty() && !std::mem::replace(has_begun, true) {
                    sink.call(name, None);
                }
                sink.arguments(text);
            }
        }
    }

    /// Whether `text` contains a call, at this place of the answer.
    pub(super) fn finds_call(&self, text: &str) -> bool {
        let mut sink = Sink::new(&ParserPlan::default());
        let mut reader = self.clone();
        reader.push(text, &mut sink);
        reader.finish(&mut sink);
        let pieces = sink.take();
        pieces.iter().any(|piece| matches!(piece, Piece::Call { .. }))
    }

    pub(super) fn finish(&mut self, sink: &mut Sink) {
        match self {
            Self::Marked(marked) => marked.finish(sink),
            Self::Sections(sections) => sections.finish(sink),
            Self::Named { .. } => {}
        }
    }
}

/// Parses calls in `content`; without a parser of calls, all of it is content.
pub(super) fn push_content(calls: &mut Option<CallReader>, content: &str, sink: &mut Sink) {
    match calls {
        Some(calls) => calls.push(content, sink),
        None => sink.content(content),
    }
}

impl Marked {
    fn push(&mut self, text: &str, sink: &mut Sink) {
        self.input.push_str(text);
        while match &self.state {
            State::Start => self.start(),
            State::Text => self.text(sink),
            State::Json(_) => self.json(sink),
            State::Block { open, searched } => self.block(open, *searched, sink),
        } {}
    }

    /// Some formats have no opening mark: an answer that begins like a call is parsed as one.
    fn start(&mut self) -> bool {
        let Some(first) = self.input.trim_start().chars().next() else {
            return false;
        };
        let begins_call = self.format.starts.contains(&first);
        self.state = if begins_call { self.opened("") } else { State::Text };
        true
    }

    fn text(&mut self, sink: &mut Sink) -> bool {
        let Some((at, open)) = marks::first(&self.input, self.format.opens) else {
            let settled = marks::settled(&self.input, self.format.opens);
            sink.content(&self.input[..settled]);
            self.input.drain(..settled);
            return false;
        };
        sink.content(&self.input[..at]);
        self.input.drain(..at + open.len());
        self.state = self.opened(open);
        true
    }

    fn opened(&self, open: &'static str) -> State {
        match self.format.body {
            Body::Json => State::Json(JsonCalls::new(self.format, open)),
            Body::Block(_) | Body::Messages | Body::Sections => State::Block { open, searched: 0 },
        }
    }

    fn json(&mut self, sink: &mut Sink) -> bool {
        let State::Json(calls) = &mut self.state else {
            return false;
        };
        let mut ended = None;
        for (at, char) in self.input.char_indices() {
            match calls.push(char, &self.tools, sink) {
                Effect::Continue => {}
                Effect::Closed => ended = Some(at + char.len_utf8()),
                Effect::NoCall => {
                    sink.content(&calls.take_unsent());
                    ended = Some(at);
                }
            }
            if ended.is_some() {
                self.state = State::Text;
                break;
            }
        }
        self.input.drain(..ended.unwrap_or(self.input.len()));
        ended.is_some()
    }

    fn block(&mut self, open: &'static str, searched: usize, sink: &mut Sink) -> bool {
        let Some((at, close)) = marks::first(&self.input[searched..], self.format.closes) else {
            let settled = searched + marks::settled(&self.input[searched..], self.format.closes);
            self.state = State::Block {
                open,
                searched: settled,
            };
            return false;
        };
        let rest = self.input.split_off(searched + at + close.len());
        let block = format!("{open}{}", std::mem::replace(&mut self.input, rest));
        self.decode(&block, sink);
        self.state = State::Text;
        true
    }

    /// Calls of unknown tools are left out. A block without a known one is content.
    fn decode(&self, block: &str, sink: &mut Sink) {
        let Body::Block(read) = self.format.body else {
            return;
        };
        let is_known = |name: &str| self.tools.iter().any(|tool| tool.function.name == name);
        let mut calls = read(block, &self.tools);
        calls.retain(|call| is_known(&call.name));
        if calls.is_empty() {
            sink.content(block);
        }
        for ParsedCall { name, arguments, id } in &calls {
            sink.call(name, id.as_deref());
            sink.arguments(arguments);
        }
    }

    fn finish(&mut self, sink: &mut Sink) {
        let rest = std::mem::take(&mut self.input);
        match &mut self.state {
            State::Start | State::Text => sink.content(&rest),
            State::Json(calls) => calls.finish(sink),
            State::Block { open, .. } => {
                let block = format!("{open}{rest}");
                self.decode(&block, sink);
            }
        }
    }
}
