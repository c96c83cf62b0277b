//! A request as the engine sees it, and the sequence it becomes.
//!
//! Owns a sequence's tokens and when it ends. Must not know other sequences, time or text.

use std::ops::Range;
use std::sync::Arc;

use super::beam::BeamParams;
use super::paged_cache::BlockTables;
use super::sampler::{SamplingParams, TokenLogprobs};
use super::scheduler::Next;
use super::ticket::FinishReason;
use crate::grammar::Grammar;

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// Answers. The prompt is computed once for all of them; answer `i` draws with the seed plus `i`.
    pub n: usize,
    /// Under [`SchedulingPolicy::Priority`](super::SchedulingPolicy::Priority) the smaller goes first.
    pub priority: i32,
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
    /// Return the log-probabilities of the prompt's tokens and of this many most probable ones in their places. Such
    /// a request does not read the prefix cache.
    pub prompt_logprobs: Option<usize>,
    /// What the answer must look like; each of several answers follows it on its own.
    pub grammar: Option<Grammar>,
    /// The prompt shares cached blocks only with prompts of the same salt.
    pub cache_salt: u64,
}

impl Default for GenerateRequest {
    /// One answer, as long as it gets; only the prompt is missing.
    fn default() -> GenerateRequest {
        GenerateRequest {
            prompt: Vec::new(),
            n: 1,
            priority: 0,
            sampling: SamplingParams::default(),
            max_tokens: None,
            min_tokens: 0,
            stop_token_ids: Vec::new(),
            ignore_eos: false,
            prompt_logprobs: None,
            grammar: None,
            cache_salt: 0,
        }
    }
}

/// What to make a vector of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolRequest {
    /// Token ids, at least one.
    pub prompt: Vec<u32>,
    /// Segment of each token, for models that tell segments apart; empty: all 0.
    pub token_types: Vec<u32>,
    /// See [`GenerateRequest::cache_salt`].
    pub cache_salt: u64,
}

/// A prompt to search continuations of.
#[derive(Clone, Debug, PartialEq)]
pub struct BeamRequest {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// How to search.
    pub params: BeamParams,
    /// Under [`SchedulingPolicy::Priority`](super::SchedulingPolicy::Priority) the smaller goes first.
    pub priority: i32,
    /// Tokens of a text at most; `None`: as many as the context has room for.
    pub max_tokens: Option<usize>,
    /// Tokens before a stop token may end a text.
    pub min_tokens: usize,
    /// Tokens that end a text, besides the model's own end-of-sequence tokens.
    pub stop_token_ids: Vec<u32>,
    /// The model's end-of-sequence tokens are tokens like any other.
    pub ignore_eos: bool,
}

/// Identity of a sequence. Ids sort in the order in which sequences are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId {
    /// The request's.
    pub priority: i32,
    /// Number in the order of arrival.
    pub arrival: u64,
}

/// One answer of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Identity.
    pub id: SequenceId,
    /// Decides its draws, together with the position.
    pub seed: u64,
}

/// A request that passed [`super::admission::Limits`]: it fits, and its limits are resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct Admitted {
    /// Token ids of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// Sequences that it becomes.
    pub n_branches: usize,
    /// The smaller goes first.
    pub priority: i32,
    /// What to do with the prompt.
    pub task: Task,
    /// The prompt shares cached blocks only with prompts of the same salt.
    pub cache_salt: u64,
}

/// What to do with a prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Continue it.
    Generate {
        /// How to draw tokens.
        sampling: SamplingParams,
        /// When the answer ends.
        stop: StopRules,
        /// See [`GenerateRequest::prompt_logprobs`].
        prompt_logprobs: Option<usize>,
        /// See [`GenerateRequest::grammar`].
        grammar: Option<Grammar>,
    },
    /// Continue it in several ways at once; the sequences of one search compute their next tokens in the same
    /// step or not at all, and lose their blocks together.
    Search {
        /// How to search.
        params: BeamParams,
        /// When a text ends.
        stop: StopRules,
    },
    /// Make a vector of it.
    Pool {
        /// Segment of each token; empty: all 0.
        token_types: Vec<u32>,
    },
}

/// A request on its way through the scheduler: its prompt first, then, for a request of several answers, one
/// of them, after the others forked off.
#[derive(Debug)]
pub struct Sequence {
    /// What to do with the prompt.
    pub task: Task,
    /// The first branch of the request that it belongs to.
    pub request: SequenceId,
    /// Two texts share cached blocks only if their salts are equal.
    pub salt: u64,
    /// Its blocks of the cache.
    pub tables: BlockTables,
    /// It had a place before, and may have lost it.
    pub was_admitted: bool,
    /// Itself, and those that fork off when the prompt is computed; ids ascend.
    branches: Vec<Branch>,
    tokens: Vec<u32>,
    n_prompt: usize,
    n_computed: usize,
    /// Log-probabilities of the prompt's tokens from the second on, as far as they are known and not yet taken.
    scores: Vec<TokenLogprobs>,
}

impl Admitted {
    /// Answers that are waited for: a search has one, however many sequences it becomes.
    pub fn n_tickets(&self) -> usize {
        match self.task {
            Task::Search { .. } => 1,
            Task::Generate { .. } | Task::Pool { .. } => self.n_branches,
        }
    }
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
    /// A sequence of nothing but its prompt, none of it computed.
    ///
    /// # Panics
    /// If `branches` is not one per answer.
    pub fn new(admitted: Admitted, branches: Vec<Branch>, salt: u64) -> Sequence {
        let Admitted {
            prompt,
            n_branches,
            priority: _,
            task,
            cache_salt: _,
        } = admitted;
        assert!(
            n_branches == branches.len() && n_branches > 0,
            "one branch per answer"
        );
        Sequence {
            task,
            request: branches[0].id,
            salt,
            tables: BlockTables::default(),
            was_admitted: false,
            branches,
            n_prompt: prompt.len(),
            tokens: prompt,
            n_computed: 0,
            scores: Vec::new(),
        }
    }

    /// Identity: its first branch's.
    pub fn id(&self) -> SequenceId {
        self.branches[0].id
    }

    /// Itself, and those that fork off when the prompt is computed.
    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    /// Cancels one of several branches; false if it has no such branch or no other.
    pub(super) fn drop_branch(&mut self, id: SequenceId) -> bool {
        let n_before = self.branches.len();
        if n_before > 1 {
            self.branches.retain(|branch| branch.id != id);
        }
        self.branches.len() < n_before
    }

    /// The sequences of the other branches, which have no blocks yet.
    pub(super) fn fork_off(&mut self) -> Vec<Sequence> {
        let children = self.branches[1..]
            .iter()
            .map(|&branch| self.child(branch))
            .collect();
        self.branches.truncate(1);
        children
    }

    /// A text of a search and one more token, in a sequence without blocks.
    pub(super) fn continued(&self, branch: Branch, token: u32) -> Sequence {
        let mut child = self.child(branch);
        child.tokens.push(token);
        child
    }

    fn child(&self, branch: Branch) -> Sequence {
        Sequence {
            task: self.task.clone(),
            request: self.request,
            salt: self.salt,
            tables: BlockTables::default(),
            was_admitted: true,
            branches: vec![branch],
            tokens: self.tokens.clone(),
            n_prompt: self.n_prompt,
            n_computed: self.n_computed,
            scores: Vec::new(),
        }
    }

    /// It is one of the texts of a search.
    pub fn is_searching(&self) -> bool {
        matches!(self.task, Task::Search { .. })
    }

    /// Tokens that it may compute by itself. A text of a search leaves the last one to the step in which all
    /// texts of the search draw.
    pub(super) fn n_computable(&self) -> usize {
        let leaves_one = self.is_searching() && !self.generated().is_empty() && self.n_uncomputed() > 1;
        self.n_uncomputed() - usize::from(leaves_one)
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

    /// How many most probable tokens are wanted beside each token of the prompt; `None`: no log-probabilities are.
    pub fn prompt_logprobs(&self) -> Option<usize> {
        match self.task {
            Task::Generate { prompt_logprobs, .. } => prompt_logprobs,
            Task::Search { .. } | Task::Pool { .. } => None,
        }
    }

    /// Log-probabilities of its prompt are wanted and not known.
    pub(super) fn wants_scores(&self) -> bool {
        let n_wanted = self.n_prompt - 1;
        self.prompt_logprobs().is_some() && self.generated().is_empty() && self.scores.len() < n_wanted
    }

    /// Those of its next `n_tokens` positions whose logits are wanted for the log-probability of the prompt's token
    /// behind them.
    pub(super) fn scored_by(&self, n_tokens: usize) -> Range<usize> {
        let first = self.n_computed.max(self.scores.len());
        let end = (self.n_computed + n_tokens).min(self.n_prompt - 1);
        if self.wants_scores() && first < end {
            first..end
        } else {
            0..0
        }
    }

    /// Adds the log-probabilities that a step found.
    pub(super) fn add_scores(&mut self, scores: Vec<TokenLogprobs>) {
        self.scores.extend(scores);
    }

    /// The log-probabilities of the whole prompt, of whose first token there is none.
    pub(super) fn take_scores(&mut self) -> Arc<[Option<TokenLogprobs>]> {
        let scores = std::mem::take(&mut self.scores);
        std::iter::once(None)
            .chain(scores.into_iter().map(Some))
            .collect()
    }

    /// Segments of the prompt's tokens; empty: all 0.
    pub fn token_types(&self) -> &[u32] {
        match &self.task {
            Task::Generate { .. } | Task::Search { .. } => &[],
            Task::Pool { token_types } => token_types,
        }
    }

    /// The next `n_tokens` tokens are in the cache now.
    pub(super) fn computed(&mut self, n_tokens: usize) {
        assert!(
            n_tokens <= self.n_uncomputed(),
            "more tokens computed than the sequence has"
        );
        self.n_computed += n_tokens;
    }

    /// Its tables, and the tokens that they hold.
    pub(super) fn tables_and_computed(&mut self) -> (&mut BlockTables, &[u32]) {
        (&mut self.tables, &self.tokens[..self.n_computed])
    }

    /// Only the first `n_tokens` tokens are in the cache now.
    pub(super) fn set_computed(&mut self, n_tokens: usize) {
        self.n_computed = n_tokens;
    }

    /// Appends a drawn token, and says whether it ends the answer.
    ///
    /// # Panics
    /// If the sequence draws none.
    pub(super) fn push(&mut self, next: Next) -> Option<FinishReason> {
        let n_generated = self.generated().len();
        self.tokens.push(next.token);
        let Task::Generate { stop, .. } = &self.task else {
            panic!("a token for a sequence that draws none");
        };
        match stop.finish(n_generated, next.token) {
            None | Some(FinishReason::Length) if next.is_complete => Some(FinishReason::Complete),
            finished => finished,
        }
    }
}

impl StopRules {
    /// Whether `token`, drawn after `n_generated` others, ends the answer.
    pub fn finish(&self, n_generated: usize, token: u32) -> Option<FinishReason> {
        let may_stop = n_generated >= self.min_tokens;
        if may_stop && self.eos_token_ids.contains(&token) {
            Some(FinishReason::Eos(token))
        } else if may_stop && self.stop_token_ids.contains(&token) {
            Some(FinishReason::StopToken(token))
        } else if n_generated + 1 >= self.max_tokens {
            Some(FinishReason::Length)
        } else {
            None
        }
    }

    /// Tokens that may not be drawn after `n_generated`: those that would end the answer before `min_tokens`.
    pub fn forbidden(&self, n_generated: usize) -> Vec<u32> {
        if n_generated >= self.min_tokens {
            return Vec::new();
        }
        [&self.eos_token_ids[..], &self.stop_token_ids].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(stop: StopRules) -> Sequence {
        let sampling = SamplingParams::default();
        let admitted = Admitted {
            prompt: vec![1, 2, 3],
            n_branches: 1,
            priority: 0,
            task: Task::Generate {
                sampling,
                stop,
                prompt_logprobs: None,
                grammar: None,
            },
            cache_salt: 0,
        };
        let id = SequenceId {
            priority: 0,
            arrival: 0,
        };
        Sequence::new(admitted, vec![Branch { id, seed: 0 }], 0)
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
        assert_eq!(sequence(rules()).push(Next::from(9)), Some(FinishReason::Eos(9)));
        assert_eq!(
            sequence(rules()).push(Next::from(7)),
            Some(FinishReason::StopToken(7))
        );
        let mut long = sequence(rules());
        assert_eq!(
            [
                long.push(Next::from(4)),
                long.push(Next::from(5)),
                long.push(Next::from(6))
            ],
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
        assert_eq!(sequence.push(Next::from(7)), Some(FinishReason::StopToken(7)));
    }

    #[test]
    fn stop_tokens_are_forbidden_until_min_tokens() {
        let stop = StopRules {
            min_tokens: 1,
            ..rules()
        };
        assert_eq!([stop.forbidden(0), stop.forbidden(1)], [vec![9, 7], vec![]]);
        let mut sequence = sequence(stop);
        assert_eq!(sequence.push(Next::from(4)), None);
        assert_eq!(sequence.push(Next::from(9)), Some(FinishReason::Eos(9)));
    }

    #[test]
    fn a_preempted_sequence_keeps_its_tokens() {
        let mut sequence = sequence(rules());
        sequence.computed(3);
        sequence.push(Next::from(4));
        assert_eq!((sequence.n_computed(), sequence.n_uncomputed()), (3, 1));
        sequence.set_computed(0);
        assert_eq!(
            (sequence.n_uncomputed(), sequence.tokens()),
            (4, &[1, 2, 3, 4][..])
        );
    }
}
