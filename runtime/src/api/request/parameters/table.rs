//! The form of the tables: a body, its rows, and short constructors for them.

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use Support::{Honoured, NoEffect, Refused};

/// A route's body.
#[derive(Debug)]
pub struct Body {
    /// Path of the route.
    pub route: &'static str,
    /// Its parameters, in groups that bodies share.
    pub groups: &'static [&'static [Parameter]],
    /// Parameters that the body must have.
    pub required: &'static [&'static str],
}

/// One parameter.
#[derive(Debug)]
pub struct Parameter {
    /// Its name in the body.
    pub name: &'static str,
    /// Its values.
    pub kind: Kind,
    /// Its value when it is absent, in words.
    pub default: &'static str,
    /// Its effect.
    pub doc: &'static str,
    /// A value that has an effect, as JSON.
    pub example: &'static str,
    /// Whether this server supports it.
    pub support: Support,
}

/// The values of a parameter.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A text.
    Text,
    /// A number in a range.
    Number {
        /// Lowest value.
        min: f64,
        /// Highest value; infinite if there is none.
        max: f64,
    },
    /// A whole number in a range; `2.0` is one.
    Integer {
        /// Lowest value.
        min: i64,
        /// Highest value; `i64::MAX` if there is none.
        max: i64,
    },
    /// An object.
    Object,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// Other values: in words, and as a JSON Schema.
    Other(&'static str, &'static str),
}

/// Whether this server supports a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It has its documented effect.
    Honoured,
    /// It is accepted without effect, for this reason.
    NoEffect(&'static str),
    /// It is refused, unless its value means the same as its absence: `false`, empty, or one of these texts.
    Refused(&'static [&'static str]),
}

impl Body {
    /// The parameter of this name.
    pub fn get(&self, name: &str) -> Option<&'static Parameter> {
        self.parameters().find(|parameter| parameter.name == name)
    }

    /// All parameters, the refused ones included.
    pub fn parameters(&self) -> impl Iterator<Item = &'static Parameter> {
        self.groups.iter().copied().flatten()
    }
}

impl Kind {
    /// The values in words that complete `n must be …`.
    pub fn expected(&self) -> String {
        match *self {
            Kind::Flag => "true or false".into(),
            Kind::Text => "a string".into(),
            Kind::Object => "an object".into(),
            Kind::Number { min, max } if max.is_finite() => format!("a number from {min} to {max}"),
            Kind::Number { min, .. } if min.is_finite() => format!("a number of at least {min}"),
            Kind::Number { .. } => "a number".into(),
            Kind::Integer { min: i64::MIN, .. } => "a whole number".into(),
            Kind::Integer { min, max: i64::MAX } => format!("a whole number of at least {min}"),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Choice(texts) => format!("one of {}", texts.join(", ")),
            Kind::Other(words, _) => words.into(),
        }
    }

    /// The JSON Schema of the values.
    ///
    /// # Panics
    /// If a schema of the table is not JSON.
    pub fn schema(&self) -> Value {
        match *self {
            Kind::Flag => json!({"type": "boolean"}),
            Kind::Text => json!({"type": "string"}),
            Kind::Object => json!({"type": "object"}),
            Kind::Number { min, max } => {
                let mut schema = json!({"type": "number"});
                if min.is_finite() {
                    schema["minimum"] = min.into();
                }
                if max.is_finite() {
                    schema["maximum"] = max.into();
                }
                schema
            }
            Kind::Integer { min, max } => {
                let mut schema = json!({"type": "integer"});
                if min > i64::MIN {
                    schema["minimum"] = min.into();
                }
                if max < i64::MAX {
                    schema["maximum"] = max.into();
                }
                schema
            }
            Kind::Choice(texts) => json!({"type": "string", "enum": texts}),
            Kind::Other(_, schema) => serde_json::from_str(schema).expect("the table's schemas are JSON"),
        }
    }
}

impl Parameter {
    /// A parameter that is honoured.
    pub(super) const fn new(
        name: &'static str,
        kind: Kind,
        default: &'static str,
        example: &'static str,
    ) -> Self {
        Self {
            name,
            kind,
            default,
            example,
            doc: "",
            support: Honoured,
        }
    }

    /// Sets its effect.
    pub(super) const fn doc(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }

    /// Sets whether it is supported.
    pub(super) const fn support(mut self, support: Support) -> Self {
        self.support = support;
        self
    }
}

pub(super) const fn flag(name: &'static str, default: &'static str) -> Parameter {
    Parameter::new(name, Kind::Flag, default, "true")
}

pub(super) const fn text(name: &'static str, default: &'static str, example: &'static str) -> Parameter {
    Parameter::new(name, Kind::Text, default, example)
}

pub(super) const fn number(
    name: &'static str,
    range: RangeInclusive<f64>,
    default: &'static str,
    example: &'static str,
) -> Parameter {
    let kind = Kind::Number {
        min: *range.start(),
        max: *range.end(),
    };
    Parameter::new(name, kind, default, example)
}

pub(super) const fn integer(
    name: &'static str,
    range: RangeInclusive<i64>,
    default: &'static str,
    example: &'static str,
) -> Parameter {
    let kind = Kind::Integer {
        min: *range.start(),
        max: *range.end(),
    };
    Parameter::new(name, kind, default, example)
}

pub(super) const fn object(name: &'static str, example: &'static str) -> Parameter {
    Parameter::new(name, Kind::Object, "none", example)
}

pub(super) const fn other(
    name: &'static str,
    words: &'static str,
    schema: &'static str,
    example: &'static str,
) -> Parameter {
    Parameter::new(name, Kind::Other(words, schema), "none", example)
}

/// A parameter that is refused; `doc` contains the advice.
pub(super) const fn refused(name: &'static str, harmless: &'static [&'static str]) -> Parameter {
    Parameter::new(name, Kind::Other("absent", "true"), "none", "\"x\"").support(Refused(harmless))
}

/// A parameter that is accepted without effect.
pub(super) const fn inert(name: &'static str, reason: &'static str) -> Parameter {
    Parameter::new(name, Kind::Other("anything", "true"), "none", "\"x\"").support(NoEffect(reason))
}
