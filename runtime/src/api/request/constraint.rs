//! The form that an answer must have: OpenAI's `response_format`, and vLLM's names for the same.

use serde_json::{Map, Value};

use super::params::Params;
use super::rules::Rules;
use super::tools::{ToolChoice, ToolUse};
use crate::api::error::ApiError;
use crate::grammar::{Constraint, Grammar, Preamble};

/// Names of other engines' libraries, which are accepted. There is one implementation for all of them.
const BACKENDS: &[&str] = &[
    "auto",
    "guidance",
    "lm-format-enforcer",
    "llguidance",
    "outlines",
    "xgrammar",
];

/// Parameters that set the form of a text, besides `response_format`.
const STRUCTURES: &[&str] = &[
    "structured_outputs",
    "guided_json",
    "json_schema",
    "guided_regex",
    "guided_choice",
    "guided_grammar",
    "grammar",
];

/// Refuses a form of the answer together with a required call, which has a form of its own. `response_format` passes,
/// because OpenAI's clients send it with every request and mean the answer after the call.
pub(super) fn check_calls(tools: &ToolUse, params: &Params) -> Result<(), ApiError> {
    let is_forced = matches!(tools.choice, ToolChoice::Required | ToolChoice::Named(_));
    match STRUCTURES.iter().find(|name| is_forced && params.has(name)) {
        Some(name) => {
            let reason =
                "a request can use structured outputs or tools, not both, if tool_choice requires a call";
            Err(ApiError::contradiction(*name, reason))
        }
        None => Ok(()),
    }
}

/// The form that a parameter requires of answers.
#[derive(Clone, Debug)]
pub(super) struct Form {
    /// Name of the parameter.
    pub(super) param: &'static str,
    /// The form.
    pub(super) constraint: Constraint,
}

/// Reads the form that a request requires of its answers.
pub(super) fn form(params: &mut Params) -> Result<Option<Form>, ApiError> {
    check_backend(params)?;
    let mut forms = Vec::new();
    forms.extend(response_format(params)?.map(|constraint| ("response_format", constraint)));
    for name in ["guided_json", "json_schema"] {
        let schema = params.read(name, schema)?;
        forms.extend(schema.map(|schema| (name, Constraint::JsonSchema(schema))));
    }
    let regex = params.text("guided_regex")?;
    forms.extend(regex.map(|regex| ("guided_regex", Constraint::Regex(regex))));
    let choices = params.read("guided_choice", choices)?;
    forms.extend(choices.map(|choices| ("guided_choice", Constraint::Choice(choices))));
    for name in ["guided_grammar", "grammar"] {
        let text = params.text(name)?;
        forms.extend(text.map(|text| (name, Constraint::Grammar(text))));
    }
    if let Some(outputs) = params.object("structured_outputs")? {
        forms.push(("structured_outputs", structured_outputs(&outputs)?));
    }
    if let [(first, _), (second, _), ..] = forms.as_slice() {
        let reason = format!("it cannot be used together with {first}; an answer has one form");
        return Err(ApiError::contradiction(*second, reason));
    }
    Ok(forms.pop().map(|(param, constraint)| Form { param, constraint }))
}

impl Form {
    /// The grammar of answers that have this form after `preamble`.
    pub(super) fn compiled(
        &self,
        preamble: Option<Preamble>,
        rules: &Rules<'_>,
    ) -> Result<Grammar, ApiError> {
        let refused = |reason: String| ApiError::contradiction(self.param, reason);
        let grammars = rules.grammars.map_err(|error| refused(error.to_string()))?;
        rules.budget.begin_heavy()?;
        grammars
            .compile_after(preamble, &self.constraint)
            .map_err(|error| refused(error.to_string()))
    }
}

fn check_backend(params: &mut Params) -> Result<(), ApiError> {
    let Some(name) = params.text("guided_decoding_backend")? else {
        return Ok(());
    };
    // vLLM writes options of a library after a colon.
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
        Value::Null => Err(ApiError::missing(path)),
        given => schema(given)
            .map(Constraint::JsonSchema)
            .ok_or_else(|| ApiError::invalid(path, "a JSON Schema", given)),
    };
    let format = Value::Object(format);
    match format["type"].as_str() {
        Some("text") => Ok(None),
        // Some clients send a schema with this type.
        Some("json_object") if !format["schema"].is_null() => {
            schema_of(&format, "response_format.schema").map(Some)
        }
        Some("json_object") => Ok(Some(Constraint::JsonObject)),
        Some("json_schema") => {
            schema_of(&format["json_schema"], "response_format.json_schema.schema").map(Some)
        }
        Some("structural_tag") => Ok(Some(Constraint::StructuralTag(format))),
        _ => {
            let expected = "text, json_object, json_schema or structural_tag";
            Err(ApiError::invalid(
                "response_format.type",
                expected,
                &format["type"],
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

/// vLLM's newer parameter: an object with one constraint.
fn structured_outputs(fields: &Map<String, Value>) -> Result<Constraint, ApiError> {
    let mut constraints = Vec::new();
    for (name, value) in fields {
        let path = format!("structured_outputs.{name}");
        let invalid = |expected: &str| ApiError::invalid(path.clone(), expected, value);
        let text = || {
            value
                .as_str()
                .map(str::to_string)
                .ok_or_else(|| invalid("a string"))
        };
        constraints.push(match name.as_str() {
            _ if value.is_null() || *value == false => continue,
            "json" => Constraint::JsonSchema(schema(value).ok_or_else(|| invalid("a JSON Schema"))?),
            "json_object" if *value == true => Constraint::JsonObject,
            "regex" => Constraint::Regex(text()?),
            "choice" => {
                Constraint::Choice(choices(value).ok_or_else(|| invalid("a non-empty list of strings"))?)
            }
            "grammar" => Constraint::Grammar(text()?),
            "structural_tag" => Constraint::StructuralTag(match value {
                Value::String(text) => {
                    serde_json::from_str(text).map_err(|_| invalid("a structural tag, as JSON"))?
                }
                other => other.clone(),
            }),
            // Accepted without effect: white space is always bounded, and there is no fallback.
            "disable_any_whitespace" | "disable_fallback" => continue,
            _ => {
                return Err(ApiError::Unsupported {
                    param: path,
                    advice: "Use json, json_object, regex, choice, grammar or structural_tag.".into(),
                });
            }
        });
    }
    match (constraints.pop(), constraints.is_empty()) {
        (Some(constraint), true) => Ok(constraint),
        _ => {
            let reason = "it needs exactly one of json, json_object, regex, choice, grammar, structural_tag";
            Err(ApiError::contradiction("structured_outputs", reason))
        }
    }
}
