//! `POST /v1/completions`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::post;

use crate::api::answer::{Delta, Finish, Whole};
use crate::api::error::ApiError;
use crate::api::openapi::{Access, BodyOperation, Operation, RouteDoc, schema};
use crate::api::request::parameters::COMPLETIONS;
use crate::api::request::{self, Prepared, Prompt};
use crate::api::response::Answer;
use crate::api::response::ErrorBody;
use crate::api::response::completion::Choice;
use crate::api::response::logprobs::{self, TokenNames};
use crate::http::app::App;
use crate::http::body::JsonBytes;
use crate::http::generation::{prepare, respond};
use crate::http::request_id::RequestName;
use crate::http::route::{Dialect, Route};
use crate::http::shape::Shape;
use crate::tokenizer::Tokenizer;

/// The route.
pub(super) const CREATE: Route = Route {
    doc: RouteDoc {
        path: "/v1/completions",
        methods: &["post"],
        summary: "Continue prompts",
        access: Access::Key,
        operation: Some(Operation::Body(BodyOperation {
            body: &COMPLETIONS,
            answer: schema::<Answer<'_, Choice>>,
            event: Some(schema::<Answer<'_, Choice>>),
            error: schema::<ErrorBody>,
        })),
    },
    handler: || post(create),
    dialect: Dialect::Openai,
};

/// Continues prompts.
pub(super) async fn create(
    State(app): State<Arc<App>>,
    name: RequestName,
    body: JsonBytes,
) -> Result<Response, ApiError> {
    let prepared = prepare(&app, body, request::completion).await?;
    let tokenizer = Arc::clone(&app.ready()?.tokenizer);
    let shape = Completion::new(&prepared, tokenizer);
    respond(app, (name, prepared), shape).await
}

struct Completion {
    tokenizer: Arc<Tokenizer>,
    /// Alternatives to the answer's tokens, if their log-probabilities are requested.
    logprobs: Option<usize>,
    tokens_as_ids: bool,
    has_token_ids: bool,
    /// Alternatives to the prompt's tokens, if `prompt_logprobs` requests them.
    prompt_logprobs: Option<usize>,
    echoes_logprobs: bool,
    /// Nothing but the prompt is shown.
    only_prompt: bool,
    n: usize,
    prompts: Vec<Prompt>,
    /// Per choice, whether something was sent.
    has_begun: Vec<bool>,
    /// Per choice, characters of the tokens so far.
    offsets: Vec<usize>,
}

impl Completion {
    fn new(prepared: &Prepared, tokenizer: Arc<Tokenizer>) -> Self {
        let answers = &prepared.answers;
        let n_choices = prepared.prompts.len() * answers.n;
        Self {
            tokenizer,
            logprobs: answers.logprobs,
            tokens_as_ids: answers.tokens_as_ids,
            has_token_ids: answers.token_ids,
            prompt_logprobs: prepared.prompt_logprobs,
            echoes_logprobs: answers.echoes_logprobs,
            only_prompt: answers.only_prompt,
            n: answers.n,
            prompts: prepared.prompts.clone(),
            has_begun: vec![false; n_choices],
            offsets: vec![0; n_choices],
        }
    }

    fn choice(&mut self, choice_idx: usize, piece: Whole) -> Choice {
        let Whole {
            parts,
            tokens,
            prompt: scored,
            finish,
            ..
        } = piece;
        let prompt = &self.prompts[choice_idx / self.n];
        let is_first = !std::mem::replace(&mut self.has_begun[choice_idx], true);
        let echo = prompt.echo.as_ref().filter(|_| is_first);
        let (text, tokens, finish) = if self.only_prompt {
            (String::new(), &[][..], finish.map(|_| Finish::Length))
        } else {
            (parts.content, &tokens[..], finish)
        };
        let names = TokenNames {
            tokens: self.tokenizer.tokens(),
            as_ids: self.tokens_as_ids,
        };
        let logprobs = self.logprobs.map(|n_top| {
            let mut logprobs = logprobs::Completion::default();
            let scored = scored
                .as_deref()
                .filter(|_| self.echoes_logprobs)
                .unwrap_or_default();
            let echoed = prompt.ids.iter().copied().zip(scored.iter().map(Option::as_ref));
            // A token that only ended the answer has none.
            let own = tokens
                .iter()
                .filter_map(|token| Some((token.id, Some(token.logprobs.as_ref()?))));
            for (token, scored) in echoed.chain(own) {
                let scored = logprobs::ScoredToken {
                    token,
                    logprobs: scored,
                };
                logprobs.push(scored, names, n_top, &mut self.offsets[choice_idx]);
            }
            logprobs
        });
        Choice {
            index: choice_idx,
            text: echo.cloned().unwrap_or_default() + &text,
            logprobs,
            finish_reason: finish.as_ref().map(Finish::label),
            stop_reason: finish.as_ref().and_then(Finish::stop_reason).map(Into::into),
            token_ids: self
                .has_token_ids
                .then(|| tokens.iter().map(|token| token.id).collect()),
            prompt_token_ids: (self.has_token_ids && is_first).then(|| prompt.ids.clone()),
            prompt_logprobs: self
                .prompt_logprobs
                .and_then(|n_top| Some(logprobs::prompt(&prompt.ids, scored.as_deref()?, n_top, names))),
        }
    }
}

impl Shape for Completion {
    const ID_PREFIX: &'static str = "cmpl-";
    const WHOLE: &'static str = "text_completion";
    const CHUNK: &'static str = "text_completion";
    type Choice = Choice;
    type ChunkChoice = Choice;

    fn whole(&mut self, choice_idx: usize, whole: Whole) -> Choice {
        self.choice(choice_idx, whole)
    }

    fn chunks(&mut self, delta: Delta, chunks: &mut Vec<Choice>) {
        let choice_idx = delta.choice_idx;
        chunks.push(self.choice(choice_idx, delta.into()));
    }
}
