//! `POST /v1/completions`.

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

/// Continues prompts.
pub(super) async fn create(State(app): State<Arc<App>>, body: JsonBytes) -> Result<Response, ApiError> {
    let prepared = prepare(&app, body, request::completion).await?;
    let tokenizer = Arc::clone(&app.serving.get().ok_or(ApiError::Loading)?.tokenizer);
    let shape = Completion::new(&prepared, tokenizer);
    respond(app, prepared, shape).await
}

struct Completion {
    tokenizer: Arc<Tokenizer>,
    has_logprobs: bool,
    /// Per choice, the prompt's text while it is still to be sent.
    echoes: Vec<Option<String>>,
    /// Per choice, characters of the tokens so far.
    offsets: Vec<usize>,
}

impl Completion {
    fn new(prepared: &Prepared, tokenizer: Arc<Tokenizer>) -> Self {
        let n = prepared.answers.n;
        let echoes = prepared
            .prompts
            .iter()
            .flat_map(|prompt| vec![prompt.echo.clone(); n]);
        Self {
            tokenizer,
            has_logprobs: prepared.answers.sampling.logprobs.is_some(),
            echoes: echoes.collect(),
            offsets: vec![0; prepared.prompts.len() * n],
        }
    }

    fn entry(&mut self, choice_idx: usize, text: String, tokens: &[ScoredToken]) -> Value {
        let text = self.echoes[choice_idx].take().unwrap_or_default() + &text;
        let offset = &mut self.offsets[choice_idx];
        let logprobs = self
            .has_logprobs
            .then(|| logprobs::completion(tokens, self.tokenizer.tokens(), offset));
        json!({"index": choice_idx, "text": text, "logprobs": logprobs, "finish_reason": null})
    }
}

impl Shape for Completion {
    const ID_PREFIX: &'static str = "cmpl-";
    const WHOLE: &'static str = "text_completion";
    const CHUNK: &'static str = "text_completion";

    fn whole(&mut self, choice_idx: usize, whole: Whole) -> Value {
        let mut entry = self.entry(choice_idx, whole.text, &whole.tokens);
        entry["finish_reason"] = whole.finish.map(|finish| finish.label()).into();
        entry
    }

    fn chunks(&mut self, delta: Delta) -> Vec<Value> {
        let mut entry = self.entry(delta.choice_idx, delta.text, &delta.tokens);
        entry["finish_reason"] = delta.finish.map(|finish| finish.label()).into();
        vec![entry]
    }
}
