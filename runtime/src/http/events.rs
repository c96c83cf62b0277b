//! Server-sent events, written straight into the bytes that are sent.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use serde::Serialize;

/// Silence on a stream after which a comment is sent, so that nothing between here and the client gives up while a
/// long prompt is computed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Events that are sent together.
#[derive(Debug, Default)]
pub(super) struct Events(Vec<u8>);

impl Events {
    /// None yet.
    pub(super) fn with_room_for(n_bytes: usize) -> Self {
        Self(Vec::with_capacity(n_bytes))
    }

    /// Adds an event whose data is JSON.
    pub(super) fn push(&mut self, data: &impl Serialize) {
        self.push_written(|bytes| serde_json::to_writer(bytes, data).expect("answers serialize"));
    }

    /// Adds an event whose data is what `write` appends.
    pub(super) fn push_written(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.0.extend_from_slice(b"data: ");
        write(&mut self.0);
        self.0.extend_from_slice(b"\n\n");
    }

    /// Adds an event whose JSON begins with its `type`, which is also the name of the event.
    pub(super) fn push_typed(&mut self, event: &impl Serialize) {
        let json = serde_json::to_vec(event).expect("answers serialize");
        let after = json.strip_prefix(br#"{"type":""#);
        let name = after.and_then(|after| after.split(|byte| *byte == b'"').next());
        self.0.extend_from_slice(b"event: ");
        self.0
            .extend_from_slice(name.expect("the first field of an event is its type"));
        self.0.push(b'\n');
        self.push_written(|bytes| bytes.extend_from_slice(&json));
    }

    /// Adds OpenAI's last event.
    pub(super) fn done(&mut self) {
        self.0.extend_from_slice(b"data: [DONE]\n\n");
    }
}

/// A response of these events, with comments in its silences.
pub(super) fn respond(events: BoxStream<'static, Events>) -> Response {
    let frames = stream::unfold(events, |mut events| async move {
        let frame = match tokio::time::timeout(KEEP_ALIVE, events.next()).await {
            Ok(Some(Events(bytes))) => Bytes::from(bytes),
            Ok(None) => return None,
            Err(_) => Bytes::from_static(b": keep-alive\n\n"),
        };
        Some((Ok::<_, Infallible>(frame), events))
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        // nginx and its kind would otherwise buffer the complete answer.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (headers, Body::from_stream(frames)).into_response()
}
