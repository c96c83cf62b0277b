//! Byte pair encoding: merges the best pair of neighbours that forms a word, until no pair does.
//!
//! Sentencepiece and tiktoken begin with different symbols (characters, bytes) and order merges differently (by score,
//! by rank). Both merge the leftmost of equal pairs. Must not know vocabularies.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

/// A symbol before any merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    /// Length in bytes, at least 1.
    pub(super) length: usize,
    /// Whether it may be merged.
    pub(super) merges: bool,
}

/// The index of a missing neighbour.
const NONE: usize = usize::MAX;

struct Node {
    /// Empty once merged into its left neighbour.
    range: Range<usize>,
    merges: bool,
    previous: usize,
    next: usize,
}

/// The ranges of the text after all merges. `symbols` cover the text in order. `rank` returns the rank of the word that
/// two neighbouring ranges form, or `None` if they form none; a lower rank is merged earlier.
pub(super) fn merged(
    symbols: impl Iterator<Item = Symbol>,
    mut rank: impl FnMut(Range<usize>, Range<usize>) -> Option<u32>,
) -> Vec<Range<usize>> {
    let mut nodes = chain(symbols);
    let mut queue = BinaryHeap::new();
    let mut offer = |nodes: &[Node], left: usize, queue: &mut BinaryHeap<Reverse<(u32, usize, usize)>>| {
        let Some(node) = nodes.get(left) else { return };
        let Some(next) = nodes.get(node.next) else { return };
        if node.merges
            && next.merges
            && let Some(rank) = rank(node.range.clone(), next.range.clone())
        {
            queue.push(Reverse((rank, left, next.range.end)));
        }
    };
    for left in 0..nodes.len() {
        offer(&nodes, left, &mut queue);
    }
    while let Some(Reverse((_, left, end))) = queue.pop() {
        let next = nodes[left].next;
        // One of the two has changed since this pair was queued.
        if nodes[left].range.is_empty() || next == NONE || nodes[next].range.end != end {
            continue;
        }
        let after = nodes[next].next;
        nodes[left].range.end = end;
        nodes[left].next = after;
        nodes[next].range = end..end;
        if after != NONE {
            nodes[after].previous = left;
        }
        offer(&nodes, nodes[left].previous, &mut queue);
        offer(&nodes, left, &mut queue);
    }
    let ranges = nodes.into_iter().map(|node| node.range);
    ranges.filter(|range| !range.is_empty()).collect()
}

fn chain(symbols: impl Iterator<Item = Symbol>) -> Vec<Node> {
    let mut start = 0;
    let node = |(idx, symbol): (usize, Symbol)| {
        let range = start..start + symbol.length;
        start = range.end;
        Node {
            range,
            merges: symbol.merges,
            previous: idx.checked_sub(1).unwrap_or(NONE),
            next: idx + 1,
        }
    };
    let mut nodes: Vec<Node> = symbols.enumerate().map(node).collect();
    if let Some(last) = nodes.last_mut() {
        last.next = NONE;
    }
    nodes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORDS: [&str; 9] = ["ab", "bc", "abc", "aa", "aaa", "ca", "cab", "bcab", "aaab"];

    fn rank(word: &str) -> Option<u32> {
        // Some ranks are equal, so that the leftmost pair must win.
        WORDS
            .iter()
            .position(|other| *other == word)
            .map(|idx| idx as u32 / 2)
    }

    /// Searches all neighbours in each round.
    fn searched(text: &str, frozen: &[bool]) -> Vec<String> {
        let mut words: Vec<(String, bool)> = text
            .chars()
            .map(String::from)
            .zip(frozen.iter().copied())
            .collect();
        loop {
            let candidates = words
                .windows(2)
                .enumerate()
                .filter(|(_, pair)| !pair[0].1 && !pair[1].1);
            let best = candidates
                .filter_map(|(idx, pair)| Some((rank(&(pair[0].0.clone() + &pair[1].0))?, idx)))
                .min();
            let Some((_, idx)) = best else {
                return words.into_iter().map(|(word, _)| word).collect();
            };
            let right = words.remove(idx + 1).0;
            words[idx].0.push_str(&right);
        }
    }

    proptest! {
        #[test]
        fn merges_equal_those_of_a_full_search(text in "[abc]{0,24}", frozen in prop::collection::vec(prop::bool::weighted(0.1), 24)) {
            let symbols = frozen.iter().take(text.len()).map(|frozen| Symbol { length: 1, merges: !frozen });
            let ranges = merged(symbols, |left, right| {
                assert_eq!(left.end, right.start);
                rank(&text[left.start..right.end])
            });
            let words: Vec<&str> = ranges.into_iter().map(|range| &text[range]).collect();
            prop_assert_eq!(words, searched(&text, &frozen));
        }
    }
}
