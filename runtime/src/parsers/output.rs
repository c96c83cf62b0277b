//! The parser of one answer: reasoning first, then calls and content.

use std::sync::Arc;

use smallvec::smallvec;

use super::calls::{CallReader, push_content};
use super::harmony::HarmonyReader;
use super::piece::{Piece, Pieces};
use super::plan::{Calls, ParserPlan};
use super::reasoning::{Held, ReasoningReader};
use super::sink::Sink;

/// Parses one answer incrementally.
#[derive(Debug)]
pub struct OutputParser {
    reasoning: Option<ReasoningParser>,
    calls: Option<CallReader>,
    sink: Sink,
}

/// Separates reasoning from content.
#[derive(Debug)]
enum ReasoningParser {
    /// Reasoning between two marks.
    Marked(ReasoningReader),
    /// Messages, some of which are reasoning or calls.
    Messages(HarmonyReader),
}

impl ReasoningParser {
    fn new(plan: &ParserPlan) -> Option<Self> {
        let tools = match &plan.calls {
            Some(Calls::Chosen { format, tools }) if format.has_messages() => Some(Arc::clone(tools)),
            Some(_) | None => None,
        };
        match plan.reasoning {
            Some(reasoning) if !reasoning.format.has_messages && tools.is_none() => Some(Self::Marked(
                ReasoningReader::new(reasoning, plan.chosen_format()),
            )),
            None if tools.is_none() => None,
            Some(_) | None => Some(Self::Messages(HarmonyReader::new(tools.unwrap_or_default()))),
        }
    }

    /// Parses more text. Passes its content on to `calls`.
    fn push(&mut self, text: &str, calls: &mut Option<CallReader>, sink: &mut Sink) {
        match self {
            Self::Marked(reader) => {
                let content = reader.push(text, sink);
                push_content(calls, &content, sink);
            }
            Self::Messages(reader) => reader.push(text, calls, sink),
        }
    }

    fn finish(&mut self, calls: &mut Option<CallReader>, sink: &mut Sink) {
        match self {
            Self::Marked(reader) => match reader.finish(sink) {
                Held::Content(content) => push_content(calls, &content, sink),
                // The model did not end its reasoning before the call.
                Held::Calls(text) if calls.as_ref().is_some_and(|calls| calls.finds_call(&text)) => {
                    push_content(calls, &text, sink);
                }
                Held::Calls(text) => sink.reasoning(&text),
            },
            Self::Messages(reader) => reader.finish(calls, sink),
        }
    }

    fn is_inside(&self) -> bool {
        match self {
            Self::Marked(reader) => reader.is_inside(),
            Self::Messages(reader) => reader.is_inside(),
        }
    }
}

impl OutputParser {
    /// A parser of one answer.
    pub fn new(plan: &ParserPlan) -> Self {
        Self {
            reasoning: ReasoningParser::new(plan),
            calls: plan.calls.clone().and_then(CallReader::new),
            sink: Sink::new(plan),
        }
    }

    /// Parses more text and returns its pieces.
    pub fn push(&mut self, text: String) -> Pieces {
        match (&mut self.reasoning, &mut self.calls) {
            (None, None) if text.is_empty() => return Pieces::new(),
            (None, None) => return smallvec![Piece::Content(text)],
            (None, Some(calls)) => calls.push(&text, &mut self.sink),
            (Some(reasoning), calls) => reasoning.push(&text, calls, &mut self.sink),
        }
        self.sink.take()
    }

    /// Ends the text and returns the last pieces. The caller must not push after this.
    pub fn finish(&mut self) -> Pieces {
        if let Some(reasoning) = &mut self.reasoning {
            reasoning.finish(&mut self.calls, &mut self.sink);
        }
        if let Some(calls) = &mut self.calls {
            calls.finish(&mut self.sink);
        }
        self.sink.finish();
        self.sink.take()
    }

    /// Whether the next text continues reasoning, judged by the text so far.
    pub fn is_reasoning(&self) -> bool {
        self.reasoning.as_ref().is_some_and(ReasoningParser::is_inside)
    }
}
