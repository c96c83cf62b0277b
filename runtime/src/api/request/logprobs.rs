//! The parameters that request log-probabilities.

use super::params::Params;
use super::prompt::Prompt;
use super::rules::Rules;
use crate::api::error::ApiError;

/// Log-probabilities of prompts in one answer, at most. Each takes about 100 bytes of the answer.
const PROMPT_LOGPROBS_MAX: usize = 1 << 20;

/// Which log-probabilities of prompts a request requires.
#[derive(Clone, Copy, Debug)]
pub(super) struct PromptLogprobs {
    /// The parameter that requires them.
    pub(super) param: &'static str,
    /// Number of alternatives to each token.
    pub(super) n_top: usize,
    /// How often the answer contains them.
    pub(super) n_copies: usize,
}

impl PromptLogprobs {
    /// Checks how many the answer would contain.
    ///
    /// # Errors
    /// [`ApiError::Contradiction`] for more than [`PROMPT_LOGPROBS_MAX`].
    pub(super) fn check(self, prompts: &[Prompt]) -> Result<(), ApiError> {
        let n_tokens: usize = prompts.iter().map(|prompt| prompt.ids.len()).sum();
        let n_each = self.n_top.saturating_add(1);
        let n = n_tokens.saturating_mul(n_each).saturating_mul(self.n_copies);
        if n <= PROMPT_LOGPROBS_MAX {
            return Ok(());
        }
        let copies = self.n_copies;
        let reason = format!(
            "the answer would contain {n} log-probabilities of prompts ({n_tokens} tokens, {n_each} for each, in {copies} \
             choices); at most {PROMPT_LOGPROBS_MAX} are allowed"
        );
        Err(ApiError::contradiction(self.param, reason))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_probabilities_of_prompts_are_bounded_over_tokens_alternatives_and_choices() {
        let allows = |n_tokens: usize, n_top: usize, n_copies: usize| {
            let prompt = |n_tokens| Prompt {
                ids: vec![1; n_tokens],
                echo: None,
            };
            let wanted = PromptLogprobs {
                param: "prompt_logprobs",
                n_top,
                n_copies,
            };
            wanted
                .check(&[prompt(n_tokens / 2), prompt(n_tokens - n_tokens / 2)])
                .is_ok()
        };
        assert!(allows(1 << 17, 7, 1) && allows(2000, 20, 16) && allows(256, 4095, 1));
        assert!(!allows(1 << 17, 8, 1) && !allows(2000, 20, 128) && !allows(257, 4095, 1));
        assert!(!allows(2, usize::MAX, usize::MAX));
    }
}
