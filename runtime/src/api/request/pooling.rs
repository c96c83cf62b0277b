//! Bodies of `/v1/embeddings`, `/v1/score` and `/v1/rerank`: what to make vectors of.

use serde_json::Value;

use super::answers::cache_salt;
use super::parameters::{EMBEDDINGS, RERANKING, SCORES};
use super::params::{Params, invalid_item};
use super::prompt::{Cut, PromptSource, check_length, encode, prompt_sources, unencoded};
use super::{
    Rules, begin, contradiction, conversation, missing, own_template, rendered, request_id, served_model,
    wrong_task,
};
use crate::api::error::ApiError;
use crate::chat_template::Ending;
use crate::engine::PoolRequest;
use crate::model::Task;
use crate::tokenizer::{Begin, Pair, Tokenizer};

/// Inputs of one request, as with OpenAI.
const INPUTS_MAX: usize = 2048;

/// How the numbers of a vector are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A list of numbers.
    Float,
    /// Their bytes, as base64.
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
    /// This machine's.
    Native,
    /// The lowest first.
    Little,
    /// The highest first.
    Big,
}

/// A checked request for embeddings.
#[derive(Debug)]
pub struct PreparedEmbeddings {
    /// The served name that the client asked for.
    pub model: String,
    /// One per input, in their order.
    pub requests: Vec<PoolRequest>,
    /// How to write the vectors.
    pub encoding: Encoding,
    /// Length to which vectors are cut.
    pub dimensions: Option<usize>,
    /// Whether vectors have length 1, if not as the model says.
    pub normalises: Option<bool>,
    /// The client's own name for the request.
    pub request_id: Option<String>,
    /// Parameters that mean nothing here, to be told to the client.
    pub ignored: Vec<String>,
}

/// How the scores come out of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Each vector is a pair's raw score.
    Scored,
    /// The first vectors are those of the first texts, so many; the others those of the second.
    Compared {
        /// Texts of the first kind.
        n_first: usize,
    },
}

/// A checked request for scores.
#[derive(Debug)]
pub struct PreparedScores {
    /// The served name that the client asked for.
    pub model: String,
    /// What to compute.
    pub requests: Vec<PoolRequest>,
    /// What the vectors are.
    pub pairing: Pairing,
    /// Whether a raw score becomes what the model's activation makes of it.
    pub activates: bool,
    /// The client's own name for the request.
    pub request_id: Option<String>,
    /// Parameters that mean nothing here, to be told to the client.
    pub ignored: Vec<String>,
}

/// A checked request for an order of documents.
#[derive(Debug)]
pub struct PreparedRanking {
    /// The scores by which they are ranked.
    pub scores: PreparedScores,
    /// Texts of the documents.
    pub documents: Vec<String>,
    /// Which API's names the request has.
    pub form: RankingForm,
    /// Results at most.
    pub top_n: usize,
    /// Whether results carry their document.
    pub returns_documents: bool,
}

/// Which API's names a request for a ranking has, and those of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankingForm {
    /// Cohere's and Jina's: `documents`.
    Documents,
    /// Text Embeddings Inference's: `texts`.
    Texts,
}

impl RankingForm {
    /// The parameter that the documents come from.
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
/// [`ApiError`] for everything a client can get wrong.
pub fn embeddings(
    body: &[u8],
    rules: &Rules<'_>,
    tokenizer: &Tokenizer,
) -> Result<PreparedEmbeddings, ApiError> {
    let mut params = Params::parse(body, &EMBEDDINGS, rules.strict)?;
    let model = served_model(&mut params, rules)?;
    if !matches!(rules.task, Task::Embed { .. }) {
        return Err(wrong_task(model, "make embeddings", rules.task));
    }
    let sources = prompt_sources(&mut params, "input", INPUTS_MAX)?;
    let (sources, default) = match sources {
        Some(sources) => (sources, Begin::Add),
        None => (vec![conversed(&mut params, rules)?], Begin::Leave),
    };
    let begin = begin(&mut params, default)?;
    let encoding = encoding(&mut params)?;
    let dimensions = dimensions(&mut params, rules)?;
    let cut = Cut::read(&mut params, rules.max_model_len, 0)?;
    let cache_salt = cache_salt(&mut params)?;
    let normalises = normalises(&mut params)?;
    let request_id = request_id(&mut params)?;
    let ignored = params.finish()?;
    let request = |source| {
        let prompt = match source {
            PromptSource::Text(text) => {
                let ids = encode(&text, (begin, cut), rules, tokenizer, "input")?;
                closed(ids, (begin, cut), rules.task)
            }
            PromptSource::Tokens(ids) => cut.apply(ids),
        };
        Ok(plain(prompt, cache_salt))
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

/// Whether vectors have length 1, under the older name and the newer.
fn normalises(params: &mut Params) -> Result<Option<bool>, ApiError> {
    match (params.flag("normalize")?, params.flag("use_activation")?) {
        (Some(older), Some(newer)) if older != newer => Err(contradiction(
            "use_activation",
            "it is another name of normalize, which says otherwise",
        )),
        (older, newer) => Ok(older.or(newer)),
    }
}

/// The text of a conversation, which stands in the place of `input`.
fn conversed(params: &mut Params, rules: &Rules<'_>) -> Result<PromptSource, ApiError> {
    let template = own_template(params, rules)?;
    let conversation = match params.has("messages") {
        true => conversation(params, Ending::Messages)?,
        false => return Err(missing("input")),
    };
    rendered(&conversation, template.as_ref(), rules).map(PromptSource::Text)
}

/// Reads the body of `/v1/score`.
///
/// # Errors
/// [`ApiError`] for everything a client can get wrong.
pub fn scores(body: &[u8], rules: &Rules<'_>, tokenizer: &Tokenizer) -> Result<PreparedScores, ApiError> {
    let mut params = Params::parse(body, &SCORES, rules.strict)?;
    let model = served_model(&mut params, rules)?;
    check_scores(&model, rules)?;
    let first = texts(&mut params, &["text_1", "queries", "data_1"])?;
    let second = texts(&mut params, &["text_2", "documents", "items", "data_2"])?;
    params.text("encoding_format")?;
    let pairs = Pairs::read(&mut params, rules)?;
    let ignored = params.finish()?;
    if first.len() != 1 && first.len() != second.len() {
        return Err(ApiError::Contradiction {
            param: "text_1".into(),
            reason: format!(
                "it has {} texts and text_2 has {}; it must have one, or as many",
                first.len(),
                second.len()
            ),
        });
    }
    pairs.prepare(
        (model, ignored),
        [("text_1", &first), ("text_2", &second)],
        rules,
        tokenizer,
    )
}

/// Reads the body of `/v1/rerank`.
///
/// # Errors
/// [`ApiError`] for everything a client can get wrong.
pub fn ranking(body: &[u8], rules: &Rules<'_>, tokenizer: &Tokenizer) -> Result<PreparedRanking, ApiError> {
    let mut params = Params::parse(body, &RERANKING, rules.strict)?;
    let model = served_model(&mut params, rules)?;
    check_scores(&model, rules)?;
    let query = params.text("query")?.ok_or_else(|| missing("query"))?;
    let document = |item: &Value| item.as_str().or(item["text"].as_str()).map(str::to_string);
    let form = match params.has("texts") && !params.has("documents") {
        true => RankingForm::Texts,
        false => RankingForm::Documents,
    };
    let documents = params
        .list(form.param(), INPUTS_MAX, document)?
        .ok_or_else(|| missing(form.param()))?;
    if documents.is_empty() {
        return Err(params.invalid(form.param(), &Value::Array(Vec::new())));
    }
    let top_n = params.count("top_n")?.filter(|n| *n > 0).unwrap_or(usize::MAX);
    let returns_documents = params.flag("return_documents")?.unwrap_or(true);
    let mut pairs = Pairs::read(&mut params, rules)?;
    if let Some(n) = params.count("max_tokens_per_doc")? {
        pairs.cut = pairs.cut.at_most(n);
    }
    let ignored = params.finish()?;
    let texts = [("query", &vec![query]), (form.param(), &documents)];
    Ok(PreparedRanking {
        scores: pairs.prepare((model, ignored), texts, rules, tokenizer)?,
        documents,
        form,
        top_n,
        returns_documents,
    })
}

/// What score and rerank have in common.
struct Pairs {
    cut: Cut,
    begin: Begin,
    activates: bool,
    cache_salt: u64,
    request_id: Option<String>,
}

impl Pairs {
    fn read(params: &mut Params, rules: &Rules<'_>) -> Result<Self, ApiError> {
        Ok(Self {
            cut: Cut::read(params, rules.max_model_len, 0)?,
            begin: begin(params, Begin::Add)?,
            activates: activates(params, rules.task)?,
            cache_salt: cache_salt(params)?,
            request_id: request_id(params)?,
        })
    }

    /// One of the first texts goes with each of the second, or one with all.
    fn prepare(
        self,
        (model, ignored): (String, Vec<String>),
        [(first_param, first), (second_param, second)]: [(&str, &Vec<String>); 2],
        rules: &Rules<'_>,
        tokenizer: &Tokenizer,
    ) -> Result<PreparedScores, ApiError> {
        let embed = |text: &String, param: &str| {
            let ids = encode(text, (self.begin, self.cut), rules, tokenizer, param)?;
            let ids = closed(ids, (self.begin, self.cut), rules.task);
            Ok(plain(ids, self.cache_salt))
        };
        let score = |(first, second): (&String, &String)| {
            if !self.cut.shortens() {
                check_length(first.len() + second.len(), rules, tokenizer, second_param)?;
            }
            let Pair { ids, token_types } = tokenizer.encode_pair(first, second).map_err(unencoded)?;
            Ok(PoolRequest {
                prompt: self.cut.apply(ids).into(),
                token_types: self.cut.apply(token_types),
                cache_salt: self.cache_salt,
            })
        };
        let is_compared = matches!(rules.task, Task::Embed { .. });
        let requests: Result<Vec<PoolRequest>, ApiError> = if is_compared {
            let firsts = first.iter().map(|text| embed(text, first_param));
            firsts
                .chain(second.iter().map(|text| embed(text, second_param)))
                .collect()
        } else {
            first.iter().cycle().zip(second).map(score).collect()
        };
        Ok(PreparedScores {
            model,
            requests: requests?,
            pairing: if is_compared {
                Pairing::Compared { n_first: first.len() }
            } else {
                Pairing::Scored
            },
            activates: self.activates,
            request_id: self.request_id,
            ignored,
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

/// Whether a raw score goes through the model's activation, which only a cross-encoder has.
fn activates(params: &mut Params, task: Task) -> Result<bool, ApiError> {
    match (params.flag("use_activation")?, task) {
        (Some(true), Task::Embed { .. }) => Err(contradiction(
            "use_activation",
            "this model compares vectors and has no activation; leave it out",
        )),
        (asked, _) => Ok(asked.unwrap_or(true)),
    }
}

/// A vector may be shortened only where the model says that its vectors stand that.
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

/// A text or a list of texts, under the first of its names that is given.
fn texts(params: &mut Params, names: &[&str]) -> Result<Vec<String>, ApiError> {
    let name = names
        .iter()
        .copied()
        .find(|name| params.has(name))
        .unwrap_or(names[0]);
    let expected = format!("a text, or a non-empty list of up to {INPUTS_MAX} texts");
    let items = match params.required(name)? {
        Value::Array(items) if (1..=INPUTS_MAX).contains(&items.len()) => items,
        Value::Array(items) => {
            return Err(ApiError::InvalidValue {
                param: name.into(),
                got: format!("a list of {}", items.len()),
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

/// A text with the token at its end that the model reads it by, which not every tokenizer writes.
fn closed(mut ids: Vec<u32>, (begin, cut): (Begin, Cut), task: Task) -> Vec<u32> {
    if let (
        Begin::Add,
        Task::Embed {
            closing_token: Some(token),
            ..
        },
    ) = (begin, task)
        && ids.last() != Some(&token)
    {
        ids = cut.leaving(1).apply(ids);
        ids.push(token);
    }
    ids
}

fn plain(prompt: Vec<u32>, cache_salt: u64) -> PoolRequest {
    PoolRequest {
        prompt: prompt.into(),
        token_types: Vec::new(),
        cache_salt,
    }
}
