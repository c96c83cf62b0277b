//! The arguments of a call, and how they become parameters.

use indexmap::IndexMap;

use super::error::{Result, failed};
use super::meter::Meter;
use super::value::{Key, Value};

/// The arguments of a call.
#[derive(Clone, Debug, Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(String, Value)>,
}

impl Arguments {
    /// Arguments without names.
    pub(super) fn of(positional: Vec<Value>) -> Self {
        Self {
            positional,
            named: Vec::new(),
        }
    }

    /// The parameters with these names, of which the first `n_required` must be given.
    pub(super) fn bind<const N: usize>(
        self,
        callee: &str,
        names: [&str; N],
        n_required: usize,
    ) -> Result<[Option<Value>; N]> {
        let mut bound = [const { None }; N];
        if self.positional.len() > N {
            let n = self.positional.len();
            return Err(failed(format!(
                "{callee} takes at most {N} arguments ({n} given)"
            )));
        }
        for (slot, value) in bound.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            let Some(idx) = names.iter().position(|known| *known == name) else {
                return Err(failed(format!(
                    "{callee} got an unexpected keyword argument '{name}'"
                )));
            };
            if bound[idx].replace(value).is_some() {
                return Err(failed(format!(
                    "{callee} got multiple values for argument '{name}'"
                )));
            }
        }
        if let Some(idx) = bound[..n_required].iter().position(Option::is_none) {
            return Err(failed(format!("{callee} misses the argument '{}'", names[idx])));
        }
        Ok(bound)
    }

    /// No argument.
    pub(super) fn none(self, callee: &str) -> Result<()> {
        let [] = self.bind(callee, [], 0)?;
        Ok(())
    }

    /// Arguments without names only.
    pub(super) fn unnamed(self, callee: &str) -> Result<Vec<Value>> {
        match self.named.first() {
            None => Ok(self.positional),
            Some((name, _)) => Err(failed(format!(
                "{callee} got an unexpected keyword argument '{name}'"
            ))),
        }
    }
}

/// A text among the arguments.
pub(super) fn text<'a>(value: &'a Value, callee: &str) -> Result<&'a str> {
    value
        .defined()?
        .as_str()
        .ok_or_else(|| failed(format!("{callee}: a text is expected, not {}", value.type_name())))
}

/// An integer among the arguments.
pub(super) fn int(value: &Value, callee: &str) -> Result<i64> {
    match value.defined()? {
        Value::Int(number) => Ok(*number),
        Value::Bool(value) => Ok(i64::from(*value)),
        other => Err(failed(format!(
            "{callee}: an integer is expected, not {}",
            other.type_name()
        ))),
    }
}

/// The entries of keyword arguments as a dict.
pub(super) fn dict_of(named: Vec<(String, Value)>, meter: &Meter) -> Result<IndexMap<Key, Value>> {
    let entry = |(name, value): (String, Value)| Ok((Key(Value::text(&name, meter)?), value));
    named.into_iter().map(entry).collect()
}
