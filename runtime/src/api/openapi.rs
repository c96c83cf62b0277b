//! The OpenAPI document and `docs/api.md`, written from the table of parameters and the types of answers.
//!
//! Nothing is described here that is not read or sent elsewhere: only which answer belongs to which body.

use std::fmt::Write as _;

use schemars::generate::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::api::jobs::input::{FIELDS, SAMPLING};
use crate::api::request::parameters::{
    Body, CHAT_COMPLETIONS, COMPLETIONS, DETOKENIZATION, EMBEDDINGS, Fate, Kind, MESSAGES, Parameter,
    RERANKING, RESPONSES, SCORES, TOKENIZATION,
};
use crate::api::response::models::{Model, Models};
use crate::api::response::pooled::{Embedding, List, Ranked, Score};
use crate::api::response::tokens::{Text, Tokens};
use crate::api::response::{Answer, ErrorBody, chat, completion};

/// Writes a schema.
type SchemaOf = fn(&mut SchemaGenerator) -> Value;

/// A route that takes a body.
struct Operation {
    body: &'static Body,
    summary: &'static str,
    /// Schema of the answer.
    answer: SchemaOf,
    /// Schema of an event of a stream; `None`: there are no streams.
    event: Option<SchemaOf>,
    /// Schema of an error.
    error: SchemaOf,
}

const OPERATIONS: &[Operation] = &[
    Operation {
        body: &CHAT_COMPLETIONS,
        summary: "Answer a conversation",
        answer: schema::<Answer<'_, chat::Choice>>,
        event: Some(schema::<Answer<'_, chat::ChunkChoice>>),
        error: schema::<ErrorBody>,
    },
    Operation {
        body: &COMPLETIONS,
        summary: "Continue prompts",
        answer: schema::<Answer<'_, completion::Choice>>,
        event: Some(schema::<Answer<'_, completion::Choice>>),
        error: schema::<ErrorBody>,
    },
    Operation {
        body: &RESPONSES,
        summary: "Answer items, as OpenAI's responses",
        answer: |_| object("OpenAI's response object; nothing is stored."),
        event: Some(|_| object("OpenAI's response events, from `response.created` to `response.completed`.")),
        error: schema::<ErrorBody>,
    },
    Operation {
        body: &MESSAGES,
        summary: "Answer a conversation, as Anthropic's messages",
        answer: |_| object("Anthropic's message object."),
        event: Some(|_| object("Anthropic's events, from `message_start` to `message_stop`.")),
        error: |_| object("Anthropic's error object."),
    },
    Operation {
        body: &EMBEDDINGS,
        summary: "Make vectors of texts",
        answer: schema::<List<Embedding>>,
        event: None,
        error: schema::<ErrorBody>,
    },
    Operation {
        body: &SCORES,
        summary: "Tell how well texts go together",
        answer: schema::<List<Score>>,
        event: None,
        error: schema::<ErrorBody>,
    },
    Operation {
        body: &RERANKING,
        summary: "Order documents by a query",
        answer: schema::<Ranked>,
        event: None,
        error: schema::<ErrorBody>,
    },
    Operation {
        body: &TOKENIZATION,
        summary: "Turn text into tokens",
        answer: schema::<Tokens>,
        event: None,
        error: schema::<ErrorBody>,
    },
    Operation {
        body: &DETOKENIZATION,
        summary: "Turn tokens into text",
        answer: schema::<Text>,
        event: None,
        error: schema::<ErrorBody>,
    },
];

fn object(description: &str) -> Value {
    json!({"type": "object", "description": description})
}

/// RunPod's job routes: method, path, summary.
const JOBS: &[(&str, &str, &str)] = &[
    ("post", "/run", "Begin a job"),
    ("post", "/runsync", "Begin a job and wait for it"),
    ("get", "/status/{id}", "What became of a job"),
    ("get", "/stream/{id}", "Output of a job since the last time"),
    ("post", "/cancel/{id}", "End a job"),
    ("post", "/retry/{id}", "Begin a failed job again"),
    ("post", "/purge-queue", "Drop the jobs that have not begun"),
];

/// The schema of a job's body.
fn job_schema() -> Value {
    let described = |(name, doc): &(&str, &str)| ((*name).to_string(), json!({"description": doc}));
    let mut input: Map<String, Value> = FIELDS.iter().map(described).collect();
    let sampling: Map<String, Value> = SAMPLING
        .iter()
        .map(|(name, default)| {
            (
                (*name).to_string(),
                json!({"x-default": default.unwrap_or("none")}),
            )
        })
        .collect();
    input["sampling_params"] = json!({"type": "object", "properties": sampling});
    let input = json!({"type": "object", "properties": input, "examples": [{"prompt": "Hello"}]});
    json!({"type": "object", "properties": {"input": input}, "required": ["input"]})
}

/// Routes without a body: path, summary, schema of the answer.
type Reading = (&'static str, &'static str, SchemaOf);

const READINGS: &[Reading] = &[
    ("/v1/models", "The served names", schema::<Models>),
    ("/v1/models/{name}", "One of the served names", schema::<Model>),
    (
        "/version",
        "The version of this program",
        |_| json!({"type": "object", "properties": {"version": {"type": "string"}}, "required": ["version"]}),
    ),
];

fn schema<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().into()
}

/// The OpenAPI 3.1 document of all routes that clients use.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let error = schema::<ErrorBody>(&mut generator);
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let post = operation.document(&mut generator);
        paths.insert(operation.body.route.into(), json!({"post": post}));
    }
    for (path, summary, answer) in READINGS {
        let mut get = json!({
            "summary": summary,
            "operationId": operation_id(path),
            "responses": {
                "200": {"description": "The answer", "content": json_content(&answer(&mut generator))},
                "4XX": {"description": "A bad request", "content": json_content(&error)},
                "503": {"description": "The model is not loaded", "content": json_content(&error)},
            },
        });
        if path.contains("{name}") {
            get["parameters"] =
                json!([{"name": "name", "in": "path", "required": true, "schema": {"type": "string"}}]);
        }
        paths.insert((*path).into(), json!({"get": get}));
    }
    for (method, path, summary) in JOBS {
        let mut operation = json!({
            "summary": summary,
            "operationId": operation_id(path),
            "responses": {
                "200": {"description": "The job", "content": json_content(&json!({"type": "object"}))},
                "4XX": {"description": "A bad request", "content": json_content(&error)},
                "503": {"description": "The model is not loaded", "content": json_content(&error)},
            },
        });
        if path.starts_with("/run") {
            operation["requestBody"] = json!({"required": true, "content": json_content(&job_schema())});
        }
        if path.contains("{id}") {
            operation["parameters"] =
                json!([{"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}]);
        }
        paths.insert((*path).into(), json!({*method: operation}));
    }
    let schemas: Map<String, Value> = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Slipway",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "OpenAI's API, and vLLM's extensions of it, for one model.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}, {}],
    })
}

impl Operation {
    fn document(&self, generator: &mut SchemaGenerator) -> Value {
        let error = &(self.error)(generator);
        let mut content = json_content(&(self.answer)(generator));
        if let Some(event) = self.event {
            content["text/event-stream"] = json!({"schema": {
                "type": "string",
                "description": "Events whose data is JSON of the schema in x-event, and a last one [DONE].",
                "x-event": event(generator),
            }});
        }
        json!({
            "summary": self.summary,
            "operationId": operation_id(self.body.route),
            "requestBody": {"required": true, "content": json_content(&body_schema(self.body))},
            "responses": {
                "200": {"description": "The answer", "content": content},
                "4XX": {"description": "A bad request, or one that this model is not for", "content": json_content(error)},
                "503": {"description": "The model is not loaded, or the replica shuts down", "content": json_content(error)},
            },
        })
    }
}

fn operation_id(path: &str) -> String {
    let words = path.trim_start_matches("/v1/").replace(['/', '{', '}'], "_");
    words.trim_matches('_').to_string()
}

fn json_content(schema: &Value) -> Value {
    json!({"application/json": {"schema": schema}})
}

/// The JSON Schema of a body: all that is read or accepted.
fn body_schema(body: &Body) -> Value {
    let mut properties = Map::new();
    for parameter in body.parameters() {
        if let Fate::Refused(_) = parameter.fate {
            continue;
        }
        let mut schema = parameter.kind.schema();
        if !schema.is_object() {
            schema = json!({});
        }
        schema["description"] = described(parameter).into();
        if parameter.default != "none" {
            schema["x-default"] = parameter.default.into();
        }
        if let Ok(example) = serde_json::from_str::<Value>(parameter.example) {
            schema["examples"] = json!([example]);
        }
        properties.insert(parameter.name.into(), schema);
    }
    json!({"type": "object", "properties": properties, "required": body.required})
}

fn described(parameter: &Parameter) -> String {
    match parameter.fate {
        Fate::Honoured => parameter.doc.to_string(),
        Fate::NoEffect(reason) => format!("{} No effect: {reason}.", parameter.doc)
            .trim_start()
            .to_string(),
        Fate::Refused(_) => format!("Refused. {}", parameter.doc).trim_end().to_string(),
    }
}

/// `docs/api.md`: every parameter of every route, and what becomes of it.
pub fn markdown() -> String {
    let mut text = String::from(
        "# API\n\nGenerated by `make generate` from `runtime/src/api/request/parameters.rs`. Do not edit.\n\n\
         Every route is also there below `/openai/v1` and without `/v1`. A running server has this as \
         `/openapi.json`, and as a page at `/docs`.\n\n\
         A parameter that is in no table is named in the header `x-slipway-ignored-parameters`; with \
         STRICT_PARAMETERS it is a 400. `null` means absent everywhere.\n",
    );
    for operation in OPERATIONS {
        let _ = write!(
            text,
            "\n## POST {}\n\n{}.\n\n| parameter | values | default | what it does |\n|---|---|---|---|\n",
            operation.body.route, operation.summary
        );
        for parameter in operation.body.parameters() {
            let values = match parameter.fate {
                Fate::Refused(_) => "–".to_string(),
                Fate::Honoured | Fate::NoEffect(_) => match parameter.kind {
                    Kind::Flag => "true, false".into(),
                    kind => kind.expected().trim_start_matches("a ").replace('|', "\\|"),
                },
            };
            let _ = writeln!(
                text,
                "| `{}` | {values} | {} | {} |",
                parameter.name,
                parameter.default,
                described(parameter).replace('|', "\\|")
            );
        }
    }
    text.push_str(
        "\n## POST /run, POST /runsync\n\nJobs, as RunPod's workers take them; then `/status/{id}`, `/stream/{id}`, \
         `/cancel/{id}`, `/retry/{id}`, `/purge-queue`. A body has `input`:\n\n| field | what it does |\n|---|---|\n",
    );
    for (name, doc) in FIELDS {
        let _ = writeln!(text, "| `{name}` | {doc} |");
    }
    text.push_str(
        "\nIts `sampling_params` are those of `/v1/completions`; another name is a 400. Defaults are worker-vllm's:\n\n\
         | parameter | default |\n|---|---|\n",
    );
    for (name, default) in SAMPLING {
        let _ = writeln!(text, "| `{name}` | {} |", default.unwrap_or("as there"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn generated_files_are_fresh() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
        let openapi = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        for (name, expected) in [("openapi.json", openapi), ("api.md", markdown())] {
            let text = std::fs::read_to_string(docs.join(name)).unwrap_or_default();
            assert!(text == expected, "docs/{name} is stale: run `make generate`");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(value: &Value, document: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(reference)) = fields.get("$ref") {
                        let pointer = reference.trim_start_matches('#');
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                    }
                    fields.values().for_each(|value| check(value, document));
                }
                Value::Array(items) => items.iter().for_each(|value| check(value, document)),
                _ => {}
            }
        }
        let document = document();
        check(&document, &document);
        assert_eq!(document["openapi"], "3.1.0");
    }
}
