//! `suffix`: an answer between two texts, by models that were trained to fill in the middle.

use super::prompt::{Cut, PromptOptions, encode};
use super::rules::Rules;
use crate::api::error::ApiError;
use crate::tokenizer::Begin;

/// Tokens that mark the parts of a text.
struct Marks {
    before: &'static str,
    after: &'static str,
    /// Where the answer begins; `None`: directly after the text before it, which then comes last.
    answer: Option<&'static str>,
}

/// The tokens of each family, from model cards and papers.
const MARKS: &[Marks] = &[
    // Qwen2.5-Coder, CodeGemma
    psm("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    // StarCoder, StarCoder2, Granite
    psm("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    // SantaCoder
    psm("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    // DeepSeek-Coder: the mark of the answer is between the two texts, and that of the end is last
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

/// Tokens with which such models end their answer, besides the model's own end token.
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

/// A prompt to fill in a text.
#[derive(Debug)]
pub(super) struct FillIn {
    /// Tokens of the prompt.
    pub(super) prompt: Vec<u32>,
    /// Tokens that end the answer.
    pub(super) ends: Vec<u32>,
}

/// Makes the prompt for a text between `before` and `after`. Only `before` is shortened.
pub(super) fn fill_in(
    before: &str,
    after: &str,
    options: PromptOptions,
    rules: &Rules<'_>,
) -> Result<FillIn, ApiError> {
    let tokenizer = rules.tokenizer;
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
    let keep_all = |begin: Begin| PromptOptions {
        begin,
        cut: Cut::keep_all(),
    };
    let ids = |text: &str, param: &str| encode(text, keep_all(Begin::Leave), rules, param);
    let shortened = PromptOptions {
        begin: Begin::Leave,
        ..options
    };
    let before = encode(before, shortened, rules, "prompt")?;
    let after = ids(after, "suffix")?;
    let mut prompt = encode("", keep_all(options.begin), rules, "prompt")?;
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
    Ok(FillIn {
        prompt,
        ends: ends.collect(),
    })
}
