//! Tokens that are recognised in a text verbatim and before all others: `<s>`, `<|im_start|>`.
//!
//! Owns their declaration and the search for them, for vocabularies without a `tokenizer.json`; with one, the library
//! does this.

use super::prefixes::Prefixes;

/// A token that a checkpoint declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedToken {
    /// Its text.
    pub content: String,
    /// Its id; `None` if the vocabulary defines it.
    pub id: Option<u32>,
    /// Whether it is special, and not text.
    pub is_special: bool,
    /// Whether it removes the space before it.
    pub strips_left: bool,
    /// Whether it removes the space after it.
    pub strips_right: bool,
}

impl AddedToken {
    /// A special token that leaves the space around it.
    pub fn special(content: String, id: Option<u32>) -> Self {
        Self {
            content,
            id,
            is_special: true,
            strips_left: false,
            strips_right: false,
        }
    }
}

/// The added tokens of a vocabulary.
#[derive(Debug, Default)]
pub(super) struct AddedTokens {
    /// Each with its id, unordered.
    tokens: Vec<(AddedToken, u32)>,
    contents: Prefixes,
}

/// A part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Segment<'a> {
    /// Text between added tokens.
    Text(&'a str),
    /// The id of an added token.
    Token(u32),
}

impl AddedTokens {
    /// Collects the declared tokens; the first of several declarations of one text counts. `id` finds the id of a text
    /// in the vocabulary; tokens without an id are left out.
    pub(super) fn new(declared: &[AddedToken], id: impl Fn(&str) -> Option<u32>) -> Self {
        let mut tokens: Vec<(AddedToken, u32)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for token in declared.iter().filter(|token| !token.content.is_empty()) {
            let Some(id) = token.id.or_else(|| id(&token.content)) else {
                continue;
            };
            if seen.insert(token.content.as_str()) {
                tokens.push((token.clone(), id));
            }
        }
        let contents = tokens.iter().map(|(token, _)| token.content.clone().into_bytes());
        let contents = Prefixes::new(contents.zip(0..)).expect("each text is there once");
        Self { tokens, contents }
    }

    /// The tokens, each with its id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&AddedToken, u32)> {
        self.tokens.iter().map(|(token, id)| (token, *id))
    }

    /// The id of a token.
    pub(super) fn id(&self, content: &str) -> Option<u32> {
        let idx = self.contents.get(content.as_bytes())?;
        Some(self.tokens[idx as usize].1)
    }

    /// Splits a text at its added tokens: at the leftmost first, and at the longest of several. Empty texts are left
    /// out.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<Segment<'a>> {
        let mut segments = Vec::new();
        let (mut start, mut at) = (0, 0);
        let mut previous = None;
        while at < text.len() {
            let follows_token = previous.is_some() && at == start;
            // ChatGLM's `sop` is a plain word, so it counts only after another token: "sophisticated" contains none.
            let candidates = self.contents.of(&text.as_bytes()[at..]);
            let found = candidates
                .filter(|(_, idx)| follows_token || !self.is_word(*idx))
                .last();
            let Some((length, idx)) = found else {
                at += 1;
                continue;
            };
            let (token, id) = &self.tokens[idx as usize];
            segments.extend(between(&text[start..at], previous, Some(token)));
            segments.push(Segment::Token(*id));
            previous = Some(token);
            at += length;
            start = at;
        }
        segments.extend(between(&text[start..], previous, None));
        segments
    }

    /// Whether a token consists of letters.
    fn is_word(&self, idx: u32) -> bool {
        let content = &self.tokens[idx as usize].0.content;
        content.chars().all(char::is_alphabetic)
    }
}

/// The text between two tokens, without the space that they remove; `None` if nothing is left.
fn between<'a>(
    text: &'a str,
    previous: Option<&AddedToken>,
    next: Option<&AddedToken>,
) -> Option<Segment<'a>> {
    let text = match previous {
        Some(token) if token.strips_right => text.trim_start(),
        _ => text,
    };
    let text = match next {
        Some(token) if token.strips_left => text.trim_end(),
        _ => text,
    };
    (!text.is_empty()).then_some(Segment::Text(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> AddedTokens {
        let declared = |content: &str, strips_left, strips_right| AddedToken {
            strips_left,
            strips_right,
            ..AddedToken::special(content.into(), None)
        };
        let declared = [
            declared("<s>", false, false),
            declared("<s>>", false, false),
            declared("<mask>", true, true),
            declared("sop", false, false),
            declared("<unknown>", false, false),
            AddedToken::special("<s>".into(), Some(77)),
            AddedToken::special("<late>".into(), None),
            AddedToken::special("<late>".into(), Some(78)),
        ];
        let ids = ["<s>", "<s>>", "<mask>", "sop"];
        AddedTokens::new(&declared, |content| {
            ids.iter().position(|known| *known == content).map(|id| id as u32)
        })
    }

    fn check(text: &str, expected: &[Segment<'_>]) {
        assert_eq!(tokens().split(text), expected, "{text}");
    }

    #[test]
    fn a_text_is_split_at_the_leftmost_and_longest_token() {
        use Segment::{Text, Token};
        check("", &[]);
        check("€<", &[Text("€<")]);
        check(
            "<s>a<<s>>>b<s>",
            &[Token(0), Text("a<"), Token(1), Text(">b"), Token(0)],
        );
        check(
            "a <mask> b <s> c",
            &[Text("a"), Token(2), Text("b "), Token(0), Text(" c")],
        );
        check(" <mask> <mask> ", &[Token(2), Token(2)]);
        check("<unknown>", &[Text("<unknown>")]);
        check("<late>", &[Token(78)]);
    }

    #[test]
    fn a_plain_word_counts_only_after_another_token() {
        use Segment::{Text, Token};
        check(
            "sop <s>sop sophist",
            &[Text("sop "), Token(0), Token(3), Text(" sophist")],
        );
    }
}
