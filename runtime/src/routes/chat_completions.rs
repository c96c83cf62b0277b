//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::body::JsonBytes;
use super::generation::{RequestName, Shape, prepare, respond};
use crate::answer::{Delta, Finish, PromptLogprobs, Token, Whole};
use crate::error::ApiError;
use crate::request::{self, Prepared};
use crate::response::Answer;
use crate::response::chat::{Choice, ChunkChoice, DeltaMessage, Message};
use crate::response::logprobs::{self, Names};
use crate::server::App;
use crate::tokenizer::Tokenizer;

/// Answers messages.
pub(super) async fn create(
    State(app): State<Arc<App>>,
    name: RequestName,
    body: JsonBytes,
) -> Result<Response, ApiError> {
    let prepared = prepare(&app, body, request::chat).await?;
    let tokenizer = Arc::clone(&app.serving.get().ok_or(ApiError::Loading)?.tokenizer);
    let shape = Chat::new(&prepared, tokenizer, app.config.response_role.clone());
    respond(app, (name, prepared), shape).await
}

struct Chat {
    tokenizer: Arc<Tokenizer>,
    has_logprobs: bool,
    tokens_as_ids: bool,
    has_token_ids: bool,
    role: String,
    /// Text with which answers begin.
    echo: String,
    /// Log-probabilities of the prompt.
    prompt: Option<PromptLogprobs>,
    /// Per choice, whether its first chunk, which tells the role, was sent.
    has_begun: Vec<bool>,
}

impl Chat {
    fn new(prepared: &Prepared, tokenizer: Arc<Tokenizer>, role: String) -> Self {
        let answers = &prepared.answers;
        Self {
            tokenizer,
            has_logprobs: answers.logprobs.is_some(),
            tokens_as_ids: answers.tokens_as_ids,
            has_token_ids: answers.token_ids,
            role,
            echo: prepared.prompts[0].echo.clone().unwrap_or_default(),
            prompt: None,
            has_begun: vec![false; answers.n],
        }
    }

    fn names(&self) -> Names<'_> {
        Names {
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
        Choice {
            index: choice_idx,
            message: Message {
                role: self.role.clone(),
                content: Some(format!("{}{}", self.echo, whole.text)),
                refusal: None,
            },
            logprobs: self.logprobs(&whole.tokens),
            finish_reason: finish.map(Finish::label),
            stop_reason: finish.and_then(Finish::stop_reason).map(Into::into),
            token_ids: self.token_ids(&whole.tokens),
        }
    }

    fn chunks(&mut self, delta: Delta) -> Vec<ChunkChoice> {
        let Delta {
            choice_idx,
            text,
            tokens,
            prompt: _,
            n_generated: _,
            n_cached: _,
            finish,
        } = delta;
        let chunk = |delta: DeltaMessage| ChunkChoice {
            index: choice_idx,
            delta,
            logprobs: None,
            finish_reason: None,
            stop_reason: None,
            token_ids: None,
        };
        let said = |content: String| DeltaMessage {
            content: Some(content),
            ..DeltaMessage::default()
        };
        let mut chunks = Vec::new();
        if !std::mem::replace(&mut self.has_begun[choice_idx], true) {
            let role = Some(self.role.clone());
            chunks.push(chunk(DeltaMessage {
                role,
                content: Some(String::new()),
            }));
            if !self.echo.is_empty() {
                chunks.push(chunk(said(self.echo.clone())));
            }
        }
        if !text.is_empty() {
            chunks.push(chunk(said(text)));
        }
        if let Some(finish) = &finish {
            let mut last = chunk(DeltaMessage::default());
            last.finish_reason = Some(finish.label());
            last.stop_reason = finish.stop_reason().map(Into::into);
            chunks.push(last);
        }
        // They belong to the text, and where a piece has none, to the end.
        let bearer = chunks
            .iter()
            .position(|chunk| chunk.delta.role.is_none() && chunk.delta.content.is_some());
        let n_chunks = chunks.len();
        if let Some(chunk) = chunks.get_mut(bearer.unwrap_or(n_chunks.saturating_sub(1)))
            && !tokens.is_empty()
        {
            chunk.logprobs = self.logprobs(&tokens);
            chunk.token_ids = self.token_ids(&tokens);
        }
        chunks
    }

    fn complete(&self, prepared: &Prepared, answer: &mut Answer<'_, Choice>) {
        if self.has_token_ids {
            answer.prompt_token_ids = Some(prepared.prompts[0].ids.clone());
        }
        if let (Some(n_top), Some(scored)) = (prepared.prompt_logprobs, &self.prompt) {
            let names = self.names();
            answer.prompt_logprobs = Some(logprobs::prompt(&prepared.prompts[0].ids, scored, n_top, names));
        }
    }
}
