//! What a grammar in Lark's notation contains: how many names and literals, and which lexemes.
//!
//! The counts may be somewhat too large. A terminal, whose name is in capitals, is no rule but a lexeme.

use std::collections::BTreeSet;

/// What a grammar contains.
#[derive(Debug, Default)]
pub(super) struct Content<'a> {
    /// Names, texts and regular expressions in its rules.
    pub(super) n_atoms: usize,
    n_terminals: usize,
    /// The regular expressions in its rules.
    regexes: BTreeSet<&'a str>,
}

impl<'a> Content<'a> {
    /// What `grammar` contains.
    pub(super) fn of(grammar: &'a str) -> Self {
        let mut content = Self::default();
        let mut is_terminal = false;
        for line in grammar.lines() {
            if let Some((name, _)) = line.split_once(':')
                && !name.contains(['"', '/'])
            {
                let first = name.chars().find(|char| char.is_alphabetic());
                is_terminal = first.is_some_and(char::is_uppercase);
                content.n_terminals += usize::from(is_terminal);
            }
            if !is_terminal {
                content.add(line);
            }
        }
        content
    }

    /// Different terminals and regular expressions.
    pub(super) fn n_lexemes(&self) -> usize {
        self.n_terminals + self.regexes.len()
    }

    /// Adds a line of a rule.
    fn add(&mut self, line: &'a str) {
        let mut rest = line;
        while let Some(first) = rest.chars().next() {
            let n_bytes = match first {
                '/' if rest.starts_with("//") => return,
                '"' | '/' => literal_bytes(rest),
                _ if is_of_name(first) => rest.find(|char| !is_of_name(char)).unwrap_or(rest.len()),
                _ => 0,
            };
            self.n_atoms += usize::from(n_bytes > 0);
            if first == '/' {
                self.regexes.insert(&rest[..n_bytes]);
            }
            rest = &rest[n_bytes.max(first.len_utf8())..];
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn atoms_and_lexemes_are_counted() {
        let grammar = r#"start: a "b c"? /d[e"f]\/g/ ("\"" | <h>)* // i j
            | k /l/ /l/
            A: "l" | "m"
             | "n"
            ?o: "p"~2"#;
        let in_start = ["start", "a", "b c", "d", "quote", "h", "k", "l", "l"].len();
        let in_o = ["o", "p", "2"].len();
        let content = Content::of(grammar);
        assert_eq!(content.n_atoms, in_start + in_o);
        assert_eq!(content.n_lexemes(), ["A", "d", "l"].len());
        assert_eq!(
            Content::of(&format!("start: {}", "\"a\"? ".repeat(5000))).n_atoms,
            5001
        );
        assert_eq!(Content::of("start: \"a b").n_atoms, 3);
    }
}
