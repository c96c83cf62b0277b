//! Text to tokens, and tokens to bytes.
//!
//! Owns `tokenizer.json` and `tokenizer_config.json`, and the bound on how many texts are encoded at a time. Must
//! not know requests or the engine; characters out of bytes are `text`'s business.

mod bytes;
mod config;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{AcquireError, Semaphore};

pub use bytes::TokenBytes;
pub use config::TokenizerConfig;

/// A text that is this many times longer than the tokens that fit could ever be is refused unread. Normalisation may
/// shorten a text, but not by so much.
const SHRINKING_MAX: usize = 4;

/// Why a tokenizer cannot be loaded or a text not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The folder has no `tokenizer.json`.
    #[error("{path} does not exist: the checkpoint has no tokenizer in the format of the tokenizers library")]
    NoTokenizer {
        /// The file.
        path: PathBuf,
    },
    /// A file is not what it should be.
    #[error("{path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The decoder joins tokens in a way that this version does not know.
    #[error(
        "decoder {decoder} is not supported; supported are ByteLevel, ByteFallback, Metaspace and sequences of them"
    )]
    Decoder {
        /// Its type.
        decoder: String,
    },
    /// The library failed on a text.
    #[error("cannot encode the text: {reason}")]
    Encode {
        /// What the library says.
        reason: String,
    },
    /// The pool of encoding threads is gone.
    #[error("no thread to encode with")]
    Pool,
}

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

/// A loaded tokenizer. Cheap to share; encoding is pure.
#[derive(Debug)]
pub struct Tokenizer {
    library: tokenizers::Tokenizer,
    config: TokenizerConfig,
    bos: Option<u32>,
    tokens: TokenBytes,
    pool: Arc<Semaphore>,
}

impl Tokenizer {
    /// Loads `tokenizer.json` and, where there is one, `tokenizer_config.json` of a folder.
    ///
    /// # Errors
    /// [`TokenizerError`] for a file that is missing, damaged or of an unknown kind.
    pub fn load(folder: &Path) -> Result<Self, TokenizerError> {
        let path = folder.join("tokenizer.json");
        if !path.exists() {
            return Err(TokenizerError::NoTokenizer { path });
        }
        let mut library =
            tokenizers::Tokenizer::from_file(&path).map_err(|error| TokenizerError::Invalid {
                path,
                reason: error.to_string(),
            })?;
        // Checkpoints are saved with the truncation and padding of their training.
        library
            .with_truncation(None)
            .map_err(|error| TokenizerError::Encode {
                reason: error.to_string(),
            })?
            .with_padding(None);
        let config = TokenizerConfig::load(folder)?;
        let bos = config
            .bos_token
            .as_deref()
            .and_then(|bos| library.token_to_id(bos));
        let tokens = TokenBytes::new(&library)?;
        let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            library,
            config,
            bos,
            tokens,
            pool: Arc::new(Semaphore::new(n_threads)),
        })
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
        let encoding = self
            .library
            .encode_fast(text, begin == Begin::Add)
            .map_err(|error| TokenizerError::Encode {
                reason: error.to_string(),
            })?;
        let mut ids = encoding.get_ids().to_vec();
        // The library's post-processor is what a fast tokenizer was saved with; an explicit `add_bos_token` wins.
        if let (Begin::Add, Some(bos), Some(wanted)) = (begin, self.bos, self.config.add_bos_token) {
            match (wanted, ids.first() == Some(&bos)) {
                (true, false) => ids.insert(0, bos),
                (false, true) if !text.starts_with(self.config.bos_token.as_deref().unwrap_or_default()) => {
                    ids.remove(0);
                }
                _ => {}
            }
        }
        Ok(ids)
    }

    /// Whether a text is certainly longer than `n_tokens` tokens, told by its length alone.
    pub fn exceeds(&self, text: &str, n_tokens: usize) -> bool {
        let bytes_max = n_tokens.saturating_mul(self.tokens.longest_bytes());
        text.len() > bytes_max.saturating_mul(SHRINKING_MAX)
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

#[cfg(test)]
mod tests;
