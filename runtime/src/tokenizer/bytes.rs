//! The bytes that each token stands for, computed once from the tokenizer's decoder.
//!
//! Bytes, because a token may hold half a character. Decoders differ in how tokens are written (bytes as printable
//! characters, `▁` for a space, `<0x0A>` for a byte) but each token's bytes depend on the token alone; the one
//! exception, a space that some decoders drop at the start of a text, is [`Leading`].

use serde_json::Value;

use super::{Special, TokenizerError};

/// The bytes of every token.
#[derive(Debug)]
pub struct TokenBytes {
    bytes: Vec<u8>,
    /// `bytes[ends[id - 1]..ends[id]]` are those of token `id`.
    ends: Vec<u32>,
    is_special: Vec<bool>,
    longest_bytes: usize,
    leading: Leading,
}

/// What a decoder drops at the start of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leading {
    /// Nothing.
    Kept,
    /// So many spaces at most.
    Spaces(usize),
    /// Every space of the first token.
    FirstToken,
}

/// One step from a token as the vocabulary writes it to the bytes it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Every character is a byte, by GPT-2's table.
    ByteLevel,
    /// `<0x0A>` is a byte.
    ByteFallback,
    /// A text stands for another.
    Replace { from: String, to: String },
}

impl TokenBytes {
    /// The table of a tokenizer.
    ///
    /// # Errors
    /// [`TokenizerError::Decoder`] for a decoder whose tokens have no bytes of their own.
    pub fn new(library: &tokenizers::Tokenizer) -> Result<Self, TokenizerError> {
        let decoder = serde_json::to_value(library.get_decoder()).unwrap_or_default();
        let (steps, leading) = steps(&decoder)?;
        let n_ids = library.get_vocab(true).values().max().map_or(0, |id| id + 1);
        let added = library.get_added_tokens_decoder();
        let table = byte_level_table();
        let mut tokens = Self {
            bytes: Vec::new(),
            ends: Vec::with_capacity(n_ids as usize),
            is_special: Vec::with_capacity(n_ids as usize),
            longest_bytes: 1,
            leading,
        };
        for id in 0..n_ids {
            let start = tokens.bytes.len();
            if let Some(token) = library.id_to_token(id) {
                tokens.bytes.extend(token_bytes(token, &steps, &table));
            }
            tokens.longest_bytes = tokens.longest_bytes.max(tokens.bytes.len() - start);
            tokens
                .ends
                .push(u32::try_from(tokens.bytes.len()).expect("a vocabulary is smaller than 4 GiB"));
            tokens
                .is_special
                .push(added.get(&id).is_some_and(|token| token.special));
        }
        Ok(tokens)
    }

    /// Bytes of a token; none for an id that the tokenizer does not have.
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

    /// Whether a token is a mark rather than text.
    pub fn is_special(&self, id: u32) -> bool {
        self.is_special.get(id as usize).copied().unwrap_or(false)
    }

    /// Length of the longest token, in bytes.
    pub fn longest_bytes(&self) -> usize {
        self.longest_bytes
    }

    /// Number of ids, unused ones included.
    pub fn n_ids(&self) -> usize {
        self.ends.len()
    }

    /// A whole text out of its tokens.
    pub fn decode(&self, ids: &[u32], special: Special) -> String {
        let mut bytes = Vec::new();
        let shown = ids.iter().map(|id| self.shown(*id, special));
        for (idx, token) in shown.filter(|token| !token.is_empty()).enumerate() {
            if self.leading == Leading::FirstToken && idx == 0 {
                bytes.extend(token.iter().filter(|byte| **byte != b' '));
            } else {
                bytes.extend_from_slice(token);
            }
        }
        let n_dropped = match self.leading {
            Leading::Spaces(n_max) => bytes.iter().take(n_max).take_while(|byte| **byte == b' ').count(),
            Leading::Kept | Leading::FirstToken => 0,
        };
        String::from_utf8_lossy(&bytes[n_dropped..]).into_owned()
    }
}

/// The steps of a decoder, as `tokenizer.json` writes it.
fn steps(decoder: &Value) -> Result<(Vec<Step>, Leading), TokenizerError> {
    let single = [decoder.clone()];
    let parts = decoder["decoders"]
        .as_array()
        .map_or(single.as_slice(), Vec::as_slice);
    let (mut steps, mut leading, mut is_fused) = (Vec::new(), Leading::Kept, false);
    for part in parts {
        let kind = part["type"].as_str().unwrap_or("none");
        let unsupported = || TokenizerError::Decoder {
            decoder: part.to_string(),
        };
        match kind {
            "ByteLevel" => steps.push(Step::ByteLevel),
            "ByteFallback" => steps.push(Step::ByteFallback),
            "Fuse" => is_fused = true,
            "Replace" => steps.push(Step::Replace {
                from: part["pattern"]["String"]
                    .as_str()
                    .ok_or_else(unsupported)?
                    .to_string(),
                to: part["content"].as_str().ok_or_else(unsupported)?.to_string(),
            }),
            "Metaspace" => {
                steps.push(Step::Replace {
                    from: part["replacement"].as_str().ok_or_else(unsupported)?.to_string(),
                    to: " ".to_string(),
                });
                if part["prepend_scheme"] != "never" {
                    leading = Leading::FirstToken;
                }
            }
            // Before the tokens are fused, each of them would be stripped.
            "Strip" if is_fused && part["content"] == " " && part["stop"] == 0 => {
                leading = Leading::Spaces(part["start"].as_u64().ok_or_else(unsupported)? as usize);
            }
            _ => return Err(unsupported()),
        }
    }
    Ok((steps, leading))
}

fn token_bytes(token: String, steps: &[Step], table: &[Option<u8>]) -> Vec<u8> {
    let mut text = token;
    for step in steps {
        match step {
            Step::Replace { from, to } => text = text.replace(from.as_str(), to),
            Step::ByteFallback => {
                if let Some(byte) = fallback_byte(&text) {
                    return vec![byte];
                }
            }
            Step::ByteLevel => {
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
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2)
        .then(|| u8::from_str_radix(digits, 16).ok())
        .flatten()
}

/// GPT-2's table from characters to bytes: printable Latin-1 stands for itself, the other 68 bytes for the
/// characters from U+0100 on, in their order.
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
