//! JSON: how a template writes it, which is Python's `json.dumps`, and the values of a request.

use indexmap::IndexMap;
use serde_json::Value as Json;

use super::arguments::Arguments;
use super::compare::{less, sorted};
use super::error::{Result, failed};
use super::meter::{Meter, Output};
use super::number::{digits, float_text};
use super::value::{Key, Value};

/// The value that JSON describes.
pub(super) fn from_json(json: &Json, meter: &Meter) -> Result<Value> {
    Ok(match json {
        Json::Null => Value::None,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => Value::Int(number),
            (_, Some(number), _) => Value::big(number.into()),
            (_, _, number) => Value::Float(number.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::text(text, meter)?,
        Json::Array(items) => {
            let items = items.iter().map(|item| from_json(item, meter));
            Value::list(items.collect::<Result<_>>()?, meter)?
        }
        Json::Object(fields) => {
            let entry = |(name, value): (&String, &Json)| {
                Ok((Key(Value::text(name, meter)?), from_json(value, meter)?))
            };
            let entries: Result<IndexMap<_, _>> = fields.iter().map(entry).collect();
            Value::dict(entries?, meter)?
        }
    })
}

/// The filter `tojson` of transformers' environment.
pub(super) fn tojson(value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let names = ["ensure_ascii", "indent", "separators", "sort_keys"];
    let [ascii, indent, separators, sort_keys] = arguments.bind("tojson", names, 0)?;
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Text(text)) => Some(text.as_str().to_owned()),
        Some(Value::Bool(value)) => Some(" ".repeat(usize::from(value))),
        Some(Value::Int(n)) => Some(" ".repeat(n.clamp(0, INDENT_MAX) as usize)),
        Some(other) => {
            let kind = other.type_name();
            return Err(failed(format!(
                "tojson: indent is a number or a text, and is {kind}"
            )));
        }
    };
    let [item, colon] = match separators {
        None | Some(Value::None) if indent.is_some() => [",", ": "].map(str::to_owned),
        None | Some(Value::None) => [", ", ": "].map(str::to_owned),
        Some(Value::Tuple(pair) | Value::List(pair)) if pair.values.len() == 2 => {
            let text = |idx: usize| pair.values[idx].as_str().map(str::to_owned);
            match (text(0), text(1)) {
                (Some(item), Some(colon)) => [item, colon],
                _ => return Err(failed("tojson: separators are two texts")),
            }
        }
        Some(_) => return Err(failed("tojson: separators are two texts")),
    };
    let mut writer = Writer {
        ascii: is_true(ascii),
        sorts: is_true(sort_keys),
        indent,
        item,
        colon,
        out: Output::new(meter)?,
        meter,
    };
    writer.value(value, 0)?;
    Value::written(writer.out)
}

/// Spaces of one level, at most.
const INDENT_MAX: i64 = 1_000;

struct Writer<'a> {
    /// Characters beyond ASCII are escaped.
    ascii: bool,
    /// Entries are written in the order of their keys.
    sorts: bool,
    indent: Option<String>,
    item: String,
    colon: String,
    out: Output,
    meter: &'a Meter,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value, level: usize) -> Result<()> {
        match value {
            Value::None => self.out.push("null"),
            Value::Bool(true) => self.out.push("true"),
            Value::Bool(false) => self.out.push("false"),
            Value::Int(number) => self.out.push(&number.to_string()),
            Value::Big(number) => self.out.push(&digits(number)?),
            Value::Float(number) => self.out.push(&float(*number)),
            Value::Text(text) => self.text(text.as_str()),
            Value::List(items) | Value::Tuple(items) => {
                if items.values.is_empty() {
                    return self.out.push("[]");
                }
                self.out.push("[")?;
                for (idx, item) in items.values.iter().enumerate() {
                    self.separate(idx, level + 1)?;
                    self.value(item, level + 1)?;
                }
                self.line(level)?;
                self.out.push("]")
            }
            Value::Dict(dict) => {
                if dict.entries.is_empty() {
                    return self.out.push("{}");
                }
                self.out.push("{")?;
                for (idx, (key, value)) in self.entries(&dict.entries)?.into_iter().enumerate() {
                    self.separate(idx, level + 1)?;
                    self.key(key)?;
                    let colon = self.colon.clone();
                    self.out.push(&colon)?;
                    self.value(value, level + 1)?;
                }
                self.line(level)?;
                self.out.push("}")
            }
            other => Err(failed(format!(
                "Object of type {} is not JSON serializable",
                other.type_name()
            ))),
        }
    }

    fn entries<'v>(&self, entries: &'v IndexMap<Key, Value>) -> Result<Vec<(&'v Value, &'v Value)>> {
        let entries = entries.iter().map(|(key, value)| (&key.0, value)).collect();
        if !self.sorts {
            return Ok(entries);
        }
        sorted(entries, &mut |a, b| less(a.0, b.0, "<", self.meter))
    }

    fn separate(&mut self, idx: usize, level: usize) -> Result<()> {
        if idx > 0 {
            let item = self.item.clone();
            self.out.push(&item)?;
        }
        self.line(level)
    }

    /// Begins a line, if the writing has lines.
    fn line(&mut self, level: usize) -> Result<()> {
        match self.indent.clone() {
            Some(indent) => {
                self.out.push("\n")?;
                self.out.repeat(&indent, level)
            }
            None => Ok(()),
        }
    }

    fn key(&mut self, key: &Value) -> Result<()> {
        let text = match key {
            Value::Text(text) => return self.text(text.as_str()),
            Value::None => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Int(number) => number.to_string(),
            Value::Big(number) => digits(number)?,
            Value::Float(number) => float(*number),
            other => {
                return Err(failed(format!(
                    "keys must be str, int, float, bool or None, not {}",
                    other.type_name()
                )));
            }
        };
        self.text(&text)
    }

    fn text(&mut self, text: &str) -> Result<()> {
        let mut quoted = String::with_capacity(text.len() + 2);
        quoted.push('"');
        for c in text.chars() {
            match c {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                '\u{8}' => quoted.push_str("\\b"),
                '\u{c}' => quoted.push_str("\\f"),
                c if c < ' ' || self.ascii && !('\0'..='~').contains(&c) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        quoted.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                c => quoted.push(c),
            }
        }
        quoted.push('"');
        self.out.push(&quoted)
    }
}

fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    float_text(number)
}
