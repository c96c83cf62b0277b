//! The marks of a model, tokens that are no text, and where they stand in a text.

use std::collections::BTreeMap;

use crate::tokenizer::TokenBytes;

/// Marks by how they are written.
#[derive(Debug)]
pub(super) struct Marks {
    by_text: BTreeMap<String, u32>,
}

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Piece<'a> {
    /// Text without marks, not empty.
    Text(&'a str),
    /// A mark.
    Mark(u32),
}

impl Marks {
    pub(super) fn of(tokens: &TokenBytes) -> Marks {
        let ids =
            (0..tokens.n_ids() as u32).filter(|&id| tokens.is_special(id) && !tokens.get(id).is_empty());
        let named = ids.map(|id| (String::from_utf8_lossy(tokens.get(id)).into_owned(), id));
        Marks {
            by_text: named.collect(),
        }
    }

    /// A text as pieces; at each place the longest mark counts.
    pub(super) fn pieces<'a>(&self, text: &'a str) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        let (mut begun, mut at) = (0, 0);
        while let Some(char) = text[at..].chars().next() {
            let rest = &text[at..];
            let alike = self
                .by_text
                .range(char.to_string()..)
                .take_while(|(mark, _)| mark.starts_with(char));
            // Of those that begin the rest, the longest sorts last.
            let found = alike.filter(|(mark, _)| rest.starts_with(mark.as_str())).last();
            match found {
                Some((mark, id)) => {
                    if begun < at {
                        pieces.push(Piece::Text(&text[begun..at]));
                    }
                    pieces.push(Piece::Mark(*id));
                    at += mark.len();
                    begun = at;
                }
                None => at += char.len_utf8(),
            }
        }
        if begun < text.len() {
            pieces.push(Piece::Text(&text[begun..]));
        }
        pieces
    }
}
