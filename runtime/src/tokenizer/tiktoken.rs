//! Tiktoken's vocabulary file: each line is a token in base64 and its rank, which is also its id. And `tekken.json`, the
//! same vocabulary as Mistral writes it.
//!
//! The first does not define how a text is split before bytes are merged; the tokenizer class does. The second contains
//! the pattern and the special tokens, whose ids precede those of the vocabulary.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::utils::SysRegex;
use tokenizers::{NormalizedString, Normalizer};

use super::bytes::{ID_MAX, Token};
use super::mistral::MARKS;
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
    /// The special tokens that follow those of the file: named ones, then a number with this beginning and end.
    marks: &'static [&'static str],
    numbered: Numbered,
}

/// Special tokens that differ in a number.
#[derive(Clone, Copy, Debug)]
struct Numbered {
    before: &'static str,
    /// How many there are.
    n: usize,
    counts_from: CountsFrom,
}

/// Where the numbers of special tokens begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CountsFrom {
    /// At zero.
    Zero,
    /// At the id of the token.
    Id,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Normalization {
    None,
    Nfc,
}

/// Qwen's class, which a file named `qwen.tiktoken` always has.
pub(super) const QWEN: &str = "QWenTokenizer";

/// Sources: `tokenization_qwen.py` of Qwen/Qwen-7B, `tokenization_chatglm.py` of THUDM/glm-4-9b,
/// `tokenization_kimi.py` of moonshotai/Kimi-K2-Instruct and `tokenization_moonshot.py` of moonshotai/Moonlight-16B-A3B.
static CLASSES: [Class; 3] = [
    Class {
        name: QWEN,
        pattern: r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        normalization: Normalization::Nfc,
        marks: &["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        numbered: Numbered {
            before: "<|extra_",
            n: 205,
            counts_from: CountsFrom::Zero,
        },
    },
    Class {
        name: "ChatGLM4Tokenizer",
        pattern: r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        normalization: Normalization::None,
        marks: &[],
        numbered: Numbered {
            before: "",
            n: 0,
            counts_from: CountsFrom::Zero,
        },
    },
    Class {
        name: "TikTokenTokenizer",
        pattern: concat!(
            r"[\p{Han}]+",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*",
            r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+",
            r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
            r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ),
        normalization: Normalization::None,
        // The named ones are in tokenizer_config.json, each with its id.
        marks: &[],
        numbered: Numbered {
            before: "<|reserved_token_",
            n: 256,
            counts_from: CountsFrom::Id,
        },
    },
];

/// Most special tokens of a `tekken.json`; published ones have 1,000.
const N_SPECIAL_MAX: u32 = 1 << 16;
/// Longest pattern of a `tekken.json`, in bytes.
const PATTERN_BYTES_MAX: usize = 4096;

/// A `tekken.json`.
#[derive(Debug, Deserialize)]
struct Tekken {
    config: TekkenConfig,
    vocab: Vec<TekkenToken>,
    special_tokens: Option<Vec<TekkenMark>>,
}

#[derive(Debug, Deserialize)]
struct TekkenConfig {
    pattern: String,
    default_vocab_size: u32,
    default_num_special_tokens: u32,
    version: Option<String>,
}

#[derive(Debug, Deserialize)]
struct TekkenToken {
    rank: u32,
    token_bytes: String,
}

#[derive(Debug, Deserialize)]
struct TekkenMark {
    rank: u32,
    token_str: String,
}

/// A loaded vocabulary.
#[derive(Debug)]
pub(super) struct Tiktoken {
    words: Prefixes,
    n_ids: u32,
    regex: SysRegex,
    normalization: Normalization,
    marks: Vec<AddedToken>,
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
        let mut tiktoken = Self::of_words(words, known.pattern)?;
        tiktoken.normalization = known.normalization;
        tiktoken.marks = known.marks_from(tiktoken.n_ids);
        Ok(tiktoken)
    }

    /// Reads a `tekken.json`; also returns its version, such as `v3`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub(super) fn parse_tekken(file: &[u8]) -> Result<(Self, String), String> {
        let Tekken {
            config,
            vocab,
            special_tokens,
        } = serde_json::from_slice(file).map_err(|error| error.to_string())?;
        let n_special = config.default_num_special_tokens;
        if n_special > N_SPECIAL_MAX || config.default_vocab_size > ID_MAX {
            return Err(format!(
                "it has more than {N_SPECIAL_MAX} special tokens, or more than {ID_MAX} tokens"
            ));
        }
        if config.pattern.len() > PATTERN_BYTES_MAX {
            return Err(format!("its pattern has more than {PATTERN_BYTES_MAX} bytes"));
        }
        // The file may contain more tokens than the model has.
        let n_words = config
            .default_vocab_size
            .checked_sub(n_special)
            .ok_or("default_vocab_size is less than default_num_special_tokens")?;
        let mut words = Vec::new();
        for token in vocab.iter().filter(|token| token.rank < n_words) {
            let word = STANDARD.decode(&token.token_bytes);
            let word = word.map_err(|_| format!("the token of rank {} is not base64", token.rank))?;
            words.push((word, token.rank + n_special));
        }
        let mut marks: Vec<AddedToken> = (0..n_special)
            .map(|id| AddedToken::special(format!("<SPECIAL_{id}>"), Some(id)))
            .collect();
        let listed = special_tokens.map_or_else(
            || (0..).zip(MARKS.map(str::to_owned)).collect(),
            |marks| {
                marks
                    .into_iter()
                    .map(|mark| (mark.rank, mark.token_str))
                    .collect::<Vec<_>>()
            },
        );
        for (rank, text) in listed {
            let Some(mark) = marks.get_mut(rank as usize) else {
                return Err(format!(
                    "the special token {text:?} has rank {rank}, must be below {n_special}"
                ));
            };
            mark.content = text;
        }
        let mut tiktoken = Self::of_words(words, &config.pattern)?;
        tiktoken.marks = marks;
        Ok((tiktoken, config.version.unwrap_or_else(|| "v3".to_owned())))
    }

    /// Checks tokens, each with its id, which is also its rank among them.
    fn of_words(words: Vec<(Vec<u8>, u32)>, pattern: &str) -> Result<Self, String> {
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
            regex: SysRegex::new(pattern).map_err(|error| error.to_string())?,
            normalization: Normalization::None,
            marks: Vec::new(),
        })
    }

    /// The ids of a text.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let normalized = match self.normalization {
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

    /// The special tokens that the file or the class defines.
    pub(super) fn marks(&self) -> &[AddedToken] {
        &self.marks
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

impl Class {
    /// The special tokens of a vocabulary whose first free id is `first`.
    fn marks_from(&self, first: u32) -> Vec<AddedToken> {
        let Numbered {
            before,
            n,
            counts_from,
        } = self.numbered;
        let named = self.marks.iter().map(|mark| (*mark).to_owned());
        let start = match counts_from {
            CountsFrom::Zero => 0,
            CountsFrom::Id => first as usize,
        };
        let numbered = (start..start + n).map(|number| format!("{before}{number}|>"));
        let mark = |(id, content)| AddedToken::special(content, Some(id));
        (first..).zip(named.chain(numbered)).map(mark).collect()
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
