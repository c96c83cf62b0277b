//! The special tokens of a model, and where a text contains them.

use std::collections::BTreeMap;

use crate::tokenizer::TokenBytes;

/// Special tokens by their text.
#[derive(Debug)]
pub(super) struct SpecialTokens {
    by_text: BTreeMap<String, u32>,
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Segment<'a> {
    /// Text without special tokens, not empty.
    Text(&'a str),
    /// The id of a special token.
    Token(u32),
}

impl SpecialTokens {
    pub(super) fn of(tokens: &TokenBytes) -> SpecialTokens {
        let ids =
            (0..tokens.n_ids() as u32).filter(|&id| tokens.is_special(id) && !tokens.get(id).is_empty());
        let named = ids.map(|id| (String::from_utf8_lossy(tokens.get(id)).into_owned(), id));
        SpecialTokens {
            by_text: named.collect(),
        }
    }

    /// Splits a text at its special tokens; the longest counts where several begin.
    pub(super) fn segments<'a>(&self, text: &'a str) -> Vec<Segment<'a>> {
        let mut segments = Vec::new();
        let (mut begun, mut at) = (0, 0);
        while let Some(char) = text[at..].chars().next() {
            let rest = &text[at..];
            let alike = self
                .by_text
                .range(char.to_string()..)
                .take_while(|(token, _)| token.starts_with(char));
            // The longest of those that the rest begins with sorts last.
            let found = alike.filter(|(token, _)| rest.starts_with(token.as_str())).last();
            match found {
                Some((token, id)) => {
                    if begun < at {
                        segments.push(Segment::Text(&text[begun..at]));
                    }
                    segments.push(Segment::Token(*id));
                    at += token.len();
                    begun = at;
                }
                None => at += char.len_utf8(),
            }
        }
        if begun < text.len() {
            segments.push(Segment::Text(&text[begun..]));
        }
        segments
    }
}
