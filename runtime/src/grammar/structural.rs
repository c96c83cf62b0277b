//! Structural tags, written in Lark's notation: free text in which certain parts have a form.
//!
//! Reads vLLM's older form (`structures` and `triggers`) and XGrammar's newer one (`format`). Refuses the format
//! `qwen_xml_parameter`, and formats in which something follows free text that has no end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::bounds::{FORMATS, LARK, TRIGGERS};
use super::error::Refusal;
use super::lark::{EMPTY, literal, nested};
use super::special_tokens::{Segment, SpecialTokens};
use super::{context_free, lark};

/// Any text.
const ANY: &str = "/(?s:.)*/";

/// Writes a structural tag in Lark's notation.
///
/// # Errors
/// What is wrong with the tag, or not supported.
pub(super) fn lark(tag: &Value, tokens: &SpecialTokens) -> Result<String, Refusal> {
    let mut writer = Writer::new(tokens);
    let start = match (tag.get("format"), tag.get("structures")) {
        (Some(format), None) => writer.format(format)?,
        (None, Some(_)) => writer.triggered(&older(tag)?)?,
        _ => return Err("it must have either format, or structures and triggers".into()),
    };
    Ok(format!("start: {}\n{}", start.lark, writer.definitions))
}

/// What a model writes before the answer that a grammar describes: its reasoning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preamble {
    /// Text up to `close`, which the prompt has begun.
    Until {
        /// Ends the reasoning.
        close: &'static str,
    },
    /// Text between `open` and `close`, or nothing.
    Between {
        /// Begins the reasoning.
        open: &'static str,
        /// Ends the reasoning.
        close: &'static str,
    },
    /// Any number of messages between `open` and `close`, then `answer`.
    Messages {
        /// Begins a message.
        open: &'static str,
        /// Ends a message.
        close: &'static str,
        /// Begins the answer.
        answer: &'static str,
    },
}

/// The space that models write between reasoning and the answer.
const SPACE: &str = r"/[ \n]{1,4}/?";

/// Writes a grammar in Lark's notation: `preamble`, then the grammar `answer`.
pub(super) fn after_preamble(preamble: Preamble, answer: &str, tokens: &SpecialTokens) -> String {
    let mut writer = Writer::new(tokens);
    let reasoning = match preamble {
        Preamble::Until { close } => format!("{} {SPACE}", writer.text_until(&[close], Vec::new())),
        Preamble::Between { open, close } => {
            let reasoning = writer.text_until(&[close], Vec::new());
            format!("({} {reasoning} {SPACE})?", writer.text(open))
        }
        Preamble::Messages {
            open,
            close,
            answer: begin,
        } => {
            let reasoning = writer.text_until(&[close], Vec::new());
            let message = format!("{} {reasoning}", writer.text(open));
            format!("{}* {}", writer.define("m", &message), writer.text(begin))
        }
    };
    let answer = writer.define("g", &nested(answer));
    format!("start: {reasoning} {answer}\n{}", writer.definitions)
}

/// Translates the older form into the newer one.
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
    tokens: &'a SpecialTokens,
    /// Rules and terminals, one per line.
    definitions: String,
    n_names: usize,
    n_formats: usize,
    /// The names of terminals, by their bodies.
    terminals: BTreeMap<String, String>,
}

/// An expression of a rule.
struct Expression {
    lark: String,
    /// Whether it may end in free text, which would also match whatever follows.
    is_open: bool,
}

impl From<String> for Expression {
    fn from(lark: String) -> Expression {
        Expression { lark, is_open: false }
    }
}

impl<'a> Writer<'a> {
    fn new(tokens: &'a SpecialTokens) -> Self {
        Self {
            tokens,
            definitions: String::new(),
            n_names: 0,
            n_formats: 0,
            terminals: BTreeMap::new(),
        }
    }

    /// Counts a format or a tag that is written.
    fn count(&mut self) -> Result<(), Refusal> {
        self.n_formats += 1;
        FORMATS.check(self.n_formats)?;
        LARK.check(self.definitions.len())
    }

    fn format(&mut self, format: &Value) -> Result<Expression, Refusal> {
        self.count()?;
        let fields = format.as_object().ok_or("a format must be an object")?;
        match text(format.get("type"), "the type of a format")? {
            "const_string" => Ok(self.text(text(format.get("value"), "value")?).into()),
            "json_schema" => {
                let schema = format.get("json_schema").ok_or("json_schema is missing")?;
                let rule = lark::json(schema)?;
                Ok(self.define("j", &rule).into())
            }
            "regex" => {
                let rule = lark::regex(text(format.get("pattern"), "pattern")?)?;
                Ok(self.define("x", &rule).into())
            }
            "grammar" => {
                let grammar = context_free::lark(text(format.get("grammar"), "grammar")?)?;
                Ok(self.define("g", &nested(&grammar)).into())
            }
            "any_text" => {
                let excluded = excluded(format)?;
                let lark = format!("{}?", self.free_text(&excluded));
                Ok(Expression { lark, is_open: true })
            }
            "sequence" => self.sequence(array(format.get("elements"), "elements")?),
            "or" => self.any_of(array(format.get("elements"), "elements")?),
            "tag" => self.tag(format, 0),
            "triggered_tags" => self.triggered(fields),
            "tags_with_separator" => self.separated(fields),
            other => Err(format!("the format type {other} is not supported").into()),
        }
    }

    fn sequence(&mut self, elements: &[Value]) -> Result<Expression, Refusal> {
        let parts: Vec<Expression> = elements
            .iter()
            .map(|element| self.format(element))
            .collect::<Result<_, _>>()?;
        if parts.iter().rev().skip(1).any(|part| part.is_open) {
            return Err(
                "free text (any_text) has no end, so nothing can follow it; put it into a tag".into(),
            );
        }
        Ok(Expression {
            is_open: parts.last().is_some_and(|part| part.is_open),
            lark: group(parts, " "),
        })
    }

    fn any_of(&mut self, elements: &[Value]) -> Result<Expression, Refusal> {
        let parts: Vec<Expression> = elements
            .iter()
            .map(|element| self.format(element))
            .collect::<Result<_, _>>()?;
        Ok(Expression {
            is_open: parts.iter().any(|part| part.is_open),
            lark: group(parts, " | "),
        })
    }

    /// A tag, without the first `n_begun` bytes, which the answer already contains.
    fn tag(&mut self, tag: &Value, n_begun: usize) -> Result<Expression, Refusal> {
        self.count()?;
        let begin = text(tag.get("begin"), "begin")?;
        let ends = match tag.get("end") {
            Some(Value::Array(ends)) => ends
                .iter()
                .map(|end| text(Some(end), "end"))
                .collect::<Result<Vec<_>, _>>()?,
            end => vec![text(end, "end")?],
        };
        let ends = distinct(ends)?;
        let content = tag.get("content").ok_or("content is missing")?;
        let begin = self.text(begin.get(n_begun..).unwrap_or_default());
        let is_any = content.get("type").and_then(Value::as_str) == Some("any_text");
        let (rest, is_open) = if is_any {
            (self.text_until(&ends, excluded(content)?), ends.contains(&""))
        } else {
            let content = self.format(content)?;
            if content.is_open {
                return Err("free text (any_text) must be the only content of a tag".into());
            }
            let ends = ends
                .iter()
                .map(|end| self.text(end))
                .collect::<Vec<_>>()
                .join(" | ");
            (format!("{} ({ends})", content.lark), false)
        };
        Ok(Expression {
            lark: format!("{begin} {rest}"),
            is_open,
        })
    }

    fn triggered(&mut self, fields: &Map<String, Value>) -> Result<Expression, Refusal> {
        let tags = array(fields.get("tags"), "tags")?;
        let triggers = array(fields.get("triggers"), "triggers")?;
        let triggers: Vec<&str> = triggers
            .iter()
            .map(|trigger| text(Some(trigger), "trigger"))
            .collect::<Result<_, _>>()?;
        let triggers = distinct(triggers)?;
        if tags.is_empty() || triggers.is_empty() || triggers.contains(&"") {
            return Err("tags and triggers must not be empty".into());
        }
        let begins: Vec<&str> = tags
            .iter()
            .map(|tag| text(tag.get("begin"), "begin"))
            .collect::<Result<_, _>>()?;
        if let Some(begin) = begins
            .iter()
            .find(|begin| !triggers.iter().any(|trigger| begin.starts_with(trigger)))
        {
            return Err(format!("no trigger is a prefix of the begin {begin:?}").into());
        }
        let mut unwanted = distinct(list(fields.get("excludes"), "excludes")?)?;
        unwanted.extend(triggers.iter().filter(|trigger| self.is_text(trigger)).copied());
        let mut segments = Vec::new();
        for trigger in &triggers {
            let of_trigger = tags
                .iter()
                .zip(&begins)
                .filter(|(_, begin)| begin.starts_with(trigger));
            let rests: Vec<Expression> = of_trigger
                .map(|(tag, _)| self.tag(tag, trigger.len()))
                .collect::<Result<_, _>>()?;
            let before = self.text_before(trigger, &unwanted)?;
            segments.push(format!("{before} {}", alternatives(rests)?));
            LARK.check(segments.iter().map(String::len).sum())?;
        }
        let segment = self.define("s", &segments.join(" | "));
        let tail = self.free_text(&unwanted);
        let first = if flag(fields, "at_least_one")? {
            let complete: Vec<Expression> = tags
                .iter()
                .map(|tag| self.tag(tag, 0))
                .collect::<Result<_, _>>()?;
            Some(alternatives(complete)?)
        } else {
            None
        };
        Ok(match (first, flag(fields, "stop_after_first")?) {
            (Some(first), true) => first.into(),
            (None, true) => Expression {
                lark: format!("({segment} | {tail}?)"),
                is_open: true,
            },
            (first, false) => Expression {
                lark: format!("{} {segment}* {tail}?", first.unwrap_or_default()),
                is_open: true,
            },
        })
    }

    fn separated(&mut self, fields: &Map<String, Value>) -> Result<Expression, Refusal> {
        let tags = array(fields.get("tags"), "tags")?;
        let separator = self.text(text(fields.get("separator"), "separator")?);
        let tags: Vec<Expression> = tags
            .iter()
            .map(|tag| self.tag(tag, 0))
            .collect::<Result<_, _>>()?;
        let tag = self.define("t", &alternatives(tags)?);
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

    /// Exactly this text. Special tokens in it become the model's tokens.
    fn text(&self, text: &str) -> String {
        let segments = self.tokens.segments(text);
        if segments.is_empty() {
            return EMPTY.to_owned();
        }
        let written = segments.into_iter().map(|segment| match segment {
            Segment::Text(text) => literal(text),
            Segment::Token(id) => format!("<[{id}]>"),
        });
        written.collect::<Vec<_>>().join(" ")
    }

    fn is_text(&self, text: &str) -> bool {
        matches!(self.tokens.segments(text).as_slice(), [Segment::Text(_)])
    }

    /// Text that contains none of `unwanted` and is not empty.
    fn free_text(&mut self, unwanted: &[&str]) -> String {
        let without = self.without(unwanted);
        self.define("FREE", &format!("/(?s:.)+/{without}"))
    }

    /// The end of a terminal that contains none of `unwanted`.
    fn without(&mut self, unwanted: &[&str]) -> String {
        if unwanted.is_empty() {
            return String::new();
        }
        let unwanted: BTreeSet<&str> = unwanted.iter().copied().collect();
        let texts: Vec<String> = unwanted.iter().map(|text| literal(text)).collect();
        let name = self.define("HAS", &format!("{ANY} ({}) {ANY}", texts.join(" | ")));
        format!(" & ~{name}")
    }

    /// Free text up to a trigger, and the trigger.
    fn text_before(&mut self, trigger: &str, unwanted: &[&str]) -> Result<String, String> {
        match self.tokens.segments(trigger).as_slice() {
            [Segment::Token(id)] => Ok(format!("{}? <[{id}]>", self.free_text(unwanted))),
            [Segment::Text(trigger)] => {
                let free = format!("({ANY}{})", self.without(unwanted));
                Ok(self.define("UNTIL", &format!("{free} {}", literal(trigger))))
            }
            _ => Err(format!(
                "the trigger {trigger:?} must be either text or one special token"
            )),
        }
    }

    /// Free text up to one of `ends`, and that end.
    fn text_until(&mut self, ends: &[&str], excluded: Vec<&str>) -> String {
        let first_texts = ends
            .iter()
            .filter_map(|end| match self.tokens.segments(end).first() {
                Some(Segment::Text(text)) => Some(*text),
                _ => None,
            });
        let unwanted: Vec<&str> = first_texts.chain(excluded).collect();
        let mut untils = Vec::new();
        for end in ends {
            let segments = self.tokens.segments(end);
            untils.push(match segments.first() {
                Some(Segment::Text(first)) => {
                    let free = format!("({ANY}{})", self.without(&unwanted));
                    let until = self.define("UNTIL", &format!("{free} {}", literal(first)));
                    format!("{until} {}", self.text(&end[first.len()..]))
                }
                _ => format!("{}? {}", self.free_text(&unwanted), self.text(end)),
            });
        }
        format!("({})", untils.join(" | "))
    }

    /// Defines a name for a body. A name in capitals is a terminal; equal ones have one name.
    fn define(&mut self, prefix: &str, body: &str) -> String {
        let is_terminal = prefix.starts_with(char::is_uppercase);
        if let Some(name) = self.terminals.get(body).filter(|_| is_terminal) {
            return name.clone();
        }
        let separator = if is_terminal { "_" } else { "" };
        let name = format!("{prefix}{separator}{}", self.n_names);
        self.n_names += 1;
        let _ = writeln!(self.definitions, "{name}: {body}");
        if is_terminal {
            self.terminals.insert(body.to_owned(), name.clone());
        }
        name
    }
}

/// The different ones of triggers, ends or excluded texts, in their order.
fn distinct(texts: Vec<&str>) -> Result<Vec<&str>, Refusal> {
    let mut seen = BTreeSet::new();
    let distinct: Vec<&str> = texts.into_iter().filter(|text| seen.insert(*text)).collect();
    TRIGGERS.check(distinct.len())?;
    Ok(distinct)
}

/// Tags as alternatives, none of which may end in free text.
fn alternatives(tags: Vec<Expression>) -> Result<String, Refusal> {
    if tags.is_empty() || tags.iter().any(|tag| tag.is_open) {
        return Err("every tag needs an end, and every trigger needs a tag".into());
    }
    Ok(group(tags, " | "))
}

fn group(parts: Vec<Expression>, separator: &str) -> String {
    let parts: Vec<String> = parts.into_iter().map(|part| part.lark).collect();
    if parts.is_empty() {
        return EMPTY.to_owned();
    }
    format!("({})", parts.join(separator))
}

fn text<'v>(value: Option<&'v Value>, what: &str) -> Result<&'v str, String> {
    value
        .and_then(Value::as_str)
        .ok_or_else(|| format!("{what} must be a string"))
}

fn array<'v>(value: Option<&'v Value>, what: &str) -> Result<&'v [Value], String> {
    value
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .ok_or_else(|| format!("{what} must be a list"))
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

/// The texts that free text must not contain, under either of their names.
fn excluded(format: &Value) -> Result<Vec<&str>, Refusal> {
    let mut excluded = list(format.get("excluded_str"), "excluded_str")?;
    excluded.extend(list(format.get("excludes"), "excludes")?);
    distinct(excluded)
}

fn flag(fields: &Map<String, Value>, name: &str) -> Result<bool, String> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(value) => value
            .as_bool()
            .ok_or_else(|| format!("{name} must be true or false")),
    }
}
