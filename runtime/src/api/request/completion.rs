//! The body of `/v1/completions`.

use super::answer_options::{AnswerOptions, ReadOptions};
use super::constraint;
use super::fill_in::{FillIn, fill_in};
use super::logprobs::{PromptLogprobs, logprobs};
use super::model::generating_model;
use super::parameters::COMPLETIONS;
use super::params::Params;
use super::prepared::Prepared;
use super::prompt::{Cut, Prompt, PromptOptions, PromptSource, begin, encode, prompt_sources};
use super::renames::Renames;
use super::request_id::request_id;
use super::rules::Rules;
use super::tools::CallStyle;
use crate::api::error::ApiError;
use crate::tokenizer::Begin;

/// Prompts of one request.
const PROMPTS_MAX: usize = 128;
/// `max_tokens` where neither the request nor the checkpoint sets it: OpenAI's default.
const MAX_TOKENS_DEFAULT: usize = 16;
/// Temperature where neither the request nor the checkpoint sets it: OpenAI's default.
const TEMPERATURE_DEFAULT: f32 = 1.0;

/// Reads the body of `/v1/completions`.
///
/// # Errors
/// [`ApiError`] for every error of the client.
pub fn completion(body: &[u8], rules: &Rules<'_>) -> Result<Prepared, ApiError> {
    let mut params = Params::parse(body, &COMPLETIONS, rules)?;
    let model = generating_model(&mut params, rules)?;
    let sources = prompt_sources(&mut params, "prompt", PROMPTS_MAX)?;
    let sources = sources.ok_or_else(|| ApiError::missing("prompt"))?;
    let echoes = params.flag("echo")?.unwrap_or(false);
    let begin = begin(&mut params, Begin::Add)?;
    let logprobs = logprobs(&mut params, "logprobs", rules)?;
    let max_tokens = params
        .count("max_tokens")?
        .or(rules.defaults.max_tokens)
        .unwrap_or(MAX_TOKENS_DEFAULT);
    let cut = Cut::read(&mut params, rules.max_model_len, Some(max_tokens.max(1)))?;
    let request_id = request_id(&mut params)?;
    let suffix = params.text("suffix")?.filter(|suffix| !suffix.is_empty());
    let form = constraint::form(&mut params)?;
    let options = ReadOptions {
        logprobs,
        temperature: TEMPERATURE_DEFAULT,
        has_form: form.is_some(),
    };
    let mut answers = AnswerOptions::read(&mut params, options, rules)?;
    answers.grammar = form.map(|form| form.compiled(None, rules)).transpose()?;
    answers.sends_each_token = answers.stream.is_some();
    let prompt_logprobs = answers.prompt_logprobs;
    if echoes && let Some(n_top) = logprobs {
        // As in vLLM, the echoed prompt has log-probabilities too.
        answers.echoes_logprobs = true;
        answers.prompt_logprobs = Some(answers.prompt_logprobs.map_or(n_top, |n| n.max(n_top)));
    }
    answers.only_prompt = max_tokens == 0;
    answers.max_tokens = Some(max_tokens.max(1));
    let ignored = params.finish()?;
    let reader = PromptReader {
        options: PromptOptions { begin, cut },
        suffix,
        echoes,
        rules,
    };
    let prompts = sources
        .into_iter()
        .map(|source| reader.prompt(source, &mut answers))
        .collect::<Result<Vec<Prompt>, ApiError>>()?;
    if let Some(n_top) = answers.prompt_logprobs {
        let wanted = PromptLogprobs {
            param: if prompt_logprobs.is_some() {
                "prompt_logprobs"
            } else {
                "logprobs"
            },
            n_top,
            n_copies: answers.n,
        };
        wanted.check(&prompts)?;
    }
    Ok(Prepared {
        model,
        prompts,
        prompt_param: "prompt",
        renames: Renames::default(),
        answers,
        prompt_logprobs,
        calls: CallStyle::default(),
        request_id,
        ignored,
    })
}

/// How each prompt of a request is read.
struct PromptReader<'a> {
    options: PromptOptions,
    /// Text after the answer.
    suffix: Option<String>,
    /// Whether answers begin with their prompt.
    echoes: bool,
    rules: &'a Rules<'a>,
}

impl PromptReader<'_> {
    /// A prompt as tokens. The tokens that end a text before a suffix are added to `answers`.
    fn prompt(&self, source: PromptSource, answers: &mut AnswerOptions) -> Result<Prompt, ApiError> {
        let PromptOptions { cut, .. } = self.options;
        let (ids, text) = match (source, &self.suffix) {
            (PromptSource::Text(text), Some(suffix)) => {
                let FillIn { prompt, ends } = fill_in(&text, suffix, self.options, self.rules)?;
                answers.stop_token_ids.extend(ends);
                (prompt, Some(text))
            }
            (PromptSource::Tokens(_), Some(_)) => {
                let reason = "it needs prompts that are strings";
                return Err(ApiError::contradiction("suffix", reason));
            }
            (PromptSource::Text(text), None) => {
                (encode(&text, self.options, self.rules, "prompt")?, Some(text))
            }
            (PromptSource::Tokens(ids), None) => (cut.apply(ids), None),
        };
        let decoded = |ids: &[u32]| self.rules.tokenizer.tokens().decode(ids, answers.special);
        let echo = self
            .echoes
            .then(|| text.filter(|_| !cut.shortens()).unwrap_or_else(|| decoded(&ids)));
        Ok(Prompt { ids, echo })
    }
}
