//! `POST /v1/responses`: OpenAI's newer form of a chat, without stored answers.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};

use crate::api::answer::{Finish, Token};
use crate::api::error::{ApiError, shortened};
use crate::api::openapi::{Access, BodyOperation, Operation, RouteDoc, schema};
use crate::api::request::parameters::RESPONSES;
use crate::api::request::{self, Method, PreparedResponse};
use crate::api::response::logprobs::{self, ChatToken, TokenNames};
use crate::api::response::responses::{
    ContentPart, FunctionCallItem, IncompleteDetails, InputTokensDetails, ItemEvent, MessageItem, OutputItem,
    PartEvent, ReasoningItem, RepeatedParameters, ResponseAnswer, ResponseError, ResponseEvent,
    ResponseStatus, ResponseUsage, StateEvent,
};
use crate::api::response::{CompletionTokensDetails, ErrorBody};
use crate::clock::unix_time_s;
use crate::http::app::App;
use crate::http::body::JsonBytes;
use crate::http::extract::InPath;
use crate::http::generation::prepare;
use crate::http::route::{Dialect, Route};
use crate::http::typed_events::{Counts, Writer, respond};
use crate::parsers::Piece;
use crate::tokenizer::Tokenizer;

/// The route.
pub(super) const CREATE: Route = Route {
    doc: RouteDoc {
        path: "/v1/responses",
        methods: &["post"],
        summary: "Answer a conversation of items, as in OpenAI's responses",
        access: Access::Key,
        operation: Some(Operation::Body(BodyOperation {
            body: &RESPONSES,
            answer: schema::<ResponseAnswer>,
            event: Some(schema::<ResponseEvent>),
            error: schema::<ErrorBody>,
        })),
    },
    handler: || post(create),
    dialect: Dialect::Openai,
};

/// Fetches a stored response. There is none.
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

/// Cancels a stored response. There is none.
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

/// Answers a conversation of items.
pub(super) async fn create(State(app): State<Arc<App>>, body: JsonBytes) -> Result<Response, ApiError> {
    let request = prepare(&app, body, request::response).await?;
    let answers = &request.prepared.answers;
    // The tokens would show thoughts that the request hides.
    let has_logprobs = answers.logprobs.is_some() && !answers.parsing.hides_reasoning;
    let tokenizer = Arc::clone(&app.ready()?.tokenizer);
    let writer = ResponseWriter::new(&request, has_logprobs.then_some(tokenizer));
    respond(app, request.prepared, writer).await
}

/// Answers are not stored, so no client can fetch or cancel one.
pub(super) async fn unknown(InPath(id): InPath<String>) -> ApiError {
    ApiError::UnknownResponse { id: shortened(&id) }
}

/// An item of the output that is not complete.
struct OpenItem {
    kind: Kind,
    id: String,
    text: String,
    /// Log-probabilities of its tokens, if they are requested.
    logprobs: Vec<ChatToken>,
}

#[derive(PartialEq)]
enum Kind {
    Reasoning,
    Message,
    Call { call_id: String, name: String },
}

impl OpenItem {
    fn part(&self) -> ContentPart {
        match self.kind {
            Kind::Reasoning => ContentPart::ReasoningText {
                text: self.text.clone(),
            },
            Kind::Message | Kind::Call { .. } => ContentPart::OutputText {
                text: self.text.clone(),
                annotations: Vec::new(),
                logprobs: self.logprobs.clone(),
            },
        }
    }

    fn item(&self, status: ResponseStatus) -> OutputItem {
        let id = self.id.clone();
        let content = match self.text.is_empty() {
            true => Vec::new(),
            false => vec![self.part()],
        };
        match &self.kind {
            Kind::Reasoning => OutputItem::Reasoning(ReasoningItem {
                id,
                r#type: "reasoning",
                summary: Vec::new(),
                content,
                status,
            }),
            Kind::Message => OutputItem::Message(MessageItem {
                id,
                r#type: "message",
                role: "assistant",
                content,
                status,
            }),
            Kind::Call { call_id, name } => OutputItem::FunctionCall(FunctionCallItem {
                id,
                r#type: "function_call",
                call_id: call_id.clone(),
                name: name.clone(),
                arguments: self.text.clone(),
                status,
            }),
        }
    }
}

/// Index of the part of an item: each has one.
const CONTENT_INDEX: usize = 0;

struct ResponseWriter {
    /// The answer with its complete items.
    response: ResponseAnswer,
    open: Option<OpenItem>,
    sequence_number: u64,
    /// For log-probabilities, if they are requested.
    tokenizer: Option<Arc<Tokenizer>>,
    /// Log-probabilities of the tokens of the next text.
    logprobs: Vec<ChatToken>,
}

impl ResponseWriter {
    fn new(request: &PreparedResponse, tokenizer: Option<Arc<Tokenizer>>) -> Self {
        let response = ResponseAnswer {
            id: new_id("resp_"),
            object: "response",
            created_at: unix_time_s(),
            completed_at: None,
            status: ResponseStatus::InProgress,
            background: false,
            error: None,
            incomplete_details: None,
            max_tool_calls: None,
            model: request.prepared.model.clone(),
            output: Vec::new(),
            previous_response_id: None,
            service_tier: "default",
            store: false,
            usage: None,
            request: repeated(request),
        };
        Self {
            response,
            open: None,
            sequence_number: 0,
            tokenizer,
            logprobs: Vec::new(),
        }
    }

    fn next_number(&mut self) -> u64 {
        let number = self.sequence_number;
        self.sequence_number += 1;
        number
    }

    fn state(&mut self) -> StateEvent {
        StateEvent {
            sequence_number: self.next_number(),
            response: self.response.clone(),
        }
    }

    fn item_event(&mut self, item: OutputItem) -> ItemEvent {
        ItemEvent {
            sequence_number: self.next_number(),
            output_index: self.response.output.len(),
            item,
        }
    }

    fn part_event(&mut self, open: &OpenItem) -> PartEvent {
        PartEvent {
            sequence_number: self.next_number(),
            item_id: open.id.clone(),
            output_index: self.response.output.len(),
            part: open.part(),
            content_index: CONTENT_INDEX,
        }
    }

    /// Begins an item with text, unless one of this kind is open.
    fn open_text(&mut self, kind: Kind, events: &mut Vec<ResponseEvent>) {
        if self.open.as_ref().is_some_and(|open| open.kind == kind) {
            return;
        }
        let open = self.begin_item(kind, events);
        events.push(ResponseEvent::PartAdded(self.part_event(&open)));
        self.open = Some(open);
    }

    /// Ends the open item and begins another.
    fn begin_item(&mut self, kind: Kind, events: &mut Vec<ResponseEvent>) -> OpenItem {
        self.close(ResponseStatus::Completed, events);
        let id = new_id(match kind {
            Kind::Reasoning => "rs_",
            Kind::Message => "msg_",
            Kind::Call { .. } => "fc_",
        });
        let open = OpenItem {
            kind,
            id,
            text: String::new(),
            logprobs: Vec::new(),
        };
        let added = self.item_event(open.item(ResponseStatus::InProgress));
        events.push(ResponseEvent::ItemAdded(added));
        open
    }

    /// Adds text to the open item.
    fn text(&mut self, delta: String, events: &mut Vec<ResponseEvent>) {
        let Some(mut open) = self.open.take() else { return };
        open.text.push_str(&delta);
        let sequence_number = self.next_number();
        let item_id = open.id.clone();
        let output_index = self.response.output.len();
        events.push(match open.kind {
            Kind::Reasoning => ResponseEvent::ReasoningDelta {
                sequence_number,
                item_id,
                output_index,
                delta,
                content_index: CONTENT_INDEX,
            },
            Kind::Message => {
                let logprobs = std::mem::take(&mut self.logprobs);
                open.logprobs.extend_from_slice(&logprobs);
                ResponseEvent::TextDelta {
                    sequence_number,
                    item_id,
                    output_index,
                    delta,
                    logprobs,
                    content_index: CONTENT_INDEX,
                }
            }
            Kind::Call { .. } => ResponseEvent::ArgumentsDelta {
                sequence_number,
                item_id,
                output_index,
                delta,
            },
        });
        self.open = Some(open);
    }

    /// Ends the open item.
    fn close(&mut self, status: ResponseStatus, events: &mut Vec<ResponseEvent>) {
        let Some(open) = self.open.take() else { return };
        events.push(self.text_done(&open));
        if !matches!(open.kind, Kind::Call { .. }) {
            events.push(ResponseEvent::PartDone(self.part_event(&open)));
        }
        let item = open.item(status);
        events.push(ResponseEvent::ItemDone(self.item_event(item.clone())));
        self.response.output.push(item);
    }

    fn text_done(&mut self, open: &OpenItem) -> ResponseEvent {
        let sequence_number = self.next_number();
        let item_id = open.id.clone();
        let output_index = self.response.output.len();
        let text = open.text.clone();
        match &open.kind {
            Kind::Reasoning => ResponseEvent::ReasoningDone {
                sequence_number,
                item_id,
                output_index,
                text,
                content_index: CONTENT_INDEX,
            },
            Kind::Message => ResponseEvent::TextDone {
                sequence_number,
                item_id,
                output_index,
                text,
                logprobs: open.logprobs.clone(),
                content_index: CONTENT_INDEX,
            },
            Kind::Call { name, .. } => ResponseEvent::ArgumentsDone {
                sequence_number,
                item_id,
                output_index,
                arguments: text,
                name: name.clone(),
            },
        }
    }
}

impl Writer for ResponseWriter {
    type Event = ResponseEvent;
    type Answer = ResponseAnswer;

    fn begin(&mut self, _: Counts, events: &mut Vec<ResponseEvent>) {
        events.push(ResponseEvent::Created(self.state()));
        events.push(ResponseEvent::InProgress(self.state()));
    }

    /// Only text has log-probabilities; those of thoughts and calls are not sent.
    fn tokens(&mut self, tokens: &[Token]) {
        let Some(tokenizer) = &self.tokenizer else { return };
        let names = TokenNames {
            tokens: tokenizer.tokens(),
            as_ids: false,
        };
        self.logprobs = logprobs::chat(tokens, names).content;
    }

    fn piece(&mut self, piece: Piece, events: &mut Vec<ResponseEvent>) {
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
                let open = self.begin_item(Kind::Call { call_id: id, name }, events);
                self.open = Some(open);
                return;
            }
            Piece::Arguments { text, .. } => text,
        };
        self.text(text, events);
    }

    fn end(&mut self, finish: &Finish, counts: Counts, events: &mut Vec<ResponseEvent>) {
        let status = match finish {
            Finish::Length => ResponseStatus::Incomplete,
            Finish::Stop(_) => ResponseStatus::Completed,
        };
        self.close(status, events);
        self.response.status = status;
        self.response.usage = Some(usage(counts));
        match finish {
            Finish::Length => {
                let reason = "max_output_tokens";
                self.response.incomplete_details = Some(IncompleteDetails { reason });
                events.push(ResponseEvent::Incomplete(self.state()));
            }
            Finish::Stop(_) => {
                self.response.completed_at = Some(unix_time_s());
                events.push(ResponseEvent::Completed(self.state()));
            }
        }
    }

    fn fail(&mut self, error: &ApiError, events: &mut Vec<ResponseEvent>) {
        self.close(ResponseStatus::Incomplete, events);
        self.response.status = ResponseStatus::Failed;
        self.response.error = Some(ResponseError {
            code: if error.facts().status < 500 {
                "invalid_prompt"
            } else {
                "server_error"
            },
            message: error.to_string(),
        });
        events.push(ResponseEvent::Failed(self.state()));
    }

    fn answer(self) -> ResponseAnswer {
        self.response
    }
}

fn usage(counts: Counts) -> ResponseUsage {
    let n_generated = counts.answer.n_generated;
    ResponseUsage {
        input_tokens: counts.n_prompt,
        input_tokens_details: InputTokensDetails {
            cached_tokens: counts.answer.n_cached,
            cache_write_tokens: 0,
        },
        output_tokens: n_generated,
        output_tokens_details: CompletionTokensDetails {
            reasoning_tokens: counts.answer.n_reasoning,
        },
        total_tokens: counts.n_prompt + n_generated,
    }
}

/// The parameters that the answer repeats, with the defaults of those that the request does not set.
fn repeated(request: &PreparedResponse) -> RepeatedParameters {
    let given = |name: &str| request.given.get(name).filter(|value| !value.is_null()).cloned();
    let or = |name: &str, default: Value| given(name).unwrap_or(default);
    let (temperature, top_p) = match &request.prepared.answers.method {
        Method::Sample { sampling, .. } => (shortest(sampling.temperature), shortest(sampling.top_p)),
        Method::Search(_) => (Value::Null, Value::Null),
    };
    RepeatedParameters {
        frequency_penalty: or("frequency_penalty", json!(0)),
        instructions: or("instructions", Value::Null),
        max_output_tokens: or("max_output_tokens", Value::Null),
        metadata: or("metadata", json!({})),
        parallel_tool_calls: or("parallel_tool_calls", json!(true)),
        presence_penalty: or("presence_penalty", json!(0)),
        prompt_cache_key: or("prompt_cache_key", Value::Null),
        reasoning: or("reasoning", json!({"effort": null, "summary": null})),
        safety_identifier: or("safety_identifier", Value::Null),
        text: or("text", json!({"format": {"type": "text"}})),
        tool_choice: or("tool_choice", json!("auto")),
        tools: or("tools", json!([])),
        top_logprobs: or("top_logprobs", json!(0)),
        truncation: or("truncation", json!("disabled")),
        user: or("user", Value::Null),
        temperature: or("temperature", temperature),
        top_p: or("top_p", top_p),
    }
}

/// A number with the fewest digits that identify it, so that 0.7 is not written as 0.699999988079071.
fn shortest(number: f32) -> Value {
    serde_json::from_str(&number.to_string()).unwrap_or_default()
}

fn new_id(prefix: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::new_v4().simple())
}
