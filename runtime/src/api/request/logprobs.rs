//! The parameters that request log-probabilities.

use super::params::Params;
use super::rules::Rules;
use crate::api::error::ApiError;

/// The number of alternatives that a parameter requests; -1, where it is allowed, means the vocabulary.
pub(super) fn logprobs(
    params: &mut Params,
    name: &str,
    rules: &Rules<'_>,
) -> Result<Option<usize>, ApiError> {
    let Some(requested) = params.integer(name)? else {
        return Ok(None);
    };
    match (usize::try_from(requested), rules.max_logprobs) {
        (Ok(n), Some(n_max)) if n <= n_max => Ok(Some(n)),
        (_, Some(n_max)) => {
            let expected = format!("a whole number from 0 to {n_max}");
            Err(ApiError::invalid(name, expected, &requested.into()))
        }
        (n, None) => Ok(Some(
            n.unwrap_or(usize::MAX).min(rules.tokenizer.tokens().n_ids()),
        )),
    }
}

/// A chat's `logprobs`, a flag, and `top_logprobs`, which needs it.
pub(super) fn chat_logprobs(params: &mut Params, rules: &Rules<'_>) -> Result<Option<usize>, ApiError> {
    let is_requested = params.flag("logprobs")?.unwrap_or(false);
    match (is_requested, logprobs(params, "top_logprobs", rules)?) {
        (true, n_top) => Ok(Some(n_top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(ApiError::contradiction(
            "top_logprobs",
            "it needs logprobs to be true",
        )),
    }
}
