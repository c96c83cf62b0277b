//! Bodies of `/tokenize` and `/detokenize`.

use super::parameters::{DETOKENIZATION, TOKENIZATION};
use super::params::{Params, token_id};
use super::prompt::{Cut, encode};
use super::tools::ToolParams;
use super::{Rules, begin, conversation, missing, own_template, rendered, served_model};
use crate::api::error::ApiError;
use crate::chat_template::Ending;
use crate::tokenizer::{Begin, Special, Tokenizer};

/// Tokens of one `/detokenize` at most: a body of 8 MiB has no more.
const TOKENS_MAX: usize = 8 << 20;

/// The tokens of a text.
#[derive(Debug)]
pub struct Tokenized {
    /// Their ids.
    pub tokens: Vec<u32>,
    /// Each token's text, where asked for.
    pub texts: Option<Vec<String>>,
    /// The tokens are to be told with their texts.
    pub in_pieces: bool,
    /// Parameters that mean nothing here, to be told to the client.
    pub ignored: Vec<String>,
}

/// Reads the body of `/tokenize`, and does it.
///
/// # Errors
/// [`ApiError`] for everything a client can get wrong.
pub fn tokenized(body: &[u8], rules: &Rules<'_>, tokenizer: &Tokenizer) -> Result<Tokenized, ApiError> {
    let mut params = Params::parse(body, &TOKENIZATION, rules.strict)?;
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
        (None, None) if !params.has("messages") => return Err(missing("prompt")),
        (None, None) => {
            let mut conversation = conversation(&mut params, Ending::GenerationPrompt)?;
            let tools = ToolParams {
                tools: params.take("tools"),
                ..ToolParams::default()
            };
            if let Some(tools) = tools.checked()? {
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
    // A text may be longer than the context: the answer says so.
    let tokens = encode(&text, (begin, Cut::to_nothing_less()), rules, tokenizer, param)?;
    let shown = |token: &u32| String::from_utf8_lossy(tokenizer.tokens().get(*token)).into_owned();
    Ok(Tokenized {
        texts: (shows_texts || in_pieces).then(|| tokens.iter().map(shown).collect()),
        tokens,
        in_pieces,
        ignored,
    })
}

/// Reads the body of `/detokenize`, and does it.
///
/// # Errors
/// [`ApiError`] for everything a client can get wrong.
pub fn detokenized(
    body: &[u8],
    rules: &Rules<'_>,
    tokenizer: &Tokenizer,
) -> Result<(String, Vec<String>), ApiError> {
    let mut params = Params::parse(body, &DETOKENIZATION, rules.strict)?;
    served_model(&mut params, rules)?;
    let tokens = params
        .list("tokens", TOKENS_MAX, token_id)?
        .ok_or_else(|| missing("tokens"))?;
    let ignored = params.finish()?;
    let n_ids = tokenizer.tokens().n_ids();
    if let Some(token) = tokens.iter().find(|token| **token as usize >= n_ids) {
        return Err(ApiError::Contradiction {
            param: "tokens".into(),
            reason: format!("token id {token} is out of vocabulary: it has {n_ids} tokens"),
        });
    }
    Ok((tokenizer.tokens().decode(&tokens, Special::Show), ignored))
}
