//! A complete answer, and the choice of the best of several.

use super::delta::{Delta, Finish, PromptLogprobs, Token, TokenCounts};
use crate::parsers::Parts;

/// A complete answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whole {
    /// Its thoughts, content and calls.
    pub parts: Parts,
    /// Its tokens, if the request needs them or their log-probabilities.
    pub tokens: Vec<Token>,
    /// Log-probabilities of the prompt, if they are requested.
    pub prompt: Option<PromptLogprobs>,
    /// Its tokens.
    pub counts: TokenCounts,
    /// Why it ended.
    pub finish: Option<Finish>,
}

impl From<Delta> for Whole {
    /// Treats a piece as a complete answer.
    fn from(delta: Delta) -> Self {
        let mut whole = Self::default();
        whole.append(delta);
        whole
    }
}

impl Whole {
    /// Adds the next piece.
    pub(super) fn append(&mut self, delta: Delta) {
        let Delta {
            choice_idx: _,
            pieces,
            tokens,
            prompt,
            counts,
            finish,
        } = delta;
        self.parts.extend(pieces);
        self.tokens.extend(tokens);
        self.prompt = self.prompt.take().or(prompt);
        self.counts = counts;
        self.finish = finish;
    }

    /// Sum of the log-probabilities of its tokens.
    fn logprob(&self) -> f64 {
        let chosen = self.tokens.iter().filter_map(|token| token.logprobs.as_ref());
        chosen.map(|logprobs| f64::from(logprobs.chosen)).sum()
    }
}

/// Returns the `n` most probable of each `best_of` answers, the best first.
pub fn best(candidates: Vec<Whole>, best_of: usize, n: usize) -> Vec<Whole> {
    if best_of == n {
        return candidates;
    }
    let mut best = Vec::new();
    for answers in candidates.chunks(best_of) {
        let mut answers = answers.to_vec();
        // The sort is stable: of equals, the answer with the earlier seed comes first.
        answers.sort_by(|a, b| b.logprob().total_cmp(&a.logprob()));
        answers.truncate(n);
        best.extend(answers);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::TokenLogprobs;

    fn whole(text: &str, logprobs: &[f32]) -> Whole {
        let token = |chosen: &f32| Token {
            id: 1,
            logprobs: Some(TokenLogprobs {
                rank: 1,
                chosen: *chosen,
                top: Vec::new(),
            }),
        };
        Whole {
            parts: Parts {
                content: text.into(),
                ..Parts::default()
            },
            tokens: logprobs.iter().map(token).collect(),
            ..Whole::default()
        }
    }

    #[test]
    fn the_most_probable_answers_of_each_prompt_are_the_best() {
        let candidates = vec![
            whole("a", &[-1.0, -2.0]),
            whole("b", &[-0.5]),
            whole("c", &[-2.0]),
            whole("d", &[-9.0]),
            whole("e", &[-9.0]),
            whole("f", &[-8.0]),
        ];
        let texts = |n| -> Vec<String> {
            let best = best(candidates.clone(), 3, n);
            best.into_iter().map(|whole| whole.parts.content).collect()
        };
        assert_eq!(texts(2), ["b", "c", "f", "d"]);
        assert_eq!(texts(1), ["b", "f"]);
        assert_eq!(texts(3), ["a", "b", "c", "d", "e", "f"]);
    }
}
