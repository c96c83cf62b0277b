//! What requests are checked against: the settings and the loaded model.

use super::defaults::Defaults;
use crate::chat_template::ChatTemplate;
use crate::config::ServedNames;
use crate::grammar::{GrammarError, Grammars};
use crate::model::Lengths;
use crate::model::Task;
use crate::parsers::Formats;
use crate::preparation::Budget;
use crate::tokenizer::Tokenizer;

/// What requests are checked against. It does not change after the model is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Names that clients use for the model.
    pub served: &'a ServedNames,
    /// What the model is for.
    pub task: Task,
    /// Length of an embedding.
    pub embedding_size: usize,
    /// Lengths to which an embedding may be shortened.
    pub lengths: &'a Lengths,
    /// The largest number of alternatives that `logprobs` may request; `None`: the vocabulary.
    pub max_logprobs: Option<usize>,
    /// Largest number of tokens of prompt and answer together.
    pub max_model_len: usize,
    /// The checkpoint's values of parameters that the request does not set.
    pub defaults: &'a Defaults,
    /// Writes messages as a prompt; `None` if the checkpoint has no template.
    pub template: Option<&'a ChatTemplate>,
    /// Role of answers.
    pub response_role: &'a str,
    /// Grammars over the model's tokens, or why there are none.
    pub grammars: Result<&'a Grammars, &'a GrammarError>,
    /// Unknown parameters are refused instead of ignored.
    pub strict: bool,
    /// How the model writes calls and thoughts.
    pub formats: Formats,
    /// Text to tokens and back.
    pub tokenizer: &'a Tokenizer,
    /// What the preparation of this request may still use.
    pub budget: &'a Budget,
}
