//! A JSON object read parameter by parameter: what is taken is checked, what is left over is told.

use serde_json::{Map, Value};

use super::unsupported;
use crate::error::ApiError;

/// Parameters that nobody has taken yet. `null` counts as absent, as in OpenAI's API.
#[derive(Debug)]
pub(super) struct Params {
    fields: Map<String, Value>,
    /// The object's own path with a trailing dot, or nothing.
    prefix: String,
}

impl Params {
    /// Parses a body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let value: Value = serde_json::from_slice(body).map_err(|error| ApiError::BrokenJson {
            reason: error.to_string(),
        })?;
        match value {
            Value::Object(fields) => Ok(Self {
                fields,
                prefix: String::new(),
            }),
            _ => Err(ApiError::NotAnObject),
        }
    }

    /// The object that is the value of `param`.
    pub(super) fn within(param: &str, fields: Map<String, Value>) -> Self {
        Self {
            fields,
            prefix: format!("{param}."),
        }
    }

    /// Takes a parameter as it is.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.shift_remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.typed(name, "true or false", Value::as_bool)
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.typed(name, "a text", |value| value.as_str().map(str::to_string))
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        self.typed(name, "an object", |value| value.as_object().cloned())
    }

    /// A number that `fits`, which `expected` says in words.
    pub(super) fn number(
        &mut self,
        name: &str,
        expected: &str,
        fits: impl Fn(f64) -> bool,
    ) -> Result<Option<f32>, ApiError> {
        let number = |value: &Value| value.as_f64().filter(|x| fits(*x)).map(|x| x as f32);
        self.typed(name, expected, number)
    }

    /// A whole number that `fits`; `2.0` is one.
    pub(super) fn integer(
        &mut self,
        name: &str,
        expected: &str,
        fits: impl Fn(i64) -> bool,
    ) -> Result<Option<i64>, ApiError> {
        self.typed(name, expected, |value| whole(value).filter(|n| fits(*n)))
    }

    /// A whole number of at least `min`.
    pub(super) fn count(&mut self, name: &str, min: usize) -> Result<Option<usize>, ApiError> {
        let expected = format!("a whole number of at least {min}");
        let count = |value: &Value| usize::try_from(whole(value)?).ok().filter(|n| *n >= min);
        self.typed(name, &expected, count)
    }

    /// Refuses what is left and known to mean something elsewhere; the names of the rest are returned.
    pub(super) fn finish(mut self, n: usize) -> Result<Vec<String>, ApiError> {
        if let Some(best_of) = self
            .take("best_of")
            .filter(|value| whole(value) != Some(n as i64))
        {
            tracing::debug!(%best_of, n, "best_of is not n");
            return Err(ApiError::Unsupported {
                param: "best_of".into(),
            });
        }
        let mut unknown = Vec::new();
        for (name, value) in self.fields {
            match unsupported::meaning(&name, &value) {
                unsupported::Meaning::Nothing => {}
                unsupported::Meaning::Unknown => unknown.push(name),
                unsupported::Meaning::Unsupported => return Err(ApiError::Unsupported { param: name }),
            }
        }
        Ok(unknown)
    }

    fn typed<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let invalid = || ApiError::invalid(format!("{}{name}", self.prefix), expected, &value);
        read(&value).map(Some).ok_or_else(invalid)
    }
}

/// An item of a list that does not fit; a value that is no list is its own first item.
pub(super) fn invalid_item(param: &str, idx: usize, expected: &str, got: &Value) -> ApiError {
    let param = if idx == 0 {
        param.to_string()
    } else {
        format!("{param}[{idx}]")
    };
    ApiError::invalid(param, expected, got)
}

fn whole(value: &Value) -> Option<i64> {
    // Beyond 2^53 a float does not say which whole number it means.
    let exact = |x: &f64| x.fract() == 0.0 && x.abs() < 9.0e15;
    value
        .as_i64()
        .or_else(|| value.as_f64().filter(exact).map(|x| x as i64))
}
