//! Python's comparisons.

use std::cmp::Ordering;
use std::rc::Rc;

use super::error::{Result, failed};
use super::iterate::iterate;
use super::meter::Meter;
use super::number::{Number, truncated};
use super::value::{Dict, Key, Value, View};

/// `a == b`.
pub(super) fn equal(a: &Value, b: &Value, meter: &Meter) -> Result<bool> {
    meter.steps(1)?;
    Ok(match (a, b) {
        (Value::Text(a), Value::Text(b)) => {
            meter.pass_over(a.as_str().len().min(b.as_str().len()))?;
            a.as_str() == b.as_str()
        }
        (Value::None, Value::None) | (Value::Undefined(_), Value::Undefined(_)) => true,
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            Rc::ptr_eq(a, b) || all_equal(&a.values, &b.values, meter)?
        }
        (Value::Dict(a), Value::Dict(b)) => Rc::ptr_eq(a, b) || dicts_equal(a, b, meter)?,
        (Value::View(a, View::Keys), Value::View(b, View::Keys)) => {
            meter.steps(a.entries.len() as u64)?;
            a.entries.len() == b.entries.len() && a.entries.keys().all(|key| b.entries.contains_key(key))
        }
        (Value::View(a, View::Items), Value::View(b, View::Items)) => dicts_equal(a, b, meter)?,
        (Value::Range(a), Value::Range(b)) => {
            a.len == b.len && (a.len == 0 || a.start == b.start && (a.len == 1 || a.step == b.step))
        }
        (Value::Stream(a), Value::Stream(b)) => Rc::ptr_eq(a, b),
        (Value::Object(a), Value::Object(b)) => Rc::ptr_eq(a, b),
        (a, b) => match (Number::of(a), Number::of(b)) {
            (Some(a), Some(b)) => order(&a, &b)? == Some(Ordering::Equal),
            _ => false,
        },
    })
}

fn all_equal(a: &[Value], b: &[Value], meter: &Meter) -> Result<bool> {
    if a.len() != b.len() {
        return Ok(false);
    }
    for (a, b) in a.iter().zip(b) {
        if !equal(a, b, meter)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn dicts_equal(a: &Dict, b: &Dict, meter: &Meter) -> Result<bool> {
    if a.entries.len() != b.entries.len() {
        return Ok(false);
    }
    for (key, value) in &a.entries {
        match b.entries.get(key) {
            Some(other) if equal(value, other, meter)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// `a < b`; `symbol` is the operator of the error.
pub(super) fn less(a: &Value, b: &Value, symbol: &str, meter: &Meter) -> Result<bool> {
    Ok(compared(a, b, symbol, meter)? == Some(Ordering::Less))
}

/// How `a` and `b` are ordered; `None` for NaN.
pub(super) fn compared(a: &Value, b: &Value, symbol: &str, meter: &Meter) -> Result<Option<Ordering>> {
    meter.steps(1)?;
    match (a.defined()?, b.defined()?) {
        (Value::Text(a), Value::Text(b)) => {
            meter.pass_over(a.as_str().len().min(b.as_str().len()))?;
            Ok(Some(a.as_str().cmp(b.as_str())))
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            for (a, b) in a.values.iter().zip(&b.values) {
                if !equal(a, b, meter)? {
                    return compared(a, b, symbol, meter);
                }
            }
            Ok(Some(a.values.len().cmp(&b.values.len())))
        }
        (a, b) => match (Number::of(a), Number::of(b)) {
            (Some(a), Some(b)) => order(&a, &b),
            _ => Err(failed(format!(
                "'{symbol}' not supported between instances of '{}' and '{}'",
                a.type_name(),
                b.type_name()
            ))),
        },
    }
}

/// The order of two numbers, exactly; `None` for NaN.
fn order(a: &Number, b: &Number) -> Result<Option<Ordering>> {
    Ok(match (a, b) {
        (Number::Int(a), Number::Int(b)) => Some(a.cmp(b)),
        (Number::Float(a), Number::Float(b)) => a.partial_cmp(b),
        (Number::Float(a), b) => order_with_float(b, *a)?.map(Ordering::reverse),
        (a, Number::Float(b)) => order_with_float(a, *b)?,
        (a, b) => a.big().partial_cmp(&b.big()),
    })
}

/// The order of an integer and a float.
fn order_with_float(integer: &Number, float: f64) -> Result<Option<Ordering>> {
    if float.is_nan() {
        return Ok(None);
    }
    if float.is_infinite() {
        return Ok(0.0.partial_cmp(&float));
    }
    let whole = Number::of(&truncated(float)?).and_then(|whole| whole.big());
    let order = integer.big().cmp(&whole);
    Ok(Some(order.then(
        0.0.partial_cmp(&float.fract()).unwrap_or(Ordering::Equal),
    )))
}

/// `item in container`.
pub(super) fn contains(container: &Value, item: &Value, meter: &Meter) -> Result<bool> {
    match container {
        Value::Text(text) => match item.defined()?.as_str() {
            Some(part) => {
                meter.pass_over(text.as_str().len() + part.len())?;
                Ok(text.as_str().contains(part))
            }
            None => Err(failed(format!(
                "'in <string>' requires string as left operand, not {}",
                item.type_name()
            ))),
        },
        Value::Dict(dict) | Value::View(dict, View::Keys) => {
            let key = Key::new(item.clone(), meter)?;
            Ok(dict.entries.contains_key(&key))
        }
        _ => {
            let mut items = iterate(container)?;
            while let Some(found) = items.next(meter)? {
                if equal(&found, item, meter)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
    }
}

/// The values in their order, equal ones as they stood. `is_less` counts its own steps.
pub(super) fn sorted<T: Clone>(
    values: Vec<T>,
    is_less: &mut impl FnMut(&T, &T) -> Result<bool>,
) -> Result<Vec<T>> {
    // The library's sort may panic if an order is not total, as with NaN.
    if values.len() < 2 {
        return Ok(values);
    }
    let mut left = values;
    let right = left.split_off(left.len() / 2);
    let left = sorted(left, is_less)?;
    let right = sorted(right, is_less)?;
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let next = if is_less(b, a)? { right.next() } else { left.next() };
        merged.extend(next);
    }
    merged.extend(left);
    merged.extend(right);
    Ok(merged)
}
