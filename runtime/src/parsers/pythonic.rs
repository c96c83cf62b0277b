//! Parses calls in Python's syntax: `[get_weather(city='Oslo', days=2), search(tags=['a', None])]`.
//!
//! Arguments must be literals. Nesting is bounded, because a model may write any number of brackets. Literals follow
//! Python's reference (sections 2.4 to 2.6 and 6.2) where JSON has their values. Must not know tools.

use serde_json::{Map, Number, Value};

/// Deepest nesting of an argument. `serde_json`, which parses the arguments of the other formats, allows 128.
const DEPTH_MAX: usize = 64;

/// Marks that may enclose calls.
const MARKS: [&str; 5] = [
    "<|python_start|>",
    "<|python_end|>",
    "<|tool_call_start|>",
    "<|tool_call_end|>",
    "<function_calls>",
];

/// A call that is parsed as a unit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ParsedCall {
    pub(super) name: String,
    /// A JSON object.
    pub(super) arguments: String,
    /// The model's own id.
    pub(super) id: Option<String>,
}

/// The calls in a block; none if it is not a list of calls.
pub(super) fn calls(block: &str) -> Vec<ParsedCall> {
    reader(block).calls().unwrap_or_default()
}

/// The calls in a block that has each on lines of its own.
pub(super) fn lines(block: &str) -> Vec<ParsedCall> {
    let mut reader = reader(block);
    std::iter::from_fn(|| reader.call()).collect()
}

/// The list, dictionary or constant that a text is.
pub(super) fn literal(text: &str) -> Option<Value> {
    let text = text.trim();
    if !text.starts_with(['[', '{', '(']) && !["None", "True", "False"].contains(&text) {
        return None;
    }
    let mut reader = Reader { rest: text };
    let value = reader.value(0)?;
    reader.peek().is_none().then_some(value)
}

fn reader(block: &str) -> Reader<'_> {
    let mut rest = block.trim();
    for mark in MARKS {
        rest = rest.strip_prefix(mark).unwrap_or(rest).trim_start();
    }
    Reader { rest }
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn calls(&mut self) -> Option<Vec<ParsedCall>> {
        self.expect('[')?;
        let mut calls = Vec::new();
        self.items(']', |reader| {
            calls.push(reader.call()?);
            Some(())
        })?;
        Some(calls)
    }

    fn call(&mut self) -> Option<ParsedCall> {
        let name = self.callee()?;
        self.expect('(')?;
        let mut arguments = Map::new();
        self.items(')', |reader| {
            let key = reader.name()?;
            reader.expect('=')?;
            let value = reader.value(0)?;
            arguments.insert(key, value);
            Some(())
        })?;
        Some(ParsedCall {
            name,
            arguments: Value::Object(arguments).to_string(),
            id: None,
        })
    }

    /// The name of a tool, which may contain more characters than a name of Python.
    fn callee(&mut self) -> Option<String> {
        self.skip_space();
        let end = self.rest.find('(')?;
        let name = self.rest[..end].trim_end();
        let is_name = !name.is_empty()
            && name
                .chars()
                .all(|char| char.is_alphanumeric() || "_-.".contains(char));
        self.rest = &self.rest[end..];
        is_name.then(|| name.to_owned())
    }

    /// Parses items up to `close`. Commas separate them; one may follow the last. Returns whether there was a comma.
    fn items(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<bool> {
        let mut has_comma = false;
        loop {
            if self.take(close) {
                return Some(has_comma);
            }
            item(self)?;
            if self.take(',') {
                has_comma = true;
            } else {
                self.expect(close)?;
                return Some(has_comma);
            }
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > DEPTH_MAX {
            return None;
        }
        match self.peek()? {
            '[' => {
                self.expect('[')?;
                self.list(']', depth).map(|(items, _)| Value::Array(items))
            }
            '(' => {
                self.expect('(')?;
                let (mut items, has_comma) = self.list(')', depth)?;
                // Parentheses without a comma only group.
                if items.len() == 1 && !has_comma {
                    items.pop()
                } else {
                    Some(Value::Array(items))
                }
            }
            '{' => {
                self.expect('{')?;
                self.dictionary(depth)
            }
            '\'' | '"' => self.strings(),
            '+' | '-' | '.' | '0'..='9' => self.number(),
            _ => self.word(),
        }
    }

    fn list(&mut self, close: char, depth: usize) -> Option<(Vec<Value>, bool)> {
        let mut items = Vec::new();
        let has_comma = self.items(close, |reader| {
            items.push(reader.value(depth + 1)?);
            Some(())
        })?;
        Some((items, has_comma))
    }

    fn dictionary(&mut self, depth: usize) -> Option<Value> {
        let mut fields = Map::new();
        self.items('}', |reader| {
            let key = match reader.value(depth + 1)? {
                Value::String(key) => key,
                Value::Array(_) | Value::Object(_) => return None,
                // As Python's `json.dumps` writes such a key.
                key => key.to_string(),
            };
            reader.expect(':')?;
            let value = reader.value(depth + 1)?;
            fields.insert(key, value);
            Some(())
        })?;
        Some(Value::Object(fields))
    }

    /// A constant, a string with a prefix, or a name without quotes, which models write in place of a string.
    fn word(&mut self) -> Option<Value> {
        let name = self.name()?;
        if self.rest.starts_with(['\'', '"']) {
            return match name.to_ascii_lowercase().as_str() {
                "r" => self.string(Escapes::Kept).map(Value::String),
                "u" | "b" => self.string(Escapes::Read).map(Value::String),
                _ => None,
            };
        }
        Some(match name.as_str() {
            "None" => Value::Null,
            "True" => Value::Bool(true),
            "False" => Value::Bool(false),
            _ => Value::String(name),
        })
    }

    /// Joins adjacent strings.
    fn strings(&mut self) -> Option<Value> {
        let mut text = String::new();
        while matches!(self.peek(), Some('\'' | '"')) {
            text += &self.string(Escapes::Read)?;
        }
        Some(Value::String(text))
    }

    fn string(&mut self, escapes: Escapes) -> Option<String> {
        let quotes = ["'''", "\"\"\"", "'", "\""];
        let quote = quotes.into_iter().find(|quote| self.rest.starts_with(quote))?;
        self.rest = &self.rest[quote.len()..];
        let mut text = String::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix(quote) {
                self.rest = rest;
                return Some(text);
            }
            match (self.next()?, escapes) {
                ('\\', Escapes::Read) => self.escape(&mut text)?,
                ('\\', Escapes::Kept) => {
                    text.push('\\');
                    text.push(self.next()?);
                }
                (char, _) => text.push(char),
            }
        }
    }

    fn escape(&mut self, text: &mut String) -> Option<()> {
        let char = self.next()?;
        let char = match char {
            '\n' => return Some(()),
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\x07',
            'b' => '\x08',
            'f' => '\x0c',
            'v' => '\x0b',
            '\\' | '\'' | '"' => char,
            'x' => self.code_point(2)?,
            'u' => self.utf16()?,
            'U' => self.code_point(8)?,
            '0'..='7' => self.octal(char)?,
            // Python keeps the backslash of an unknown escape.
            _ => {
                text.push('\\');
                char
            }
        };
        text.push(char);
        Some(())
    }

    /// `\uXXXX`, or two of them that are one character in UTF-16.
    fn utf16(&mut self) -> Option<char> {
        let first = self.digits(4, 16)?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first);
        }
        self.rest = self.rest.strip_prefix("\\u")?;
        let second = self.digits(4, 16)?;
        let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + low)
    }

    fn code_point(&mut self, n_digits: usize) -> Option<char> {
        char::from_u32(self.digits(n_digits, 16)?)
    }

    fn octal(&mut self, first: char) -> Option<char> {
        let mut code = first.to_digit(8)?;
        for _ in 0..2 {
            let Some(digit) = self.rest.chars().next().and_then(|char| char.to_digit(8)) else {
                break;
            };
            self.next()?;
            code = code * 8 + digit;
        }
        char::from_u32(code)
    }

    fn digits(&mut self, n: usize, radix: u32) -> Option<u32> {
        let digits = self.rest.get(..n)?;
        let is_digit = |char: char| char.is_digit(radix);
        let code = digits
            .chars()
            .all(is_digit)
            .then(|| u32::from_str_radix(digits, radix).ok())??;
        self.rest = &self.rest[n..];
        Some(code)
    }

    /// A number with its signs. An integer beyond 64 bits becomes a string, so that no digit is lost.
    fn number(&mut self) -> Option<Value> {
        let mut is_negative = false;
        while let Some(sign @ ('+' | '-')) = self.peek() {
            self.next()?;
            is_negative ^= sign == '-';
        }
        self.skip_space();
        let end = self.number_len();
        let literal = self.rest[..end].replace('_', "");
        self.rest = &self.rest[end..];
        let radix = literal.get(..2).and_then(|prefix| match prefix {
            "0x" | "0X" => Some(16),
            "0o" | "0O" => Some(8),
            "0b" | "0B" => Some(2),
            _ => None,
        });
        let magnitude = match radix {
            Some(radix) => u64::from_str_radix(&literal[2..], radix).ok()?.to_string(),
            None => literal,
        };
        let sign = if is_negative { "-" } else { "" };
        let signed = format!("{sign}{magnitude}");
        if magnitude.bytes().all(|byte| byte.is_ascii_digit()) && !magnitude.is_empty() {
            let number = signed.parse::<i64>().map(Number::from);
            let number = number.or_else(|_| signed.parse::<u64>().map(Number::from));
            return Some(number.map_or(Value::String(signed), Value::Number));
        }
        Number::from_f64(signed.parse().ok()?).map(Value::Number)
    }

    /// Length of the number at the start of the rest; an exponent may have a sign.
    fn number_len(&self) -> usize {
        let bytes = self.rest.as_bytes();
        let is_hex = bytes.len() > 1 && bytes[1].eq_ignore_ascii_case(&b'x');
        let belongs = |at: usize| match bytes[at] {
            b'+' | b'-' => !is_hex && at > 0 && bytes[at - 1].eq_ignore_ascii_case(&b'e'),
            byte => byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_'),
        };
        (0..bytes.len()).find(|at| !belongs(*at)).unwrap_or(bytes.len())
    }

    fn name(&mut self) -> Option<String> {
        self.skip_space();
        let is_part = |char: char| char.is_alphanumeric() || char == '_';
        let end = self.rest.find(|char| !is_part(char)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        name.starts_with(|char: char| !char.is_ascii_digit())
            .then(|| name.to_owned())
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Skips space and returns the next character, which stays.
    fn peek(&mut self) -> Option<char> {
        self.skip_space();
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let char = self.rest.chars().next()?;
        self.rest = &self.rest[char.len_utf8()..];
        Some(char)
    }

    fn take(&mut self, char: char) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(char);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, char: char) -> Option<()> {
        self.take(char).then_some(())
    }
}

/// How a string treats backslashes.
#[derive(Clone, Copy)]
enum Escapes {
    Read,
    Kept,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The value of an argument; `None` if the block contains no call.
    fn argument(literal: &str) -> Option<Value> {
        let ParsedCall { name, arguments, .. } = calls(&format!("[f(a={literal})]")).pop()?;
        assert_eq!(name, "f");
        let arguments: Value = serde_json::from_str(&arguments).unwrap();
        Some(arguments["a"].clone())
    }

    #[test]
    fn literals_have_pythons_values() {
        for (literal, value) in [
            ("None", json!(null)),
            ("True", json!(true)),
            (" - 7 ", json!(-7)),
            ("--7", json!(7)),
            ("1_000", json!(1000)),
            ("0xff", json!(255)),
            ("0b101", json!(5)),
            ("1e-3", json!(0.001)),
            (".5", json!(0.5)),
            ("2.", json!(2.0)),
            ("18446744073709551615", json!(u64::MAX)),
            ("-9223372036854775808", json!(i64::MIN)),
            ("99999999999999999999", json!("99999999999999999999")),
            ("'a' \"b\"", json!("ab")),
            ("'''a'b\n'''", json!("a'b\n")),
            (
                r"'\x41\u00e9\U0001F600\101\'\q\n'",
                json!("AéAA'\\q\n".replace("éA", "é😀")),
            ),
            (r"'\ud83d\ude00'", json!("😀")),
            (r"r'\d'", json!(r"\d")),
            ("b'x'", json!("x")),
            ("[]", json!([])),
            ("[1, 'a', ]", json!([1, "a"])),
            ("(1)", json!(1)),
            ("(1,)", json!([1])),
            ("()", json!([])),
            ("{'a': {1: None}, True: 2}", json!({"a": {"1": null}, "true": 2})),
            ("celsius", json!("celsius")),
        ] {
            assert_eq!(argument(literal), Some(value), "{literal}");
        }
    }

    #[test]
    fn a_call_with_an_argument_that_is_not_a_literal_is_no_call() {
        for literal in [
            "",
            "1 + 1",
            "f(1)",
            "a.b",
            "'open",
            "[1",
            "{1}",
            "{[]: 1}",
            "1 if x else 2",
            "lambda: 1",
            "*x",
            r"'\ud83d'",
            r"'\xZZ'",
            "0x",
            "1e999",
            "f'{x}'",
            "not x",
            "0xfffffffffffffffff",
        ] {
            assert_eq!(argument(literal), None, "{literal}");
        }
        for block in [
            "",
            "[",
            "[]",
            "f(a=1)",
            "[f]",
            "[f(1)]",
            "[f(**x)]",
            "[1, 2]",
            "[f(a=1)",
            "[f(a=1) g()]",
        ] {
            assert_eq!(calls(block), [], "{block}");
        }
    }

    #[test]
    fn calls_may_have_marks_around_them() {
        let expected = [("f", "{}"), ("g", r#"{"x":1}"#)].map(|(name, arguments)| ParsedCall {
            name: name.to_owned(),
            arguments: arguments.to_owned(),
            id: None,
        });
        for block in [
            "[f(), g(x=1)]",
            " <|python_start|>\n[f( ),g(x = 1,),]<|python_end|>",
            "[f(), g(x=1)] done",
        ] {
            assert_eq!(calls(block), expected, "{block}");
        }
    }

    #[test]
    fn nesting_has_a_bound() {
        let nested = |n: usize, open: &str, close: &str| format!("{}1{}", open.repeat(n), close.repeat(n));
        assert!(argument(&nested(DEPTH_MAX, "[", "]")).is_some());
        for (open, close) in [("[", "]"), ("(", ")"), ("{1:", "}"), ("[(", ")]")] {
            assert_eq!(argument(&nested(100_000, open, close)), None, "{open}");
            assert_eq!(argument(&open.repeat(100_000)), None, "{open}");
        }
        // Signs do not nest.
        assert_eq!(argument(&nested(100_000, "-", "")), Some(json!(1)));
    }
}
