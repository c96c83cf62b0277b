//! From a request's body to checked work for the engine. Every input error is born here.
//!
//! Owns OpenAI's and vLLM's parameters: names, ranges, defaults. Nothing raw goes on from here, and no parameter that
//! a client could rely on is passed over in silence. Must not know HTTP, nor what the engine is doing.

mod defaults;
mod messages;
mod params;
mod pooling;
mod unsupported;

use serde_json::Value;

pub use defaults::{Defaults, DefaultsError};
pub use pooling::{Encoding, Pairing, PreparedEmbeddings, PreparedScores, embeddings, scores};

use crate::chat_template::{ChatTemplate, Conversation, Ending};
use crate::engine::{GenerateRequest, SamplingParams};
use crate::error::{ApiError, shortened};
use crate::model::Task;
use crate::text::{STOP_BYTES_MAX, StopPlace, StopStrings};
use crate::tokenizer::{Begin, Special, Tokenizer, TokenizerError};
use params::{Params, invalid_item};

/// Prompts of one request.
const PROMPTS_MAX: usize = 128;
/// Answers to one prompt.
const N_MAX: i64 = 128;
/// Stop strings of one request.
const STOPS_MAX: usize = 16;
/// Stop tokens of one request.
const STOP_TOKENS_MAX: usize = 256;
/// Tokens of a completion whose request names no number: OpenAI's default.
const COMPLETION_TOKENS_DEFAULT: usize = 16;

/// What requests are checked against: fixed once the model is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Names under which the model is served.
    pub served: &'a [String],
    /// What the model is for.
    pub task: Task,
    /// Length of an embedding.
    pub embedding_size: usize,
    /// Alternatives that `logprobs` may ask for.
    pub max_logprobs: usize,
    /// Prompt and answer at most, tokens.
    pub max_model_len: usize,
    /// What the checkpoint asks for where the request names nothing.
    pub defaults: &'a Defaults,
    /// How messages become a prompt; `None` if the checkpoint does not say.
    pub template: Option<&'a ChatTemplate>,
}

/// A checked request: what to answer and how.
#[derive(Debug)]
pub struct Prepared {
    /// The served name that the client asked for.
    pub model: String,
    /// The prompts in their order.
    pub prompts: Vec<Prompt>,
    /// Name of the parameter that the prompts come from.
    pub prompt_param: &'static str,
    /// How to answer each of them.
    pub answers: Answers,
    /// Parameters that mean nothing here, to be told to the client.
    pub ignored: Vec<String>,
}

/// One prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// Its text where the answer is to begin with it.
    pub echo: Option<String>,
}

/// How to answer a prompt.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Answers to each prompt.
    pub n: usize,
    /// Which request goes first, where the engine's policy asks for it: the smaller.
    pub priority: i32,
    /// How to draw tokens; the seed is the first answer's.
    pub sampling: SamplingParams,
    /// Tokens of an answer at most; `None`: what the context has room for.
    pub max_tokens: Option<usize>,
    /// Tokens before an answer may end.
    pub min_tokens: usize,
    /// Tokens that end an answer, besides the model's own.
    pub stop_token_ids: Vec<u32>,
    /// The model's own end is a token like any other.
    pub ignore_eos: bool,
    /// Texts that end an answer.
    pub stops: StopStrings,
    /// Whether the token that ends an answer is part of it.
    pub stop_place: StopPlace,
    /// Whether special tokens are part of the text.
    pub special: Special,
    /// How to stream; `None`: one answer at the end.
    pub stream: Option<StreamOptions>,
}

/// What a stream tells beside the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// A last chunk with the usage.
    pub include_usage: bool,
    /// The usage so far in every chunk.
    pub continuous_usage_stats: bool,
}

impl Prepared {
    /// Work for the engine: the answers to the first prompt, then those to the next.
    pub fn generate_requests(&self) -> Vec<GenerateRequest> {
        let prompts = self.prompts.iter().map(|prompt| prompt.ids.clone());
        prompts.map(|prompt| self.answers.request(prompt)).collect()
    }

    /// Tokens of all prompts.
    pub fn n_prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.ids.len()).sum()
    }
}

impl Answers {
    fn request(&self, prompt: Vec<u32>) -> GenerateRequest {
        GenerateRequest {
            prompt,
            n: self.n,
            priority: self.priority,
            sampling: self.sampling.clone(),
            max_tokens: self.max_tokens,
            min_tokens: self.min_tokens,
            stop_token_ids: self.stop_token_ids.clone(),
            ignore_eos: self.ignore_eos,
        }
    }
}

/// Reads the body of `/v1/completions`.
///
/// # Errors
/// [`ApiError`] for everything a client can get wrong.
pub fn completion(body: &[u8], rules: &Rules<'_>, tokenizer: &Tokenizer) -> Result<Prepared, ApiError> {
    let mut params = Params::parse(body)?;
    let model = generating_model(&mut params, rules)?;
    let value = params.take("prompt").ok_or_else(|| missing("prompt"))?;
    let sources = prompt_sources("prompt", PROMPTS_MAX, value)?;
    let echoes = params.flag("echo")?.unwrap_or(false);
    let begin = begin(&mut params, Begin::Add)?;
    let logprobs = logprobs(&mut params, "logprobs", rules)?;
    if echoes && logprobs.is_some() {
        return Err(contradiction(
            "logprobs",
            "log-probabilities of an echoed prompt are not supported in this version",
        ));
    }
    let max_tokens = params.count("max_tokens", 1)?;
    let max_tokens = max_tokens
        .or(rules.defaults.max_tokens)
        .or(Some(COMPLETION_TOKENS_DEFAULT));
    let answers = Answers {
        max_tokens,
        ..answers(&mut params, rules, logprobs)?
    };
    let ignored = params.finish(answers.n)?;
    let encode = |source| {
        let (ids, text) = match source {
            PromptSource::Text(text) => (encode(&text, begin, rules, tokenizer, "prompt")?, Some(text)),
            PromptSource::Tokens(ids) => (ids, None),
        };
        let shown = |ids: &[u32]| tokenizer.tokens().decode(ids, answers.special);
        let echo = echoes.then(|| text.unwrap_or_else(|| shown(&ids)));
        Ok(Prompt { ids, echo })
    };
    let prompts = sources.into_iter().map(encode).collect::<Result<_, ApiError>>()?;
    Ok(Prepared {
        model,
        prompts,
        prompt_param: "prompt",
        answers,
        ignored,
    })
}

/// Reads the body of `/v1/chat/completions`.
///
/// # Errors
/// [`ApiError`] for everything a client can get wrong, the chat template's refusals included.
pub fn chat(body: &[u8], rules: &Rules<'_>, tokenizer: &Tokenizer) -> Result<Prepared, ApiError> {
    let mut params = Params::parse(body)?;
    let model = generating_model(&mut params, rules)?;
    let conversation = conversation(&mut params)?;
    let begin = begin(&mut params, Begin::Leave)?;
    let logprobs = chat_logprobs(&mut params, rules)?;
    let newer = params.count("max_completion_tokens", 1)?;
    let older = params.count("max_tokens", 1)?;
    let max_tokens = newer.or(older).or(rules.defaults.max_tokens);
    let answers = Answers {
        max_tokens,
        ..answers(&mut params, rules, logprobs)?
    };
    let ignored = params.finish(answers.n)?;
    let template = rules.template.ok_or_else(|| ApiError::Template {
        reason: "this model has none; set CUSTOM_CHAT_TEMPLATE, or use /v1/completions".into(),
    })?;
    let text = template
        .render(&conversation)
        .map_err(|error| ApiError::Template {
            reason: error.to_string(),
        })?;
    let ids = encode(&text, begin, rules, tokenizer, "messages")?;
    let prompts = vec![Prompt { ids, echo: None }];
    Ok(Prepared {
        model,
        prompts,
        prompt_param: "messages",
        answers,
        ignored,
    })
}

fn served_model(params: &mut Params, rules: &Rules<'_>) -> Result<String, ApiError> {
    let model = params.text("model")?.ok_or_else(|| missing("model"))?;
    if rules.served.contains(&model) {
        return Ok(model);
    }
    Err(ApiError::UnknownModel {
        model: shortened(&model),
        served: rules.served.to_vec(),
    })
}

fn generating_model(params: &mut Params, rules: &Rules<'_>) -> Result<String, ApiError> {
    let model = served_model(params, rules)?;
    match rules.task {
        Task::Generate => Ok(model),
        Task::Embed { .. } | Task::Score { .. } => Err(wrong_task(model, "generate text", rules.task)),
    }
}

fn wrong_task(model: String, wanted: &'static str, task: Task) -> ApiError {
    let does = match task {
        Task::Generate => "generates text",
        Task::Embed { .. } => "makes embeddings",
        Task::Score { n_labels: 1 } => "scores pairs of texts",
        Task::Score { .. } => "sorts texts into several classes",
    };
    ApiError::WrongTask { model, wanted, does }
}

fn begin(params: &mut Params, default: Begin) -> Result<Begin, ApiError> {
    Ok(match params.flag("add_special_tokens")? {
        None => default,
        Some(true) => Begin::Add,
        Some(false) => Begin::Leave,
    })
}

fn conversation(params: &mut Params) -> Result<Conversation, ApiError> {
    let value = params.take("messages").ok_or_else(|| missing("messages"))?;
    let messages = messages::checked(value)?;
    let adds_prompt = params.flag("add_generation_prompt")?;
    let ending = match (
        params.flag("continue_final_message")?.unwrap_or(false),
        adds_prompt,
    ) {
        (true, Some(true)) => {
            let reason = "an answer that continues the last message has no add_generation_prompt";
            return Err(contradiction("continue_final_message", reason));
        }
        (true, _) => Ending::OpenMessage,
        (false, Some(false)) => Ending::Messages,
        (false, _) => Ending::GenerationPrompt,
    };
    let variables = params.object("chat_template_kwargs")?.unwrap_or_default();
    Ok(Conversation {
        messages,
        ending,
        variables,
    })
}

fn encode(
    text: &str,
    begin: Begin,
    rules: &Rules<'_>,
    tokenizer: &Tokenizer,
    param: &str,
) -> Result<Vec<u32>, ApiError> {
    check_length(text.len(), rules, tokenizer, param)?;
    tokenizer.encode(text, begin).map_err(unencoded)
}

/// Refuses what is certainly too long before it is encoded.
fn check_length(
    n_bytes: usize,
    rules: &Rules<'_>,
    tokenizer: &Tokenizer,
    param: &str,
) -> Result<(), ApiError> {
    let n_tokens = rules.max_model_len;
    if !tokenizer.exceeds(n_bytes, n_tokens) {
        return Ok(());
    }
    let reason =
        format!("the prompt has {n_bytes} bytes, more than the context of {n_tokens} tokens can hold");
    Err(ApiError::TooLong {
        param: param.into(),
        reason,
    })
}

fn unencoded(error: TokenizerError) -> ApiError {
    tracing::error!(%error, "a prompt could not be encoded");
    ApiError::Internal
}

enum PromptSource {
    Text(String),
    Tokens(Vec<u32>),
}

/// A text, a list of texts, a list of tokens, or a list of those.
fn prompt_sources(param: &str, n_max: usize, value: Value) -> Result<Vec<PromptSource>, ApiError> {
    let expected = format!("a text, a list of token ids, or a non-empty list of up to {n_max} of them");
    let wrong = |value: &Value| ApiError::invalid(param, &expected, value);
    let items = match value {
        Value::String(text) => return Ok(vec![PromptSource::Text(text)]),
        Value::Array(items) => items,
        other => return Err(wrong(&other)),
    };
    if items.first().is_some_and(Value::is_number) {
        return Ok(vec![PromptSource::Tokens(token_ids(param, &items)?)]);
    }
    if items.is_empty() || items.len() > n_max {
        return Err(ApiError::InvalidValue {
            param: param.into(),
            got: format!("a list of {}", items.len()),
            expected,
        });
    }
    let source = |item: Value| match item {
        Value::String(text) => Ok(PromptSource::Text(text)),
        Value::Array(ids) => Ok(PromptSource::Tokens(token_ids(param, &ids)?)),
        other => Err(wrong(&other)),
    };
    items.into_iter().map(source).collect()
}

fn token_ids(param: &str, items: &[Value]) -> Result<Vec<u32>, ApiError> {
    let id = |item: &Value| {
        let id = item.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| ApiError::invalid(param, "made of token ids", item))
    };
    items.iter().map(id).collect()
}

/// Everything that both routes have in common, `max_tokens` excepted.
fn answers(params: &mut Params, rules: &Rules<'_>, logprobs: Option<usize>) -> Result<Answers, ApiError> {
    let n = params.integer("n", "a whole number from 1 to 128", |n| (1..=N_MAX).contains(&n))?;
    let is_i32 = |priority: i64| i32::try_from(priority).is_ok();
    let priority = params.integer("priority", "a whole number of 32 bits", is_i32)?;
    let is_inside = params.flag("include_stop_str_in_output")?.unwrap_or(false);
    let stop_place = if is_inside {
        StopPlace::Inside
    } else {
        StopPlace::Outside
    };
    let skips = params.flag("skip_special_tokens")?.unwrap_or(true);
    Ok(Answers {
        n: n.map_or(1, |n| n as usize),
        priority: priority.map_or(0, |priority| priority as i32),
        sampling: sampling(params, rules.defaults, logprobs)?,
        max_tokens: None,
        min_tokens: params.count("min_tokens", 0)?.unwrap_or(0),
        stop_token_ids: stop_token_ids(params)?,
        ignore_eos: params.flag("ignore_eos")?.unwrap_or(false),
        stops: StopStrings::new(stop_strings(params)?, stop_place),
        stop_place,
        special: if skips { Special::Skip } else { Special::Show },
        stream: stream(params)?,
    })
}

fn sampling(
    params: &mut Params,
    defaults: &Defaults,
    logprobs: Option<usize>,
) -> Result<SamplingParams, ApiError> {
    let penalty = |x: f64| (-2.0..=2.0).contains(&x);
    let from_2_to_2 = "a number from -2 to 2";
    let top_k = params.integer("top_k", "a whole number of at least 1, or 0 or -1 for all", |k| {
        k >= -1
    })?;
    let seed = params.integer("seed", "a whole number", |_| true)?;
    let temperature = params.number("temperature", "a number from 0 to 2", |x| {
        (0.0..=2.0).contains(&x)
    })?;
    let top_p = params.number("top_p", "above 0 and at most 1", |x| x > 0.0 && x <= 1.0)?;
    let min_p = params.number("min_p", "a number from 0 to 1", |x| (0.0..=1.0).contains(&x))?;
    let repetition = params.number("repetition_penalty", "above 0 and at most 2", |x| {
        x > 0.0 && x <= 2.0
    })?;
    Ok(SamplingParams {
        temperature: temperature.unwrap_or(defaults.temperature),
        top_p: top_p.unwrap_or(defaults.top_p),
        top_k: top_k.map_or(defaults.top_k, |k| usize::try_from(k).ok().filter(|k| *k > 0)),
        min_p: min_p.unwrap_or(defaults.min_p),
        repetition_penalty: repetition.unwrap_or(defaults.repetition_penalty),
        presence_penalty: params
            .number("presence_penalty", from_2_to_2, penalty)?
            .unwrap_or(0.0),
        frequency_penalty: params
            .number("frequency_penalty", from_2_to_2, penalty)?
            .unwrap_or(0.0),
        seed: seed.map(i64::cast_unsigned),
        logprobs,
    })
}

fn logprobs(params: &mut Params, name: &str, rules: &Rules<'_>) -> Result<Option<usize>, ApiError> {
    let n_max = rules.max_logprobs;
    let expected = format!("a whole number from 0 to {n_max}");
    let fits = |n: i64| usize::try_from(n).is_ok_and(|n| n <= n_max);
    Ok(params.integer(name, &expected, fits)?.map(|n| n as usize))
}

fn chat_logprobs(params: &mut Params, rules: &Rules<'_>) -> Result<Option<usize>, ApiError> {
    let is_asked = params.flag("logprobs")?.unwrap_or(false);
    match (is_asked, logprobs(params, "top_logprobs", rules)?) {
        (true, n_top) => Ok(Some(n_top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(contradiction("top_logprobs", "it needs logprobs to be true")),
    }
}

fn stop_strings(params: &mut Params) -> Result<Vec<String>, ApiError> {
    let expected =
        format!("a text or a list of up to {STOPS_MAX} texts, each of 1 to {STOP_BYTES_MAX} bytes");
    let items = match params.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= STOPS_MAX => items,
        Some(Value::Array(items)) => {
            let got = format!("a list of {}", items.len());
            return Err(ApiError::InvalidValue {
                param: "stop".into(),
                expected,
                got,
            });
        }
        Some(single) => vec![single],
    };
    let text = |(idx, item): (usize, Value)| match item {
        Value::String(text) if (1..=STOP_BYTES_MAX).contains(&text.len()) => Ok(text),
        other => Err(invalid_item("stop", idx, &expected, &other)),
    };
    items.into_iter().enumerate().map(text).collect()
}

fn stop_token_ids(params: &mut Params) -> Result<Vec<u32>, ApiError> {
    match params.take("stop_token_ids") {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= STOP_TOKENS_MAX => token_ids("stop_token_ids", &items),
        Some(other) => Err(ApiError::invalid(
            "stop_token_ids",
            "a list of up to 256 token ids",
            &other,
        )),
    }
}

fn stream(params: &mut Params) -> Result<Option<StreamOptions>, ApiError> {
    let is_streamed = params.flag("stream")?.unwrap_or(false);
    let Some(options) = params.object("stream_options")? else {
        return Ok(is_streamed.then(StreamOptions::default));
    };
    if !is_streamed {
        return Err(contradiction("stream_options", "it needs stream to be true"));
    }
    let mut options = Params::within("stream_options", options);
    Ok(Some(StreamOptions {
        include_usage: options.flag("include_usage")?.unwrap_or(false),
        continuous_usage_stats: options.flag("continuous_usage_stats")?.unwrap_or(false),
    }))
}

fn missing(param: &str) -> ApiError {
    ApiError::Missing { param: param.into() }
}

fn contradiction(param: &str, reason: &str) -> ApiError {
    ApiError::Contradiction {
        param: param.into(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests;
