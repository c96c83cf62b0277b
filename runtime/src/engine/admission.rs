//! Admission: what a request must satisfy to be queued at all.
//!
//! Owns the engine's limits and the refusals they cause: what can never run is refused here, so that it
//! does not wait for ever. Must not know what is running now.

use std::sync::Arc;

use super::sampler::InvalidParam;
use super::sequence::{Admitted, GenerateRequest, StopRules};

/// The engine's fixed limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Blocks of the KV cache.
    pub n_blocks: usize,
    /// Tokens per block.
    pub block_size: usize,
    /// Sequences in one step at most.
    pub max_num_seqs: usize,
    /// Tokens in one step at most.
    pub max_num_batched_tokens: usize,
    /// Prompt and answer at most, tokens.
    pub max_model_len: usize,
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Tokens with which the model ends an answer.
    pub eos_token_ids: Arc<[u32]>,
}

/// Why a request can never run here.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AdmitError {
    /// Nothing to continue.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// A token id the model does not have.
    #[error("token id {token} is not in the vocabulary of {vocab_size} tokens")]
    TokenOutOfVocabulary {
        /// The id.
        token: u32,
        /// Length of the vocabulary.
        vocab_size: usize,
    },
    /// The prompt alone leaves no room for an answer.
    #[error(
        "the prompt has {n_prompt} tokens, which leaves no room for an answer: the context holds {max_model_len}"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        n_prompt: usize,
        /// Prompt and answer at most, tokens.
        max_model_len: usize,
    },
    /// The prompt fits, but not with an answer as long as asked for.
    #[error(
        "the prompt's {n_prompt} tokens and an answer of {max_tokens} exceed the context of {max_model_len} tokens"
    )]
    AnswerTooLong {
        /// Tokens of the prompt.
        n_prompt: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// Prompt and answer at most, tokens.
        max_model_len: usize,
    },
    /// The whole KV cache cannot hold it.
    #[error("the request needs {n_blocks_needed} blocks of the KV cache, which has {n_blocks}")]
    NeverFits {
        /// Blocks the sequence would need at its longest.
        n_blocks_needed: usize,
        /// Blocks of the cache.
        n_blocks: usize,
    },
    /// An answer of no tokens.
    #[error("max_tokens must be at least 1")]
    NoTokensWanted,
    /// The answer would have to be longer than it may be.
    #[error("min_tokens is {min_tokens}, above max_tokens, which is {max_tokens}")]
    MinAboveMax {
        /// Tokens wanted at least.
        min_tokens: usize,
        /// Tokens wanted at most.
        max_tokens: usize,
    },
    /// A sampling parameter is outside its range.
    #[error("a sampling parameter is out of range")]
    Sampling(#[from] InvalidParam),
}

impl Limits {
    /// Checks a request against the limits, and resolves how long its answer may get.
    ///
    /// # Errors
    /// [`AdmitError`] if it could never run, whatever else runs.
    pub fn admit(&self, request: GenerateRequest) -> Result<Admitted, AdmitError> {
        let GenerateRequest {
            prompt,
            sampling,
            max_tokens,
            min_tokens,
            stop_token_ids,
            ignore_eos,
        } = request;
        sampling.check()?;
        self.check_prompt(&prompt)?;
        let max_tokens = self.resolve_max_tokens(prompt.len(), max_tokens)?;
        if min_tokens > max_tokens {
            return Err(AdmitError::MinAboveMax {
                min_tokens,
                max_tokens,
            });
        }
        let eos_token_ids = if ignore_eos {
            Arc::default()
        } else {
            Arc::clone(&self.eos_token_ids)
        };
        let stop = StopRules {
            max_tokens,
            min_tokens,
            eos_token_ids,
            stop_token_ids,
        };
        Ok(Admitted {
            prompt,
            sampling,
            stop,
        })
    }

    /// Sequences that run at once at most. Every running sequence gets at least one token of each step,
    /// so there can be no more of them than the step has tokens.
    pub fn n_running_max(&self) -> usize {
        self.max_num_seqs.min(self.max_num_batched_tokens)
    }

    fn check_prompt(&self, prompt: &[u32]) -> Result<(), AdmitError> {
        if prompt.is_empty() {
            return Err(AdmitError::EmptyPrompt);
        }
        if let Some(&token) = prompt.iter().find(|&&token| token as usize >= self.vocab_size) {
            return Err(AdmitError::TokenOutOfVocabulary {
                token,
                vocab_size: self.vocab_size,
            });
        }
        if prompt.len() >= self.max_model_len {
            return Err(AdmitError::PromptTooLong {
                n_prompt: prompt.len(),
                max_model_len: self.max_model_len,
            });
        }
        Ok(())
    }

    fn resolve_max_tokens(&self, n_prompt: usize, wanted: Option<usize>) -> Result<usize, AdmitError> {
        let max_model_len = self.max_model_len;
        let max_tokens = match wanted {
            Some(0) => return Err(AdmitError::NoTokensWanted),
            Some(max_tokens) if max_tokens > max_model_len - n_prompt => {
                return Err(AdmitError::AnswerTooLong {
                    n_prompt,
                    max_tokens,
                    max_model_len,
                });
            }
            Some(max_tokens) => max_tokens,
            None => {
                let n_slots = self.n_blocks.saturating_mul(self.block_size);
                let room_in_cache = (n_slots + 1).saturating_sub(n_prompt);
                (max_model_len - n_prompt).min(room_in_cache.max(1))
            }
        };
        // The last token is drawn but never computed, so it needs no slot.
        let n_blocks_needed = (n_prompt + max_tokens - 1).div_ceil(self.block_size);
        if n_blocks_needed > self.n_blocks {
            return Err(AdmitError::NeverFits {
                n_blocks_needed,
                n_blocks: self.n_blocks,
            });
        }
        Ok(max_tokens)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limits() -> Limits {
        Limits {
            n_blocks: 4,
            block_size: 8,
            max_num_seqs: 4,
            max_num_batched_tokens: 16,
            max_model_len: 24,
            vocab_size: 100,
            eos_token_ids: [2].into(),
        }
    }

    fn request(n_prompt: usize, max_tokens: Option<usize>) -> GenerateRequest {
        GenerateRequest {
            prompt: vec![1; n_prompt],
            max_tokens,
            ..GenerateRequest::default()
        }
    }

    fn refusal(limits: &Limits, request: GenerateRequest) -> AdmitError {
        limits.admit(request).unwrap_err()
    }

    #[test]
    fn max_tokens_is_clamped_only_when_absent() {
        assert_eq!(limits().admit(request(20, None)).unwrap().stop.max_tokens, 4);
        assert_eq!(limits().admit(request(20, Some(4))).unwrap().stop.max_tokens, 4);
        assert_eq!(
            refusal(&limits(), request(20, Some(5))),
            AdmitError::AnswerTooLong {
                n_prompt: 20,
                max_tokens: 5,
                max_model_len: 24
            }
        );
    }

    #[test]
    fn what_the_cache_can_never_hold_is_refused() {
        let tight = Limits {
            n_blocks: 2,
            ..limits()
        };
        // 16 slots hold 16 computed tokens; the 17th is drawn and not computed.
        assert_eq!(tight.admit(request(10, None)).unwrap().stop.max_tokens, 7);
        assert_eq!(tight.admit(request(16, None)).unwrap().stop.max_tokens, 1);
        assert!(tight.admit(request(10, Some(7))).is_ok());
        for too_big in [request(10, Some(8)), request(17, None)] {
            let expected = AdmitError::NeverFits {
                n_blocks_needed: 3,
                n_blocks: 2,
            };
            assert_eq!(refusal(&tight, too_big), expected);
        }
    }

    #[test]
    fn malformed_requests_are_refused_by_name() {
        let limits = limits();
        assert_eq!(refusal(&limits, request(0, None)), AdmitError::EmptyPrompt);
        assert_eq!(
            refusal(&limits, request(24, None)),
            AdmitError::PromptTooLong {
                n_prompt: 24,
                max_model_len: 24
            }
        );
        assert_eq!(refusal(&limits, request(1, Some(0))), AdmitError::NoTokensWanted);
        assert_eq!(
            refusal(
                &limits,
                GenerateRequest {
                    min_tokens: 3,
                    ..request(1, Some(2))
                }
            ),
            AdmitError::MinAboveMax {
                min_tokens: 3,
                max_tokens: 2
            }
        );
        assert_eq!(
            refusal(
                &limits,
                GenerateRequest {
                    prompt: vec![1, 100],
                    ..request(1, None)
                }
            ),
            AdmitError::TokenOutOfVocabulary {
                token: 100,
                vocab_size: 100
            }
        );
        let mut hot = request(1, None);
        hot.sampling.temperature = f32::NAN;
        assert!(matches!(refusal(&limits, hot), AdmitError::Sampling(_)));
    }

    #[test]
    fn ignore_eos_leaves_only_the_requests_own_stop_tokens() {
        let admitted = limits()
            .admit(GenerateRequest {
                ignore_eos: true,
                ..request(1, None)
            })
            .unwrap();
        assert_eq!(&*admitted.stop.eos_token_ids, &[] as &[u32]);
        assert_eq!(
            &*limits().admit(request(1, None)).unwrap().stop.eos_token_ids,
            [2]
        );
    }

    proptest! {
        #[test]
        fn an_admitted_request_fits_alone(
            n_blocks in 1..20usize,
            block_size in 1..10usize,
            max_model_len in 1..100usize,
            n_prompt in 0..120usize,
            max_tokens in prop::option::of(0..120usize),
        ) {
            let limits = Limits { n_blocks, block_size, max_model_len, ..limits() };
            if let Ok(admitted) = limits.admit(request(n_prompt, max_tokens)) {
                let n_tokens = n_prompt + admitted.stop.max_tokens;
                prop_assert!(admitted.stop.max_tokens >= 1);
                prop_assert!(n_tokens <= max_model_len);
                prop_assert!(n_tokens - 1 <= n_blocks * block_size);
                prop_assert!(max_tokens.is_none_or(|wanted| wanted == admitted.stop.max_tokens));
            }
        }
    }
}
