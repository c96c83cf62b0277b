//! Encodes texts as tokens, and turns tokens back into bytes.
//!
//! Owns the loading of the files of a tokenizer (see [`Tokenizer::file_in`]). Must not know requests or the engine.

mod boundaries;
mod bytes;
mod classes;
mod config;
mod error;
mod file;
mod growth;
mod mistral;
mod pairs;
mod plain;
mod prefixes;
mod sentencepiece;
mod shortened;
mod special;
mod tiktoken;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use serde_json::Value;

use boundaries::{Boundaries, Boundary};
pub use bytes::{Special, TokenBytes};
pub use config::TokenizerConfig;
pub use error::TokenizerError;
use plain::{Plain, Vocabulary, is_t5, is_xlm_roberta};
use sentencepiece::SentencePiece;
pub use shortened::{Limit, PairLimit, Side};
pub use special::AddedToken;
use tiktoken::Tiktoken;

/// A text is refused unread if it is this many times longer than the longest text of the tokens that fit. Normalisation
/// may shorten a text, but never by this much.
const SHRINKING_MAX: usize = 4;

/// How a tokenizer file is named.
enum FileName {
    Is(&'static str),
    EndsWith(&'static str),
    StartsWith(&'static str),
}

const TEKKEN: &str = "tekken.json";
const VOCAB: &str = "vocab.json";
/// The end of the name of fairseq's sentencepiece models.
const BPE_MODEL: &str = ".bpe.model";
/// The name of T5's and ALBERT's sentencepiece models.
const SPIECE: &str = "spiece.model";
/// The name of DeBERTa's sentencepiece models.
const SPM: &str = "spm.model";
/// The beginning of the names of Mistral's sentencepiece models: `tokenizer.model.v3`.
const VERSIONED: &str = "tokenizer.model.";

/// The files that define a tokenizer, the most complete first.
const FILES: [FileName; 11] = [
    FileName::Is("tokenizer.json"),
    FileName::Is("tokenizer.model"),
    FileName::Is(SPIECE),
    FileName::Is(SPM),
    FileName::Is("tiktoken.model"),
    FileName::EndsWith(".tiktoken"),
    FileName::Is(TEKKEN),
    FileName::StartsWith(VERSIONED),
    FileName::EndsWith(BPE_MODEL),
    FileName::Is(VOCAB),
    FileName::Is("vocab.txt"),
];

impl FileName {
    fn matches(&self, name: &str) -> bool {
        match self {
            FileName::Is(whole) => name == *whole,
            FileName::EndsWith(end) => name.ends_with(end),
            FileName::StartsWith(start) => name.starts_with(start),
        }
    }
}

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
    /// No text is read.
    Skipped,
}

impl Tokenizer {
    /// The tokenizer file of a folder: the first of `FILES` that it has; of several that match, the last by name.
    pub fn file_in(folder: &Path) -> Option<PathBuf> {
        let entries = std::fs::read_dir(folder).ok()?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let names: Vec<String> = names.filter(|name| folder.join(name).is_file()).collect();
        let last = |file: &FileName| names.iter().filter(|name| file.matches(name)).max();
        FILES.iter().find_map(last).map(|name| folder.join(name))
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
        let config = TokenizerConfig::load(folder)?;
        if path.ends_with(VOCAB) {
            let merges = folder.join("merges.txt");
            let found = file::read(&merges, FILE_BYTES_MAX)?;
            let merges = found.ok_or(TokenizerError::Missing { path: merges })?;
            return Self::from_merges(&path, &contents, &merges, config);
        }
        Self::from_bytes(&path, &contents, config)
    }

    /// No tokenizer: there are tokens of `n_ids` ids, and no text is read or written.
    pub fn skipped(n_ids: usize) -> Self {
        Self::new(
            Encoder::Skipped,
            Boundaries::default(),
            TokenBytes::without_texts(n_ids),
            TokenizerConfig::default(),
        )
    }

    /// Whether there is no tokenizer.
    pub fn is_skipped(&self) -> bool {
        matches!(self.encoder, Encoder::Skipped)
    }

    /// Makes a tokenizer of the contents of `vocab.json`, at `path`, and `merges.txt`.
    ///
    /// # Errors
    /// [`TokenizerError`] for contents that are damaged, or a class that is not supported.
    pub fn from_merges(
        path: &Path,
        vocab: &[u8],
        merges: &[u8],
        mut config: TokenizerConfig,
    ) -> Result<Self, TokenizerError> {
        let json = classes::of_merges(vocab, merges, &mut config);
        let json = json.map_err(|reason| invalid(path, reason))?;
        Self::of_library(path, json, config)
    }

    /// Makes a tokenizer from the contents of a file. The path is not read: its file name determines the format, and
    /// errors name it.
    ///
    /// # Errors
    /// [`TokenizerError`] for contents that are damaged or of an unknown kind.
    pub fn from_bytes(
        path: &Path,
        contents: &[u8],
        mut config: TokenizerConfig,
    ) -> Result<Self, TokenizerError> {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let json = match extension {
            Some("txt") => classes::of_words(contents, &mut config),
            Some("json") if name != TEKKEN => {
                serde_json::from_slice(contents).map_err(|error| error.to_string())
            }
            _ if name == SPM || name == SPIECE && !is_t5(&config) => {
                classes::of_pieces(contents, &mut config)
            }
            _ => {
                let vocabulary = vocabulary(name, contents, &mut config);
                let plain = Plain::new(vocabulary.map_err(|reason| invalid(path, reason))?, &config);
                let (boundaries, tokens) = (plain.boundaries(&config), plain.tokens()?);
                return Ok(Self::new(
                    Encoder::Plain(Box::new(plain)),
                    boundaries,
                    tokens,
                    config,
                ));
            }
        };
        Self::of_library(path, json.map_err(|reason| invalid(path, reason))?, config)
    }

    fn of_library(path: &Path, json: Value, config: TokenizerConfig) -> Result<Self, TokenizerError> {
        let library = library(json, &config).map_err(|reason| invalid(path, reason))?;
        let tokens = TokenBytes::new(&library)?;
        let boundaries = library_boundaries(&library, &config);
        Ok(Self::new(
            Encoder::Library(Box::new(library)),
            boundaries,
            tokens,
            config,
        ))
    }

    fn new(encoder: Encoder, boundaries: Boundaries, tokens: TokenBytes, config: TokenizerConfig) -> Self {
        Self {
            encoder,
            config,
            boundaries,
            tokens,
        }
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
            Encoder::Skipped => return Err(TokenizerError::Skipped),
            Encoder::Plain(plain) if self.config.lowers_texts => plain.encode(&text.to_lowercase()),
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
    /// [`TokenizerError::NoPairs`] for a vocabulary that does not define how to join texts; [`TokenizerError::Encode`] when the library fails.
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Pair, TokenizerError> {
        let Encoder::Library(library) = &self.encoder else {
            let ids = |text| self.encode(text, Begin::Leave);
            return self.joined(&ids(first)?, &ids(second)?);
        };
        let encode = || library.encode_fast((first, second), true);
        let encoding = guarded(encode).map_err(encode_error)?;
        Ok(Pair {
            ids: encoding.get_ids().to_vec(),
            token_types: encoding.get_type_ids().to_vec(),
        })
    }

    /// The least number of tokens that a text of `n_bytes` bytes has.
    pub fn n_tokens_min(&self, n_bytes: usize) -> usize {
        let token_bytes_max = self.tokens.longest_bytes().saturating_mul(SHRINKING_MAX);
        n_bytes.div_ceil(token_bytes_max.max(1))
    }

    /// The longest text that may have at most `n_tokens` tokens, in bytes: a longer one certainly has more.
    pub fn prompt_bytes_max(&self, n_tokens: usize) -> usize {
        let bytes_max = n_tokens.saturating_mul(self.tokens.longest_bytes());
        bytes_max.saturating_mul(SHRINKING_MAX)
    }
}

/// Makes a tokenizer of a `tokenizer.json` and switches off the truncation and padding that training used. What
/// `tokenizer_config.json` defines explicitly replaces the normalisation of the file, as in Python.
fn library(mut json: Value, config: &TokenizerConfig) -> Result<tokenizers::Tokenizer, String> {
    growth::check(&json)?;
    if json["normalizer"]["type"] == "BertNormalizer" {
        let fields = [
            ("lowercase", config.do_lower_case),
            ("strip_accents", config.strip_accents),
            ("handle_chinese_chars", config.tokenize_chinese_chars),
        ];
        for (field, value) in fields {
            if let Some(value) = value {
                json["normalizer"][field] = value.into();
            }
        }
    }
    if config.lowers_texts && json.is_object() {
        let own = json["normalizer"].take();
        let lowercase = serde_json::json!({"type": "Lowercase"});
        let both: Vec<Value> = [lowercase, own]
            .into_iter()
            .filter(|step| !step.is_null())
            .collect();
        json["normalizer"] = serde_json::json!({"type": "Sequence", "normalizers": both});
    }
    guarded(|| {
        let mut library: tokenizers::Tokenizer = serde_json::from_value(json)?;
        library.with_truncation(None)?.with_padding(None);
        Ok(library)
    })
}

fn invalid(path: &Path, reason: String) -> TokenizerError {
    TokenizerError::Invalid {
        path: path.to_path_buf(),
        reason,
    }
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

/// Parses a vocabulary file. A `tokenizer.model` is in sentencepiece's format, or in tiktoken's for GLM-4. Mistral's
/// files complete the configuration.
fn vocabulary(name: &str, contents: &[u8], config: &mut TokenizerConfig) -> Result<Vocabulary, String> {
    if name == TEKKEN {
        let (tiktoken, version) = Tiktoken::parse_tekken(contents)?;
        mistral::complete(config, &version);
        return Ok(Vocabulary::Tiktoken(tiktoken));
    }
    if let Some(version) = name.strip_prefix(VERSIONED) {
        mistral::complete(config, version);
        declare(config, &mistral::MARKS);
    }
    if name.ends_with(BPE_MODEL) {
        if !is_xlm_roberta(config) {
            let class = config.tokenizer_class.as_deref().unwrap_or("none");
            return Err(format!(
                "tokenizer_class {class} is not supported for this file; supported is XLMRobertaTokenizer"
            ));
        }
        declare(config, &["<s>", "<pad>", "</s>", "<unk>", "<mask>"]);
        let model = SentencePiece::parse_fairseq(contents)?;
        return Ok(Vocabulary::SentencePiece(Box::new(model)));
    }
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

/// Declares pieces of a vocabulary as special tokens. Those that it does not have are left out.
fn declare(config: &mut TokenizerConfig, marks: &[&str]) {
    let mark = |mark: &&str| AddedToken::special((*mark).to_owned(), None);
    config.added_tokens.extend(marks.iter().map(mark));
}

fn encode_error(reason: String) -> TokenizerError {
    TokenizerError::Encode { reason }
}

#[cfg(test)]
mod tests;
