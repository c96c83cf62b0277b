//! Values as texts: Python's `str` and `repr`.

use super::error::Result;
use super::meter::{Meter, Output};
use super::number::{digits, float_text};
use super::value::{Dict, Items, Value, View};

/// `str(value)` as a new text.
pub(super) fn text_of(value: &Value, meter: &Meter) -> Result<Value> {
    if let Value::Text(text) = value {
        return Ok(Value::Text(text.marked(false)));
    }
    let mut out = Output::new(meter)?;
    write(value, &mut out)?;
    Value::written(out)
}

/// `str(value)` as a string of Rust.
pub(super) fn string_of(value: &Value, meter: &Meter) -> Result<String> {
    let mut out = Output::new(meter)?;
    write(value, &mut out)?;
    Ok(out.into_parts().0)
}

/// Appends `str(value)`.
pub(super) fn write(value: &Value, out: &mut Output) -> Result<()> {
    match value {
        Value::Text(text) => out.push(text.as_str()),
        Value::Undefined(_) => Ok(()),
        other => write_repr(other, out),
    }
}

/// Appends `repr(value)`.
pub(super) fn write_repr(value: &Value, out: &mut Output) -> Result<()> {
    match value {
        Value::Undefined(_) => out.push("Undefined"),
        Value::None => out.push("None"),
        Value::Bool(true) => out.push("True"),
        Value::Bool(false) => out.push("False"),
        Value::Int(number) => out.push(&number.to_string()),
        Value::Big(number) => out.push(&digits(number)?),
        Value::Float(number) => out.push(&float_text(*number)),
        Value::Text(text) if text.is_markup => {
            out.push("Markup(")?;
            write_quoted(text.as_str(), out)?;
            out.push(")")
        }
        Value::Text(text) => write_quoted(text.as_str(), out),
        Value::List(items) => out.nested(|out| write_items(items, ["[", "]"], out)),
        Value::Tuple(items) if items.values.len() == 1 => {
            out.nested(|out| write_items(items, ["(", ",)"], out))
        }
        Value::Tuple(items) => out.nested(|out| write_items(items, ["(", ")"], out)),
        Value::Dict(dict) => out.nested(|out| write_dict(dict, out)),
        Value::View(dict, view) => out.nested(|out| write_view(dict, *view, out)),
        Value::Range(range) => {
            let (start, step) = (range.start, range.step);
            let stop = start + step * range.len as i64;
            match step {
                1 => out.push(&format!("range({start}, {stop})")),
                _ => out.push(&format!("range({start}, {stop}, {step})")),
            }
        }
        Value::Stream(_) => out.push("<generator object>"),
        Value::Method(method) => {
            let kind = method.receiver.type_name();
            out.push(&format!("<built-in method {} of {kind} object>", method.name))
        }
        Value::Object(object) => out.nested(|out| object.write(out)),
    }
}

fn write_items(items: &Items, brackets: [&str; 2], out: &mut Output) -> Result<()> {
    out.push(brackets[0])?;
    for (idx, item) in items.values.iter().enumerate() {
        if idx > 0 {
            out.push(", ")?;
        }
        write_repr(item, out)?;
    }
    out.push(brackets[1])
}

fn write_dict(dict: &Dict, out: &mut Output) -> Result<()> {
    out.push("{")?;
    for (idx, (key, value)) in dict.entries.iter().enumerate() {
        if idx > 0 {
            out.push(", ")?;
        }
        write_repr(&key.0, out)?;
        out.push(": ")?;
        write_repr(value, out)?;
    }
    out.push("}")
}

fn write_view(dict: &Dict, view: View, out: &mut Output) -> Result<()> {
    out.push(match view {
        View::Keys => "dict_keys([",
        View::Values => "dict_values([",
        View::Items => "dict_items([",
    })?;
    for (idx, (key, value)) in dict.entries.iter().enumerate() {
        if idx > 0 {
            out.push(", ")?;
        }
        match view {
            View::Keys => write_repr(&key.0, out)?,
            View::Values => write_repr(value, out)?,
            View::Items => {
                out.push("(")?;
                write_repr(&key.0, out)?;
                out.push(", ")?;
                write_repr(value, out)?;
                out.push(")")?;
            }
        }
    }
    out.push("])")
}

/// Appends a text in quotes, as Python's `repr` writes it.
pub(super) fn write_quoted(text: &str, out: &mut Output) -> Result<()> {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push(quote);
    for c in text.chars() {
        match c {
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c == quote => quoted.extend(['\\', c]),
            c if is_printable(c) => quoted.push(c),
            c => quoted.push_str(&match c as u32 {
                code @ ..=0xff => format!("\\x{code:02x}"),
                code @ ..=0xffff => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            }),
        }
    }
    quoted.push(quote);
    out.push(&quoted)
}

/// Whether Python prints a character as it is.
pub(super) fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        return (' '..='~').contains(&c);
    }
    // Rust escapes the same characters in texts, but marks that combine only at the beginning.
    let mut text = String::from("a");
    text.push(c);
    text.escape_debug().nth(1) == Some(c)
}

/// `str(value)` of an argument, or a default.
pub(super) fn string_or(value: Option<Value>, default: &str, meter: &Meter) -> Result<String> {
    value.map_or_else(|| Ok(default.to_owned()), |value| string_of(&value, meter))
}
