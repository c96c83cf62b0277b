//! The text of an answer becomes reasoning, content and tool calls.
//!
//! Owns the formats in which models write their thoughts and calls, and the reading of them piece by piece. Every state
//! advances over characters, never over whole pushes, so that a text gives the same answer however it was cut on its
//! way: streams and whole answers cannot differ. A call that cannot be read is text. Must not know requests, OpenAI's
//! shapes or tokens.

mod calls;
mod formats;
mod harmony;
mod json_calls;
mod marks;
mod pythonic;
mod reasoning;
mod sink;

use std::sync::Arc;

use openai_protocol::common::Tool;
use smallvec::{SmallVec, smallvec};

use calls::CallReader;
pub use formats::{FormatNames, Formats, ReasoningFormat, ToolFormat, UnknownParser};
use harmony::HarmonyReader;
use reasoning::ReasoningReader;
use sink::Sink;

/// A part of an answer. Texts and arguments of successive pieces belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Thoughts.
    Reasoning(String),
    /// Text for the user.
    Content(String),
    /// A call begins.
    Call {
        /// Which call of the answer.
        index: usize,
        /// Unique to the call.
        id: String,
        /// The tool.
        name: String,
    },
    /// More of a call's arguments: a part of a JSON text.
    Arguments {
        /// Which call of the answer.
        index: usize,
        /// The part.
        text: String,
    },
}

/// What one token says: mostly one piece, which then is on no heap.
pub type Pieces = SmallVec<[Piece; 1]>;

/// The parts of an answer, put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Thoughts.
    pub reasoning: String,
    /// Text for the user.
    pub content: String,
    /// Calls in their order.
    pub calls: Vec<Call>,
}

/// A whole call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Unique to the call.
    pub id: String,
    /// The tool.
    pub name: String,
    /// A JSON text, if the answer was not cut off in it.
    pub arguments: String,
}

impl Extend<Piece> for Parts {
    fn extend<T: IntoIterator<Item = Piece>>(&mut self, pieces: T) {
        for piece in pieces {
            match piece {
                Piece::Reasoning(text) => self.reasoning.push_str(&text),
                Piece::Content(text) => self.content.push_str(&text),
                Piece::Call { id, name, .. } => self.calls.push(Call {
                    id,
                    name,
                    arguments: String::new(),
                }),
                Piece::Arguments { index, text } => {
                    if let Some(call) = self.calls.get_mut(index) {
                        call.arguments.push_str(&text);
                    }
                }
            }
        }
    }
}

/// How an answer is taken apart.
#[derive(Clone, Debug, Default)]
pub struct ParserPlan {
    /// Where thoughts stand; `None`: there are none to be found.
    pub reasoning: Option<Reasoning>,
    /// Where calls stand; `None`: there are none to be found.
    pub calls: Option<Calls>,
    /// Calls after the first are left out.
    pub single_call: bool,
    /// Thoughts are found and left out.
    pub hides_reasoning: bool,
}

/// How thoughts are written, and whether the prompt already began them.
#[derive(Clone, Copy, Debug)]
pub struct Reasoning {
    /// The marks.
    pub format: &'static ReasoningFormat,
    /// Where the answer begins.
    pub begins: Begins,
}

/// Where an answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// With content, unless the model opens its thoughts first.
    Outside,
    /// Inside the thoughts.
    Inside,
}

/// How calls are written.
#[derive(Clone, Debug)]
pub enum Calls {
    /// In the model's own format, if it makes any.
    Chosen {
        /// The format.
        format: &'static ToolFormat,
        /// What may be called.
        tools: Arc<[Tool]>,
    },
    /// The answer is a list of calls, because a grammar makes it one.
    Listed {
        /// What may be called.
        tools: Arc<[Tool]>,
    },
    /// The answer is the arguments of this tool, because a grammar makes it so.
    Named {
        /// The tool.
        name: String,
    },
}

impl ParserPlan {
    /// Whether the marks are special tokens, which a text without those would lose.
    pub fn needs_special_tokens(&self) -> bool {
        let calls = match &self.calls {
            Some(Calls::Chosen { format, .. }) => format.has_special_marks,
            Some(Calls::Listed { .. } | Calls::Named { .. }) | None => false,
        };
        calls
            || self
                .reasoning
                .is_some_and(|reasoning| reasoning.format.has_special_marks)
    }
}

/// Takes one answer apart as it arrives.
#[derive(Debug)]
pub struct OutputParser {
    thoughts: Option<Thoughts>,
    calls: Option<CallReader>,
    sink: Sink,
}

/// Finds what is not content.
#[derive(Debug)]
enum Thoughts {
    Marked(ReasoningReader),
    Messages(HarmonyReader),
}

impl Thoughts {
    fn new(plan: &ParserPlan) -> Option<Self> {
        let tools = match &plan.calls {
            Some(Calls::Chosen { format, tools }) if format.has_messages() => Some(Arc::clone(tools)),
            Some(_) | None => None,
        };
        match plan.reasoning {
            Some(reasoning) if !reasoning.format.has_messages && tools.is_none() => {
                Some(Self::Marked(ReasoningReader::new(reasoning)))
            }
            None if tools.is_none() => None,
            Some(_) | None => Some(Self::Messages(HarmonyReader::new(tools.unwrap_or_default()))),
        }
    }

    /// Takes more text; what of it is content goes to `calls`.
    fn push(&mut self, text: &str, calls: &mut Option<CallReader>, sink: &mut Sink) {
        match self {
            Self::Marked(reader) => {
                let content = reader.push(text, sink);
                content_to(calls, &content, sink);
            }
            Self::Messages(reader) => reader.push(text, calls, sink),
        }
    }

    fn finish(&mut self, calls: &mut Option<CallReader>, sink: &mut Sink) {
        match self {
            Self::Marked(reader) => {
                let content = reader.finish(sink);
                content_to(calls, &content, sink);
            }
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
        let id_length = match &plan.calls {
            Some(Calls::Chosen { format, .. }) => format.id_length,
            Some(Calls::Listed { .. } | Calls::Named { .. }) | None => None,
        };
        Self {
            thoughts: Thoughts::new(plan),
            calls: plan.calls.clone().and_then(CallReader::new),
            sink: Sink::new(plan, id_length),
        }
    }

    /// What more of the text says.
    pub fn push(&mut self, text: String) -> Pieces {
        match (&mut self.thoughts, &mut self.calls) {
            (None, None) if text.is_empty() => return Pieces::new(),
            (None, None) => return smallvec![Piece::Content(text)],
            (None, Some(calls)) => calls.push(&text, &mut self.sink),
            (Some(thoughts), calls) => thoughts.push(&text, calls, &mut self.sink),
        }
        self.sink.take()
    }

    /// What the end of the text says. Nothing may be pushed after it.
    pub fn finish(&mut self) -> Pieces {
        if let Some(thoughts) = &mut self.thoughts {
            thoughts.finish(&mut self.calls, &mut self.sink);
        }
        if let Some(calls) = &mut self.calls {
            calls.finish(&mut self.sink);
        }
        self.sink.finish();
        self.sink.take()
    }

    /// Whether what comes next is a thought, as far as the text so far can tell.
    pub fn is_reasoning(&self) -> bool {
        self.thoughts.as_ref().is_some_and(Thoughts::is_inside)
    }
}

fn content_to(calls: &mut Option<CallReader>, content: &str, sink: &mut Sink) {
    match calls {
        Some(calls) => calls.push(content, sink),
        None => sink.content(content),
    }
}

#[cfg(test)]
mod tests;
