//! Encodes texts within a number of tokens.
//!
//! Owns which tokens are removed: those of the text, and not those that begin, separate and end a sequence, because a
//! model was never trained on a text without its end. Of a pair, the longer text is shortened first.

use tokenizers::{Encoding, Token};

use super::{Begin, Encoder, Pair, Tokenizer, TokenizerError, encode_error, guarded};

/// How many tokens of a sequence are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Tokens that are kept, those that begin and end the sequence included.
    pub n_max: usize,
    /// Where tokens of a text are removed.
    pub side: Side,
}

/// How many tokens of a pair of texts are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PairLimit {
    /// Tokens of the second text, without those that separate and end the sequence.
    pub n_second_max: usize,
    /// The whole sequence.
    pub whole: Limit,
}

/// The side on which tokens are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// At the start of a text.
    Left,
    /// At its end.
    Right,
}

impl Side {
    /// The `n_max` items that are kept.
    pub fn kept<T>(self, mut items: Vec<T>, n_max: usize) -> Vec<T> {
        let n_removed = items.len().saturating_sub(n_max);
        match self {
            Side::Left => drop(items.drain(..n_removed)),
            Side::Right => items.truncate(n_max),
        }
        items
    }
}

impl Tokenizer {
    /// Encodes a text as [`Tokenizer::encode`] does, and keeps a number of tokens.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] when the library fails.
    pub fn encode_within(&self, text: &str, begin: Begin, limit: Limit) -> Result<Vec<u32>, TokenizerError> {
        let Limit { n_max, side } = limit;
        let ids = self.encode(text, Begin::Leave)?;
        if begin == Begin::Leave {
            return Ok(side.kept(ids, n_max));
        }
        let whole = self.with_marks(text, ids.clone())?;
        if whole.len() <= n_max {
            return Ok(whole);
        }
        let n_marks = whole.len().saturating_sub(ids.len());
        let kept = side.kept(ids, n_max.saturating_sub(n_marks));
        Ok(side.kept(self.with_marks(text, kept)?, n_max))
    }

    /// Adds the tokens that begin and end a sequence to the tokens of `text`, or to a part of them.
    fn with_marks(&self, text: &str, ids: Vec<u32>) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = match &self.encoder {
            Encoder::Plain(_) | Encoder::Skipped => ids,
            Encoder::Library(library) => {
                let process = || library.post_process(encoding(&ids, 0), None, true);
                guarded(process).map_err(encode_error)?.get_ids().to_vec()
            }
        };
        self.boundaries.apply(text, &mut ids);
        Ok(ids)
    }

    /// Encodes two texts as [`Tokenizer::encode_pair`] does, and keeps a number of tokens.
    ///
    /// # Errors
    /// [`TokenizerError::NoPairs`] without a template for pairs; [`TokenizerError::Encode`] when the library fails.
    pub fn encode_pair_within(
        &self,
        first: &str,
        second: &str,
        limit: PairLimit,
    ) -> Result<Pair, TokenizerError> {
        let Limit { n_max, side } = limit.whole;
        let first = self.encode(first, Begin::Leave)?;
        let second = side.kept(self.encode(second, Begin::Leave)?, limit.n_second_max);
        let n_marks = self.joined(&[], &[])?.ids.len();
        let (n_first, n_second) = shares(first.len(), second.len(), n_max.saturating_sub(n_marks));
        let (first, second) = (side.kept(first, n_first), side.kept(second, n_second));
        let Pair { ids, token_types } = self.joined(&first, &second)?;
        Ok(Pair {
            ids: side.kept(ids, n_max),
            token_types: side.kept(token_types, n_max),
        })
    }

    /// Joins the tokens of two texts to one sequence.
    pub(super) fn joined(&self, first: &[u32], second: &[u32]) -> Result<Pair, TokenizerError> {
        match &self.encoder {
            Encoder::Skipped => Err(TokenizerError::Skipped),
            Encoder::Library(library) => {
                let process = || library.post_process(encoding(first, 0), Some(encoding(second, 1)), true);
                let pair = guarded(process).map_err(encode_error)?;
                Ok(Pair {
                    ids: pair.get_ids().to_vec(),
                    token_types: pair.get_type_ids().to_vec(),
                })
            }
            Encoder::Plain(plain) => {
                let ids = plain.pair(first, second).ok_or(TokenizerError::NoPairs)?;
                let token_types = vec![0; ids.len()];
                Ok(Pair { ids, token_types })
            }
        }
    }
}

/// How many tokens of two texts are kept of `n_max` together: the longer one is shortened until both are equally long,
/// and then both are.
fn shares(n_first: usize, n_second: usize, n_max: usize) -> (usize, usize) {
    if n_first.saturating_add(n_second) <= n_max {
        return (n_first, n_second);
    }
    let half = n_max / 2;
    if n_first <= n_second {
        let n_first = n_first.min(half);
        (n_first, n_max - n_first)
    } else {
        let n_second = n_second.min(half);
        (n_max - n_second, n_second)
    }
}

/// The library's form of tokens, of which the post-processor reads the ids only.
fn encoding(ids: &[u32], type_id: u32) -> Encoding {
    let token = |id: &u32| Token::new(*id, String::new(), (0, 0));
    Encoding::from_tokens(ids.iter().map(token).collect(), type_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longer_text_is_shortened_first() {
        for (lengths, n_max, kept) in [
            ((3, 4), 7, (3, 4)),
            ((3, 10), 8, (3, 5)),
            ((10, 3), 8, (5, 3)),
            ((10, 10), 7, (3, 4)),
            ((11, 10), 7, (4, 3)),
            ((5, 0), 3, (3, 0)),
            ((5, 5), 0, (0, 0)),
        ] {
            assert_eq!(shares(lengths.0, lengths.1, n_max), kept, "{lengths:?} {n_max}");
        }
    }

    #[test]
    fn a_side_is_removed() {
        assert_eq!(Side::Left.kept(vec![1, 2, 3], 2), [2, 3]);
        assert_eq!(Side::Right.kept(vec![1, 2, 3], 2), [1, 2]);
        assert_eq!(Side::Left.kept(vec![1, 2, 3], 9), [1, 2, 3]);
        assert!(Side::Right.kept(vec![1], 0).is_empty());
    }
}
