//! Python's methods of values.

pub(super) mod names;
pub(super) mod text;

use super::arguments::Arguments;
use super::compare::equal;
use super::error::{Result, failed};
use super::meter::Meter;
use super::number::float_text;
use super::value::{Dict, Items, Key, Value, View};

/// Calls a method that [`names::find`] found.
pub(super) fn call(
    receiver: &Value,
    name: &'static str,
    arguments: Arguments,
    meter: &Meter,
) -> Result<Value> {
    match receiver {
        Value::Text(text) => text::call(text, name, arguments, meter),
        Value::Dict(dict) => of_dict(receiver, dict, name, arguments, meter),
        Value::List(items) | Value::Tuple(items) => of_items(receiver, items, name, arguments, meter),
        Value::Range(range) => {
            let values = (0..range.len).map(|idx| range.item(idx)).collect();
            let list = Value::list(values, meter)?;
            call(&list, name, arguments, meter)
        }
        Value::Float(number) => {
            arguments.none(name)?;
            Ok(Value::Bool(number.fract() == 0.0))
        }
        number => {
            arguments.none(name)?;
            let number = super::number::Number::of(number).and_then(|number| number.big());
            Ok(Value::Int(number.unwrap_or_default().bits() as i64))
        }
    }
}

// The receiver is also the result of `copy`.
fn of_dict(
    receiver: &Value,
    dict: &std::rc::Rc<Dict>,
    name: &'static str,
    arguments: Arguments,
    meter: &Meter,
) -> Result<Value> {
    if name == "get" {
        let [key, default] = arguments.bind(name, ["key", "default"], 1)?;
        let key = Key::new(key.unwrap_or(Value::None), meter)?;
        let found = dict.entries.get(&key).cloned();
        return Ok(found.or(default).unwrap_or(Value::None));
    }
    arguments.none(name)?;
    Ok(match name {
        "keys" => Value::View(dict.clone(), View::Keys),
        "values" => Value::View(dict.clone(), View::Values),
        "items" => Value::View(dict.clone(), View::Items),
        _ => receiver.clone(),
    })
}

fn of_items(
    receiver: &Value,
    items: &Items,
    name: &'static str,
    arguments: Arguments,
    meter: &Meter,
) -> Result<Value> {
    if name == "copy" {
        arguments.none(name)?;
        return Ok(receiver.clone());
    }
    let [wanted, start, end] = arguments.bind(name, ["value", "start", "stop"], 1)?;
    let wanted = wanted.unwrap_or(Value::None);
    let len = items.values.len();
    let bound = |value: Option<Value>, default: usize| match value {
        Some(value) => super::arguments::int(&value, name).map(|idx| super::bounds::clamped(idx, len)),
        None => Ok(default),
    };
    let (start, end) = (bound(start, 0)?, bound(end, len)?);
    let mut n_found = 0;
    for (idx, item) in items.values.iter().enumerate().take(end).skip(start) {
        if equal(item, &wanted, meter)? {
            if name == "index" {
                return Ok(Value::Int(idx as i64));
            }
            n_found += 1;
        }
    }
    match (name, &wanted) {
        ("count", _) => Ok(Value::Int(n_found)),
        (_, Value::Float(number)) => Err(failed(format!("{} is not in list", float_text(*number)))),
        _ => Err(failed(format!(
            "the value is not in the {}",
            receiver.type_name()
        ))),
    }
}
