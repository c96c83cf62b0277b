//! From tokens to the tree of a template: the statements.

mod expressions;
mod stream;

use std::sync::Arc;

use super::error::{Error, Result};
use super::lexer::{Kind, tokens};
use super::syntax::{Block, Expr, ForLoop, Macro, Node, SpecialNames, Statement, Symbol, Tree};
use expressions::{assigned, expression, filtered, tuple, without_condition};
use stream::Stream;

/// Bytes of a template, at most. The longest on the Hub have about 30 kB.
const BYTES_MAX: usize = 256 << 10;

/// The tree of a template.
pub(super) fn parse(source: &str) -> Result<Tree> {
    if source.len() > BYTES_MAX {
        return Err(Error::Syntax {
            reason: format!(
                "the template has {} bytes; at most {BYTES_MAX} are allowed",
                source.len()
            ),
            line: 1,
        });
    }
    let mut parser = Parser {
        stream: Stream::new(tokens(source)?),
        n_loops: 0,
    };
    let body = parser.body(&[])?;
    let (names, constants) = parser.stream.into_parts();
    Ok(Tree {
        body,
        names,
        constants,
    })
}

struct Parser {
    stream: Stream,
    /// Loops around the current statement, within its macro.
    n_loops: usize,
}

impl Parser {
    /// Reads statements up to one of the tags `ends`, which is the current token then.
    fn body(&mut self, ends: &[&str]) -> Result<Vec<Node>> {
        let mut body = Vec::new();
        loop {
            let token = self.stream.next();
            let line = token.line;
            let statement = match token.kind {
                Kind::Data(text) => Statement::Data(text),
                Kind::VariableBegin => {
                    let value = tuple(&mut self.stream, &[])?;
                    self.stream.expect(&Kind::VariableEnd)?;
                    Statement::Output(value)
                }
                Kind::BlockBegin => {
                    if ends.iter().any(|end| self.stream.is_name(end)) {
                        return Ok(body);
                    }
                    let statement = self.nested(Self::statement)?;
                    self.stream.expect(&Kind::BlockEnd)?;
                    statement
                }
                _ if ends.is_empty() => return Ok(body),
                _ => {
                    return Err(self
                        .stream
                        .error(format!("the tag {} is missing", ends.join(" or "))));
                }
            };
            body.push(Node { line, statement });
        }
    }

    /// Reads something one level deeper.
    fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.stream.enter()?;
        let result = read(self);
        self.stream.leave(1);
        result
    }

    /// Reads the rest of a tag and statements up to the tag `end`, and the tag's name.
    fn block(&mut self, end: &str) -> Result<Vec<Node>> {
        let body = self.block_until(&[end])?;
        self.stream.next();
        Ok(body)
    }

    fn block_until(&mut self, ends: &[&str]) -> Result<Vec<Node>> {
        self.stream.skip_operator(":");
        self.stream.expect(&Kind::BlockEnd)?;
        self.body(ends)
    }

    fn statement(&mut self) -> Result<Statement> {
        let tag = self.stream.name()?;
        match tag.as_str() {
            "for" => self.for_loop(),
            "if" => self.condition(),
            "set" => self.set(),
            "with" => self.with(),
            "macro" => {
                let name = self.stream.name()?;
                let name = self.stream.symbol(&name)?;
                self.stream.expect_operator("(")?;
                let parameters = self.parameters()?;
                Ok(Statement::Macro(Arc::new(
                    self.macro_body(name, parameters, "endmacro")?,
                )))
            }
            "call" => self.call_block(),
            "filter" => {
                let filters = filtered(&mut self.stream, Expr::Body)?;
                Ok(Statement::FilterBlock(filters, self.block("endfilter")?))
            }
            // It marks what a model is trained to say, and has variables of its own.
            "generation" => Ok(Statement::Scope(self.block("endgeneration")?)),
            "autoescape" => self.autoescape(),
            "block" => self.named_block(),
            "break" | "continue" if self.n_loops == 0 => {
                Err(self.stream.error(format!("'{tag}' outside of a loop")))
            }
            "break" => Ok(Statement::Break),
            "continue" => Ok(Statement::Continue),
            "print" => Ok(Statement::Output(tuple(&mut self.stream, &[])?)),
            "extends" | "include" | "import" | "from" => self.needs_loader(&tag),
            other => Err(self.stream.error(format!("Encountered unknown tag '{other}'"))),
        }
    }

    fn for_loop(&mut self) -> Result<Statement> {
        let target = assigned(&mut self.stream, &["in"])?;
        self.stream.expect_name("in")?;
        let iterable = without_condition(&mut self.stream, &["recursive"])?;
        let condition = match self.stream.skip_name("if") {
            true => Some(expression(&mut self.stream)?),
            false => None,
        };
        let is_recursive = self.stream.skip_name("recursive");
        self.n_loops += 1;
        let body = self.block_until(&["endfor", "else"]);
        self.n_loops -= 1;
        let body = body?;
        let otherwise = match self.stream.name()?.as_str() {
            "else" => self.block("endfor")?,
            _ => Vec::new(),
        };
        Ok(Statement::For(Arc::new(ForLoop {
            target,
            iterable,
            condition,
            is_recursive,
            body,
            otherwise,
        })))
    }

    fn condition(&mut self) -> Result<Statement> {
        let mut branches = Vec::new();
        loop {
            let test = without_condition(&mut self.stream, &[])?;
            let body = self.block_until(&["elif", "else", "endif"])?;
            branches.push((test, body));
            match self.stream.name()?.as_str() {
                "elif" => {}
                "else" => return Ok(Statement::If(branches, self.block("endif")?)),
                _ => return Ok(Statement::If(branches, Vec::new())),
            }
        }
    }

    fn set(&mut self) -> Result<Statement> {
        let target = assigned(&mut self.stream, &[])?;
        if self.stream.skip_operator("=") {
            return Ok(Statement::Set(target, tuple(&mut self.stream, &[])?));
        }
        let value = match self.stream.skip_operator("|") {
            true => filtered(&mut self.stream, Expr::Body)?,
            false => Expr::Body,
        };
        Ok(Statement::SetBlock(target, value, self.block("endset")?))
    }

    fn with(&mut self) -> Result<Statement> {
        let mut values = Vec::new();
        while !self.stream.is(&Kind::BlockEnd) {
            if !values.is_empty() {
                self.stream.expect_operator(",")?;
            }
            let target = assigned(&mut self.stream, &[])?;
            self.stream.expect_operator("=")?;
            values.push((target, expression(&mut self.stream)?));
        }
        Ok(Statement::With(values, self.block("endwith")?))
    }

    /// Reads the parameters of a macro behind `(`.
    fn parameters(&mut self) -> Result<Vec<(Symbol, Option<Expr>)>> {
        let mut parameters: Vec<(_, Option<Expr>)> = Vec::new();
        while !self.stream.skip_operator(")") {
            if !parameters.is_empty() {
                self.stream.expect_operator(",")?;
            }
            let parameter = self.stream.name()?;
            let parameter = self.stream.symbol(&parameter)?;
            let default = match self.stream.skip_operator("=") {
                true => Some(expression(&mut self.stream)?),
                false if parameters.iter().any(|(_, default)| default.is_some()) => {
                    return Err(self.stream.error("non-default argument follows default argument"));
                }
                false => None,
            };
            parameters.push((parameter, default));
        }
        Ok(parameters)
    }

    /// Reads the body of a macro.
    fn macro_body(
        &mut self,
        name: Symbol,
        parameters: Vec<(Symbol, Option<Expr>)>,
        end: &str,
    ) -> Result<Macro> {
        let before = std::mem::take(&mut self.stream.special);
        let n_loops = std::mem::take(&mut self.n_loops);
        let body = self.block(end);
        self.n_loops = n_loops;
        let body = body?;
        let uses = self.stream.special;
        self.stream.special = SpecialNames {
            varargs: before.varargs || uses.varargs,
            kwargs: before.kwargs || uses.kwargs,
            caller: before.caller || uses.caller,
        };
        Ok(Macro {
            name,
            parameters,
            body,
            uses,
        })
    }

    fn call_block(&mut self) -> Result<Statement> {
        let parameters = match self.stream.skip_operator("(") {
            true => self.parameters()?,
            false => Vec::new(),
        };
        let Expr::Call(call) = expression(&mut self.stream)? else {
            return Err(self.stream.error("expected call"));
        };
        let name = self.stream.symbol("caller")?;
        let caller = self.macro_body(name, parameters, "endcall")?;
        Ok(Statement::CallBlock(Arc::new(caller), *call))
    }

    fn autoescape(&mut self) -> Result<Statement> {
        if !matches!(self.stream.next().kind, Kind::Name(name) if matches!(name.as_str(), "false" | "False"))
        {
            return Err(self.stream.error("autoescape is not supported"));
        }
        Ok(Statement::Scope(self.block("endautoescape")?))
    }

    fn named_block(&mut self) -> Result<Statement> {
        let name = self.stream.name()?;
        let is_scoped = self.stream.skip_name("scoped");
        self.stream.skip_name("required");
        let n_loops = std::mem::take(&mut self.n_loops);
        let body = self.block("endblock");
        self.n_loops = n_loops;
        self.stream.skip_name(&name);
        Ok(Statement::Block(Block {
            is_scoped,
            body: body?,
        }))
    }

    /// Skips a statement that needs other templates; it fails if it is reached.
    fn needs_loader(&mut self, tag: &str) -> Result<Statement> {
        while !self.stream.is(&Kind::BlockEnd) && !self.stream.is(&Kind::End) {
            self.stream.next();
        }
        let tags = ["extends", "include", "import", "from"];
        let tag = tags.into_iter().find(|known| *known == tag).unwrap_or("include");
        Ok(Statement::NeedsLoader(tag))
    }
}
