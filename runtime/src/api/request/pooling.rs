//! Bodies of `/v1/embeddings`, `/v1/score` and `/v1/rerank`.

use serde_json::Value;

use super::answer_options::cache_salt;
use super::model::{served_model, wrong_task};
use super::parameters::{EMBEDDINGS, RERANKING, SCORES};
use super::params::{Params, invalid_item};
use super::prompt::{
    Cut, PromptOptions, PromptSource, begin, check_effort, check_length, encode, prompt_sources, unencoded,
};
use super::request_id::request_id;
use super::rules::Rules;
use super::template::{conversation, own_template, rendered};
use crate::api::error::ApiError;
use crate::chat_template::Ending;
use crate::engine::PoolRequest;
use crate::model::Task;
use crate::tokenizer::{Begin, Pair};

/// Inputs of one request: OpenAI's limit.
const INPUTS_MAX: usize = 2048;

/// How the numbers of a vector are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A list of numbers.
    Float,
    /// The bytes of the numbers, in base64.
    Base64(Number, Endianness),
}

/// Type of a number in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// IEEE single precision.
    Float32,
    /// IEEE half precision.
    Float16,
    /// Brain float.
    Bfloat16,
}

/// Order of a number's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endianness {
    /// The order of this machine.
    Native,
    /// The lowest byte first.
    Little,
    /// The highest byte first.
    Big,
}

/// A checked request for embeddings.
#[derive(Debug)]
pub struct PreparedEmbeddings {
    /// The served name that the client uses.
    pub model: String,
    /// One request per input, in their order.
    pub requests: Vec<PoolRequest>,
    /// How to write the vectors.
    pub encoding: Encoding,
    /// Length to which vectors are shortened.
    pub dimensions: Option<usize>,
    /// Whether vectors are scaled to length 1; `None`: as the model does it.
    pub normalises: Option<bool>,
    /// The client's own name for the request.
    pub request_id: Option<String>,
    /// Names of unknown parameters, which the answer reports to the client.
    pub ignored: Vec<String>,
}

/// How scores follow from vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Each vector is the raw score of a pair.
    Scored,
    /// The first vectors are those of the first texts, the others those of the second texts.
    Compared {
        /// Number of first texts.
        n_first: usize,
    },
}

/// A checked request for scores.
#[derive(Debug)]
pub struct PreparedScores {
    /// The served name that the client uses.
    pub model: String,
    /// What to compute.
    pub requests: Vec<PoolRequest>,
    /// What the vectors mean.
    pub pairing: Pairing,
    /// Whether the model's activation is applied to raw scores.
    pub activates: bool,
    /// The client's own name for the request.
    pub request_id: Option<String>,
    /// Names of unknown parameters, which the answer reports to the client.
    pub ignored: Vec<String>,
}

/// A checked request for a ranking of documents.
#[derive(Debug)]
pub struct PreparedRanking {
    /// The scores by which they are ranked.
    pub scores: PreparedScores,
    /// Texts of the documents.
    pub documents: Vec<String>,
    /// Which API's names the request uses.
    pub form: RankingForm,
    /// Largest number of results.
    pub top_n: usize,
    /// Whether results contain their document.
    pub returns_documents: bool,
}

/// Which API's names a request for a ranking and its answer use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankingForm {
    /// Cohere's and Jina's: `documents`.
    Documents,
    /// Text Embeddings Inference's: `texts`.
    Texts,
}

impl RankingForm {
    /// The parameter that contains the documents.
    pub fn param(self) -> &'static str {
        match self {
            Self::Documents => "documents",
            Self::Texts => "texts",
        }
    }
}

/// Reads the body of `/v1/embeddings`.
///
/// # Errors
/// [`ApiError`] for every error of the client.
pub fn embeddings(body: &[u8], rules: &Rules<'_>) -> Result<PreparedEmbeddings, ApiError> {
    let mut params = Params::parse(body, &EMBEDDINGS, rules)?;
    let model = served_model(&mut params, rules)?;
    if !matches!(rules.task, Task::Embed { .. }) {
        return Err(wrong_task(model, "make embeddings", rules.task));
    }
    let sources = prompt_sources(&mut params, "input", INPUTS_MAX)?;
    let (sources, default) = match sources {
        Some(sources) => (sources, Begin::Add),
        None => (vec![conversation_text(&mut params, rules)?], Begin::Leave),
    };
    let begin = begin(&mut params, default)?;
    let encoding = encoding(&mut params)?;
    let dimensions = dimensions(&mut params, rules)?;
    let cut = Cut::read(&mut params, rules.max_model_len, Some(0))?;
    let cache_salt = cache_salt(&mut params)?;
    let normalises = normalises(&mut params)?;
    let request_id = request_id(&mut params)?;
    let ignored = params.finish()?;
    let options = PromptOptions { begin, cut };
    let request = |source| {
        let prompt = match source {
            PromptSource::Text(text) => embedded(&text, options, rules, "input")?,
            PromptSource::Tokens(ids) => cut.apply(ids),
        };
        Ok(single_text(prompt, cache_salt))
    };
    Ok(PreparedEmbeddings {
        model,
        requests: sources
            .into_iter()
            .map(request)
            .collect::<Result<_, ApiError>>()?,
        encoding,
        dimensions,
        normalises,
        request_id,
        ignored,
    })
}

fn encoding(params: &mut Params) -> Result<Encoding, ApiError> {
    let number = match params.text("embed_dtype")?.as_deref() {
        Some("float16") => Number::Float16,
        Some("bfloat16") => Number::Bfloat16,
        _ => Number::Float32,
    };
    let endianness = match params.text("endianness")?.as_deref() {
        Some("little") => Endianness::Little,
        Some("big") => Endianness::Big,
        _ => Endianness::Native,
    };
    Ok(match params.text("encoding_format")?.as_deref() {
        Some("base64") => Encoding::Base64(number, endianness),
        _ => Encoding::Float,
    })
}

/// Whether vectors are scaled to length 1, by the older name or the newer.
fn normalises(params: &mut Params) -> Result<Option<bool>, ApiError> {
    match (params.flag("normalize")?, params.flag("use_activation")?) {
        (Some(older), Some(newer)) if older != newer => Err(ApiError::contradiction(
            "use_activation",
            "it is another name of normalize, and the two have different values",
        )),
        (older, newer) => Ok(older.or(newer)),
    }
}

/// The text of a conversation, which a request can contain instead of `input`.
fn conversation_text(params: &mut Params, rules: &Rules<'_>) -> Result<PromptSource, ApiError> {
    let template = own_template(params, rules)?;
    if !params.has("messages") {
        return Err(ApiError::missing("input"));
    }
    let conversation = conversation(params, Ending::Messages)?;
    rendered(&conversation, template.as_ref(), rules).map(PromptSource::Text)
}

/// Reads the body of `/v1/score`.
///
/// # Errors
/// [`ApiError`] for every error of the client.
pub fn scores(body: &[u8], rules: &Rules<'_>) -> Result<PreparedScores, ApiError> {
    let mut params = Params::parse(body, &SCORES, rules)?;
    let model = served_model(&mut params, rules)?;
    check_scores(&model, rules)?;
    let first = texts(&mut params, &["text_1", "queries", "data_1"])?;
    let second = texts(&mut params, &["text_2", "documents", "items", "data_2"])?;
    params.text("encoding_format")?;
    let options = PairOptions::read(&mut params, rules)?;
    let ignored = params.finish()?;
    if first.len() != 1 && first.len() != second.len() {
        return Err(ApiError::Contradiction {
            param: "text_1".into(),
            reason: format!(
                "it has {} texts and text_2 has {}; it must have one text, or as many as text_2",
                first.len(),
                second.len()
            ),
        });
    }
    let pairs = Pairs {
        first_param: "text_1",
        first: &first,
        second_param: "text_2",
        second: &second,
    };
    Ok(PreparedScores {
        model,
        requests: options.requests(&pairs, rules)?,
        pairing: pairs.pairing(rules.task),
        activates: options.activates,
        request_id: options.request_id,
        ignored,
    })
}

/// Reads the body of `/v1/rerank`.
///
/// # Errors
/// [`ApiError`] for every error of the client.
pub fn ranking(body: &[u8], rules: &Rules<'_>) -> Result<PreparedRanking, ApiError> {
    let mut params = Params::parse(body, &RERANKING, rules)?;
    let model = served_model(&mut params, rules)?;
    check_scores(&model, rules)?;
    let query = params.text("query")?.ok_or_else(|| ApiError::missing("query"))?;
    let document = |item: &Value| item.as_str().or(item["text"].as_str()).map(str::to_string);
    let form = match params.has("texts") && !params.has("documents") {
        true => RankingForm::Texts,
        false => RankingForm::Documents,
    };
    let documents = params
        .list(form.param(), INPUTS_MAX, document)?
        .ok_or_else(|| ApiError::missing(form.param()))?;
    if documents.is_empty() {
        return Err(params.invalid(form.param(), &Value::Array(Vec::new())));
    }
    let top_n = params.count("top_n")?.filter(|n| *n > 0).unwrap_or(usize::MAX);
    let returns_documents = params.flag("return_documents")?.unwrap_or(true);
    let mut options = PairOptions::read(&mut params, rules)?;
    if let Some(n) = params.count("max_tokens_per_doc")? {
        options.n_second_max = Some(n);
    }
    let ignored = params.finish()?;
    let pairs = Pairs {
        first_param: "query",
        first: &[query],
        second_param: form.param(),
        second: &documents,
    };
    let scores = PreparedScores {
        model,
        requests: options.requests(&pairs, rules)?,
        pairing: pairs.pairing(rules.task),
        activates: options.activates,
        request_id: options.request_id,
        ignored,
    };
    Ok(PreparedRanking {
        scores,
        documents,
        form,
        top_n,
        returns_documents,
    })
}

/// The options that score and rerank share.
struct PairOptions {
    prompt: PromptOptions,
    /// Tokens that are kept of each second text.
    n_second_max: Option<usize>,
    activates: bool,
    cache_salt: u64,
    request_id: Option<String>,
}

/// Pairs of texts: each of the second texts with the first text at its place, or with the only one.
struct Pairs<'a> {
    first_param: &'static str,
    first: &'a [String],
    second_param: &'static str,
    second: &'a [String],
}

impl Pairs<'_> {
    /// What the vectors of a model for `task` mean.
    fn pairing(&self, task: Task) -> Pairing {
        match task {
            Task::Embed { .. } => Pairing::Compared {
                n_first: self.first.len(),
            },
            Task::Score { .. } | Task::Generate => Pairing::Scored,
        }
    }
}

impl PairOptions {
    fn read(params: &mut Params, rules: &Rules<'_>) -> Result<Self, ApiError> {
        let cut = Cut::read(params, rules.max_model_len, Some(0))?;
        let begin = begin(params, Begin::Add)?;
        Ok(Self {
            prompt: PromptOptions { begin, cut },
            n_second_max: None,
            activates: activates(params, rules.task)?,
            cache_salt: cache_salt(params)?,
            request_id: request_id(params)?,
        })
    }

    /// What the engine computes for the pairs: the vector of each text, or the score of each pair.
    fn requests(&self, pairs: &Pairs<'_>, rules: &Rules<'_>) -> Result<Vec<PoolRequest>, ApiError> {
        let (first, second) = (pairs.first, pairs.second);
        match pairs.pairing(rules.task) {
            Pairing::Compared { .. } => {
                let shortened = PromptOptions {
                    cut: self
                        .n_second_max
                        .map_or(self.prompt.cut, |n| self.prompt.cut.at_most(n)),
                    ..self.prompt
                };
                let embed = |text: &String, options, param| {
                    let ids = embedded(text, options, rules, param)?;
                    Ok(single_text(ids, self.cache_salt))
                };
                let firsts = first
                    .iter()
                    .map(|text| embed(text, self.prompt, pairs.first_param));
                let seconds = second
                    .iter()
                    .map(|text| embed(text, shortened, pairs.second_param));
                firsts.chain(seconds).collect()
            }
            Pairing::Scored => {
                let score = |(first, second): (&String, &String)| {
                    if self.prompt.cut.pair_limit(self.n_second_max).is_none() {
                        check_length(first.len() + second.len(), rules, pairs.second_param)?;
                    }
                    self.score((first, second), pairs, rules)
                };
                first.iter().cycle().zip(second).map(score).collect()
            }
        }
    }

    fn score(
        &self,
        (first, second): (&str, &str),
        pairs: &Pairs<'_>,
        rules: &Rules<'_>,
    ) -> Result<PoolRequest, ApiError> {
        let first = self.prompt.cut.text(first, rules, pairs.first_param)?;
        let second = self.prompt.cut.text(second, rules, pairs.second_param)?;
        check_effort(first.len() + second.len(), rules)?;
        let tokenizer = rules.tokenizer;
        let pair = match self.prompt.cut.pair_limit(self.n_second_max) {
            Some(limit) => tokenizer.encode_pair_within(first, second, limit),
            None => tokenizer.encode_pair(first, second),
        };
        let pair = pair.map_err(|error| unencoded(pairs.second_param, error))?;
        let Pair { ids, token_types } = pair;
        Ok(PoolRequest {
            prompt: ids.into(),
            token_types,
            cache_salt: self.cache_salt,
            ..PoolRequest::default()
        })
    }
}

fn check_scores(model: &str, rules: &Rules<'_>) -> Result<(), ApiError> {
    match rules.task {
        Task::Embed { .. } | Task::Score { n_labels: 1 } => Ok(()),
        Task::Score { .. } | Task::Generate => {
            Err(wrong_task(model.into(), "score pairs of texts", rules.task))
        }
    }
}

/// Whether the model's activation is applied to raw scores; only a cross-encoder has one.
fn activates(params: &mut Params, task: Task) -> Result<bool, ApiError> {
    match (params.flag("use_activation")?, task) {
        (Some(true), Task::Embed { .. }) => Err(ApiError::contradiction(
            "use_activation",
            "this model compares vectors and has no activation; remove it",
        )),
        (requested, _) => Ok(requested.unwrap_or(true)),
    }
}

/// Reads `dimensions`. Vectors can be shortened only if the model was trained for it.
fn dimensions(params: &mut Params, rules: &Rules<'_>) -> Result<Option<usize>, ApiError> {
    match params.count("dimensions")? {
        Some(n) if !rules.lengths.allow(n, rules.embedding_size) => Err(ApiError::Contradiction {
            param: "dimensions".into(),
            reason: format!(
                "this model's vectors have {} dimensions and cannot have {n}",
                rules.embedding_size
            ),
        }),
        dimensions => Ok(dimensions),
    }
}

/// Reads a string or a list of texts from the first of the names that the body has.
fn texts(params: &mut Params, names: &[&str]) -> Result<Vec<String>, ApiError> {
    let name = names
        .iter()
        .copied()
        .find(|name| params.has(name))
        .unwrap_or(names[0]);
    let expected = format!("a string, or a non-empty list of up to {INPUTS_MAX} strings");
    let items = match params.required(name)? {
        Value::Array(items) if (1..=INPUTS_MAX).contains(&items.len()) => items,
        Value::Array(items) => {
            return Err(ApiError::InvalidValue {
                param: name.into(),
                got: format!("a list of {} items", items.len()),
                expected,
            });
        }
        single => vec![single],
    };
    let text = |(idx, item)| match item {
        Value::String(text) => Ok(text),
        other => Err(invalid_item(name, idx, &expected, &other)),
    };
    items.into_iter().enumerate().map(text).collect()
}

/// The tokens of a text to embed. They end with the model's closing token, which not every tokenizer adds.
fn embedded(
    text: &str,
    options: PromptOptions,
    rules: &Rules<'_>,
    param: &str,
) -> Result<Vec<u32>, ApiError> {
    let mut ids = encode(text, options, rules, param)?;
    if let (
        Begin::Add,
        Task::Embed {
            closing_token: Some(token),
            ..
        },
    ) = (options.begin, rules.task)
        && ids.last() != Some(&token)
    {
        if options.cut.shortens() {
            let cut = options.cut.leaving(1);
            ids = encode(text, PromptOptions { cut, ..options }, rules, param)?;
        }
        ids.push(token);
    }
    Ok(ids)
}

fn single_text(prompt: Vec<u32>, cache_salt: u64) -> PoolRequest {
    PoolRequest {
        prompt: prompt.into(),
        cache_salt,
        ..PoolRequest::default()
    }
}
