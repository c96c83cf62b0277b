//! Reasoning between two marks at the beginning of an answer.

use super::formats::Begins;
use super::marks;
use super::plan::Reasoning;
use super::sink::Sink;

#[derive(Debug)]
enum State {
    /// Only space so far; the opening mark may follow.
    Start(Begins),
    Inside,
    After,
}

/// Sends reasoning to the sink, and returns content.
#[derive(Debug)]
pub(super) struct ReasoningReader {
    open: &'static str,
    close: &'static str,
    state: State,
    /// Text that may become a mark.
    input: String,
}

impl ReasoningReader {
    pub(super) fn new(reasoning: Reasoning) -> Self {
        Self {
            open: reasoning.format.open,
            close: reasoning.format.close,
            state: State::Start(reasoning.begins),
            input: String::new(),
        }
    }

    /// Parses more text and returns its content.
    pub(super) fn push(&mut self, text: &str, sink: &mut Sink) -> String {
        self.input.push_str(text);
        if let State::Start(begins) = self.state {
            let trimmed = self.input.trim_start();
            if let Some(rest) = trimmed.strip_prefix(self.open) {
                self.input = rest.to_string();
                self.state = State::Inside;
            } else if self.open.starts_with(trimmed) {
                return String::new();
            } else {
                self.state = begun(begins);
            }
        }
        if matches!(self.state, State::Inside) {
            if let Some((start, mark)) = marks::first(&self.input, &[self.close]) {
                sink.reasoning(&self.input[..start]);
                self.input.drain(..start + mark.len());
                self.state = State::After;
            } else {
                let settled = marks::settled(&self.input, &[self.close]);
                sink.reasoning(&self.input[..settled]);
                self.input.drain(..settled);
            }
        }
        match self.state {
            State::After => std::mem::take(&mut self.input),
            State::Start(_) | State::Inside => String::new(),
        }
    }

    /// Ends the text and returns the remaining content.
    pub(super) fn finish(&mut self, sink: &mut Sink) -> String {
        let rest = std::mem::take(&mut self.input);
        if let State::Start(begins) = self.state {
            self.state = begun(begins);
        }
        if matches!(self.state, State::Inside) {
            sink.reasoning(&rest);
            return String::new();
        }
        rest
    }

    pub(super) fn is_inside(&self) -> bool {
        matches!(self.state, State::Inside | State::Start(Begins::Inside))
    }
}

fn begun(begins: Begins) -> State {
    match begins {
        Begins::Inside => State::Inside,
        Begins::Outside => State::After,
    }
}
