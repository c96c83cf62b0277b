//! Structural tags: free text in which certain parts have a form of their own, written as a grammar of Lark.
//!
//! Reads vLLM's older form (`structures` and `triggers`) and XGrammar's newer one (`format`), of which
//! `qwen_xml_parameter` is refused, and whatever has to follow free text without end.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::constraint::{json_grammar, lark_grammar, regex_grammar};
use super::gbnf::literal;
use super::marks::{Marks, Piece};

/// Any text.
const ANY: &str = "/(?s:.)*/";

/// Writes a structural tag for llguidance.
///
/// # Errors
/// What is wrong with it, or not supported.
pub(super) fn to_lark(tag: &Value, marks: &Marks) -> Result<String, String> {
    let mut writer = Writer::new(marks);
    let start = match (tag.get("format"), tag.get("structures")) {
        (Some(format), None) => writer.format(format)?,
        (None, Some(_)) => writer.triggered(&older(tag)?)?,
        _ => return Err("it has either a format or structures and triggers".to_owned()),
    };
    Ok(format!("start: {}\n{}", start.lark, writer.definitions))
}

/// What a model writes before the answer that a grammar describes: its thoughts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preamble {
    /// Text up to this mark; the prompt has begun it.
    Until(&'static str),
    /// Text between these marks, or nothing.
    Between(&'static str, &'static str),
    /// Messages, each with this before and behind it, or none; then what begins the answer.
    Messages([&'static str; 2], &'static str),
}

/// Space between thoughts and the answer, as models write it.
const SPACE: &str = r"/[ \n]{1,4}/?";

/// Writes a grammar of Lark behind a preamble.
pub(super) fn behind(preamble: Preamble, answer: &str, marks: &Marks) -> String {
    let mut writer = Writer::new(marks);
    let thoughts = match preamble {
        Preamble::Until(close) => format!("{} {SPACE}", writer.text_until(&[close], Vec::new())),
        Preamble::Between(open, close) => {
            let thoughts = writer.text_until(&[close], Vec::new());
            format!("({} {thoughts} {SPACE})?", writer.text(open))
        }
        Preamble::Messages([open, close], begin) => {
            let message = format!(
                "{} {}",
                writer.text(open),
                writer.text_until(&[close], Vec::new())
            );
            format!("{}* {}", writer.define("m", &message), writer.text(begin))
        }
    };
    let answer = writer.define("g", &nested(answer));
    format!("start: {thoughts} {answer}\n{}", writer.definitions)
}

/// A grammar as an atom of another.
fn nested(grammar: &str) -> String {
    format!("%lark {{\n{grammar}\n}}")
}

/// The older form in terms of the newer one.
fn older(tag: &Value) -> Result<Map<String, Value>, String> {
    let content = |structure: &Value| {
        let schema = structure.get("schema").cloned().unwrap_or(Value::Bool(true));
        serde_json::json!({
            "begin": structure.get("begin"),
            "content": {"type": "json_schema", "json_schema": schema},
            "end": structure.get("end"),
        })
    };
    let structures = array(tag.get("structures"), "structures")?;
    let mut format = Map::new();
    format.insert("tags".to_owned(), structures.iter().map(content).collect());
    format.insert(
        "triggers".to_owned(),
        tag.get("triggers").cloned().unwrap_or_default(),
    );
    Ok(format)
}

struct Writer<'a> {
    marks: &'a Marks,
    /// Rules and terminals, one per line.
    definitions: String,
    n_names: usize,
}

/// A part of a rule.
struct Part {
    lark: String,
    /// It may end in free text, which would swallow whatever had to follow.
    is_open: bool,
}

impl From<String> for Part {
    fn from(lark: String) -> Part {
        Part { lark, is_open: false }
    }
}

impl<'a> Writer<'a> {
    fn new(marks: &'a Marks) -> Self {
        Self {
            marks,
            definitions: String::new(),
            n_names: 0,
        }
    }

    fn format(&mut self, format: &Value) -> Result<Part, String> {
        let fields = format.as_object().ok_or("a format is an object")?;
        match text(format.get("type"), "type of a format")? {
            "const_string" => Ok(self.text(text(format.get("value"), "value")?).into()),
            "json_schema" => {
                let schema = format.get("json_schema").ok_or("json_schema is missing")?;
                let rule = json_grammar(schema)?;
                Ok(self.define("j", &rule).into())
            }
            "regex" => {
                let rule = regex_grammar(text(format.get("pattern"), "pattern")?)?;
                Ok(self.define("x", &rule).into())
            }
            "grammar" => {
                let grammar = lark_grammar(text(format.get("grammar"), "grammar")?)?;
                Ok(self.define("g", &nested(&grammar)).into())
            }
            "any_text" => {
                let excluded = excluded(format)?;
                let lark = format!("{}?", self.free_text(&excluded));
                Ok(Part { lark, is_open: true })
            }
            "sequence" => self.sequence(array(format.get("elements"), "elements")?),
            "or" => self.any_of(array(format.get("elements"), "elements")?),
            "tag" => self.tag(format, 0),
            "triggered_tags" => self.triggered(fields),
            "tags_with_separator" => self.separated(fields),
            other => Err(format!("the format {other} is not supported")),
        }
    }

    fn sequence(&mut self, elements: &[Value]) -> Result<Part, String> {
        let parts: Vec<Part> = elements
            .iter()
            .map(|element| self.format(element))
            .collect::<Result<_, _>>()?;
        if parts.iter().rev().skip(1).any(|part| part.is_open) {
            return Err("nothing can follow free text that has no end; put it into a tag".to_owned());
        }
        Ok(Part {
            is_open: parts.last().is_some_and(|part| part.is_open),
            lark: group(parts, " "),
        })
    }

    fn any_of(&mut self, elements: &[Value]) -> Result<Part, String> {
        let parts: Vec<Part> = elements
            .iter()
            .map(|element| self.format(element))
            .collect::<Result<_, _>>()?;
        Ok(Part {
            is_open: parts.iter().any(|part| part.is_open),
            lark: group(parts, " | "),
        })
    }

    /// A tag, of which the first `n_begun` bytes stand there already.
    fn tag(&mut self, tag: &Value, n_begun: usize) -> Result<Part, String> {
        let begin = text(tag.get("begin"), "begin")?;
        let ends = match tag.get("end") {
            Some(Value::Array(ends)) => ends
                .iter()
                .map(|end| text(Some(end), "end"))
                .collect::<Result<Vec<_>, _>>()?,
            end => vec![text(end, "end")?],
        };
        let content = tag.get("content").ok_or("content is missing")?;
        let begin = self.text(begin.get(n_begun..).unwrap_or_default());
        let is_any = content.get("type").and_then(Value::as_str) == Some("any_text");
        let (rest, is_open) = if is_any {
            (self.text_until(&ends, excluded(content)?), ends.contains(&""))
        } else {
            let content = self.format(content)?;
            if content.is_open {
                return Err("in a tag, free text stands alone".to_owned());
            }
            let ends = ends
                .iter()
                .map(|end| self.text(end))
                .collect::<Vec<_>>()
                .join(" | ");
            (format!("{} ({ends})", content.lark), false)
        };
        Ok(Part {
            lark: format!("{begin} {rest}"),
            is_open,
        })
    }

    fn triggered(&mut self, fields: &Map<String, Value>) -> Result<Part, String> {
        let tags = array(fields.get("tags"), "tags")?;
        let triggers = array(fields.get("triggers"), "triggers")?;
        let triggers: Vec<&str> = triggers
            .iter()
            .map(|trigger| text(Some(trigger), "trigger"))
            .collect::<Result<_, _>>()?;
        if tags.is_empty() || triggers.is_empty() || triggers.contains(&"") {
            return Err("tags and triggers are not empty".to_owned());
        }
        let begins: Vec<&str> = tags
            .iter()
            .map(|tag| text(tag.get("begin"), "begin"))
            .collect::<Result<_, _>>()?;
        if let Some(begin) = begins
            .iter()
            .find(|begin| !triggers.iter().any(|trigger| begin.starts_with(trigger)))
        {
            return Err(format!("no trigger begins {begin:?}"));
        }
        let mut unwanted = list(fields.get("excludes"), "excludes")?;
        unwanted.extend(triggers.iter().filter(|trigger| self.is_text(trigger)).copied());
        let mut segments = Vec::new();
        for trigger in &triggers {
            let of_trigger = tags
                .iter()
                .zip(&begins)
                .filter(|(_, begin)| begin.starts_with(trigger));
            let rests: Vec<Part> = of_trigger
                .map(|(tag, _)| self.tag(tag, trigger.len()))
                .collect::<Result<_, _>>()?;
            let before = self.text_before(trigger, &unwanted)?;
            segments.push(format!("{before} {}", closed(rests)?));
        }
        let segment = self.define("s", &segments.join(" | "));
        let tail = self.free_text(&unwanted);
        let first = if flag(fields, "at_least_one")? {
            let whole: Vec<Part> = tags
                .iter()
                .map(|tag| self.tag(tag, 0))
                .collect::<Result<_, _>>()?;
            Some(closed(whole)?)
        } else {
            None
        };
        Ok(match (first, flag(fields, "stop_after_first")?) {
            (Some(first), true) => first.into(),
            (None, true) => Part {
                lark: format!("({segment} | {tail}?)"),
                is_open: true,
            },
            (first, false) => Part {
                lark: format!("{} {segment}* {tail}?", first.unwrap_or_default()),
                is_open: true,
            },
        })
    }

    fn separated(&mut self, fields: &Map<String, Value>) -> Result<Part, String> {
        let tags = array(fields.get("tags"), "tags")?;
        let separator = self.text(text(fields.get("separator"), "separator")?);
        let tags: Vec<Part> = tags
            .iter()
            .map(|tag| self.tag(tag, 0))
            .collect::<Result<_, _>>()?;
        let closed = closed(tags)?;
        let tag = self.define("t", &closed);
        let tags = if flag(fields, "stop_after_first")? {
            tag
        } else {
            format!("({tag} ({separator} {tag})*)")
        };
        let lark = if flag(fields, "at_least_one")? {
            tags
        } else {
            format!("{tags}?")
        };
        Ok(lark.into())
    }

    /// A text that must stand there; marks in it are the model's tokens for them.
    fn text(&self, text: &str) -> String {
        let pieces = self.marks.pieces(text);
        if pieces.is_empty() {
            return "\"\"".to_owned();
        }
        let written = pieces.into_iter().map(|piece| match piece {
            Piece::Text(text) => literal(text),
            Piece::Mark(id) => format!("<[{id}]>"),
        });
        written.collect::<Vec<_>>().join(" ")
    }

    fn is_text(&self, text: &str) -> bool {
        matches!(self.marks.pieces(text).as_slice(), [Piece::Text(_)])
    }

    /// Text without any of `unwanted`, not empty.
    fn free_text(&mut self, unwanted: &[&str]) -> String {
        let without = without(unwanted);
        self.define("FREE", &format!("/(?s:.)+/{without}"))
    }

    /// Free text up to a trigger, and the trigger.
    fn text_before(&mut self, trigger: &str, unwanted: &[&str]) -> Result<String, String> {
        match self.marks.pieces(trigger).as_slice() {
            [Piece::Mark(id)] => Ok(format!("{}? <[{id}]>", self.free_text(unwanted))),
            [Piece::Text(trigger)] => {
                let free = format!("({ANY}{})", without(unwanted));
                Ok(self.define("UNTIL", &format!("{free} {}", literal(trigger))))
            }
            _ => Err(format!("the trigger {trigger:?} is neither text nor one mark")),
        }
    }

    /// Free text up to one of `ends`, and that end.
    fn text_until(&mut self, ends: &[&str], excluded: Vec<&str>) -> String {
        let first_texts = ends
            .iter()
            .filter_map(|end| match self.marks.pieces(end).first() {
                Some(Piece::Text(text)) => Some(*text),
                _ => None,
            });
        let unwanted: Vec<&str> = first_texts.chain(excluded).collect();
        let mut untils = Vec::new();
        for end in ends {
            let pieces = self.marks.pieces(end);
            untils.push(match pieces.first() {
                Some(Piece::Text(first)) => {
                    let free = format!("({ANY}{})", without(&unwanted));
                    let until = self.define("UNTIL", &format!("{free} {}", literal(first)));
                    format!("{until} {}", self.text(&end[first.len()..]))
                }
                _ => format!("{}? {}", self.free_text(&unwanted), self.text(end)),
            });
        }
        format!("({})", untils.join(" | "))
    }

    /// Gives a body a name; one in capitals is that of a terminal.
    fn define(&mut self, prefix: &str, body: &str) -> String {
        let separator = if prefix.starts_with(char::is_uppercase) {
            "_"
        } else {
            ""
        };
        let name = format!("{prefix}{separator}{}", self.n_names);
        self.n_names += 1;
        let _ = writeln!(self.definitions, "{name}: {body}");
        name
    }
}

/// The rest of a terminal that may contain none of `unwanted`.
fn without(unwanted: &[&str]) -> String {
    if unwanted.is_empty() {
        return String::new();
    }
    let any_of = unwanted
        .iter()
        .map(|text| literal(text))
        .collect::<Vec<_>>()
        .join(" | ");
    format!(" & ~({ANY} ({any_of}) {ANY})")
}

/// Tags as alternatives, none of which may end in free text.
fn closed(tags: Vec<Part>) -> Result<String, String> {
    if tags.is_empty() || tags.iter().any(|tag| tag.is_open) {
        return Err("every tag has an end, and every trigger a tag".to_owned());
    }
    Ok(group(tags, " | "))
}

fn group(parts: Vec<Part>, separator: &str) -> String {
    let parts: Vec<String> = parts.into_iter().map(|part| part.lark).collect();
    if parts.is_empty() {
        return "\"\"".to_owned();
    }
    format!("({})", parts.join(separator))
}

fn text<'v>(value: Option<&'v Value>, what: &str) -> Result<&'v str, String> {
    value
        .and_then(Value::as_str)
        .ok_or_else(|| format!("{what} is a text"))
}

fn array<'v>(value: Option<&'v Value>, what: &str) -> Result<&'v [Value], String> {
    value
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .ok_or_else(|| format!("{what} is a list"))
}

fn list<'v>(value: Option<&'v Value>, what: &str) -> Result<Vec<&'v str>, String> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        value => array(value, what)?
            .iter()
            .map(|entry| text(Some(entry), what))
            .collect(),
    }
}

/// What free text may not contain, by either of its names.
fn excluded(format: &Value) -> Result<Vec<&str>, String> {
    let mut excluded = list(format.get("excluded_str"), "excluded_str")?;
    excluded.extend(list(format.get("excludes"), "excludes")?);
    Ok(excluded)
}

fn flag(fields: &Map<String, Value>, name: &str) -> Result<bool, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(value) => value.as_bool().ok_or_else(|| format!("{name} is true or false")),
    }
}
