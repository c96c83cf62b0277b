//! From the text of a template to tokens, with jinja2's rules of white space: `trim_blocks` and `lstrip_blocks`.

use super::error::{Error, Result};
use super::number::is_space;

/// A token, and its line.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) line: u32,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Data(String),
    VariableBegin,
    VariableEnd,
    BlockBegin,
    BlockEnd,
    Name(String),
    Text(String),
    /// The digits of an integer, with the prefix of its base.
    Integer(String),
    Float(f64),
    Operator(&'static str),
    End,
}

/// Longer operators stand before their beginnings.
const OPERATORS: [&str; 26] = [
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[", "]", "(", ")", "{", "}", ">", "<",
    "=", ".", ":", "|", ",", ";",
];

/// The tokens of a template.
pub(super) fn tokens(source: &str) -> Result<Vec<Token>> {
    let mut source = source.replace("\r\n", "\n").replace('\r', "\n");
    // jinja2 drops one line end at the end of a template.
    if source.ends_with('\n') {
        source.pop();
    }
    let mut lexer = Lexer {
        rest: &source,
        line: 1,
        begins_line: true,
        tokens: Vec::new(),
    };
    while !lexer.rest.is_empty() {
        lexer.data()?;
    }
    lexer.add(Kind::End);
    Ok(lexer.tokens)
}

struct Lexer<'s> {
    rest: &'s str,
    line: u32,
    /// What was read last ended with a line end.
    begins_line: bool,
    tokens: Vec<Token>,
}

/// The sign that may stand beside a mark.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sign {
    /// `-`: white space is removed.
    Strip,
    /// `+`: white space is kept.
    Keep,
    None,
}

impl Sign {
    fn at(text: &str) -> Self {
        match text.as_bytes().first() {
            Some(b'-') => Self::Strip,
            Some(b'+') => Self::Keep,
            _ => Self::None,
        }
    }

    fn len(self) -> usize {
        usize::from(self != Self::None)
    }
}

impl<'s> Lexer<'s> {
    fn add(&mut self, kind: Kind) {
        let line = self.line;
        self.tokens.push(Token { line, kind });
    }

    fn error(&self, reason: impl Into<String>) -> Error {
        Error::Syntax {
            reason: reason.into(),
            line: self.line,
        }
    }

    /// Reads `n` bytes.
    fn advance(&mut self, n: usize) -> &'s str {
        let (read, rest) = self.rest.split_at(n);
        self.line += read.matches('\n').count() as u32;
        self.begins_line = read.ends_with('\n');
        self.rest = rest;
        read
    }

    /// Reads a text up to the next mark, and what the mark begins.
    fn data(&mut self) -> Result<()> {
        let is_mark = |at: &usize| self.rest[at + 1..].starts_with(['{', '%', '#']);
        let mut braces = self.rest.match_indices('{').map(|(at, _)| at);
        let Some(at) = braces.find(is_mark) else {
            let text = self.advance(self.rest.len());
            self.text(text);
            return Ok(());
        };
        let begins_line = self.begins_line;
        let (text, mark) = (&self.rest[..at], &self.rest[at..at + 2]);
        let sign = Sign::at(&self.rest[at + 2..]);
        let kept = stripped(text, sign, begins_line, mark != "{{");
        self.text(kept);
        self.advance(at + 2 + sign.len());
        match mark {
            "{#" => self.comment(),
            "{{" => {
                self.add(Kind::VariableBegin);
                self.expression("}}")
            }
            _ => match raw_begin(self.rest) {
                Some(n) => {
                    self.advance(n);
                    self.raw()
                }
                None => {
                    self.add(Kind::BlockBegin);
                    self.expression("%}")
                }
            },
        }
    }

    fn text(&mut self, text: &str) {
        if !text.is_empty() {
            self.add(Kind::Data(text.to_owned()));
        }
    }

    fn comment(&mut self) -> Result<()> {
        let end = self.rest.find("#}");
        let end = end.ok_or_else(|| self.error("Missing end of comment tag"))?;
        let sign = Sign::at(&self.rest[end.saturating_sub(1)..end]);
        self.advance(end + 2);
        self.after_block(sign);
        Ok(())
    }

    /// Skips the white space that the end of a block removes.
    fn after_block(&mut self, sign: Sign) {
        let n = match sign {
            Sign::Strip => self.rest.len() - self.rest.trim_start_matches(is_space).len(),
            Sign::Keep => 0,
            Sign::None => usize::from(self.rest.starts_with('\n')),
        };
        if n > 0 {
            self.advance(n);
        }
    }

    /// Reads up to `{% endraw %}`.
    fn raw(&mut self) -> Result<()> {
        let mut at = 0;
        loop {
            let found = self.rest[at..].find("{%");
            let found = found.ok_or_else(|| self.error("Missing end of raw directive"))? + at;
            let sign = Sign::at(&self.rest[found + 2..]);
            let inside = found + 2 + sign.len();
            if let Some((n, end)) = raw_end(&self.rest[inside..]) {
                let kept = stripped(&self.rest[..found], sign, self.begins_line, true);
                self.text(kept);
                self.advance(inside + n);
                self.after_block(end);
                return Ok(());
            }
            at = found + 2;
        }
    }

    /// Reads the tokens up to the end of a block or a variable.
    fn expression(&mut self, end: &'static str) -> Result<()> {
        let mut brackets = Vec::new();
        loop {
            let space = self.rest.len() - self.rest.trim_start_matches(is_space).len();
            if space > 0 {
                self.advance(space);
            }
            if brackets.is_empty() && self.end(end) {
                return Ok(());
            }
            let Some(first) = self.rest.chars().next() else {
                // The parser reports the end of the template.
                return Ok(());
            };
            if first.is_ascii_digit() {
                self.number()?;
            } else if first == '_' || first.is_alphanumeric() {
                self.name()?;
            } else if first == '"' || first == '\'' {
                self.quoted(first)?;
            } else {
                self.operator(first, &mut brackets)?;
            }
        }
    }

    /// Reads the end of a block or a variable, if it is here.
    fn end(&mut self, end: &'static str) -> bool {
        let sign = Sign::at(self.rest);
        if !self.rest[sign.len()..].starts_with(end) || (end == "}}" && sign == Sign::Keep) {
            return false;
        }
        let kind = if end == "}}" {
            Kind::VariableEnd
        } else {
            Kind::BlockEnd
        };
        self.add(kind);
        self.advance(sign.len() + 2);
        if end == "%}" || sign == Sign::Strip {
            self.after_block(sign);
        }
        true
    }

    fn name(&mut self) -> Result<()> {
        let is_part = |c: char| c == '_' || c.is_alphanumeric();
        let n = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let name = self.rest[..n].to_owned();
        if !name.starts_with(|c: char| c == '_' || c.is_alphabetic()) {
            return Err(self.error("Invalid character in identifier"));
        }
        self.add(Kind::Name(name));
        self.advance(n);
        Ok(())
    }

    fn number(&mut self) -> Result<()> {
        let after_dot = matches!(
            self.tokens.last(),
            Some(Token {
                kind: Kind::Operator("."),
                ..
            })
        );
        if let Some(n) = float_len(self.rest).filter(|_| !after_dot) {
            let digits = self.rest[..n].replace('_', "");
            let number = digits
                .parse()
                .map_err(|_| self.error(format!("{digits} is no number")))?;
            self.add(Kind::Float(number));
            self.advance(n);
            return Ok(());
        }
        let n = integer_len(self.rest);
        self.add(Kind::Integer(self.rest[..n].to_owned()));
        self.advance(n);
        Ok(())
    }

    fn quoted(&mut self, quote: char) -> Result<()> {
        let mut escaped = false;
        let end = self.rest[1..].find(|c| {
            let ends = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = end.ok_or_else(|| self.error(format!("unexpected char {quote:?}")))? + 1;
        let text = unescaped(&self.rest[1..end]).map_err(|reason| self.error(reason))?;
        self.add(Kind::Text(text));
        self.advance(end + 1);
        Ok(())
    }

    fn operator(&mut self, first: char, brackets: &mut Vec<char>) -> Result<()> {
        let found = OPERATORS
            .iter()
            .find(|operator| self.rest.starts_with(**operator));
        let operator = *found.ok_or_else(|| self.error(format!("unexpected char {first:?}")))?;
        match first {
            '(' => brackets.push(')'),
            '[' => brackets.push(']'),
            '{' => brackets.push('}'),
            ')' | ']' | '}' => match brackets.pop() {
                Some(expected) if expected == first => {}
                Some(expected) => {
                    return Err(self.error(format!("unexpected '{first}', expected '{expected}'")));
                }
                None => return Err(self.error(format!("unexpected '{first}'"))),
            },
            _ => {}
        }
        self.add(Kind::Operator(operator));
        self.advance(operator.len());
        Ok(())
    }
}

/// A text before a mark, without the white space that the mark removes.
fn stripped(text: &str, sign: Sign, begins_line: bool, is_block: bool) -> &str {
    if sign == Sign::Strip {
        return text.trim_end_matches(is_space);
    }
    if sign == Sign::Keep || !is_block {
        return text;
    }
    let line = text.rfind('\n').map_or(0, |end| end + 1);
    let is_blank = text[line..].chars().all(is_space);
    if is_blank && (line > 0 || begins_line) {
        &text[..line]
    } else {
        text
    }
}

/// The length of `raw %}` behind the mark, if it is there.
fn raw_begin(text: &str) -> Option<usize> {
    let rest = text.trim_start_matches(is_space).strip_prefix("raw")?;
    let rest = rest.trim_start_matches(is_space);
    let rest = match rest.strip_prefix("-%}") {
        Some(rest) => rest.trim_start_matches(is_space),
        None => rest.strip_prefix("%}")?,
    };
    Some(text.len() - rest.len())
}

/// The length of `endraw %}` behind the mark and the sign of its end, if it is there.
fn raw_end(text: &str) -> Option<(usize, Sign)> {
    let rest = text.trim_start_matches(is_space).strip_prefix("endraw")?;
    let rest = rest.trim_start_matches(is_space);
    let sign = Sign::at(rest);
    let rest = rest[sign.len()..].strip_prefix("%}")?;
    Some((text.len() - rest.len(), sign))
}

/// The length of digits with single `_` between them.
fn digits_len(text: &str, is_digit: impl Fn(u8) -> bool) -> usize {
    let bytes = text.as_bytes();
    let mut n = 0;
    while n < bytes.len() {
        if is_digit(bytes[n]) {
            n += 1;
        } else if n > 0 && bytes[n] == b'_' && bytes.get(n + 1).is_some_and(|next| is_digit(*next)) {
            n += 2;
        } else {
            break;
        }
    }
    n
}

/// Whether a byte is a digit of a base.
type IsDigit = fn(u8) -> bool;

fn float_len(text: &str) -> Option<usize> {
    let decimal = |text: &str| digits_len(text, |b| b.is_ascii_digit());
    let mut n = decimal(text);
    let has_fraction = text[n..].starts_with('.') && decimal(&text[n + 1..]) > 0;
    if has_fraction {
        n += 1 + decimal(&text[n + 1..]);
    }
    if let Some(exponent) = text[n..].strip_prefix(['e', 'E']) {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let n_digits = decimal(digits);
        if n_digits > 0 {
            return Some(text.len() - digits.len() + n_digits);
        }
    }
    has_fraction.then_some(n)
}

fn integer_len(text: &str) -> usize {
    let bases: [(&str, IsDigit); 3] = [
        ("xX", |b| b.is_ascii_hexdigit()),
        ("oO", |b| (b'0'..=b'7').contains(&b)),
        ("bB", |b| b == b'0' || b == b'1'),
    ];
    for (letters, is_digit) in bases {
        let digits = text
            .strip_prefix('0')
            .and_then(|rest| rest.strip_prefix(|c| letters.contains(c)));
        let n = digits.map_or(0, |digits| {
            digits_len(digits.strip_prefix('_').unwrap_or(digits), is_digit)
                + usize::from(digits.starts_with('_'))
        });
        if n > 0 {
            return n + 2;
        }
    }
    if text.starts_with('0') {
        return digits_len(text, |b| b == b'0');
    }
    digits_len(text, |b| b.is_ascii_digit())
}

/// The text that a text with Python's escapes means.
fn unescaped(text: &str) -> std::result::Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let mut behind = rest[at + 1..].chars();
        let c = behind.next().ok_or("\\ at end of string")?;
        rest = behind.as_str();
        let simple = match c {
            '\n' => continue,
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'v' => '\u{b}',
            '\\' | '\'' | '"' => c,
            'x' | 'u' | 'U' => {
                let n = match c {
                    'x' => 2,
                    'u' => 4,
                    _ => 8,
                };
                let digits = rest
                    .get(..n)
                    .filter(|digits| digits.chars().all(|c| c.is_ascii_hexdigit()));
                let digits = digits.ok_or_else(|| format!("truncated \\{c} escape"))?;
                rest = &rest[n..];
                let code = u32::from_str_radix(digits, 16).map_err(|error| error.to_string())?;
                char::from_u32(code).ok_or_else(|| format!("\\{c}{digits} is no character"))?
            }
            '0'..='7' => {
                let n = rest
                    .bytes()
                    .take(2)
                    .take_while(|b| (b'0'..=b'7').contains(b))
                    .count();
                let digits = format!("{c}{}", &rest[..n]);
                rest = &rest[n..];
                let code = u32::from_str_radix(&digits, 8).map_err(|error| error.to_string())?;
                char::from_u32(code).ok_or_else(|| format!("\\{digits} is no character"))?
            }
            'N' => return Err("characters by name (\\N{…}) are not supported".to_owned()),
            other => {
                out.push('\\');
                other
            }
        };
        out.push(simple);
    }
    out.push_str(rest);
    Ok(out)
}
