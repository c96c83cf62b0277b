//! Calls as sections: `NAME\n{…}>>>NAME\n{…}`. The prompt has begun the first section, and one named `all` is content.

use std::sync::Arc;

use openai_protocol::common::Tool;

use super::formats::SECTION;
use super::marks;
use super::sink::Sink;

/// The name of a section with content.
const CONTENT: &str = "all";

/// Parses sections.
#[derive(Clone, Debug)]
pub(super) struct SectionReader {
    tools: Arc<[Tool]>,
    state: State,
    /// Text that is not parsed yet.
    input: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the end of a section's first line.
    Name,
    Arguments,
    Content,
}

impl SectionReader {
    pub(super) fn new(tools: Arc<[Tool]>) -> Self {
        Self {
            tools,
            state: State::Name,
            input: String::new(),
        }
    }

    pub(super) fn push(&mut self, text: &str, sink: &mut Sink) {
        self.input.push_str(text);
        while match self.state {
            State::Name => self.name(sink),
            State::Arguments | State::Content => self.body(sink),
        } {}
    }

    /// Reads the first line. One that names nothing is content.
    fn name(&mut self, sink: &mut Sink) -> bool {
        let Some(end) = self.input.find('\n') else {
            return false;
        };
        let line = self.input.drain(..=end).collect::<String>();
        let name = line.trim();
        if name.is_empty() {
            // Space before the name.
            return true;
        }
        self.state = State::Content;
        if self.tools.iter().any(|tool| tool.function.name == name) {
            sink.call(name, None);
            self.state = State::Arguments;
        } else if name != CONTENT {
            sink.content(&line);
        }
        true
    }

    /// Sends text up to the next section. Returns whether there is one.
    fn body(&mut self, sink: &mut Sink) -> bool {
        let next = marks::first(&self.input, &[SECTION]);
        let n_sent = next.map_or_else(|| marks::settled(&self.input, &[SECTION]), |(at, _)| at);
        let text = self.input.drain(..n_sent).collect::<String>();
        self.send(&text, sink);
        if next.is_some() {
            self.input.drain(..SECTION.len());
            self.state = State::Name;
        }
        next.is_some()
    }

    fn send(&self, text: &str, sink: &mut Sink) {
        match self.state {
            State::Arguments => sink.arguments(text),
            State::Name | State::Content => sink.content(text),
        }
    }

    /// Ends the text.
    pub(super) fn finish(&mut self, sink: &mut Sink) {
        let rest = std::mem::take(&mut self.input);
        self.send(&rest, sink);
    }
}
