//! Thoughts: what stands between two marks at the beginning of an answer.

use super::sink::Sink;
use super::{Begins, Reasoning, marks};

#[derive(Debug)]
enum At {
    /// Nothing but space so far, so that the opening mark may still come.
    Start(Begins),
    Inside,
    Behind,
}

/// Gives thoughts to the sink, and content back.
#[derive(Debug)]
pub(super) struct ReasoningReader {
    open: &'static str,
    close: &'static str,
    at: At,
    /// Text that may become a mark.
    input: String,
}

impl ReasoningReader {
    pub(super) fn new(reasoning: Reasoning) -> Self {
        Self {
            open: reasoning.format.open,
            close: reasoning.format.close,
            at: At::Start(reasoning.begins),
            input: String::new(),
        }
    }

    /// Takes more text and returns what of it is content.
    pub(super) fn push(&mut self, text: &str, sink: &mut Sink) -> String {
        self.input.push_str(text);
        if let At::Start(begins) = self.at {
            let trimmed = self.input.trim_start();
            if let Some(rest) = trimmed.strip_prefix(self.open) {
                self.input = rest.to_string();
                self.at = At::Inside;
            } else if self.open.starts_with(trimmed) {
                return String::new();
            } else {
                self.at = begun(begins);
            }
        }
        if matches!(self.at, At::Inside) {
            if let Some((at, mark)) = marks::first(&self.input, &[self.close]) {
                sink.reasoning(&self.input[..at]);
                self.input.drain(..at + mark.len());
                self.at = At::Behind;
            } else {
                let settled = marks::settled(&self.input, &[self.close]);
                sink.reasoning(&self.input[..settled]);
                self.input.drain(..settled);
            }
        }
        match self.at {
            At::Behind => std::mem::take(&mut self.input),
            At::Start(_) | At::Inside => String::new(),
        }
    }

    /// Takes the end of the text and returns what was held of content.
    pub(super) fn finish(&mut self, sink: &mut Sink) -> String {
        let rest = std::mem::take(&mut self.input);
        if let At::Start(begins) = self.at {
            self.at = begun(begins);
        }
        if matches!(self.at, At::Inside) {
            sink.reasoning(&rest);
            return String::new();
        }
        rest
    }

    pub(super) fn is_inside(&self) -> bool {
        matches!(self.at, At::Inside | At::Start(Begins::Inside))
    }
}

fn begun(begins: Begins) -> At {
    match begins {
        Begins::Inside => At::Inside,
        Begins::Outside => At::Behind,
    }
}
