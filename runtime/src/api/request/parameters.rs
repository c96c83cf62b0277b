//! The parameters of every body: name, kind, default and meaning, one row each.
//!
//! Bodies are read through these tables, and the OpenAPI document and `docs/api.md` are written from them, so what is
//! documented is what is read. A parameter that is in no table is unknown. Must not know the engine.

mod generating;
mod pooled;
mod table;

pub use generating::{CHAT_COMPLETIONS, COMPLETIONS, MESSAGE_TOKENS, MESSAGES, RESPONSES};
pub use pooled::{DETOKENIZATION, EMBEDDINGS, RERANKING, SCORES, TOKENIZATION};
pub use table::{Body, Kind, Parameter, Support};
