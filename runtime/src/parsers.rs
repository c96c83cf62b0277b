//! Parses the text of an answer into reasoning, content and tool calls.
//!
//! Owns the formats in which models write reasoning and calls, and their incremental parsers. Each state advances by
//! characters, so the result does not depend on how the text was split into chunks: streams and complete answers cannot
//! differ. A call that cannot be parsed is content. Must not know requests, OpenAI's responses or tokens.

mod arguments;
mod calls;
mod choice;
mod formats;
mod harmony;
mod json_calls;
mod json_text;
mod marks;
mod output;
mod piece;
mod plan;
mod pythonic;
mod reasoning;
mod recognition;
mod sections;
mod sink;
mod tagged;

pub use choice::{FormatNames, Formats, UnknownParser};
pub use formats::{Begins, CallIds, ReasoningFormat, ToolFormat};
pub use output::OutputParser;
pub use piece::{Call, Parts, Piece, Pieces};
pub use plan::{Calls, ParserPlan, Reasoning};
pub use recognition::{Render, Template};

#[cfg(test)]
mod tests;
