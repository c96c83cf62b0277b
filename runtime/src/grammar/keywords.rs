//! The keywords of a schema that llguidance takes in another way than JSON Schema, or with a smaller range.
//!
//! `format` is an annotation: an unknown one constrains nothing. Bounds of numbers are 64-bit floats there, and most of
//! its arithmetic has 64-bit integers.

use llguidance::derivre::{RegexAst, RegexBuilder};
use llguidance::regex_to_lark;
use serde_json::{Map, Number, Value, json};

use super::error::Refusal;
use super::repeats::check_repeats;

/// The formats that llguidance follows.
const FORMATS: [&str; 10] = [
    "date",
    "date-time",
    "duration",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "time",
    "uri",
    "uuid",
];

/// Keywords whose value is an object of schemas with names.
const NAMED: [&str; 5] = [
    "$defs",
    "definitions",
    "dependentSchemas",
    "patternProperties",
    "properties",
];

/// Keywords whose value is a value of the described document.
const VALUES: [&str; 4] = ["const", "default", "enum", "examples"];

/// The bounds of numbers, and whether a number is at least or at most as large.
const BOUNDS: [(&str, Side); 4] = [
    ("minimum", Side::Lower),
    ("exclusiveMinimum", Side::Lower),
    ("maximum", Side::Upper),
    ("exclusiveMaximum", Side::Upper),
];

/// The largest bound: the largest integer of 64 bits that is a float.
const LARGEST: f64 = 9_223_372_036_854_774_784.0;
/// From here on, all floats are integers, and not all integers are floats.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// From here on, a number needs a bound on its other side too.
const ONE_SIDED_MAX: f64 = 1e18;

/// Steps of the comparison of a pattern with names.
const PATTERN_FUEL: u64 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Lower,
    Upper,
}

/// Rewrites a schema with keywords that llguidance follows. Each value of the result is valid under the given schema.
///
/// # Errors
/// Which number cannot be followed.
pub(super) fn follow_keywords(schema: &mut Value) -> Result<(), Refusal> {
    match schema {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || VALUES.contains(&name.as_str()));
            let is_unknown =
                |format: &Value| format.as_str().is_some_and(|format| !FORMATS.contains(&format));
            if fields.get("format").is_some_and(is_unknown) {
                fields.shift_remove("format");
            }
            follow_bounds(fields)?;
            check_patterns(fields)?;
            merge_named_patterns(fields);
            ["const", "enum"]
                .iter()
                .filter_map(|name| fields.get(*name))
                .try_for_each(check_exact)?;
            let inner = fields
                .iter_mut()
                .filter(|(name, _)| !VALUES.contains(&name.as_str()));
            for (name, value) in inner {
                match value {
                    Value::Object(schemas) if NAMED.contains(&name.as_str()) => {
                        schemas.values_mut().try_for_each(follow_keywords)?;
                    }
                    value => follow_keywords(value)?,
                }
            }
            Ok(())
        }
        Value::Array(schemas) => schemas.iter_mut().try_for_each(follow_keywords),
        _ => Ok(()),
    }
}

fn check_patterns(fields: &Map<String, Value>) -> Result<(), Refusal> {
    let pattern = fields.get("pattern").and_then(Value::as_str);
    let named = fields.get("patternProperties").and_then(Value::as_object);
    let names = named.into_iter().flat_map(Map::keys).map(String::as_str);
    pattern.into_iter().chain(names).try_for_each(check_repeats)
}

/// Moves the schemas of patterns that match only named properties to those properties. llguidance would allow a further
/// member there, for which no name is left.
fn merge_named_patterns(fields: &mut Map<String, Value>) {
    let named = fields.get("properties").and_then(Value::as_object).cloned();
    let patterns = fields
        .get("patternProperties")
        .and_then(Value::as_object)
        .cloned();
    let (Some(mut properties), Some(patterns)) = (named, patterns) else {
        return;
    };
    let names: Vec<String> = properties.keys().cloned().collect();
    let (merged, others): (Vec<_>, Vec<_>) = patterns
        .into_iter()
        .partition(|(pattern, _)| is_empty_without(pattern, &names) == Some(true));
    if merged.is_empty() {
        return;
    }
    for (pattern, schema) in &merged {
        for (name, property) in &mut properties {
            if matches(pattern, name) == Some(true) {
                *property = json!({"allOf": [property, schema]});
            }
        }
    }
    fields.insert("properties".to_owned(), properties.into());
    fields.insert("patternProperties".to_owned(), Map::from_iter(others).into());
}

/// Whether a pattern matches no other text than `names`; `None` if that takes too long to find out.
fn is_empty_without(pattern: &str, names: &[String]) -> Option<bool> {
    let names = names.iter().map(|name| RegexAst::Literal(name.clone()));
    let others = RegexAst::Not(Box::new(RegexAst::Or(names.collect())));
    let mut builder = RegexBuilder::new();
    let rest = builder.mk(&RegexAst::And(vec![searched(pattern), others])).ok()?;
    let mut rest = builder.to_regex_limited(rest, PATTERN_FUEL).ok()?;
    Some(rest.always_empty())
}

fn matches(pattern: &str, name: &str) -> Option<bool> {
    let mut builder = RegexBuilder::new();
    let pattern = builder.mk(&searched(pattern)).ok()?;
    let mut pattern = builder.to_regex_limited(pattern, PATTERN_FUEL).ok()?;
    Some(pattern.is_match(name))
}

/// A pattern as llguidance reads it: it may match a part of a name.
fn searched(pattern: &str) -> RegexAst {
    RegexAst::SearchRegex(regex_to_lark(pattern, "dw"))
}

/// Moves bounds that are too large for the arithmetic inwards, and adds those that it needs.
fn follow_bounds(fields: &mut Map<String, Value>) -> Result<(), Refusal> {
    for (name, side) in BOUNDS {
        let Some(bound) = fields.get(name).and_then(|bound| side.inner_float(bound)) else {
            continue;
        };
        if side.outward(bound) < -LARGEST {
            return Err(format!("{name} is {}; bounds are followed up to {LARGEST}", fields[name]).into());
        }
        if bound.abs() >= EXACT_MAX {
            // Not all floats are the same after they were written and read. Integers are.
            fields.insert(name.to_owned(), (bound.clamp(-LARGEST, LARGEST) as i64).into());
        }
    }
    for (side, other) in [(Side::Lower, "maximum"), (Side::Upper, "minimum")] {
        let bounds = |side: Side| {
            let of_side = BOUNDS.iter().filter(move |(_, of)| *of == side);
            of_side.filter_map(|(name, _)| fields.get(*name).and_then(Value::as_f64))
        };
        let is_far = bounds(side).any(|bound| side.outward(bound) <= -ONE_SIDED_MAX);
        if is_far && bounds(side.other()).next().is_none() {
            fields.insert(other.to_owned(), (-side.outward(LARGEST) as i64).into());
        }
    }
    Ok(())
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Lower => Self::Upper,
            Self::Upper => Self::Lower,
        }
    }

    /// How far a bound is from zero on its side.
    fn outward(self, bound: f64) -> f64 {
        match self {
            Self::Lower => -bound,
            Self::Upper => bound,
        }
    }

    /// The float of a bound, or the next one inside the bound if no float is equal.
    fn inner_float(self, bound: &Value) -> Option<f64> {
        let float = bound.as_f64()?;
        let exact = bound.as_i64().map(i128::from).or(bound.as_u64().map(i128::from));
        Some(match (self, exact) {
            (Self::Lower, Some(exact)) if (float as i128) < exact => float.next_up(),
            (Self::Upper, Some(exact)) if (float as i128) > exact => float.next_down(),
            _ => float,
        })
    }
}

/// Checks that all integers in a fixed value are floats too, so that an answer has all their digits.
fn check_exact(value: &Value) -> Result<(), Refusal> {
    match value {
        Value::Number(number) if !is_exact(number) => {
            Err(format!("the number {number} has more digits than are followed; write it as a string").into())
        }
        Value::Array(values) => values.iter().try_for_each(check_exact),
        Value::Object(fields) => fields.values().try_for_each(check_exact),
        _ => Ok(()),
    }
}

fn is_exact(number: &Number) -> bool {
    match (number.as_i64(), number.is_f64()) {
        (Some(integer), _) => {
            let float = integer as f64;
            float.abs() <= LARGEST && float as i64 == integer
        }
        (None, is_float) => is_float,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn followed(mut schema: Value) -> Result<Value, Refusal> {
        follow_keywords(&mut schema).map(|()| schema)
    }

    #[test]
    fn an_unknown_format_is_an_annotation() {
        let schema = json!({"type": "object", "properties": {
            "format": {"type": "string", "format": "password"},
            "at": {"type": "string", "format": "date-time", "description": null},
            "list": {"items": [{"format": "int64"}], "default": {"format": "x"}, "const": null}
        }, "$defs": {"format": {"anyOf": [{"format": "uuid4"}, {"format": "uuid"}]}}});
        let expected = json!({"type": "object", "properties": {
            "format": {"type": "string"},
            "at": {"type": "string", "format": "date-time"},
            "list": {"items": [{}], "default": {"format": "x"}, "const": null}
        }, "$defs": {"format": {"anyOf": [{}, {"format": "uuid"}]}}});
        assert_eq!(followed(schema), Ok(expected));
    }

    #[test]
    fn bounds_move_inwards() {
        let largest = LARGEST as i64;
        for (given, expected) in [
            (
                json!({"minimum": i64::MIN, "maximum": i64::MAX}),
                json!({"minimum": -largest, "maximum": largest}),
            ),
            (
                json!({"minimum": 0, "maximum": u64::MAX}),
                json!({"minimum": 0, "maximum": largest}),
            ),
            (
                json!({"exclusiveMaximum": 1e308, "exclusiveMinimum": -1e308}),
                json!({"exclusiveMaximum": largest, "exclusiveMinimum": -largest}),
            ),
            (
                json!({"minimum": 2_000_000_000_000_000_000_i64}),
                json!({"minimum": 2_000_000_000_000_000_000_i64, "maximum": largest}),
            ),
            (
                json!({"exclusiveMaximum": -2e18}),
                json!({"exclusiveMaximum": -2_000_000_000_000_000_000_i64, "minimum": -largest}),
            ),
            (
                json!({"minimum": 9_007_199_254_740_993_i64}),
                json!({"minimum": 9_007_199_254_740_994_i64}),
            ),
            (
                json!({"maximum": 9_007_199_254_740_993_i64}),
                json!({"maximum": 9_007_199_254_740_992_i64}),
            ),
            (
                json!({"exclusiveMinimum": true, "minimum": 1.5}),
                json!({"exclusiveMinimum": true, "minimum": 1.5}),
            ),
        ] {
            assert_eq!(followed(given.clone()), Ok(expected), "{given}");
        }
        for schema in [
            json!({"minimum": 1e20}),
            json!({"exclusiveMaximum": -1e300}),
            json!({"items": {"minimum": u64::MAX}}),
        ] {
            assert!(followed(schema.clone()).is_err(), "{schema}");
        }
    }

    #[test]
    fn a_fixed_number_has_all_its_digits_or_is_refused() {
        for value in [
            json!(9_007_199_254_740_993_i64),
            json!(i64::MIN),
            json!(u64::MAX),
            json!([{"a": i64::MAX}]),
        ] {
            assert!(followed(json!({"enum": [value]})).is_err(), "{value}");
            assert!(
                followed(json!({"const": value, "type": "integer"})).is_err(),
                "{value}"
            );
            assert!(
                followed(json!({"default": value, "properties": {"const": {"type": "integer"}}})).is_ok()
            );
        }
        assert!(followed(json!({"enum": [1, -5, 1.5, 1e300, 9_007_199_254_740_992_i64]})).is_ok());
    }

    #[test]
    fn a_pattern_of_named_properties_is_merged() {
        let integer = json!({"type": "integer"});
        let with = |pattern: &str| {
            let schema = json!({"properties": {"a": {"minimum": 1}, "b": {}}, "patternProperties": {pattern: integer}});
            followed(schema).unwrap()
        };
        let merged = json!({"allOf": [{"minimum": 1}, integer]});
        for pattern in ["^a$", "^(a|a)$", "^[a]{1}$"] {
            let expected = json!({"properties": {"a": merged, "b": {}}, "patternProperties": {}});
            assert_eq!(with(pattern), expected, "{pattern}");
        }
        assert_eq!(
            with("^(a|b)$")["properties"]["b"],
            json!({"allOf": [{}, integer]})
        );
        for pattern in ["^a", "a", "^(a|c)$"] {
            assert_eq!(with(pattern)["patternProperties"], json!({pattern: integer}));
        }
    }
}
