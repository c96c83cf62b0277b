//! Bodies of `/v1/embeddings` and `/v1/score`: what to make vectors of.

use serde_json::Value;

use super::params::{Params, invalid_item};
use super::{
    PromptSource, Rules, begin, check_length, encode, missing, prompt_sources, served_model, unencoded,
    wrong_task,
};
use crate::engine::PoolRequest;
use crate::error::ApiError;
use crate::model::Task;
use crate::tokenizer::{Begin, Pair, Tokenizer};

/// Inputs of one request, as with OpenAI.
const INPUTS_MAX: usize = 2048;

/// How the numbers of a vector are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A list of numbers.
    Float,
    /// Little-endian f32, as base64.
    Base64,
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
    /// Parameters that mean nothing here, to be told to the client.
    pub ignored: Vec<String>,
}

/// How the scores come out of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Each vector is a pair's raw score.
    Scored,
    /// The first vectors are those of `text_1`, so many; the others those of `text_2`.
    Compared {
        /// Texts of `text_1`.
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
    /// Parameters that mean nothing here, to be told to the client.
    pub ignored: Vec<String>,
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
    let mut params = Params::parse(body)?;
    let model = served_model(&mut params, rules)?;
    if !matches!(rules.task, Task::Embed { .. }) {
        return Err(wrong_task(model, "make embeddings", rules.task));
    }
    let value = params.take("input").ok_or_else(|| missing("input"))?;
    let sources = prompt_sources("input", INPUTS_MAX, value)?;
    let begin = begin(&mut params, Begin::Add)?;
    let encoding = match params.text("encoding_format")?.as_deref() {
        None | Some("float") => Encoding::Float,
        Some("base64") => Encoding::Base64,
        Some(other) => {
            let expected = "float or base64";
            return Err(ApiError::invalid("encoding_format", expected, &other.into()));
        }
    };
    check_dimensions(&mut params, rules)?;
    let ignored = params.finish(1)?;
    let request = |source| {
        let prompt = match source {
            PromptSource::Text(text) => {
                let ids = encode(&text, begin, rules, tokenizer, "input")?;
                closed(ids, begin, rules.task)
            }
            PromptSource::Tokens(ids) => ids,
        };
        Ok(plain(prompt))
    };
    Ok(PreparedEmbeddings {
        model,
        requests: sources
            .into_iter()
            .map(request)
            .collect::<Result<_, ApiError>>()?,
        encoding,
        ignored,
    })
}

/// Reads the body of `/v1/score`.
///
/// # Errors
/// [`ApiError`] for everything a client can get wrong.
pub fn scores(body: &[u8], rules: &Rules<'_>, tokenizer: &Tokenizer) -> Result<PreparedScores, ApiError> {
    let mut params = Params::parse(body)?;
    let model = served_model(&mut params, rules)?;
    let is_compared = match rules.task {
        Task::Embed { .. } => true,
        Task::Score { n_labels: 1 } => false,
        Task::Score { .. } | Task::Generate => {
            return Err(wrong_task(model, "score pairs of texts", rules.task));
        }
    };
    let first = texts(&mut params, "text_1")?;
    let second = texts(&mut params, "text_2")?;
    let ignored = params.finish(1)?;
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
    let embed = |text: &String, param| {
        let ids = encode(text, Begin::Add, rules, tokenizer, param)?;
        Ok(plain(closed(ids, Begin::Add, rules.task)))
    };
    let score = |(first, second): (&String, &String)| {
        check_length(first.len() + second.len(), rules, tokenizer, "text_2")?;
        let Pair { ids, token_types } = tokenizer.encode_pair(first, second).map_err(unencoded)?;
        Ok(PoolRequest {
            prompt: ids,
            token_types,
        })
    };
    let requests: Result<Vec<PoolRequest>, ApiError> = if is_compared {
        let firsts = first.iter().map(|text| embed(text, "text_1"));
        firsts
            .chain(second.iter().map(|text| embed(text, "text_2")))
            .collect()
    } else {
        first.iter().cycle().zip(&second).map(score).collect()
    };
    Ok(PreparedScores {
        model,
        requests: requests?,
        pairing: if is_compared {
            Pairing::Compared { n_first: first.len() }
        } else {
            Pairing::Scored
        },
        ignored,
    })
}

/// A vector may not be shortened: no served model says that its vectors stand that.
fn check_dimensions(params: &mut Params, rules: &Rules<'_>) -> Result<(), ApiError> {
    match params.count("dimensions", 1)? {
        None => Ok(()),
        Some(n) if n == rules.embedding_size => Ok(()),
        Some(n) => Err(ApiError::Contradiction {
            param: "dimensions".into(),
            reason: format!(
                "this model's vectors have {} dimensions and cannot have {n}",
                rules.embedding_size
            ),
        }),
    }
}

/// A text or a list of texts.
fn texts(params: &mut Params, name: &str) -> Result<Vec<String>, ApiError> {
    let expected = format!("a text, or a non-empty list of up to {INPUTS_MAX} texts");
    let items = match params.take(name).ok_or_else(|| missing(name))? {
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
fn closed(mut ids: Vec<u32>, begin: Begin, task: Task) -> Vec<u32> {
    if let (
        Begin::Add,
        Task::Embed {
            closing_token: Some(token),
            ..
        },
    ) = (begin, task)
        && ids.last() != Some(&token)
    {
        ids.push(token);
    }
    ids
}

fn plain(prompt: Vec<u32>) -> PoolRequest {
    PoolRequest {
        prompt,
        token_types: Vec::new(),
    }
}
