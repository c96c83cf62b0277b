//! What an answer must look like: OpenAI's `response_format`, and vLLM's names for the same.

use serde_json::{Map, Value};

use super::params::Params;
use super::tools::{ToolChoice, ToolUse};
use super::{Rules, contradiction};
use crate::api::error::ApiError;
use crate::grammar::{Constraint, Grammar, Preamble};

/// Libraries of other engines, whose names are accepted: one implementation answers to all of them.
const BACKENDS: &[&str] = &[
    "auto",
    "guidance",
    "lm-format-enforcer",
    "llguidance",
    "outlines",
    "xgrammar",
];

/// Parameters that ask for the form of a text, besides `response_format`.
const STRUCTURES: &[&str] = &[
    "structured_outputs",
    "guided_json",
    "json_schema",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "grammar",
];

/// Refuses a form of the answer beside a call that must be made, which has a form of its own. OpenAI's clients send
/// `response_format` with every request, and mean the answer after the call.
pub(super) fn check_calls(tools: &ToolUse, params: &Params) -> Result<(), ApiError> {
    let is_forced = matches!(tools.choice, ToolChoice::Required | ToolChoice::Named(_));
    match STRUCTURES.iter().find(|name| is_forced && params.has(name)) {
        Some(name) => {
            let reason =
                "a request can use structured outputs or tools, not both, where tool_choice asks for a call";
            Err(contradiction(name, reason))
        }
        None => Ok(()),
    }
}

/// A form that a parameter asks for.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub(super) param: &'static str,
    pub(super) constraint: Constraint,
}

/// The form that a request asks for.
pub(super) fn form(params: &mut Params) -> Result<Option<Form>, ApiError> {
    check_backend(params)?;
    let mut asked = Vec::new();
    asked.extend(response_format(params)?.map(|constraint| ("response_format", constraint)));
    for name in ["guided_json", "json_schema"] {
        let schema = params.read(name, schema)?;
        asked.extend(schema.map(|schema| (name, Constraint::JsonSchema(schema))));
    }
    let regex = params.text("guided_regex")?;
    asked.extend(regex.map(|regex| ("guided_regex", Constraint::Regex(regex))));
    let choices = params.read("guided_choice", choices)?;
    asked.extend(choices.map(|choices| ("guided_choice", Constraint::Choice(choices))));
    for name in ["guided_grammar", "grammar"] {
        let text = params.text(name)?;
        asked.extend(text.map(|text| (name, Constraint::Grammar(text))));
    }
    if let Some(outputs) = params.object("structured_outputs")? {
        asked.push(("structured_outputs", structured_outputs(&outputs)?));
    }
    if let [_, (name, _), ..] = asked.as_slice() {
        return Err(contradiction(
            name,
            "a request can ask for one form of its answer only",
        ));
    }
    Ok(asked.pop().map(|(param, constraint)| Form { param, constraint }))
}

impl Form {
    /// The grammar of answers that have this form behind `preamble`.
    pub(super) fn compiled(
        &self,
        preamble: Option<Preamble>,
        rules: &Rules<'_>,
    ) -> Result<Grammar, ApiError> {
        let refused = |reason: String| contradiction(self.param, &reason);
        let grammars = rules.grammars.map_err(|error| refused(error.to_string()))?;
        grammars
            .compile_after(preamble, &self.constraint)
            .map_err(|error| refused(error.to_string()))
    }
}

fn check_backend(params: &mut Params) -> Result<(), ApiError> {
    let Some(name) = params.text("guided_decoding_backend")? else {
        return Ok(());
    };
    // vLLM writes options of a library behind a colon.
    let library = name.split(':').next().unwrap_or_default();
    if BACKENDS.contains(&library) {
        return Ok(());
    }
    let expected = format!("one of {}", BACKENDS.join(", "));
    Err(ApiError::invalid(
        "guided_decoding_backend",
        expected,
        &name.into(),
    ))
}

fn response_format(params: &mut Params) -> Result<Option<Constraint>, ApiError> {
    let Some(format) = params.object("response_format")? else {
        return Ok(None);
    };
    let schema_of = |holder: &Value, path: &str| match &holder["schema"] {
        Value::Null => Err(ApiError::Missing { param: path.into() }),
        given => schema(given)
            .map(Constraint::JsonSchema)
            .ok_or_else(|| ApiError::invalid(path, "a JSON Schema", given)),
    };
    let whole = Value::Object(format);
    match whole["type"].as_str() {
        Some("text") => Ok(None),
        // Some clients send a schema along.
        Some("json_object") if !whole["schema"].is_null() => {
            schema_of(&whole, "response_format.schema").map(Some)
        }
        Some("json_object") => Ok(Some(Constraint::JsonObject)),
        Some("json_schema") => {
            schema_of(&whole["json_schema"], "response_format.json_schema.schema").map(Some)
        }
        Some("structural_tag") => Ok(Some(Constraint::StructuralTag(whole))),
        _ => {
            let expected = "text, json_object, json_schema or structural_tag";
            Err(ApiError::invalid(
                "response_format.type",
                expected,
                &whole["type"],
            ))
        }
    }
}

/// A schema as an object, or as the text of one.
fn schema(value: &Value) -> Option<Value> {
    match value {
        Value::Object(_) => Some(value.clone()),
        Value::String(text) => {
            let parsed = serde_json::from_str(text).ok();
            parsed.filter(Value::is_object)
        }
        _ => None,
    }
}

fn choices(value: &Value) -> Option<Vec<String>> {
    let items = value.as_array().filter(|items| !items.is_empty())?;
    let text = |item: &Value| Some(item.as_str().filter(|text| !text.is_empty())?.to_string());
    items.iter().map(text).collect()
}

/// vLLM's newer form: one object with one of these.
fn structured_outputs(fields: &Map<String, Value>) -> Result<Constraint, ApiError> {
    let mut asked = Vec::new();
    for (name, value) in fields {
        let path = format!("structured_outputs.{name}");
        let invalid = |expected: &str| ApiError::invalid(path.clone(), expected, value);
        let text = || {
            value
                .as_str()
                .map(str::to_string)
                .ok_or_else(|| invalid("a text"))
        };
        asked.push(match name.as_str() {
            _ if value.is_null() || *value == false => continue,
            "json" => Constraint::JsonSchema(schema(value).ok_or_else(|| invalid("a JSON Schema"))?),
            "json_object" if *value == true => Constraint::JsonObject,
            "regex" => Constraint::Regex(text()?),
            "choice" => {
                Constraint::Choice(choices(value).ok_or_else(|| invalid("a non-empty list of texts"))?)
            }
            "grammar" => Constraint::Grammar(text()?),
            "structural_tag" => Constraint::StructuralTag(match value {
                Value::String(text) => {
                    serde_json::from_str(text).map_err(|_| invalid("a structural tag, as JSON"))?
                }
                other => other.clone(),
            }),
            // White space is bounded and nothing falls back, whatever these say.
            "disable_any_whitespace" | "disable_fallback" => continue,
            _ => {
                return Err(ApiError::Unsupported {
                    param: path,
                    advice: "Known are json, json_object, regex, choice, grammar and structural_tag.".into(),
                });
            }
        });
    }
    match (asked.pop(), asked.is_empty()) {
        (Some(constraint), true) => Ok(constraint),
        _ => {
            let reason =
                "it needs one of json, json_object, regex, choice, grammar, structural_tag, and one only";
            Err(contradiction("structured_outputs", reason))
        }
    }
}
