//! Calls written as JSON objects with a name and arguments, read character by character.
//!
//! Arguments are given on as they arrive, in the model's own words. What is not a call of a known tool up to where its
//! arguments begin can be taken back as text; behind that nothing can, so what the model wrote is the arguments.

use openai_protocol::common::Tool;
use serde_json::Value;

use super::formats::ToolFormat;
use super::sink::Sink;

/// Longest name that may stand before arguments without quotes, with what a format puts between them, in bytes.
const BARE_NAME_BYTES_MAX: usize = 128;

/// What a character meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// More may come.
    Go,
    /// The closing mark is complete.
    Closed,
    /// The character, and what is unread before it, belongs to no call.
    GivenUp,
}

/// What a member of an object is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Name,
    Arguments,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Between objects, or in a list of them.
    Outside,
    /// In a name without quotes.
    BareName,
    /// In an object, between its members.
    Members,
    Key,
    Colon,
    /// Before or in the value of a member.
    Value(Member),
}

#[derive(Debug)]
pub(super) struct JsonCalls {
    format: &'static ToolFormat,
    at: At,
    /// Everything since the opening mark or the last call.
    unread: String,
    /// Calls since the opening mark.
    n_calls: usize,
    /// The part of a mark that is there.
    mark: String,
    /// The key or value that is being read.
    token: String,
    /// Brackets that are open in a value.
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Of the call that is being read.
    name: Option<String>,
    /// Arguments that came before the name, or as a JSON text in a text.
    arguments: Option<String>,
    /// The name had no quotes, so that the arguments end the call.
    is_bare: bool,
    /// The call has begun for the client.
    is_sent: bool,
}

impl JsonCalls {
    pub(super) fn new(format: &'static ToolFormat, open: &str) -> Self {
        Self {
            format,
            at: At::Outside,
            unread: open.to_string(),
            n_calls: 0,
            mark: String::new(),
            token: String::new(),
            depth: 0,
            in_string: false,
            escaped: false,
            name: None,
            arguments: None,
            is_bare: false,
            is_sent: false,
        }
    }

    pub(super) fn step(&mut self, char: char, tools: &[Tool], sink: &mut Sink) -> Step {
        self.unread.push(char);
        let step = match self.at {
            At::Outside => self.outside(char),
            At::BareName => self.bare_name(char, tools, sink),
            At::Members => self.members(char, sink),
            At::Key => self.key(char),
            At::Colon => self.colon(char),
            At::Value(member) => self.value(member, char, tools, sink),
        };
        if step == Step::GivenUp {
            self.unread.pop();
        }
        if self.is_sent {
            self.unread.clear();
        }
        step
    }

    /// What was not a call.
    pub(super) fn take_unread(&mut self) -> String {
        std::mem::take(&mut self.unread)
    }

    /// The text ends here.
    pub(super) fn finish(&mut self, sink: &mut Sink) {
        let is_between = self.at == At::Outside && self.n_calls > 0;
        if !(is_between || self.format.is_certain) {
            sink.content(&self.take_unread());
        }
    }

    fn outside(&mut self, char: char) -> Step {
        self.mark.push(char);
        if let Some(step) = self.mark() {
            return step;
        }
        self.mark.pop();
        if !self.mark.chars().all(is_separator) {
            return Step::GivenUp;
        }
        if !self.mark.is_empty() {
            self.mark = char.to_string();
            if let Some(step) = self.mark() {
                return step;
            }
        }
        self.mark.clear();
        match char {
            '{' => self.go(At::Members),
            ']' if self.n_calls > 0 => {
                self.unread.clear();
                Step::Go
            }
            _ if is_separator(char) => Step::Go,
            _ if self.format.has_bare_names && (char.is_alphanumeric() || char == '_') => {
                self.token.push(char);
                self.go(At::BareName)
            }
            _ => Step::GivenUp,
        }
    }

    /// Whether what is there begins a mark or is one.
    fn mark(&mut self) -> Option<Step> {
        let is_begun = |mark: &&&str| mark.starts_with(&self.mark);
        let ToolFormat { opens, closes, .. } = self.format;
        let close = closes.iter().find(is_begun).map(|mark| (mark, true));
        let (mark, closes) = close.or_else(|| Some((opens.iter().find(is_begun)?, false)))?;
        if mark.len() > self.mark.len() {
            return Some(Step::Go);
        }
        self.mark.clear();
        Some(match (closes, self.n_calls) {
            (true, 0) => Step::GivenUp,
            (true, _) => Step::Closed,
            (false, _) => Step::Go,
        })
    }

    /// `name{…}`, `name[ARGS]{…}` or `name[CALL_ID]id[ARGS]{…}`.
    fn bare_name(&mut self, char: char, tools: &[Tool], sink: &mut Sink) -> Step {
        if char != '{' {
            self.token.push(char);
            return if self.token.len() > BARE_NAME_BYTES_MAX {
                Step::GivenUp
            } else {
                Step::Go
            };
        }
        let token = std::mem::take(&mut self.token);
        let name = token.split('[').next().unwrap_or_default().trim();
        if !is_known(name, tools) {
            return Step::GivenUp;
        }
        self.name = Some(name.to_string());
        self.is_bare = true;
        self.at = At::Value(Member::Arguments);
        self.value(Member::Arguments, char, tools, sink)
    }

    fn members(&mut self, char: char, sink: &mut Sink) -> Step {
        match char {
            '"' => self.go(At::Key),
            ',' => Step::Go,
            _ if char.is_whitespace() => Step::Go,
            '}' => self.end_call(sink),
            // Small models forget the last brace.
            _ if self.is_sent => {
                self.end_call(sink);
                self.unread.push(char);
                self.outside(char)
            }
            _ => Step::GivenUp,
        }
    }

    fn key(&mut self, char: char) -> Step {
        match char {
            '"' => self.go(At::Colon),
            _ => {
                self.token.push(char);
                Step::Go
            }
        }
    }

    fn colon(&mut self, char: char) -> Step {
        match char {
            ':' => {
                let member = match std::mem::take(&mut self.token).as_str() {
                    "name" | "tool_name" => Member::Name,
                    "arguments" | "parameters" if !self.has_arguments() => Member::Arguments,
                    _ => Member::Other,
                };
                self.go(At::Value(member))
            }
            _ if char.is_whitespace() => Step::Go,
            _ => Step::GivenUp,
        }
    }

    fn value(&mut self, member: Member, char: char, tools: &[Tool], sink: &mut Sink) -> Step {
        let is_first = self.token.is_empty();
        match char {
            _ if !is_first => {}
            _ if char.is_whitespace() => return Step::Go,
            '"' | '{' | '[' | '-' | '0'..='9' | 't' | 'f' | 'n' => {}
            _ => return Step::GivenUp,
        }
        if let (true, Member::Arguments, '{', Some(name)) = (is_first, member, char, &self.name) {
            sink.call(name);
            self.is_sent = true;
        }
        // A value that is not in brackets or quotes ends where the object goes on.
        if self.depth == 0 && !self.in_string && matches!(char, ',' | '}' | ']') {
            return match self.end_value(member, tools, sink) {
                Step::Go => self.members(char, sink),
                other => other,
            };
        }
        if self.is_streamed(member) {
            // All that is kept is that there was something.
            self.token.clear();
            self.token.push(char);
            sink.arguments(char.encode_utf8(&mut [0; 4]));
        } else {
            self.token.push(char);
        }
        if self.closes_value(char) {
            return self.end_value(member, tools, sink);
        }
        Step::Go
    }

    fn is_streamed(&self, member: Member) -> bool {
        member == Member::Arguments && self.is_sent
    }

    /// Follows brackets and quotes.
    fn closes_value(&mut self, char: char) -> bool {
        if self.in_string {
            match char {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.in_string = false,
                _ => {}
            }
            return !self.in_string && self.depth == 0;
        }
        match char {
            '"' => self.in_string = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' => {
                self.depth -= 1;
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }

    fn end_value(&mut self, member: Member, tools: &[Tool], sink: &mut Sink) -> Step {
        let text = std::mem::take(&mut self.token);
        self.at = At::Members;
        if self.is_streamed(member) {
            return if self.is_bare {
                self.end_call(sink)
            } else {
                Step::Go
            };
        }
        match (member, serde_json::from_str::<Value>(&text)) {
            (Member::Name, Ok(Value::String(name))) if is_known(&name, tools) => self.name = Some(name),
            (Member::Name, _) | (Member::Arguments, Err(_)) => return Step::GivenUp,
            (Member::Arguments, Ok(Value::String(inner))) => self.arguments = Some(inner),
            (Member::Arguments, Ok(Value::Null)) | (Member::Other, _) => {}
            (Member::Arguments, Ok(_)) => self.arguments = Some(text),
        }
        Step::Go
    }

    fn end_call(&mut self, sink: &mut Sink) -> Step {
        let (name, arguments) = (self.name.take(), self.arguments.take());
        if !self.is_sent {
            let Some(name) = name else { return Step::GivenUp };
            sink.call(&name);
            sink.arguments(arguments.as_deref().unwrap_or("{}"));
        }
        (self.is_sent, self.is_bare) = (false, false);
        self.n_calls += 1;
        self.unread.clear();
        self.go(At::Outside)
    }

    fn has_arguments(&self) -> bool {
        self.is_sent || self.arguments.is_some()
    }

    fn go(&mut self, at: At) -> Step {
        self.at = at;
        Step::Go
    }
}

/// What stands between calls and around lists of them.
fn is_separator(char: char) -> bool {
    char.is_whitespace() || matches!(char, ',' | ';' | '[' | ']')
}

fn is_known(name: &str, tools: &[Tool]) -> bool {
    tools.iter().any(|tool| tool.function.name == name)
}
