//! Bodies of `/tokenize` and `/detokenize`, and the answers, which need no engine.

use super::model::served_model;
use super::parameters::{DETOKENIZATION, TOKENIZATION};
use super::params::{Params, token_id};
use super::prompt::{Cut, PromptOptions, begin, check_texts, encode};
use super::rules::Rules;
use super::template::{conversation, own_template, rendered};
use super::tools::ToolParams;
use crate::api::error::ApiError;
use crate::chat_template::Ending;
use crate::tokenizer::{Begin, Special};

/// Largest number of tokens of one `/detokenize`: more than any context has.
const TOKENS_MAX: usize = 1 << 20;

/// The tokens of a text.
#[derive(Debug)]
pub struct Tokenized {
    /// Their ids.
    pub tokens: Vec<u32>,
    /// Each token's text, if requested.
    pub texts: Option<Vec<String>>,
    /// The answer contains tokens and their texts as objects.
    pub in_pieces: bool,
    /// Names of unknown parameters, which the answer reports to the client.
    pub ignored: Vec<String>,
}

/// The text of tokens.
#[derive(Debug)]
pub struct Detokenized {
    /// The text.
    pub text: String,
    /// Names of unknown parameters, which the answer reports to the client.
    pub ignored: Vec<String>,
}

/// Reads the body of `/tokenize`, and encodes the text.
///
/// # Errors
/// [`ApiError`] for every error of the client.
pub fn tokenized(body: &[u8], rules: &Rules<'_>) -> Result<Tokenized, ApiError> {
    let mut params = Params::parse(body, &TOKENIZATION, rules)?;
    served_model(&mut params, rules)?;
    let template = own_template(&mut params, rules)?;
    let (prompt, content) = (params.text("prompt")?, params.text("content")?);
    let added = match params.flag("add_special")? {
        Some(true) => Begin::Add,
        Some(false) | None => Begin::Leave,
    };
    let (text, param, default) = match (prompt, content) {
        (Some(text), _) => (text, "prompt", Begin::Add),
        (None, Some(text)) => (text, "content", added),
        (None, None) if !params.has("messages") => return Err(ApiError::missing("prompt")),
        (None, None) => {
            let mut conversation = conversation(&mut params, Ending::GenerationPrompt)?;
            if let Some(tools) = ToolParams::listed(&mut params)?.checked()? {
                tools.show(&mut conversation);
            }
            (
                rendered(&conversation, template.as_ref(), rules)?,
                "messages",
                Begin::Leave,
            )
        }
    };
    let begin = begin(&mut params, default)?;
    let shows_texts = params.flag("return_token_strs")?.unwrap_or(false);
    let in_pieces = params.flag("with_pieces")?.unwrap_or(false);
    let ignored = params.finish()?;
    // A text may have more tokens than the context; the answer contains both numbers. It is refused only if it is
    // longer than any prompt.
    let options = PromptOptions {
        begin,
        cut: Cut::keep_all(),
    };
    let tokens = encode(&text, options, rules, param)?;
    let shown = |token: &u32| String::from_utf8_lossy(rules.tokenizer.tokens().get(*token)).into_owned();
    Ok(Tokenized {
        texts: (shows_texts || in_pieces).then(|| tokens.iter().map(shown).collect()),
        tokens,
        in_pieces,
        ignored,
    })
}

/// Reads the body of `/detokenize`, and decodes the tokens.
///
/// # Errors
/// [`ApiError`] for every error of the client.
pub fn detokenized(body: &[u8], rules: &Rules<'_>) -> Result<Detokenized, ApiError> {
    let mut params = Params::parse(body, &DETOKENIZATION, rules)?;
    served_model(&mut params, rules)?;
    let tokens = params
        .list("tokens", TOKENS_MAX, token_id)?
        .ok_or_else(|| ApiError::missing("tokens"))?;
    let ignored = params.finish()?;
    check_texts(rules, "tokens")?;
    let n_ids = rules.tokenizer.tokens().n_ids();
    if let Some(token) = tokens.iter().find(|token| **token as usize >= n_ids) {
        return Err(ApiError::Contradiction {
            param: "tokens".into(),
            reason: format!("token id {token} is out of vocabulary, which has {n_ids} tokens"),
        });
    }
    Ok(Detokenized {
        text: rules.tokenizer.tokens().decode(&tokens, Special::Show),
        ignored,
    })
}
