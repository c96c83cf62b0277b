//! How one answer is parsed: which reasoning and which calls it may contain.

use std::sync::Arc;

use openai_protocol::common::Tool;

use super::formats::{Begins, CallIds, ReasoningFormat, ToolFormat};

/// How an answer is parsed.
#[derive(Clone, Debug, Default)]
pub struct ParserPlan {
    /// The form of the reasoning; `None` if none is recognised.
    pub reasoning: Option<Reasoning>,
    /// The form of the calls; `None` if none are recognised.
    pub calls: Option<Calls>,
    /// Only the first call is kept.
    pub single_call: bool,
    /// Reasoning is recognised and left out.
    pub hides_reasoning: bool,
    /// The ids that the template accepts.
    pub ids: CallIds,
    /// Calls of the conversation before this answer.
    pub n_calls_before: usize,
}

/// How reasoning is written, and whether the prompt has already begun it.
#[derive(Clone, Copy, Debug)]
pub struct Reasoning {
    /// The format.
    pub format: &'static ReasoningFormat,
    /// Where the answer begins.
    pub begins: Begins,
}

/// How calls are written.
#[derive(Clone, Debug)]
pub enum Calls {
    /// In the model's own format; the model decides whether it calls.
    Chosen {
        /// The format.
        format: &'static ToolFormat,
        /// The tools that may be called.
        tools: Arc<[Tool]>,
    },
    /// The answer is a list of calls, which a grammar enforces.
    Listed {
        /// The tools that may be called.
        tools: Arc<[Tool]>,
    },
    /// The answer is the arguments of this tool, which a grammar enforces.
    Named {
        /// The name of the tool.
        name: String,
    },
}

impl ParserPlan {
    /// The format of calls that the model chooses to make.
    pub(super) fn chosen_format(&self) -> Option<&'static ToolFormat> {
        match &self.calls {
            Some(Calls::Chosen { format, .. }) => Some(format),
            Some(Calls::Listed { .. } | Calls::Named { .. }) | None => None,
        }
    }

    /// Whether the parser needs special tokens in the text.
    pub fn needs_special_tokens(&self) -> bool {
        self.chosen_format()
            .is_some_and(|format| format.has_special_marks)
            || self
                .reasoning
                .is_some_and(|reasoning| reasoning.format.has_special_marks)
    }
}
