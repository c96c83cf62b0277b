//! Prompts: runs of tokens, and images or sounds that tokens stand for.
//!
//! Owns what a token of a prompt is the content of: itself, or a piece of a medium. Two equal placeholders of different
//! images are different content, so the prefix cache keeps them apart. Must not know sequences or blocks.

use std::ops::Range;
use std::sync::Arc;

use crate::batch::{MediaDigest, MediaPiece};

/// A prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    spans: Vec<Span>,
}

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub enum Span {
    /// Text.
    Tokens(Vec<u32>),
    /// An image or a sound.
    Media {
        /// Which one.
        digest: MediaDigest,
        /// Tokens that stand for it.
        n_tokens: usize,
        /// The id that each of them has.
        placeholder: u32,
    },
}

/// Where an image or a sound is in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaRun {
    /// Index of its first token.
    pub start: usize,
    /// Tokens that stand for it.
    pub n_tokens: usize,
    /// Which one it is.
    pub digest: MediaDigest,
}

/// The content of a text: its tokens, and what some of them stand for.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Token ids.
    pub tokens: &'a [u32],
    /// Images and sounds, in the order of the tokens; they may reach beyond the tokens.
    pub media: &'a [MediaRun],
}

impl Prompt {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.spans.iter().map(Span::len).sum()
    }

    /// It has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its parts.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Its token ids, placeholders included.
    pub fn ids(&self) -> impl Iterator<Item = u32> {
        self.spans.iter().flat_map(Span::ids)
    }

    /// It has images or sounds.
    pub fn has_media(&self) -> bool {
        self.spans.iter().any(|span| matches!(span, Span::Media { .. }))
    }

    /// Its token ids, and where its images and sounds are.
    pub fn into_parts(self) -> (Vec<u32>, Arc<[MediaRun]>) {
        let mut tokens = Vec::new();
        let mut media = Vec::new();
        for span in self.spans {
            match span {
                Span::Tokens(ids) if tokens.is_empty() => tokens = ids,
                Span::Tokens(ids) => tokens.extend(ids),
                Span::Media {
                    digest,
                    n_tokens,
                    placeholder,
                } => {
                    media.push(MediaRun {
                        start: tokens.len(),
                        n_tokens,
                        digest,
                    });
                    tokens.resize(tokens.len() + n_tokens, placeholder);
                }
            }
        }
        (tokens, media.into())
    }
}

impl Span {
    fn len(&self) -> usize {
        match self {
            Span::Tokens(ids) => ids.len(),
            Span::Media { n_tokens, .. } => *n_tokens,
        }
    }

    fn ids(&self) -> impl Iterator<Item = u32> {
        let (ids, placeholders) = match self {
            Span::Tokens(ids) => (&ids[..], None),
            Span::Media {
                n_tokens,
                placeholder,
                ..
            } => (&[][..], Some(std::iter::repeat_n(*placeholder, *n_tokens))),
        };
        ids.iter().copied().chain(placeholders.into_iter().flatten())
    }
}

impl<'a> Content<'a> {
    /// Pieces of media among the tokens of `range`, counted from its start.
    pub fn media_in(self, range: Range<usize>) -> impl Iterator<Item = MediaPiece> {
        self.media.iter().filter_map(move |run| {
            let start = run.start.max(range.start);
            let end = (run.start + run.n_tokens).min(range.end);
            (start < end).then(|| MediaPiece {
                token: (start - range.start) as u32,
                n_tokens: (end - start) as u32,
                digest: run.digest,
                first: (start - run.start) as u32,
            })
        })
    }
}

impl From<Vec<u32>> for Prompt {
    /// A prompt of text alone.
    fn from(tokens: Vec<u32>) -> Prompt {
        Prompt::from(vec![Span::Tokens(tokens)])
    }
}

impl From<Vec<Span>> for Prompt {
    fn from(spans: Vec<Span>) -> Prompt {
        Prompt { spans }
    }
}

impl FromIterator<u32> for Prompt {
    fn from_iter<I: IntoIterator<Item = u32>>(tokens: I) -> Prompt {
        Prompt::from(tokens.into_iter().collect::<Vec<u32>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAT: MediaDigest = MediaDigest([1; 32]);

    #[test]
    fn a_prompt_is_its_spans_one_after_the_other() {
        let prompt = Prompt::from(vec![
            Span::Tokens(vec![1, 2]),
            Span::Media {
                digest: CAT,
                n_tokens: 3,
                placeholder: 9,
            },
            Span::Tokens(vec![3]),
        ]);
        assert_eq!((prompt.len(), prompt.has_media()), (6, true));
        assert_eq!(prompt.ids().collect::<Vec<_>>(), [1, 2, 9, 9, 9, 3]);
        let (tokens, media) = prompt.into_parts();
        assert_eq!(tokens, [1, 2, 9, 9, 9, 3]);
        assert_eq!(
            *media,
            [MediaRun {
                start: 2,
                n_tokens: 3,
                digest: CAT
            }]
        );
    }

    #[test]
    fn a_piece_knows_where_it_is_in_its_range_and_in_its_medium() {
        let media = [MediaRun {
            start: 2,
            n_tokens: 5,
            digest: CAT,
        }];
        let content = Content {
            tokens: &[9; 8],
            media: &media,
        };
        let pieces = |range| {
            content
                .media_in(range)
                .map(|piece| (piece.token, piece.n_tokens, piece.first))
        };
        assert_eq!(pieces(0..4).collect::<Vec<_>>(), [(2, 2, 0)]);
        assert_eq!(pieces(4..8).collect::<Vec<_>>(), [(0, 3, 2)]);
        assert_eq!(pieces(0..2).chain(pieces(7..8)).count(), 0);
    }
}
