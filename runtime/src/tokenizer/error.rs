//! Why a tokenizer cannot be loaded or a text not be encoded.

use std::path::PathBuf;

use super::ID_MAX;

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
    /// The folder has no file that is known.
    #[error("{folder} has no tokenizer: tokenizer.json, tokenizer.model or *.tiktoken")]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
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
        "decoder {decoder} is not supported; supported are WordPiece, and ByteLevel, ByteFallback, Metaspace and \
         sequences of them"
    )]
    Decoder {
        /// Its type.
        decoder: String,
    },
    /// A token's id is larger than any vocabulary.
    #[error("the vocabulary has a token with id {id}; ids up to {ID_MAX} are supported")]
    Id {
        /// The id.
        id: u32,
    },
    /// The vocabulary's texts are larger than any vocabulary's.
    #[error("the texts of the vocabulary are together larger than {bytes_max} bytes")]
    TableTooLarge {
        /// What they may be.
        bytes_max: usize,
    },
    /// The library failed on a text.
    #[error("cannot encode the text: {reason}")]
    Encode {
        /// What the library says.
        reason: String,
    },
    /// The vocabulary came without a rule for pairs.
    #[error("cannot encode a pair of texts: only a tokenizer.json says how they are joined")]
    NoPairs,
    /// The pool of encoding threads is gone.
    #[error("no thread to encode with")]
    Pool,
}
