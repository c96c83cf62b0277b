//! Encodes texts as tokens, and turns tokens back into bytes.
//!
//! Owns the loading of `tokenizer.json`, `tokenizer.model` and `*.tiktoken`. Must not know requests or the engine.

mod boundaries;
mod bytes;
mod config;
mod error;
mod file;
mod pairs;
mod plain;
mod prefixes;
mod sentencepiece;
mod special;
mod tiktoken;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::Value;

use boundaries::{Boundaries, Boundary};
pub use bytes::{Special, TokenBytes};
pub use config::TokenizerConfig;
pub use error::TokenizerError;
use plain::{Plain, Vocabulary};
use sentencepiece::SentencePiece;
pub use special::AddedToken;
use tiktoken::Tiktoken;

/// A text is refused unread if it is this many times longer than the longest text of the tokens that fit. Normalisation
/// may shorten a text, but never by this much.
const SHRINKING_MAX: usize = 4;

/// Largest vocabulary file, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Whether the tokenizer adds the tokens that begin every sequence, such as `<s>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Adds them, as for a plain prompt.
    Add,
    /// Adds none, because a chat template has already written them.
    Leave,
}

/// Two texts as one sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// The token type of each token, as BERT counts them: 0 for the first text, 1 for the second.
    pub token_types: Vec<u32>,
}

/// A loaded tokenizer. Cheap to share; encoding is pure.
#[derive(Debug)]
pub struct Tokenizer {
    encoder: Encoder,
    config: TokenizerConfig,
    boundaries: Boundaries,
    tokens: TokenBytes,
}

#[derive(Debug)]
enum Encoder {
    Library(Box<tokenizers::Tokenizer>),
    Plain(Box<Plain>),
}

impl Tokenizer {
    /// The tokenizer file of a folder: `tokenizer.json` before `tokenizer.model` before `*.tiktoken`.
    pub fn file_in(folder: &Path) -> Option<PathBuf> {
        let named = ["tokenizer.json", "tokenizer.model"].map(|name| folder.join(name));
        let known = named.into_iter().find(|path| path.is_file());
        let ranks = || {
            let entries = std::fs::read_dir(folder).ok()?;
            let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
            paths
                .filter(|path| path.extension().is_some_and(|extension| extension == "tiktoken"))
                .min()
        };
        known.or_else(ranks)
    }

    /// Loads the tokenizer of a folder: see [`Tokenizer::file_in`] and [`TokenizerConfig::load`].
    ///
    /// # Errors
    /// [`TokenizerError`] for a file that is missing, damaged or of an unknown kind.
    pub fn load(folder: &Path) -> Result<Self, TokenizerError> {
        let path = Self::file_in(folder).ok_or_else(|| TokenizerError::NoTokenizer {
            folder: folder.to_path_buf(),
        })?;
        let contents = file::read(&path, FILE_BYTES_MAX)?.unwrap_or_default();
        Self::from_bytes(&path, &contents, TokenizerConfig::load(folder)?)
    }

    /// Makes a tokenizer from the contents of a file. The path is not read: its file name determines the format, and
    /// errors name it.
    ///
    /// # Errors
    /// [`TokenizerError`] for contents that are damaged or of an unknown kind.
    pub fn from_bytes(path: &Path, contents: &[u8], config: TokenizerConfig) -> Result<Self, TokenizerError> {
        let invalid = |reason: String| TokenizerError::Invalid {
            path: path.to_path_buf(),
            reason,
        };
        let extension = path.extension().and_then(|extension| extension.to_str());
        let (encoder, boundaries, tokens) = if extension == Some("json") {
            let library = library(contents).map_err(invalid)?;
            let tokens = TokenBytes::new(&library)?;
            let boundaries = library_boundaries(&library, &config);
            (Encoder::Library(Box::new(library)), boundaries, tokens)
        } else {
            let vocabulary = vocabulary(path, contents, &config).map_err(invalid)?;
            let plain = Plain::new(vocabulary, &config);
            let (boundaries, tokens) = (plain.boundaries(&config), plain.tokens()?);
            (Encoder::Plain(Box::new(plain)), boundaries, tokens)
        };
        Ok(Self {
            encoder,
            config,
            boundaries,
            tokens,
        })
    }

    /// The fields of `tokenizer_config.json`.
    pub fn config(&self) -> &TokenizerConfig {
        &self.config
    }

    /// The bytes of every token.
    pub fn tokens(&self) -> &TokenBytes {
        &self.tokens
    }

    /// Encodes a text.
    ///
    /// # Errors
    /// [`TokenizerError::Encode`] when the library fails.
    pub fn encode(&self, text: &str, begin: Begin) -> Result<Vec<u32>, TokenizerError> {
        let mut ids = match &self.encoder {
            Encoder::Plain(plain) => plain.encode(text),
            Encoder::Library(library) => {
                let encode = || library.encode_fast(text, begin == Begin::Add);
                guarded(encode).map_err(encode_error)?.get_ids().to_vec()
            }
        };
        if begin == Begin::Add {
            self.boundaries.apply(text, &mut ids);
        }
        Ok(ids)
    }

    /// Encodes two texts as one sequence. The tokenizer's template for pairs joins them and assigns token types.
    ///
    /// # Errors
    /// [`TokenizerError::NoPairs`] without a `tokenizer.json`; [`TokenizerError::Encode`] when the library fails.
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Pair, TokenizerError> {
        let Encoder::Library(library) = &self.encoder else {
            return Err(TokenizerError::NoPairs);
        };
        let encode = || library.encode_fast((first, second), true);
        let encoding = guarded(encode).map_err(encode_error)?;
        Ok(Pair {
            ids: encoding.get_ids().to_vec(),
            token_types: encoding.get_type_ids().to_vec(),
        })
    }

    /// The longest text that may have at most `n_tokens` tokens, in bytes: a longer one certainly has more.
    pub fn prompt_bytes_max(&self, n_tokens: usize) -> usize {
        let bytes_max = n_tokens.saturating_mul(self.tokens.longest_bytes());
        bytes_max.saturating_mul(SHRINKING_MAX)
    }
}

/// Parses a `tokenizer.json` and switches off the truncation and padding that training used.
fn library(json: &[u8]) -> Result<tokenizers::Tokenizer, String> {
    // The library assumes that its input is valid JSON.
    let value: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    guarded(|| {
        let mut library: tokenizers::Tokenizer = serde_json::from_value(value)?;
        library.with_truncation(None)?.with_padding(None);
        Ok(library)
    })
}

/// Calls the library, which panics on some inconsistent files, and catches the panic.
fn guarded<T>(work: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, String> {
    let result = catch_unwind(AssertUnwindSafe(work));
    result
        .map_err(|_| "the tokenizers library panicked".to_string())?
        .map_err(|error| error.to_string())
}

fn library_boundaries(library: &tokenizers::Tokenizer, config: &TokenizerConfig) -> Boundaries {
    let boundary = |token: &Option<String>, is_wanted| {
        let id = token.as_deref().and_then(|token| library.token_to_id(token));
        Boundary::new(id, token.clone(), is_wanted)
    };
    Boundaries {
        begin: boundary(&config.bos_token, config.add_bos_token),
        end: boundary(&config.eos_token, config.add_eos_token),
    }
}

/// Parses a vocabulary file. A `tokenizer.model` is in sentencepiece's format, or in tiktoken's for GLM-4.
fn vocabulary(path: &Path, contents: &[u8], config: &TokenizerConfig) -> Result<Vocabulary, String> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if !name.ends_with(".tiktoken") && !Tiktoken::is_tiktoken(contents) {
        let model = SentencePiece::parse(contents)?;
        return Ok(Vocabulary::SentencePiece(Box::new(model)));
    }
    let class = match name {
        "qwen.tiktoken" => tiktoken::QWEN,
        _ => config.tokenizer_class.as_deref().unwrap_or_default(),
    };
    Tiktoken::parse(contents, class).map(Vocabulary::Tiktoken)
}

fn encode_error(reason: String) -> TokenizerError {
    TokenizerError::Encode { reason }
}

#[cfg(test)]
mod tests;
