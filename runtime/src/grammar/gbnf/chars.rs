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

    /// The characters of ranges, in any order, from the first to the last character of each.
    pub(super) fn of_ranges(ranges: impl IntoIterator<Item = (char, char)>) -> Chars {
        let ranges = ranges
            .into_iter()
            .map(|(first, last)| (first as u32, last as u32));
        Chars::joined(ranges.collect())
    }

    /// Adds the characters of another set.
    pub(super) fn add(&mut self, other: &Chars) {
        *self = Chars::joined([self.ranges.as_slice(), &other.ranges].concat());
    }

    /// The set of the characters of ranges in any order.
    fn joined(mut ranges: Vec<(u32, u32)>) -> Chars {
        // This sort is linear for two ascending lists.
        ranges.sort();
        let mut joined: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => joined.push((first, last)),
            }
        }
        Chars { ranges: joined }
    }

    /// Number of ranges.
    pub(super) fn n_ranges(&self) -> usize {
        self.ranges.len()
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

/// A character as a literal of a regular expression.
pub(super) fn escaped(char: char) -> String {
    if char.is_ascii_alphanumeric() {
        char.to_string()
    } else {
        format!("\\x{{{:x}}}", char as u32)
    }
}
