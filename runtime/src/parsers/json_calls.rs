//! Parses calls that are JSON objects with a name and arguments, character by character.
//!
//! Sends arguments on as they arrive, as the model writes them. Up to the start of the arguments, text that is
//! not a call of a known tool becomes content again. After it, the text is part of the arguments.

use openai_protocol::common::Tool;
use serde_json::Value;

use super::formats::ToolFormat;
use super::json_text::JsonText;
use super::sink::Sink;

/// Longest name without quotes before arguments, including what a format puts between them, in bytes.
const BARE_NAME_BYTES_MAX: usize = 256;

/// The effect of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Calls continue.
    Continue,
    /// The closing mark is complete.
    Closed,
    /// Neither the character nor the unsent text before it is part of a call.
    NoCall,
}

/// The meaning of a member of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    Name,
    Arguments,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between objects, or in a list of them.
    Outside,
    /// Inside a name without quotes.
    BareName,
    /// Inside an object, between its members.
    Members,
    Key,
    Colon,
    /// Before or inside the value of a member.
    Value(Member),
}

#[derive(Clone, Debug)]
pub(super) struct JsonCalls {
    format: &'static ToolFormat,
    state: State,
    /// The text since the opening mark or the last call.
    unsent: String,
    /// Calls since the opening mark.
    n_calls: usize,
    /// The received part of a mark.
    mark: String,
    /// The current key or value.
    token: String,
    /// How a value is kept until its end.
    json: JsonText,
    /// Brackets that are open in a value.
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// The name of the current call.
    name: Option<String>,
    /// The id of the current call, if the model writes one before its arguments.
    id: Option<String>,
    /// Arguments that came before the name, or as a JSON text inside a string.
    arguments: Option<String>,
    /// Whether the name had no quotes, so that the call ends with its arguments.
    is_bare: bool,
    /// Whether the client has received the start of the call.
    is_sent: bool,
}

impl JsonCalls {
    pub(super) fn new(format: &'static ToolFormat, open: &str) -> Self {
        Self {
            format,
            state: State::Outside,
            unsent: open.to_string(),
            n_calls: 0,
            mark: String::new(),
            token: String::new(),
            json: JsonText::default(),
            depth: 0,
            in_string: false,
            escaped: false,
            name: None,
            id: None,
            arguments: None,
            is_bare: false,
            is_sent: false,
        }
    }

    pub(super) fn push(&mut self, char: char, tools: &[Tool], sink: &mut Sink) -> Effect {
        self.unsent.push(char);
        let effect = match self.state {
            State::Outside => self.outside(char),
            State::BareName => self.bare_name(char, tools, sink),
            State::Members => self.members(char, sink),
            State::Key => self.key(char),
            State::Colon => self.colon(char),
            State::Value(member) => self.value(member, char, tools, sink),
        };
        if effect == Effect::NoCall {
            self.unsent.pop();
        }
        if self.is_sent {
            self.unsent.clear();
        }
        effect
    }

    /// Returns the text that was not a call.
    pub(super) fn take_unsent(&mut self) -> String {
        std::mem::take(&mut self.unsent)
    }

    /// Ends the text.
    pub(super) fn finish(&mut self, sink: &mut Sink) {
        let is_between = self.state == State::Outside && self.n_calls > 0;
        if !(is_between || self.format.is_certain) {
            sink.content(&self.take_unsent());
        }
    }

    fn outside(&mut self, char: char) -> Effect {
        self.mark.push(char);
        if let Some(effect) = self.mark() {
            return effect;
        }
        self.mark.pop();
        if !self.mark.chars().all(is_separator) {
            return Effect::NoCall;
        }
        if !self.mark.is_empty() {
            self.mark = char.to_string();
            if let Some(effect) = self.mark() {
                return effect;
            }
        }
        self.mark.clear();
        match char {
            '{' => self.enter(State::Members),
            ']' if self.n_calls > 0 => {
                self.unsent.clear();
                Effect::Continue
            }
            _ if is_separator(char) => Effect::Continue,
            _ if self.format.has_bare_names && (char.is_alphanumeric() || char == '_') => {
                self.token.push(char);
                self.enter(State::BareName)
            }
            _ => Effect::NoCall,
        }
    }

    /// Whether the received characters begin a mark or complete one.
    fn mark(&mut self) -> Option<Effect> {
        let is_begun = |mark: &&&str| mark.starts_with(&self.mark);
        let ToolFormat { opens, closes, .. } = self.format;
        let close = closes.iter().find(is_begun).map(|mark| (mark, true));
        let (mark, closes) = close.or_else(|| Some((opens.iter().find(is_begun)?, false)))?;
        if mark.len() > self.mark.len() {
            return Some(Effect::Continue);
        }
        self.mark.clear();
        Some(match (closes, self.n_calls) {
            (true, 0) => Effect::NoCall,
            (true, _) => Effect::Closed,
            (false, _) => Effect::Continue,
        })
    }

    /// `name{…}`, `name[ARGS]{…}` or `name[CALL_ID]id[ARGS]{…}`.
    fn bare_name(&mut self, char: char, tools: &[Tool], sink: &mut Sink) -> Effect {
        if char != '{' {
            self.token.push(char);
            return if self.token.len() > BARE_NAME_BYTES_MAX {
                Effect::NoCall
            } else {
                Effect::Continue
            };
        }
        let token = std::mem::take(&mut self.token);
        let name = token.split('[').next().unwrap_or_default().trim();
        if !is_known(name, tools) {
            return Effect::NoCall;
        }
        let id = token
            .split_once("[CALL_ID]")
            .and_then(|(_, rest)| rest.split('[').next());
        self.id = id.map(|id| id.trim().to_owned());
        self.name = Some(name.to_string());
        self.is_bare = true;
        self.state = State::Value(Member::Arguments);
        self.value(Member::Arguments, char, tools, sink)
    }

    fn members(&mut self, char: char, sink: &mut Sink) -> Effect {
        match char {
            '"' => self.enter(State::Key),
            ',' => Effect::Continue,
            _ if char.is_whitespace() => Effect::Continue,
            '}' => self.end_call(sink),
            // Small models omit the last brace.
            _ if self.is_sent => {
                self.end_call(sink);
                self.unsent.push(char);
                self.outside(char)
            }
            _ => Effect::NoCall,
        }
    }

    fn key(&mut self, char: char) -> Effect {
        match char {
            '"' => self.enter(State::Colon),
            _ => {
                self.token.push(char);
                Effect::Continue
            }
        }
    }

    fn colon(&mut self, char: char) -> Effect {
        match char {
            ':' => {
                let member = match std::mem::take(&mut self.token).as_str() {
                    "name" | "tool_name" => Member::Name,
                    "arguments" | "parameters" if !self.has_arguments() => Member::Arguments,
                    _ => Member::Other,
                };
                self.enter(State::Value(member))
            }
            _ if char.is_whitespace() => Effect::Continue,
            _ => Effect::NoCall,
        }
    }

    fn value(&mut self, member: Member, char: char, tools: &[Tool], sink: &mut Sink) -> Effect {
        let is_first = self.token.is_empty();
        match char {
            _ if !is_first => {}
            _ if char.is_whitespace() => return Effect::Continue,
            '"' | '{' | '[' | '-' | '0'..='9' | 't' | 'f' | 'n' => {}
            _ => return Effect::NoCall,
        }
        if let (true, Member::Arguments, '{', Some(name)) = (is_first, member, char, &self.name) {
            sink.call(name, self.id.as_deref());
            self.is_sent = true;
        }
        // A value without brackets or quotes ends where the object continues.
        if self.depth == 0 && !self.in_string && matches!(char, ',' | '}' | ']') {
            return match self.end_value(member, tools, sink) {
                Effect::Continue => self.members(char, sink),
                other => other,
            };
        }
        if self.is_streamed(member) {
            // Only whether the value has begun matters.
            self.token.clear();
            self.token.push(char);
            sink.arguments(char.encode_utf8(&mut [0; 4]));
        } else {
            if is_first {
                self.json = JsonText::default();
            }
            self.json.push(char, &mut self.token);
        }
        if self.closes_value(char) {
            return self.end_value(member, tools, sink);
        }
        Effect::Continue
    }

    fn is_streamed(&self, member: Member) -> bool {
        member == Member::Arguments && self.is_sent
    }

    /// Tracks brackets and quotes. Returns whether this character ends a value.
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

    fn end_value(&mut self, member: Member, tools: &[Tool], sink: &mut Sink) -> Effect {
        let text = std::mem::take(&mut self.token);
        self.state = State::Members;
        if self.is_streamed(member) {
            return if self.is_bare {
                self.end_call(sink)
            } else {
                Effect::Continue
            };
        }
        match (member, serde_json::from_str::<Value>(&text)) {
            (Member::Name, Ok(Value::String(name))) if is_known(&name, tools) => self.name = Some(name),
            (Member::Name, _) | (Member::Arguments, Err(_)) => return Effect::NoCall,
            (Member::Arguments, Ok(Value::String(inner))) => self.arguments = Some(inner),
            (Member::Arguments, Ok(Value::Null)) | (Member::Other, _) => {}
            (Member::Arguments, Ok(_)) => self.arguments = Some(text),
        }
        Effect::Continue
    }

    fn end_call(&mut self, sink: &mut Sink) -> Effect {
        let (name, id, arguments) = (self.name.take(), self.id.take(), self.arguments.take());
        if !self.is_sent {
            let Some(name) = name else { return Effect::NoCall };
            sink.call(&name, id.as_deref());
            sink.arguments(arguments.as_deref().unwrap_or("{}"));
        }
        (self.is_sent, self.is_bare) = (false, false);
        self.n_calls += 1;
        self.unsent.clear();
        self.enter(State::Outside)
    }

    fn has_arguments(&self) -> bool {
        self.is_sent || self.arguments.is_some()
    }

    fn enter(&mut self, state: State) -> Effect {
        self.state = state;
        Effect::Continue
    }
}

/// Whether a character separates calls or encloses a list of them.
fn is_separator(char: char) -> bool {
    char.is_whitespace() || matches!(char, ',' | ';' | '[' | ']')
}

fn is_known(name: &str, tools: &[Tool]) -> bool {
    tools.iter().any(|tool| tool.function.name == name)
}
