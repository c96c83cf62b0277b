//! `suffix`: the answer goes between two texts, which models do that were trained with tokens for it.

use super::Rules;
use super::prompt::{Cut, encode};
use crate::api::error::ApiError;
use crate::tokenizer::{Begin, Tokenizer};

/// Tokens that mark the parts of a text.
struct Marks {
    before: &'static str,
    after: &'static str,
    /// Where the answer begins; `None`: behind the text before it, which then comes last.
    answer: Option<&'static str>,
}

/// The families' tokens, as their model cards and papers have them.
const MARKS: &[Marks] = &[
    // Qwen2.5-Coder, CodeGemma
    psm("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    // StarCoder, StarCoder2, Granite
    psm("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    // SantaCoder
    psm("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    // DeepSeek-Coder: the hole stands between the two texts
    psm("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
    // Code Llama
    psm("▁<PRE>", "▁<SUF>", "▁<MID>"),
    // CodeGeeX 4, GLM-4
    psm("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
    // Codestral
    Marks {
        before: "[PREFIX]",
        after: "[SUFFIX]",
        answer: None,
    },
];

/// Tokens with which such models end what they fill in, besides their own end of a text.
const ENDS: &[&str] = &[
    "<|endoftext|>",
    "<|file_separator|>",
    "<|fim_pad|>",
    "▁<EOT>",
    "<|cursor|>",
];

const fn psm(before: &'static str, after: &'static str, answer: &'static str) -> Marks {
    Marks {
        before,
        after,
        answer: Some(answer),
    }
}

/// The prompt for a text between `before` and `after`, and the tokens that end it.
pub(super) fn fill_in(
    (before, after): (&str, &str),
    (begin, cut): (Begin, Cut),
    rules: &Rules<'_>,
    tokenizer: &Tokenizer,
) -> Result<(Vec<u32>, Vec<u32>), ApiError> {
    let known = MARKS.iter().find_map(|marks| {
        let answer = match marks.answer {
            Some(answer) => Some(tokenizer.tokens().id_of(answer)?),
            None => None,
        };
        Some((
            tokenizer.tokens().id_of(marks.before)?,
            tokenizer.tokens().id_of(marks.after)?,
            answer,
        ))
    });
    let (before_mark, after_mark, answer_mark) = known.ok_or_else(|| ApiError::Unsupported {
        param: "suffix".into(),
        advice: "The tokenizer of this model has no tokens to fill in the middle of a text.".into(),
    })?;
    let keep_all = Cut::to_nothing_less();
    let ids = |text: &str, param: &str| encode(text, (Begin::Leave, keep_all), rules, tokenizer, param);
    let (before, after) = (cut.apply(ids(before, "prompt")?), ids(after, "suffix")?);
    let mut prompt = encode("", (begin, keep_all), rules, tokenizer, "prompt")?;
    match answer_mark {
        Some(answer) => {
            prompt.push(before_mark);
            prompt.extend(before);
            prompt.push(after_mark);
            prompt.extend(after);
            prompt.push(answer);
        }
        None => {
            prompt.push(after_mark);
            prompt.extend(after);
            prompt.push(before_mark);
            prompt.extend(before);
        }
    }
    let ends = ENDS.iter().filter_map(|end| tokenizer.tokens().id_of(end));
    Ok((prompt, ends.collect()))
}
