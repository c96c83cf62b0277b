//! A checked request to generate text, and the work for the engine that follows from it.

use super::answer_options::{AnswerOptions, Method};
use super::prompt::Prompt;
use super::renames::Renames;
use super::tools::CallStyle;
use crate::engine::{BeamRequest, GenerateRequest};

/// A checked request: what to answer and how.
#[derive(Debug)]
pub struct Prepared {
    /// The served name that the client uses.
    pub model: String,
    /// The prompts in their order.
    pub prompts: Vec<Prompt>,
    /// Name of the parameter that contains the prompts.
    pub prompt_param: &'static str,
    /// The client's names of parameters that have other names here.
    pub renames: Renames,
    /// How to answer each of the prompts.
    pub answers: AnswerOptions,
    /// Number of alternatives to each token of the prompts, if their log-probabilities are requested.
    pub prompt_logprobs: Option<usize>,
    /// How the answer shows calls.
    pub calls: CallStyle,
    /// The client's own name for the request.
    pub request_id: Option<String>,
    /// Names of unknown parameters, which the answer reports to the client.
    pub ignored: Vec<String>,
}

/// Work for the engine, one request per prompt.
#[derive(Debug)]
pub enum Work {
    /// Answers that are sampled.
    Generate(Vec<GenerateRequest>),
    /// Answers that a beam search finds.
    Search(Vec<BeamRequest>),
}

impl Prepared {
    /// Work for the engine: the answers to the first prompt, then those to the next.
    pub fn work(&self) -> Work {
        let ids = self.prompts.iter().map(|prompt| prompt.ids.clone());
        match &self.answers.method {
            Method::Sample { sampling, best_of } => Work::Generate(
                ids.map(|ids| self.answers.generate(ids, sampling, *best_of))
                    .collect(),
            ),
            Method::Search(params) => {
                Work::Search(ids.map(|ids| self.answers.search(ids, *params)).collect())
            }
        }
    }

    /// Tokens of all prompts.
    pub fn n_prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.ids.len()).sum()
    }
}
