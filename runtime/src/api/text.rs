//! From the bytes of tokens to text that can be sent: without incomplete characters and without parts of stop strings.
//!
//! Owns the text that is held back. Must not know tokens, tokenizers or HTTP; it receives bytes.

/// Longest stop string, in bytes. It bounds what [`StopStrings`] holds back.
pub const STOP_BYTES_MAX: usize = 512;

/// The text of one answer while its bytes arrive.
#[derive(Clone, Debug)]
pub struct TextStream {
    characters: Characters,
    stops: StopStrings,
}

/// The result of one step of a [`TextStream`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Text to send now.
    pub text: String,
    /// The stop string that ended the answer. No text follows.
    pub stop: Option<String>,
}

impl TextStream {
    /// A stream that ends at the first of `stops`.
    pub fn new(stops: StopStrings) -> Self {
        Self {
            characters: Characters::default(),
            stops,
        }
    }

    /// Adds the bytes of the next token.
    pub fn push(&mut self, bytes: &[u8]) -> Piece {
        let text = self.characters.push(bytes);
        let piece = self.stops.push(text);
        self.stops.end_token();
        piece
    }

    /// Ends the text, and returns the part that was held back.
    pub fn finish(&mut self) -> Piece {
        let text = self.characters.finish();
        let mut piece = self.stops.push(text);
        if piece.stop.is_none() {
            piece.text.push_str(&self.stops.finish());
        }
        piece
    }
}

/// Decodes bytes as characters. It holds back an incomplete character, at most 3 bytes. Bytes that are not UTF-8 become
/// U+FFFD, as in `String::from_utf8_lossy`.
#[derive(Clone, Debug, Default)]
struct Characters {
    incomplete: Vec<u8>,
}

impl Characters {
    fn push(&mut self, bytes: &[u8]) -> String {
        if self.incomplete.is_empty()
            && let Ok(valid) = std::str::from_utf8(bytes)
        {
            return valid.to_owned();
        }
        let mut held = std::mem::take(&mut self.incomplete);
        held.extend_from_slice(bytes);
        let mut text = String::with_capacity(held.len());
        let mut rest = held.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    return text;
                }
                Err(error) => {
                    let (valid, broken) = rest.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).expect("valid up to here"));
                    let Some(n_broken) = error.error_len() else {
                        self.incomplete = broken.to_vec();
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &broken[n_broken..];
                }
            }
        }
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.incomplete)).into_owned()
    }
}

/// Strings that end an answer. Text that could be the beginning of a stop string is held back.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    stops: Vec<String>,
    place: StopPlace,
    /// Number of further tokens that cannot end the answer.
    n_tokens_before: usize,
    held: String,
    /// Bytes of the held text in which no stop string counts that ends there.
    n_passed: usize,
    ended: bool,
}

/// Whether the stop string is part of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StopPlace {
    /// The answer ends before the stop string.
    #[default]
    Outside,
    /// The answer ends with the stop string.
    Inside,
}

impl StopStrings {
    /// Ends at the first of `stops`, which must not be empty, that is complete after the first `n_tokens_before` tokens.
    pub fn new(stops: Vec<String>, place: StopPlace, n_tokens_before: usize) -> Self {
        Self {
            stops,
            place,
            n_tokens_before,
            held: String::new(),
            n_passed: 0,
            ended: false,
        }
    }

    fn end_token(&mut self) {
        self.n_tokens_before = self.n_tokens_before.saturating_sub(1);
    }

    fn push(&mut self, text: String) -> Piece {
        if self.ended {
            return Piece::default();
        }
        if self.stops.is_empty() {
            return Piece { text, stop: None };
        }
        self.held.push_str(&text);
        if self.n_tokens_before > 0 {
            self.n_passed = self.held.len();
        }
        if let Some((start, end, stop)) = self.first_match() {
            let cut = match self.place {
                StopPlace::Outside => start,
                StopPlace::Inside => end,
            };
            let stop = Some(stop.to_string());
            self.ended = true;
            let mut text = std::mem::take(&mut self.held);
            text.truncate(cut);
            return Piece { text, stop };
        }
        let n_sent = self.held.len() - self.n_possible();
        self.n_passed = self.n_passed.saturating_sub(n_sent);
        let kept = self.held.split_off(n_sent);
        Piece {
            text: std::mem::replace(&mut self.held, kept),
            stop: None,
        }
    }

    fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The match whose end is first; of two with the same end, the longer one. So the answer does not depend on how the
    /// text is divided into tokens.
    fn first_match(&self) -> Option<(usize, usize, &str)> {
        self.stops
            .iter()
            .filter_map(|stop| {
                let from = (self.n_passed + 1).saturating_sub(stop.len());
                let from = (from..=self.held.len()).find(|at| self.held.is_char_boundary(*at))?;
                let start = from + self.held[from..].find(stop.as_str())?;
                Some((start, start + stop.len(), stop.as_str()))
            })
            .min_by_key(|(start, end, _)| (*end, *start))
    }

    /// Number of bytes at the end of the held text that may become a stop string.
    fn n_possible(&self) -> usize {
        let held = self.held.as_bytes();
        let longest_beginning = |stop: &String| {
            let n_max = held.len().min(stop.len() - 1);
            (1..=n_max).rev().find(|n| held.ends_with(&stop.as_bytes()[..*n]))
        };
        self.stops.iter().filter_map(longest_beginning).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stream(stops: &[&str], place: StopPlace) -> TextStream {
        stream_after(stops, place, 0)
    }

    fn stream_after(stops: &[&str], place: StopPlace, n_tokens_before: usize) -> TextStream {
        let stops = stops.iter().map(ToString::to_string).collect();
        TextStream::new(StopStrings::new(stops, place, n_tokens_before))
    }

    /// The pieces of a stream, `|` between them, and `.` where a stop string ended it.
    fn check(stops: &[&str], chunks: &[&str], expected: &str) {
        let mut stream = stream(stops, StopPlace::Outside);
        let mut sent = String::new();
        for chunk in chunks {
            let piece = stream.push(chunk.as_bytes());
            sent.push_str(&piece.text);
            if piece.stop.is_some() {
                sent.push('.');
                break;
            }
            sent.push('|');
        }
        sent.push_str(&stream.finish().text);
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_stop_string_across_tokens_is_never_sent_in_part() {
        check(&["END"], &["one E", "N", "D two"], "one ||.");
        check(&["END"], &["one E", "N", "E", "N", "D"], "one ||EN||.");
        check(&["END"], &["one EN"], "one |EN");
        check(&["\n\n"], &["a\n", "b\n", "\nc"], "a|\nb|.");
    }

    #[test]
    fn the_stop_string_that_is_complete_first_ends_the_answer() {
        check(&["long stop", "g s"], &["a long", " stop"], "a |lon.");
        check(&["b", "ab"], &["xab"], "x.");
        check(&["aab"], &["aaab"], "a.");
    }

    #[test]
    fn without_stop_strings_nothing_is_held() {
        check(&[], &["a", "b"], "a|b|");
    }

    #[test]
    fn a_stop_string_can_be_the_end_of_the_answer() {
        let mut stream = stream(&["</a>"], StopPlace::Inside);
        assert_eq!(stream.push(b"x<").text, "x");
        let piece = stream.push(b"/a>tail");
        assert_eq!(
            (piece.text.as_str(), piece.stop.as_deref()),
            ("</a>", Some("</a>"))
        );
        assert_eq!(stream.push(b"more"), Piece::default());
        assert_eq!(stream.finish().text, "");
    }

    #[test]
    fn the_first_tokens_do_not_end_an_answer() {
        let sent = |n_tokens_before: usize| {
            let mut stream = stream_after(&["b", "cb", "xab"], StopPlace::Outside, n_tokens_before);
            let chunks: Vec<Vec<u8>> = ["xa", "b", "c", "b", "d"].map(|chunk| chunk.into()).into();
            run(&mut stream, &chunks)
        };
        assert_eq!(
            [0, 1, 2, 3, 4, 5].map(sent),
            ["", "", "xab", "xab", "xabcbd", "xabcbd"]
        );
    }

    #[test]
    fn half_a_character_waits_for_the_other_half() {
        let mut stream = stream(&[], StopPlace::Outside);
        let euro = "€".as_bytes();
        assert_eq!(stream.push(&euro[..1]).text, "");
        assert_eq!(stream.push(&euro[1..2]).text, "");
        assert_eq!(stream.push(&euro[2..]).text, "€");
        assert_eq!(stream.push(&[0xff, b'a', 0xe2, 0x82]).text, "\u{fffd}a");
        assert_eq!(stream.finish().text, "\u{fffd}");
    }

    fn cut(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.extend([0, bytes.len()]);
        ends.sort_unstable();
        ends.windows(2)
            .map(|pair| bytes[pair[0]..pair[1]].to_vec())
            .collect()
    }

    fn run(stream: &mut TextStream, chunks: &[Vec<u8>]) -> String {
        let mut text = String::new();
        for chunk in chunks {
            let piece = stream.push(chunk);
            text.push_str(&piece.text);
            if piece.stop.is_some() {
                return text;
            }
        }
        text + &stream.finish().text
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_chunks_are_their_lossy_text(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let text = run(&mut stream(&[], StopPlace::Outside), &cut(&bytes, &cuts));
            prop_assert_eq!(text, String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn any_text_in_any_chunks_is_itself(
            text in "\\PC{0,40}",
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let mut stream = stream(&[], StopPlace::Outside);
            let mut sent = String::new();
            for chunk in cut(text.as_bytes(), &cuts) {
                sent.push_str(&stream.push(&chunk).text);
                prop_assert!(text.starts_with(&sent));
            }
            prop_assert_eq!(sent + &stream.finish().text, text);
        }

        #[test]
        fn stopping_does_not_depend_on_the_chunks(
            text in "[abc€]{0,24}",
            stops in prop::collection::vec("[abc€]{1,4}", 1..4),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            for place in [StopPlace::Outside, StopPlace::Inside] {
                let by_bytes: Vec<Vec<u8>> = text.bytes().map(|byte| vec![byte]).collect();
                let expected = run(&mut stream(&stops, place), &by_bytes);
                let got = run(&mut stream(&stops, place), &cut(text.as_bytes(), &cuts));
                prop_assert_eq!(&got, &expected);
                prop_assert!(text.starts_with(&got));
                if place == StopPlace::Outside {
                    prop_assert!(stops.iter().all(|stop| !got.contains(stop)));
                }
            }
        }
    }
}
