//! The list of calls that an answer must be: `[{"name": "get_weather", "parameters": {…}}]`.
//!
//! Each tool's schema stays a schema of its own. References, identifiers and definitions in it keep their meaning, which
//! they would lose in a schema around all of them.

use std::fmt::Write as _;

use serde_json::Value;

use super::bounds::SCHEMA;
use super::error::Refusal;
use super::lark::{self, BLANKS, literal};

/// A list of calls, of which there is at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct CallList {
    /// The tools that may be called.
    pub tools: Vec<CallableTool>,
    /// Whether there may be several calls.
    pub length: CallListLength,
}

/// A tool that may be called.
#[derive(Clone, Debug, PartialEq)]
pub struct CallableTool {
    /// Its name.
    pub name: String,
    /// The schema of its arguments.
    pub parameters: Value,
}

/// The number of calls in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallListLength {
    /// One.
    One,
    /// One or more.
    Any,
}

/// Writes a list of calls in Lark's notation.
///
/// # Errors
/// Why a tool's schema is refused.
pub(super) fn lark(list: &CallList) -> Result<String, Refusal> {
    let schemas = list.tools.iter().map(|tool| tool.parameters.to_string().len());
    SCHEMA.check(schemas.sum())?;
    let call = (0..list.tools.len()).map(|idx| format!("call{idx}"));
    let call = format!("({})", call.collect::<Vec<_>>().join(" | "));
    let more = match list.length {
        CallListLength::One => String::new(),
        CallListLength::Any => format!("(COMMA {call})*"),
    };
    let mut grammar = format!(
        "start: OPEN {call} {more} CLOSE\nBLANK: /{BLANKS}/\nOPEN: \"[\" BLANK?\nCOMMA: BLANK? \",\" BLANK?\nCLOSE: BLANK? \"]\"\n\
         END: BLANK? \"}}\"\n"
    );
    for (idx, CallableTool { name, parameters }) in list.tools.iter().enumerate() {
        let named = Value::from(name.as_str()).to_string();
        let words = ["{", "\"name\"", ":", &named, ",", "\"parameters\"", ":"];
        let words: Vec<String> = words.map(literal).into();
        let schema = lark::json(parameters)?;
        let _ = writeln!(
            grammar,
            "call{idx}: BEGIN{idx} arguments{idx} END\nBEGIN{idx}: {} BLANK?\narguments{idx}: {schema}",
            words.join(" BLANK? "),
        );
    }
    Ok(grammar)
}
