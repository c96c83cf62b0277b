//! A set of byte strings that finds the ones a text begins with.

/// Byte strings, each with a number. Sorted, so that strings with a common prefix are neighbours.
#[derive(Debug, Default)]
pub(super) struct Prefixes {
    words: Vec<(Box<[u8]>, u32)>,
    /// `words[starts[byte]..starts[byte + 1]]` begin with `byte`; empty for no words.
    starts: Vec<usize>,
}

impl Prefixes {
    /// Makes a set. Empty strings are left out.
    ///
    /// # Errors
    /// A string that occurs twice.
    pub(super) fn new(words: impl IntoIterator<Item = (Vec<u8>, u32)>) -> Result<Self, Vec<u8>> {
        let mut words: Vec<(Box<[u8]>, u32)> = words
            .into_iter()
            .filter(|(word, _)| !word.is_empty())
            .map(|(word, number)| (word.into_boxed_slice(), number))
            .collect();
        words.sort_unstable();
        if let Some(twice) = words.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(twice[0].0.to_vec());
        }
        let start = |byte: usize| words.partition_point(|(word, _)| usize::from(word[0]) < byte);
        let starts = (0..=256).map(start).collect();
        Ok(Self { words, starts })
    }

    /// The number of a string.
    pub(super) fn get(&self, word: &[u8]) -> Option<u32> {
        let idx = self.words.binary_search_by(|(other, _)| (**other).cmp(word));
        idx.ok().map(|idx| self.words[idx].1)
    }

    /// The strings, each with its number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], u32)> {
        self.words.iter().map(|(word, number)| (&**word, *number))
    }

    /// Lengths and numbers of the strings that `text` begins with, shortest first.
    pub(super) fn of<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = (usize, u32)> + 'a {
        let first = text.first().map(|byte| usize::from(*byte));
        let mut candidates = match first {
            Some(byte) if !self.words.is_empty() => &self.words[self.starts[byte]..self.starts[byte + 1]],
            _ => &[],
        };
        let mut length = 1;
        std::iter::from_fn(move || {
            // All candidates begin with the first `length` bytes of the text.
            while let [(word, number), others @ ..] = candidates {
                if word.len() == length {
                    candidates = others;
                    return Some((length, *number));
                }
                let Some(byte) = text.get(length) else {
                    break;
                };
                let low = candidates.partition_point(|(word, _)| word[length] < *byte);
                let high = candidates.partition_point(|(word, _)| word[length] <= *byte);
                candidates = &candidates[low..high];
                length += 1;
            }
            None
        })
    }

    /// Length and number of the longest string that `text` begins with.
    pub(super) fn longest(&self, text: &[u8]) -> Option<(usize, u32)> {
        self.of(text).last()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_the_strings_of_a_full_search(
            words in prop::collection::btree_set(prop::collection::vec(97..100u8, 0..5), 0..30),
            text in prop::collection::vec(97..101u8, 0..8),
        ) {
            let numbered = words.iter().cloned().zip(0..);
            let prefixes = Prefixes::new(numbered.clone()).unwrap();
            let mut expected: Vec<(usize, u32)> = numbered
                .filter(|(word, _)| !word.is_empty() && text.starts_with(word))
                .map(|(word, number)| (word.len(), number))
                .collect();
            expected.sort_unstable();
            prop_assert_eq!(prefixes.of(&text).collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(prefixes.longest(&text), expected.last().copied());
            let equal = expected.iter().find(|(length, _)| *length == text.len());
            prop_assert_eq!(prefixes.get(&text), equal.map(|(_, number)| *number));
        }
    }

    #[test]
    fn a_string_that_occurs_twice_is_returned() {
        let twice = [(b"a".to_vec(), 0), (b"b".to_vec(), 1), (b"a".to_vec(), 2)];
        assert_eq!(Prefixes::new(twice).unwrap_err(), b"a");
    }
}
