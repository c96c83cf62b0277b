//! Admission: what a request must satisfy to be queued at all.
//!
//! Owns the refusals: a request that can never run is refused here, so that it does not wait for ever. Must
//! not know what is running now.

use std::sync::Arc;

use crds::settings::SchedulingPolicy;

use super::config::{EngineConfig, Limits};
use super::prompt::Prompt;
use super::request::{Admitted, BeamRequest, GenerateRequest, PoolRequest, StopRules, Task};
use super::sampler::{InvalidParam, SamplingParams};
use crate::batch::KvGroup;

/// Why a request can never run here.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AdmitError {
    /// Nothing to continue.
    #[error("the prompt has no tokens: either prompt or prompt_embeds must be provided and non-empty")]
    EmptyPrompt,
    /// An image or a sound for a model that reads text alone.
    #[error("the prompt has an image or a sound, and this model reads text alone")]
    NoMedia,
    /// A token id the model does not have.
    #[error("token id {token} is out of vocabulary, which has {vocab_size} tokens")]
    TokenOutOfVocabulary {
        /// The id.
        token: u32,
        /// Length of the vocabulary.
        vocab_size: usize,
    },
    /// A parameter names a token that the model does not have.
    #[error("{parameter} has token id {token}, which is out of vocabulary: it has {vocab_size} tokens")]
    ParameterOutOfVocabulary {
        /// Name of the parameter, OpenAI's or vLLM's.
        parameter: &'static str,
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
    /// The prompt fits, but not with the requested length of the answer.
    #[error(
        "the prompt's {n_prompt} tokens and an answer of {max_tokens} exceed the context of {max_model_len} tokens"
    )]
    AnswerTooLong {
        /// Tokens of the prompt.
        n_prompt: usize,
        /// Tokens requested.
        max_tokens: usize,
        /// Prompt and answer at most, tokens.
        max_model_len: usize,
    },
    /// The prompt fits the context, but cannot be computed in one step as this model needs it.
    #[error(
        "the prompt has {n_prompt} tokens, and this model computes one in a single step of at most {max_num_batched_tokens}"
    )]
    PromptAboveStep {
        /// Tokens of the prompt.
        n_prompt: usize,
        /// Tokens of a step at most.
        max_num_batched_tokens: usize,
    },
    /// The token types are not those of the prompt.
    #[error("the prompt has {n_prompt} tokens and {n_token_types} token types")]
    TokenTypes {
        /// Tokens of the prompt.
        n_prompt: usize,
        /// Token types.
        n_token_types: usize,
    },
    /// The request wants no answer.
    #[error("n must be at least 1")]
    NoAnswersWanted,
    /// A priority where requests are served in the order of their arrival.
    #[error("priority is {priority}, and the scheduling policy here has no priorities")]
    NoPriorities {
        /// The request's.
        priority: i32,
    },
    /// More beams than sequences run at once.
    #[error("{width} beams run in one step, where {n_running_max} sequences can")]
    TooManyBeams {
        /// Beams.
        width: usize,
        /// Sequences that run at once at most.
        n_running_max: usize,
    },
    /// The empty KV cache cannot hold it.
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
            client,
            prompt,
            n,
            priority,
            sampling,
            max_tokens,
            min_tokens,
            stop_token_ids,
            ignore_eos,
            prompt_logprobs,
            grammar,
            cache_salt,
            n_overtaking_max,
        } = request;
        self.check_sampling(&sampling)?;
        if n == 0 {
            return Err(AdmitError::NoAnswersWanted);
        }
        self.check_priority(priority)?;
        self.check_continued(&prompt)?;
        let max_tokens = self.resolve_max_tokens(prompt.len(), max_tokens)?;
        let stop = self.checked(StopRules {
            max_tokens,
            min_tokens,
            eos_token_ids: self.eos_token_ids(ignore_eos),
            stop_token_ids,
        })?;
        Ok(Admitted {
            client,
            prompt,
            n_branches: n,
            priority,
            task: Task::Generate {
                sampling,
                stop,
                prompt_logprobs,
                grammar,
            },
            cache_salt,
            n_overtaking_max,
        })
    }

    /// Checks a request for a beam search against the limits.
    ///
    /// # Errors
    /// [`AdmitError`] if it could never run, whatever else runs.
    pub fn admit_beam_search(&self, request: BeamRequest) -> Result<Admitted, AdmitError> {
        let BeamRequest {
            client,
            prompt,
            params,
            priority,
            max_tokens,
            min_tokens,
            stop_token_ids,
            ignore_eos,
        } = request;
        if params.width == 0 {
            return Err(AdmitError::NoAnswersWanted);
        }
        if params.width > self.n_running_max() {
            return Err(AdmitError::TooManyBeams {
                width: params.width,
                n_running_max: self.n_running_max(),
            });
        }
        self.check_priority(priority)?;
        self.check_continued(&prompt)?;
        // Beams may differ from their first token on, and all run in every step.
        let one_of_all = Limits {
            config: EngineConfig {
                n_blocks: self.config.n_blocks / (params.width * self.groups.len()),
                ..self.config.clone()
            },
            groups: vec![KvGroup::default()],
            whole_prompts: self.whole_prompts,
            has_prefixes: self.has_prefixes,
            reads_media: self.reads_media,
            vocab_size: self.vocab_size,
        };
        let max_tokens = one_of_all.resolve_max_tokens(prompt.len(), max_tokens)?;
        let stop = self.checked(StopRules {
            max_tokens,
            min_tokens,
            eos_token_ids: self.eos_token_ids(ignore_eos),
            stop_token_ids,
        })?;
        Ok(Admitted {
            client,
            prompt,
            n_branches: params.width,
            priority,
            task: Task::Search { params, stop },
            cache_salt: 0,
            n_overtaking_max: 0,
        })
    }

    fn checked(&self, stop: StopRules) -> Result<StopRules, AdmitError> {
        stop.check()?;
        let ids = stop.stop_token_ids.iter();
        self.check_named(ids.map(|&token| ("stop_token_ids", token)))?;
        Ok(stop)
    }

    /// Checks a request for a pooled vector against the limits.
    ///
    /// # Errors
    /// [`AdmitError`] if it could never run, whatever else runs.
    pub fn admit_pooling(&self, request: PoolRequest) -> Result<Admitted, AdmitError> {
        let PoolRequest {
            client,
            prompt,
            token_types,
            cache_salt,
        } = request;
        self.check_prompt(&prompt)?;
        let n_prompt = prompt.len();
        if n_prompt > self.config.max_model_len {
            return Err(AdmitError::PromptTooLong {
                n_prompt,
                max_model_len: self.config.max_model_len,
            });
        }
        if !token_types.is_empty() && token_types.len() != n_prompt {
            return Err(AdmitError::TokenTypes {
                n_prompt,
                n_token_types: token_types.len(),
            });
        }
        self.check_fits(n_prompt, n_prompt)?;
        Ok(Admitted {
            client,
            prompt,
            n_branches: 1,
            priority: 0,
            task: Task::Pool { token_types },
            cache_salt,
            n_overtaking_max: 0,
        })
    }

    fn eos_token_ids(&self, ignore_eos: bool) -> Arc<[u32]> {
        if ignore_eos {
            Arc::default()
        } else {
            Arc::clone(&self.config.eos_token_ids)
        }
    }

    fn check_sampling(&self, sampling: &SamplingParams) -> Result<(), AdmitError> {
        sampling.check()?;
        self.check_named(sampling.named_tokens())
    }

    fn check_named(&self, mut tokens: impl Iterator<Item = (&'static str, u32)>) -> Result<(), AdmitError> {
        let unknown = tokens.find(|(_, token)| *token as usize >= self.vocab_size);
        unknown.map_or(Ok(()), |(parameter, token)| {
            Err(AdmitError::ParameterOutOfVocabulary {
                parameter,
                token,
                vocab_size: self.vocab_size,
            })
        })
    }

    fn check_priority(&self, priority: i32) -> Result<(), AdmitError> {
        match self.config.scheduling_policy {
            SchedulingPolicy::Fcfs if priority != 0 => Err(AdmitError::NoPriorities { priority }),
            SchedulingPolicy::Fcfs | SchedulingPolicy::Priority => Ok(()),
        }
    }

    /// Checks a prompt that is to be continued, so that the context must have room for more.
    fn check_continued(&self, prompt: &Prompt) -> Result<(), AdmitError> {
        self.check_prompt(prompt)?;
        if prompt.len() >= self.config.max_model_len {
            return Err(AdmitError::PromptTooLong {
                n_prompt: prompt.len(),
                max_model_len: self.config.max_model_len,
            });
        }
        Ok(())
    }

    fn check_prompt(&self, prompt: &Prompt) -> Result<(), AdmitError> {
        if prompt.is_empty() {
            return Err(AdmitError::EmptyPrompt);
        }
        if prompt.has_media() && !self.reads_media {
            return Err(AdmitError::NoMedia);
        }
        if let Some(token) = prompt.ids().find(|&token| token as usize >= self.vocab_size) {
            return Err(AdmitError::TokenOutOfVocabulary {
                token,
                vocab_size: self.vocab_size,
            });
        }
        if self.whole_prompts && prompt.len() > self.config.max_num_batched_tokens {
            return Err(AdmitError::PromptAboveStep {
                n_prompt: prompt.len(),
                max_num_batched_tokens: self.config.max_num_batched_tokens,
            });
        }
        Ok(())
    }

    fn resolve_max_tokens(&self, n_prompt: usize, wanted: Option<usize>) -> Result<usize, AdmitError> {
        let max_model_len = self.config.max_model_len;
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
                let room_in_cache = self.n_tokens_max().saturating_add(1).saturating_sub(n_prompt);
                (max_model_len - n_prompt).min(room_in_cache.max(1))
            }
        };
        // The last token is drawn but never computed, so it needs no slot.
        self.check_fits(n_prompt, n_prompt + max_tokens - 1)?;
        Ok(max_tokens)
    }

    /// Checks that the cache can hold a sequence of `n_tokens` tokens, were it alone.
    fn check_fits(&self, n_prompt: usize, n_tokens: usize) -> Result<(), AdmitError> {
        let n_whole = if self.whole_prompts { n_prompt } else { 0 };
        let of_group = |group: &KvGroup| {
            let n_seen = group.n_blocks_min(n_tokens, self.config.block_size);
            n_seen.max(n_whole.div_ceil(self.config.block_size))
        };
        let n_blocks_needed = self.groups.iter().map(of_group).sum();
        if n_blocks_needed > self.config.n_blocks {
            return Err(AdmitError::NeverFits {
                n_blocks_needed,
                n_blocks: self.config.n_blocks,
            });
        }
        Ok(())
    }

    /// Tokens of the longest sequence that the cache can hold.
    fn n_tokens_max(&self) -> usize {
        let windows = self.groups.iter().filter(|group| group.window.is_some());
        let n_windowed: usize = windows
            .map(|group| group.n_blocks_min(usize::MAX, self.config.block_size))
            .sum();
        let n_full = self.groups.iter().filter(|group| group.window.is_none()).count();
        let n_blocks_each = match self.config.n_blocks.checked_sub(n_windowed) {
            // Every window is full: the other groups share the rest.
            Some(n_left) if n_full > 0 => (n_left / n_full).max(self.config.n_blocks / self.groups.len()),
            Some(_) => return usize::MAX,
            None => self.config.n_blocks / self.groups.len(),
        };
        n_blocks_each.saturating_mul(self.config.block_size)
    }
}

impl StopRules {
    fn check(&self) -> Result<(), AdmitError> {
        let StopRules {
            max_tokens,
            min_tokens,
            ..
        } = *self;
        if min_tokens > max_tokens {
            return Err(AdmitError::MinAboveMax {
                min_tokens,
                max_tokens,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
