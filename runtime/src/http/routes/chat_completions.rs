//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::post;

use crate::api::answer::{Delta, Finish, PromptLogprobs, Token, Whole};
use crate::api::error::ApiError;
use crate::api::openapi::{Access, BodyOperation, Operation, RouteDoc, schema};
use crate::api::request::parameters::CHAT_COMPLETIONS;
use crate::api::request::{self, CallStyle, Prepared};
use crate::api::response::Answer;
use crate::api::response::ErrorBody;
use crate::api::response::chat::{
    Choice, ChunkChoice, DeltaMessage, Function, FunctionDelta, Message, ToolCall, ToolCallDelta,
};
use crate::api::response::logprobs::{self, TokenNames};
use crate::http::app::App;
use crate::http::body::JsonBytes;
use crate::http::generation::{prepare, respond};
use crate::http::request_id::RequestName;
use crate::http::route::{Dialect, Route};
use crate::http::shape::Shape;
use crate::parsers::{Call, Parts, Piece};
use crate::tokenizer::Tokenizer;

/// The route.
pub(super) const CREATE: Route = Route {
    doc: RouteDoc {
        path: "/v1/chat/completions",
        methods: &["post"],
        summary: "Answer a conversation",
        access: Access::Key,
        operation: Some(Operation::Body(BodyOperation {
            body: &CHAT_COMPLETIONS,
            answer: schema::<Answer<'_, Choice>>,
            event: Some(schema::<Answer<'_, ChunkChoice>>),
            error: schema::<ErrorBody>,
        })),
    },
    handler: || post(create),
    dialect: Dialect::Openai,
};

/// Answers messages.
pub(super) async fn create(
    State(app): State<Arc<App>>,
    name: RequestName,
    body: JsonBytes,
) -> Result<Response, ApiError> {
    let prepared = prepare(&app, body, request::chat).await?;
    let tokenizer = Arc::clone(&app.ready()?.tokenizer);
    let shape = Chat::new(&prepared, tokenizer, app.config.response_role.clone());
    respond(app, (name, prepared), shape).await
}

struct Chat {
    tokenizer: Arc<Tokenizer>,
    has_logprobs: bool,
    tokens_as_ids: bool,
    has_token_ids: bool,
    role: String,
    /// The last piece of a stream has the last text.
    ends_with_text: bool,
    /// Text with which answers begin.
    echo: String,
    /// Tokens of the prompt, if requested and not sent yet.
    prompt_ids: Option<Vec<u32>>,
    /// Log-probabilities of the prompt.
    prompt: Option<PromptLogprobs>,
    calls: CallStyle,
    /// Per choice, whether its first chunk, which contains the role, was sent.
    has_begun: Vec<bool>,
    /// Per choice, whether it made a call.
    has_called: Vec<bool>,
}

impl Chat {
    fn new(prepared: &Prepared, tokenizer: Arc<Tokenizer>, role: String) -> Self {
        let answers = &prepared.answers;
        let has_token_ids = answers.token_ids && !answers.parsing.hides_reasoning;
        Self {
            tokenizer,
            // Tokens would reveal the thoughts that the request hides.
            has_logprobs: answers.logprobs.is_some() && !answers.parsing.hides_reasoning,
            tokens_as_ids: answers.tokens_as_ids,
            has_token_ids,
            role,
            ends_with_text: answers.stream.is_some_and(|stream| stream.continuous_usage_stats),
            echo: prepared.prompts[0].echo.clone().unwrap_or_default(),
            prompt_ids: has_token_ids.then(|| prepared.prompts[0].ids.clone()),
            prompt: None,
            calls: prepared.calls,
            has_begun: vec![false; answers.n],
            has_called: vec![false; answers.n],
        }
    }

    fn message(&self, parts: Parts) -> Message {
        let Parts {
            reasoning,
            content,
            calls,
        } = parts;
        let reasoning = Some(reasoning).filter(|reasoning| !reasoning.is_empty());
        let has_nothing_else = reasoning.is_none() && calls.is_empty();
        let content =
            Some(format!("{}{content}", self.echo)).filter(|content| !content.is_empty() || has_nothing_else);
        let function = |call: Call| Function {
            name: call.name,
            arguments: call.arguments,
        };
        let mut message = Message {
            role: self.role.clone(),
            content,
            refusal: None,
            reasoning_content: reasoning.clone(),
            reasoning,
            tool_calls: Vec::new(),
            function_call: None,
        };
        if self.calls == CallStyle::Legacy {
            message.function_call = calls.into_iter().next().map(function);
            return message;
        }
        let call = |call: Call| ToolCall {
            id: call.id.clone(),
            r#type: "function",
            function: function(call),
        };
        message.tool_calls = calls.into_iter().map(call).collect();
        message
    }

    /// OpenAI's `finish_reason`; a call that the request demanded by name is not a reason of its own.
    fn finish_reason(&self, finish: &Finish, has_called: bool) -> &'static str {
        match (finish, self.calls) {
            (Finish::Stop(_), CallStyle::Legacy) if has_called => "function_call",
            (Finish::Stop(_), CallStyle::Chosen | CallStyle::Required) if has_called => "tool_calls",
            _ => finish.label(),
        }
    }

    fn delta_message(&self, piece: Piece) -> DeltaMessage {
        let nothing = DeltaMessage::default();
        let call = |index: usize, id: Option<String>, function: FunctionDelta| match self.calls {
            CallStyle::Legacy => DeltaMessage {
                function_call: Some(function),
                ..DeltaMessage::default()
            },
            _ => DeltaMessage {
                tool_calls: vec![ToolCallDelta {
                    index,
                    r#type: id.as_ref().map(|_| "function"),
                    id,
                    function,
                }],
                ..DeltaMessage::default()
            },
        };
        match piece {
            Piece::Content(text) => DeltaMessage {
                content: Some(text),
                ..nothing
            },
            Piece::Reasoning(text) => DeltaMessage {
                reasoning: Some(text.clone()),
                reasoning_content: Some(text),
                ..nothing
            },
            Piece::Call { index, id, name } => {
                let arguments = String::new();
                let name = Some(name);
                call(index, Some(id), FunctionDelta { name, arguments })
            }
            Piece::Arguments { index, text } => {
                let function = FunctionDelta {
                    name: None,
                    arguments: text,
                };
                call(index, None, function)
            }
        }
    }

    fn names(&self) -> TokenNames<'_> {
        TokenNames {
            tokens: self.tokenizer.tokens(),
            as_ids: self.tokens_as_ids,
        }
    }

    fn logprobs(&self, tokens: &[Token]) -> Option<logprobs::Chat> {
        self.has_logprobs.then(|| logprobs::chat(tokens, self.names()))
    }

    fn token_ids(&self, tokens: &[Token]) -> Option<Vec<u32>> {
        self.has_token_ids
            .then(|| tokens.iter().map(|token| token.id).collect())
    }
}

impl Shape for Chat {
    const ID_PREFIX: &'static str = "chatcmpl-";
    const WHOLE: &'static str = "chat.completion";
    const CHUNK: &'static str = "chat.completion.chunk";
    type Choice = Choice;
    type ChunkChoice = ChunkChoice;

    fn whole(&mut self, choice_idx: usize, whole: Whole) -> Choice {
        if choice_idx == 0 {
            self.prompt = whole.prompt;
        }
        let finish = whole.finish.as_ref();
        let message = self.message(whole.parts);
        let has_called = !message.tool_calls.is_empty() || message.function_call.is_some();
        Choice {
            index: choice_idx,
            message,
            logprobs: self.logprobs(&whole.tokens),
            finish_reason: finish.map(|finish| self.finish_reason(finish, has_called)),
            stop_reason: finish.and_then(Finish::stop_reason).map(Into::into),
            token_ids: self.token_ids(&whole.tokens),
        }
    }

    fn chunks(&mut self, delta: Delta, chunks: &mut Vec<ChunkChoice>) {
        let Delta {
            choice_idx,
            pieces,
            tokens,
            finish,
            ..
        } = delta;
        let chunk = |delta: DeltaMessage| ChunkChoice {
            index: choice_idx,
            delta,
            logprobs: None,
            finish_reason: None,
            stop_reason: None,
            token_ids: None,
        };
        self.has_called[choice_idx] |= pieces.iter().any(|piece| matches!(piece, Piece::Call { .. }));
        if !std::mem::replace(&mut self.has_begun[choice_idx], true) {
            let role = Some(self.role.clone());
            chunks.push(chunk(DeltaMessage {
                role,
                content: Some(String::new()),
                ..DeltaMessage::default()
            }));
            if !self.echo.is_empty() {
                chunks.push(chunk(self.delta_message(Piece::Content(self.echo.clone()))));
            }
        }
        chunks.extend(pieces.into_iter().map(|piece| chunk(self.delta_message(piece))));
        if let Some(finish) = &finish {
            // OpenAI's last piece is empty; vLLM's has the text, so that the count of tokens grows with each chunk.
            let is_apart =
                !self.ends_with_text || chunks.last().is_none_or(|chunk| chunk.delta.role.is_some());
            if is_apart {
                chunks.push(chunk(DeltaMessage {
                    content: self.ends_with_text.then(String::new),
                    ..DeltaMessage::default()
                }));
            }
            let last = chunks.last_mut().expect("one was pushed, or there");
            last.finish_reason = Some(self.finish_reason(finish, self.has_called[choice_idx]));
            last.stop_reason = finish.stop_reason().map(Into::into);
        }
        // They belong to the text, and where a piece has none, to the end.
        let bearer = chunks
            .iter()
            .position(|chunk| chunk.delta != DeltaMessage::default() && chunk.delta.role.is_none());
        let n_chunks = chunks.len();
        if let Some(chunk) = chunks.get_mut(bearer.unwrap_or(n_chunks.saturating_sub(1)))
            && !tokens.is_empty()
        {
            chunk.logprobs = self.logprobs(&tokens);
            chunk.token_ids = self.token_ids(&tokens);
        }
    }

    fn take_prompt_ids(&mut self) -> Option<Vec<u32>> {
        self.prompt_ids.take()
    }

    fn complete(&mut self, prepared: &Prepared, answer: &mut Answer<'_, Choice>) {
        answer.prompt_token_ids = self.take_prompt_ids();
        if let (Some(n_top), Some(scored)) = (prepared.prompt_logprobs, &self.prompt) {
            let names = self.names();
            answer.prompt_logprobs = Some(logprobs::prompt(&prepared.prompts[0].ids, scored, n_top, names));
        }
    }
}
