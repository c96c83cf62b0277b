//! The dialect of Jinja in which templates on the Hub are written.
//!
//! Owns Python's methods, `tojson` as Python writes it, `raise_exception`, `strftime_now` and generation marks.
//! Templates come from strangers, so fuel and depth are bounded, and a template reads nothing but its arguments.

use jiff::Zoned;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value};
use serde::Serialize;

use super::error::TemplateError;

/// Instructions of one rendering, at most: 10,000 messages of a hundred instructions each. At about 30 ns per
/// instruction, this also bounds the time.
const FUEL: u64 = 1_000_000;
/// Depth of macros and includes.
const DEPTH_MAX: usize = 64;
/// The name of the only template of an environment.
pub(super) const NAME: &str = "chat template";

/// Compiles a template, which gets the name [`NAME`].
///
/// # Errors
/// [`TemplateError`] for a template that is not valid.
pub(super) fn environment(source: &str) -> Result<Environment<'static>, TemplateError> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    environment.set_syntax(syntax.map_err(|error| TemplateError {
        reason: described(&error),
    })?);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(DEPTH_MAX);
    environment.set_unknown_method_callback(python_method);
    environment.add_filter("tojson", tojson);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", strftime_now);
    environment
        .add_template_owned(NAME, without_generation_marks(source))
        .map_err(|error| TemplateError {
            reason: described(&error),
        })?;
    Ok(environment)
}

/// Removes the marks `{% generation %}`, which only training uses.
fn without_generation_marks(source: &str) -> String {
    let mut text = source.to_string();
    for word in ["generation", "endgeneration"] {
        for open in ["{%", "{%-"] {
            for close in ["%}", "-%}"] {
                // An empty comment keeps the white-space control of the mark.
                let comment = format!("{}{}", open.replace('%', "#"), close.replace('%', "#"));
                for spaced in [format!("{open} {word} {close}"), format!("{open}{word}{close}")] {
                    text = text.replace(&spaced, &comment);
                }
            }
        }
    }
    text
}

/// The message of an error, for the client.
pub(super) fn described(error: &Error) -> String {
    let source = std::error::Error::source(error);
    if let Some(Raised(message)) = source.and_then(|source| source.downcast_ref()) {
        return message.clone();
    }
    match (error.kind(), error.detail(), error.line()) {
        (ErrorKind::OutOfFuel, _, _) => "the template takes too many steps".to_string(),
        (kind, Some(detail), Some(line)) => format!("{detail} ({kind} in line {line})"),
        (kind, Some(detail), None) => format!("{detail} ({kind})"),
        (kind, None, Some(line)) => format!("{kind} in line {line}"),
        (kind, None, None) => kind.to_string(),
    }
}

/// The message of `raise_exception`, which a template writes for the client.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

fn strftime_now(format: &str) -> Result<String, Error> {
    jiff::fmt::strtime::format(format, &Zoned::now()).map_err(|error| {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("strftime_now({format:?}): {error}"),
        )
    })
}

/// Python's methods of strings, including two that the library lacks.
fn python_method(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    if let (Some(text), ValueKind::String) = (value.as_str(), value.kind()) {
        let stripped = |fix: &str| match method {
            "removeprefix" => text.strip_prefix(fix),
            _ => text.strip_suffix(fix),
        };
        if matches!(method, "removeprefix" | "removesuffix") {
            let (fix,): (&str,) = from_args(args)?;
            return Ok(Value::from(stripped(fix).unwrap_or(text)));
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

/// `json.dumps(value, ensure_ascii=False)`: tool schemas must be written as in training.
fn tojson(value: Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    if ensure_ascii == Some(true) {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "tojson: ensure_ascii=true is not supported",
        ));
    }
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut out = Vec::new();
    match indent {
        Some(n) => {
            let pad = " ".repeat(n.min(16));
            let format = serde_json::ser::PrettyFormatter::with_indent(pad.as_bytes());
            let mut writer = serde_json::Serializer::with_formatter(&mut out, format);
            value.serialize(&mut writer).map_err(failed)?;
        }
        None => {
            let mut writer = serde_json::Serializer::with_formatter(&mut out, PythonSeparators);
            value.serialize(&mut writer).map_err(failed)?;
        }
    }
    Ok(Value::from_safe_string(
        String::from_utf8(out).expect("JSON is UTF-8"),
    ))
}

/// The default separators of Python's `json.dumps`: `", "` and `": "`.
struct PythonSeparators;

impl serde_json::ser::Formatter for PythonSeparators {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}
