//! Prompts: their forms in a request, and how they become tokens within bounds.

use serde_json::Value;

use super::params::{Params, token_id};
use super::rules::Rules;
use crate::api::error::ApiError;
use crate::tokenizer::{Begin, Limit, PairLimit, Side, TokenizerError};

/// Longest text that is certainly encoded within some milliseconds, in bytes.
const LIGHT_TEXT_BYTES_MAX: usize = 16 << 10;

/// One prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Text with which the answer begins.
    pub echo: Option<String>,
}

/// A prompt in a request.
pub(super) enum PromptSource {
    Text(String),
    Tokens(Vec<u32>),
}

/// How a text becomes the tokens of a prompt.
#[derive(Clone, Copy, Debug)]
pub(super) struct PromptOptions {
    /// Whether the tokenizer adds the tokens with which a text begins.
    pub(super) begin: Begin,
    /// How the prompt is shortened.
    pub(super) cut: Cut,
}

/// How a prompt is shortened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// Number of tokens that are kept; `None`: all.
    n_max: Option<usize>,
    side: Side,
}

impl Cut {
    /// Reads `truncate_prompt_tokens` and `truncation_side`. -1 leaves room for an answer of `n_answer` tokens; if the
    /// context is too small for it, the answer ends with the context, and one token of it has room.
    pub(super) fn read(
        params: &mut Params,
        max_model_len: usize,
        n_answer: Option<usize>,
    ) -> Result<Self, ApiError> {
        let n_answer = n_answer.filter(|n| *n < max_model_len).unwrap_or(1);
        let room = max_model_len.saturating_sub(n_answer).max(1);
        let n_max = match params.integer("truncate_prompt_tokens")? {
            None => None,
            Some(-1) => Some(room),
            Some(0) => {
                let expected = "-1 or a whole number of at least 1";
                return Err(ApiError::invalid("truncate_prompt_tokens", expected, &0.into()));
            }
            Some(n) if n as usize > max_model_len => {
                return Err(ApiError::TooLong {
                    param: "truncate_prompt_tokens".into(),
                    reason: format!(
                        "truncate_prompt_tokens is {n}, more than the context of {max_model_len} tokens. \
                         Please select a smaller number."
                    ),
                });
            }
            Some(n) => Some(n as usize),
        };
        let default = params.default("truncation_side");
        let side = match params.text("truncation_side")?.as_deref().unwrap_or(default) {
            "right" => Side::Right,
            _ => Side::Left,
        };
        Ok(Self { n_max, side })
    }

    /// Keeps all tokens.
    pub(super) fn keep_all() -> Self {
        Self {
            n_max: None,
            side: Side::Left,
        }
    }

    /// The same with at most `n` tokens.
    pub(super) fn at_most(self, n: usize) -> Self {
        let n_max = self.n_max.unwrap_or(usize::MAX).min(n);
        Self {
            n_max: Some(n_max),
            ..self
        }
    }

    /// The same with room for `n` further tokens.
    pub(super) fn leaving(self, n: usize) -> Self {
        let n_max = self.n_max.map(|n_max| n_max.saturating_sub(n));
        Self { n_max, ..self }
    }

    /// Returns a text that is not longer than any prompt; `param` is the parameter that contains it. A longer one loses
    /// the far end of the part that is not kept, before it is encoded: what remains has several times the tokens of the
    /// longest prompt, so the cut is far from the tokens that are kept.
    ///
    /// # Errors
    /// [`ApiError::TooLong`] for a longer text of which all tokens are to be kept.
    pub(super) fn text<'t>(self, text: &'t str, rules: &Rules<'_>, param: &str) -> Result<&'t str, ApiError> {
        if !self.shortens() {
            check_length(text.len(), rules, param)?;
        }
        let n_bytes = text
            .len()
            .min(rules.tokenizer.prompt_bytes_max(rules.max_model_len));
        Ok(match self.side {
            Side::Left => &text[text.ceil_char_boundary(text.len() - n_bytes)..],
            Side::Right => &text[..text.floor_char_boundary(n_bytes)],
        })
    }

    /// Whether prompts may lose tokens.
    pub(super) fn shortens(self) -> bool {
        self.n_max.is_some()
    }

    /// Returns the part of `ids` that is kept.
    pub(super) fn apply(self, ids: Vec<u32>) -> Vec<u32> {
        self.side.kept(ids, self.n_max.unwrap_or(usize::MAX))
    }

    /// The bound on a sequence; `None` if all tokens are kept.
    fn limit(self) -> Option<Limit> {
        let n_max = self.n_max.filter(|n_max| *n_max < usize::MAX)?;
        Some(Limit {
            n_max,
            side: self.side,
        })
    }

    /// The bound on a pair of texts, of which the second keeps at most `n_second_max` tokens; `None` if all tokens are
    /// kept.
    pub(super) fn pair_limit(self, n_second_max: Option<usize>) -> Option<PairLimit> {
        let all = Limit {
            n_max: usize::MAX,
            side: self.side,
        };
        match (self.limit(), n_second_max) {
            (None, None) => None,
            (whole, n_second_max) => Some(PairLimit {
                n_second_max: n_second_max.unwrap_or(usize::MAX),
                whole: whole.unwrap_or(all),
            }),
        }
    }
}

/// Reads a text, a list of texts, a list of tokens, or a list of such lists.
pub(super) fn prompt_sources(
    params: &mut Params,
    name: &str,
    n_max: usize,
) -> Result<Option<Vec<PromptSource>>, ApiError> {
    let Some(value) = params.take(name) else {
        return Ok(None);
    };
    let wrong = |value: &Value| params.invalid(name, value);
    let items = match value {
        Value::String(text) => return Ok(Some(vec![PromptSource::Text(text)])),
        Value::Array(items) => items,
        other => return Err(wrong(&other)),
    };
    if items.first().is_some_and(Value::is_number) {
        return Ok(Some(vec![PromptSource::Tokens(token_ids(name, &items)?)]));
    }
    if items.is_empty() || items.len() > n_max {
        return Err(wrong(&format!("a list of {} items", items.len()).into()));
    }
    let source = |item: Value| match item {
        Value::String(text) => Ok(PromptSource::Text(text)),
        Value::Array(ids) => Ok(PromptSource::Tokens(token_ids(name, &ids)?)),
        other => Err(wrong(&other)),
    };
    items.into_iter().map(source).collect::<Result<_, _>>().map(Some)
}

fn token_ids(param: &str, items: &[Value]) -> Result<Vec<u32>, ApiError> {
    let id = |item: &Value| token_id(item).ok_or_else(|| ApiError::invalid(param, "made of token ids", item));
    items.iter().map(id).collect()
}

/// Reads `add_special_tokens`.
pub(super) fn begin(params: &mut Params, default: Begin) -> Result<Begin, ApiError> {
    Ok(match params.flag("add_special_tokens")? {
        None => default,
        Some(true) => Begin::Add,
        Some(false) => Begin::Leave,
    })
}

/// Returns the tokens of a text; `param` is the parameter that contains it.
pub(super) fn encode(
    text: &str,
    PromptOptions { begin, cut }: PromptOptions,
    rules: &Rules<'_>,
    param: &str,
) -> Result<Vec<u32>, ApiError> {
    let text = cut.text(text, rules, param)?;
    check_effort(text.len(), rules)?;
    let tokenizer = rules.tokenizer;
    let ids = match cut.limit() {
        Some(limit) => tokenizer.encode_within(text, begin, limit),
        None => tokenizer.encode(text, begin),
    };
    ids.map_err(|error| unencoded(param, error))
}

/// Checks whether a text of `n_bytes` bytes may be encoded within the budget of the request.
pub(super) fn check_effort(n_bytes: usize, rules: &Rules<'_>) -> Result<(), ApiError> {
    if n_bytes <= LIGHT_TEXT_BYTES_MAX {
        return Ok(rules.budget.check()?);
    }
    Ok(rules.budget.begin_heavy()?)
}

/// Refuses a text that is certainly too long, before it is encoded.
pub(super) fn check_length(n_bytes: usize, rules: &Rules<'_>, param: &str) -> Result<(), ApiError> {
    let n_tokens_max = rules.max_model_len;
    let n_tokens = rules.tokenizer.n_tokens_min(n_bytes);
    if n_tokens <= n_tokens_max {
        return Ok(());
    }
    Err(ApiError::prompt_too_long(param, n_tokens, n_tokens_max))
}

/// Refuses a parameter that needs text where there is no tokenizer.
pub(super) fn check_texts(rules: &Rules<'_>, param: &str) -> Result<(), ApiError> {
    if rules.tokenizer.is_skipped() {
        return Err(unencoded(param, TokenizerError::Skipped));
    }
    Ok(())
}

/// The error for a text that the tokenizer cannot encode, for example because its regular expression gives up.
pub(super) fn unencoded(param: &str, error: TokenizerError) -> ApiError {
    if matches!(error, TokenizerError::Skipped) {
        return ApiError::contradiction(param, error.to_string());
    }
    tracing::warn!(%error, param, "a text could not be encoded");
    ApiError::contradiction(
        param,
        format!("the model's tokenizer fails on this text: {error}"),
    )
}
