//! Reasoning between two marks at the beginning of an answer.
//!
//! A model may call a tool without ending its reasoning, and it may also mention the marks of calls in its reasoning. So
//! the text from such a mark on is held until it is known what it is: the end of the answer decides for a call.

use super::formats::{Begins, ToolFormat};
use super::marks;
use super::plan::Reasoning;
use super::sink::Sink;

#[derive(Debug)]
enum State {
    /// Only space so far; the opening mark may follow.
    Start(Begins),
    Inside,
    /// Inside; the text begins with a mark that begins calls.
    InsideCalls,
    After,
}

/// The rest of an answer.
#[derive(Debug)]
pub(super) enum Held {
    /// It is content.
    Content(String),
    /// It follows a mark of calls inside the reasoning.
    Calls(String),
}

/// Sends reasoning to the sink, and returns content.
#[derive(Debug)]
pub(super) struct ReasoningReader {
    open: &'static str,
    close: &'static str,
    /// The format of calls that the reasoning may end with.
    calls: Option<&'static ToolFormat>,
    state: State,
    /// Text that may become a mark.
    input: String,
}

impl ReasoningReader {
    pub(super) fn new(reasoning: Reasoning, calls: Option<&'static ToolFormat>) -> Self {
        Self {
            open: reasoning.format.open,
            close: reasoning.format.close,
            calls,
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
        while match self.state {
            State::Inside => self.inside(sink),
            State::InsideCalls => self.inside_calls(sink),
            State::Start(_) | State::After => false,
        } {}
        match self.state {
            State::After => std::mem::take(&mut self.input),
            State::Start(_) | State::Inside | State::InsideCalls => String::new(),
        }
    }

    /// Sends reasoning up to the next mark. Returns whether there is one.
    fn inside(&mut self, sink: &mut Sink) -> bool {
        let opens = self.calls.map_or(&[][..], |format| format.opens);
        let all: Vec<&'static str> = opens.iter().copied().chain([self.close]).collect();
        let Some((start, mark)) = marks::first(&self.input, &all) else {
            self.send(marks::settled(&self.input, &all), sink);
            return false;
        };
        self.send(start, sink);
        if mark == self.close {
            self.input.drain(..mark.len());
            self.state = State::After;
        } else {
            self.state = State::InsideCalls;
        }
        true
    }

    /// Waits until it is known whether the held text is a call. It is not if the reasoning goes on after it.
    fn inside_calls(&mut self, sink: &mut Sink) -> bool {
        let Some(format) = self.calls else { return false };
        let end = marks::first(&self.input, &[self.close]);
        let closed = marks::first(&self.input, format.closes);
        let n_reasoning = match (closed, end) {
            (Some((at, close)), None) => {
                let rest = self.input[at + close.len()..].trim_start();
                let begins = |mark: &&str| mark.starts_with(rest) || rest.starts_with(*mark);
                if format.opens.iter().chain(format.closes).any(begins) || self.close.starts_with(rest) {
                    return false;
                }
                self.input.len() - rest.len()
            }
            (_, Some((at, _))) => at,
            (None, None) => return false,
        };
        self.send(n_reasoning, sink);
        self.state = State::Inside;
        true
    }

    fn send(&mut self, n_bytes: usize, sink: &mut Sink) {
        sink.reasoning(&self.input[..n_bytes]);
        self.input.drain(..n_bytes);
    }

    /// Ends the text and returns its rest.
    pub(super) fn finish(&mut self, sink: &mut Sink) -> Held {
        let rest = std::mem::take(&mut self.input);
        if let State::Start(begins) = self.state {
            self.state = begun(begins);
        }
        let has_end = |format: &ToolFormat| format.closes.iter().any(|close| rest.contains(close));
        match self.state {
            State::InsideCalls
                if self
                    .calls
                    .is_some_and(|format| format.closes.is_empty() || has_end(format)) =>
            {
                Held::Calls(rest)
            }
            State::Inside | State::InsideCalls => {
                sink.reasoning(&rest);
                Held::Content(String::new())
            }
            State::Start(_) | State::After => Held::Content(rest),
        }
    }

    pub(super) fn is_inside(&self) -> bool {
        matches!(
            self.state,
            State::Inside | State::InsideCalls | State::Start(Begins::Inside)
        )
    }
}

fn begun(begins: Begins) -> State {
    match begins {
        Begins::Inside => State::Inside,
        Begins::Outside => State::After,
    }
}
