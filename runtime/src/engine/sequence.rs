//! A request as the engine sees it, and the sequence it becomes.
//!
//! Owns a sequence's tokens and when it ends. Must not know other sequences, time or text.

use std::sync::Arc;

use super::blocks::BlockTable;
use super::sampler::SamplingParams;
use super::ticket::FinishReason;

/// What to generate. One request is one answer; `n` answers are `n` requests, each with a seed of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerateRequest {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// How to draw tokens.
    pub sampling: SamplingParams,
    /// Tokens to generate at most; `None`: as many as the context has room for.
    pub max_tokens: Option<usize>,
    /// Tokens to generate before a stop token may end the answer.
    pub min_tokens: usize,
    /// Tokens that end the answer, besides the model's own end-of-sequence tokens.
    pub stop_token_ids: Vec<u32>,
    /// The model's end-of-sequence tokens are tokens like any other.
    pub ignore_eos: bool,
}

/// Identity of a sequence. Ids grow in the order of arrival, so a smaller id is an older sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);

/// A request that was admitted, on its way through the scheduler.
#[derive(Debug)]
pub struct Sequence {
    /// Identity and age.
    pub id: SequenceId,
    /// How to draw its tokens.
    pub sampling: SamplingParams,
    /// Decides its draws, together with the position.
    pub seed: u64,
    /// When it ends.
    pub stop: StopRules,
    /// Its blocks of the cache.
    pub blocks: BlockTable,
    tokens: Vec<u32>,
    n_prompt: usize,
    n_computed: usize,
}

/// A request that passed [`super::admission::Limits::admit`]: it fits, and its limits are resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// How to draw tokens.
    pub sampling: SamplingParams,
    /// When the answer ends.
    pub stop: StopRules,
}

/// When a sequence ends.
#[derive(Clone, Debug, PartialEq)]
pub struct StopRules {
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Tokens to generate before a stop token may end the answer.
    pub min_tokens: usize,
    /// The model's end-of-sequence tokens; empty if the request ignores them.
    pub eos_token_ids: Arc<[u32]>,
    /// Tokens that end the answer, besides those.
    pub stop_token_ids: Vec<u32>,
}

impl Sequence {
    /// A sequence of nothing but its prompt, none of it computed. `seed` decides its draws.
    pub fn new(id: SequenceId, admitted: Admitted, seed: u64) -> Sequence {
        let Admitted {
            prompt,
            sampling,
            stop,
        } = admitted;
        let n_prompt = prompt.len();
        let blocks = BlockTable::default();
        Sequence {
            id,
            sampling,
            seed,
            stop,
            blocks,
            tokens: prompt,
            n_prompt,
            n_computed: 0,
        }
    }

    /// Prompt and generated tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The prompt.
    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.n_prompt]
    }

    /// The generated tokens, those that will not be sent included.
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.n_prompt..]
    }

    /// Tokens whose keys and values are in the cache.
    pub fn n_computed(&self) -> usize {
        self.n_computed
    }

    /// Tokens whose keys and values are not yet in the cache; at least 1.
    pub fn n_uncomputed(&self) -> usize {
        self.tokens.len() - self.n_computed
    }

    /// The next `n_tokens` tokens are in the cache now.
    pub(super) fn computed(&mut self, n_tokens: usize) {
        assert!(
            n_tokens <= self.n_uncomputed(),
            "more tokens computed than the sequence has"
        );
        self.n_computed += n_tokens;
    }

    /// The cache was taken from this sequence: all its tokens must be computed again.
    pub(super) fn uncompute(&mut self) {
        self.n_computed = 0;
    }

    /// Appends a drawn token, and says whether it ends the answer.
    pub(super) fn push(&mut self, token: u32) -> Option<FinishReason> {
        let may_stop = self.may_stop();
        self.tokens.push(token);
        if may_stop && self.stop.eos_token_ids.contains(&token) {
            Some(FinishReason::Eos(token))
        } else if may_stop && self.stop.stop_token_ids.contains(&token) {
            Some(FinishReason::StopToken(token))
        } else if self.generated().len() >= self.stop.max_tokens {
            Some(FinishReason::Length)
        } else {
            None
        }
    }

    /// Tokens that may not be drawn next: those that would end the answer before `min_tokens`.
    pub fn forbidden(&self) -> impl Iterator<Item = u32> + '_ {
        let stops = self
            .stop
            .eos_token_ids
            .iter()
            .chain(&self.stop.stop_token_ids)
            .copied();
        stops.filter(|_| !self.may_stop())
    }

    /// The next token may end the answer.
    fn may_stop(&self) -> bool {
        self.generated().len() >= self.stop.min_tokens
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(stop: StopRules) -> Sequence {
        let admitted = Admitted {
            prompt: vec![1, 2, 3],
            sampling: SamplingParams::default(),
            stop,
        };
        Sequence::new(SequenceId(0), admitted, 0)
    }

    fn rules() -> StopRules {
        StopRules {
            max_tokens: 3,
            min_tokens: 0,
            eos_token_ids: [9].into(),
            stop_token_ids: vec![7],
        }
    }

    #[test]
    fn ends_on_eos_stop_token_or_length() {
        assert_eq!(sequence(rules()).push(9), Some(FinishReason::Eos(9)));
        assert_eq!(sequence(rules()).push(7), Some(FinishReason::StopToken(7)));
        let mut long = sequence(rules());
        assert_eq!(
            [long.push(4), long.push(5), long.push(6)],
            [None, None, Some(FinishReason::Length)]
        );
        assert_eq!(
            (long.prompt(), long.generated()),
            (&[1, 2, 3][..], &[4, 5, 6][..])
        );
    }

    #[test]
    fn a_stop_token_at_the_length_limit_is_a_stop() {
        let mut sequence = sequence(StopRules {
            max_tokens: 1,
            ..rules()
        });
        assert_eq!(sequence.push(7), Some(FinishReason::StopToken(7)));
    }

    #[test]
    fn stop_tokens_are_forbidden_until_min_tokens() {
        let mut sequence = sequence(StopRules {
            min_tokens: 1,
            ..rules()
        });
        assert_eq!(sequence.forbidden().collect::<Vec<_>>(), [9, 7]);
        assert_eq!(sequence.push(4), None);
        assert_eq!(sequence.forbidden().count(), 0);
        assert_eq!(sequence.push(9), Some(FinishReason::Eos(9)));
    }

    #[test]
    fn a_preempted_sequence_keeps_its_tokens() {
        let mut sequence = sequence(rules());
        sequence.computed(3);
        sequence.push(4);
        assert_eq!((sequence.n_computed(), sequence.n_uncomputed()), (3, 1));
        sequence.uncompute();
        assert_eq!(
            (sequence.n_uncomputed(), sequence.tokens()),
            (4, &[1, 2, 3, 4][..])
        );
    }
}
