//! Content and calls: finds where calls begin, and has them read.

use std::sync::Arc;

use openai_protocol::common::Tool;

use super::formats::{Body, LISTED, ToolFormat};
use super::json_calls::{JsonCalls, Step};
use super::sink::Sink;
use super::{Calls, marks};

/// Reads content that may have calls in it.
#[derive(Debug)]
pub(super) enum CallReader {
    /// Finds them by their marks.
    Marked(Marked),
    /// Everything is the arguments of one call, which begins with the first text.
    Named { name: String, has_begun: bool },
}

#[derive(Debug)]
pub(super) struct Marked {
    format: &'static ToolFormat,
    tools: Arc<[Tool]>,
    at: At,
    /// Text that is not read yet.
    input: String,
}

#[derive(Debug)]
enum At {
    /// Nothing but space so far.
    Start,
    Text,
    /// In calls written as JSON.
    Json(JsonCalls),
    /// In calls that are read when their closing mark is there. They begin with `open`, and the closing mark does not
    /// begin in the first `searched` bytes of the input.
    Block {
        open: &'static str,
        searched: usize,
    },
}

impl CallReader {
    /// `None` where whoever finds the thoughts also finds the calls.
    pub(super) fn new(calls: Calls) -> Option<Self> {
        let marked = |format, tools| {
            Self::Marked(Marked {
                format,
                tools,
                at: At::Start,
                input: String::new(),
            })
        };
        match calls {
            Calls::Chosen { format, .. } if format.has_messages() => None,
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
            Self::Named { name, has_begun } => {
                let text = if *has_begun { text } else { text.trim_start() };
                if !text.is_empty() && !std::mem::replace(has_begun, true) {
                    sink.call(name);
                }
                sink.arguments(text);
            }
        }
    }

    pub(super) fn finish(&mut self, sink: &mut Sink) {
        if let Self::Marked(marked) = self {
            marked.finish(sink);
        }
    }
}

impl Marked {
    fn push(&mut self, text: &str, sink: &mut Sink) {
        self.input.push_str(text);
        while match &self.at {
            At::Start => self.start(),
            At::Text => self.text(sink),
            At::Json(_) => self.json(sink),
            At::Block { open, searched } => self.block(open, *searched, sink),
        } {}
    }

    /// Some formats have no opening mark: an answer that begins like a call is read as one.
    fn start(&mut self) -> bool {
        let Some(first) = self.input.trim_start().chars().next() else {
            return false;
        };
        let begins_call = self.format.starts.contains(&first);
        self.at = if begins_call { self.opened("") } else { At::Text };
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
        self.at = self.opened(open);
        true
    }

    fn opened(&self, open: &'static str) -> At {
        match self.format.body {
            Body::Json => At::Json(JsonCalls::new(self.format, open)),
            Body::Block(_) | Body::Messages => At::Block { open, searched: 0 },
        }
    }

    fn json(&mut self, sink: &mut Sink) -> bool {
        let At::Json(calls) = &mut self.at else {
            return false;
        };
        let mut ended = None;
        for (at, char) in self.input.char_indices() {
            match calls.step(char, &self.tools, sink) {
                Step::Go => {}
                Step::Closed => ended = Some(at + char.len_utf8()),
                Step::GivenUp => {
                    sink.content(&calls.take_unread());
                    ended = Some(at);
                }
            }
            if ended.is_some() {
                self.at = At::Text;
                break;
            }
        }
        self.input.drain(..ended.unwrap_or(self.input.len()));
        ended.is_some()
    }

    fn block(&mut self, open: &'static str, searched: usize, sink: &mut Sink) -> bool {
        let Some((at, close)) = marks::first(&self.input[searched..], self.format.closes) else {
            let settled = searched + marks::settled(&self.input[searched..], self.format.closes);
            self.at = At::Block {
                open,
                searched: settled,
            };
            return false;
        };
        let rest = self.input.split_off(searched + at + close.len());
        let block = format!("{open}{}", std::mem::replace(&mut self.input, rest));
        self.decode(&block, sink);
        self.at = At::Text;
        true
    }

    /// Calls of tools that do not exist are left out; a block without any other is text.
    fn decode(&self, block: &str, sink: &mut Sink) {
        let Body::Block(read) = self.format.body else {
            return;
        };
        let is_known = |name: &str| self.tools.iter().any(|tool| tool.function.name == name);
        let mut calls = read(block, &self.tools);
        calls.retain(|(name, _)| is_known(name));
        if calls.is_empty() {
            sink.content(block);
        }
        for (name, arguments) in &calls {
            sink.call(name);
            sink.arguments(arguments);
        }
    }

    fn finish(&mut self, sink: &mut Sink) {
        let rest = std::mem::take(&mut self.input);
        match &mut self.at {
            At::Start | At::Text => sink.content(&rest),
            At::Json(calls) => calls.finish(sink),
            At::Block { open, .. } => {
                let block = format!("{open}{rest}");
                self.decode(&block, sink);
            }
        }
    }
}
