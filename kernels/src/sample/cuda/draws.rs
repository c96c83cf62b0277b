//! The draws of a step as the device reads them.

/// One draw: parameters as the runtime's `SamplingParams` defines them.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// Row of the logits.
    pub logits_row: u32,
    /// The place that knows which tokens the sequence has seen: required for penalties. What is drawn counts there.
    pub place: Option<u32>,
    /// Decides the draw, together with the position.
    pub seed: u64,
    /// Tokens before the drawn one: of the prompt and of the answer.
    pub position: u64,
    /// Divides the logits; below 1e-5 the most probable token is taken.
    pub temperature: f32,
    /// Keep the fewest most probable tokens whose probabilities reach this sum.
    pub top_p: f32,
    /// Keep this many of the most probable tokens.
    pub top_k: Option<usize>,
    /// Keep tokens at least this fraction as probable as the most probable one.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of seen tokens.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens in the answer.
    pub presence_penalty: f32,
    /// Subtracted from the logits of tokens in the answer, once per occurrence.
    pub frequency_penalty: f32,
    /// Return the token's log-probability and those of this many most probable tokens, at most [`Draws::N_TOP_MAX`].
    pub logprobs: Option<usize>,
    /// Added to the logits of these tokens.
    pub logit_bias: &'a [(u32, f32)],
    /// The only tokens that may be drawn.
    pub allowed: Option<&'a [u32]>,
    /// Tokens that may not be drawn.
    pub forbidden: &'a [u32],
    /// One bit per token that may be drawn, 32 to a word, the lowest first; a token beyond the last word may not.
    pub mask: Option<&'a [u32]>,
}

/// Draws, packed for one copy each to [`Sample::draws`](super::Sample::draws) and
/// [`Sample::lists`](super::Sample::lists).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draws {
    rows: Vec<u32>,
    lists: Vec<u32>,
    n_shaped: usize,
}

/// Stands for "none", as in `row.cuh`.
const NONE: u32 = u32::MAX;
/// Where a draw has the number of most probable tokens that it wants.
const N_TOP_AT: usize = 11;

impl Draws {
    /// Words of a draw.
    pub const N_WORDS: usize = 24;

    /// Most probable tokens that a draw returns at most.
    pub const N_TOP_MAX: usize = 20;

    /// Forgets all draws and keeps their memory.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.lists.clear();
        self.n_shaped = 0;
    }

    /// Adds a draw.
    pub fn push(&mut self, draw: &Draw<'_>) {
        let shaped_row = if draw.is_shaped() {
            self.n_shaped += 1;
            self.n_shaped as u32 - 1
        } else {
            NONE
        };
        let top_k = draw.top_k.map_or(NONE, |k| u32::try_from(k).unwrap_or(NONE));
        let n_top = draw.logprobs.map_or(NONE, |n| n.min(Draws::N_TOP_MAX) as u32);
        let min_p_log = f64::from(draw.min_p).ln().to_bits();
        self.rows.extend([
            draw.logits_row,
            shaped_row,
            draw.place.unwrap_or(NONE),
            draw.temperature.to_bits(),
            draw.top_p.to_bits(),
            top_k,
        ]);
        self.rows.extend(halves(min_p_log));
        self.rows.extend([
            draw.repetition_penalty.to_bits(),
            draw.presence_penalty.to_bits(),
            draw.frequency_penalty.to_bits(),
            n_top,
        ]);
        self.rows
            .extend([draw.seed, draw.position].into_iter().flat_map(halves));
        let bias = draw.logit_bias.iter();
        let bias = self.list(bias.flat_map(|&(token, bias)| [token, bias.to_bits()]));
        let allowed = draw.allowed.map(|allowed| self.list(allowed.iter().copied()));
        let forbidden = self.list(draw.forbidden.iter().copied());
        let mask = draw.mask.map(|mask| self.list(mask.iter().copied()));
        self.rows.extend([bias[0], bias[1] / 2]);
        for list in [allowed, Some(forbidden), mask] {
            self.rows.extend(list.unwrap_or([0, NONE]));
        }
    }

    /// The words of all draws, to copy to the device. `[len * Draws::N_WORDS]`
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// The lists of all draws, to copy to the device.
    pub fn lists(&self) -> &[u32] {
        &self.lists
    }

    /// Draws.
    pub fn len(&self) -> usize {
        self.rows.len() / Draws::N_WORDS
    }

    /// Whether there is no draw.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Draws that change their logits first.
    pub fn n_shaped(&self) -> usize {
        self.n_shaped
    }

    /// Whether draw `idx` requests log-probabilities.
    pub fn has_logprobs(&self, idx: usize) -> bool {
        self.rows[idx * Draws::N_WORDS + N_TOP_AT] != NONE
    }

    /// Appends a list; returns where it starts and its words.
    fn list(&mut self, words: impl Iterator<Item = u32>) -> [u32; 2] {
        let first = self.lists.len();
        self.lists.extend(words);
        [first as u32, (self.lists.len() - first) as u32]
    }
}

impl Draw<'_> {
    /// Whether its logits change before the draw.
    fn is_shaped(&self) -> bool {
        let is_penalised =
            self.repetition_penalty != 1.0 || self.presence_penalty != 0.0 || self.frequency_penalty != 0.0;
        self.mask.is_some()
            || self.allowed.is_some()
            || !self.forbidden.is_empty()
            || !self.logit_bias.is_empty()
            || (self.place.is_some() && is_penalised)
    }
}

fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Draw<'static> = Draw {
        logits_row: 3,
        place: None,
        seed: (5 << 32) | 7,
        position: 9,
        temperature: 1.0,
        top_p: 1.0,
        top_k: None,
        min_p: 0.0,
        repetition_penalty: 1.0,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        logprobs: None,
        logit_bias: &[],
        allowed: None,
        forbidden: &[],
        mask: None,
    };

    #[test]
    fn a_draw_has_so_many_words_and_its_lists_follow_each_other() {
        let mut draws = Draws::default();
        draws.push(&PLAIN);
        assert_eq!((draws.rows().len(), draws.n_shaped()), (Draws::N_WORDS, 0));
        assert_eq!(draws.rows()[1..3], [NONE; 2]);
        let listed = Draw {
            logit_bias: &[(4, 1.5), (6, -1.0)],
            allowed: Some(&[1, 2, 3]),
            mask: Some(&[0b101]),
            logprobs: Some(0),
            ..PLAIN
        };
        draws.push(&listed);
        draws.push(&listed);
        assert_eq!((draws.len(), draws.n_shaped(), draws.lists().len()), (3, 2, 16));
        let lists = &draws.rows()[2 * Draws::N_WORDS + 16..];
        assert_eq!(lists, [8, 2, 12, 3, 15, 0, 15, 1]);
        assert!(draws.has_logprobs(1) && !draws.has_logprobs(0));
        draws.clear();
        assert!(draws.is_empty() && draws.lists().is_empty());
    }

    #[test]
    fn penalties_need_a_place() {
        let mut draws = Draws::default();
        let penalised = Draw {
            frequency_penalty: 0.5,
            ..PLAIN
        };
        draws.push(&penalised);
        assert_eq!(draws.n_shaped(), 0);
        draws.push(&Draw {
            place: Some(0),
            ..penalised
        });
        assert_eq!(draws.n_shaped(), 1);
    }
}
