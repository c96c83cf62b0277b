//! Lark's notation, which llguidance compiles: its literals, and schemas and regular expressions as atoms of a rule.

use llguidance::regex_to_lark;
use serde_json::{Map, Value, json};

use super::bounds::{check_depth, check_width};
use super::error::Refusal;
use super::keywords::follow_keywords;
use super::repeats::check_repeats;
use super::schema::close_objects;

/// The empty text.
pub(super) const EMPTY: &str = "\"\"";

/// Blanks between the parts of a JSON text, at most: one space, or a new line and its indentation. Without this bound,
/// a weak model writes blanks without end.
pub(super) const BLANKS: &str = r"( |\n[ ]{0,32})";

/// A text as a literal.
pub(super) fn literal(text: &str) -> String {
    Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}

/// A grammar as an atom of another.
pub(super) fn nested(grammar: &str) -> String {
    format!("%lark {{\n{grammar}\n}}")
}

/// A schema as an atom. Its objects are closed, and all schemas are compiled with the same options.
///
/// # Errors
/// Why the schema is refused.
pub(super) fn json(schema: &Value) -> Result<String, Refusal> {
    check_width(schema)?;
    let mut schema = schema.clone();
    follow_keywords(&mut schema)?;
    let mut keywords = match close_objects(schema) {
        Value::Object(keywords) => keywords,
        Value::Bool(true) => Map::new(),
        _ => return Err("a schema must be an object".into()),
    };
    if keywords.contains_key("x-guidance") {
        return Err("x-guidance is not allowed in a request".into());
    }
    let options = json!({"whitespace_flexible": true, "whitespace_pattern": BLANKS});
    keywords.insert("x-guidance".to_owned(), options);
    Ok(format!("%json {}", Value::Object(keywords)))
}

/// A regular expression as an atom. `\d`, `\w` and `\s` match ASCII characters only, which they match in all dialects.
///
/// # Errors
/// Why the expression is refused.
pub(super) fn regex(regex: &str) -> Result<String, Refusal> {
    let regex = unanchored(regex);
    if regex.is_empty() {
        return Err("a regular expression must not be empty".into());
    }
    check_depth(regex)?;
    check_repeats(regex)?;
    Ok(format!("/{}/", regex_to_lark(regex, "dws")))
}

/// Removes the anchors at both ends, which change nothing: the expression always matches the complete text.
fn unanchored(regex: &str) -> &str {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    let Some(rest) = regex.strip_suffix('$') else {
        return regex;
    };
    let n_backslashes = rest.len() - rest.trim_end_matches('\\').len();
    if n_backslashes % 2 == 0 { rest } else { regex }
}
