//! Parses GBNF into rules.

use std::collections::HashMap;

use super::chars::Chars;
use crate::grammar::bounds::{ATOMS, RULES};
use crate::grammar::error::Refusal;

/// Largest bound of a repetition; llguidance expands each of them.
const REPETITIONS_MAX: u32 = 1000;

/// A rule.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    /// Each alternative is a sequence.
    pub(super) alternatives: Vec<Vec<Item>>,
}

/// A part of a sequence, and how often it is repeated.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) node: Node,
    pub(super) min: u32,
    /// `None` for no bound.
    pub(super) max: Option<u32>,
}

/// What can be repeated.
#[derive(Debug)]
pub(super) enum Node {
    /// This text.
    Literal(String),
    /// One of these characters.
    Class(Chars),
    /// The index of a rule.
    Rule(usize),
    /// Alternatives in brackets.
    Group(Vec<Vec<Item>>),
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// The index of each name so far.
    names: HashMap<&'a str, usize>,
    rules: Vec<Option<Vec<Vec<Item>>>>,
    n_items: usize,
}

/// Parses all rules. [`Node::Rule`] is an index into them.
///
/// # Errors
/// What is wrong, and in which line.
pub(super) fn parse(text: &str) -> Result<Vec<Rule>, Refusal> {
    let mut parser = Parser {
        text,
        at: 0,
        names: HashMap::new(),
        rules: Vec::new(),
        n_items: 0,
    };
    parser.skip_blanks();
    while !parser.rest().is_empty() {
        parser.rule()?;
    }
    ATOMS.check(parser.n_items)?;
    let mut names: Vec<(usize, &str)> = parser.names.iter().map(|(name, idx)| (*idx, *name)).collect();
    names.sort_unstable();
    let rule = |((_, name), alternatives): ((usize, &str), Option<_>)| {
        let alternatives = alternatives.ok_or_else(|| format!("rule {name} is used but not defined"))?;
        Ok(Rule {
            name: name.to_owned(),
            alternatives,
        })
    };
    let rules: Result<Vec<Rule>, String> = names.into_iter().zip(parser.rules).map(rule).collect();
    Ok(rules?)
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            if !self.rest().starts_with('#') {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    /// Skips `word` and the blanks after it, if it comes next. Returns whether it did.
    fn take(&mut self, word: &str) -> bool {
        let is_next = self.rest().starts_with(word);
        if is_next {
            self.at += word.len();
            self.skip_blanks();
        }
        is_next
    }

    fn fail<T>(&self, problem: &str) -> Result<T, String> {
        let line = self.text[..self.at].matches('\n').count() + 1;
        Err(format!("line {line}: {problem}"))
    }

    fn rule(&mut self) -> Result<(), String> {
        let Some(name) = self.name() else {
            return self.fail("expected the name of a rule");
        };
        if !self.take("::=") {
            return self.fail("expected ::=");
        }
        let alternatives = self.alternatives()?;
        let idx = self.idx_of(name)?;
        if self.rules[idx].replace(alternatives).is_some() {
            return self.fail(&format!("rule {name} is defined twice"));
        }
        Ok(())
    }

    fn name(&mut self) -> Option<&'a str> {
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let n_bytes = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.at += n_bytes;
        self.skip_blanks();
        (n_bytes > 0).then(|| &rest[..n_bytes])
    }

    fn idx_of(&mut self, name: &'a str) -> Result<usize, String> {
        if let Some(&idx) = self.names.get(name) {
            return Ok(idx);
        }
        let idx = self.rules.len();
        if idx >= RULES.size_max {
            return self.fail(&format!("more than {} rules", RULES.size_max));
        }
        self.names.insert(name, idx);
        self.rules.push(None);
        Ok(idx)
    }

    fn alternatives(&mut self) -> Result<Vec<Vec<Item>>, String> {
        let mut alternatives = vec![self.sequence()?];
        while self.take("|") {
            alternatives.push(self.sequence()?);
        }
        Ok(alternatives)
    }

    fn sequence(&mut self) -> Result<Vec<Item>, String> {
        let mut items = Vec::new();
        while let Some(node) = self.node()? {
            let (min, max) = self.repetition()?;
            self.n_items += 1;
            if max != Some(0) {
                items.push(Item { node, min, max });
            }
        }
        Ok(items)
    }

    /// The next part of a sequence, or `None` at its end.
    fn node(&mut self) -> Result<Option<Node>, String> {
        let node = match self.rest().chars().next() {
            Some('"') => Node::Literal(self.literal()?),
            Some('[') => Node::Class(self.class()?),
            Some('.') => {
                self.take(".");
                Node::Class(Chars::all())
            }
            Some('(') => {
                self.take("(");
                let alternatives = self.alternatives()?;
                if !self.take(")") {
                    return self.fail("expected a closing bracket");
                }
                Node::Group(alternatives)
            }
            Some(c) if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') => {
                let before = self.at;
                let name = self.name().unwrap_or_default();
                if self.rest().starts_with("::=") {
                    // The next rule begins here.
                    self.at = before;
                    return Ok(None);
                }
                Node::Rule(self.idx_of(name)?)
            }
            Some('|' | ')') | None => return Ok(None),
            Some(other) => return self.fail(&format!("unexpected {other:?}")),
        };
        Ok(Some(node))
    }

    fn repetition(&mut self) -> Result<(u32, Option<u32>), String> {
        if self.take("*") {
            return Ok((0, None));
        }
        if self.take("+") {
            return Ok((1, None));
        }
        if self.take("?") {
            return Ok((0, Some(1)));
        }
        if !self.take("{") {
            return Ok((1, Some(1)));
        }
        let min = self.number()?;
        let max = if self.take(",") {
            self.number()?
        } else {
            Some(min.unwrap_or(0))
        };
        let bounds = (min.unwrap_or(0), max);
        if !self.take("}") || bounds.1.is_some_and(|max| max < bounds.0) {
            return self.fail("a repetition must be {n}, {n,} or {n,m} with n <= m");
        }
        Ok(bounds)
    }

    fn number(&mut self) -> Result<Option<u32>, String> {
        let rest = self.rest();
        let digits = &rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())];
        if digits.is_empty() {
            return Ok(None);
        }
        self.take(digits);
        match digits.parse() {
            Ok(n) if n <= REPETITIONS_MAX => Ok(Some(n)),
            _ => self.fail(&format!("more than {REPETITIONS_MAX} repetitions")),
        }
    }

    fn literal(&mut self) -> Result<String, String> {
        self.at += 1;
        let mut literal = String::new();
        while !self.rest().starts_with('"') {
            literal.push(self.char()?);
        }
        self.take("\"");
        Ok(literal)
    }

    fn class(&mut self) -> Result<Chars, String> {
        self.at += 1;
        let is_negated = self.rest().starts_with('^');
        self.at += usize::from(is_negated);
        let mut ranges = Vec::new();
        while !self.rest().starts_with(']') {
            let first = self.char()?;
            let is_range = self.rest().starts_with('-') && !self.rest().starts_with("-]");
            self.at += usize::from(is_range);
            let last = if is_range { self.char()? } else { first };
            if last < first {
                return self.fail("a range of characters ends before it begins");
            }
            ranges.push((first, last));
        }
        self.take("]");
        let chars = Chars::of_ranges(ranges);
        Ok(if is_negated { chars.negated() } else { chars })
    }

    /// A character of a literal or a class.
    fn char(&mut self) -> Result<char, String> {
        let mut chars = self.rest().chars();
        let Some(char) = chars.next() else {
            return self.fail("the grammar ends inside a string or a class");
        };
        self.at += char.len_utf8();
        if char != '\\' {
            return Ok(char);
        }
        let Some(escape) = chars.next() else {
            return self.fail("the grammar ends inside an escape");
        };
        self.at += escape.len_utf8();
        let n_digits = match escape {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            '\\' | '"' | '\'' | '[' | ']' | '^' | '-' | '/' => return Ok(escape),
            _ => return self.fail(&format!("unknown escape \\{escape}")),
        };
        let digits = self.rest().get(..n_digits).unwrap_or_default();
        let code = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
        let Some(code) = code else {
            return self.fail(&format!("\\{escape}{digits} is not a character"));
        };
        self.at += n_digits;
        Ok(code)
    }
}
