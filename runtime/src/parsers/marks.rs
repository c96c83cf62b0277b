//! Finding marks in a text that is still arriving.

/// The first mark in `text`, and where it begins. The longer counts of two that begin at one place.
pub(super) fn first<'a>(text: &str, marks: &[&'a str]) -> Option<(usize, &'a str)> {
    let found = marks.iter().filter_map(|mark| Some((text.find(mark)?, *mark)));
    found.min_by_key(|(at, mark)| (*at, usize::MAX - mark.len()))
}

/// The bytes of `text` that cannot be part of a mark, whatever follows.
pub(super) fn settled(text: &str, marks: &[&str]) -> usize {
    let begins_mark = |at: &usize| marks.iter().any(|mark| mark.starts_with(&text[*at..]));
    let longest = marks.iter().map(|mark| mark.len()).max().unwrap_or(0);
    let from = text.len().saturating_sub(longest);
    let starts = (from..text.len()).filter(|at| text.is_char_boundary(*at));
    starts.into_iter().find(begins_mark).unwrap_or(text.len())
}
