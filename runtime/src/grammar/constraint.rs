//! Constraints of requests, checked for size and written in llguidance's terms.

use std::fmt::Write as _;

use llguidance::api::TopLevelGrammar;
use serde_json::{Map, Value, json};

use super::GrammarError;

/// Longest JSON schema, bytes of its JSON.
const SCHEMA_BYTES_MAX: usize = 1 << 20;
/// Longest grammar and longest regular expression, bytes.
const GRAMMAR_BYTES_MAX: usize = 256 << 10;
/// Choices at most.
const CHOICES_MAX: usize = 10_000;
/// Bytes of all choices together, at most.
const CHOICE_BYTES_MAX: usize = 256 << 10;
/// Brackets inside brackets, at most: parsers recurse there.
const DEPTH_MAX: usize = 100;

/// Blanks between the parts of a JSON text, at most: one space, or a new line and its indentation. A weak model would
/// otherwise write nothing but blanks.
const WHITESPACE: &str = r"( |\n[ ]{0,32})";

/// What an answer must look like.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// Any JSON object.
    JsonObject,
    /// JSON that a schema describes.
    JsonSchema(Value),
    /// Text that a regular expression matches as a whole.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// Text of a context-free grammar: Lark's notation as llguidance reads it.
    Grammar(String),
    /// Free text in which what follows certain triggers has a form of its own.
    StructuralTag(Value),
}

impl Constraint {
    /// Its name for errors.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Constraint::JsonObject => "the JSON object",
            Constraint::JsonSchema(_) => "the JSON schema",
            Constraint::Regex(_) => "the regular expression",
            Constraint::Choice(_) => "the list of choices",
            Constraint::Grammar(_) => "the grammar",
            Constraint::StructuralTag(_) => "the structural tag",
        }
    }

    /// What llguidance compiles.
    ///
    /// # Errors
    /// [`GrammarError::TooLarge`], or [`GrammarError::Unsupported`] for what is refused without compiling it.
    pub(super) fn source(&self) -> Result<TopLevelGrammar, GrammarError> {
        let source = match self {
            Constraint::JsonObject => {
                TopLevelGrammar::from_json_schema(self.schema(&json!({"type": "object"}))?)
            }
            Constraint::JsonSchema(schema) => TopLevelGrammar::from_json_schema(self.schema(schema)?),
            Constraint::Regex(regex) => {
                self.check_text(regex)?;
                TopLevelGrammar::from_regex(unanchored(regex))
            }
            Constraint::Choice(choices) => TopLevelGrammar::from_lark(self.choices(choices)?),
            Constraint::Grammar(grammar) => {
                self.check_text(grammar)?;
                TopLevelGrammar::from_lark(grammar.clone())
            }
            Constraint::StructuralTag(_) => {
                return Err(self.unsupported("structural tags are not supported yet"));
            }
        };
        Ok(source)
    }

    /// A schema with the options that it is compiled with.
    fn schema(&self, schema: &Value) -> Result<Value, GrammarError> {
        self.check_size(schema.to_string().len(), "bytes", SCHEMA_BYTES_MAX)?;
        let mut keywords = match schema {
            Value::Object(keywords) => keywords.clone(),
            Value::Bool(true) => Map::new(),
            _ => return Err(self.unsupported("it is not an object")),
        };
        if keywords.contains_key("x-guidance") {
            return Err(self.unsupported("x-guidance is not open to requests"));
        }
        let options = json!({"whitespace_flexible": true, "whitespace_pattern": WHITESPACE});
        keywords.insert("x-guidance".to_owned(), options);
        Ok(Value::Object(keywords))
    }

    fn choices(&self, choices: &[String]) -> Result<String, GrammarError> {
        if choices.is_empty() {
            return Err(self.unsupported("it is empty"));
        }
        self.check_size(choices.len(), "choices", CHOICES_MAX)?;
        let n_bytes = choices.iter().map(String::len).sum();
        self.check_size(n_bytes, "bytes", CHOICE_BYTES_MAX)?;
        let mut lark = "start: CHOICE\nCHOICE: ".to_owned();
        for (idx, choice) in choices.iter().enumerate() {
            let separator = if idx == 0 { "" } else { " | " };
            write!(lark, "{separator}{}", Value::from(choice.as_str()))
                .map_err(|error| self.unsupported(error))?;
        }
        Ok(lark)
    }

    fn check_text(&self, text: &str) -> Result<(), GrammarError> {
        self.check_size(text.len(), "bytes", GRAMMAR_BYTES_MAX)?;
        self.check_size(depth(text), "levels of brackets", DEPTH_MAX)
    }

    fn check_size(&self, size: usize, unit: &'static str, size_max: usize) -> Result<(), GrammarError> {
        if size <= size_max {
            return Ok(());
        }
        Err(GrammarError::TooLarge {
            what: self.name(),
            size,
            unit,
            size_max,
        })
    }

    fn unsupported(&self, reason: impl ToString) -> GrammarError {
        GrammarError::Unsupported {
            what: self.name(),
            reason: reason.to_string(),
        }
    }
}

/// A regular expression without the anchors that say what holds anyway: that it matches the whole text.
fn unanchored(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    let Some(rest) = regex.strip_suffix('$') else {
        return regex;
    };
    let n_backslashes = rest.len() - rest.trim_end_matches('\\').len();
    if n_backslashes % 2 == 0 { rest } else { regex }
}

/// Brackets that are open at once at most, those in strings included.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
