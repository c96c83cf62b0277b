//! Context-free grammars of requests, in Lark's notation or in GBNF.

use super::bounds::{ATOMS, RULES, check_depth};
use super::content::Content;
use super::error::Refusal;
use super::gbnf::{self, is_gbnf};

/// A grammar in Lark's notation; GBNF is translated.
///
/// # Errors
/// Why the grammar is refused.
pub(super) fn lark(grammar: &str) -> Result<String, Refusal> {
    check_depth(grammar)?;
    RULES.check(n_rules(grammar))?;
    if grammar.trim().is_empty() {
        return Err("it is empty".into());
    }
    if is_gbnf(grammar) {
        return gbnf::translate(grammar);
    }
    ATOMS.check(Content::of(grammar).n_atoms)?;
    Ok(grammar.to_owned())
}

/// The rules of a grammar, or somewhat more: a line of Lark defines at most one.
fn n_rules(grammar: &str) -> usize {
    grammar.lines().filter(|line| line.contains(':')).count()
}
