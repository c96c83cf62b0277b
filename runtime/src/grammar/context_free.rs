//! Context-free grammars of requests, in Lark's notation or in GBNF.

use super::bounds::{ATOMS, RULES, check_depth};
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
    ATOMS.check(n_atoms(grammar))?;
    Ok(grammar.to_owned())
}

/// The names, texts and regular expressions in the rules of a grammar in Lark's notation, or somewhat more. A terminal,
/// whose name is in capitals, is no rule: it becomes part of the lexer, which has bounds of its own.
fn n_atoms(grammar: &str) -> usize {
    let mut is_terminal = false;
    let mut n_atoms = 0;
    for line in grammar.lines() {
        if let Some((name, _)) = line.split_once(':')
            && !name.contains(['"', '/'])
        {
            let first = name.chars().find(|char| char.is_alphabetic());
            is_terminal = first.is_some_and(char::is_uppercase);
        }
        if !is_terminal {
            n_atoms += n_atoms_of_line(line);
        }
    }
    n_atoms
}

fn n_atoms_of_line(line: &str) -> usize {
    let mut n_atoms = 0;
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let n_bytes = match first {
            '/' if rest.starts_with("//") => return n_atoms,
            '"' | '/' => literal_bytes(rest),
            _ if is_of_name(first) => rest.find(|char| !is_of_name(char)).unwrap_or(rest.len()),
            _ => 0,
        };
        n_atoms += usize::from(n_bytes > 0);
        rest = &rest[n_bytes.max(first.len_utf8())..];
    }
    n_atoms
}

fn is_of_name(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// The length of the text or regular expression that a line begins with, in bytes; 0 if it has no end.
fn literal_bytes(line: &str) -> usize {
    let bytes = line.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != bytes[0] {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    if at < bytes.len() { at + 1 } else { 0 }
}

/// The rules of a grammar, or somewhat more: a line of Lark defines at most one.
fn n_rules(grammar: &str) -> usize {
    grammar.lines().filter(|line| line.contains(':')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atoms_of_rules_are_counted() {
        let grammar = r#"start: a "b c"? /d[e"f]\/g/ ("\"" | <h>)* // i j
            | k
            A: "l" | "m"
             | "n"
            ?o: "p"~2"#;
        let in_start = ["start", "a", "b c", "d", "quote", "h", "k"].len();
        let in_o = ["o", "p", "2"].len();
        assert_eq!(n_atoms(grammar), in_start + in_o);
        assert_eq!(n_atoms(&format!("start: {}", "\"a\"? ".repeat(5000))), 5001);
        assert_eq!(n_atoms("start: \"a b"), 3);
    }
}
