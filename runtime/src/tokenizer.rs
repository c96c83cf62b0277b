//! Text to tokens, and tokens to bytes.
//!
//! Owns `tokenizer.json`, `tokenizer.model`, `*.tiktoken` and `tokenizer_config.json`, and the bound on how many texts
//! are encoded at a time. Must not know requests or the engine; characters out of bytes are `text`'s business.

mod bytes;
mod config;
mod error;
mod pairs;
mod plain;
mod prefixes;
mod sentencepiece;
mod special;
mod tiktoken;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{AcquireError, Semaphore};

pub use bytes::TokenBytes;
pub use config::TokenizerConfig;
pub use error::TokenizerError;
use plain::{Plain, Words};
use sentencepiece::SentencePiece;
pub use special::AddedToken;
use tiktoken::Tiktoken;

/// A text that is this many times longer than the tokens that fit could ever be is refused unread. Normalisation may
/// shorten a text, but not by so much.
const SHRINKING_MAX: usize = 4;

/// Largest id of a token; the largest vocabularies have a quarter of a million.
const ID_MAX: u32 = (1 << 21) - 1;

/// Largest file of a vocabulary, in bytes.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Whether the tokenizer adds what every sequence begins with, such as `<s>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Add it, as for a plain prompt.
    Add,
    /// Leave it away, as for a chat template that has written it.
    Leave,
}

/// Whether special tokens are part of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// They are left out.
    Skip,
    /// They are written out.
    Show,
}

/// Two texts as one sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// For each token, which text a model of BERT's kind takes it for.
    pub token_types: Vec<u32>,
}

/// A loaded tokenizer. Cheap to share; encoding is pure.
#[derive(Debug)]
pub struct Tokenizer {
    encoder: Encoder,
    config: TokenizerConfig,
    frame: Frame,
    tokens: TokenBytes,
    pool: Arc<Semaphore>,
}

#[derive(Debug)]
enum Encoder {
    Library(Box<tokenizers::Tokenizer>),
    Plain(Box<Plain>),
}

/// What an explicit word of the configuration puts around a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Frame {
    begin: Edge,
    end: Edge,
}

/// One end of a [`Frame`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Edge {
    ids: Vec<u32>,
    /// How the same is written in a text.
    text: Option<String>,
    /// `None`: as the encoder has it.
    is_wanted: Option<bool>,
}

impl Tokenizer {
    /// The file that a folder's tokenizer is made of: `tokenizer.json` before `tokenizer.model` before `*.tiktoken`.
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
        let contents = read(&path, FILE_BYTES_MAX)?.unwrap_or_default();
        Self::from_bytes(&path, &contents, TokenizerConfig::load(folder)?)
    }

    /// A tokenizer out of a file's contents. The path is not read: its last part tells the format, and errors name it.
    ///
    /// # Errors
    /// [`TokenizerError`] for contents that are damaged or of an unknown kind.
    pub fn from_bytes(path: &Path, contents: &[u8], config: TokenizerConfig) -> Result<Self, TokenizerError> {
        let invalid = |reason: String| TokenizerError::Invalid {
            path: path.to_path_buf(),
            reason,
        };
        let extension = path.extension().and_then(|extension| extension.to_str());
        let (encoder, frame, tokens) = if extension == Some("json") {
            let library = library(contents).map_err(invalid)?;
            let tokens = TokenBytes::new(&library)?;
            let frame = library_frame(&library, &config);
            (Encoder::Library(Box::new(library)), frame, tokens)
        } else {
            let words = words(path, contents, &config).map_err(invalid)?;
            let plain = Plain::new(words, &config);
            let (frame, tokens) = (plain.frame(&config), plain.tokens()?);
            (Encoder::Plain(Box::new(plain)), frame, tokens)
        };
        let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            encoder,
            config,
            frame,
            tokens,
            pool: Arc::new(Semaphore::new(n_threads)),
        })
    }

    /// The same tokenizer, which works on at most `n_threads` requests at a time; at least one.
    pub fn with_threads(self, n_threads: usize) -> Self {
        Self {
            pool: Arc::new(Semaphore::new(n_threads.clamp(1, Semaphore::MAX_PERMITS))),
            ..self
        }
    }

    /// What `tokenizer_config.json` says.
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
            self.frame.apply(text, &mut ids);
        }
        Ok(ids)
    }

    /// Encodes two texts as one sequence, joined and marked as the tokenizer's template for pairs says.
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

    /// Whether a text of `n_bytes` bytes is certainly longer than `n_tokens` tokens.
    pub fn exceeds(&self, n_bytes: usize, n_tokens: usize) -> bool {
        let bytes_max = n_tokens.saturating_mul(self.tokens.longest_bytes());
        n_bytes > bytes_max.saturating_mul(SHRINKING_MAX)
    }

    /// Runs `work` on a thread that may be busy for long; as many at a time as there are cores.
    ///
    /// # Errors
    /// [`TokenizerError::Pool`] if the work panicked or the process is ending.
    pub async fn in_pool<T, F>(self: Arc<Self>, work: F) -> Result<T, TokenizerError>
    where
        T: Send + 'static,
        F: FnOnce(&Tokenizer) -> T + Send + 'static,
    {
        let permit = Arc::clone(&self.pool)
            .acquire_owned()
            .await
            .map_err(|_: AcquireError| TokenizerError::Pool)?;
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work(&self)
        })
        .await
        .map_err(|_| TokenizerError::Pool)
    }
}

impl Edge {
    fn new(id: Option<u32>, text: Option<String>, is_wanted: Option<bool>) -> Self {
        Self {
            ids: id.into_iter().collect(),
            text,
            is_wanted,
        }
    }
}

impl Frame {
    /// The encoder's own marks are what a fast tokenizer was saved with; an explicit word of the configuration wins.
    fn apply(&self, text: &str, ids: &mut Vec<u32>) {
        let Self { begin, end } = self;
        let is_written = begin.text.as_deref().is_some_and(|mark| text.starts_with(mark));
        match (begin.is_wanted, ids.starts_with(&begin.ids)) {
            (Some(true), false) => drop(ids.splice(..0, begin.ids.iter().copied())),
            (Some(false), true) if !is_written => drop(ids.drain(..begin.ids.len())),
            _ => {}
        }
        let is_written = end.text.as_deref().is_some_and(|mark| text.ends_with(mark));
        match (end.is_wanted, ids.ends_with(&end.ids)) {
            (Some(true), false) => ids.extend_from_slice(&end.ids),
            (Some(false), true) if !is_written => ids.truncate(ids.len() - end.ids.len()),
            _ => {}
        }
    }
}

/// The library's tokenizer, without the truncation and padding of the checkpoint's training.
fn library(json: &[u8]) -> Result<tokenizers::Tokenizer, String> {
    // The library takes for granted that what it parses is JSON.
    let value: Value = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    guarded(|| {
        let mut library: tokenizers::Tokenizer = serde_json::from_value(value)?;
        library.with_truncation(None)?.with_padding(None);
        Ok(library)
    })
}

/// Runs the library, which panics on some files that contradict themselves.
fn guarded<T>(work: impl FnOnce() -> Result<T, tokenizers::Error>) -> Result<T, String> {
    let result = catch_unwind(AssertUnwindSafe(work));
    result
        .map_err(|_| "the tokenizers library panicked".to_string())?
        .map_err(|error| error.to_string())
}

fn library_frame(library: &tokenizers::Tokenizer, config: &TokenizerConfig) -> Frame {
    let edge = |token: &Option<String>, is_wanted| {
        let id = token.as_deref().and_then(|token| library.token_to_id(token));
        Edge::new(id, token.clone(), is_wanted)
    };
    Frame {
        begin: edge(&config.bos_token, config.add_bos_token),
        end: edge(&config.eos_token, config.add_eos_token),
    }
}

/// A `tokenizer.model` is sentencepiece's, or with GLM-4 tiktoken's.
fn words(path: &Path, contents: &[u8], config: &TokenizerConfig) -> Result<Words, String> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if !name.ends_with(".tiktoken") && !Tiktoken::is_one(contents) {
        let model = SentencePiece::parse(contents)?;
        return Ok(Words::SentencePiece(Box::new(model)));
    }
    let class = match name {
        "qwen.tiktoken" => tiktoken::QWEN,
        _ => config.tokenizer_class.as_deref().unwrap_or_default(),
    };
    Tiktoken::parse(contents, class).map(Words::Tiktoken)
}

/// A file's bytes; `None` if it is not there.
fn read(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, TokenizerError> {
    let failed = |source| TokenizerError::Read {
        path: path.to_path_buf(),
        source,
    };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
        Ok(metadata) if metadata.len() > bytes_max => Err(TokenizerError::Invalid {
            path: path.to_path_buf(),
            reason: format!("larger than {bytes_max} bytes"),
        }),
        Ok(_) => std::fs::read(path).map(Some).map_err(failed),
    }
}

fn encode_error(reason: String) -> TokenizerError {
    TokenizerError::Encode { reason }
}

#[cfg(test)]
mod tests;
