//! Log-probabilities in OpenAI's two shapes.

use serde_json::{Map, Value, json};

use crate::answer::ScoredToken;
use crate::tokenizer::TokenBytes;

/// JSON has no negative infinity; vLLM writes this number for it.
const LEAST: f32 = -9999.0;

/// `logprobs` of a chat answer.
pub(super) fn chat(scored: &[ScoredToken], tokens: &TokenBytes) -> Value {
    let entry = |token: u32, logprob: f32| {
        let bytes = tokens.get(token);
        json!({"token": String::from_utf8_lossy(bytes), "logprob": logprob.max(LEAST), "bytes": bytes})
    };
    let content: Vec<Value> = scored
        .iter()
        .map(|scored| {
            let top: Vec<Value> = scored
                .logprobs
                .top
                .iter()
                .map(|(token, logprob)| entry(*token, *logprob))
                .collect();
            let mut chosen = entry(scored.token, scored.logprobs.chosen);
            chosen["top_logprobs"] = top.into();
            chosen
        })
        .collect();
    json!({"content": content, "refusal": null})
}

/// `logprobs` of a completion whose text so far has `offset` characters; `offset` moves on.
pub(super) fn completion(scored: &[ScoredToken], tokens: &TokenBytes, offset: &mut usize) -> Value {
    let (mut texts, mut own, mut tops, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for ScoredToken { token, logprobs } in scored {
        let bytes = tokens.get(*token);
        texts.push(readable(bytes));
        own.push(logprobs.chosen.max(LEAST));
        let chosen = (*token, logprobs.chosen);
        let mut top: Map<String, Value> = Map::new();
        for (token, logprob) in logprobs.top.iter().copied().chain([chosen]) {
            top.entry(readable(tokens.get(token)))
                .or_insert_with(|| logprob.max(LEAST).into());
        }
        tops.push(top);
        offsets.push(*offset);
        // Characters begin at the bytes that do not continue one.
        *offset += bytes.iter().filter(|byte| **byte & 0xC0 != 0x80).count();
    }
    json!({"tokens": texts, "token_logprobs": own, "top_logprobs": tops, "text_offset": offsets})
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

    #[test]
    fn bytes_that_are_no_text_are_still_told_apart() {
        assert_eq!(readable("é".as_bytes()), "é");
        assert_eq!(readable(&[0xe2, 0x82]), "bytes:\\xe2\\x82");
    }
}
