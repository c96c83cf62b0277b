//! A sequence: the tokens of one answer, or of a prompt that becomes several.
//!
//! Owns a sequence's tokens, how many of them are computed, and when it ends. Must not know other sequences, time or
//! text.
//!
//! A token that a step in flight draws is *pending*: it counts, and has no id until the step is committed.

use std::ops::Range;
use std::sync::Arc;

use super::paged_cache::BlockTables;
use super::prompt::{Content, MediaRun};
use super::request::{Admitted, FinishReason, Task};
use super::sampler::{SamplingParams, TokenLogprobs};
use crate::batch::N_TOP_BY_MODEL_MAX;
use crate::client::Client;

/// Identity of a sequence. Ids sort in the order in which sequences are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId {
    /// The request's.
    pub priority: i32,
    /// Answers of several requests are served in turn: the first answer to a request has its number among the
    /// requests, and each further one a larger one, at fixed distances. So a later request overtakes the later answers of
    /// one before it, and each answer is overtaken by a bounded number of requests.
    pub turn: u64,
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

/// A request on its way through the scheduler: its prompt first, then, for a request of several answers, one
/// of them, after the others forked off.
#[derive(Debug)]
pub struct Sequence {
    /// What to do with the prompt.
    pub task: Task,
    /// Whose it is.
    pub client: Client,
    /// The turn of the submission that it belongs to.
    pub submission_turn: u64,
    /// The first branch of the request that it belongs to.
    pub request: SequenceId,
    /// Two texts share cached blocks only if their salts are equal.
    pub salt: u64,
    /// Its blocks of the cache.
    pub tables: BlockTables,
    /// It had a place before, and may have lost it.
    pub was_admitted: bool,
    /// Its place, while it runs.
    pub(super) place: Option<u32>,
    /// Itself, and those that fork off when the prompt is computed; ids ascend.
    branches: Vec<Branch>,
    /// The tokens that are known.
    tokens: Vec<u32>,
    /// Images and sounds of the prompt.
    media: Arc<[MediaRun]>,
    n_prompt: usize,
    /// Tokens after those that are drawn by steps in flight.
    n_pending: usize,
    /// Index of the latest draw among those of its step.
    latest_draw: u32,
    /// Tokens that the prefix cache had when it got its place.
    n_cached: usize,
    n_computed: usize,
    /// Log-probabilities of the prompt's tokens from the second on, as far as they are known and not yet taken.
    scores: Vec<TokenLogprobs>,
}

/// The next token of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// Its id.
    pub token: u32,
    /// By the request's grammar nothing but the end may follow.
    pub is_complete: bool,
}

impl From<u32> for Next {
    /// A token that anything may follow.
    fn from(token: u32) -> Next {
        Next {
            token,
            is_complete: false,
        }
    }
}

/// Whether a model returns all that is wanted of a draw.
fn is_drawn_by_model(sampling: &SamplingParams) -> bool {
    sampling.logprobs.is_none_or(|n_top| n_top <= N_TOP_BY_MODEL_MAX)
}

impl Sequence {
    /// A sequence of nothing but its prompt, none of it computed. It came with others in a submission that has a turn.
    ///
    /// # Panics
    /// If `branches` is not one per answer.
    pub fn new(admitted: Admitted, branches: Vec<Branch>, submission_turn: u64, salt: u64) -> Sequence {
        let Admitted {
            client,
            prompt,
            n_branches,
            priority: _,
            task,
            cache_salt: _,
            n_overtaking_max: _,
        } = admitted;
        assert!(
            n_branches == branches.len() && n_branches > 0,
            "one branch per answer"
        );
        let (tokens, media) = prompt.into_parts();
        Sequence {
            task,
            client,
            submission_turn,
            request: branches[0].id,
            salt,
            tables: BlockTables::default(),
            was_admitted: false,
            place: None,
            branches,
            n_prompt: tokens.len(),
            tokens,
            media,
            n_pending: 0,
            latest_draw: 0,
            n_cached: 0,
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

    /// Places that it needs: a search runs with all its texts or not at all, other branches get theirs one by one.
    pub(super) fn n_places(&self) -> usize {
        match self.task {
            Task::Search { .. } => self.branches.len(),
            Task::Generate { .. } | Task::Pool { .. } => 1,
        }
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
        child.check_counts();
        child
    }

    fn child(&self, branch: Branch) -> Sequence {
        Sequence {
            task: self.task.clone(),
            client: self.client,
            submission_turn: self.submission_turn,
            request: self.request,
            salt: self.salt,
            tables: BlockTables::default(),
            was_admitted: true,
            place: None,
            branches: vec![branch],
            tokens: self.tokens.clone(),
            media: Arc::clone(&self.media),
            n_prompt: self.n_prompt,
            n_pending: self.n_pending,
            latest_draw: self.latest_draw,
            n_cached: self.n_cached,
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

    /// Its answer is as long as it may get once its pending token is known, so it computes nothing more.
    pub(super) fn is_full(&self) -> bool {
        match &self.task {
            Task::Generate { stop, .. } => self.n_tokens() - self.n_prompt >= stop.max_tokens,
            Task::Search { .. } | Task::Pool { .. } => false,
        }
    }

    /// Its steps are alone in flight, because more than its next token depends on what they compute: it searches,
    /// forks, is scored or pooled, or the engine must see its logits.
    pub(super) fn needs_alone(&self) -> bool {
        match &self.task {
            Task::Generate {
                sampling,
                prompt_logprobs,
                ..
            } => {
                let is_scored = prompt_logprobs.is_some() && self.generated().is_empty();
                self.branches.len() > 1 || is_scored || !is_drawn_by_model(sampling)
            }
            Task::Search { .. } | Task::Pool { .. } => true,
        }
    }

    /// The model draws its next token, where models draw at all.
    pub(super) fn is_drawn_by_model(&self) -> bool {
        match &self.task {
            Task::Generate { sampling, .. } => self.branches.len() == 1 && is_drawn_by_model(sampling),
            Task::Search { .. } | Task::Pool { .. } => false,
        }
    }

    /// Prompt and generated tokens, the pending ones included.
    pub fn n_tokens(&self) -> usize {
        self.tokens.len() + self.n_pending
    }

    /// Prompt and generated tokens, as far as they are known.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// What its known tokens are the content of.
    pub fn content(&self) -> Content<'_> {
        Content {
            tokens: &self.tokens,
            media: &self.media,
        }
    }

    /// The prompt's tokens.
    pub fn prompt(&self) -> &[u32] {
        &self.tokens[..self.n_prompt]
    }

    /// The generated tokens as far as they are known, those that will not be sent included.
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.n_prompt..]
    }

    /// Tokens whose keys and values are in the cache.
    pub fn n_computed(&self) -> usize {
        self.n_computed
    }

    /// Tokens whose keys and values are not yet in the cache; at least 1 between two steps.
    pub fn n_uncomputed(&self) -> usize {
        self.n_tokens() - self.n_computed
    }

    /// Index of the draw of its latest pending token among the draws of its step; `None` if all tokens are known.
    pub(super) fn pending_draw(&self) -> Option<u32> {
        (self.n_pending > 0).then_some(self.latest_draw)
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
    /// after them.
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

    /// The log-probabilities of the prompt's tokens; the first token has none.
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

    /// A step that was submitted computes its next `n_tokens` tokens.
    pub(super) fn assume_computed(&mut self, n_tokens: usize) {
        self.n_computed += n_tokens;
        self.check_counts();
    }

    /// A step that was submitted draws its next token, as the step's draw `draw`.
    pub(super) fn assume_drawn(&mut self, draw: u32) {
        self.n_pending += 1;
        self.latest_draw = draw;
        self.check_counts();
    }

    /// Its tables, and the known content that they hold.
    pub(super) fn tables_and_computed(&mut self) -> (&mut BlockTables, Content<'_>) {
        let computed = Content {
            tokens: &self.tokens[..self.n_computed.min(self.tokens.len())],
            media: &self.media,
        };
        (&mut self.tables, computed)
    }

    /// Its blocks hold its first `n_tokens` tokens, which the prefix cache had.
    pub(super) fn set_cached(&mut self, n_tokens: usize) {
        self.n_cached = n_tokens;
        self.n_computed = n_tokens;
        self.check_counts();
    }

    /// The order of its counts, after each change of them.
    fn check_counts(&self) {
        let n_tokens_max = match &self.task {
            Task::Generate { stop, .. } | Task::Search { stop, .. } => self.n_prompt + stop.max_tokens,
            Task::Pool { .. } => self.n_prompt,
        };
        let counts = [self.n_cached, self.n_computed, self.n_tokens(), n_tokens_max];
        assert!(
            counts.is_sorted() && self.n_prompt <= self.tokens.len(),
            "cached <= computed <= tokens <= most tokens: {counts:?}"
        );
    }

    /// Gives the first pending token its id; the reason if it ends the answer.
    ///
    /// # Panics
    /// If no token is pending, or the sequence draws none.
    pub(super) fn push(&mut self, next: Next) -> Option<FinishReason> {
        let n_generated = self.generated().len();
        self.n_pending = self.n_pending.checked_sub(1).expect("a token that is pending");
        self.tokens.push(next.token);
        self.check_counts();
        let Task::Generate { stop, .. } = &self.task else {
            panic!("a token for a sequence that draws none");
        };
        match stop.finish(n_generated, next.token) {
            None | Some(FinishReason::Length) if next.is_complete => Some(FinishReason::Complete),
            finished => finished,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::request::StopRules;

    fn sequence(stop: StopRules) -> Sequence {
        let sampling = Arc::default();
        let admitted = Admitted {
            client: Client::default(),
            prompt: vec![1, 2, 3].into(),
            n_branches: 1,
            priority: 0,
            task: Task::Generate {
                sampling,
                stop,
                prompt_logprobs: None,
                grammar: None,
            },
            cache_salt: 0,
            n_overtaking_max: 0,
        };
        let id = SequenceId {
            priority: 0,
            turn: 0,
            arrival: 0,
        };
        Sequence::new(admitted, vec![Branch { id, seed: 0 }], 0, 0)
    }

    /// Draws a token and commits it.
    fn draw(sequence: &mut Sequence, token: u32) -> Option<FinishReason> {
        sequence.assume_computed(sequence.n_uncomputed());
        sequence.assume_drawn(0);
        sequence.push(Next::from(token))
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
        assert_eq!(draw(&mut sequence(rules()), 9), Some(FinishReason::Eos(9)));
        assert_eq!(draw(&mut sequence(rules()), 7), Some(FinishReason::StopToken(7)));
        let mut long = sequence(rules());
        assert_eq!(
            [draw(&mut long, 4), draw(&mut long, 5), draw(&mut long, 6)],
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
        assert_eq!(draw(&mut sequence, 7), Some(FinishReason::StopToken(7)));
    }

    #[test]
    fn stop_tokens_are_forbidden_until_min_tokens() {
        let stop = StopRules {
            min_tokens: 1,
            ..rules()
        };
        assert_eq!([stop.forbidden(0), stop.forbidden(1)], [vec![9, 7], vec![]]);
        let mut sequence = sequence(stop);
        assert_eq!(draw(&mut sequence, 4), None);
        assert_eq!(draw(&mut sequence, 9), Some(FinishReason::Eos(9)));
    }

    #[test]
    fn a_preempted_sequence_keeps_its_tokens() {
        let mut sequence = sequence(rules());
        draw(&mut sequence, 4);
        assert_eq!((sequence.n_computed(), sequence.n_uncomputed()), (3, 1));
        sequence.set_cached(0);
        assert_eq!(
            (sequence.n_uncomputed(), sequence.tokens()),
            (4, &[1, 2, 3, 4][..])
        );
    }
    #[test]
    fn a_pending_token_counts_and_is_not_known() {
        let mut sequence = sequence(rules());
        sequence.assume_computed(3);
        sequence.assume_drawn(5);
        assert_eq!((sequence.n_tokens(), sequence.n_uncomputed()), (4, 1));
        assert_eq!(
            (sequence.generated(), sequence.pending_draw()),
            (&[][..], Some(5))
        );
        // The next step computes the pending token and draws another one.
        sequence.assume_computed(1);
        sequence.assume_drawn(2);
        assert_eq!(sequence.tables_and_computed().1.tokens, [1, 2, 3]);
        assert!(!sequence.is_full());
        assert_eq!(sequence.push(Next::from(4)), None);
        assert_eq!(
            (sequence.generated(), sequence.pending_draw()),
            (&[4][..], Some(2))
        );
        sequence.assume_computed(1);
        sequence.assume_drawn(0);
        assert!(sequence.is_full(), "one known token and two pending ones");
    }
}
