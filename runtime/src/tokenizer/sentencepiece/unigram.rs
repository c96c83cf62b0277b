//! Splits a text into the pieces with the highest sum of scores.

use super::super::prefixes::Prefixes;

/// How much lower an unknown character scores than the worst piece: sentencepiece's `kUnkPenalty`.
const UNKNOWN_PENALTY: f32 = 10.0;

/// The score of every piece.
#[derive(Debug)]
pub(super) struct Unigram {
    /// By id; `None` for pieces that a text is never split into.
    scores: Vec<Option<Score>>,
    unknown: u32,
    unknown_score: f32,
    best_score: f32,
}

/// The score of a piece.
#[derive(Clone, Copy, Debug)]
pub(super) enum Score {
    /// This number.
    Of(f32),
    /// Higher than any other pieces of the same length, because the text is never split.
    Always,
}

/// The best pieces up to a place of the text.
#[derive(Clone, Copy)]
struct Arrival {
    score: f32,
    /// Where the last piece starts; `id` is its id.
    from: usize,
    id: u32,
}

impl Unigram {
    pub(super) fn new(scores: Vec<Option<Score>>, unknown: u32) -> Self {
        let plain = scores.iter().filter_map(|score| match score {
            Some(Score::Of(score)) => Some(*score),
            Some(Score::Always) | None => None,
        });
        let worst = plain.clone().fold(f32::MAX, f32::min);
        Self {
            unknown,
            unknown_score: worst - UNKNOWN_PENALTY,
            // Sentencepiece starts its search for the maximum with the smallest positive number.
            best_score: plain.fold(f32::MIN_POSITIVE, f32::max),
            scores,
        }
    }

    /// Lengths and ids of the pieces of a text. Sums are rounded to f32, as in sentencepiece 0.2.3.
    pub(super) fn cut(&self, text: &str, words: &Prefixes) -> Vec<(usize, u32)> {
        let bytes = text.as_bytes();
        let mut arrivals: Vec<Option<Arrival>> = vec![None; bytes.len() + 1];
        for (from, character) in text.char_indices() {
            let score_here = arrivals[from].map_or(0.0, |arrival| arrival.score);
            let mut covers_character = false;
            for (length, id) in words.of(&bytes[from..]) {
                let Some(score) = self.scores[id as usize] else {
                    continue;
                };
                let score = self.sum(score, length, score_here);
                arrive(&mut arrivals[from + length], score, from, id);
                covers_character |= length == character.len_utf8();
            }
            if !covers_character {
                let score = self.unknown_score + score_here;
                arrive(
                    &mut arrivals[from + character.len_utf8()],
                    score,
                    from,
                    self.unknown,
                );
            }
        }
        let mut pieces = Vec::new();
        let mut end = bytes.len();
        while let Some(arrival) = arrivals[end] {
            pieces.push((end - arrival.from, arrival.id));
            end = arrival.from;
        }
        pieces.reverse();
        pieces
    }

    fn sum(&self, score: Score, length: usize, before: f32) -> f32 {
        match score {
            Score::Of(score) => score + before,
            Score::Always => length as f32 * self.best_score - 0.1 + before,
        }
    }
}

fn arrive(place: &mut Option<Arrival>, score: f32, from: usize, id: u32) {
    if place.is_none_or(|best| score > best.score) {
        *place = Some(Arrival { score, from, id });
    }
}
