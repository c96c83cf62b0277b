//! Bodies of requests: read to their end within a common budget, so that a request can be sent again to another replica.

use std::{sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use futures::StreamExt;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::error::Error;

/// Most bytes of one body.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Most bytes of all bodies together.
const BODIES_BYTES_MAX: usize = 256 << 20;
/// The budget is counted in pieces of this size.
const PIECE_BYTES: usize = 1 << 10;
/// Longest time between two pieces of a body.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A longer body is not read as values, which would take many times its memory: it has no prefix to hash.
pub(super) const PARSED_BYTES_MAX: usize = 1 << 20;
/// Bytes of a prompt that choose a replica: a system prompt and the beginning of a conversation.
const PREFIX_BYTES: usize = 2 << 10;

/// The memory of all bodies.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Semaphore>);

/// A complete body, and its part of the budget.
#[derive(Debug)]
pub(super) struct Buffered {
    pub(super) bytes: Bytes,
    _memory: Vec<OwnedSemaphorePermit>,
}

/// What the gateway reads of a body.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Head {
    model: Option<Value>,
    stream: Option<Value>,
    // A null is not nothing.
    #[serde(default, deserialize_with = "present")]
    stream_options: Option<Value>,
}

fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(value).map(Some)
}

impl Head {
    /// The head of a body; empty if it is not an object of JSON.
    pub(super) fn of(body: &[u8]) -> Head {
        serde_json::from_slice(body).unwrap_or_default()
    }

    /// The name of the model.
    pub(super) fn model(&self) -> Option<&str> {
        self.model.as_ref()?.as_str()
    }

    /// Whether the client expects server-sent events.
    pub(super) fn is_streamed(&self) -> bool {
        self.stream == Some(Value::Bool(true))
    }

    /// `stream_options`, if it is there.
    pub(super) fn stream_options(&self) -> Option<&Value> {
        self.stream_options.as_ref()
    }
}

impl Default for Budget {
    fn default() -> Budget {
        Budget::of(BODIES_BYTES_MAX)
    }
}

impl Budget {
    /// A budget of so many bytes.
    pub(super) fn of(bytes: usize) -> Budget {
        Budget(Arc::new(Semaphore::new(bytes / PIECE_BYTES)))
    }

    /// A part of the budget, if there is as much.
    pub(super) fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let pieces = u32::try_from(bytes.div_ceil(PIECE_BYTES)).ok()?;
        Arc::clone(&self.0).try_acquire_many_owned(pieces).ok()
    }

    /// Reads a body to its end.
    ///
    /// # Errors
    /// It is too large, does not arrive, or there is no memory for it.
    pub(super) async fn read(&self, body: Body) -> Result<Buffered, Error> {
        let mut stream = body.into_data_stream();
        let (mut bytes, mut memory, mut n_bytes) = (Vec::new(), Vec::new(), 0);
        loop {
            let next = timeout(PAUSE_MAX, stream.next());
            let late = |_| Error::Body {
                reason: format!("nothing arrived for {} s", PAUSE_MAX.as_secs()),
            };
            let Some(piece) = next.await.map_err(late)? else {
                break;
            };
            let piece: Bytes = piece.map_err(|error| Error::Body {
                reason: error.to_string(),
            })?;
            n_bytes += piece.len();
            if n_bytes > BODY_BYTES_MAX {
                return Err(Error::TooLarge { most: BODY_BYTES_MAX });
            }
            memory.push(self.take(piece.len()).ok_or(Error::NoMemory)?);
            bytes.push(piece);
        }
        let bytes = match bytes.len() {
            1 => bytes.remove(0),
            _ => Bytes::from(bytes.concat()),
        };
        Ok(Buffered {
            bytes,
            _memory: memory,
        })
    }
}

/// The hash of the beginning of a body's prompt; `None` if it has none.
pub(super) fn prefix_hash(body: &[u8]) -> Option<u64> {
    if body.len() > PARSED_BYTES_MAX {
        return None;
    }
    let body: Value = serde_json::from_slice(body).ok()?;
    let prompt = ["messages", "prompt", "input", "system"]
        .iter()
        .find_map(|name| body.get(name))?;
    let mut text = body.get("system").map(Value::to_string).unwrap_or_default();
    text.push_str(&prompt.to_string());
    let hash = blake3::hash(&text.as_bytes()[..text.len().min(PREFIX_BYTES)]);
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    Some(u64::from_le_bytes(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_share_a_budget_that_comes_back() {
        let budget = Budget::of(4 << 10);
        let first = budget.read(Body::from(vec![b'x'; 3 << 10])).await.unwrap();
        assert_eq!(first.bytes.len(), 3 << 10);
        let second = budget.read(Body::from(vec![b'x'; 2 << 10])).await;
        assert_eq!(second.unwrap_err(), Error::NoMemory);
        drop(first);
        assert!(budget.read(Body::from(vec![b'x'; 4 << 10])).await.is_ok());
    }

    #[test]
    fn the_head_of_a_body_is_its_model_and_whether_it_streams() {
        let head = Head::of(br#"{"messages": [{"model": "inner"}], "model": "m", "stream": true}"#);
        assert_eq!((head.model(), head.is_streamed()), (Some("m"), true));
        for body in ["", "[1]", "{", r#"{"model": 3, "stream": "true"}"#] {
            let head = Head::of(body.as_bytes());
            assert_eq!((head.model(), head.is_streamed()), (None, false), "{body}");
        }
    }

    #[test]
    fn conversations_with_the_same_beginning_have_the_same_prefix() {
        let system = "s".repeat(PREFIX_BYTES);
        let chat = |system: &str, question: &str| {
            let body = serde_json::json!({"model": "m", "messages": [system, question]}).to_string();
            prefix_hash(body.as_bytes())
        };
        assert_eq!(chat(&system, "a"), chat(&system, "b"));
        assert_ne!(chat("a", "a"), chat("b", "a"));
        assert_eq!(prefix_hash(b"{}"), None);
    }
}
