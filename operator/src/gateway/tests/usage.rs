//! What clients use is counted, and refused beyond their limits.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::sync::watch;
use tower::ServiceExt;

use super::{PATIENCE, Replica, asleep, gateway, replica, text};
use crate::gateway::{limits::Limits, metrics::Metrics, routes::Gateway};
use crds::keys;

/// A replica that accepts the key `key`, and answers as the runtime does.
async fn counting() -> Replica {
    replica(|headers, line| {
        let is_valid = headers
            .values()
            .any(|value| value == "Bearer key" || value == "key");
        match (is_valid, line.contains(r#""stream":true"#)) {
            (false, _) => axum::http::StatusCode::UNAUTHORIZED.into_response(),
            (true, false) => {
                axum::Json(json!({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}))
                    .into_response()
            }
            (true, true) => events(line.contains(r#""include_usage":true"#)),
        }
    })
    .await
}

const EVENT: &str = r#"data: {"choices":[{"text":"a"}]USAGE}"#;

fn events(has_usage: bool) -> Response {
    let event = EVENT.replace("USAGE", if has_usage { r#","usage":null"# } else { "" });
    let last = r#"data: {"choices":[],"usage":{"prompt_tokens":30,"completion_tokens":4}}"#;
    let events = match has_usage {
        true => vec![&event, &event, last, "data: [DONE]"],
        false => vec![event.as_str(), &event, "data: [DONE]"],
    };
    let body = events
        .iter()
        .map(|event| format!("{event}\n\n"))
        .collect::<String>();
    ([("content-type", "text/event-stream")], body).into_response()
}

struct Counted {
    gateway: Gateway,
    registry: Registry,
    _directory: watch::Sender<std::sync::Arc<crate::gateway::directory::Directory>>,
}

impl Counted {
    fn of(replica: &Replica, limits: &str) -> Counted {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let (directory, receiver) = watch::channel(asleep(&[replica.address]));
        let limits = Limits::parse(&[limits.as_bytes().to_vec()]).unwrap();
        Counted {
            gateway: gateway(receiver, limits, PATIENCE, metrics),
            registry,
            _directory: directory,
        }
    }

    async fn send(&self, key: &str, body: serde_json::Value) -> Response {
        let request = Request::post("/v1/chat/completions")
            .header("authorization", format!("Bearer {key}"))
            .body(Body::from(body.to_string()))
            .unwrap();
        self.gateway.router().oneshot(request).await.unwrap()
    }

    /// The values of a metric, by what follows `name="chat"` among its labels.
    fn metric(&self, name: &str) -> Vec<(String, u64)> {
        let text = crate::metrics::text(&self.registry);
        let lines = text.lines().filter_map(|line| {
            let labels = line.strip_prefix(&format!(
                "slipway_gateway_{name}_total{{namespace=\"a\",name=\"chat\",key=\""
            ))?;
            let (labels, value) = labels.split_once("} ")?;
            Some((labels.trim_end_matches('"').to_owned(), value.parse().unwrap()))
        });
        lines.collect()
    }
}

fn header(headers: &HeaderMap, name: &str) -> String {
    headers
        .get(name)
        .map_or("", |value: &HeaderValue| value.to_str().unwrap())
        .to_owned()
}

fn hash() -> String {
    keys::hash("uid", b"key")
}

#[tokio::test]
async fn usage_is_counted_by_key_and_the_answer_stays_as_it_is() {
    let replica = counting().await;
    let counted = Counted::of(&replica, "");
    let (_, body) = text(counted.send("key", json!({"model": "m"})).await).await;
    assert_eq!(
        body,
        r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}"#
    );
    let (_, body) = text(counted.send("key", json!({"model": "m", "stream": true})).await).await;
    let event = EVENT.replace("USAGE", "");
    assert_eq!(body, format!("{event}\n\n{event}\n\ndata: [DONE]\n\n"));
    let asked = json!({"model": "m", "stream": true, "stream_options": {"include_usage": true}});
    let (_, body) = text(counted.send("key", asked).await).await;
    assert!(
        body.contains(r#""completion_tokens":4"#) && body.contains(r#""usage":null"#),
        "{body}"
    );
    assert_eq!(
        text(counted.send("guessed", json!({"model": "m"})).await).await.0,
        401
    );

    assert_eq!(counted.metric("usage_requests"), [(hash(), 3)]);
    assert_eq!(counted.metric("usage_prompt_tokens"), [(hash(), 7 + 30 + 30)]);
    assert_eq!(counted.metric("usage_completion_tokens"), [(hash(), 2 + 4 + 4)]);
    assert_eq!(counted.metric("usage_estimated"), []);
}

#[tokio::test]
async fn a_client_that_leaves_before_the_count_is_charged_an_estimate() {
    let replica = replica(|_, _| {
        let endless = futures::stream::once(async {
            Ok::<_, std::io::Error>(format!("{EVENT}\n\n").replace("USAGE", ""))
        })
        .chain(futures::stream::pending());
        (
            [("content-type", "text/event-stream")],
            Body::from_stream(endless),
        )
            .into_response()
    })
    .await;
    let counted = Counted::of(&replica, "default: {tokensPerMinute: 2}");
    let body = json!({"model": "m", "stream": true, "padding": "x".repeat(400)});
    let mut answer = counted
        .send("key", body.clone())
        .await
        .into_body()
        .into_data_stream();
    assert!(answer.next().await.unwrap().is_ok());
    drop(answer);
    assert_eq!(counted.metric("usage_estimated"), [(hash(), 1)]);
    assert_eq!(counted.metric("usage_prompt_tokens"), []);
    assert_eq!(counted.send("key", body).await.status(), 429);
}

#[tokio::test]
async fn a_stream_without_usage_is_charged_an_estimate_and_another_answer_nothing() {
    let replica = replica(|_, line| match line.contains("stream") {
        true => events(false),
        false => axum::Json(json!({"tokens": [1, 2]})).into_response(),
    })
    .await;
    let counted = Counted::of(&replica, "");
    for (body, n_estimated) in [
        (json!({"model": "m"}), vec![]),
        (json!({"model": "m", "stream": true}), vec![(hash(), 1)]),
    ] {
        assert_eq!(text(counted.send("key", body).await).await.0, 200);
        assert_eq!(counted.metric("usage_estimated"), n_estimated);
    }
}

#[tokio::test]
async fn a_key_beyond_its_limits_is_refused_and_told_when_to_come_back() {
    let replica = counting().await;
    let hash = hash();
    let named = format!("keys: [{{name: team-a, hashes: ['{hash}'], requestsPerMinute: 2}}]");
    let counted = Counted::of(&replica, &named);
    for remaining in ["1", "0"] {
        let answer = counted.send("key", json!({"model": "m"})).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(header(answer.headers(), "x-ratelimit-limit-requests"), "2");
        assert_eq!(
            header(answer.headers(), "x-ratelimit-remaining-requests"),
            remaining
        );
    }
    let refused = counted.send("key", json!({"model": "m"})).await;
    let seconds: u64 = header(refused.headers(), "retry-after").parse().unwrap();
    assert!((1..=30).contains(&seconds), "{seconds}");
    assert_eq!(header(refused.headers(), "x-ratelimit-remaining-requests"), "0");
    let (status, body) = text(refused).await;
    assert!(status == 429 && body.contains("rate_limit_exceeded"), "{body}");
    assert!(
        body.contains("team-a has used its 2 requests per minute of a/chat"),
        "{body}"
    );
    assert_eq!(replica.n_requests(), 2);
    assert_eq!(counted.metric("usage_requests"), [("team-a".into(), 2)]);
    assert_eq!(
        counted.metric("limited"),
        [(r#"team-a",limit="requests"#.into(), 1)]
    );

    let counted = Counted::of(&replica, "models: {a/chat: {tokensPerMinute: 9}}");
    assert_eq!(
        text(counted.send("key", json!({"model": "m"})).await).await.0,
        200
    );
    let (status, body) = text(counted.send("key", json!({"model": "m"})).await).await;
    assert!(
        status == 429 && body.contains("its 9 tokens per minute"),
        "{body}"
    );
}
