//! Constraints of requests: checked for size, and written in Lark's notation.

use serde_json::{Value, json};

use super::bounds::{CHOICE_BYTES, CHOICES, SCHEMA, TEXT};
use super::calls::{self, CallList};
use super::error::{GrammarError, Refusal};
use super::special_tokens::SpecialTokens;
use super::{context_free, lark, structural};

/// What an answer must look like.
#[derive(Clone, Debug, PartialEq)]
pub enum Constraint {
    /// Any JSON object.
    JsonObject,
    /// JSON that is valid under a schema.
    JsonSchema(Value),
    /// A list of calls of tools.
    Calls(CallList),
    /// Text that a regular expression matches completely.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// Text of a context-free grammar: Lark's notation as llguidance reads it, or GBNF (`root ::= …`).
    Grammar(String),
    /// Free text in which certain triggers begin a part with a form: vLLM's `structures` and `triggers`, or XGrammar's
    /// `format`.
    StructuralTag(Value),
}

impl Constraint {
    /// Its name in errors.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Constraint::JsonObject => "the JSON object",
            Constraint::JsonSchema(_) => "the JSON schema",
            Constraint::Calls(_) => "a tool's schema",
            Constraint::Regex(_) => "the regular expression",
            Constraint::Choice(_) => "the list of choices",
            Constraint::Grammar(_) => "the grammar",
            Constraint::StructuralTag(_) => "the structural tag",
        }
    }

    /// The grammar in Lark's notation, for a model with these special tokens.
    ///
    /// # Errors
    /// [`GrammarError::TooLarge`], or [`GrammarError::Unsupported`] for what is refused without compiling it.
    pub(super) fn lark(&self, tokens: &SpecialTokens) -> Result<String, GrammarError> {
        self.written(tokens).map_err(|refusal| refusal.of(self.name()))
    }

    fn written(&self, tokens: &SpecialTokens) -> Result<String, Refusal> {
        let start = |atom: String| format!("start: {atom}");
        match self {
            Constraint::JsonObject => lark::json(&json!({"type": "object"})).map(start),
            Constraint::JsonSchema(schema) => {
                SCHEMA.check(schema.to_string().len())?;
                lark::json(schema).map(start)
            }
            Constraint::Calls(list) => calls::lark(list),
            Constraint::Regex(regex) => {
                TEXT.check(regex.len())?;
                lark::regex(regex).map(start)
            }
            Constraint::Choice(choices) => one_of(choices),
            Constraint::Grammar(grammar) => {
                TEXT.check(grammar.len())?;
                context_free::lark(grammar)
            }
            Constraint::StructuralTag(tag) => {
                SCHEMA.check(tag.to_string().len())?;
                structural::lark(tag, tokens)
            }
        }
    }
}

fn one_of(choices: &[String]) -> Result<String, Refusal> {
    if choices.is_empty() {
        return Err("it is empty".into());
    }
    CHOICES.check(choices.len())?;
    CHOICE_BYTES.check(choices.iter().map(String::len).sum())?;
    let literals: Vec<String> = choices.iter().map(|choice| lark::literal(choice)).collect();
    Ok(format!("start: CHOICE\nCHOICE: {}", literals.join(" | ")))
}
