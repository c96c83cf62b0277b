//! From a request's body to checked work for the engine. Every input error is created here.
//!
//! Owns OpenAI's and vLLM's parameters: names, ranges, defaults. Values leave this folder only after a check, and no
//! parameter that a client could rely on is ignored silently. Must not know HTTP, nor the state of the engine.
//!
//! This file declares and re-exports; the readers of the bodies are `completion`, `chat`, `responses`, `anthropic`,
//! `pooling` and `tokens`.

mod answer_options;
mod anthropic;
mod chat;
mod completion;
mod constraint;
mod defaults;
mod fill_in;
mod logprobs;
mod messages;
mod model;
pub mod parameters;
mod params;
mod pooling;
mod prepared;
mod prompt;
mod renames;
mod request_id;
mod responses;
mod rules;
mod template;
mod tokens;
mod tools;

pub use answer_options::{AnswerOptions, Method, StreamOptions};
pub use anthropic::{anthropic, anthropic_prompt, tool_use_id};
pub use chat::chat;
pub use completion::completion;
pub use defaults::{Defaults, DefaultsError};
pub use pooling::{
    Encoding, Endianness, Number, Pairing, PreparedEmbeddings, PreparedRanking, PreparedScores, RankingForm,
    embeddings, ranking, scores,
};
pub use prepared::{Prepared, Work};
pub use prompt::Prompt;
pub use renames::Renames;
pub use request_id::is_request_id;
pub use responses::{PreparedResponse, response};
pub use rules::Rules;
pub use tokens::{Detokenized, Tokenized, detokenized, tokenized};
pub use tools::CallStyle;

#[cfg(test)]
mod tests;
