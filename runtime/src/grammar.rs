//! Grammars: what an answer must look like, as the set of tokens that may come next.
//!
//! Owns the way from a [`Constraint`] of a request to a [`Grammar`], and the [`Follower`] that goes through one with an
//! answer's tokens. llguidance does the parsing. Must not know requests, logits or how tokens are drawn.

mod closed;
mod constraint;
mod gbnf;
mod marks;
mod structural;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};

pub use constraint::Constraint;
use marks::Marks;
pub use structural::Preamble;

use crate::tokenizer::TokenBytes;

/// Longest token that a grammar is followed with, bytes; answers that follow one do without longer ones.
const TOKEN_BYTES_MAX: usize = 1000;
/// Bytes of all tokens together, at most: the tree of tokens numbers its nodes with 22 bits.
const VOCABULARY_BYTES_MAX: usize = 4_000_000;
/// Stack of the thread that compiles a grammar: rules that name rules recurse, and as many as may be do so without
/// optimisation. Only what is used of it takes memory.
const COMPILE_STACK_BYTES: usize = 256 << 20;
/// What one grammar may cost. A state of its lexer takes up to 2 kB, so the memory of one answer stays below 40 MB; the
/// other bounds are llguidance's own, which its authors measured to be some 20 ms.
const LEXER_STATES_MAX: usize = 20_000;
/// Longest explanation of llguidance that an error repeats, in characters.
const REASON_CHARS_MAX: usize = 300;

/// Compiles grammars over the tokens of one model.
pub struct Grammars {
    marks: Marks,
    eos_token_ids: Vec<u32>,
    /// Every token's bytes, until the first grammar is compiled.
    words: Mutex<Vec<Vec<u8>>>,
    /// The tree of tokens. Made when it is first needed: for 150,000 tokens it takes about a second.
    factory: OnceLock<Result<ParserFactory, GrammarError>>,
}

/// A compiled constraint. Clones share what is compiled.
#[derive(Clone)]
pub struct Grammar {
    start: Arc<Mutex<Matcher>>,
}

/// Where one answer is in its grammar.
pub struct Follower {
    grammar: Grammar,
    /// `None` before the first mask: copying the start takes a while.
    matcher: Option<Matcher>,
}

/// The tokens that may come next.
pub struct Mask(SimpleVob);

/// Why there is no grammar to follow; the caller's fault but for [`GrammarError::Vocabulary`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum GrammarError {
    /// The constraint is larger than any that is compiled.
    #[error("{what} has {size} {unit}, and {size_max} are allowed")]
    TooLarge {
        /// Which constraint.
        what: &'static str,
        /// Its size.
        size: usize,
        /// What the size counts.
        unit: &'static str,
        /// The largest size.
        size_max: usize,
    },
    /// The constraint is malformed, says what is not supported, or is too complex.
    #[error("{what} cannot be followed: {reason}")]
    Unsupported {
        /// Which constraint.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The model's tokens cannot be put into a tree.
    #[error("this model's tokens cannot follow a grammar: {reason}")]
    Vocabulary {
        /// What is wrong with them.
        reason: String,
    },
}

/// A grammar could not be followed any further; only this answer is concerned.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{reason}")]
pub struct FollowError {
    reason: String,
}

/// Whether an answer can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It can, or must.
    GoesOn,
    /// Nothing but the end may follow.
    Complete,
}

impl Grammars {
    /// Takes the tokens of a model, of which logits have `vocab_size`; one of `eos_token_ids` may end an answer where its
    /// grammar allows the end.
    ///
    /// # Errors
    /// [`GrammarError::Vocabulary`] if the tokens are too many bytes.
    pub fn new(
        tokens: &TokenBytes,
        eos_token_ids: &[u32],
        vocab_size: usize,
    ) -> Result<Grammars, GrammarError> {
        let n_ids = tokens.n_ids().min(vocab_size);
        let eos: Vec<u32> = eos_token_ids
            .iter()
            .copied()
            .filter(|&id| (id as usize) < n_ids)
            .collect();
        let words: Vec<Vec<u8>> = (0..n_ids as u32).map(|id| word(tokens, id, &eos)).collect();
        let n_bytes: usize = words.iter().map(Vec::len).sum();
        if n_bytes > VOCABULARY_BYTES_MAX {
            return Err(GrammarError::Vocabulary {
                reason: format!("they are {n_bytes} bytes, more than {VOCABULARY_BYTES_MAX}"),
            });
        }
        Ok(Grammars {
            marks: Marks::of(tokens),
            eos_token_ids: eos,
            words: Mutex::new(words),
            factory: OnceLock::new(),
        })
    }

    /// What compiles, made at the first call.
    fn factory(&self) -> Result<&ParserFactory, GrammarError> {
        let make = || {
            let words = std::mem::take(&mut *self.words.lock().unwrap_or_else(PoisonError::into_inner));
            factory(&words, &self.eos_token_ids)
        };
        self.factory.get_or_init(make).as_ref().map_err(Clone::clone)
    }

    /// Compiles a constraint; takes milliseconds, for hostile ones up to a few hundred of them, and at the first call a
    /// second more.
    ///
    /// # Errors
    /// [`GrammarError`] if it is malformed, not supported or too large, or if the tokens are.
    pub fn compile(&self, constraint: &Constraint) -> Result<Grammar, GrammarError> {
        self.compile_behind(None, constraint)
    }

    /// Compiles a constraint of what stands behind `preamble`, as [`Grammars::compile`] does.
    ///
    /// # Errors
    /// Those of [`Grammars::compile`].
    pub fn compile_behind(
        &self,
        preamble: Option<Preamble>,
        constraint: &Constraint,
    ) -> Result<Grammar, GrammarError> {
        let answer = constraint.lark(&self.marks)?;
        let source = TopLevelGrammar::from_lark(match preamble {
            Some(preamble) => structural::behind(preamble, &answer, &self.marks),
            None => answer,
        });
        let factory = self.factory()?;
        let what = constraint.name();
        let unsupported = |error: &dyn fmt::Display| GrammarError::Unsupported {
            what,
            reason: shortened(error),
        };
        let compiled = std::thread::scope(|scope| {
            let compile = || {
                let mut matcher = Matcher::new(factory.create_parser(source));
                // What allows nothing is noticed here, and what every answer begins with is there already.
                let _ = matcher.compute_mask_or_eos();
                matcher
            };
            let thread = std::thread::Builder::new()
                .name("grammar".to_owned())
                .stack_size(COMPILE_STACK_BYTES);
            let compiling = thread
                .spawn_scoped(scope, compile)
                .map_err(|error| unsupported(&error))?;
            compiling
                .join()
                .map_err(|_| unsupported(&"compiling it panicked"))
        })?;
        match compiled.get_error() {
            Some(error) => Err(unsupported(&error)),
            None => Ok(Grammar {
                start: Arc::new(Mutex::new(compiled)),
            }),
        }
    }
}

/// The tree of tokens, and the limits of every grammar over it.
fn factory(words: &[Vec<u8>], eos_token_ids: &[u32]) -> Result<ParserFactory, GrammarError> {
    let eos = eos_token_ids.first().copied().unwrap_or(INVALID_TOKEN);
    let mut trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, eos), words);
    if !eos_token_ids.is_empty() {
        trie = trie.with_eos_tokens(eos_token_ids);
    }
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&env).map_err(|error| GrammarError::Vocabulary {
        reason: shortened(&error),
    })?;
    *factory.quiet().limits_mut() = ParserLimits {
        max_lexer_states: LEXER_STATES_MAX,
        verbose_errors: false,
        ..ParserLimits::default()
    };
    Ok(factory)
}

/// A token as the tree of tokens wants it: marks are told from text that reads the same, and what is empty is never
/// allowed.
fn word(tokens: &TokenBytes, id: u32, eos: &[u32]) -> Vec<u8> {
    let bytes = tokens.get(id);
    if bytes.is_empty() || bytes.len() > TOKEN_BYTES_MAX {
        Vec::new()
    } else if tokens.is_special(id) || eos.contains(&id) {
        [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat()
    } else {
        bytes.to_vec()
    }
}

/// What llguidance says, without its state and source.
fn shortened(error: &dyn fmt::Display) -> String {
    let text = error.to_string();
    let text = text
        .split("failed to compile JSON schema: ")
        .last()
        .unwrap_or_default();
    // Source lines follow, with their numbers in front.
    let is_source = |line: &str| {
        let behind = line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
        line.starts_with('<') || (line.len() > behind.len() && behind.starts_with(" | "))
    };
    let lines: Vec<&str> = text.lines().take_while(|line| !is_source(line)).collect();
    let text = lines.join("\n");
    let text = text.replace("NoExtensionBias", "no text matches it");
    text.chars().take(REASON_CHARS_MAX).collect()
}

impl Grammar {
    /// Follows the grammar from its start.
    pub fn follow(&self) -> Follower {
        Follower {
            grammar: self.clone(),
            matcher: None,
        }
    }
}

impl PartialEq for Grammar {
    /// Whether they share what is compiled.
    fn eq(&self, other: &Grammar) -> bool {
        Arc::ptr_eq(&self.start, &other.start)
    }
}

impl Follower {
    /// The tokens that may come next; most often well below a millisecond.
    ///
    /// # Errors
    /// [`FollowError`] if the grammar is too complex here, or nothing can follow.
    pub fn mask(&mut self) -> Result<Mask, FollowError> {
        self.matcher()
            .compute_mask_or_eos()
            .map(Mask)
            .map_err(|error| failed(&error))
    }

    /// Goes on by a token that the latest mask allows.
    ///
    /// # Errors
    /// [`FollowError`] if it does not allow it, or the grammar becomes too complex.
    pub fn advance(&mut self, token: u32) -> Result<Followed, FollowError> {
        let matcher = self.matcher();
        matcher.consume_token(token).map_err(|error| failed(&error))?;
        Ok(if matcher.is_stopped() {
            Followed::Complete
        } else {
            Followed::GoesOn
        })
    }

    fn matcher(&mut self) -> &mut Matcher {
        self.matcher.get_or_insert_with(|| {
            let start = self.grammar.start.lock().unwrap_or_else(PoisonError::into_inner);
            // Deep: clones would share a lexer and its lock.
            start.deep_clone()
        })
    }
}

fn failed(error: &dyn fmt::Display) -> FollowError {
    FollowError {
        reason: shortened(error),
    }
}

impl Mask {
    /// One bit per token, 32 to a word, the lowest first.
    pub fn words(&self) -> &[u32] {
        self.0.as_slice()
    }
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammars")
            .field("eos_token_ids", &self.eos_token_ids)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").finish_non_exhaustive()
    }
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").finish_non_exhaustive()
    }
}
