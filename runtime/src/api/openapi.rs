//! The OpenAPI document and `docs/api.md`, written from the routes, the tables of parameters and the types of answers.
//!
//! Owns the form of these documents. Their content is in the routes, which name their parameters and answers.

use std::fmt::Write as _;

use schemars::generate::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::api::jobs::input::{FIELDS, SAMPLING};
use crate::api::request::parameters::{Body, Kind, Parameter, Support};
use crate::api::response::ErrorBody;

/// Writes a schema.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Value;

/// The documentation of a route.
pub struct RouteDoc {
    /// Its path; parameters of the path in braces.
    pub path: &'static str,
    /// Its methods, in lower case.
    pub methods: &'static [&'static str],
    /// Its effect, in one line.
    pub summary: &'static str,
    /// Who may use it.
    pub access: Access,
    /// How the OpenAPI document describes it; `None` if it is another name of a described route, or not for clients.
    pub operation: Option<Operation>,
}

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Clients with a key, if the settings contain keys.
    Key,
    /// Everybody.
    Open,
    /// Everybody, and on the control port too: the kubelet and the operator have no key.
    Probe,
    /// Whoever reaches the control port; everybody if the settings name none. Prometheus and the operator have no key.
    Control,
}

/// How the OpenAPI document describes a route.
pub enum Operation {
    /// A route with a body of the tables of parameters.
    Body(BodyOperation),
    /// A route that only reads, and the schema of its answer.
    Reading(SchemaOf),
    /// A route of a job.
    Job,
}

/// A route with a body.
pub struct BodyOperation {
    /// Its parameters.
    pub body: &'static Body,
    /// Schema of the answer.
    pub answer: SchemaOf,
    /// Schema of an event of a stream; `None` if the route has no streams.
    pub event: Option<SchemaOf>,
    /// Schema of an error.
    pub error: SchemaOf,
}

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

/// The schema of an answer's type.
pub fn schema<T: schemars::JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().into()
}

/// The OpenAPI 3.1 document of the routes that clients use.
pub fn document(routes: &[&RouteDoc]) -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in routes {
        if let (Some(operation), Some(method)) = (&route.operation, route.methods.first()) {
            let described = operation.document(route, &mut generator);
            paths.insert(route.path.replace('*', ""), json!({*method: described}));
        }
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
    fn document(&self, route: &RouteDoc, generator: &mut SchemaGenerator) -> Value {
        match self {
            Operation::Body(operation) => operation.document(route, generator),
            Operation::Reading(answer) => {
                let answer = answer(generator);
                described_answer(route, ("The answer", answer), generator)
            }
            Operation::Job => {
                let job = json!({"type": "object"});
                let mut operation = described_answer(route, ("The job", job), generator);
                if route.path.starts_with("/run") {
                    let content = json_content(&job_schema());
                    operation["requestBody"] = json!({"required": true, "content": content});
                }
                operation
            }
        }
    }
}

/// An operation without a body, whose answer has a description and a schema.
fn described_answer(
    route: &RouteDoc,
    (description, schema): (&str, Value),
    generator: &mut SchemaGenerator,
) -> Value {
    let error = self::schema::<ErrorBody>(generator);
    let mut operation = json!({
        "summary": route.summary,
        "operationId": operation_id(route.path),
        "responses": {
            "200": {"description": description, "content": json_content(&schema)},
            "4XX": {"description": "A bad request", "content": json_content(&error)},
            "503": {"description": "The model is not loaded", "content": json_content(&error)},
        },
    });
    let parameters = path_parameters(route.path);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    operation
}

/// The parameters of a path, such as `{id}`.
fn path_parameters(path: &str) -> Vec<Value> {
    let names = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        let name = name.trim_start_matches('*');
        json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
    };
    names.map(parameter).collect()
}

impl BodyOperation {
    fn document(&self, route: &RouteDoc, generator: &mut SchemaGenerator) -> Value {
        let error = &(self.error)(generator);
        let mut content = json_content(&(self.answer)(generator));
        if let Some(event) = self.event {
            content["text/event-stream"] = json!({"schema": {
                "type": "string",
                "description": "Events whose data is JSON of the schema in x-event. The streams of completions end with [DONE].",
                "x-event": event(generator),
            }});
        }
        json!({
            "summary": route.summary,
            "operationId": operation_id(route.path),
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
    let words = path
        .trim_start_matches("/v1/")
        .replace('*', "")
        .replace(['/', '{', '}'], "_");
    words.trim_matches('_').to_string()
}

fn json_content(schema: &Value) -> Value {
    json!({"application/json": {"schema": schema}})
}

/// The JSON Schema of a body: all that is read or accepted.
fn body_schema(body: &Body) -> Value {
    let mut properties = Map::new();
    for parameter in body.parameters() {
        if let Support::Refused(_) = parameter.support {
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
    match parameter.support {
        Support::Honoured => parameter.doc.to_string(),
        Support::NoEffect(reason) => format!("{} No effect: {reason}.", parameter.doc)
            .trim_start()
            .to_string(),
        Support::Refused(_) => format!("Refused. {}", parameter.doc).trim_end().to_string(),
    }
}

/// `docs/api.md`: every route, its parameters, and whether this server supports them.
pub fn markdown(routes: &[&RouteDoc]) -> String {
    let mut text = String::from(
        "# API\n\nGenerated by `make generate` from `runtime/src/api/request/parameters/` and the routes below \
         `runtime/src/http/routes`. Do not edit.\n\n\
         A route below `/v1` also exists below `/openai/v1` and without `/v1`. A running server has this as \
         `/openapi.json`, and as a page at `/docs`.\n\n\
         Unknown parameters are ignored, and the header `x-slipway-ignored-parameters` names them; with \
         STRICT_PARAMETERS they are an error 400. `null` always means absent.\n\n\
         | route | effect | key |\n|---|---|---|\n",
    );
    for route in routes {
        let methods = route.methods.join(", ").to_uppercase();
        let key = match route.access {
            Access::Key => "if the settings contain keys",
            Access::Open => "not needed",
            Access::Probe => "not needed; also on CONTROL_PORT",
            Access::Control => "not needed; only on CONTROL_PORT if it is set",
        };
        let _ = writeln!(
            text,
            "| {methods} `{}` | {} | {key} |",
            route.path.replace('*', ""),
            route.summary
        );
    }
    for route in routes {
        if let Some(Operation::Body(operation)) = &route.operation {
            text.push_str(&parameters_table(route, operation.body));
        }
    }
    text.push_str(
        "\n## POST /run, POST /runsync\n\nJobs in the form of RunPod's workers; further routes are `/status/{id}`, `/stream/{id}`, \
         `/cancel/{id}`, `/retry/{id}`, `/purge-queue`. A body has `input`:\n\n| field | effect |\n|---|---|\n",
    );
    for (name, doc) in FIELDS {
        let _ = writeln!(text, "| `{name}` | {doc} |");
    }
    text.push_str(
        "\n`sampling_params` are those of `/v1/completions`; other names are an error 400. Defaults are worker-vllm's:\n\n\
         | parameter | default |\n|---|---|\n",
    );
    for (name, default) in SAMPLING {
        let _ = writeln!(
            text,
            "| `{name}` | {} |",
            default.unwrap_or("that of `/v1/completions`")
        );
    }
    text
}

/// The parameters of a route with a body.
fn parameters_table(route: &RouteDoc, body: &Body) -> String {
    let mut text = format!(
        "\n## POST {}\n\n{}.\n\n| parameter | values | default | effect |\n|---|---|---|---|\n",
        route.path, route.summary
    );
    for parameter in body.parameters() {
        let values = match parameter.support {
            Support::Refused(_) => "–".to_string(),
            Support::Honoured | Support::NoEffect(_) => match parameter.kind {
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
    text
}
