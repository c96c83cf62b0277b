//! What an answer cost: the counts of tokens in its `usage`, read while it passes.
//!
//! Replicas name the counts in each JSON answer, and in a stream of events if the request says so. The gateway requests them
//! where the client did not (`stream_options.include_usage`), and removes them from the stream again.

use axum::body::Bytes;
use memchr::{memchr2, memmem};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body::{Head, PARSED_BYTES_MAX};

/// Most bytes of a `usage`.
const USAGE_BYTES_MAX: usize = 4 << 10;
/// Ends an event of a stream.
const END_OF_EVENT: &[u8] = b"\n\n";
/// What each event of a stream with usage has more than without. In a text the quotes would have backslashes before them.
const NO_USAGE: &[u8] = br#","usage":null"#;
/// What only the event with the usage has.
const LAST_USAGE: &[u8] = br#""choices":[],"usage":{"#;

/// Tokens of an answer and its prompt, as far as they are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) prompt: Option<u64>,
    pub(super) completion: Option<u64>,
}

/// A `usage` of OpenAI's APIs, or of Anthropic's, which counts the cached part of a prompt separately.
#[derive(Debug, Deserialize)]
struct Fields {
    #[serde(alias = "input_tokens")]
    prompt_tokens: Option<u64>,
    #[serde(alias = "output_tokens")]
    completion_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
}

impl Usage {
    /// Takes the counts of a later `usage` where it has them.
    fn renew(&mut self, json: &[u8]) {
        let Ok(fields) = serde_json::from_slice::<Fields>(json) else {
            return;
        };
        let cached = [fields.cache_creation_input_tokens, fields.cache_read_input_tokens];
        let with_cached = |n: u64| cached.into_iter().flatten().fold(n, u64::saturating_add);
        self.prompt = fields.prompt_tokens.map(with_cached).or(self.prompt);
        self.completion = fields.completion_tokens.or(self.completion);
    }
}

/// The body of a request for a stream that would not contain its usage, changed so that it does; `None` if there is nothing
/// to change.
pub(super) fn with_usage(path: &str, head: &Head, body: &[u8]) -> Option<Bytes> {
    if !path.ends_with("/completions") || !head.is_streamed() {
        return None;
    }
    match head.stream_options() {
        None => {
            let begin = body.iter().position(|byte| *byte == b'{')? + 1;
            let option = br#""stream_options":{"include_usage":true},"#;
            Some([&body[..begin], option, &body[begin..]].concat().into())
        }
        Some(Value::Object(options)) if options.get("include_usage") == Some(&Value::Bool(true)) => None,
        Some(Value::Null | Value::Object(_)) if body.len() <= PARSED_BYTES_MAX => {
            let mut body: Value = serde_json::from_slice(body).ok()?;
            match &mut body["stream_options"] {
                Value::Object(options) => {
                    // Without usage, its counts in each event have no effect.
                    options.remove("continuous_usage_stats");
                    options.insert("include_usage".into(), Value::Bool(true));
                }
                other => *other = json!({"include_usage": true}),
            }
            serde_json::to_vec(&body).ok().map(Bytes::from)
        }
        // The replica refuses it, or it is too large to be changed.
        Some(_) => None,
    }
}

/// Finds `usage` in JSON that comes in pieces, also where each event of a stream is JSON of its own.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) usage: Usage,
    /// Objects that have ended. In a stream these are events, each with at least one token.
    pub(super) n_objects: u64,
    depth: usize,
    is_in_string: bool,
    is_escaped: bool,
    /// The last string, as far as it may be a name.
    string: Vec<u8>,
    /// The name before the value that comes next, for the outer object and for one in it.
    names: [Name; 2],
    /// The `usage` that is being read, and the depth around it.
    captured: Option<(Vec<u8>, usize)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Name {
    Usage,
    /// The answer of OpenAI's responses or Anthropic's messages within an event.
    Answer,
    #[default]
    Other,
}

impl Name {
    /// The longest name of interest.
    const BYTES_MAX: usize = "response".len();

    fn of(string: &[u8]) -> Name {
        match string {
            b"usage" => Name::Usage,
            b"response" | b"message" => Name::Answer,
            _ => Name::Other,
        }
    }
}

impl Reader {
    /// Reads a piece.
    pub(super) fn read(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while !rest.is_empty() {
            let special = match (self.is_in_string, self.is_escaped) {
                (true, true) => Some(0),
                (true, false) => memchr2(b'"', b'\\', rest),
                (false, _) => rest.iter().position(|byte| b"{}[]\":".contains(byte)),
            };
            let n_plain = special.unwrap_or(rest.len());
            let (run, after) = rest.split_at(rest.len().min(n_plain + 1));
            rest = after;
            if let Some((json, _)) = &mut self.captured {
                json.extend(run.iter().take(USAGE_BYTES_MAX.saturating_sub(json.len())));
            }
            if self.is_in_string {
                let n_free = (Name::BYTES_MAX + 1).saturating_sub(self.string.len());
                self.string.extend(run[..n_plain].iter().take(n_free));
            }
            match run.get(n_plain) {
                Some(&byte) if self.is_in_string => self.in_string(byte),
                Some(&byte) => self.outside(byte),
                None => {}
            }
        }
    }

    fn in_string(&mut self, byte: u8) {
        match byte {
            _ if self.is_escaped => self.is_escaped = false,
            b'\\' => {
                self.is_escaped = true;
                // No name of interest has one.
                self.string.clear();
                self.string.push(byte);
            }
            _ => self.is_in_string = false,
        }
    }

    fn outside(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                if byte == b'{' && self.is_usage() {
                    self.captured = Some((vec![byte], self.depth));
                }
                self.depth += 1;
                if let Some(name) = self.names.get_mut(self.depth - 1) {
                    *name = Name::Other;
                }
            }
            b'}' | b']' => {
                self.n_objects += u64::from(self.depth == 1 && byte == b'}');
                // Between the events of a stream is no JSON.
                self.depth = self.depth.saturating_sub(1);
                if let Some((json, _)) = self.captured.take_if(|(_, depth)| *depth == self.depth) {
                    self.usage.renew(&json);
                }
            }
            b'"' if self.depth > 0 => {
                self.is_in_string = true;
                self.string.clear();
            }
            b':' => {
                if let Some(name) = self.depth.checked_sub(1).and_then(|at| self.names.get_mut(at)) {
                    *name = Name::of(&self.string);
                }
            }
            _ => {}
        }
    }

    /// Whether an object that begins now is a `usage`.
    fn is_usage(&self) -> bool {
        let [outer, inner] = self.names;
        match self.depth {
            1 => outer == Name::Usage,
            2 => outer == Name::Answer && inner == Name::Usage,
            _ => false,
        }
    }
}

/// Removes from a stream of events what the client did not request. An event passes once it is complete.
#[derive(Debug, Default)]
pub(super) struct Filter {
    begun: Vec<u8>,
}

impl Filter {
    /// The events that end with this piece.
    pub(super) fn pass(&mut self, piece: &[u8]) -> Bytes {
        // The end of the event may have begun before this piece.
        let mut n_searched = self.begun.len().saturating_sub(1);
        self.begun.extend_from_slice(piece);
        let mut passed = Vec::with_capacity(self.begun.len());
        let mut rest = self.begun.as_slice();
        while let Some(at) = memmem::find(&rest[n_searched..], END_OF_EVENT) {
            let (event, after) = rest.split_at(n_searched + at + END_OF_EVENT.len());
            (rest, n_searched) = (after, 0);
            if memmem::find(event, LAST_USAGE).is_some() {
                continue;
            }
            match memmem::find(event, NO_USAGE) {
                Some(at) => {
                    passed.extend_from_slice(&event[..at]);
                    passed.extend_from_slice(&event[at + NO_USAGE.len()..]);
                }
                None => passed.extend_from_slice(event),
            }
        }
        self.begun = rest.to_vec();
        passed.into()
    }

    /// What there is of an event that never ended.
    pub(super) fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.begun).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, piece_bytes: usize) -> (Usage, u64) {
        let mut reader = Reader::default();
        text.as_bytes()
            .chunks(piece_bytes)
            .for_each(|piece| reader.read(piece));
        (reader.usage, reader.n_objects)
    }

    #[test]
    fn usage_is_found_wherever_pieces_end() {
        let of = |prompt, completion| Usage { prompt, completion };
        for (text, expected) in [
            (
                r#"{"choices":[{"text":"\"usage\":{\"prompt_tokens\":1}"}],"usage":{"prompt_tokens":7,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":3}},"x":[1]}"#,
                (of(Some(7), Some(2)), 1),
            ),
            (
                "{\n  \"usage\" : { \"prompt_tokens\" : 9 }\n}",
                (of(Some(9), None), 1),
            ),
            (
                "data: {\"choices\":[{}],\"usage\":null}\n\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":5}}\n\ndata: [DONE]\n\n",
                (of(Some(4), Some(5)), 2),
            ),
            (
                "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":1,\"cache_read_input_tokens\":16,\"output_tokens\":0}}}\n\n\
                 event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":8}}\n\n",
                (of(Some(17), Some(8)), 2),
            ),
            (
                "event: response.completed\ndata: {\"response\":{\"output\":[{\"usage\":{\"output_tokens\":99}}],\"usage\":{\"input_tokens\":3,\"output_tokens\":6}}}\n\n",
                (of(Some(3), Some(6)), 1),
            ),
            (
                r#"{"output":{"usage":{"prompt_tokens":1}},"usage":"x"}"#,
                (of(None, None), 1),
            ),
            ("not: JSON } ] \"", (of(None, None), 0)),
        ] {
            for piece_bytes in [1, 2, 7, text.len()] {
                assert_eq!(
                    read(text, piece_bytes),
                    expected,
                    "{text} in pieces of {piece_bytes}"
                );
            }
        }
    }

    #[test]
    fn streams_are_asked_for_their_usage_once() {
        let asked = |path: &str, body: &str| {
            let changed = with_usage(path, &Head::of(body.as_bytes()), body.as_bytes());
            changed.map(|body| String::from_utf8(body.to_vec()).unwrap())
        };
        let chat = "/v1/chat/completions";
        assert_eq!(
            asked(chat, r#"{"stream":true,"model":"m"}"#).unwrap(),
            r#"{"stream_options":{"include_usage":true},"stream":true,"model":"m"}"#
        );
        for options in [
            "null",
            r#"{"include_usage":false,"continuous_usage_stats":true}"#,
            "{}",
        ] {
            let body = format!(r#"{{"temperature":0.10,"stream":true,"stream_options":{options}}}"#);
            assert_eq!(
                asked("/openai/v1/completions", &body).unwrap(),
                r#"{"temperature":0.1,"stream":true,"stream_options":{"include_usage":true}}"#
            );
        }
        for (path, body) in [
            (chat, r#"{"stream":true,"stream_options":{"include_usage":true}}"#),
            (chat, r#"{"stream":true,"stream_options":7}"#),
            (chat, r#"{"stream":false}"#),
            (chat, "broken"),
            ("/v1/responses", r#"{"stream":true}"#),
        ] {
            assert_eq!(asked(path, body), None, "{path} {body}");
        }
    }

    #[test]
    fn a_client_receives_what_it_would_have_without_usage() {
        let text = r#"data: {"choices":[{"text":"\",\"usage\":null"}],"usage":null,"object":"x"}"#;
        let stream = format!(
            ": keep-alive\n\n{text}\n\ndata: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":1}}}}\n\ndata: [DONE]\n\ncut o"
        );
        let expected = format!(
            ": keep-alive\n\n{}\n\ndata: [DONE]\n\ncut o",
            text.replace(r#"],"usage":null,"#, "],")
        );
        for piece_bytes in [1, 3, 50, stream.len()] {
            let mut filter = Filter::default();
            let pieces = stream.as_bytes().chunks(piece_bytes);
            let mut passed: Vec<u8> = pieces.flat_map(|piece| filter.pass(piece)).collect();
            passed.extend(filter.rest());
            assert_eq!(String::from_utf8(passed).unwrap(), expected);
        }
    }
}
