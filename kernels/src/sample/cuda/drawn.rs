//! What became of a draw.

use super::Draws;

/// A drawn token.
#[derive(Clone, Debug, PartialEq)]
pub struct Drawn {
    /// Its id.
    pub token: u32,
    /// Log-probabilities, where they were requested.
    pub logprobs: Option<DrawnLogprobs>,
}

/// Natural log-probabilities under the raw logits.
#[derive(Clone, Debug, PartialEq)]
pub struct DrawnLogprobs {
    /// Of the drawn token.
    pub chosen: f32,
    /// Its rank: 1 if no token is more probable.
    pub rank: usize,
    /// The most probable tokens, most probable first; ties by lower id.
    pub top: Vec<(u32, f32)>,
}

/// Why no token was drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Refusal {
    /// A logit is NaN or positive infinity.
    BadLogit {
        /// The first such token.
        token: u32,
        /// Its logit.
        value: f32,
    },
    /// Every token is forbidden or has a logit of negative infinity.
    NoCandidate,
}

/// Words of a result before the lists.
const N_FIELDS: usize = 6;

impl Drawn {
    /// Words of a result.
    pub const N_WORDS: usize = N_FIELDS + 2 * Draws::N_TOP_MAX;

    /// The results of `draws`. `words` is what [`sample`](super::sample()) wrote for them.
    ///
    /// # Panics
    /// `words` has fewer results than `draws` has draws.
    pub fn read(words: &[u32], draws: &Draws) -> Vec<Result<Drawn, Refusal>> {
        let result = |idx: usize| {
            let words = &words[idx * Drawn::N_WORDS..][..Drawn::N_WORDS];
            Drawn::read_one(words, draws.has_logprobs(idx))
        };
        (0..draws.len()).map(result).collect()
    }

    fn read_one(words: &[u32], has_logprobs: bool) -> Result<Drawn, Refusal> {
        let (status, token) = (words[0], words[1]);
        match status {
            0 => {}
            1 => {
                let value = f32::from_bits(words[2]);
                return Err(Refusal::BadLogit { token, value });
            }
            _ => return Err(Refusal::NoCandidate),
        }
        let (tokens, logprobs) = words[N_FIELDS..].split_at(Draws::N_TOP_MAX);
        let top = tokens.iter().zip(logprobs).take(words[5] as usize);
        let top = top.map(|(&token, &logprob)| (token, f32::from_bits(logprob)));
        let logprobs = has_logprobs.then(|| DrawnLogprobs {
            chosen: f32::from_bits(words[3]),
            rank: words[4] as usize,
            top: top.collect(),
        });
        Ok(Drawn { token, logprobs })
    }
}
