//! A JSON object that is read parameter by parameter, as the table describes them. Each value is checked, and what
//! remains unread is reported.

use serde_json::{Map, Value};

use super::parameters::{Body, Kind, Parameter, Support};
use super::renames::Renames;
use super::rules::Rules;
use crate::api::error::ApiError;

/// Rewrites the fields of one body as those of another.
pub(super) type Rewrite = fn(&mut Map<String, Value>) -> Result<Renames, ApiError>;

/// Parameters that were not read yet. `null` counts as absent, as in OpenAI's API.
#[derive(Debug)]
pub(super) struct Params {
    fields: Map<String, Value>,
    body: &'static Body,
    /// Unknown names are refused.
    strict: bool,
    /// Parts of parameters that are left out.
    left_out: Vec<String>,
}

/// A body that was rewritten as another.
#[derive(Debug)]
pub(super) struct Rewritten {
    /// The parameters of the other body.
    pub(super) params: Params,
    /// The client's names of these parameters.
    pub(super) renames: Renames,
    /// Names that the first body does not have.
    pub(super) unknown: Vec<String>,
}

impl Params {
    /// Parses a body.
    pub(super) fn parse(bytes: &[u8], body: &'static Body, rules: &Rules<'_>) -> Result<Self, ApiError> {
        let value: Value = serde_json::from_slice(bytes).map_err(|error| ApiError::BrokenJson {
            reason: error.to_string(),
        })?;
        match value {
            Value::Object(fields) => Ok(Self {
                fields,
                body,
                strict: rules.strict,
                left_out: Vec::new(),
            }),
            _ => Err(ApiError::NotAnObject),
        }
    }

    /// Takes a parameter without a check.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.given(name).and_then(|_| take(&mut self.fields, name))
    }

    /// Whether the body has a parameter that was not read yet.
    pub(super) fn has(&self, name: &str) -> bool {
        self.given(name).is_some() && self.fields.get(name).is_some_and(|value| !value.is_null())
    }

    /// The table's default of a parameter.
    pub(super) fn default(&self, name: &str) -> &'static str {
        self.row(name).map_or("", |row| row.default)
    }

    /// Takes a parameter that the body must have.
    pub(super) fn required(&mut self, name: &str) -> Result<Value, ApiError> {
        self.take(name).ok_or_else(|| ApiError::missing(name))
    }

    /// Takes `true` or `false`.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.typed(name, |value, _| value.as_bool())
    }

    /// Takes a text; of a choice, one of the table's.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.typed(name, |value, kind| match (value, kind) {
            (Value::String(text), Kind::Choice(texts)) if !texts.contains(&text.as_str()) => None,
            (Value::String(text), _) => Some(text.clone()),
            _ => None,
        })
    }

    /// Takes an object.
    pub(super) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        self.typed(name, |value, _| value.as_object().cloned())
    }

    /// Takes a number in the table's range.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<f64>, ApiError> {
        self.typed(name, |value, kind| {
            let Kind::Number { min, max } = kind else {
                return None;
            };
            let range = min..=max;
            value.as_f64().filter(|x| x.is_finite() && range.contains(x))
        })
    }

    /// Checks a number without taking it.
    pub(super) fn check_number(&mut self, name: &str) -> Result<(), ApiError> {
        let value = self.fields.get(name).cloned();
        self.number(name)?;
        self.fields.extend(value.map(|value| (name.to_owned(), value)));
        Ok(())
    }

    /// Takes a whole number in the table's range; `2.0` is one.
    pub(super) fn integer(&mut self, name: &str) -> Result<Option<i64>, ApiError> {
        self.typed(name, |value, kind| {
            let Kind::Integer { min, max } = kind else {
                return None;
            };
            whole(value).filter(|n| (min..=max).contains(n))
        })
    }

    /// Takes a whole number whose range begins at 0 or above.
    pub(super) fn count(&mut self, name: &str) -> Result<Option<usize>, ApiError> {
        Ok(self.integer(name)?.and_then(|n| usize::try_from(n).ok()))
    }

    /// Takes a parameter that `read` accepts.
    pub(super) fn read<T>(
        &mut self,
        name: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        self.typed(name, |value, _| read(value))
    }

    /// Takes a list of at most `n_max` items, each of which `read` accepts.
    pub(super) fn list<T>(
        &mut self,
        name: &str,
        n_max: usize,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>, ApiError> {
        self.read(name, |value| {
            let items = value.as_array().filter(|items| items.len() <= n_max)?;
            items.iter().map(&read).collect()
        })
    }

    /// The error for a wrong value, with the table's description of the right ones.
    pub(super) fn invalid(&self, name: &str, value: &Value) -> ApiError {
        let expected = self.row(name).map(|row| {
            let beyond = beyond(row.kind, value);
            beyond.unwrap_or_else(|| row.kind.expected())
        });
        ApiError::invalid(name, expected.unwrap_or_else(|| "absent".into()), value)
    }

    /// The parameters that were not read yet.
    pub(super) fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// Leaves out a part of a parameter, which the answer names. Strict mode refuses it.
    pub(super) fn leave_out(&mut self, part: String) -> Result<(), ApiError> {
        if self.strict {
            return Err(ApiError::UnknownParameter { param: part });
        }
        self.left_out.push(part);
        Ok(())
    }

    /// Rewrites the parameters as those of another body.
    pub(super) fn into_body(mut self, body: &'static Body, rewrite: Rewrite) -> Result<Rewritten, ApiError> {
        let unknown = self.keep_honoured()?;
        let mut renames = rewrite(&mut self.fields)?;
        for part in renames.take_left_out() {
            self.leave_out(part)?;
        }
        self.body = body;
        Ok(Rewritten {
            params: self,
            renames,
            unknown,
        })
    }

    /// Refuses parameters that this server honours and that were not read. Returns the names of unknown ones and of parts
    /// that are left out, or refuses them in strict mode.
    pub(super) fn finish(mut self) -> Result<Vec<String>, ApiError> {
        let mut unknown = self.keep_honoured()?;
        unknown.append(&mut self.left_out);
        // No parameter is ignored silently.
        match self.fields.keys().next() {
            None => Ok(unknown),
            Some(name) => Err(ApiError::contradiction(
                name.as_str(),
                "not supported for this request",
            )),
        }
    }

    /// Keeps only the parameters that are honoured, and returns the names of unknown ones.
    fn keep_honoured(&mut self) -> Result<Vec<String>, ApiError> {
        let (mut unknown, mut honoured) = (Vec::new(), Map::new());
        for (name, value) in std::mem::take(&mut self.fields) {
            let parameter = self.body.get(&name);
            match parameter.map(|parameter| (parameter.support, parameter.doc)) {
                _ if value.is_null() => {}
                Some((Support::NoEffect(_), _)) => {}
                Some((Support::Refused(harmless), _)) if is_harmless(&value, harmless) => {}
                Some((Support::Refused(_), doc)) => {
                    return Err(ApiError::Unsupported {
                        param: name,
                        advice: doc.into(),
                    });
                }
                Some((Support::Honoured, _)) => {
                    honoured.insert(name, value);
                }
                None if self.strict => return Err(ApiError::UnknownParameter { param: name }),
                None => unknown.push(name),
            }
        }
        self.fields = honoured;
        Ok(unknown)
    }

    /// The table's row of a parameter. If a reader that several routes share reads a name that the route's table does not
    /// have, tests panic; in production the client's value counts as unknown.
    fn row(&self, name: &str) -> Option<&'static Parameter> {
        let row = self.body.get(name);
        if cfg!(test) {
            assert!(row.is_some(), "{name} is not in the table of {}", self.body.route);
        }
        row
    }

    /// The table's row of a parameter that the body has. A body has few of the table's parameters, so the body is searched
    /// first.
    fn given(&self, name: &str) -> Option<&'static Parameter> {
        let is_given = self.fields.contains_key(name);
        (is_given || cfg!(test)).then(|| self.row(name)).flatten()
    }

    fn typed<T>(
        &mut self,
        name: &str,
        read: impl Fn(&Value, Kind) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some((row, value)) = self.given(name).zip(take(&mut self.fields, name)) else {
            return Ok(None);
        };
        let read = read(&value, row.kind);
        read.map(Some).ok_or_else(|| self.invalid(name, &value))
    }
}

/// Takes a field without a check; `null` counts as absent.
pub(super) fn take(fields: &mut Map<String, Value>, name: &str) -> Option<Value> {
    fields.shift_remove(name).filter(|value| !value.is_null())
}

/// Sets a field that the client did not set; `null` counts as absent.
pub(super) fn set_default(fields: &mut Map<String, Value>, name: &str, value: Value) {
    if fields.get(name).is_none_or(Value::is_null) {
        fields.insert(name.to_owned(), value);
    }
}

/// Removes the fields of an object that are `null`, which count as absent.
pub(super) fn drop_nulls(object: &mut Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
}

/// Whether a value of a refused parameter means the same as its absence.
fn is_harmless(value: &Value, harmless: &[&str]) -> bool {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let is_empty = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    };
    is_empty || harmless.contains(&text.as_str())
}

/// The error for a wrong item of a list; a value that is not a list counts as its own first item.
pub(super) fn invalid_item(param: &str, idx: usize, expected: &str, got: &Value) -> ApiError {
    let param = if idx == 0 {
        param.to_string()
    } else {
        format!("{param}[{idx}]")
    };
    ApiError::invalid(param, expected, got)
}

/// Reads a token id.
pub(super) fn token_id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

/// Describes the bound that a whole number exceeds.
fn beyond(kind: Kind, value: &Value) -> Option<String> {
    let Kind::Integer { min, max } = kind else {
        return None;
    };
    let (is_below, is_above) = match (whole(value), value.as_f64()) {
        (Some(n), _) => (n < min, n > max),
        // As floats, a bound and the first number beyond it are equal.
        (None, Some(x)) => (x <= i64::MIN as f64, x >= i64::MAX as f64),
        (None, None) => (false, false),
    };
    if is_below {
        Some(format!("a whole number greater than or equal to {min}"))
    } else if is_above {
        Some(format!("a whole number less than or equal to {max}"))
    } else {
        None
    }
}

fn whole(value: &Value) -> Option<i64> {
    // Beyond 2^53 several whole numbers have the same float.
    let exact = |x: &f64| x.fract() == 0.0 && x.abs() < 9.0e15;
    value
        .as_i64()
        .or_else(|| value.as_f64().filter(exact).map(|x| x as i64))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_empty_value_of_a_refused_parameter_is_harmless() {
        for value in [
            json!([]),
            json!(null),
            json!(false),
            json!(""),
            json!({}),
            json!(["text"]),
        ] {
            assert!(is_harmless(&value, &["[\"text\"]"]), "{value}");
        }
        for value in [json!([1]), json!(true), json!("x"), json!({"a": 1}), json!(0)] {
            assert!(!is_harmless(&value, &["[\"text\"]"]), "{value}");
        }
    }

    #[test]
    fn the_error_of_a_number_out_of_range_names_the_bound() {
        let small = Kind::Integer { min: 1, max: 128 };
        let any = Kind::Integer {
            min: i64::MIN,
            max: i64::MAX,
        };
        let described =
            |kind: Kind, text: &str| beyond(kind, &serde_json::from_str(text).unwrap()).unwrap_or_default();
        assert_eq!(described(small, "0"), "a whole number greater than or equal to 1");
        assert_eq!(
            described(small, "129.0"),
            "a whole number less than or equal to 128"
        );
        let greatest = "a whole number less than or equal to 9223372036854775807";
        assert_eq!(described(any, "9223372036854775808"), greatest);
        assert_eq!(described(any, "1e30"), greatest);
        let least = "a whole number greater than or equal to -9223372036854775808";
        assert_eq!(described(any, "-9223372036854775809"), least);
        for text in ["1", "1.5", "\"x\"", "1e16"] {
            assert_eq!(described(any, text), "", "{text}");
        }
    }

    #[test]
    fn a_whole_number_may_be_written_as_a_float() {
        let numbers = [json!(2), json!(2.0), json!(2.5), json!(1e16), json!("2")];
        assert_eq!(numbers.map(|n| whole(&n)), [Some(2), Some(2), None, None, None]);
    }
}
