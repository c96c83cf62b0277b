//! Attributes, items and slices of values, as jinja2's sandbox reads them.

use std::rc::Rc;

use super::bounds::indices;
use super::display::write_repr;
use super::error::{Result, failed};
use super::meter::{Meter, Output};
use super::methods::names;
use super::value::{Key, Method, Name, Value};

/// `value.name`: a method, or else an item.
pub(super) fn attribute(value: &Value, name: &str, meter: &Meter) -> Result<Value> {
    value.defined()?;
    if let Some(found) = own_attribute(value, name) {
        return Ok(found);
    }
    if let Value::Dict(dict) = value {
        meter.pass_over(name.len())?;
        if let Some(found) = dict.entries.get(&Name(name)) {
            return Ok(found.clone());
        }
    }
    Ok(Value::undefined(format!(
        "'{} object' has no attribute '{name}'",
        type_text(value)
    )))
}

fn type_text(value: &Value) -> &'static str {
    match value {
        Value::Object(object) => object.type_name(),
        other => other.type_name(),
    }
}

/// What Python's `getattr` finds, where a template may see it.
fn own_attribute(value: &Value, name: &str) -> Option<Value> {
    if names::is_change(value, name) || name.starts_with("__") && name.ends_with("__") {
        return Some(Value::undefined(format!(
            "access to attribute '{name}' of '{}' object is unsafe.",
            value.type_name()
        )));
    }
    let receiver = || value.clone();
    names::find(value, name).map(|name| {
        Value::Method(Rc::new(Method {
            receiver: receiver(),
            name,
        }))
    })
}

/// `value[index]`: an item, or else a method.
pub(super) fn item(value: &Value, index: &Value, meter: &Meter) -> Result<Value> {
    value.defined()?;
    let found = match (value, index) {
        (Value::Dict(dict), _) if !matches!(index, Value::List(_) | Value::Dict(_)) => {
            let key = Key::new(index.clone(), meter)?;
            dict.entries.get(&key).cloned()
        }
        (_, Value::Int(idx)) => at(value, *idx, meter)?,
        (_, Value::Bool(idx)) => at(value, i64::from(*idx), meter)?,
        _ => None,
    };
    if let Some(found) = found {
        return Ok(found);
    }
    if let Value::Text(name) = index {
        if let Some(found) = own_attribute(value, name.as_str()) {
            return Ok(found);
        }
        let kind = type_text(value);
        return Ok(Value::undefined(format!(
            "'{kind} object' has no attribute '{}'",
            name.as_str()
        )));
    }
    let mut text = Output::new(meter)?;
    write_repr(index, &mut text)?;
    let kind = type_text(value);
    Ok(Value::undefined(format!(
        "{kind} object has no element {}",
        text.text()
    )))
}

/// The item at an index, which counts from the end if it is negative.
fn at(value: &Value, idx: i64, meter: &Meter) -> Result<Option<Value>> {
    let position = |len: usize| {
        let idx = if idx < 0 {
            idx.checked_add(len as i64)?
        } else {
            idx
        };
        usize::try_from(idx).ok().filter(|idx| *idx < len)
    };
    Ok(match value {
        Value::List(items) | Value::Tuple(items) => {
            position(items.values.len()).map(|idx| items.values[idx].clone())
        }
        Value::Range(range) => position(range.len).map(|idx| range.item(idx)),
        Value::Text(text) => {
            let text = text.as_str();
            meter.pass_over(text.len())?;
            let is_ascii = text.is_ascii();
            let len = if is_ascii {
                text.len()
            } else {
                text.chars().count()
            };
            let letter = position(len).and_then(|idx| match is_ascii {
                true => text.get(idx..=idx).map(str::to_owned),
                false => text.chars().nth(idx).map(String::from),
            });
            letter.map(|letter| Value::text(&letter, meter)).transpose()?
        }
        _ => None,
    })
}

/// `value[start:stop:step]`.
pub(super) fn slice(value: &Value, bounds: &[Value; 3], meter: &Meter) -> Result<Value> {
    value.defined()?;
    let number = |value: &Value| match value.defined()? {
        Value::None => Ok(None),
        Value::Int(number) => Ok(Some(*number)),
        Value::Bool(value) => Ok(Some(i64::from(*value))),
        _ => Err(failed("slice indices must be integers or None")),
    };
    let [start, stop, step] = [number(&bounds[0])?, number(&bounds[1])?, number(&bounds[2])?];
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(failed("slice step cannot be zero"));
    }
    let pick = |len: usize| indices(len, [start, stop], step);
    match value {
        Value::List(items) => {
            let picked = pick(items.values.len()).map(|idx| items.values[idx].clone());
            Value::list(picked.collect(), meter)
        }
        Value::Tuple(items) => {
            let picked = pick(items.values.len()).map(|idx| items.values[idx].clone());
            Value::tuple(picked.collect(), meter)
        }
        Value::Range(range) => {
            let picked = pick(range.len).map(|idx| range.item(idx));
            Value::list(picked.collect(), meter)
        }
        Value::Text(text) => {
            let letters = text.as_str();
            meter.pass_over(letters.len())?;
            if letters.is_ascii() && step == 1 {
                let picked = pick(letters.len());
                let (first, last) = (picked.clone().next(), picked.last());
                let part = first.zip(last).map_or("", |(first, last)| &letters[first..=last]);
                let part = Value::text(part, meter)?;
                return Ok(super::operators::with_mark(part, text.is_markup));
            }
            let charge = meter.charge(letters.len() * size_of::<char>())?;
            let letters: Vec<char> = letters.chars().collect();
            let picked: String = pick(letters.len()).map(|idx| letters[idx]).collect();
            drop(charge);
            let part = Value::text(&picked, meter)?;
            Ok(super::operators::with_mark(part, text.is_markup))
        }
        other => Err(failed(format!(
            "'{}' object is not subscriptable",
            other.type_name()
        ))),
    }
}
