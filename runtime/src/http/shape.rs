//! How one API writes answers; the rest of a generating route is in `generation`.

use serde::Serialize;

use crate::api::answer::{Delta, Whole};
use crate::api::request::Prepared;
use crate::api::response::Answer;

/// How a route writes answers.
pub(super) trait Shape: Send + 'static {
    /// Beginning of an answer's id.
    const ID_PREFIX: &'static str;
    /// `object` of an answer that is not streamed.
    const WHOLE: &'static str;
    /// `object` of a chunk.
    const CHUNK: &'static str;
    /// An entry of `choices` of an answer that is not streamed.
    type Choice: Serialize;
    /// An entry of `choices` of a chunk.
    type ChunkChoice: Serialize + Send;

    /// A complete answer.
    fn whole(&mut self, choice_idx: usize, whole: Whole) -> Self::Choice;

    /// Adds the pieces of an answer, each of which is a chunk of its own.
    fn chunks(&mut self, delta: Delta, chunks: &mut Vec<Self::ChunkChoice>);

    /// Tokens of the prompt for the first chunk of a stream; `None` from the second call on.
    fn take_prompt_ids(&mut self) -> Option<Vec<u32>> {
        None
    }

    /// Adds what an answer that is not streamed has beside its choices.
    fn complete(&mut self, _prepared: &Prepared, _answer: &mut Answer<'_, Self::Choice>) {}
}
