//! Why a tokenizer cannot be loaded, or a text cannot be encoded.

use std::path::PathBuf;

/// Why a tokenizer cannot be loaded, or a text cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The folder contains no tokenizer file.
    #[error(
        "{folder} has no tokenizer: expected tokenizer.json, tokenizer.model, tiktoken.model, *.tiktoken, tekken.json, \
         tokenizer.model.v*, *.bpe.model, vocab.json with merges.txt, or vocab.txt"
    )]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
    },
    /// A file that belongs to another one is missing.
    #[error("{path} is missing")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// A file is damaged or has an unknown format.
    #[error("{path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// This version cannot compute the bytes of tokens for this decoder.
    #[error(
        "decoder {decoder} is not supported; supported are WordPiece, ByteLevel, ByteFallback, Metaspace and sequences \
         of the last three"
    )]
    Decoder {
        /// The decoder, as JSON.
        decoder: String,
    },
    /// The id of a token is too large.
    #[error("the vocabulary has a token with id {id}; ids up to {id_max} are supported")]
    Id {
        /// The id.
        id: u32,
        /// The largest id.
        id_max: u32,
    },
    /// The tokens take too much memory.
    #[error("the tokens of the vocabulary have more than {bytes_max} bytes")]
    TableTooLarge {
        /// The largest size.
        bytes_max: usize,
    },
    /// The library failed to encode a text.
    #[error("cannot encode the text: {reason}")]
    Encode {
        /// The library's error.
        reason: String,
    },
    /// There is no tokenizer, because the setting `SKIP_TOKENIZER_INIT` is true.
    #[error("this server has no tokenizer (SKIP_TOKENIZER_INIT); send token ids in place of text")]
    Skipped,
    /// The vocabulary has no template for pairs.
    #[error("cannot encode a pair of texts: this vocabulary does not define how to join them")]
    NoPairs,
}
