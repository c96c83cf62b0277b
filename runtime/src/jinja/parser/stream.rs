//! The tokens that are not read yet, and the names and constants that were found.

use std::collections::HashMap;

use crate::jinja::error::{Error, Result};
use crate::jinja::lexer::{Kind, Token};
use crate::jinja::syntax::{Constant, SpecialNames, Symbol};

/// Levels of expressions and statements, at most. Python's compiler stops at 200 brackets.
const DEPTH_MAX: usize = 256;

pub(super) struct Stream {
    tokens: std::vec::IntoIter<Token>,
    current: Token,
    names: Vec<String>,
    symbols: HashMap<String, Symbol>,
    constants: Vec<Constant>,
    /// Which constant each text is.
    texts: HashMap<String, usize>,
    /// The special names that were read since this was reset.
    pub(super) special: SpecialNames,
    depth: usize,
}

impl Stream {
    pub(super) fn new(tokens: Vec<Token>) -> Self {
        let end = Token {
            line: tokens.last().map_or(1, |token| token.line),
            kind: Kind::End,
        };
        let mut stream = Self {
            tokens: tokens.into_iter(),
            current: end,
            names: Vec::new(),
            symbols: HashMap::new(),
            constants: Vec::new(),
            texts: HashMap::new(),
            special: SpecialNames::default(),
            depth: 0,
        };
        stream.next();
        stream
    }

    /// The names and constants of the template.
    pub(super) fn into_parts(self) -> (Vec<String>, Vec<Constant>) {
        (self.names, self.constants)
    }

    /// Reads the current token.
    pub(super) fn next(&mut self) -> Token {
        let end = Token {
            line: self.current.line,
            kind: Kind::End,
        };
        let next = self.tokens.next().unwrap_or(end);
        std::mem::replace(&mut self.current, next)
    }

    pub(super) fn current(&self) -> &Kind {
        &self.current.kind
    }

    /// The token behind the current one.
    pub(super) fn behind(&self) -> Option<&Kind> {
        self.tokens.as_slice().first().map(|token| &token.kind)
    }

    pub(super) fn is(&self, kind: &Kind) -> bool {
        self.current.kind == *kind
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(&self.current.kind, Kind::Name(found) if found == name)
    }

    pub(super) fn is_operator(&self, operator: &str) -> bool {
        matches!(&self.current.kind, Kind::Operator(found) if *found == operator)
    }

    pub(super) fn skip_name(&mut self, name: &str) -> bool {
        let is = self.is_name(name);
        if is {
            self.next();
        }
        is
    }

    pub(super) fn skip_operator(&mut self, operator: &str) -> bool {
        let is = self.is_operator(operator);
        if is {
            self.next();
        }
        is
    }

    pub(super) fn expect(&mut self, kind: &Kind) -> Result<()> {
        if self.is(kind) {
            self.next();
            return Ok(());
        }
        let expected = described(kind);
        let found = described(&self.current.kind);
        Err(self.error(format!("expected {expected}, got {found}")))
    }

    pub(super) fn expect_name(&mut self, name: &str) -> Result<()> {
        if self.skip_name(name) {
            return Ok(());
        }
        let found = described(&self.current.kind);
        Err(self.error(format!("expected '{name}', got {found}")))
    }

    pub(super) fn expect_operator(&mut self, operator: &'static str) -> Result<()> {
        self.expect(&Kind::Operator(operator))
    }

    /// Reads a name.
    pub(super) fn name(&mut self) -> Result<String> {
        if let Kind::Name(_) = self.current.kind
            && let Kind::Name(name) = self.next().kind
        {
            return Ok(name);
        }
        let found = described(&self.current.kind);
        Err(self.error(format!("expected a name, got {found}")))
    }

    /// An error in the line of the current token.
    pub(super) fn error(&self, reason: impl Into<String>) -> Error {
        Error::Syntax {
            reason: reason.into(),
            line: self.current.line,
        }
    }

    /// The symbol of a variable's name.
    pub(super) fn symbol(&mut self, name: &str) -> Result<Symbol> {
        match name {
            "varargs" => self.special.varargs = true,
            "kwargs" => self.special.kwargs = true,
            "caller" => self.special.caller = true,
            "true" | "True" | "false" | "False" | "none" | "None" => {
                return Err(self.error(format!("can't assign to '{name}'")));
            }
            _ => {}
        }
        if let Some(symbol) = self.symbols.get(name) {
            return Ok(*symbol);
        }
        let symbol = Symbol(self.names.len() as u32);
        self.names.push(name.to_owned());
        self.symbols.insert(name.to_owned(), symbol);
        Ok(symbol)
    }

    /// The index of a constant.
    pub(super) fn constant(&mut self, constant: Constant) -> usize {
        let idx = self.constants.len();
        if let Constant::Text(text) = &constant {
            if let Some(known) = self.texts.get(text) {
                return *known;
            }
            self.texts.insert(text.clone(), idx);
        }
        self.constants.push(constant);
        idx
    }

    /// Counts a level more.
    pub(super) fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error::Depth {
                what: "expressions or blocks",
                n_max: DEPTH_MAX,
            });
        }
        Ok(())
    }

    /// Counts levels less.
    pub(super) fn leave(&mut self, n_levels: usize) {
        self.depth -= n_levels;
    }
}

/// A token as an error names it.
pub(super) fn described(kind: &Kind) -> String {
    match kind {
        Kind::Data(_) => "text".to_owned(),
        Kind::VariableBegin => "begin of print statement".to_owned(),
        Kind::VariableEnd => "end of print statement".to_owned(),
        Kind::BlockBegin => "begin of statement block".to_owned(),
        Kind::BlockEnd => "end of statement block".to_owned(),
        Kind::Name(name) => format!("'{name}'"),
        Kind::Text(text) => format!("{text:?}"),
        Kind::Integer(digits) => digits.clone(),
        Kind::Float(number) => number.to_string(),
        Kind::Operator(operator) => format!("'{operator}'"),
        Kind::End => "end of template".to_owned(),
    }
}
