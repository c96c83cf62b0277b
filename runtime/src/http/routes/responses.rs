//! `POST /v1/responses`: OpenAI's newer shape of a chat, without its store.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Map, Value, json};

use crate::api::answer::{Finish, Token};
use crate::api::error::{ApiError, shortened};
use crate::api::openapi::{Access, BodyOperation, Operation, RouteDoc, object, schema};
use crate::api::request::parameters::RESPONSES;
use crate::api::request::{self, Method, Prepared, PreparedResponse};
use crate::api::response::ErrorBody;
use crate::api::response::logprobs::{self, Names};
use crate::clock::unix_time_s;
use crate::http::app::App;
use crate::http::body::JsonBytes;
use crate::http::generation::prepare;
use crate::http::route::{Dialect, Route};
use crate::http::typed_events::{Counts, Writer, respond};
use crate::parsers::Piece;
use crate::tokenizer::Tokenizer;

/// What of a request is said again in its answer, and what stands there where the request does not say.
const ECHOED: [(&str, &str); 15] = [
    ("frequency_penalty", "0"),
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("presence_penalty", "0"),
    ("prompt_cache_key", "null"),
    ("reasoning", r#"{"effort": null, "summary": null}"#),
    ("safety_identifier", "null"),
    ("text", r#"{"format": {"type": "text"}}"#),
    ("tool_choice", "\"auto\""),
    ("tools", "[]"),
    ("top_logprobs", "0"),
    ("truncation", "\"disabled\""),
    ("user", "null"),
];

/// The route.
pub(super) const CREATE: Route = Route {
    doc: RouteDoc {
        path: "/v1/responses",
        methods: &["post"],
        summary: "Answer items, as OpenAI's responses",
        access: Access::Key,
        operation: Some(Operation::Body(BodyOperation {
            body: &RESPONSES,
            answer: |_| object("OpenAI's response object; nothing is stored."),
            event: Some(|_| {
                object("OpenAI's response events, from `response.created` to `response.completed`.")
            }),
            error: schema::<ErrorBody>,
        })),
    },
    handler: || post(create),
    dialect: Dialect::Openai,
};

/// Stored responses, of which there are none.
pub(super) const UNKNOWN: Route = Route {
    doc: RouteDoc {
        path: "/v1/responses/{id}",
        methods: &["get"],
        summary: "A stored response: always 404, nothing is stored",
        access: Access::Key,
        operation: None,
    },
    handler: || get(unknown),
    dialect: Dialect::Openai,
};

/// The cancelling of a stored response.
pub(super) const UNKNOWN_CANCEL: Route = Route {
    doc: RouteDoc {
        path: "/v1/responses/{id}/cancel",
        methods: &["post"],
        summary: "Cancel a stored response: always 404",
        access: Access::Key,
        operation: None,
    },
    handler: || post(unknown),
    dialect: Dialect::Openai,
};

/// Answers items.
pub(super) async fn create(State(app): State<Arc<App>>, body: JsonBytes) -> Result<Response, ApiError> {
    let PreparedResponse { prepared, given } = prepare(&app, body, request::response).await?;
    let answers = &prepared.answers;
    // Tokens would tell the thoughts that are not to be told.
    let tells = answers.logprobs.is_some() && !answers.parsing.hides_reasoning;
    let tokenizer = Arc::clone(&app.ready()?.tokenizer);
    let writer = ResponseWriter::new(&prepared, &given, tells.then_some(tokenizer));
    respond(app, prepared, writer).await
}

/// Answers are not stored, so that there is none to be had or cancelled later.
pub(super) async fn unknown(Path(id): Path<String>) -> ApiError {
    ApiError::UnknownResponse { id: shortened(&id) }
}

/// An item of the output that goes on.
struct Open {
    kind: Kind,
    id: String,
    text: String,
    /// Log-probabilities of its tokens, where asked for.
    logprobs: Vec<Value>,
}

enum Kind {
    Reasoning,
    Message,
    Call { call_id: String, name: String },
}

struct ResponseWriter {
    /// The answer, without its output.
    response: Map<String, Value>,
    output: Vec<Value>,
    open: Option<Open>,
    sequence_number: u64,
    /// For log-probabilities, where they are asked for.
    tokenizer: Option<Arc<Tokenizer>>,
    /// Log-probabilities of the tokens whose text is next.
    logprobs: Vec<Value>,
}

impl ResponseWriter {
    fn new(prepared: &Prepared, given: &Map<String, Value>, tokenizer: Option<Arc<Tokenizer>>) -> Self {
        let id = new_id("resp_");
        let mut response = Map::new();
        let fixed = json!({
            "id": id, "object": "response", "created_at": unix_time_s(), "completed_at": null,
            "status": "in_progress", "background": false, "error": null, "incomplete_details": null,
            "max_tool_calls": null, "model": prepared.model, "output": [], "previous_response_id": null,
            "service_tier": "default", "store": false, "usage": null,
        });
        response.extend(fixed.as_object().cloned().unwrap_or_default());
        let echoed = ECHOED.map(|(name, default)| (name, default.to_owned()));
        for (name, default) in echoed.into_iter().chain(in_force(prepared)) {
            let given = given.get(name).filter(|value| !value.is_null()).cloned();
            let default = || serde_json::from_str(&default).unwrap_or_default();
            response.insert(name.into(), given.unwrap_or_else(default));
        }
        Self {
            response,
            output: Vec::new(),
            open: None,
            sequence_number: 0,
            tokenizer,
            logprobs: Vec::new(),
        }
    }

    fn event(&mut self, kind: &str, fields: Value, events: &mut Vec<Value>) {
        let mut event = json!({"type": kind, "sequence_number": self.sequence_number});
        if let (Some(event), Value::Object(fields)) = (event.as_object_mut(), fields) {
            event.extend(fields);
        }
        self.sequence_number += 1;
        events.push(event);
    }

    fn whole_response(&self) -> Value {
        let mut response = self.response.clone();
        response.insert("output".into(), Value::Array(self.output.clone()));
        Value::Object(response)
    }

    /// Makes sure that text of this kind can go on.
    fn open_text(&mut self, kind: Kind, events: &mut Vec<Value>) {
        match (&self.open, &kind) {
            (
                Some(Open {
                    kind: Kind::Reasoning,
                    ..
                }),
                Kind::Reasoning,
            )
            | (
                Some(Open {
                    kind: Kind::Message, ..
                }),
                Kind::Message,
            ) => return,
            _ => {}
        }
        self.open(kind, events);
        if let Some(open) = &self.open {
            let place = self.content_place(open, &[("part", open.part())]);
            self.event("response.content_part.added", place, events);
        }
    }

    fn open(&mut self, kind: Kind, events: &mut Vec<Value>) {
        self.close("completed", events);
        let id = new_id(match kind {
            Kind::Reasoning => "rs_",
            Kind::Message => "msg_",
            Kind::Call { .. } => "fc_",
        });
        let open = Open {
            kind,
            id,
            text: String::new(),
            logprobs: Vec::new(),
        };
        let added = json!({"output_index": self.output.len(), "item": open.item("in_progress")});
        self.open = Some(open);
        self.event("response.output_item.added", added, events);
    }

    fn text(&mut self, text: String, events: &mut Vec<Value>) {
        let Some(mut open) = self.open.take() else { return };
        open.text.push_str(&text);
        let (kind, fields) = match open.kind {
            Kind::Reasoning => (
                "response.reasoning_text.delta",
                self.content_place(&open, &[("delta", json!(text))]),
            ),
            Kind::Message => {
                let logprobs = std::mem::take(&mut self.logprobs);
                open.logprobs.extend_from_slice(&logprobs);
                let fields = [("delta", json!(text)), ("logprobs", Value::Array(logprobs))];
                ("response.output_text.delta", self.content_place(&open, &fields))
            }
            Kind::Call { .. } => (
                "response.function_call_arguments.delta",
                self.place(&open, &[("delta", json!(text))]),
            ),
        };
        self.open = Some(open);
        self.event(kind, fields, events);
    }

    /// Ends the item that goes on.
    fn close(&mut self, status: &str, events: &mut Vec<Value>) {
        let Some(open) = self.open.take() else { return };
        let text = json!(open.text);
        let (kind, done) = match &open.kind {
            Kind::Reasoning => (
                "response.reasoning_text.done",
                self.content_place(&open, &[("text", text)]),
            ),
            Kind::Message => (
                "response.output_text.done",
                self.content_place(&open, &[("text", text), ("logprobs", json!(open.logprobs))]),
            ),
            Kind::Call { name, .. } => (
                "response.function_call_arguments.done",
                self.place(&open, &[("arguments", text), ("name", json!(name))]),
            ),
        };
        self.event(kind, done, events);
        if !matches!(open.kind, Kind::Call { .. }) {
            let done = self.content_place(&open, &[("part", open.part())]);
            self.event("response.content_part.done", done, events);
        }
        let item = open.item(status);
        let done = json!({"output_index": self.output.len(), "item": item});
        self.event("response.output_item.done", done, events);
        self.output.push(item);
    }

    fn place(&self, open: &Open, fields: &[(&str, Value)]) -> Value {
        let mut place = json!({"item_id": open.id, "output_index": self.output.len()});
        for (name, value) in fields {
            place[*name] = value.clone();
        }
        place
    }

    fn content_place(&self, open: &Open, fields: &[(&str, Value)]) -> Value {
        let mut place = self.place(open, fields);
        place["content_index"] = json!(0);
        place
    }
}

impl Open {
    fn part(&self) -> Value {
        match self.kind {
            Kind::Reasoning => json!({"type": "reasoning_text", "text": self.text}),
            Kind::Message | Kind::Call { .. } => {
                json!({"type": "output_text", "text": self.text, "annotations": [], "logprobs": self.logprobs})
            }
        }
    }

    fn item(&self, status: &str) -> Value {
        let Open { kind, id, text, .. } = self;
        let content = if text.is_empty() {
            json!([])
        } else {
            json!([self.part()])
        };
        match kind {
            Kind::Reasoning => {
                json!({"id": id, "type": "reasoning", "summary": [], "content": content, "status": status})
            }
            Kind::Message => {
                json!({"id": id, "type": "message", "role": "assistant", "content": content, "status": status})
            }
            Kind::Call { call_id, name } => json!({
                "id": id, "type": "function_call", "call_id": call_id, "name": name, "arguments": text,
                "status": status,
            }),
        }
    }
}

impl Writer for ResponseWriter {
    fn begin(&mut self, _: Counts, events: &mut Vec<Value>) {
        let response = json!({"response": self.whole_response()});
        self.event("response.created", response.clone(), events);
        self.event("response.in_progress", response, events);
    }

    /// They belong to the text; those of thoughts and calls are not told.
    fn tokens(&mut self, tokens: &[Token]) {
        let Some(tokenizer) = &self.tokenizer else { return };
        let names = Names {
            tokens: tokenizer.tokens(),
            as_ids: false,
        };
        let told = logprobs::chat(tokens, names).content;
        self.logprobs = told.into_iter().map(|token| json!(token)).collect();
    }

    fn piece(&mut self, piece: Piece, events: &mut Vec<Value>) {
        let text = match piece {
            Piece::Reasoning(text) => {
                self.open_text(Kind::Reasoning, events);
                text
            }
            Piece::Content(text) => {
                self.open_text(Kind::Message, events);
                text
            }
            Piece::Call { id, name, .. } => {
                self.open(Kind::Call { call_id: id, name }, events);
                return;
            }
            Piece::Arguments { text, .. } => text,
        };
        self.text(text, events);
    }

    fn end(&mut self, finish: &Finish, counts: Counts, events: &mut Vec<Value>) {
        let (status, details) = match finish {
            Finish::Length => ("incomplete", json!({"reason": "max_output_tokens"})),
            Finish::Stop(_) => ("completed", Value::Null),
        };
        self.close(status, events);
        if status == "completed" {
            self.response.insert("completed_at".into(), json!(unix_time_s()));
        }
        self.response.insert("status".into(), json!(status));
        self.response.insert("incomplete_details".into(), details);
        let usage = json!({
            "input_tokens": counts.n_prompt,
            "input_tokens_details": {"cached_tokens": counts.n_cached},
            "output_tokens": counts.n_generated,
            "output_tokens_details": {"reasoning_tokens": counts.n_reasoning},
            "total_tokens": counts.n_prompt + counts.n_generated,
        });
        self.response.insert("usage".into(), usage);
        let response = json!({"response": self.whole_response()});
        self.event(&format!("response.{status}"), response, events);
    }

    fn fail(&mut self, error: &ApiError, events: &mut Vec<Value>) {
        self.close("incomplete", events);
        self.response.insert("status".into(), json!("failed"));
        let error = json!({"code": "server_error", "message": error.to_string()});
        self.response.insert("error".into(), error);
        let response = json!({"response": self.whole_response()});
        self.event("response.failed", response, events);
    }

    fn whole(self) -> Value {
        self.whole_response()
    }
}

/// What holds where the request does not say, as JSON.
fn in_force(prepared: &Prepared) -> Vec<(&'static str, String)> {
    match &prepared.answers.method {
        Method::Sample { sampling, .. } => vec![
            ("temperature", sampling.temperature.to_string()),
            ("top_p", sampling.top_p.to_string()),
        ],
        Method::Search(_) => Vec::new(),
    }
}

fn new_id(prefix: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::new_v4().simple())
}
