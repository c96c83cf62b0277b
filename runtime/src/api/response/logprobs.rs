//! Log-probabilities: OpenAI's two forms for answers, vLLM's for prompts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::api::answer::Token;
use crate::engine::TokenLogprobs;
use crate::tokenizer::TokenBytes;

/// JSON has no negative infinity; vLLM writes this number instead.
const LEAST: f32 = -9999.0;

/// How tokens are named.
#[derive(Clone, Copy, Debug)]
pub struct TokenNames<'a> {
    /// Tokens to bytes.
    pub tokens: &'a TokenBytes,
    /// By their ids, such as `token_id:5`.
    pub as_ids: bool,
}

/// `logprobs` of a chat answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Chat {
    /// One entry per token.
    pub content: Vec<ChatToken>,
    /// Always null.
    pub refusal: Option<Vec<ChatToken>>,
}

/// A token of a chat answer.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct ChatToken {
    /// The token and its probability.
    #[serde(flatten)]
    pub chosen: Alternative,
    /// The most probable tokens at its position.
    pub top_logprobs: Vec<Alternative>,
}

/// A token with its probability.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Alternative {
    /// Its text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Its bytes, which may be an incomplete character.
    pub bytes: Vec<u8>,
}

/// `logprobs` of a completion; the lists are as long as the text has tokens.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Completion {
    /// Texts of the tokens.
    pub tokens: Vec<String>,
    /// Their own log-probabilities; null for a prompt's first token.
    pub token_logprobs: Vec<Option<f32>>,
    /// The most probable tokens at their positions.
    #[schemars(with = "Vec<Option<BTreeMap<String, f32>>>")]
    pub top_logprobs: Vec<Option<Map<String, Value>>>,
    /// Offsets of their texts, in characters.
    pub text_offset: Vec<usize>,
}

/// Log-probabilities of a prompt: for each token, by token id, its own and those of the most probable tokens; null for the
/// first token.
pub type Prompt = Vec<Option<BTreeMap<u32, PromptToken>>>;

/// A token at a position of the prompt.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PromptToken {
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Number of tokens that are at least as probable, itself included.
    pub rank: usize,
    /// Its text.
    pub decoded_token: String,
}

/// `logprobs` of a chat answer's tokens.
pub fn chat(tokens: &[Token], names: TokenNames<'_>) -> Chat {
    let entry = |token: u32, logprob: f32| {
        let bytes = names.tokens.get(token);
        let name = || String::from_utf8_lossy(bytes).into_owned();
        Alternative {
            token: names.as_id(token).unwrap_or_else(name),
            logprob: logprob.max(LEAST),
            bytes: bytes.to_vec(),
        }
    };
    let known = |token: &Token| {
        let logprobs = token.logprobs.as_ref()?;
        let top = logprobs
            .top
            .iter()
            .map(|(token, logprob)| entry(*token, *logprob));
        Some(ChatToken {
            chosen: entry(token.id, logprobs.chosen),
            top_logprobs: top.collect(),
        })
    };
    Chat {
        content: tokens.iter().filter_map(known).collect(),
        refusal: None,
    }
}

/// `prompt_logprobs` of a prompt: for each token its own log-probability and those of `n_top` alternatives.
pub fn prompt(ids: &[u32], scored: &[Option<TokenLogprobs>], n_top: usize, names: TokenNames<'_>) -> Prompt {
    let entry = |token: u32, logprob: f32, rank: usize| {
        let decoded_token = String::from_utf8_lossy(names.tokens.get(token)).into_owned();
        let logprob = logprob.max(LEAST);
        (
            token,
            PromptToken {
                logprob,
                rank,
                decoded_token,
            },
        )
    };
    let place = |(token, logprobs): (&u32, &Option<TokenLogprobs>)| {
        let logprobs = logprobs.as_ref()?;
        let top = logprobs.top.iter().take(n_top).enumerate();
        let top = top.map(|(idx, (token, logprob))| entry(*token, *logprob, idx + 1));
        let own = entry(*token, logprobs.chosen, logprobs.rank);
        Some(top.chain([own]).collect())
    };
    ids.iter().zip(scored).map(place).collect()
}

/// A token of a completion or its prompt.
#[derive(Clone, Copy, Debug)]
pub struct ScoredToken<'a> {
    /// Its id.
    pub token: u32,
    /// Its log-probabilities; `None` for the first token of a prompt.
    pub logprobs: Option<&'a TokenLogprobs>,
}

impl Completion {
    /// Adds a token whose text begins at character `offset`, with its `n_top` most probable alternatives, and moves
    /// `offset` to the end of its text.
    pub fn push(
        &mut self,
        ScoredToken { token, logprobs }: ScoredToken<'_>,
        names: TokenNames<'_>,
        n_top: usize,
        offset: &mut usize,
    ) {
        let name = |token: u32| {
            names
                .as_id(token)
                .unwrap_or_else(|| readable(names.tokens.get(token)))
        };
        self.tokens.push(name(token));
        self.token_logprobs
            .push(logprobs.map(|logprobs| logprobs.chosen.max(LEAST)));
        self.top_logprobs.push(logprobs.map(|logprobs| {
            let mut top: Map<String, Value> = Map::new();
            let chosen = (token, logprobs.chosen);
            for (token, logprob) in [chosen]
                .into_iter()
                .chain(logprobs.top.iter().copied().take(n_top))
            {
                top.entry(name(token))
                    .or_insert_with(|| logprob.max(LEAST).into());
            }
            top
        }));
        self.text_offset.push(*offset);
        // Characters begin at the bytes that do not continue one.
        let bytes = names.tokens.get(token);
        *offset += bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
    }
}

impl TokenNames<'_> {
    fn as_id(&self, token: u32) -> Option<String> {
        self.as_ids.then(|| format!("token_id:{token}"))
    }
}

/// A token's text. Bytes that are not UTF-8 are written as OpenAI writes them.
fn readable(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_string(),
        Err(_) => {
            let digits: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            format!("bytes:{digits}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokenizer;

    #[test]
    fn a_token_comes_before_more_probable_alternatives() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/models/tiny-trained");
        let tokenizer = Tokenizer::load(folder.as_ref()).unwrap();
        let names = TokenNames {
            tokens: tokenizer.tokens(),
            as_ids: true,
        };
        let logprobs = TokenLogprobs {
            rank: 3,
            chosen: -3.0,
            top: vec![(0, -1.0), (1, -2.0), (2, -3.0)],
        };
        let mut completion = Completion::default();
        let scored = ScoredToken {
            token: 2,
            logprobs: Some(&logprobs),
        };
        completion.push(scored, names, 2, &mut 0);
        let top = completion.top_logprobs[0].clone().unwrap_or_default();
        assert_eq!(
            top.keys().collect::<Vec<_>>(),
            ["token_id:2", "token_id:0", "token_id:1"]
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_have_distinct_names() {
        assert_eq!(readable("é".as_bytes()), "é");
        assert_eq!(readable(&[0xe2, 0x82]), "bytes:\\xe2\\x82");
    }
}
