//! jinja2's filters: `value | name`.

mod lists;
pub(super) mod names;
mod select;
mod texts;

use super::arguments::{Arguments, int, text};
use super::attributes::attribute;
use super::display::text_of;
use super::error::{Result, failed};
use super::iterate::len;
use super::json::tojson;
use super::meter::Meter;
use super::number::{Number, integer, parse_float, parse_integer, rounded, truncated};
use super::value::{Value, View};
use names::FILTERS;

/// `value | name(arguments)`.
pub(super) fn call(name: &str, value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    meter.steps(1)?;
    match name {
        "abs" => {
            arguments.none(name)?;
            absolute(value)
        }
        "attr" => {
            let [attribute_name] = arguments.bind(name, ["name"], 1)?;
            let attribute_name = attribute_name.unwrap_or(Value::None);
            attribute_only(value, text(&attribute_name, name)?, meter)
        }
        "count" | "length" => {
            arguments.none(name)?;
            let n = len(value, meter)?;
            let n =
                n.ok_or_else(|| failed(format!("object of type '{}' has no len()", value.type_name())))?;
            Ok(Value::Int(n as i64))
        }
        "d" | "default" => {
            let [default, boolean] = arguments.bind(name, ["default_value", "boolean"], 0)?;
            let is_boolean = boolean.is_some_and(|boolean| boolean.is_true());
            if value.is_undefined() || is_boolean && !value.is_true() {
                return default.map_or_else(|| Value::text("", meter), Ok);
            }
            Ok(value.clone())
        }
        "float" => {
            let [default] = arguments.bind(name, ["default"], 0)?;
            Ok(match float(value)? {
                Some(number) => Value::Float(number),
                None => default.unwrap_or(Value::Float(0.0)),
            })
        }
        "int" => to_integer(value, arguments),
        "items" => {
            arguments.none(name)?;
            match value {
                Value::Undefined(_) => Value::list(Vec::new(), meter),
                Value::Dict(dict) => {
                    let view = Value::View(dict.clone(), View::Items);
                    lists::stream_of(&view, &view)
                }
                _ => Err(failed("Can only get item pairs from a mapping.")),
            }
        }
        "round" => round(value, arguments),
        "string" => {
            arguments.none(name)?;
            match value {
                Value::Text(_) => Ok(value.clone()),
                other => text_of(other, meter),
            }
        }
        "tojson" => tojson(value, arguments, meter),
        "map" | "select" | "reject" | "selectattr" | "rejectattr" => {
            select::call(name, value, arguments, call)
        }
        _ if texts::NAMES.contains(&name) => texts::call(name, value, arguments, meter),
        _ if lists::NAMES.contains(&name) => lists::call(name, value, arguments, meter),
        _ if FILTERS.contains(&name) => Err(failed(format!("the filter '{name}' is not supported"))),
        _ => Err(failed(format!("No filter named '{name}'."))),
    }
}

fn absolute(value: &Value) -> Result<Value> {
    match Number::of(value.defined()?) {
        Some(Number::Float(number)) => Ok(Value::Float(number.abs())),
        Some(number) => integer(number.big().unwrap_or_default().magnitude().clone().into()),
        None => Err(failed(format!(
            "bad operand type for abs(): '{}'",
            value.type_name()
        ))),
    }
}

/// An attribute, where an item of this name does not count.
fn attribute_only(value: &Value, name: &str, meter: &Meter) -> Result<Value> {
    match (value, super::methods::names::find(value, name)) {
        (Value::Dict(_), None) => Ok(Value::undefined(format!(
            "'dict object' has no attribute '{name}'"
        ))),
        _ => attribute(value, name, meter),
    }
}

/// `float(value)`; `None` if the value is no number.
fn float(value: &Value) -> Result<Option<f64>> {
    match value.defined()? {
        Value::Text(text) => Ok(parse_float(text.as_str())),
        other => Number::of(other).map(|number| number.float()).transpose(),
    }
}

fn to_integer(value: &Value, arguments: Arguments) -> Result<Value> {
    let [default, base] = arguments.bind("int", ["default", "base"], 0)?;
    let base = base.map_or(Ok(10), |base| int(&base, "int"))?;
    let default = default.unwrap_or(Value::Int(0));
    let parsed = match value.defined()? {
        Value::Text(text) => u32::try_from(base)
            .ok()
            .and_then(|base| parse_integer(text.as_str(), base)),
        Value::Float(number) if number.is_nan() => return Ok(default),
        Value::Float(number) => return truncated(*number),
        other => Number::of(other).and_then(|number| number.big()),
    };
    if let Some(number) = parsed {
        return integer(number);
    }
    match float(value)? {
        Some(number) => Ok(truncated(number).unwrap_or(default)),
        None => Ok(default),
    }
}

fn round(value: &Value, arguments: Arguments) -> Result<Value> {
    let [precision, method] = arguments.bind("round", ["precision", "method"], 0)?;
    let precision = precision.map_or(Ok(0), |precision| int(&precision, "round"))?;
    let method = method.map_or_else(
        || Ok("common".to_owned()),
        |method| Ok(text(&method, "round")?.to_owned()),
    )?;
    let number = Number::of(value.defined()?).ok_or_else(|| {
        failed(format!(
            "type {} doesn't define __round__ method",
            value.type_name()
        ))
    })?;
    match (method.as_str(), number) {
        ("common", Number::Float(number)) => Ok(Value::Float(rounded(number, precision))),
        ("common", number) if precision >= 0 => integer(number.big().unwrap_or_default()),
        ("common", number) => truncated(rounded(number.float()?, precision)),
        ("ceil" | "floor", number) => {
            let exponent = precision.clamp(-400, 400) as i32;
            let scale = 10f64.powi(exponent);
            let scaled = number.float()? * scale;
            let whole = if method == "ceil" {
                scaled.ceil()
            } else {
                scaled.floor()
            };
            if !whole.is_finite() {
                return Err(failed(format!("cannot convert float {whole} to integer")));
            }
            // Python's integers have no negative zero.
            Ok(Value::Float((whole + 0.0) / scale))
        }
        _ => Err(failed("method must be common, ceil or floor")),
    }
}
