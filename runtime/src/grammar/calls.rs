//! The list of calls that an answer must be: `[{"name": "get_weather", "parameters": {…}}]`.
//!
//! Each tool's schema stays a schema of its own. References, identifiers and definitions in it keep their meaning, which
//! they would lose in a schema around all of them.

use std::collections::BTreeMap;
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
    let call = format!("OPEN ({}) CLOSE", call.collect::<Vec<_>>().join(" | "));
    let more = match list.length {
        CallListLength::One => "",
        CallListLength::Any => "(COMMA call)*",
    };
    let mut grammar = format!(
        "start: BEGIN call {more} END\ncall: {call}\nBLANK: /{BLANKS}/\n\
         BEGIN: \"[\" BLANK?\nCOMMA: BLANK? \",\" BLANK?\nEND: BLANK? \"]\"\n\
         OPEN: {}\nPARAMETERS: BLANK? {}\nCLOSE: BLANK? \"}}\"\n",
        spaced(["{", "\"name\"", ":"]),
        spaced([",", "\"parameters\"", ":"]),
    );
    // Tools often have equal schemas, each of which is compiled once.
    let mut compiled: BTreeMap<String, usize> = BTreeMap::new();
    for (idx, CallableTool { name, parameters }) in list.tools.iter().enumerate() {
        let named = literal(&Value::from(name.as_str()).to_string());
        let schema = lark::json(parameters)?;
        let schema_idx = *compiled.entry(schema.clone()).or_insert(idx);
        let _ = writeln!(grammar, "call{idx}: {named} PARAMETERS arguments{schema_idx}");
        if schema_idx == idx {
            let _ = writeln!(grammar, "arguments{idx}: {schema}");
        }
    }
    Ok(grammar)
}

/// Words with optional blanks after each.
fn spaced(words: [&str; 3]) -> String {
    words.map(|word| format!("{} BLANK?", literal(word))).join(" ")
}
