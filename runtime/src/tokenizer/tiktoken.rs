//! Tiktoken's vocabulary file: each line is a token in base64 and its rank, which is also its id.
//!
//! The file does not define how a text is split before bytes are merged; the tokenizer class does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::utils::SysRegex;
use tokenizers::{NormalizedString, Normalizer};

use super::bytes::{ID_MAX, Token};
use super::pairs::{Symbol, merged};
use super::prefixes::Prefixes;
use super::special::AddedToken;

/// How a tokenizer class splits texts into words.
#[derive(Debug)]
struct Class {
    /// `tokenizer_class` of `tokenizer_config.json`.
    name: &'static str,
    pattern: &'static str,
    normalization: Normalization,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Normalization {
    None,
    Nfc,
}

/// Qwen's class, which a file named `qwen.tiktoken` always has.
pub(super) const QWEN: &str = "QWenTokenizer";

/// Source: `tokenization_qwen.py` of Qwen/Qwen-7B and `tokenization_chatglm.py` of THUDM/glm-4-9b.
static CLASSES: [Class; 2] = [
    Class {
        name: QWEN,
        pattern: r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        normalization: Normalization::Nfc,
    },
    Class {
        name: "ChatGLM4Tokenizer",
        pattern: r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        normalization: Normalization::None,
    },
];

/// Number of Qwen's `<|extra_…|>` tokens, which follow its three named ones.
const QWEN_EXTRAS: usize = 205;

/// A loaded vocabulary.
#[derive(Debug)]
pub(super) struct Tiktoken {
    words: Prefixes,
    n_ids: u32,
    regex: SysRegex,
    class: &'static Class,
}

impl Tiktoken {
    /// Whether the first line of a file is in this format.
    pub(super) fn is_tiktoken(file: &[u8]) -> bool {
        let line = file.split(|byte| *byte == b'\n').next().unwrap_or_default();
        matches!(entry(line), Ok(Some(_)))
    }

    /// Reads a file for a tokenizer class.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn parse(file: &[u8], class: &str) -> Result<Self, String> {
        let known = CLASSES.iter().find(|known| known.name == class).ok_or_else(|| {
            let names: Vec<&str> = CLASSES.iter().map(|known| known.name).collect();
            let names = names.join(", ");
            format!("tokenizer_class {class:?} is not supported; supported are {names}")
        })?;
        let mut words = Vec::new();
        for (idx, line) in file.split(|byte| *byte == b'\n').enumerate() {
            let entry = entry(line).map_err(|reason| format!("line {}: {reason}", idx + 1))?;
            words.extend(entry);
        }
        let mut ranks: Vec<u32> = words.iter().map(|(_, rank)| *rank).collect();
        ranks.sort_unstable();
        if let Some(twice) = ranks.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("rank {} occurs twice", twice[0]));
        }
        let words = Prefixes::new(words)
            .map_err(|twice| format!("token {:?} occurs twice", String::from_utf8_lossy(&twice)))?;
        if let Some(byte) = (0..=u8::MAX).find(|byte| words.get(&[*byte]).is_none()) {
            return Err(format!("byte {byte:#04x} has no token"));
        }
        Ok(Self {
            words,
            n_ids: ranks.last().map_or(0, |last| last + 1),
            regex: SysRegex::new(known.pattern).map_err(|error| error.to_string())?,
            class: known,
        })
    }

    /// The ids of a text.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let normalized = match self.class.normalization {
            Normalization::None => None,
            Normalization::Nfc => {
                let mut normalized = NormalizedString::from(text);
                NFC.normalize(&mut normalized).ok().map(|()| normalized)
            }
        };
        let text = normalized.as_ref().map_or(text, NormalizedString::get);
        let mut end = 0;
        for (start, next) in self.regex.find_iter(text) {
            // The patterns match every character, but the library may stop early on a text.
            self.merge(&text.as_bytes()[end..start], ids);
            self.merge(&text.as_bytes()[start..next], ids);
            end = next;
        }
        self.merge(&text.as_bytes()[end..], ids);
    }

    /// The id of a token.
    pub(super) fn id(&self, token: &str) -> Option<u32> {
        self.words.get(token.as_bytes())
    }

    /// The tokens in the order of their ids.
    pub(super) fn tokens(&self) -> Vec<Token> {
        let mut tokens = vec![Token::default(); self.n_ids as usize];
        for (word, id) in self.words.iter() {
            tokens[id as usize].bytes = word.to_vec();
        }
        tokens
    }

    /// Whether it is of Qwen's class.
    pub(super) fn is_qwen(&self) -> bool {
        self.class.name == QWEN
    }

    /// The special tokens of Qwen's class, whose ids follow those of the file.
    pub(super) fn qwen_marks(&self) -> Vec<AddedToken> {
        let named = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
        let extras = (0..QWEN_EXTRAS).map(|number| format!("<|extra_{number}|>"));
        let contents = named.into_iter().map(String::from).chain(extras);
        let mark = |(id, content)| AddedToken::special(content, Some(id));
        (self.n_ids..).zip(contents).map(mark).collect()
    }

    fn merge(&self, word: &[u8], ids: &mut Vec<u32>) {
        if let Some(id) = self.words.get(word) {
            ids.push(id);
            return;
        }
        let byte = Symbol {
            length: 1,
            merges: true,
        };
        let bytes = std::iter::repeat_n(byte, word.len());
        let ranges = merged(bytes, |left, right| self.words.get(&word[left.start..right.end]));
        ids.extend(
            ranges
                .into_iter()
                .filter_map(|range| self.words.get(&word[range])),
        );
    }
}

/// Token and rank of a line; `None` for an empty one.
fn entry(line: &[u8]) -> Result<Option<(Vec<u8>, u32)>, &'static str> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    let space = line.iter().position(|byte| *byte == b' ').ok_or("no rank")?;
    let token = STANDARD
        .decode(&line[..space])
        .map_err(|_| "the token is not base64")?;
    let rank = std::str::from_utf8(&line[space + 1..]).ok();
    let rank = rank
        .and_then(|rank| rank.parse().ok())
        .filter(|rank| *rank <= ID_MAX);
    Ok(Some((
        token,
        rank.ok_or("the rank is not a number or is too large")?,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_line_and_the_fault() {
        let bytes: Vec<(u32, [u8; 1])> = (0..=u8::MAX).map(|byte| (u32::from(byte), [byte])).collect();
        let line = |(rank, byte): &(u32, [u8; 1])| format!("{} {rank}\n", STANDARD.encode(byte));
        let complete: String = bytes.iter().map(line).collect();
        assert!(Tiktoken::parse(complete.as_bytes(), QWEN).is_ok());
        let check = |file: &str, expected: &str| {
            let reason = Tiktoken::parse(file.as_bytes(), QWEN).unwrap_err();
            assert!(reason.contains(expected), "{reason}");
        };
        check(&(complete.clone() + "QUI= 7\n"), "rank 7 occurs twice");
        check(&(complete.clone() + "QQ== 700\n"), "token \"A\" occurs twice");
        check(&(complete.clone() + "QUI= 4294967295\n"), "line 257: the rank");
        check(&(complete.clone() + "QUI=\n"), "line 257: no rank");
        check(&(complete.clone() + "Q?I= 256\n"), "line 257: the token");
        check(
            &complete[..complete.len() - "/w== 255\n".len()],
            "byte 0xff has no token",
        );
        let unknown = Tiktoken::parse(complete.as_bytes(), "OtherTokenizer").unwrap_err();
        assert!(unknown.contains("OtherTokenizer"), "{unknown}");
    }
}
