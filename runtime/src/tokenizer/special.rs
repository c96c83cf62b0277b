//! Tokens that are recognised in a text as they stand, before anything else is: `<s>`, `<|im_start|>`.
//!
//! Owns their declaration and the search for them. A `tokenizer.json` brings its own; this is for vocabularies that
//! come without one.

use super::prefixes::Prefixes;

/// A token as a checkpoint declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedToken {
    /// Its text.
    pub content: String,
    /// Its id; `None` if the vocabulary knows.
    pub id: Option<u32>,
    /// Whether it is a mark rather than text.
    pub is_special: bool,
    /// Whether it takes the space before it.
    pub strips_left: bool,
    /// Whether it takes the space after it.
    pub strips_right: bool,
}

impl AddedToken {
    /// A mark.
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

/// All such tokens of a vocabulary.
#[derive(Debug, Default)]
pub(super) struct AddedTokens {
    /// Each with its id, in no order.
    tokens: Vec<(AddedToken, u32)>,
    contents: Prefixes,
}

/// A piece of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Text between such tokens.
    Text(&'a str),
    /// The id of one.
    Token(u32),
}

impl AddedTokens {
    /// The declared tokens; of several declarations of one text the first counts. `id` knows the vocabulary; what
    /// has no id at all is left out.
    pub(super) fn new(declared: &[AddedToken], id: impl Fn(&str) -> Option<u32>) -> Self {
        let mut tokens: Vec<(AddedToken, u32)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for token in declared.iter().filter(|token| !token.content.is_empty()) {
            let id = token.id.or_else(|| id(&token.content));
            if let (Some(id), true) = (id, seen.insert(token.content.as_str())) {
                tokens.push((token.clone(), id));
            }
        }
        let contents = tokens.iter().map(|(token, _)| token.content.clone().into_bytes());
        let contents = Prefixes::new(contents.zip(0..)).expect("each text is there once");
        Self { tokens, contents }
    }

    /// Each with its id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&AddedToken, u32)> {
        self.tokens.iter().map(|(token, id)| (token, *id))
    }

    /// The id of one.
    pub(super) fn id(&self, content: &str) -> Option<u32> {
        let idx = self.contents.get(content.as_bytes())?;
        Some(self.tokens[idx as usize].1)
    }

    /// Cuts a text at them: the leftmost first, of those the longest. Empty pieces are left out.
    pub(super) fn split<'a>(&self, text: &'a str) -> Vec<Part<'a>> {
        let mut parts = Vec::new();
        let (mut start, mut at) = (0, 0);
        let mut strips = false;
        while at < text.len() {
            let Some((length, idx)) = self.at(text, at, at == start) else {
                at += 1;
                continue;
            };
            let (token, id) = &self.tokens[idx as usize];
            push(&mut parts, &text[start..at], strips, token.strips_left);
            parts.push(Part::Token(*id));
            strips = token.strips_right;
            at += length;
            start = at;
        }
        push(&mut parts, &text[start..], strips, false);
        parts
    }

    /// The longest that stands at a place. One that is a plain word, such as ChatGLM's `sop`, counts only after
    /// another: "sophisticated" does not begin with it.
    fn at(&self, text: &str, at: usize, is_first: bool) -> Option<(usize, u32)> {
        let is_word = |idx: u32| {
            let content = &self.tokens[idx as usize].0.content;
            content.chars().all(char::is_alphabetic)
        };
        let found = self.contents.of(&text.as_bytes()[at..]);
        found
            .filter(|(_, idx)| (is_first && at > 0) || !is_word(*idx))
            .last()
    }
}

fn push<'a>(parts: &mut Vec<Part<'a>>, text: &'a str, strips_start: bool, strips_end: bool) {
    let text = if strips_start { text.trim_start() } else { text };
    let text = if strips_end { text.trim_end() } else { text };
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
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
        ];
        let ids = ["<s>", "<s>>", "<mask>", "sop"];
        AddedTokens::new(&declared, |content| {
            ids.iter().position(|known| *known == content).map(|id| id as u32)
        })
    }

    fn check(text: &str, expected: &[Part<'_>]) {
        assert_eq!(tokens().split(text), expected, "{text}");
    }

    #[test]
    fn a_text_is_cut_at_the_leftmost_and_longest() {
        use Part::{Text, Token};
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
    }

    #[test]
    fn a_plain_word_counts_only_after_another_token() {
        use Part::{Text, Token};
        check(
            "sop <s>sop sophist",
            &[Text("sop "), Token(0), Token(3), Text(" sophist")],
        );
    }
}
