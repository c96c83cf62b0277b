//! `POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's shape of a chat, its errors included.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderName;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json};
use serde_json::{Value, json};

use crate::api::answer::{Finish, StopReason};
use crate::api::error::ApiError;
use crate::api::openapi::{Access, BodyOperation, Operation, RouteDoc, object};
use crate::api::request;
use crate::api::request::parameters::MESSAGES;
use crate::http::app::App;
use crate::http::auth::ApiKeys;
use crate::http::body::JsonBytes;
use crate::http::generation::prepare;
use crate::http::request_id::RequestId;
use crate::http::route::{Dialect, Route};
use crate::http::typed_events::{Counts, Writer, respond};
use crate::parsers::Piece;

/// The messages.
pub(super) const CREATE: Route = Route {
    doc: RouteDoc {
        path: "/v1/messages",
        methods: &["post"],
        summary: "Answer a conversation, as Anthropic's messages",
        access: Access::Key,
        operation: Some(Operation::Body(BodyOperation {
            body: &MESSAGES,
            answer: |_| object("Anthropic's message object."),
            event: Some(|_| object("Anthropic's events, from `message_start` to `message_stop`.")),
            error: |_| object("Anthropic's error object."),
        })),
    },
    handler: || post(create),
    dialect: Dialect::Anthropic,
};

/// The count of tokens.
pub(super) const COUNT_TOKENS: Route = Route {
    doc: RouteDoc {
        path: "/v1/messages/count_tokens",
        methods: &["post"],
        summary: "Count the tokens of messages",
        access: Access::Key,
        operation: None,
    },
    handler: || post(count_tokens),
    dialect: Dialect::Anthropic,
};

/// Anthropic's name of the header with a request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// An error in Anthropic's shape.
fn refused(error: ApiError, id: &RequestId) -> Response {
    let body = error_body(&error, id);
    // Status, headers and label are the same.
    let (mut parts, _) = error.into_response().into_parts();
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    (parts, Json(body)).into_response()
}

/// An answer or an error, with the request's id.
fn told(answer: Result<Response, ApiError>, id: RequestId) -> Response {
    let response = answer.unwrap_or_else(|error| refused(error, &id));
    ([(REQUEST_ID, id.0)], response).into_response()
}

fn error_body(error: &ApiError, RequestId(id): &RequestId) -> Value {
    let kind = match error.facts().status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        status if status < 500 => "invalid_request_error",
        _ => "api_error",
    };
    let id = id.to_str().unwrap_or_default();
    json!({"type": "error", "error": {"type": kind, "message": error.to_string()}, "request_id": id})
}

/// Lets a request with a key pass, be it in OpenAI's header or in Anthropic's.
pub(super) async fn require_key(
    State(keys): State<Arc<ApiKeys>>,
    Extension(id): Extension<RequestId>,
    request: Request,
    next: Next,
) -> Response {
    if keys.admit(request.headers()) {
        next.run(request).await
    } else {
        told(Err(ApiError::InvalidApiKey), id)
    }
}

/// Answers messages.
async fn create(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    body: Result<JsonBytes, ApiError>,
) -> Response {
    let answer = async {
        let prepared = prepare(&app, body?, request::anthropic).await?;
        let writer = MessageWriter::new(&prepared.model, id.clone());
        respond(Arc::clone(&app), prepared, writer).await
    };
    told(answer.await, id)
}

/// Counts the tokens of messages as a prompt.
async fn count_tokens(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    body: Result<JsonBytes, ApiError>,
) -> Response {
    let answer = async {
        let prepared = prepare(&app, body?, request::anthropic_prompt).await?;
        Ok(Json(json!({"input_tokens": prepared.n_prompt_tokens()})).into_response())
    };
    told(answer.await, id)
}

/// A block of the content that goes on.
enum Block {
    Thinking(String),
    Text(String),
    ToolUse { id: String, name: String, input: String },
}

struct MessageWriter {
    request_id: RequestId,
    message: Value,
    content: Vec<Value>,
    open: Option<Block>,
    has_calls: bool,
}

impl MessageWriter {
    fn new(model: &str, request_id: RequestId) -> Self {
        let message = json!({
            "id": format!("msg_{}", uuid::Uuid::new_v4().simple()),
            "type": "message", "role": "assistant", "model": model, "content": [],
            "stop_reason": null, "stop_sequence": null, "usage": null,
        });
        Self {
            request_id,
            message,
            content: Vec::new(),
            open: None,
            has_calls: false,
        }
    }

    fn open(&mut self, block: Block, events: &mut Vec<Value>) {
        self.close(events);
        let start = json!({"type": "content_block_start", "index": self.content.len(), "content_block": block.value()});
        events.push(start);
        self.open = Some(block);
    }

    fn close(&mut self, events: &mut Vec<Value>) {
        let Some(block) = self.open.take() else { return };
        events.push(json!({"type": "content_block_stop", "index": self.content.len()}));
        self.content.push(block.value());
    }

    fn delta(&self, delta: Value, events: &mut Vec<Value>) {
        events.push(json!({"type": "content_block_delta", "index": self.content.len(), "delta": delta}));
    }
}

impl Block {
    /// Input that was cut off is no JSON, and then empty.
    fn value(&self) -> Value {
        match self {
            Block::Thinking(thinking) => json!({"type": "thinking", "thinking": thinking, "signature": ""}),
            Block::Text(text) => json!({"type": "text", "text": text}),
            Block::ToolUse { id, name, input } => {
                let input = serde_json::from_str(input).unwrap_or_else(|_| json!({}));
                json!({"type": "tool_use", "id": id, "name": name, "input": input})
            }
        }
    }
}

/// Anthropic counts cached tokens apart.
fn usage(counts: Counts) -> Value {
    json!({
        "input_tokens": counts.n_prompt - counts.n_cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": counts.n_cached,
        "output_tokens": counts.n_generated,
    })
}

impl Writer for MessageWriter {
    fn begin(&mut self, counts: Counts, events: &mut Vec<Value>) {
        self.message["usage"] = usage(counts);
        events.push(json!({"type": "message_start", "message": self.message}));
    }

    fn piece(&mut self, piece: Piece, events: &mut Vec<Value>) {
        match piece {
            Piece::Reasoning(more) => {
                if !matches!(self.open, Some(Block::Thinking(_))) {
                    self.open(Block::Thinking(String::new()), events);
                }
                self.delta(json!({"type": "thinking_delta", "thinking": more}), events);
                if let Some(Block::Thinking(thinking)) = &mut self.open {
                    thinking.push_str(&more);
                }
            }
            Piece::Content(more) => {
                if !matches!(self.open, Some(Block::Text(_))) {
                    self.open(Block::Text(String::new()), events);
                }
                self.delta(json!({"type": "text_delta", "text": more}), events);
                if let Some(Block::Text(text)) = &mut self.open {
                    text.push_str(&more);
                }
            }
            Piece::Call { id, name, .. } => {
                self.has_calls = true;
                let id = request::tool_use_id(&id);
                let input = String::new();
                self.open(Block::ToolUse { id, name, input }, events);
            }
            Piece::Arguments { text: more, .. } => {
                self.delta(json!({"type": "input_json_delta", "partial_json": more}), events);
                if let Some(Block::ToolUse { input, .. }) = &mut self.open {
                    input.push_str(&more);
                }
            }
        }
    }

    fn end(&mut self, finish: &Finish, counts: Counts, events: &mut Vec<Value>) {
        self.close(events);
        let (reason, sequence) = match finish {
            Finish::Length => ("max_tokens", None),
            Finish::Stop(Some(StopReason::Text(text))) => ("stop_sequence", Some(text)),
            Finish::Stop(_) if self.has_calls => ("tool_use", None),
            Finish::Stop(_) => ("end_turn", None),
        };
        let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
        let usage = usage(counts);
        events.push(json!({"type": "message_delta", "delta": delta, "usage": usage}));
        events.push(json!({"type": "message_stop"}));
        self.message["stop_reason"] = json!(reason);
        self.message["stop_sequence"] = json!(sequence);
        self.message["usage"] = usage;
    }

    fn fail(&mut self, error: &ApiError, events: &mut Vec<Value>) {
        events.push(error_body(error, &self.request_id));
    }

    fn whole(mut self) -> Value {
        self.message["content"] = Value::Array(self.content);
        self.message
    }
}
