//! The bounds of constraints: how large and how deep what a request sends may be.

use std::collections::BTreeSet;

use serde_json::Value;

use super::error::Refusal;

/// The largest size of a part of a constraint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) size_max: usize,
    unit: &'static str,
}

/// Of a JSON schema, as JSON.
pub(super) const SCHEMA: Bound = Bound::new(1 << 20, "bytes");
/// Of a grammar or a regular expression.
pub(super) const TEXT: Bound = Bound::new(256 << 10, "bytes");
/// Of a grammar: the compiler recurses from one rule to the next.
pub(super) const RULES: Bound = Bound::new(2000, "rules");
/// Of the rules of a grammar: a row of the parser holds so many of them, and takes time with the square of its length.
pub(super) const ATOMS: Bound = Bound::new(4096, "names and literals in its rules");
/// Of a grammar or a schema: where many lexemes match one text, each mask takes time with the square of their number, and
/// the engine waits for the masks of all answers.
pub(super) const LEXEMES: Bound = Bound::new(512, "different terminals and regular expressions");
/// Of a structural tag: its formats and tags become rules.
pub(super) const FORMATS: Bound = Bound::new(4000, "formats and tags");
/// Of a JSON schema: compiling an object or a list of alternatives takes time with the square of its length. This takes
/// about a second.
pub(super) const SQUARES: Bound = Bound::new(10_000_000, "squares of its objects' and alternatives' numbers");
/// Of brackets inside brackets: parsers recurse there.
pub(super) const DEPTH: Bound = Bound::new(100, "levels of brackets");
/// Of the translation of GBNF: the items of all rules, times their ranges of characters, times the rounds until nothing
/// changes. This takes less than a second.
pub(super) const STEPS: Bound = Bound::new(10_000_000, "steps of translation");
/// Of the triggers, ends or excluded texts in one list of a structural tag: free text contains none of them.
pub(super) const TRIGGERS: Bound = Bound::new(64, "different triggers, ends or excluded texts");
/// Of a grammar in Lark's notation. A structural tag is written once for each trigger that begins it.
pub(super) const LARK: Bound = Bound::new(4 << 20, "bytes as a grammar");
/// Of nested repeats in a regular expression, multiplied. Each is a state of the lexer.
pub(super) const REPEATS: Bound = Bound::new(20_000, "nested repeats");
/// Of a list of choices.
pub(super) const CHOICES: Bound = Bound::new(10_000, "choices");
/// Of all choices together.
pub(super) const CHOICE_BYTES: Bound = Bound::new(256 << 10, "bytes");

impl Bound {
    const fn new(size_max: usize, unit: &'static str) -> Self {
        Self { size_max, unit }
    }

    /// # Errors
    /// [`Refusal::TooLarge`] for a size beyond the bound.
    pub(super) fn check(&self, size: usize) -> Result<(), Refusal> {
        let Self { size_max, unit } = *self;
        if size <= size_max {
            return Ok(());
        }
        Err(Refusal::TooLarge { size, unit, size_max })
    }
}

/// Checks how wide the objects and the lists of alternatives of a schema are, and how many patterns it has.
///
/// # Errors
/// [`Refusal::TooLarge`] for more than [`SQUARES`] or [`LEXEMES`].
pub(super) fn check_width(schema: &Value) -> Result<(), Refusal> {
    let mut n_squares = 0_usize;
    let mut patterns = BTreeSet::new();
    let mut rest = vec![schema];
    while let Some(value) = rest.pop() {
        match value {
            Value::Array(items) => rest.extend(items),
            Value::Object(fields) => {
                n_squares += fields.len() * fields.len();
                for (name, value) in fields {
                    if let ("anyOf" | "oneOf" | "allOf", Value::Array(items)) = (name.as_str(), value) {
                        n_squares += items.len() * items.len();
                    }
                    match (name.as_str(), value) {
                        ("pattern", Value::String(pattern)) => {
                            patterns.insert(pattern);
                        }
                        ("patternProperties", Value::Object(properties)) => {
                            patterns.extend(properties.keys())
                        }
                        _ => {}
                    }
                    if !matches!(name.as_str(), "const" | "enum") {
                        rest.push(value);
                    }
                }
            }
            _ => {}
        }
    }
    SQUARES.check(n_squares)?;
    LEXEMES.check(patterns.len())
}

/// Checks how many brackets are open at once, including those in strings.
///
/// # Errors
/// [`Refusal::TooLarge`] for more than [`DEPTH`].
pub(super) fn check_depth(text: &str) -> Result<(), Refusal> {
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    DEPTH.check(deepest)
}
