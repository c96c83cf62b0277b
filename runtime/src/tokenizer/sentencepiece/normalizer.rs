//! Normalises a text before it is split into pieces: applies character rules and makes spaces visible.
//!
//! The order of steps is that of sentencepiece's `Normalizer::Normalize`. The rules are a double-array trie of
//! darts-clone, whose leaves are offsets into a block of zero-terminated texts.

use super::super::prefixes::Prefixes;
use super::proto::Model;

/// The visible space.
pub(super) const SPACE: &str = "▁";

/// Whether a text begins with an added space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// If the model adds one.
    Model,
    /// No: the text continues another.
    None,
}

#[derive(Debug)]
pub(super) struct Normalizer {
    rules: Rules,
    add_dummy_prefix: bool,
    remove_extra_whitespaces: bool,
    space: &'static str,
    is_suffix: bool,
}

impl Normalizer {
    /// # Errors
    /// What is wrong with the table of rules.
    pub(super) fn new(model: &Model) -> Result<Self, String> {
        Ok(Self {
            rules: Rules::parse(&model.precompiled_charsmap)?,
            add_dummy_prefix: model.add_dummy_prefix,
            remove_extra_whitespaces: model.remove_extra_whitespaces,
            space: if model.escape_whitespaces { SPACE } else { " " },
            is_suffix: model.treat_whitespace_as_suffix,
        })
    }

    /// Normalises a text. No rule changes the texts of `user_defined`.
    pub(super) fn normalize(&self, text: &str, user_defined: &Prefixes, opening: Opening) -> String {
        let mut rest = text;
        if self.remove_extra_whitespaces {
            rest = self.without_leading_spaces(rest, user_defined);
        }
        let mut normalized = String::with_capacity(text.len() + text.len() / 2 + SPACE.len());
        if rest.is_empty() {
            return normalized;
        }
        let has_dummy = self.add_dummy_prefix && opening == Opening::Model;
        if has_dummy && !self.is_suffix {
            normalized.push_str(self.space);
        }
        let mut follows_space = self.remove_extra_whitespaces;
        while !rest.is_empty() {
            let (mut piece, n_bytes) = self.rules.first(rest, user_defined);
            rest = &rest[n_bytes..];
            if follows_space {
                piece = piece.trim_start_matches(' ');
            }
            if !piece.is_empty() {
                follows_space = self.remove_extra_whitespaces && piece.ends_with(' ');
                let mut words = piece.split(' ');
                normalized.push_str(words.next().unwrap_or_default());
                for word in words {
                    normalized.push_str(self.space);
                    normalized.push_str(word);
                }
            }
        }
        if self.remove_extra_whitespaces {
            let n_bytes = normalized.trim_end_matches(self.space).len();
            normalized.truncate(n_bytes);
        }
        if has_dummy && self.is_suffix {
            normalized.push_str(self.space);
        }
        normalized
    }

    fn without_leading_spaces<'a>(&self, mut text: &'a str, user_defined: &Prefixes) -> &'a str {
        while !text.is_empty() {
            let (piece, n_bytes) = self.rules.first(text, user_defined);
            if piece != " " {
                break;
            }
            text = &text[n_bytes..];
        }
        text
    }
}

/// Replacements of texts.
#[derive(Debug, Default)]
struct Rules {
    units: Vec<u32>,
    /// The replacements, each ended by a zero byte.
    texts: String,
}

impl Rules {
    /// Reads a `precompiled_charsmap`: the trie's length in bytes, the trie, the replacements.
    fn parse(charsmap: &[u8]) -> Result<Self, String> {
        const CUT: &str = "precompiled_charsmap is truncated";
        if charsmap.is_empty() {
            return Ok(Self::default());
        }
        let (length, rest) = charsmap.split_first_chunk().ok_or(CUT)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (trie, texts) = rest.split_at_checked(length).ok_or(CUT)?;
        let texts = std::str::from_utf8(texts)
            .map_err(|error| format!("precompiled_charsmap: a replacement is not UTF-8: {error}"))?;
        let unit = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("chunks of 4"));
        Ok(Self {
            units: trie.chunks_exact(4).map(unit).collect(),
            texts: texts.to_string(),
        })
    }

    /// The replacement of the start of a text, and how many bytes it replaces.
    fn first<'a>(&'a self, text: &'a str, user_defined: &Prefixes) -> (&'a str, usize) {
        if let Some((n_bytes, _)) = user_defined.longest(text.as_bytes()) {
            return (&text[..n_bytes], n_bytes);
        }
        if let Some((n_bytes, offset)) = self.longest(text.as_bytes()) {
            // A damaged table may point between characters, or end inside one.
            let replacement = self
                .texts
                .get(offset..)
                .and_then(|texts| texts.split('\0').next());
            if let (Some(replacement), true) = (replacement, text.is_char_boundary(n_bytes)) {
                return (replacement, n_bytes);
            }
        }
        let n_bytes = text.chars().next().map_or(0, char::len_utf8);
        (&text[..n_bytes], n_bytes)
    }

    /// Length of the longest key that a text begins with, and the offset of its replacement.
    fn longest(&self, text: &[u8]) -> Option<(usize, usize)> {
        let unit = |at: u32| self.units.get(at as usize).copied();
        let mut at = offset(unit(0)?);
        let mut longest = None;
        for (idx, byte) in text.iter().enumerate() {
            at ^= u32::from(*byte);
            let Some(node) = unit(at).filter(|node| label(*node) == u32::from(*byte)) else {
                break;
            };
            at ^= offset(node);
            if has_leaf(node) {
                longest = unit(at).map(|leaf| (idx + 1, value(leaf) as usize));
            }
        }
        longest
    }
}

// The bit fields of a unit of darts-clone.
fn has_leaf(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

fn value(unit: u32) -> u32 {
    unit & 0x7fff_ffff
}

fn label(unit: u32) -> u32 {
    unit & 0x8000_00ff
}

fn offset(unit: u32) -> u32 {
    (unit >> 10) << ((unit & 0x200) >> 6)
}
