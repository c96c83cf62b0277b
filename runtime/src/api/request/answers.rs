//! How to answer a prompt: draw or search, when to end, what to tell beside the text.

use serde_json::{Map, Value};

use super::params::{Params, invalid_item, token_id};
use super::prompt::unencoded;
use super::{Defaults, Rules, contradiction, logprobs as count_of_logprobs};
use crate::api::error::ApiError;
use crate::api::text::{STOP_BYTES_MAX, StopPlace, StopStrings};
use crate::engine::{BeamParams, BeamRequest, EarlyStopping, GenerateRequest, SamplingParams};
use crate::grammar::Grammar;
use crate::parsers::ParserPlan;
use crate::tokenizer::{Begin, Special, Tokenizer};

/// Stop strings of one request.
const STOPS_MAX: usize = 16;
/// Stop tokens of one request.
const STOP_TOKENS_MAX: usize = 256;
/// Biased tokens of one request.
const BIASES_MAX: usize = 1024;
/// Bad words of one request.
const BAD_WORDS_MAX: usize = 128;

/// How to answer a prompt.
#[derive(Clone, Debug)]
pub struct Answers {
    /// Answers to each prompt.
    pub n: usize,
    /// How they come about.
    pub method: Method,
    /// Which request goes first, where the engine's policy asks for it: the smaller.
    pub priority: i32,
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
    /// The prompt shares cached blocks only with prompts of the same salt.
    pub cache_salt: u64,
    /// Log-probabilities of the prompt are told, and those of so many alternatives.
    pub prompt_logprobs: Option<usize>,
    /// The prompt's log-probabilities are also part of `logprobs`.
    pub echoes_logprobs: bool,
    /// What answers must look like.
    pub grammar: Option<Grammar>,
    /// Log-probabilities are told, and those of so many alternatives.
    pub logprobs: Option<usize>,
    /// Log-probabilities name tokens by their ids.
    pub tokens_as_ids: bool,
    /// The tokens of prompt and answers are told.
    pub token_ids: bool,
    /// Nothing but the prompt is asked for.
    pub only_prompt: bool,
    /// A stream has a piece for each token, also for one that has no text yet.
    pub tells_each_token: bool,
    /// How to stream; `None`: one answer at the end.
    pub stream: Option<StreamOptions>,
    /// How thoughts and calls are found in the text.
    pub parsing: ParserPlan,
}

/// How answers come about.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// Tokens are drawn.
    Sample {
        /// How; the seed is the first answer's.
        sampling: SamplingParams,
        /// Answers that are generated, of which the most probable are returned.
        best_of: usize,
    },
    /// The most probable texts are searched for.
    Search(BeamParams),
}

/// What a stream tells beside the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// A last chunk with the usage.
    pub include_usage: bool,
    /// The usage so far in every chunk; only together with the last one.
    pub continuous_usage_stats: bool,
}

impl Answers {
    /// Everything that both routes have in common, `max_tokens` and `grammar` excepted. `logprobs` is what is to be told,
    /// `temperature` that of requests and checkpoints that name none, `is_formed` whether there is to be a grammar.
    pub(super) fn read(
        params: &mut Params,
        (rules, tokenizer): (&Rules<'_>, &Tokenizer),
        (logprobs, temperature, is_formed): (Option<usize>, f32, bool),
    ) -> Result<Self, ApiError> {
        let n = params.count("n")?.unwrap_or(1);
        let stream = stream(params)?;
        let prompt_logprobs = count_of_logprobs(params, "prompt_logprobs", (rules, tokenizer))?;
        if prompt_logprobs.is_some() && stream.is_some() {
            let reason = "they are not available when `stream=True`";
            return Err(contradiction("prompt_logprobs", reason));
        }
        let is_inside = params.flag("include_stop_str_in_output")?.unwrap_or(false);
        let stop_place = if is_inside {
            StopPlace::Inside
        } else {
            StopPlace::Outside
        };
        let skips = params.flag("skip_special_tokens")?.unwrap_or(true);
        Ok(Self {
            n,
            method: Method::read(
                params,
                (rules.defaults, tokenizer),
                (n, logprobs, temperature),
                (stream.is_some(), is_formed || prompt_logprobs.is_some()),
            )?,
            priority: params.integer("priority")?.unwrap_or(0) as i32,
            max_tokens: None,
            min_tokens: params.count("min_tokens")?.unwrap_or(0),
            stop_token_ids: params
                .list("stop_token_ids", STOP_TOKENS_MAX, token_id)?
                .unwrap_or_default(),
            ignore_eos: params.flag("ignore_eos")?.unwrap_or(false),
            stops: StopStrings::new(stop_strings(params)?, stop_place),
            stop_place,
            special: if skips { Special::Skip } else { Special::Show },
            cache_salt: cache_salt(params)?,
            prompt_logprobs,
            echoes_logprobs: false,
            grammar: None,
            logprobs,
            tokens_as_ids: params.flag("return_tokens_as_token_ids")?.unwrap_or(false),
            token_ids: params.flag("return_token_ids")?.unwrap_or(false),
            only_prompt: false,
            tells_each_token: false,
            stream,
            parsing: ParserPlan::default(),
        })
    }

    /// Answers that come back from the engine for each prompt: a search returns only what was asked for.
    pub fn n_generated(&self) -> usize {
        match self.method {
            Method::Sample { best_of, .. } => best_of,
            Method::Search(_) => self.n,
        }
    }

    pub(super) fn generate(
        &self,
        prompt: Vec<u32>,
        sampling: &SamplingParams,
        best_of: usize,
    ) -> GenerateRequest {
        GenerateRequest {
            prompt: prompt.into(),
            n: best_of,
            priority: self.priority,
            sampling: sampling.clone(),
            max_tokens: self.max_tokens,
            min_tokens: self.min_tokens,
            stop_token_ids: self.stop_token_ids.clone(),
            ignore_eos: self.ignore_eos,
            prompt_logprobs: self.prompt_logprobs,
            grammar: self.grammar.clone(),
            cache_salt: self.cache_salt,
        }
    }

    pub(super) fn search(&self, prompt: Vec<u32>, params: BeamParams) -> BeamRequest {
        BeamRequest {
            prompt: prompt.into(),
            params,
            priority: self.priority,
            max_tokens: self.max_tokens,
            min_tokens: self.min_tokens,
            stop_token_ids: self.stop_token_ids.clone(),
            ignore_eos: self.ignore_eos,
        }
    }
}

impl Method {
    fn read(
        params: &mut Params,
        (defaults, tokenizer): (&Defaults, &Tokenizer),
        (n, logprobs, temperature): (usize, Option<usize>, f32),
        (is_streamed, shapes): (bool, bool),
    ) -> Result<Self, ApiError> {
        let best_of = params.count("best_of")?.unwrap_or(n);
        if best_of < n {
            let expected = format!("at least n, which is {n}");
            return Err(ApiError::invalid("best_of", expected, &best_of.into()));
        }
        let searches = params.flag("use_beam_search")?.unwrap_or(false);
        let length_penalty = params.number("length_penalty")?;
        let early_stopping = params.read("early_stopping", early_stopping)?;
        if searches && shapes {
            let reason = "a beam search cannot follow a grammar or tell a prompt's log-probabilities";
            return Err(contradiction("use_beam_search", reason));
        }
        if searches {
            check_nothing_is_drawn(params, logprobs)?;
            return Ok(Self::Search(BeamParams {
                width: best_of,
                length_penalty: length_penalty.unwrap_or(1.0),
                early_stopping: early_stopping.unwrap_or_default(),
            }));
        }
        let is_neutral = length_penalty.unwrap_or(1.0) == 1.0
            && early_stopping.unwrap_or_default() == EarlyStopping::Heuristic;
        if !is_neutral {
            return Err(contradiction(
                "use_beam_search",
                "length_penalty and early_stopping are a beam search's; set use_beam_search",
            ));
        }
        if best_of > n && is_streamed {
            let reason =
                "which answers are the best is known only at the end; it cannot be streamed unless it is n";
            return Err(contradiction("best_of", reason));
        }
        // The best answers are known by their log-probabilities.
        let logprobs = logprobs.or((best_of > n).then_some(0));
        let sampling = sampling(params, (defaults, tokenizer), (logprobs, temperature))?;
        Ok(Self::Sample { sampling, best_of })
    }
}

/// A secret of any length becomes a number that cannot be guessed from others.
pub(super) fn cache_salt(params: &mut Params) -> Result<u64, ApiError> {
    let Some(salt) = params.text("cache_salt")? else {
        return Ok(0);
    };
    if salt.is_empty() {
        return Err(ApiError::invalid("cache_salt", "a non-empty text", &salt.into()));
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

/// A beam search has no use for what shapes a draw: a request that asks for both means something else.
fn check_nothing_is_drawn(params: &mut Params, logprobs: Option<usize>) -> Result<(), ApiError> {
    let unused = |name: &str| {
        let reason = "a beam search draws no tokens; leave it out, or use_beam_search";
        Err(contradiction(name, reason))
    };
    let neutral = [
        ("temperature", [0.0, 0.0]),
        ("top_p", [1.0, 1.0]),
        ("min_p", [0.0, 0.0]),
        ("repetition_penalty", [1.0, 1.0]),
        ("presence_penalty", [0.0, 0.0]),
        ("frequency_penalty", [0.0, 0.0]),
    ];
    for (name, [low, high]) in neutral {
        if params.number(name)?.is_some_and(|x| x < low || x > high) {
            return unused(name);
        }
    }
    if params.integer("top_k")?.is_some_and(|k| k > 0) {
        return unused("top_k");
    }
    for name in ["logit_bias", "allowed_token_ids", "bad_words"] {
        if params.take(name).is_some() {
            return unused(name);
        }
    }
    if logprobs.is_some() {
        return unused("logprobs");
    }
    // Accepted: nothing of a search depends on it.
    params.integer("seed").map(drop)
}

fn sampling(
    params: &mut Params,
    (defaults, tokenizer): (&Defaults, &Tokenizer),
    (logprobs, temperature): (Option<usize>, f32),
) -> Result<SamplingParams, ApiError> {
    let asked = params.number("temperature")?.map(|x| x as f32);
    let top_k = params.integer("top_k")?;
    let mut or = |name: &str, default: f32| -> Result<f32, ApiError> {
        Ok(params.number(name)?.map_or(default, |x| x as f32))
    };
    // Of a sum of nothing only the most probable token is left, which is a temperature of 0.
    let top_p = or("top_p", defaults.top_p)?;
    let (temperature, top_p) = match top_p {
        0.0 => (0.0, 1.0),
        top_p => (asked.or(defaults.temperature).unwrap_or(temperature), top_p),
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
        bad_words: bad_words(params, tokenizer)?,
    })
}

/// Token ids, written as text as JSON wants it, with what is added to their logits.
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
        allowed => Ok(allowed),
    }
}

/// A word is forbidden as it is written at the beginning of a text and behind a space, as vLLM does it.
fn bad_words(params: &mut Params, tokenizer: &Tokenizer) -> Result<Vec<Vec<u32>>, ApiError> {
    let word = |item: &Value| Some(item.as_str().filter(|word| !word.is_empty())?.to_string());
    let words = params.list("bad_words", BAD_WORDS_MAX, word)?.unwrap_or_default();
    let mut runs = Vec::new();
    for word in words {
        for written in [word.clone(), format!(" {}", word.trim_start())] {
            let ids = tokenizer.encode(&written, Begin::Leave).map_err(unencoded)?;
            if !ids.is_empty() && !runs.contains(&ids) {
                runs.push(ids);
            }
        }
    }
    Ok(runs)
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

fn stream(params: &mut Params) -> Result<Option<StreamOptions>, ApiError> {
    let is_streamed = params.flag("stream")?.unwrap_or(false);
    let Some(options) = params.object("stream_options")? else {
        return Ok(is_streamed.then(StreamOptions::default));
    };
    if !is_streamed {
        return Err(contradiction("stream_options", "it needs stream to be true"));
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
