//! jinja2's tests: `value is name`.

use std::cmp::Ordering;

use super::arguments::Arguments;
use super::compare::{compared, contains, equal};
use super::display::string_of;
use super::error::{Result, failed};
use super::filters::names::FILTERS;
use super::iterate::{iterate, len};
use super::meter::Meter;
use super::operators::binary;
use super::syntax::Operator;
use super::value::{Key, Value};

const TESTS: [&str; 39] = [
    "odd",
    "even",
    "divisibleby",
    "defined",
    "undefined",
    "filter",
    "test",
    "none",
    "boolean",
    "false",
    "true",
    "integer",
    "float",
    "lower",
    "upper",
    "string",
    "mapping",
    "number",
    "sequence",
    "iterable",
    "callable",
    "sameas",
    "escaped",
    "in",
    "==",
    "eq",
    "equalto",
    "!=",
    "ne",
    ">",
    "gt",
    "greaterthan",
    "ge",
    ">=",
    "<",
    "lt",
    "lessthan",
    "<=",
    "le",
];

/// Whether `value is name(arguments)`.
pub(super) fn call(name: &str, value: &Value, arguments: Arguments, meter: &Meter) -> Result<bool> {
    meter.steps(1)?;
    if !TESTS.contains(&name) {
        return Err(failed(format!("No test named '{name}'.")));
    }
    if let Some(answer) = of_value(name, value, meter)? {
        arguments.none(name)?;
        return Ok(answer);
    }
    let [other] = arguments.bind(name, ["other"], 1)?;
    let other = other.unwrap_or(Value::None);
    let ordered = |symbol: &str| compared(value, &other, symbol, meter);
    Ok(match name {
        "divisibleby" => is_multiple(value, &other, meter)?,
        "filter" | "test" => false,
        "sameas" => is_same(value, &other),
        "in" => contains(&other, value, meter)?,
        "==" | "eq" | "equalto" => equal(value, &other, meter)?,
        "!=" | "ne" => !equal(value, &other, meter)?,
        ">" | "gt" | "greaterthan" => ordered(">")? == Some(Ordering::Greater),
        ">=" | "ge" => matches!(ordered(">=")?, Some(Ordering::Greater | Ordering::Equal)),
        "<" | "lt" | "lessthan" => ordered("<")? == Some(Ordering::Less),
        _ => matches!(ordered("<=")?, Some(Ordering::Less | Ordering::Equal)),
    })
}

/// The tests without an argument; `None` for another test.
fn of_value(name: &str, value: &Value, meter: &Meter) -> Result<Option<bool>> {
    let text = || string_of(value, meter);
    Ok(Some(match name {
        "odd" => equal(&remainder(value, 2, meter)?, &Value::Int(1), meter)?,
        "even" => equal(&remainder(value, 2, meter)?, &Value::Int(0), meter)?,
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "filter" | "test" => {
            let Key(value) = Key::new(value.clone(), meter)?;
            let names: &[&str] = if name == "filter" { &FILTERS } else { &TESTS };
            value.as_str().is_some_and(|name| names.contains(&name))
        }
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "false" => matches!(value, Value::Bool(false)),
        "true" => matches!(value, Value::Bool(true)),
        "integer" => matches!(value, Value::Int(_) | Value::Big(_)),
        "float" => matches!(value, Value::Float(_)),
        "lower" => {
            let text = text()?;
            text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)
        }
        "upper" => {
            let text = text()?;
            text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
        }
        "string" => matches!(value, Value::Text(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "number" => matches!(
            value,
            Value::Bool(_) | Value::Int(_) | Value::Big(_) | Value::Float(_)
        ),
        "sequence" => len(value, meter)?.is_some() && !matches!(value, Value::View(..)),
        "iterable" => iterate(value).is_ok(),
        "callable" => match value {
            Value::Object(object) => object.is_callable(),
            Value::Method(_) | Value::Undefined(_) => true,
            _ => false,
        },
        "escaped" => matches!(value, Value::Text(text) if text.is_markup),
        _ => return Ok(None),
    }))
}

fn remainder(value: &Value, divisor: i64, meter: &Meter) -> Result<Value> {
    binary(Operator::Mod, value, &Value::Int(divisor), meter)
}

fn is_multiple(value: &Value, divisor: &Value, meter: &Meter) -> Result<bool> {
    let rest = binary(Operator::Mod, value, divisor, meter)?;
    equal(&rest, &Value::Int(0), meter)
}

/// Whether both are one object in memory.
fn is_same(a: &Value, b: &Value) -> bool {
    use std::rc::Rc;
    match (a, b) {
        (Value::None, Value::None) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::Int(a), Value::Int(b)) => a == b,
        (Value::Text(a), Value::Text(b)) => a.is_same(b),
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => Rc::ptr_eq(a, b),
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b),
        (Value::Object(a), Value::Object(b)) => Rc::ptr_eq(a, b),
        (Value::Undefined(a), Value::Undefined(b)) => Rc::ptr_eq(a, b),
        _ => false,
    }
}
