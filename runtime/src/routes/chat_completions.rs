//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::body::JsonBytes;
use super::generation::{Shape, prepare, respond};
use super::logprobs;
use crate::answer::{Delta, ScoredToken, Whole};
use crate::error::ApiError;
use crate::request::{self, Prepared};
use crate::server::App;
use crate::tokenizer::Tokenizer;

/// Answers messages.
pub(super) async fn create(State(app): State<Arc<App>>, body: JsonBytes) -> Result<Response, ApiError> {
    let prepared = prepare(&app, body, request::chat).await?;
    let tokenizer = Arc::clone(&app.serving.get().ok_or(ApiError::Loading)?.tokenizer);
    let shape = Chat::new(&prepared, tokenizer, app.config.response_role.clone());
    respond(app, prepared, shape).await
}

struct Chat {
    tokenizer: Arc<Tokenizer>,
    has_logprobs: bool,
    role: String,
    /// Per choice, whether its first chunk, which tells the role, was sent.
    has_begun: Vec<bool>,
}

impl Chat {
    fn new(prepared: &Prepared, tokenizer: Arc<Tokenizer>, role: String) -> Self {
        Self {
            tokenizer,
            has_logprobs: prepared.answers.sampling.logprobs.is_some(),
            role,
            has_begun: vec![false; prepared.answers.n],
        }
    }

    fn logprobs(&self, tokens: &[ScoredToken]) -> Option<Value> {
        self.has_logprobs
            .then(|| logprobs::chat(tokens, self.tokenizer.tokens()))
    }
}

impl Shape for Chat {
    const ID_PREFIX: &'static str = "chatcmpl-";
    const WHOLE: &'static str = "chat.completion";
    const CHUNK: &'static str = "chat.completion.chunk";

    fn whole(&mut self, choice_idx: usize, whole: Whole) -> Value {
        json!({
            "index": choice_idx,
            "message": {"role": self.role, "content": whole.text, "refusal": null},
            "logprobs": self.logprobs(&whole.tokens),
            "finish_reason": whole.finish.map(|finish| finish.label()),
        })
    }

    fn chunks(&mut self, delta: Delta) -> Vec<Value> {
        let Delta {
            choice_idx,
            text,
            tokens,
            n_generated: _,
            n_cached: _,
            finish,
        } = delta;
        let chunk = |delta: Value, logprobs: Option<Value>, finish: Option<&str>| json!({"index": choice_idx, "delta": delta, "logprobs": logprobs, "finish_reason": finish});
        let mut chunks = Vec::new();
        if !std::mem::replace(&mut self.has_begun[choice_idx], true) {
            chunks.push(chunk(json!({"role": self.role, "content": ""}), None, None));
        }
        let mut logprobs = Some(tokens)
            .filter(|tokens| !tokens.is_empty())
            .and_then(|tokens| self.logprobs(&tokens));
        if !text.is_empty() {
            chunks.push(chunk(json!({"content": text}), logprobs.take(), None));
        }
        if let Some(finish) = finish {
            chunks.push(chunk(json!({}), logprobs, Some(finish.label())));
        }
        chunks
    }
}
