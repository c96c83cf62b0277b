//! Constraints of requests, checked for size and written in llguidance's terms.

use std::fmt::Write as _;

use llguidance::regex_to_lark;
use serde_json::{Map, Value, json};

use super::GrammarError;
use super::closed::closed;
use super::gbnf::{is_gbnf, literal, to_lark};
use super::marks::Marks;
use super::structural;

/// Longest JSON schema, bytes of its JSON.
const SCHEMA_BYTES_MAX: usize = 1 << 20;
/// Longest grammar and longest regular expression, bytes.
const GRAMMAR_BYTES_MAX: usize = 256 << 10;
/// Rules of a grammar at most: the compiler recurses from one to the next.
pub(super) const RULES_MAX: usize = 2000;
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
    /// Text of a context-free grammar: Lark's notation as llguidance reads it, or GBNF (`root ::= …`).
    Grammar(String),
    /// Free text in which what follows certain triggers has a form of its own: vLLM's `structures` and `triggers`, or
    /// XGrammar's `format`.
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

    /// What llguidance compiles, in Lark's notation, for a model with these marks.
    ///
    /// # Errors
    /// [`GrammarError::TooLarge`], or [`GrammarError::Unsupported`] for what is refused without compiling it.
    pub(super) fn lark(&self, marks: &Marks) -> Result<String, GrammarError> {
        let unsupported = |reason| self.unsupported(reason);
        Ok(match self {
            Constraint::JsonObject => {
                let schema = json_grammar(&json!({"type": "object"})).map_err(unsupported)?;
                format!("start: {schema}")
            }
            Constraint::JsonSchema(schema) => {
                self.check_size(schema.to_string().len(), "bytes", SCHEMA_BYTES_MAX)?;
                format!("start: {}", json_grammar(schema).map_err(unsupported)?)
            }
            Constraint::Regex(regex) => {
                self.check_text(regex)?;
                format!("start: {}", regex_grammar(regex).map_err(unsupported)?)
            }
            Constraint::Choice(choices) => self.choices(choices)?,
            Constraint::Grammar(grammar) => {
                self.check_text(grammar)?;
                self.check_size(n_rules(grammar), "rules", RULES_MAX)?;
                lark_grammar(grammar).map_err(unsupported)?
            }
            Constraint::StructuralTag(tag) => {
                self.check_size(tag.to_string().len(), "bytes", SCHEMA_BYTES_MAX)?;
                structural::to_lark(tag, marks).map_err(unsupported)?
            }
        })
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
            let _ = write!(lark, "{separator}{}", literal(choice));
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

/// A schema as an atom of Lark, its objects closed, with the options that all schemas are compiled with.
///
/// # Errors
/// Why it is refused.
pub(super) fn json_grammar(schema: &Value) -> Result<String, String> {
    let mut keywords = match closed(schema.clone()) {
        Value::Object(keywords) => keywords,
        Value::Bool(true) => Map::new(),
        _ => return Err("a schema is an object".to_owned()),
    };
    if keywords.contains_key("x-guidance") {
        return Err("x-guidance is not open to requests".to_owned());
    }
    let options = json!({"whitespace_flexible": true, "whitespace_pattern": WHITESPACE});
    keywords.insert("x-guidance".to_owned(), options);
    Ok(format!("%json {}", Value::Object(keywords)))
}

/// A regular expression as an atom of Lark. `\d`, `\w` and `\s` are those of ASCII, which all dialects have in common.
///
/// # Errors
/// Why it is refused.
pub(super) fn regex_grammar(regex: &str) -> Result<String, String> {
    let regex = unanchored(regex);
    if regex.is_empty() {
        return Err("a regular expression is not empty".to_owned());
    }
    check_depth(regex)?;
    Ok(format!("/{}/", regex_to_lark(regex, "dws")))
}

/// A grammar in Lark's notation, whichever it came in.
///
/// # Errors
/// Why it is refused.
pub(super) fn lark_grammar(grammar: &str) -> Result<String, String> {
    if grammar.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    check_depth(grammar)?;
    if n_rules(grammar) > RULES_MAX {
        return Err(format!("more than {RULES_MAX} rules"));
    }
    if is_gbnf(grammar) {
        return to_lark(grammar);
    }
    Ok(grammar.to_owned())
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

/// Rules of a grammar, or somewhat more: a line defines one at most.
fn n_rules(grammar: &str) -> usize {
    grammar.lines().filter(|line| line.contains(':')).count()
}

fn check_depth(text: &str) -> Result<(), String> {
    if depth(text) > DEPTH_MAX {
        return Err(format!("more than {DEPTH_MAX} brackets are open at once"));
    }
    Ok(())
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
