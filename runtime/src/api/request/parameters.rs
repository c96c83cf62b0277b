//! The parameters of every body: name, kind, default and meaning, one line each.
//!
//! Bodies are read through this table, and the OpenAPI document and `docs/parameters.md` are written from it, so that
//! what is documented is what is read. A parameter that is in no list is unknown. Must not know the engine.

mod generating;
mod pooled;

use serde_json::{Value, json};

pub use generating::{CHAT_COMPLETIONS, COMPLETIONS, MESSAGES, RESPONSES};
pub use pooled::{DETOKENIZATION, EMBEDDINGS, RERANKING, SCORES, TOKENIZATION};

use Fate::{Honoured, NoEffect, Refused};

/// A route's body.
#[derive(Debug)]
pub struct Body {
    /// Path of the route.
    pub route: &'static str,
    /// Its parameters, in groups that several bodies share.
    pub groups: &'static [&'static [Parameter]],
    /// Parameters that must be there.
    pub required: &'static [&'static str],
}

/// One parameter.
#[derive(Debug)]
pub struct Parameter {
    /// Its name in the body.
    pub name: &'static str,
    /// The values it may have.
    pub kind: Kind,
    /// What is taken when it is absent, in words.
    pub default: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// A value that asks for something, as JSON.
    pub example: &'static str,
    /// What becomes of it here.
    pub fate: Fate,
}

/// The values that a parameter may have.
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
        /// The lowest value itself is outside.
        above: bool,
        /// Highest value; infinite: none.
        max: f64,
    },
    /// A whole number in a range; `2.0` is one.
    Integer {
        /// Lowest value.
        min: i64,
        /// Highest value; `i64::MAX`: none.
        max: i64,
    },
    /// An object.
    Object,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// Anything else: in words, and as a JSON Schema.
    Other(&'static str, &'static str),
}

/// What becomes of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It does what it says.
    Honoured,
    /// It is accepted; no answer depends on it, for this reason.
    NoEffect(&'static str),
    /// It is refused, unless its value asks for nothing: `false`, empty, or one of these texts.
    Refused(&'static [&'static str]),
}

impl Body {
    /// The parameter of this name.
    pub fn get(&self, name: &str) -> Option<&'static Parameter> {
        self.parameters().find(|parameter| parameter.name == name)
    }

    /// All parameters, those that are refused included.
    pub fn parameters(&self) -> impl Iterator<Item = &'static Parameter> {
        self.groups.iter().copied().flatten()
    }
}

impl Kind {
    /// The values in words, as an error says them: `n must be …`.
    pub fn expected(&self) -> String {
        match *self {
            Kind::Flag => "true or false".into(),
            Kind::Text => "a text".into(),
            Kind::Object => "an object".into(),
            Kind::Number { min, above, max } => match (above, max.is_finite()) {
                (false, true) => format!("a number from {min} to {max}"),
                (true, true) => format!("a number above {min} and at most {max}"),
                (false, false) if min.is_finite() => format!("a number of at least {min}"),
                (false, false) => "a number".into(),
                (true, false) => format!("a number above {min}"),
            },
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
    /// If a schema of the table is no JSON.
    pub fn schema(&self) -> Value {
        match *self {
            Kind::Flag => json!({"type": "boolean"}),
            Kind::Text => json!({"type": "string"}),
            Kind::Object => json!({"type": "object"}),
            Kind::Number { min, above, max } => {
                let mut schema = json!({"type": "number"});
                if min.is_finite() {
                    schema[if above { "exclusiveMinimum" } else { "minimum" }] = min.into();
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
    const fn new(name: &'static str, kind: Kind, default: &'static str, example: &'static str) -> Self {
        Self {
            name,
            kind,
            default,
            example,
            doc: "",
            fate: Honoured,
        }
    }

    const fn doc(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }

    const fn fate(mut self, fate: Fate) -> Self {
        self.fate = fate;
        self
    }
}

const fn flag(name: &'static str, default: &'static str) -> Parameter {
    Parameter::new(name, Kind::Flag, default, "true")
}

const fn text(name: &'static str, default: &'static str, example: &'static str) -> Parameter {
    Parameter::new(name, Kind::Text, default, example)
}

const fn number(
    name: &'static str,
    (min, max): (f64, f64),
    default: &'static str,
    example: &'static str,
) -> Parameter {
    let above = false;
    Parameter::new(name, Kind::Number { min, above, max }, default, example)
}

const fn above(
    name: &'static str,
    (min, max): (f64, f64),
    default: &'static str,
    example: &'static str,
) -> Parameter {
    let above = true;
    Parameter::new(name, Kind::Number { min, above, max }, default, example)
}

const fn integer(
    name: &'static str,
    (min, max): (i64, i64),
    default: &'static str,
    example: &'static str,
) -> Parameter {
    Parameter::new(name, Kind::Integer { min, max }, default, example)
}

const fn object(name: &'static str, example: &'static str) -> Parameter {
    Parameter::new(name, Kind::Object, "none", example)
}

const fn other(
    name: &'static str,
    words: &'static str,
    schema: &'static str,
    example: &'static str,
) -> Parameter {
    Parameter::new(name, Kind::Other(words, schema), "none", example)
}

/// Refused; what it would ask for is in `doc`.
const fn refused(name: &'static str, harmless: &'static [&'static str]) -> Parameter {
    Parameter::new(name, Kind::Other("absent", "true"), "none", "\"x\"").fate(Refused(harmless))
}

/// Accepted without effect.
const fn inert(name: &'static str, reason: &'static str) -> Parameter {
    Parameter::new(name, Kind::Other("anything", "true"), "none", "\"x\"").fate(NoEffect(reason))
}
