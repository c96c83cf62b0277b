//! The errors that a client receives.
//!
//! Owns status, OpenAI body and metric label of each error. Must not know how a request is parsed or run. The errors of a
//! process that cannot start are in `config` and `server`.

pub use crds::schema::shortened;
use serde_json::{Value, json};

use crate::engine::{AdmitError, RequestFailure, SampleError, SubmitError};
use crate::preparation::{Stopped, Unprepared};

/// Seconds after which a client may try again while the process loads or drains.
const RETRY_AFTER_S: u64 = 5;

/// Why a request has no answer. `Display` is the text for the client.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApiError {
    /// The body is not JSON.
    #[error("the body is not valid JSON: {reason}")]
    BrokenJson {
        /// The parser's error, with line and column.
        reason: String,
    },
    /// The body is JSON but not an object.
    #[error("the body must be a JSON object")]
    NotAnObject,
    /// A parameter has the wrong type or is outside its range.
    #[error("{param} must be {expected}, but is {got}")]
    InvalidValue {
        /// Path of the parameter, such as `messages[0].content`.
        param: String,
        /// The values it may have.
        expected: String,
        /// The value it has, shortened.
        got: String,
    },
    /// A required parameter is absent.
    #[error("{param} is missing")]
    Missing {
        /// Path of the parameter.
        param: String,
    },
    /// A parameter of OpenAI's or vLLM's API that this version does not support.
    #[error("{param} is not supported. {advice}")]
    Unsupported {
        /// Path of the parameter.
        param: String,
        /// A sentence: why, or what to do instead.
        advice: String,
    },
    /// An unknown parameter, in strict mode.
    #[error("{param} is not a parameter of this route, and this server refuses unknown parameters")]
    UnknownParameter {
        /// Its name.
        param: String,
    },
    /// Two parameters contradict each other, or one contradicts the model.
    #[error("{param}: {reason}")]
    Contradiction {
        /// Path of one parameter.
        param: String,
        /// The contradiction.
        reason: String,
    },
    /// The form that the request requires could not be followed up to the end of the answer.
    #[error("the form that the request requires cannot be followed: {reason}")]
    FormNotFollowed {
        /// Why.
        reason: String,
    },
    /// Prompt and answer do not fit into the model's context or the KV cache.
    #[error("{reason}")]
    TooLong {
        /// The parameter to make smaller.
        param: String,
        /// The limit, and the value that exceeds it.
        reason: String,
    },
    /// The chat template refuses the messages or fails.
    #[error("the chat template does not accept the messages: {reason}")]
    Template {
        /// Path of the messages.
        param: String,
        /// The template's error.
        reason: String,
    },
    /// There is no key, or it is wrong.
    #[error("a valid API key is required: Authorization: Bearer KEY")]
    InvalidApiKey,
    /// The model is not served here.
    #[error("the model '{model}' does not exist; this server has {}", served.join(", "))]
    UnknownModel {
        /// The requested name, shortened.
        model: String,
        /// Every served name.
        served: Vec<String>,
    },
    /// The model is served here, but it is not for this route.
    #[error("the model '{model}' does not {wanted}; it {does}")]
    WrongTask {
        /// The requested name.
        model: String,
        /// What the route needs, such as `generate text`.
        wanted: &'static str,
        /// What the model is for, such as `generates text`.
        does: &'static str,
    },
    /// There is no such job, or its results have expired.
    #[error("there is no job '{id}' on this server")]
    UnknownJob {
        /// The requested id, shortened.
        id: String,
    },
    /// Answers are not stored, so no id exists.
    #[error("Response with id '{id}' not found. Answers are not stored here.")]
    UnknownResponse {
        /// The requested id, shortened.
        id: String,
    },
    /// There is no such route.
    #[error("there is no route {path}")]
    UnknownRoute {
        /// Path of the request, shortened.
        path: String,
    },
    /// The route exists, but not for this method.
    #[error("{method} is not a method of {path}")]
    MethodNotAllowed {
        /// Method of the request.
        method: String,
        /// Path of the request, shortened.
        path: String,
    },
    /// The body did not arrive in time.
    #[error("the body did not arrive within {timeout_s} s")]
    BodyTimeout {
        /// Longest time for a body, seconds.
        timeout_s: u64,
    },
    /// The connection ended before the end of the body.
    #[error("the body is incomplete")]
    BodyCut,
    /// The body is larger than any request may be.
    #[error("the body is larger than {bytes_max} bytes")]
    BodyTooLarge {
        /// Largest body, bytes.
        bytes_max: usize,
    },
    /// The body has more values than may be held.
    #[error("the body has too many JSON values: parsed, they take more than {bytes_max} bytes")]
    TooManyValues {
        /// Most bytes of the values of a body.
        bytes_max: usize,
    },
    /// There is no memory for the body now.
    #[error("this replica has no memory for another large body; try again in {retry_after_s} s")]
    NoMemory {
        /// Seconds until there is probably memory.
        retry_after_s: u64,
    },
    /// The content type is not JSON.
    #[error("the content type of the body must be application/json")]
    MediaType,
    /// The body is compressed.
    #[error("the body is compressed; send it without the header Content-Encoding")]
    ContentEncoding,
    /// The queue is full.
    #[error("this replica has no room for another request; try again in {retry_after_s} s")]
    QueueFull {
        /// Seconds until there is probably room.
        retry_after_s: u64,
    },
    /// The work before the first token took too long.
    #[error(
        "preparing this request took longer than {limit_s} s; make it smaller, or try again when this replica has less \
         to do"
    )]
    SlowPreparation {
        /// The longest time, in seconds.
        limit_s: u64,
    },
    /// There is no room for another job.
    #[error(
        "this replica has no room for another job; fetch the results of finished jobs, or try again later"
    )]
    JobsFull,
    /// The model is not loaded yet.
    #[error("the model is being loaded")]
    Loading,
    /// The process stops soon.
    #[error("this replica is shutting down")]
    Draining,
    /// The process stopped before the answer was complete.
    #[error("the answer was cut off because this replica is shutting down")]
    Aborted,
    /// The client did not read its answer.
    #[error("the answer was cut off because the client did not read it")]
    Unread,
    /// The engine or the server failed. Details are in the log, not in the answer.
    #[error("internal error; the server's log has the details")]
    Internal,
}

/// The HTTP form of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// HTTP status code.
    pub status: u16,
    /// OpenAI's `error.type`.
    pub kind: &'static str,
    /// OpenAI's `error.code`.
    pub code: Option<&'static str>,
    /// Metric label, one per variant.
    pub label: &'static str,
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

impl ApiError {
    /// A value of the wrong type or range.
    pub fn invalid(param: impl Into<String>, expected: impl Into<String>, got: &Value) -> Self {
        Self::InvalidValue {
            param: param.into(),
            expected: expected.into(),
            got: shortened(&got.to_string()),
        }
    }

    /// A parameter that is absent.
    pub fn missing(param: impl Into<String>) -> Self {
        Self::Missing { param: param.into() }
    }

    /// A parameter that contradicts another one or the model.
    pub fn contradiction(param: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Contradiction {
            param: param.into(),
            reason: reason.into(),
        }
    }

    /// A prompt of `n_tokens` tokens or more, where at most `n_tokens_max` have room. Clients that shorten a conversation
    /// look for the first words and the two numbers, which are those of Anthropic's API.
    pub fn prompt_too_long(param: impl Into<String>, n_tokens: usize, n_tokens_max: usize) -> Self {
        Self::TooLong {
            param: param.into(),
            reason: format!(
                "prompt is too long: {n_tokens} tokens > {n_tokens_max} maximum. Please reduce the length of the input."
            ),
        }
    }

    /// Status, type, code and label.
    pub fn facts(&self) -> Facts {
        let (status, kind, code, label) = match self {
            Self::BrokenJson { .. } => (400, INVALID, Some("invalid_json"), "broken_json"),
            Self::NotAnObject => (400, INVALID, Some("invalid_type"), "not_an_object"),
            Self::InvalidValue { .. } => (400, INVALID, Some("invalid_value"), "invalid_value"),
            Self::Missing { .. } => (400, INVALID, Some("missing_required_parameter"), "missing"),
            Self::Unsupported { .. } => (400, INVALID, Some("unsupported_parameter"), "unsupported"),
            Self::UnknownParameter { .. } => (400, INVALID, Some("unknown_parameter"), "unknown_parameter"),
            Self::Contradiction { .. } => (400, INVALID, Some("invalid_value"), "contradiction"),
            Self::FormNotFollowed { .. } => (400, INVALID, Some("form_not_followed"), "form_not_followed"),
            Self::TooLong { .. } => (400, INVALID, Some("context_length_exceeded"), "too_long"),
            Self::Template { .. } => (400, INVALID, Some("invalid_messages"), "template"),
            Self::InvalidApiKey => (401, INVALID, Some("invalid_api_key"), "invalid_api_key"),
            Self::UnknownModel { .. } => (404, INVALID, Some("model_not_found"), "unknown_model"),
            Self::UnknownJob { .. } => (404, INVALID, Some("job_not_found"), "unknown_job"),
            Self::UnknownResponse { .. } => (404, INVALID, Some("response_not_found"), "unknown_response"),
            Self::WrongTask { .. } => (400, INVALID, Some("unsupported_model"), "wrong_task"),
            Self::UnknownRoute { .. } => (404, INVALID, Some("unknown_url"), "unknown_route"),
            Self::MethodNotAllowed { .. } => (405, INVALID, Some("method_not_supported"), "method"),
            Self::BodyTimeout { .. } => (408, INVALID, Some("body_timeout"), "body_timeout"),
            Self::BodyCut => (400, INVALID, Some("body_cut"), "body_cut"),
            Self::BodyTooLarge { .. } => (413, INVALID, Some("body_too_large"), "body_too_large"),
            Self::TooManyValues { .. } => (400, INVALID, Some("too_many_values"), "too_many_values"),
            Self::NoMemory { .. } => (429, "rate_limit_error", Some("rate_limit_exceeded"), "no_memory"),
            Self::MediaType => (415, INVALID, Some("unsupported_media_type"), "media_type"),
            Self::ContentEncoding => (415, INVALID, Some("unsupported_encoding"), "content_encoding"),
            Self::QueueFull { .. } => (429, "rate_limit_error", Some("rate_limit_exceeded"), "queue_full"),
            Self::SlowPreparation { .. } => (503, SERVER, Some("preparation_timeout"), "slow_preparation"),
            Self::JobsFull => (429, "rate_limit_error", Some("rate_limit_exceeded"), "jobs_full"),
            Self::Loading => (503, SERVER, Some("model_loading"), "loading"),
            Self::Draining => (503, SERVER, Some("shutting_down"), "draining"),
            Self::Aborted => (503, SERVER, Some("shutting_down"), "aborted"),
            Self::Unread => (408, INVALID, Some("answer_not_read"), "unread"),
            Self::Internal => (500, SERVER, Some("internal_error"), "internal"),
        };
        Facts {
            status,
            kind,
            code,
            label,
        }
    }

    /// The wrong parameter.
    pub fn param(&self) -> Option<&str> {
        match self {
            Self::InvalidValue { param, .. }
            | Self::Missing { param }
            | Self::Unsupported { param, .. }
            | Self::UnknownParameter { param }
            | Self::Contradiction { param, .. }
            | Self::TooLong { param, .. }
            | Self::Template { param, .. } => Some(param),
            Self::UnknownResponse { .. } => Some("response_id"),
            Self::UnknownModel { .. } | Self::WrongTask { .. } => Some("model"),
            Self::BrokenJson { .. }
            | Self::NotAnObject
            | Self::FormNotFollowed { .. }
            | Self::InvalidApiKey
            | Self::UnknownRoute { .. }
            | Self::MethodNotAllowed { .. }
            | Self::BodyTimeout { .. }
            | Self::BodyCut
            | Self::BodyTooLarge { .. }
            | Self::TooManyValues { .. }
            | Self::NoMemory { .. }
            | Self::MediaType
            | Self::ContentEncoding
            | Self::QueueFull { .. }
            | Self::SlowPreparation { .. }
            | Self::UnknownJob { .. }
            | Self::JobsFull
            | Self::Loading
            | Self::Draining
            | Self::Aborted
            | Self::Unread
            | Self::Internal => None,
        }
    }

    /// The same error about a parameter of another name.
    pub fn about(mut self, name: impl FnOnce(&str) -> String) -> Self {
        if let Self::InvalidValue { param, .. }
        | Self::Missing { param }
        | Self::Unsupported { param, .. }
        | Self::UnknownParameter { param }
        | Self::Contradiction { param, .. }
        | Self::TooLong { param, .. }
        | Self::Template { param, .. } = &mut self
        {
            *param = name(param);
        }
        self
    }

    /// OpenAI's body.
    pub fn body(&self) -> Value {
        let Facts { kind, code, .. } = self.facts();
        json!({"error": {"message": self.to_string(), "type": kind, "param": self.param(), "code": code}})
    }

    /// Seconds after which the client may try again.
    pub fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::QueueFull { retry_after_s } | Self::NoMemory { retry_after_s } => Some(*retry_after_s),
            Self::JobsFull
            | Self::SlowPreparation { .. }
            | Self::Loading
            | Self::Draining
            | Self::Aborted => Some(RETRY_AFTER_S),
            _ => None,
        }
    }

    /// A refused submission; `prompt` is the parameter that contains the prompt.
    pub fn from_submit(error: SubmitError, prompt: &str) -> Self {
        match error {
            SubmitError::Refused {
                request_idx: _,
                error,
            } => Self::from_admit(error, prompt),
            SubmitError::QueueFull { retry_after_s } => Self::QueueFull { retry_after_s },
            SubmitError::TooMany {
                n_requests,
                n_requests_max,
            } => Self::Contradiction {
                param: "n".into(),
                reason: format!(
                    "the request needs {n_requests} answers; this replica runs at most {n_requests_max} at once"
                ),
            },
            SubmitError::Draining => Self::Draining,
            SubmitError::EngineDead => Self::Internal,
        }
    }

    fn from_admit(error: AdmitError, prompt: &str) -> Self {
        let reason = error.to_string();
        let param = prompt.to_string();
        match error {
            AdmitError::EmptyPrompt
            | AdmitError::NoMedia
            | AdmitError::TokenOutOfVocabulary { .. }
            | AdmitError::TokenTypes { .. } => Self::Contradiction { param, reason },
            AdmitError::PromptTooLong {
                n_prompt,
                max_model_len,
            } => {
                // A prompt as long as the context leaves no room for an answer.
                let n_max = max_model_len.min(n_prompt.saturating_sub(1));
                Self::prompt_too_long(param, n_prompt, n_max)
            }
            AdmitError::PromptAboveStep { .. } | AdmitError::NeverFits { .. } => {
                Self::TooLong { param, reason }
            }
            AdmitError::AnswerTooLong { .. } => Self::TooLong {
                param: "max_tokens".into(),
                reason,
            },
            AdmitError::NoPriorities { .. } => Self::Contradiction {
                param: "priority".into(),
                reason,
            },
            AdmitError::NoAnswersWanted | AdmitError::TooManyBeams { .. } => Self::Contradiction {
                param: "n".into(),
                reason,
            },
            AdmitError::NoTokensWanted => Self::Contradiction {
                param: "max_tokens".into(),
                reason,
            },
            AdmitError::MinAboveMax { .. } => Self::Contradiction {
                param: "min_tokens".into(),
                reason,
            },
            AdmitError::ParameterOutOfVocabulary { parameter, .. } => Self::Contradiction {
                param: parameter.into(),
                reason,
            },
            AdmitError::Sampling(invalid) => Self::InvalidValue {
                param: invalid.parameter.into(),
                expected: invalid.range.into(),
                got: invalid.value.to_string(),
            },
        }
    }
}

impl From<Stopped> for ApiError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::TimeUp { limit_s } => Self::SlowPreparation { limit_s },
            // Nobody reads this answer: the client left, or the work begins again in another place.
            Stopped::ClientLeft | Stopped::TooHeavy => Self::Aborted,
        }
    }
}

impl From<Unprepared> for ApiError {
    fn from(unprepared: Unprepared) -> Self {
        match unprepared {
            Unprepared::Busy => Self::QueueFull {
                retry_after_s: RETRY_AFTER_S,
            },
            Unprepared::TimeUp { limit_s } => Self::SlowPreparation { limit_s },
            Unprepared::Failed => Self::Internal,
        }
    }
}

impl From<&RequestFailure> for ApiError {
    fn from(failure: &RequestFailure) -> Self {
        match failure {
            // The request's own parameters exclude all tokens.
            RequestFailure::Sampling(SampleError::NoCandidate) => Self::Contradiction {
                param: "allowed_token_ids".into(),
                reason: "allowed_token_ids, bad_words, logit_bias, min_tokens and the form of the answer together \
                         exclude every token"
                    .into(),
            },
            // Every grammar comes from a request, and a compiled one fails only where it exceeds a bound.
            RequestFailure::Grammar(error) => Self::FormNotFollowed {
                reason: error.to_string(),
            },
            RequestFailure::Unread => Self::Unread,
            RequestFailure::Sampling(_) | RequestFailure::EngineDead => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all() -> Vec<ApiError> {
        let text = || "x".to_string();
        vec![
            ApiError::BrokenJson { reason: text() },
            ApiError::NotAnObject,
            ApiError::invalid("n", "a whole number", &json!("x")),
            ApiError::Missing { param: text() },
            ApiError::Unsupported {
                param: text(),
                advice: text(),
            },
            ApiError::UnknownParameter { param: text() },
            ApiError::Contradiction {
                param: text(),
                reason: text(),
            },
            ApiError::FormNotFollowed { reason: text() },
            ApiError::TooLong {
                param: text(),
                reason: text(),
            },
            ApiError::Template {
                param: text(),
                reason: text(),
            },
            ApiError::InvalidApiKey,
            ApiError::UnknownModel {
                model: text(),
                served: vec![text()],
            },
            ApiError::WrongTask {
                model: text(),
                wanted: "generate text",
                does: "makes embeddings",
            },
            ApiError::UnknownResponse { id: text() },
            ApiError::UnknownRoute { path: text() },
            ApiError::MethodNotAllowed {
                method: text(),
                path: text(),
            },
            ApiError::BodyTimeout { timeout_s: 1 },
            ApiError::BodyCut,
            ApiError::BodyTooLarge { bytes_max: 1 },
            ApiError::TooManyValues { bytes_max: 1 },
            ApiError::NoMemory { retry_after_s: 5 },
            ApiError::MediaType,
            ApiError::ContentEncoding,
            ApiError::QueueFull { retry_after_s: 7 },
            ApiError::SlowPreparation { limit_s: 5 },
            ApiError::UnknownJob { id: text() },
            ApiError::JobsFull,
            ApiError::Loading,
            ApiError::Draining,
            ApiError::Aborted,
            ApiError::Unread,
            ApiError::Internal,
        ]
    }

    #[test]
    fn every_variant_has_its_own_label() {
        let labels: BTreeSet<&str> = all().iter().map(|error| error.facts().label).collect();
        assert_eq!(labels.len(), all().len());
    }

    #[test]
    fn every_error_is_a_4xx_or_5xx_with_openais_four_fields() {
        for error in all() {
            let status = error.facts().status;
            assert!((400..600).contains(&status), "{error:?}");
            let body = error.body();
            let fields: Vec<&String> = body["error"].as_object().unwrap().keys().collect();
            assert_eq!(fields, ["message", "type", "param", "code"]);
        }
    }

    #[test]
    fn temporary_errors_have_a_retry_time() {
        for error in all() {
            let status = error.facts().status;
            assert_eq!(
                error.retry_after_s().is_some(),
                status == 429 || status == 503,
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_long_input_is_shortened_in_the_error() {
        let error = ApiError::invalid("n", "a whole number", &json!("ä".repeat(10_000)));
        assert!(error.to_string().chars().count() < 150, "{error}");
    }
}
