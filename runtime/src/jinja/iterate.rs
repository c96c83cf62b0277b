//! Python's `iter(value)`.

use std::rc::Rc;

use super::error::{Result, failed};
use super::meter::Meter;
use super::value::{Dict, Items, Range, Stream, Text, Value, View};

/// An iterator over a value.
#[derive(Debug)]
pub(super) enum Iter {
    Empty,
    Items(Rc<Items>, usize),
    /// The text, and the byte of the next character.
    Text(Text, usize),
    Dict(Rc<Dict>, View, usize),
    Range(Range, usize),
    Stream(Rc<Stream>),
    Owned(std::vec::IntoIter<Value>),
}

/// An iterator over the items of a value.
pub(super) fn iterate(value: &Value) -> Result<Iter> {
    Ok(match value {
        Value::Undefined(_) => Iter::Empty,
        Value::Text(text) => Iter::Text(text.clone(), 0),
        Value::List(items) | Value::Tuple(items) => Iter::Items(items.clone(), 0),
        Value::Dict(dict) => Iter::Dict(dict.clone(), View::Keys, 0),
        Value::View(dict, view) => Iter::Dict(dict.clone(), *view, 0),
        Value::Range(range) => Iter::Range(*range, 0),
        Value::Stream(stream) => Iter::Stream(stream.clone()),
        other => {
            return Err(failed(format!("'{}' object is not iterable", other.type_name())));
        }
    })
}

impl Iter {
    /// The next item; `None` after the last.
    pub(super) fn next(&mut self, meter: &Meter) -> Result<Option<Value>> {
        meter.steps(1)?;
        Ok(match self {
            Self::Empty => None,
            Self::Items(items, idx) => {
                *idx += 1;
                items.values.get(*idx - 1).cloned()
            }
            Self::Text(text, at) => match text.as_str()[*at..].chars().next() {
                Some(c) => {
                    *at += c.len_utf8();
                    Some(Value::text(c.encode_utf8(&mut [0; 4]), meter)?)
                }
                None => None,
            },
            Self::Dict(dict, view, idx) => {
                *idx += 1;
                match (dict.entries.get_index(*idx - 1), view) {
                    (None, _) => None,
                    (Some((key, _)), View::Keys) => Some(key.0.clone()),
                    (Some((_, value)), View::Values) => Some(value.clone()),
                    (Some((key, value)), View::Items) => {
                        Some(Value::tuple(vec![key.0.clone(), value.clone()], meter)?)
                    }
                }
            }
            Self::Range(range, idx) => {
                *idx += 1;
                (*idx <= range.len).then(|| range.item(*idx - 1))
            }
            Self::Stream(stream) => stream.next(meter)?,
            Self::Owned(items) => items.next(),
        })
    }

    /// The remaining items.
    pub(super) fn rest(&mut self, meter: &Meter) -> Result<Vec<Value>> {
        let mut items = Vec::new();
        // The charge counts the items while they are gathered.
        let mut charge = meter.charge(0)?;
        while let Some(item) = self.next(meter)? {
            charge.grow(size_of::<Value>())?;
            items.push(item);
        }
        Ok(items)
    }
}

/// The items of a value.
pub(super) fn items(value: &Value, meter: &Meter) -> Result<Vec<Value>> {
    iterate(value)?.rest(meter)
}

/// Python's `len(value)`; `None` if it has none.
pub(super) fn len(value: &Value, meter: &Meter) -> Result<Option<usize>> {
    Ok(Some(match value {
        Value::Undefined(_) => 0,
        Value::Text(text) => {
            meter.pass_over(text.as_str().len())?;
            text.as_str().chars().count()
        }
        Value::List(items) | Value::Tuple(items) => items.values.len(),
        Value::Dict(dict) | Value::View(dict, _) => dict.entries.len(),
        Value::Range(range) => range.len,
        _ => return Ok(None),
    }))
}

/// Python's `reversed(value)`.
pub(super) fn reversed(value: &Value, meter: &Meter) -> Result<Vec<Value>> {
    match value {
        Value::Stream(_) => Err(failed("'generator' object is not reversible")),
        _ => {
            let mut items = items(value, meter)
                .map_err(|_| failed(format!("'{}' object is not reversible", value.type_name())))?;
            items.reverse();
            Ok(items)
        }
    }
}
