//! How to answer a prompt: sampling or beam search, when to end, and what to return besides the text.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::logprobs::logprobs as read_logprobs;
use super::params::{Params, invalid_item, token_id};
use super::prompt::{check_texts, unencoded};
use super::rules::Rules;
use crate::api::error::ApiError;
use crate::api::text::{STOP_BYTES_MAX, StopPlace, StopStrings};
use crate::client::Client;
use crate::engine::{BeamParams, BeamRequest, EarlyStopping, GenerateRequest, SamplingParams};
use crate::grammar::Grammar;
use crate::parsers::ParserPlan;
use crate::tokenizer::{Begin, Special};

/// Stop strings of one request.
const STOPS_MAX: usize = 64;
/// Stop tokens of one request.
const STOP_TOKENS_MAX: usize = 256;
/// Biased tokens of one request.
const BIASES_MAX: usize = 1024;
/// Bad words of one request.
const BAD_WORDS_MAX: usize = 128;
/// Longest bad word, in bytes.
const BAD_WORD_BYTES_MAX: usize = 512;

/// How to answer a prompt.
#[derive(Clone, Debug)]
pub struct AnswerOptions {
    /// Number of answers to each prompt.
    pub n: usize,
    /// How answers are found.
    pub method: Method,
    /// Requests with a smaller number run first, if the engine's policy uses priorities.
    pub priority: i32,
    /// Largest number of tokens of an answer; `None`: as many as fit into the context.
    pub max_tokens: Option<usize>,
    /// Largest number of tokens of prompt and answer together.
    pub max_model_len: usize,
    /// Number of tokens before an answer may end.
    pub min_tokens: usize,
    /// Tokens that end an answer, besides the model's own.
    pub stop_token_ids: Vec<u32>,
    /// The model's own end token does not end an answer.
    pub ignore_eos: bool,
    /// Texts that end an answer.
    pub stops: StopStrings,
    /// Whether the token that ends an answer is part of it.
    pub stop_place: StopPlace,
    /// Whether special tokens are part of the text.
    pub special: Special,
    /// The prompt shares cached blocks only with prompts of the same salt.
    pub cache_salt: u64,
    /// Number of alternatives to each token of the prompt; `None`: the prompt's log-probabilities are not requested.
    pub prompt_logprobs: Option<usize>,
    /// The prompt's log-probabilities are also part of `logprobs`.
    pub echoes_logprobs: bool,
    /// The grammar that answers follow.
    pub grammar: Option<Grammar>,
    /// Number of alternatives to each token of the answer; `None`: log-probabilities are not requested.
    pub logprobs: Option<usize>,
    /// Log-probabilities name tokens by their ids.
    pub tokens_as_ids: bool,
    /// The answer contains the token ids of prompt and answers.
    pub token_ids: bool,
    /// The answer contains only the prompt.
    pub only_prompt: bool,
    /// A stream has a piece for each token, even for a token without text.
    pub sends_each_token: bool,
    /// How to stream; `None`: one answer at the end.
    pub stream: Option<StreamOptions>,
    /// How thoughts and calls are found in the text.
    pub parsing: ParserPlan,
}

/// How answers are found.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// By sampling.
    Sample {
        /// The parameters; the seed is that of the first answer.
        sampling: Arc<SamplingParams>,
        /// Number of answers that are generated. The most probable of them are returned.
        best_of: usize,
    },
    /// By beam search.
    Search(BeamParams),
}

/// What a stream contains besides the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// A last chunk with the usage.
    pub include_usage: bool,
    /// The usage so far in every chunk; only together with the last one.
    pub continuous_usage_stats: bool,
}

/// What the routes read in their own way before the options that they share.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReadOptions {
    /// Number of alternatives to each token, if log-probabilities are requested.
    pub(super) logprobs: Option<usize>,
    /// Temperature where neither the request nor the checkpoint sets it.
    pub(super) temperature: f32,
    /// Whether answers follow a grammar.
    pub(super) has_form: bool,
}

impl AnswerOptions {
    /// Reads the options that the routes share, without `max_tokens` and `grammar`.
    pub(super) fn read(
        params: &mut Params,
        options: ReadOptions,
        rules: &Rules<'_>,
    ) -> Result<Self, ApiError> {
        let n = params.count("n")?.unwrap_or(1);
        let stream = stream(params)?;
        let prompt_logprobs = read_logprobs(params, "prompt_logprobs", rules)?;
        if prompt_logprobs.is_some() && stream.is_some() {
            let reason = "it is not available when stream is true";
            return Err(ApiError::contradiction("prompt_logprobs", reason));
        }
        let min_tokens = params.count("min_tokens")?.unwrap_or(0);
        let is_inside = params.flag("include_stop_str_in_output")?.unwrap_or(false);
        let stop_place = if is_inside {
            StopPlace::Inside
        } else {
            StopPlace::Outside
        };
        let stops = stop_strings(params)?;
        if !stops.is_empty() {
            check_texts(rules, "stop")?;
        }
        // Without a tokenizer there is no text, so an answer is its token ids.
        let has_no_text = rules.tokenizer.is_skipped();
        let skips = params.flag("skip_special_tokens")?.unwrap_or(true);
        let reader = MethodReader {
            n,
            options,
            scores_prompt: prompt_logprobs.is_some(),
            is_streamed: stream.is_some(),
            rules,
        };
        Ok(Self {
            n,
            method: reader.read(params)?,
            priority: params.integer("priority")?.unwrap_or(0) as i32,
            max_tokens: None,
            max_model_len: rules.max_model_len,
            min_tokens,
            stop_token_ids: params
                .list("stop_token_ids", STOP_TOKENS_MAX, token_id)?
                .unwrap_or_default(),
            ignore_eos: params.flag("ignore_eos")?.unwrap_or(false),
            stops: StopStrings::new(stops, stop_place, min_tokens),
            stop_place,
            special: if skips { Special::Skip } else { Special::Show },
            cache_salt: cache_salt(params)?,
            prompt_logprobs,
            echoes_logprobs: false,
            grammar: None,
            logprobs: options.logprobs,
            tokens_as_ids: params.flag("return_tokens_as_token_ids")?.unwrap_or(false) || has_no_text,
            token_ids: params.flag("return_token_ids")?.unwrap_or(false) || has_no_text,
            only_prompt: false,
            sends_each_token: false,
            stream,
            parsing: ParserPlan::default(),
        })
    }

    /// Number of answers that the engine returns for each prompt.
    pub fn n_generated(&self) -> usize {
        match self.method {
            Method::Sample { best_of, .. } => best_of,
            Method::Search(_) => self.n,
        }
    }

    /// The largest number of tokens of an answer to a prompt of `n_prompt` tokens; `None`: as many as fit into the
    /// context. A client cannot know how much of the context is left, so a larger number means the rest of it.
    fn max_tokens_after(&self, n_prompt: usize) -> Option<usize> {
        let room = self.max_model_len.saturating_sub(n_prompt);
        self.max_tokens.filter(|n| *n <= room)
    }

    pub(super) fn generate(
        &self,
        prompt: Vec<u32>,
        sampling: &Arc<SamplingParams>,
        best_of: usize,
    ) -> GenerateRequest {
        GenerateRequest {
            client: Client::default(),
            max_tokens: self.max_tokens_after(prompt.len()),
            prompt: prompt.into(),
            n: best_of,
            priority: self.priority,
            sampling: Arc::clone(sampling),
            min_tokens: self.min_tokens,
            stop_token_ids: self.stop_token_ids.clone(),
            ignore_eos: self.ignore_eos,
            prompt_logprobs: self.prompt_logprobs,
            grammar: self.grammar.clone(),
            cache_salt: self.cache_salt,
            n_overtaking_max: 0,
        }
    }

    pub(super) fn search(&self, prompt: Vec<u32>, params: BeamParams) -> BeamRequest {
        BeamRequest {
            client: Client::default(),
            max_tokens: self.max_tokens_after(prompt.len()),
            prompt: prompt.into(),
            params,
            priority: self.priority,
            min_tokens: self.min_tokens,
            stop_token_ids: self.stop_token_ids.clone(),
            ignore_eos: self.ignore_eos,
        }
    }
}

/// Reads the parameters of sampling or of a beam search.
struct MethodReader<'a> {
    /// Number of answers to each prompt.
    n: usize,
    options: ReadOptions,
    /// The prompt's log-probabilities are requested.
    scores_prompt: bool,
    is_streamed: bool,
    rules: &'a Rules<'a>,
}

impl MethodReader<'_> {
    fn read(&self, params: &mut Params) -> Result<Method, ApiError> {
        let n = self.n;
        let best_of = params.count("best_of")?.unwrap_or(n);
        if best_of < n {
            let expected = format!("at least n, which is {n}");
            return Err(ApiError::invalid("best_of", expected, &best_of.into()));
        }
        let searches = params.flag("use_beam_search")?.unwrap_or(false);
        let length_penalty = params.number("length_penalty")?.unwrap_or(1.0);
        let early_stopping = params.read("early_stopping", early_stopping)?.unwrap_or_default();
        if searches {
            self.check_search(params)?;
            return Ok(Method::Search(BeamParams {
                width: best_of,
                length_penalty,
                early_stopping,
            }));
        }
        if length_penalty != 1.0 || early_stopping != EarlyStopping::Heuristic {
            return Err(ApiError::contradiction(
                "use_beam_search",
                "length_penalty and early_stopping apply to a beam search only; set use_beam_search to true",
            ));
        }
        if best_of > n && self.is_streamed {
            let reason = "the best answers are known only at the end; a stream needs best_of equal to n";
            return Err(ApiError::contradiction("best_of", reason));
        }
        // The best answers are chosen by their log-probabilities.
        let logprobs = self.options.logprobs.or((best_of > n).then_some(0));
        Ok(Method::Sample {
            sampling: Arc::new(self.sampling(params, logprobs)?),
            best_of,
        })
    }

    /// Refuses what a beam search cannot do.
    fn check_search(&self, params: &mut Params) -> Result<(), ApiError> {
        if self.options.has_form || self.scores_prompt {
            let reason =
                "a beam search can neither follow a grammar nor return the prompt's log-probabilities";
            return Err(ApiError::contradiction("use_beam_search", reason));
        }
        check_no_sampling(params)?;
        if self.options.logprobs.is_some() {
            return Err(without_sampling("logprobs"));
        }
        // Accepted, because a search does not depend on it.
        params.integer("seed").map(drop)
    }

    fn sampling(&self, params: &mut Params, logprobs: Option<usize>) -> Result<SamplingParams, ApiError> {
        let defaults = self.rules.defaults;
        let requested = params.number("temperature")?.map(|x| x as f32);
        let top_k = params.integer("top_k")?;
        let mut or = |name: &str, default: f32| -> Result<f32, ApiError> {
            Ok(params.number(name)?.map_or(default, |x| x as f32))
        };
        // top_p = 0 keeps only the most probable token, like temperature 0.
        let (temperature, top_p) = match or("top_p", defaults.top_p)? {
            0.0 => (0.0, 1.0),
            top_p => {
                let temperature = requested.or(defaults.temperature);
                (temperature.unwrap_or(self.options.temperature), top_p)
            }
        };
        Ok(SamplingParams {
            temperature,
            top_p,
            top_k: top_k.map_or(defaults.top_k, |k| usize::try_from(k).ok().filter(|k| *k > 0)),
            min_p: or("min_p", defaults.min_p)?,
            repetition_penalty: or("repetition_penalty", defaults.repetition_penalty)?,
            presence_penalty: or("presence_penalty", 0.0)?,
            frequency_penalty: or("frequency_penalty", 0.0)?,
            seed: params.integer("seed")?.map(i64::cast_unsigned),
            logprobs,
            logit_bias: params.read("logit_bias", biases)?.unwrap_or_default(),
            allowed_token_ids: allowed_token_ids(params)?,
            bad_words: bad_words(params, self.rules)?,
        })
    }
}

/// A secret of any length as a number that cannot be guessed from other numbers.
pub(super) fn cache_salt(params: &mut Params) -> Result<u64, ApiError> {
    let Some(salt) = params.text("cache_salt")? else {
        return Ok(0);
    };
    if salt.is_empty() {
        return Err(ApiError::invalid(
            "cache_salt",
            "a non-empty string",
            &salt.into(),
        ));
    }
    let hash = blake3::hash(salt.as_bytes());
    let (first, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    Ok(u64::from_le_bytes(*first))
}

fn early_stopping(value: &Value) -> Option<EarlyStopping> {
    match value {
        Value::Bool(true) => Some(EarlyStopping::AtOnce),
        Value::Bool(false) => Some(EarlyStopping::Heuristic),
        Value::String(text) if text == "never" => Some(EarlyStopping::Never),
        _ => None,
    }
}

/// Refuses sampling parameters in a beam search, because the request contradicts itself. Values without effect pass.
fn check_no_sampling(params: &mut Params) -> Result<(), ApiError> {
    let neutral = [
        ("temperature", 0.0),
        ("top_p", 1.0),
        ("min_p", 0.0),
        ("repetition_penalty", 1.0),
        ("presence_penalty", 0.0),
        ("frequency_penalty", 0.0),
    ];
    for (name, value) in neutral {
        if params.number(name)?.is_some_and(|x| x != value) {
            return Err(without_sampling(name));
        }
    }
    if params.integer("top_k")?.is_some_and(|k| k > 0) {
        return Err(without_sampling("top_k"));
    }
    for name in ["logit_bias", "allowed_token_ids", "bad_words"] {
        if params.take(name).is_some() {
            return Err(without_sampling(name));
        }
    }
    Ok(())
}

fn without_sampling(name: &str) -> ApiError {
    ApiError::contradiction(
        name,
        "a beam search does not sample; remove it, or use_beam_search",
    )
}

/// Token ids, which are texts because they are JSON keys, with the numbers that are added to their logits.
fn biases(value: &Value) -> Option<Vec<(u32, f32)>> {
    let fields = value.as_object().filter(|fields| fields.len() <= BIASES_MAX)?;
    let bias = |(token, bias): (&String, &Value)| {
        let bias = bias.as_f64().filter(|bias| (-100.0..=100.0).contains(bias))?;
        Some((token.parse().ok()?, bias as f32))
    };
    fields.iter().map(bias).collect()
}

fn allowed_token_ids(params: &mut Params) -> Result<Option<Vec<u32>>, ApiError> {
    let allowed = params.list("allowed_token_ids", usize::MAX, token_id)?;
    match allowed {
        Some(ids) if ids.is_empty() => Err(params.invalid("allowed_token_ids", &Value::Array(Vec::new()))),
        // A list may name a token more than once; then there are never more ids than the vocabulary has.
        allowed => Ok(allowed.map(|ids| Vec::from_iter(BTreeSet::from_iter(ids)))),
    }
}

/// As in vLLM, a word is forbidden at the beginning of a text and after a space.
fn bad_words(params: &mut Params, rules: &Rules<'_>) -> Result<Vec<Vec<u32>>, ApiError> {
    let is_allowed = |word: &&str| (1..=BAD_WORD_BYTES_MAX).contains(&word.len());
    let word = |item: &Value| Some(item.as_str().filter(is_allowed)?.to_string());
    let words = params.list("bad_words", BAD_WORDS_MAX, word)?.unwrap_or_default();
    let mut runs = Vec::new();
    for word in words {
        rules.budget.check()?;
        for written in [word.clone(), format!(" {}", word.trim_start())] {
            let ids = rules
                .tokenizer
                .encode(&written, Begin::Leave)
                .map_err(|error| unencoded("bad_words", error))?;
            if !ids.is_empty() && !runs.contains(&ids) {
                runs.push(ids);
            }
        }
    }
    Ok(runs)
}

fn stop_strings(params: &mut Params) -> Result<Vec<String>, ApiError> {
    let expected =
        format!("a string or a list of up to {STOPS_MAX} strings, each of 1 to {STOP_BYTES_MAX} bytes");
    let items = match params.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) if items.len() <= STOPS_MAX => items,
        Some(Value::Array(items)) => {
            let got = format!("a list of {} items", items.len());
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

fn stream(params: &mut Params) -> Result<Option<StreamOptions>, ApiError> {
    let is_streamed = params.flag("stream")?.unwrap_or(false);
    let Some(options) = params.object("stream_options")? else {
        return Ok(is_streamed.then(StreamOptions::default));
    };
    if !is_streamed {
        let reason = "it needs stream to be true";
        return Err(ApiError::contradiction("stream_options", reason));
    }
    let include_usage = option(&options, "include_usage")?;
    Ok(Some(StreamOptions {
        include_usage,
        continuous_usage_stats: option(&options, "continuous_usage_stats")? && include_usage,
    }))
}

fn option(options: &Map<String, Value>, name: &str) -> Result<bool, ApiError> {
    match options.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(is_set)) => Ok(*is_set),
        Some(other) => Err(ApiError::invalid(
            format!("stream_options.{name}"),
            "true or false",
            other,
        )),
    }
}
