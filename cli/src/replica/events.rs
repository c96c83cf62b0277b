//! Server-sent events of an answer: the JSON of each, up to `[DONE]`.

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};
use serde_json::Value;

/// Longest line of an event.
const LINE_BYTES_MAX: usize = 1 << 22;

/// Why an answer ended too early.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The connection ended.
    #[error("the connection ended: {reason}")]
    Ended {
        /// Why.
        reason: String,
    },
    /// An event is not JSON, or too long.
    #[error("an event is not JSON")]
    Malformed,
    /// The server reports an error inside the answer.
    #[error("{message}")]
    Reported {
        /// Its words.
        message: String,
    },
}

/// The events of a body.
pub struct Events<B> {
    body: B,
    unread: Vec<u8>,
    is_done: bool,
}

impl<B: Body<Data = Bytes> + Unpin> Events<B>
where
    B::Error: std::fmt::Display,
{
    /// The events of `body`.
    pub fn new(body: B) -> Self {
        Self {
            body,
            unread: Vec::new(),
            is_done: false,
        }
    }

    /// The next event; `None` after the last one.
    ///
    /// # Errors
    /// [`EventError`].
    pub async fn next(&mut self) -> Result<Option<Value>, EventError> {
        loop {
            while let Some(line) = self.line() {
                let Some(data) = line.strip_prefix("data:").map(str::trim) else {
                    continue;
                };
                if data == "[DONE]" {
                    self.is_done = true;
                    return Ok(None);
                }
                let event: Value = serde_json::from_str(data).map_err(|_| EventError::Malformed)?;
                if let Some(message) = event["error"]["message"].as_str() {
                    return Err(EventError::Reported {
                        message: message.into(),
                    });
                }
                return Ok(Some(event));
            }
            if self.is_done {
                return Ok(None);
            }
            if self.unread.len() > LINE_BYTES_MAX {
                return Err(EventError::Malformed);
            }
            let ended = |reason: String| EventError::Ended { reason };
            match self.body.frame().await {
                None => return Err(ended("before [DONE]".into())),
                Some(Err(error)) => return Err(ended(error.to_string())),
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.unread.extend_from_slice(bytes);
                    }
                }
            }
        }
    }

    /// The next complete line.
    fn line(&mut self) -> Option<String> {
        let end = self.unread.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.unread.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).trim_end().to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use serde_json::json;

    use super::*;

    async fn read(pieces: &'static [&'static str]) -> (Vec<Value>, Option<EventError>) {
        let frames = pieces
            .iter()
            .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from_static(piece.as_bytes()))));
        let mut events = Events::new(StreamBody::new(stream::iter(frames)));
        let mut found = Vec::new();
        loop {
            match events.next().await {
                Ok(Some(event)) => found.push(event),
                Ok(None) => return (found, None),
                Err(error) => return (found, Some(error)),
            }
        }
    }

    #[tokio::test]
    async fn events_are_found_however_the_text_is_cut() {
        let whole =
            read(&["data: {\"a\":1}\n\n: a comment\n\ndata: {\"a\":2}\r\n\r\ndata: [DONE]\n\n"]).await;
        let cut = read(&[
            "da",
            "ta: {\"a\":1",
            "}\n",
            "\n: a comment\n\ndata: {\"a\":2}\r",
            "\n\r\ndata: [DO",
            "NE]\n\n",
        ])
        .await;
        assert_eq!(whole, (vec![json!({"a": 1}), json!({"a": 2})], None));
        assert_eq!(cut, whole);
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_is_an_error() {
        let (found, error) = read(&["data: {\"a\":1}\n\n"]).await;
        assert_eq!(found.len(), 1);
        assert!(matches!(error, Some(EventError::Ended { .. })), "{error:?}");
        let (_, error) = read(&["data: {\"error\": {\"message\": \"no memory\"}}\n\n"]).await;
        assert_eq!(error.unwrap().to_string(), "no memory");
    }
}
