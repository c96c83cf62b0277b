//! Doubles for the engine's tests: a model whose next token is a function of all that its cache holds, and dice.
//!
//! The model has one layer per group. A layer writes one number per token to the paged cache and reads all
//! those that its window shows back through the block tables, as attention does, so that a wrong table, a
//! forgotten copy or a stale block changes the text. [`Reference`] computes the same without pages.
//!
//! With depth 2 it draws for itself, as a device does: a step is computed when it is submitted, with the tokens of the
//! step before, and its tokens are drawn when its late inputs are there.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use super::philox::{halves, philox4x32};
use super::prompt::{Prompt, Span};
use super::sampler::{Draw, SamplingParams, sample};
use crate::batch::{
    Batch, BatchRow, BlockMove, DrawSpec, Forward, KvGroup, LateInput, MediaDigest, StepError, StepOutput,
};

/// Prompts longer than this have keys and values of another kind; see [`Forward::prefix_salt`].
const LONG_PROMPT: usize = 20;

/// What a model is like, beside the contents of its cache.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) vocab_size: usize,
    pub(super) block_size: usize,
    pub(super) groups: Vec<KvGroup>,
    pub(super) whole_prompts: bool,
    pub(super) reads_media: bool,
}

/// A model that hashes its context.
pub(super) struct HashModel {
    shape: Shape,
    /// Index in its sequence and number of the token in each slot.
    slots: Vec<Option<(u32, u64)>>,
    host: Vec<Option<(u32, u64)>>,
    depth: usize,
    in_flight: VecDeque<InFlight>,
    /// The draws of the step submitted last.
    previous: Vec<PreviousToken>,
}

/// A step that is submitted and not collected.
struct InFlight {
    output: StepOutput,
    draws: Vec<OwnDraw>,
}

/// A draw that waits for its late input.
struct OwnDraw {
    /// Index among the draws of the step.
    draw: usize,
    place: u32,
    hash: ContextHash,
    params: SamplingParams,
    seed: u64,
    prompt: Vec<u32>,
    generated: Vec<u32>,
}

/// What a draw gave, and to whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct PreviousToken {
    pub(super) draw: u32,
    pub(super) place: u32,
    pub(super) token: u32,
}

/// The hashes at [`Batch::logits_at`] and of [`Batch::pooled_rows`].
pub(super) struct Hashes {
    pub(super) logits: Vec<ContextHash>,
    pub(super) pooled: Vec<ContextHash>,
}

/// One text through the same layers, alone, in arrays of its own.
#[derive(Clone, Debug)]
pub(super) struct Reference {
    groups: Vec<KvGroup>,
    salt: u64,
    /// Numbers of each layer.
    numbers: Vec<Vec<u64>>,
}

/// Seeded random numbers.
pub(super) struct Dice {
    seed: u64,
    n_thrown: u64,
}

/// One token for the layers.
#[derive(Clone, Copy)]
struct Input {
    token: u32,
    token_type: u32,
    medium: u64,
    position: u32,
}

/// What the layers make of a context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ContextHash(u64);

impl HashModel {
    pub(super) fn new(shape: Shape, n_blocks: usize, n_host_blocks: usize) -> HashModel {
        HashModel {
            slots: vec![None; n_blocks * shape.block_size],
            host: vec![None; n_host_blocks * shape.block_size],
            shape,
            depth: 1,
            in_flight: VecDeque::new(),
            previous: Vec::new(),
        }
    }

    /// The same model with another number of steps in flight.
    pub(super) fn with_depth(self, depth: usize) -> HashModel {
        HashModel { depth, ..self }
    }

    /// Computes `batch`, in which the tokens that are not known are those of `previous`.
    pub(super) fn run(&mut self, batch: &Batch, previous: &[PreviousToken]) -> Hashes {
        batch
            .moves
            .iter()
            .for_each(|&block_move| self.do_move(block_move));
        self.check(batch);
        let tokens = resolved(batch, previous);
        let media = media_of(batch);
        let mut hashes: Vec<u64> = Vec::with_capacity(tokens.len());
        for row in &batch.rows {
            for idx in row.query_start..row.query_start + row.query_len {
                let input = Input {
                    token: tokens[idx],
                    token_type: batch.token_types.get(idx).copied().unwrap_or(0),
                    medium: media[idx],
                    position: batch.positions[idx],
                };
                hashes.push(input.embed(salt(row.prompt_len)));
            }
        }
        for layer in 0..self.shape.groups.len() {
            self.write(batch, layer, &hashes);
            for row in &batch.rows {
                let tokens = row.query_start..row.query_start + row.query_len;
                for (hash, at) in hashes[tokens].iter_mut().zip(first_index(row)..) {
                    *hash = self.attend(row, layer, at, *hash);
                }
            }
        }
        let at = |idx: usize| ContextHash(hashes[idx]);
        let last = |row: &u32| {
            let row = &batch.rows[*row as usize];
            at(row.query_start + row.query_len - 1)
        };
        Hashes {
            logits: batch.logits_at.iter().map(|&idx| at(idx as usize)).collect(),
            pooled: batch.pooled_rows.iter().map(last).collect(),
        }
    }

    fn do_move(&mut self, block_move: BlockMove) {
        let size = self.shape.block_size;
        let at = |block: u32| block as usize * size..(block as usize + 1) * size;
        match block_move {
            BlockMove::Copy { from, to } => self.slots.copy_within(at(from.0), at(to.0).start),
            BlockMove::SwapOut { from, to } => self.host[at(to.0)].copy_from_slice(&self.slots[at(from.0)]),
            BlockMove::SwapIn { from, to } => self.slots[at(to.0)].copy_from_slice(&self.host[at(from.0)]),
        }
    }

    fn check(&self, batch: &Batch) {
        let mut query_start = 0;
        for row in &batch.rows {
            assert_eq!(row.query_start, query_start, "rows do not tile the tokens");
            assert!(row.query_len >= 1, "a row with no tokens");
            assert_eq!(row.block_tables.len(), self.shape.groups.len());
            let first = first_index(row);
            assert!(
                !self.shape.whole_prompts || first > 0 || row.query_len >= row.prompt_len,
                "a prompt in pieces"
            );
            query_start += row.query_len;
        }
        assert_eq!([batch.tokens.len(), batch.positions.len()], [query_start; 2]);
        let places: HashSet<u32> = batch.rows.iter().map(|row| row.place).collect();
        assert_eq!(places.len(), batch.rows.len(), "two rows in one place");
        assert!(batch.token_types.is_empty() || batch.token_types.len() == query_start);
    }

    /// The slot of the token with index `at` in its sequence.
    fn slot(&self, row: &BatchRow, layer: usize, at: usize) -> usize {
        let block = row.block_tables[layer][at / self.shape.block_size];
        block.0 as usize * self.shape.block_size + at % self.shape.block_size
    }

    fn write(&mut self, batch: &Batch, layer: usize, hashes: &[u64]) {
        for row in &batch.rows {
            let tokens = row.query_start..row.query_start + row.query_len;
            for (&hash, at) in hashes[tokens].iter().zip(first_index(row)..) {
                let slot = self.slot(row, layer, at);
                self.slots[slot] = Some((at as u32, hash));
            }
        }
    }

    fn attend(&self, row: &BatchRow, layer: usize, at: usize, hash: u64) -> u64 {
        let mut attended = hash;
        for seen in first_seen(self.shape.groups[layer], at)..=at {
            let written = self.slots[self.slot(row, layer, seen)];
            let (written_at, number) = written.expect("a slot read before it was written");
            assert_eq!(written_at as usize, seen, "a slot holds another token's number");
            attended = mix(attended, number);
        }
        attended
    }
}

impl Forward for HashModel {
    fn vocab_size(&self) -> usize {
        self.shape.vocab_size
    }

    fn kv_groups(&self) -> Vec<KvGroup> {
        self.shape.groups.clone()
    }

    fn whole_prompts(&self) -> bool {
        self.shape.whole_prompts
    }

    fn reads_media(&self) -> bool {
        self.shape.reads_media
    }

    fn prefix_salt(&self, prompt_len: usize) -> u64 {
        salt(prompt_len)
    }

    fn depth(&self) -> usize {
        self.depth
    }

    fn submit(&mut self, batch: Arc<Batch>, draws: &[DrawSpec<'_>]) -> Result<(), StepError> {
        assert!(self.in_flight.len() < self.depth, "too many steps in flight");
        assert_eq!(draws.len(), batch.logits_at.len(), "one draw per row of logits");
        let previous = std::mem::take(&mut self.previous);
        let Hashes { logits, pooled } = self.run(&batch, &previous);
        let mut output = StepOutput {
            pooled: pooled.into_iter().map(ContextHash::vector).collect(),
            ..StepOutput::default()
        };
        output.logits.vocab_size = self.shape.vocab_size;
        let mut own_draws = Vec::new();
        for (idx, (hash, spec)) in logits.into_iter().zip(draws).enumerate() {
            let DrawSpec::Token(spec) = spec else {
                output.logits.values.extend(hash.logits(self.shape.vocab_size));
                continue;
            };
            let at = batch.logits_at[idx];
            let pending = batch.from_previous.iter().find(|pending| pending.token == at);
            let pending = pending.map(|pending| of_draw(&previous, pending.draw).token);
            own_draws.push(OwnDraw {
                draw: idx,
                place: row_of(&batch, at).place,
                hash,
                params: spec.params.clone(),
                seed: spec.seed,
                prompt: spec.prompt.to_vec(),
                generated: spec.generated.iter().copied().chain(pending).collect(),
            });
        }
        self.in_flight.push_back(InFlight {
            output,
            draws: own_draws,
        });
        Ok(())
    }

    fn late(&mut self, inputs: &[LateInput<'_>]) -> Result<(), StepError> {
        let newest = self.in_flight.back_mut().ok_or_else(StepError::not_submitted)?;
        assert!(!newest.draws.is_empty(), "late inputs without a draw, or twice");
        for own in newest.draws.drain(..) {
            let late = inputs.iter().find(|late| late.draw == own.draw);
            let draw = Draw {
                params: &own.params,
                prompt: &own.prompt,
                generated: &own.generated,
                forbidden: late.map_or(&[], |late| &late.forbidden),
                mask: late.and_then(|late| late.mask),
                seed: own.seed,
            };
            let drawn = sample(&own.hash.logits(self.shape.vocab_size), &draw);
            self.previous.push(PreviousToken {
                draw: own.draw as u32,
                place: own.place,
                // Whatever follows a failed draw is dropped.
                token: drawn.as_ref().map_or(0, |sampled| sampled.token),
            });
            newest.output.drawn.push(drawn);
        }
        Ok(())
    }

    fn collect(&mut self) -> Result<StepOutput, StepError> {
        let oldest = self.in_flight.pop_front().ok_or_else(StepError::not_submitted)?;
        assert!(oldest.draws.is_empty(), "collected before its late inputs");
        Ok(oldest.output)
    }
}

/// The tokens of a batch, with those of the step before where they are not known.
fn resolved(batch: &Batch, previous: &[PreviousToken]) -> Vec<u32> {
    let mut tokens = batch.tokens.clone();
    for pending in &batch.from_previous {
        assert_eq!(tokens[pending.token as usize], Batch::PENDING);
        let drawn = of_draw(previous, pending.draw);
        let place = row_of(batch, pending.token).place;
        assert_eq!(drawn.place, place, "a sequence changed its place while it ran");
        tokens[pending.token as usize] = drawn.token;
    }
    assert!(!tokens.contains(&Batch::PENDING), "a token that nobody draws");
    tokens
}

fn of_draw(previous: &[PreviousToken], draw: u32) -> PreviousToken {
    let found = previous.iter().find(|drawn| drawn.draw == draw);
    *found.expect("a draw of the step before")
}

/// The row that contains a token.
pub(super) fn row_of(batch: &Batch, token: u32) -> &BatchRow {
    let token = token as usize;
    let contains = |row: &&BatchRow| (row.query_start..row.query_start + row.query_len).contains(&token);
    batch.rows.iter().find(contains).expect("a row for each token")
}

impl Reference {
    pub(super) fn new(groups: &[KvGroup], prompt_len: usize) -> Reference {
        Reference {
            groups: groups.to_vec(),
            salt: salt(prompt_len),
            numbers: vec![Vec::new(); groups.len()],
        }
    }

    /// The hash of a prompt, and the text that goes on from it.
    pub(super) fn of(groups: &[KvGroup], prompt: &Prompt, token_types: &[u32]) -> (Reference, ContextHash) {
        let mut reference = Reference::new(groups, prompt.len());
        let mut hash = ContextHash::default();
        for (idx, (token, medium)) in contents(prompt).enumerate() {
            hash = reference.add(Input {
                token,
                token_type: token_types.get(idx).copied().unwrap_or(0),
                medium,
                position: idx as u32,
            });
        }
        (reference, hash)
    }

    /// Adds a token of text.
    pub(super) fn push(&mut self, token: u32) -> ContextHash {
        self.add(Input {
            token,
            token_type: 0,
            medium: 0,
            position: self.numbers[0].len() as u32,
        })
    }

    fn add(&mut self, input: Input) -> ContextHash {
        let mut hash = input.embed(self.salt);
        for (group, numbers) in self.groups.iter().zip(&mut self.numbers) {
            numbers.push(hash);
            let first = first_seen(*group, numbers.len() - 1);
            hash = numbers[first..]
                .iter()
                .fold(hash, |hash, &number| mix(hash, number));
        }
        ContextHash(hash)
    }
}

impl ContextHash {
    /// The token that a seed draws.
    pub(super) fn token(self, vocab_size: usize, seed: u64) -> u32 {
        (mix(self.0, seed) >> 8) as u32 % vocab_size as u32
    }

    /// Logits between 0 and 4, different in every context.
    pub(super) fn logits(self, vocab_size: usize) -> Vec<f32> {
        let logit = |token| philox4x32(halves(self.0), [token, 0, 0, 0])[0] as f32 / u32::MAX as f32 * 4.0;
        (0..vocab_size as u32).map(logit).collect()
    }

    pub(super) fn vector(self) -> Vec<f32> {
        halves(self.0).map(|half| half as f32).to_vec()
    }
}

impl Input {
    fn embed(self, salt: u64) -> u64 {
        let token = mix(u64::from(self.token), u64::from(self.token_type));
        mix(mix(mix(token, salt), self.medium), u64::from(self.position))
    }
}

/// For each token of a batch what it is of a medium.
fn media_of(batch: &Batch) -> Vec<u64> {
    let mut media = vec![0; batch.tokens.len()];
    for piece in &batch.media {
        for idx in 0..piece.n_tokens {
            media[(piece.token + idx) as usize] = medium(piece.digest, piece.first + idx);
        }
    }
    media
}

/// The tokens of a prompt, each with what it is of a medium.
fn contents(prompt: &Prompt) -> impl Iterator<Item = (u32, u64)> {
    let of_span = |span: &Span| -> Vec<(u32, u64)> {
        match span {
            Span::Tokens(ids) => ids.iter().map(|&token| (token, 0)).collect(),
            Span::Media {
                digest,
                n_tokens,
                placeholder,
            } => (0..*n_tokens as u32)
                .map(|idx| (*placeholder, medium(*digest, idx)))
                .collect(),
        }
    };
    prompt.spans().iter().flat_map(of_span)
}

/// A number for a token of a medium; that of text is 0.
fn medium(digest: MediaDigest, idx: u32) -> u64 {
    mix(u64::from(digest.0[0]) + 1, u64::from(idx) + 1)
}

/// Index in its sequence of the first new token of a row.
fn first_index(row: &BatchRow) -> usize {
    row.context_len - row.query_len
}

fn salt(prompt_len: usize) -> u64 {
    u64::from(prompt_len > LONG_PROMPT)
}

fn first_seen(group: KvGroup, position: usize) -> usize {
    group
        .window
        .map_or(0, |window| (position + 1).saturating_sub(window))
}

fn mix(hash: u64, number: u64) -> u64 {
    let mixed = (hash ^ number.rotate_left(32))
        .wrapping_add(number)
        .wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 29)
}

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice { seed, n_thrown: 0 }
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        let [low, high] = halves(self.n_thrown);
        self.n_thrown += 1;
        philox4x32(halves(self.seed), [low, high, 0, 0])[0] as usize % bound
    }

    /// A number of `range`.
    pub(super) fn within(&mut self, range: std::ops::RangeInclusive<usize>) -> usize {
        range.start() + self.below(range.end() - range.start() + 1)
    }

    /// True once in `n` throws.
    pub(super) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}
