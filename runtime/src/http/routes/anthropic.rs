//! `POST /v1/messages` and `/v1/messages/count_tokens`: Anthropic's form of a chat and its errors.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderName;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json};

use crate::api::answer::{Finish, StopReason};
use crate::api::error::ApiError;
use crate::api::openapi::{Access, BodyOperation, Operation, RouteDoc, schema};
use crate::api::request;
use crate::api::request::parameters::{MESSAGE_TOKENS, MESSAGES};
use crate::api::response::messages::{
    AnthropicError, AnthropicErrorFields, AnthropicEvent, AnthropicMessage, AnthropicStopReason,
    AnthropicTokenCount, AnthropicUsage, ContentBlock, ContentDelta, MessageEnd,
};
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
        summary: "Answer a conversation, as in Anthropic's messages",
        access: Access::Key,
        operation: Some(Operation::Body(BodyOperation {
            body: &MESSAGES,
            answer: schema::<AnthropicMessage>,
            event: Some(schema::<AnthropicEvent>),
            error: schema::<AnthropicError>,
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
        operation: Some(Operation::Body(BodyOperation {
            body: &MESSAGE_TOKENS,
            answer: schema::<AnthropicTokenCount>,
            event: None,
            error: schema::<AnthropicError>,
        })),
    },
    handler: || post(count_tokens),
    dialect: Dialect::Anthropic,
};

/// Anthropic's name of the header with a request's id.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// An error in Anthropic's form.
fn refused(error: ApiError, id: &RequestId) -> Response {
    let body = error_body(&error, id);
    // Status, headers and label are those of OpenAI's routes.
    let (mut parts, _) = error.into_response().into_parts();
    parts.headers.remove(axum::http::header::CONTENT_LENGTH);
    (parts, Json(body)).into_response()
}

/// An answer or an error, with the request's id.
fn with_id(answer: Result<Response, ApiError>, id: RequestId) -> Response {
    let response = answer.unwrap_or_else(|error| refused(error, &id));
    ([(REQUEST_ID, id.0)], response).into_response()
}

fn error_body(error: &ApiError, RequestId(id): &RequestId) -> AnthropicError {
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
    AnthropicError {
        r#type: "error",
        error: AnthropicErrorFields {
            r#type: kind,
            message: error.to_string(),
        },
        request_id: id.to_str().unwrap_or_default().to_owned(),
    }
}

/// Requires a key, in OpenAI's header or in Anthropic's.
pub(super) async fn require_key(
    State(keys): State<Arc<ApiKeys>>,
    Extension(id): Extension<RequestId>,
    request: Request,
    next: Next,
) -> Response {
    if keys.admit(request.headers()) {
        next.run(request).await
    } else {
        with_id(Err(ApiError::InvalidApiKey), id)
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
    with_id(answer.await, id)
}

/// Counts the tokens of the prompt that messages make.
async fn count_tokens(
    State(app): State<Arc<App>>,
    Extension(id): Extension<RequestId>,
    body: Result<JsonBytes, ApiError>,
) -> Response {
    let answer = async {
        let prepared = prepare(&app, body?, request::anthropic_prompt).await?;
        let input_tokens = prepared.n_prompt_tokens();
        Ok(Json(AnthropicTokenCount { input_tokens }).into_response())
    };
    with_id(answer.await, id)
}

/// A block of the content that is not complete.
enum Block {
    Thinking(String),
    Text(String),
    ToolUse { id: String, name: String, input: String },
}

impl Block {
    /// The block so far. Arguments that are not a complete JSON object are written as an empty one.
    fn content(&self) -> ContentBlock {
        match self {
            Block::Thinking(thinking) => ContentBlock::Thinking {
                thinking: thinking.clone(),
                signature: "",
            },
            Block::Text(text) => ContentBlock::Text { text: text.clone() },
            Block::ToolUse { id, name, input } => ContentBlock::ToolUse {
                id: id.clone(),
                name: name.clone(),
                input: serde_json::from_str(input).unwrap_or_default(),
            },
        }
    }
}

struct MessageWriter {
    request_id: RequestId,
    /// The answer with its complete blocks.
    message: AnthropicMessage,
    open: Option<Block>,
    has_calls: bool,
}

impl MessageWriter {
    fn new(model: &str, request_id: RequestId) -> Self {
        let message = AnthropicMessage {
            id: format!("msg_{}", uuid::Uuid::new_v4().simple()),
            r#type: "message",
            role: "assistant",
            model: model.to_owned(),
            content: Vec::new(),
            stop_reason: None,
            stop_sequence: None,
            usage: None,
        };
        Self {
            request_id,
            message,
            open: None,
            has_calls: false,
        }
    }

    fn open(&mut self, block: Block, events: &mut Vec<AnthropicEvent>) {
        self.close(events);
        events.push(AnthropicEvent::ContentBlockStart {
            index: self.message.content.len(),
            content_block: block.content(),
        });
        self.open = Some(block);
    }

    fn close(&mut self, events: &mut Vec<AnthropicEvent>) {
        let Some(block) = self.open.take() else { return };
        let index = self.message.content.len();
        events.push(AnthropicEvent::ContentBlockStop { index });
        self.message.content.push(block.content());
    }

    fn delta(&self, delta: ContentDelta, events: &mut Vec<AnthropicEvent>) {
        let index = self.message.content.len();
        events.push(AnthropicEvent::ContentBlockDelta { index, delta });
    }
}

/// Anthropic counts the prompt's cached tokens separately.
fn usage(counts: Counts) -> AnthropicUsage {
    let n_cached = counts.answer.n_cached;
    AnthropicUsage {
        input_tokens: counts.n_prompt - n_cached,
        cache_creation_input_tokens: 0,
        cache_read_input_tokens: n_cached,
        output_tokens: counts.answer.n_generated,
    }
}

impl Writer for MessageWriter {
    type Event = AnthropicEvent;
    type Answer = AnthropicMessage;

    fn begin(&mut self, counts: Counts, events: &mut Vec<AnthropicEvent>) {
        self.message.usage = Some(usage(counts));
        let message = self.message.clone();
        events.push(AnthropicEvent::MessageStart { message });
    }

    fn piece(&mut self, piece: Piece, events: &mut Vec<AnthropicEvent>) {
        match piece {
            Piece::Reasoning(more) => {
                if !matches!(self.open, Some(Block::Thinking(_))) {
                    self.open(Block::Thinking(String::new()), events);
                }
                if let Some(Block::Thinking(thinking)) = &mut self.open {
                    thinking.push_str(&more);
                }
                self.delta(ContentDelta::ThinkingDelta { thinking: more }, events);
            }
            Piece::Content(more) => {
                if !matches!(self.open, Some(Block::Text(_))) {
                    self.open(Block::Text(String::new()), events);
                }
                if let Some(Block::Text(text)) = &mut self.open {
                    text.push_str(&more);
                }
                self.delta(ContentDelta::TextDelta { text: more }, events);
            }
            Piece::Call { id, name, .. } => {
                self.has_calls = true;
                let id = request::tool_use_id(&id);
                let input = String::new();
                self.open(Block::ToolUse { id, name, input }, events);
            }
            Piece::Arguments { text: more, .. } => {
                if let Some(Block::ToolUse { input, .. }) = &mut self.open {
                    input.push_str(&more);
                }
                self.delta(ContentDelta::InputJsonDelta { partial_json: more }, events);
            }
        }
    }

    fn end(&mut self, finish: &Finish, counts: Counts, events: &mut Vec<AnthropicEvent>) {
        self.close(events);
        let (stop_reason, stop_sequence) = match finish {
            Finish::Length => (AnthropicStopReason::MaxTokens, None),
            Finish::Stop(Some(StopReason::Text(text))) => {
                (AnthropicStopReason::StopSequence, Some(text.clone()))
            }
            Finish::Stop(_) if self.has_calls => (AnthropicStopReason::ToolUse, None),
            Finish::Stop(_) => (AnthropicStopReason::EndTurn, None),
        };
        self.message.stop_reason = Some(stop_reason);
        self.message.stop_sequence.clone_from(&stop_sequence);
        let usage = usage(counts);
        self.message.usage = Some(usage);
        let delta = MessageEnd {
            stop_reason,
            stop_sequence,
        };
        events.push(AnthropicEvent::MessageDelta { delta, usage });
        events.push(AnthropicEvent::MessageStop);
    }

    fn fail(&mut self, error: &ApiError, events: &mut Vec<AnthropicEvent>) {
        events.push(AnthropicEvent::Error(error_body(error, &self.request_id)));
    }

    fn answer(self) -> AnthropicMessage {
        self.message
    }
}
