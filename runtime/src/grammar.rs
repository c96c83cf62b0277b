//! Grammars: the set of tokens that may come next in an answer with a required form.
//!
//! Compiles the [`Constraint`] of a request into a [`Grammar`], and follows it with the tokens of an answer
//! ([`Follower`]). llguidance parses. Must not know requests, logits or how tokens are drawn.

mod bounds;
mod calls;
mod constraint;
mod content;
mod context_free;
mod error;
mod gbnf;
mod keywords;
mod lark;
mod repeats;
mod schema;
mod special_tokens;
mod structural;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::earley::lexerspec::LexerSpec;
use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory, TokenParser};

use bounds::{LARK, LEXEMES};
pub use calls::{CallList, CallListLength, CallableTool};
pub use constraint::Constraint;
use content::Content;
pub use error::{FollowError, GrammarError};
use special_tokens::SpecialTokens;
pub use structural::Preamble;

use crate::tokenizer::TokenBytes;

/// Longest token that a grammar allows, in bytes. Answers under a grammar never contain a longer one.
const TOKEN_BYTES_MAX: usize = 1000;
/// Bytes of all tokens together, at most: the tree of tokens numbers its nodes with 22 bits.
const VOCABULARY_BYTES_MAX: usize = 4_000_000;
/// Stack of the thread that compiles a grammar. The compiler recurses from rule to rule; this is enough for the
/// largest grammar in a build without optimisation. Only used pages take memory.
const COMPILE_STACK_BYTES: usize = 256 << 20;
/// Lexer states of one grammar, at most. All answers of a request share the lexer. A state takes up to 2 kB, so one
/// request takes less than 40 MB for them.
const LEXER_STATES_MAX: usize = 20_000;
/// Expressions that the lexer of one grammar may make while it is compiled, as llguidance counts them. They take about
/// 60 ms and 6 MB. The bounds that are not here are llguidance's defaults.
const COMPILE_FUEL_MAX: u64 = 1_000_000;
/// Expressions that the lexer may make while the answers of one request follow their grammar. They take about 60 MB.
const FOLLOW_FUEL_MAX: u64 = 10_000_000;
/// Longest message of llguidance that an error repeats, in characters.
const REASON_CHARS_MAX: usize = 300;

/// Compiles grammars over the tokens of one model.
pub struct Grammars {
    special_tokens: SpecialTokens,
    eos_token_ids: Vec<u32>,
    /// The bytes of each token, until the first grammar is compiled.
    words: Mutex<Vec<Vec<u8>>>,
    /// The tree of tokens. Built on first use: 150,000 tokens take about a second.
    factory: OnceLock<Result<ParserFactory, GrammarError>>,
}

/// A compiled constraint. Clones share the compiled state.
#[derive(Clone)]
pub struct Grammar {
    start: Arc<Mutex<Matcher>>,
}

/// The position of one answer in its grammar.
pub struct Follower {
    grammar: Grammar,
    /// `None` before the first mask. It shares its lexer with the other answers of the request.
    matcher: Option<Matcher>,
    /// Expressions that the lexer made since the first mask.
    fuel_spent: u64,
}

/// The tokens that may come next.
pub struct Mask(SimpleVob);

/// Whether an answer can continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// It can, or must.
    GoesOn,
    /// Only the end may follow.
    Complete,
}

impl Grammars {
    /// Makes grammars over the first `vocab_size` tokens of a model. Any of `eos_token_ids` may end an answer where its
    /// grammar allows the end.
    ///
    /// # Errors
    /// [`GrammarError::Vocabulary`] if the tokens have too many bytes.
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
                reason: format!("its tokens have {n_bytes} bytes, more than {VOCABULARY_BYTES_MAX}"),
            });
        }
        Ok(Grammars {
            special_tokens: SpecialTokens::of(tokens),
            eos_token_ids: eos,
            words: Mutex::new(words),
            factory: OnceLock::new(),
        })
    }

    /// The parser factory, which the first call makes.
    fn factory(&self) -> Result<&ParserFactory, GrammarError> {
        let make = || {
            let words = std::mem::take(&mut *self.words.lock().unwrap_or_else(PoisonError::into_inner));
            factory(&words, &self.eos_token_ids)
        };
        self.factory.get_or_init(make).as_ref().map_err(Clone::clone)
    }

    /// Compiles a constraint. This takes milliseconds, up to a few hundred for hostile constraints, and a second more
    /// for the first call.
    ///
    /// # Errors
    /// [`GrammarError`] if the constraint is malformed, not supported or too large, or if the tokens are not usable.
    pub fn compile(&self, constraint: &Constraint) -> Result<Grammar, GrammarError> {
        self.compile_after(None, constraint)
    }

    /// Compiles a grammar of `preamble` followed by `constraint`, as [`Grammars::compile`] does.
    ///
    /// # Errors
    /// Those of [`Grammars::compile`].
    pub fn compile_after(
        &self,
        preamble: Option<Preamble>,
        constraint: &Constraint,
    ) -> Result<Grammar, GrammarError> {
        let what = constraint.name();
        let answer = constraint.lark(&self.special_tokens)?;
        let source = match preamble {
            Some(preamble) => structural::after_preamble(preamble, &answer, &self.special_tokens),
            None => answer,
        };
        let bounded = LARK.check(source.len());
        let bounded = bounded.and_then(|()| LEXEMES.check(Content::of(&source).n_lexemes()));
        bounded.map_err(|refusal| refusal.of(what))?;
        let factory = self.factory()?;
        let unsupported = |error: &dyn fmt::Display| GrammarError::Unsupported {
            what,
            reason: explanation(error),
        };
        let compiled = std::thread::scope(|scope| {
            let compile = || {
                let mut matcher = Matcher::new(parser(factory, source));
                // Finds a grammar that matches no text, and prepares the mask that every answer begins with.
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
                .map_err(|_| unsupported(&"the compiler panicked"))
        })?;
        match compiled.get_error() {
            Some(error) => Err(unsupported(&error)),
            None => Ok(Grammar {
                start: Arc::new(Mutex::new(compiled)),
            }),
        }
    }
}

/// The tree of tokens, and the limits of each grammar over it.
fn factory(words: &[Vec<u8>], eos_token_ids: &[u32]) -> Result<ParserFactory, GrammarError> {
    let eos = eos_token_ids.first().copied().unwrap_or(INVALID_TOKEN);
    let mut trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, eos), words);
    if !eos_token_ids.is_empty() {
        trie = trie.with_eos_tokens(eos_token_ids);
    }
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut factory = ParserFactory::new_simple(&env).map_err(|error| GrammarError::Vocabulary {
        reason: explanation(&error),
    })?;
    *factory.quiet().limits_mut() = ParserLimits {
        initial_lexer_fuel: COMPILE_FUEL_MAX,
        max_lexer_states: LEXER_STATES_MAX,
        verbose_errors: false,
        ..ParserLimits::default()
    };
    Ok(factory)
}

/// The parser of a grammar in Lark's notation.
fn parser(factory: &ParserFactory, source: String) -> anyhow::Result<TokenParser> {
    let source = GrammarInit::Serialized(TopLevelGrammar::from_lark(source));
    let limits = factory.limits().clone();
    let (grammar, lexer) = source.to_internal(Some(factory.tok_env().clone()), limits.clone())?;
    check_lexer(&lexer, limits)?;
    factory.create_parser_from_init_default(GrammarInit::Internal(grammar, lexer))
}

/// Makes the first states of a lexer within the limits, and refuses a lexer that exceeds them. llguidance makes these
/// states without a limit.
fn check_lexer(lexer: &LexerSpec, mut limits: ParserLimits) -> anyhow::Result<()> {
    let mut states = lexer.to_regex_vec(&mut limits)?;
    states.set_fuel(limits.initial_lexer_fuel);
    states.set_max_states(limits.max_lexer_states);
    let start = states.initial_state(&lexer.all_lexemes());
    for byte in 0..=u8::MAX {
        states.transition(start, byte);
        if let Some(error) = states.get_error() {
            anyhow::bail!("it is too complex: {error}");
        }
    }
    Ok(())
}

/// A token as the tree needs it: a marker distinguishes special tokens from equal text, and an empty token is never
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

/// The message of an error of llguidance, without its state and the source of the grammar.
fn explanation(error: &dyn fmt::Display) -> String {
    let text = error.to_string();
    let text = text
        .split("failed to compile JSON schema: ")
        .last()
        .unwrap_or_default();
    // Numbered lines of the source follow the message.
    let is_source = |line: &str| {
        let unnumbered = line.trim_start().trim_start_matches(|c: char| c.is_ascii_digit());
        line.starts_with('<') || (line.len() > unnumbered.len() && unnumbered.starts_with(" | "))
    };
    let lines: Vec<&str> = text.lines().take_while(|line| !is_source(line)).collect();
    let text = lines.join("\n");
    if text.contains("panic") {
        // The library catches its own panics, whose messages mean nothing to a client.
        tracing::warn!(error = text, "llguidance panicked");
        return "it has a number or a combination of keywords that cannot be followed".to_owned();
    }
    let text = text.replace("NoExtensionBias", "no text matches it");
    text.chars().take(REASON_CHARS_MAX).collect()
}

impl Grammar {
    /// Follows the grammar from its start.
    pub fn follow(&self) -> Follower {
        Follower {
            grammar: self.clone(),
            matcher: None,
            fuel_spent: 0,
        }
    }
}

impl PartialEq for Grammar {
    /// Whether both share one compiled state.
    fn eq(&self, other: &Grammar) -> bool {
        Arc::ptr_eq(&self.start, &other.start)
    }
}

impl Follower {
    /// The tokens that may come next. This mostly takes well below a millisecond.
    ///
    /// # Errors
    /// [`FollowError`] if the grammar is too complex here, or if nothing can follow.
    pub fn mask(&mut self) -> Result<Mask, FollowError> {
        let matcher = self.matcher();
        let mask = matcher.compute_mask_or_eos().map_err(|error| failed(&error))?;
        let step = matcher.last_step_stats().map_err(|error| failed(&error))?;
        self.fuel_spent += step.lexer_cost;
        if self.fuel_spent > FOLLOW_FUEL_MAX {
            return Err(failed(&"too many expressions constructed"));
        }
        Ok(Mask(mask))
    }

    /// Advances by a token that the latest mask allows.
    ///
    /// # Errors
    /// [`FollowError`] if the mask does not allow the token, or if the grammar becomes too complex.
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
            // This clone shares the lexer: its states are made once, and n answers take the memory of one.
            start.clone()
        })
    }
}

fn failed(error: &dyn fmt::Display) -> FollowError {
    FollowError {
        reason: explanation(error),
    }
}

impl Mask {
    /// One bit per token, 32 in a word, lowest first.
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
