//! Log-probabilities: OpenAI's two shapes for answers, vLLM's for prompts.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::api::answer::Token;
use crate::engine::TokenLogprobs;
use crate::tokenizer::TokenBytes;

/// JSON has no negative infinity; vLLM writes this number for it.
const LEAST: f32 = -9999.0;

/// How tokens are named.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// Tokens to bytes.
    pub tokens: &'a TokenBytes,
    /// By their ids, `token_id:5`.
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
    /// The token, and how probable it was.
    #[serde(flatten)]
    pub chosen: Alternative,
    /// The most probable tokens at its place.
    pub top_logprobs: Vec<Alternative>,
}

/// A token with its probability.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Alternative {
    /// Its text.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Its bytes, which need be no text of their own.
    pub bytes: Vec<u8>,
}

/// `logprobs` of a completion; the lists are as long as the text has tokens.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Completion {
    /// Texts of the tokens.
    pub tokens: Vec<String>,
    /// Their own log-probabilities; null for a prompt's first token.
    pub token_logprobs: Vec<Option<f32>>,
    /// The most probable tokens at their places.
    #[schemars(with = "Vec<Option<BTreeMap<String, f32>>>")]
    pub top_logprobs: Vec<Option<Map<String, Value>>>,
    /// Where their texts begin, in characters.
    pub text_offset: Vec<usize>,
}

/// Log-probabilities of a prompt: for each token, by token id, its own and the most probable ones'; null for the first.
pub type Prompt = Vec<Option<BTreeMap<u32, PromptToken>>>;

/// A token at a place of the prompt.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct PromptToken {
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Tokens that are at least as probable, itself included.
    pub rank: usize,
    /// Its text.
    pub decoded_token: String,
}

/// `logprobs` of a chat answer's tokens.
pub fn chat(tokens: &[Token], names: Names<'_>) -> Chat {
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

/// `prompt_logprobs` of a prompt: of each token its own and those of `n_top` alternatives.
pub fn prompt(ids: &[u32], scored: &[Option<TokenLogprobs>], n_top: usize, names: Names<'_>) -> Prompt {
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
        names: Names<'_>,
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

impl Names<'_> {
    fn as_id(&self, token: u32) -> Option<String> {
        self.as_ids.then(|| format!("token_id:{token}"))
    }
}

/// A token's text; bytes that are no text of their own are written as OpenAI does it.
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
    fn a_token_comes_before_those_that_were_more_probable() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/models/tiny-trained");
        let tokenizer = Tokenizer::load(folder.as_ref()).unwrap();
        let names = Names {
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
    fn bytes_that_are_no_text_are_still_told_apart() {
        assert_eq!(readable("é".as_bytes()), "é");
        assert_eq!(readable(&[0xe2, 0x82]), "bytes:\\xe2\\x82");
    }
}
