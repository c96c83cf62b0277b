//! Sets of characters.

use std::fmt::Write as _;

/// A set of characters: ascending ranges of code points that do not touch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Chars {
    ranges: Vec<(u32, u32)>,
}

impl Chars {
    /// All characters.
    pub(super) fn all() -> Chars {
        Chars {
            ranges: vec![(0, char::MAX as u32)],
        }
    }

    /// Adds the characters from `first` to `last`.
    pub(super) fn add_range(&mut self, first: char, last: char) {
        self.add(&Chars {
            ranges: vec![(first as u32, last as u32)],
        });
    }

    /// Adds the characters of another set.
    pub(super) fn add(&mut self, other: &Chars) {
        let mut ranges = [self.ranges.as_slice(), &other.ranges].concat();
        ranges.sort_unstable();
        self.ranges.clear();
        for (first, last) in ranges {
            match self.ranges.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => self.ranges.push((first, last)),
            }
        }
    }

    /// All other characters.
    pub(super) fn negated(&self) -> Chars {
        let mut next = 0;
        let mut ranges = Vec::new();
        for &(first, last) in &self.ranges {
            if next < first {
                ranges.push((next, first - 1));
            }
            next = last + 1;
        }
        if next <= char::MAX as u32 {
            ranges.push((next, char::MAX as u32));
        }
        Chars { ranges }
    }

    /// Whether the sets have a character in common.
    pub(super) fn meets(&self, other: &Chars) -> bool {
        let (mut ours, mut theirs) = (self.ranges.iter().peekable(), other.ranges.iter().peekable());
        while let (Some(a), Some(b)) = (ours.peek(), theirs.peek()) {
            if a.1 < b.0 {
                ours.next();
            } else if b.1 < a.0 {
                theirs.next();
            } else {
                return true;
            }
        }
        false
    }

    /// The set as a class of a regular expression; the class of an empty set matches nothing.
    pub(super) fn to_regex(&self) -> String {
        if self.ranges.is_empty() {
            return "[^\\x{0}-\\x{10ffff}]".to_owned();
        }
        let mut regex = "[".to_owned();
        for &(first, last) in &self.ranges {
            let _ = write!(regex, "\\x{{{first:x}}}-\\x{{{last:x}}}");
        }
        regex.push(']');
        regex
    }
}

impl FromIterator<char> for Chars {
    fn from_iter<I: IntoIterator<Item = char>>(chars: I) -> Chars {
        let mut set = Chars::default();
        chars.into_iter().for_each(|char| set.add_range(char, char));
        set
    }
}

/// A character as a literal of a regular expression.
pub(super) fn escaped(char: char) -> String {
    if char.is_ascii_alphanumeric() {
        char.to_string()
    } else {
        format!("\\x{{{:x}}}", char as u32)
    }
}
