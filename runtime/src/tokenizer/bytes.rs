//! The bytes of each token, computed once from the tokenizer's decoder.
//!
//! Bytes, because a token may contain half a character. Decoders differ in how they write tokens (bytes as printable
//! characters, `▁` for a space, `<0x0A>` for a byte), but the bytes of a token depend on this token alone. There is one
//! exception: what some decoders do at the start of a text. [`Leading`] and [`Continuation`] hold it.

use serde_json::Value;
use tokenizers::decoders::wordpiece;

use super::error::TokenizerError;

/// Largest id of a token. The largest vocabularies have 250,000 tokens.
pub(super) const ID_MAX: u32 = (1 << 21) - 1;
/// Bytes of all tokens together, at most.
const TABLE_BYTES_MAX: usize = 256 << 20;
/// Longest replacement of a decoder, in bytes.
const REPLACEMENT_BYTES_MAX: usize = 64;

/// Whether special tokens are part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// They are left out.
    Skip,
    /// They are written out.
    Show,
}

/// The bytes of every token.
#[derive(Debug)]
pub struct TokenBytes {
    bytes: Vec<u8>,
    /// `bytes[ends[id - 1]..ends[id]]` are those of token `id`.
    ends: Vec<u32>,
    is_special: Vec<bool>,
    longest_bytes: usize,
    leading: Leading,
    continuation: Option<Continuation>,
}

/// One token.
#[derive(Clone, Debug, Default)]
pub(super) struct Token {
    /// Its part of a text.
    pub(super) bytes: Vec<u8>,
    /// Whether it is a special token.
    pub(super) is_special: bool,
}

/// What a decoder drops at the start of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leading {
    /// Nothing.
    Kept,
    /// At most this many spaces.
    Spaces(usize),
    /// All spaces of the first token.
    FirstToken,
}

/// Tokens that continue a word, such as WordPiece's `##ing`. At the start of a text, the prefix is written out.
#[derive(Debug)]
struct Continuation {
    prefix: String,
    /// By id: whether a token continues a word.
    continues: Vec<bool>,
}

/// One step from a token, as the vocabulary writes it, to its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum DecoderStep {
    /// Each character is a byte in GPT-2's table.
    ByteLevel,
    /// `<0x0A>` is a byte.
    ByteFallback,
    /// Replaces a text by another.
    Replace { from: String, to: String },
    /// Begins a word, unless the token begins with `prefix`.
    Word { prefix: String, cleanup: bool },
    /// Begins a word.
    Apart,
}

/// The steps of a decoder in `tokenizer.json`.
#[derive(Debug)]
struct Decoder {
    steps: Vec<DecoderStep>,
    leading: Leading,
}

impl TokenBytes {
    /// The table for a tokenizer of the `tokenizers` library.
    ///
    /// # Errors
    /// [`TokenizerError`] for an unknown decoder, and for a vocabulary that is too large.
    pub fn new(library: &tokenizers::Tokenizer) -> Result<Self, TokenizerError> {
        let decoder = serde_json::to_value(library.get_decoder()).unwrap_or_default();
        let Decoder { steps, leading } = Decoder::parse(&decoder)?;
        let n_ids = match library.get_vocab(true).values().max() {
            None => 0,
            Some(id) if *id <= ID_MAX => id + 1,
            Some(id) => {
                return Err(TokenizerError::Id {
                    id: *id,
                    id_max: ID_MAX,
                });
            }
        };
        let added = library.get_added_tokens_decoder();
        let table = byte_level_table();
        let token = |id| Token {
            bytes: library
                .id_to_token(id)
                .map_or_else(Vec::new, |token| token_bytes(token, &steps, &table)),
            is_special: added.get(&id).is_some_and(|token| token.special),
        };
        let mut tokens = Self::gather((0..n_ids).map(token), leading)?;
        if let Some(DecoderStep::Word { prefix, .. }) = steps.first() {
            let continues = |id| {
                library
                    .id_to_token(id)
                    .is_some_and(|token| token.starts_with(prefix))
            };
            tokens.continuation = Some(Continuation {
                prefix: prefix.clone(),
                continues: (0..n_ids).map(continues).collect(),
            });
        }
        Ok(tokens)
    }

    /// The table of tokens in the order of their ids.
    ///
    /// # Errors
    /// [`TokenizerError::TableTooLarge`].
    pub(super) fn gather(all: impl Iterator<Item = Token>, leading: Leading) -> Result<Self, TokenizerError> {
        let mut tokens = Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            is_special: Vec::new(),
            longest_bytes: 1,
            leading,
            continuation: None,
        };
        for token in all {
            tokens.bytes.extend_from_slice(&token.bytes);
            if tokens.bytes.len() > TABLE_BYTES_MAX {
                return Err(TokenizerError::TableTooLarge {
                    bytes_max: TABLE_BYTES_MAX,
                });
            }
            tokens.longest_bytes = tokens.longest_bytes.max(token.bytes.len());
            tokens.ends.push(tokens.bytes.len() as u32);
            tokens.is_special.push(token.is_special);
        }
        Ok(tokens)
    }

    /// A table of tokens whose texts are not known.
    pub(super) fn without_texts(n_ids: usize) -> Self {
        Self {
            bytes: Vec::new(),
            ends: vec![0; n_ids],
            is_special: vec![false; n_ids],
            // A text of any length is read, and refused because it is a text.
            longest_bytes: usize::MAX,
            leading: Leading::Kept,
            continuation: None,
        }
    }

    /// The table for these words; the flag marks special tokens.
    #[cfg(test)]
    pub(crate) fn of_words(words: impl IntoIterator<Item = (Vec<u8>, bool)>) -> Self {
        let token = |(bytes, is_special)| Token { bytes, is_special };
        Self::gather(words.into_iter().map(token), Leading::Kept).unwrap()
    }

    /// The bytes of a token; empty for an unknown id.
    pub fn get(&self, id: u32) -> &[u8] {
        let idx = id as usize;
        let Some(&end) = self.ends.get(idx) else {
            return &[];
        };
        let start = idx.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start as usize..end as usize]
    }

    /// Bytes of a token as they appear in a text.
    pub fn shown(&self, id: u32, special: Special) -> &[u8] {
        if special == Special::Skip && self.is_special(id) {
            return &[];
        }
        self.get(id)
    }

    /// Whether a token is special.
    pub fn is_special(&self, id: u32) -> bool {
        self.is_special.get(id as usize).copied().unwrap_or(false)
    }

    /// The first token with this text. Searches all tokens.
    pub fn id_of(&self, text: &str) -> Option<u32> {
        (0..self.n_ids() as u32).find(|id| self.get(*id) == text.as_bytes())
    }

    /// Length of the longest token, in bytes.
    pub fn longest_bytes(&self) -> usize {
        self.longest_bytes
    }

    /// Number of ids, including unused ones.
    pub fn n_ids(&self) -> usize {
        self.ends.len()
    }

    /// The text of these tokens.
    pub fn decode(&self, ids: &[u32], special: Special) -> String {
        let mut bytes = Vec::new();
        let is_hidden = |id: u32| special == Special::Skip && self.is_special(id);
        let shown = ids.iter().filter(|id| !is_hidden(**id));
        let tokens = shown.map(|id| (self.continued(*id), self.get(*id)));
        let written = tokens.filter(|(prefix, token)| !prefix.is_empty() || !token.is_empty());
        for (idx, (prefix, token)) in written.enumerate() {
            if idx == 0 && self.leading == Leading::FirstToken {
                bytes.extend(token.iter().filter(|byte| **byte != b' '));
                continue;
            }
            if idx == 0 {
                bytes.extend_from_slice(prefix.as_bytes());
            }
            bytes.extend_from_slice(token);
        }
        let n_dropped = match self.leading {
            Leading::Spaces(n_max) => bytes.iter().take(n_max).take_while(|byte| **byte == b' ').count(),
            Leading::Kept | Leading::FirstToken => 0,
        };
        String::from_utf8_lossy(&bytes[n_dropped..]).into_owned()
    }

    /// The prefix of a token that continues a word; empty for other tokens.
    fn continued(&self, id: u32) -> &str {
        let continuation = self.continuation.as_ref();
        let of_token = continuation.filter(|tokens| tokens.continues.get(id as usize) == Some(&true));
        of_token.map_or("", |tokens| &tokens.prefix)
    }
}

impl Decoder {
    /// Reads a decoder of `tokenizer.json`. Null separates words by spaces.
    fn parse(decoder: &Value) -> Result<Self, TokenizerError> {
        if decoder.is_null() {
            return Ok(Self {
                steps: vec![DecoderStep::Apart],
                leading: Leading::Spaces(1),
            });
        }
        let single = [decoder.clone()];
        let parts = decoder["decoders"]
            .as_array()
            .map_or(single.as_slice(), Vec::as_slice);
        let (mut steps, mut leading, mut is_fused) = (Vec::new(), Leading::Kept, false);
        for part in parts {
            let unsupported = || TokenizerError::Decoder {
                decoder: part.to_string(),
            };
            match part["type"].as_str().unwrap_or("none") {
                "ByteLevel" => steps.push(DecoderStep::ByteLevel),
                "ByteFallback" => steps.push(DecoderStep::ByteFallback),
                "Fuse" => is_fused = true,
                "Replace" => {
                    steps
                        .push(replace(&part["pattern"]["String"], &part["content"]).ok_or_else(unsupported)?);
                }
                "Metaspace" => {
                    steps.push(replace(&part["replacement"], &" ".into()).ok_or_else(unsupported)?);
                    if part["prepend_scheme"] != "never" {
                        leading = Leading::FirstToken;
                    }
                }
                "WordPiece" if parts.len() == 1 => {
                    steps.push(DecoderStep::Word {
                        prefix: part["prefix"].as_str().ok_or_else(unsupported)?.to_string(),
                        cleanup: part["cleanup"].as_bool().ok_or_else(unsupported)?,
                    });
                    leading = Leading::Spaces(1);
                }
                // Without a preceding `Fuse`, the library would strip each token.
                "Strip" if is_fused && part["content"] == " " && part["stop"] == 0 => {
                    leading = Leading::Spaces(part["start"].as_u64().ok_or_else(unsupported)? as usize);
                }
                _ => return Err(unsupported()),
            }
        }
        Ok(Self { steps, leading })
    }
}

fn replace(from: &Value, to: &Value) -> Option<DecoderStep> {
    let (from, to) = (from.as_str()?, to.as_str()?);
    let is_sane = !from.is_empty() && to.len() <= REPLACEMENT_BYTES_MAX;
    is_sane.then(|| DecoderStep::Replace {
        from: from.to_string(),
        to: to.to_string(),
    })
}

fn token_bytes(token: String, steps: &[DecoderStep], table: &[Option<u8>]) -> Vec<u8> {
    let mut text = token;
    for step in steps {
        match step {
            DecoderStep::Replace { from, to } => text = text.replace(from.as_str(), to),
            DecoderStep::Word { prefix, cleanup } => {
                text = text
                    .strip_prefix(prefix.as_str())
                    .map_or_else(|| format!(" {text}"), String::from);
                if *cleanup {
                    text = wordpiece::cleanup(&text);
                }
            }
            DecoderStep::Apart => text.insert(0, ' '),
            DecoderStep::ByteFallback => {
                if let Some(byte) = fallback_byte(&text) {
                    return vec![byte];
                }
            }
            DecoderStep::ByteLevel => {
                let byte = |c: char| table.get(c as usize).copied().flatten();
                if let Some(bytes) = text.chars().map(byte).collect() {
                    return bytes;
                }
            }
        }
    }
    text.into_bytes()
}

/// The byte of a token such as `<0x0A>`.
pub(super) fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2)
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// GPT-2's table from characters to bytes: a printable Latin-1 character is its own byte; the characters from U+0100 on
/// are the other 68 bytes in order.
fn byte_level_table() -> Vec<Option<u8>> {
    let mut table = vec![None; 0x200];
    let mut n_unprintable = 0;
    for byte in 0..=u8::MAX {
        if matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) {
            table[byte as usize] = Some(byte);
        } else {
            table[0x100 + n_unprintable] = Some(byte);
            n_unprintable += 1;
        }
    }
    table
}
