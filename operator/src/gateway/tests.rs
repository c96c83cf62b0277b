//! The gateway in front of replicas of these tests' own.

mod tls;
mod usage;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::any,
};
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};
use tower::ServiceExt;

use super::{
    Strategy,
    directory::{
        Directory,
        tests::{model, on_demand, slice_at},
    },
    held::HELD_MAX,
    limits::Limits,
    metrics::Metrics,
    routes::Gateway,
};

/// Longer than anything here takes; nothing waits for its end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A replica: what it answers, and how many requests it got.
struct Replica {
    address: SocketAddr,
    n_requests: Arc<AtomicUsize>,
    _server: JoinHandle<()>,
}

impl Replica {
    fn n_requests(&self) -> usize {
        self.n_requests.load(Ordering::SeqCst)
    }
}

type Answer = Arc<dyn Fn(&HeaderMap, String) -> Response + Send + Sync>;

async fn replica(answer: impl Fn(&HeaderMap, String) -> Response + Send + Sync + 'static) -> Replica {
    async fn respond(State((n, answer)): State<(Arc<AtomicUsize>, Answer)>, request: Request) -> Response {
        n.fetch_add(1, Ordering::SeqCst);
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        let line = format!(
            "{} {} {}",
            parts.method,
            parts.uri,
            String::from_utf8_lossy(&body)
        );
        answer(&parts.headers, line)
    }
    let n_requests = Arc::<AtomicUsize>::default();
    let answer: Answer = Arc::new(answer);
    let app = Router::new()
        .fallback(any(respond))
        .with_state((Arc::clone(&n_requests), answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Replica {
        address,
        n_requests,
        _server: server,
    }
}

async fn with_status(status: u16) -> Replica {
    let status = StatusCode::from_u16(status).unwrap();
    replica(move |_, line| (status, line).into_response()).await
}

/// An address at which nothing listens.
async fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
}

/// The ModelDeployment a/chat, which serves `m`, with these replicas.
fn directory(replicas: &[SocketAddr]) -> Arc<Directory> {
    let slices: Vec<_> = replicas.iter().map(|at| slice_at(("a", "chat"), *at)).collect();
    Arc::new(Directory::of(&[model(("a", "chat"), &["m"], 0)], &slices))
}

struct Test {
    gateway: Gateway,
    directory: watch::Sender<Arc<Directory>>,
}

fn test(replicas: &[SocketAddr]) -> Test {
    held_for(replicas, PATIENCE)
}

fn gateway(
    directory: watch::Receiver<Arc<Directory>>,
    limits: Limits,
    hold_timeout: Duration,
    metrics: Metrics,
) -> Gateway {
    let limits = watch::Sender::new(Arc::new(limits)).subscribe();
    Gateway::new(directory, limits, Strategy::LeastLoad, hold_timeout, metrics).unwrap()
}

fn held_for(replicas: &[SocketAddr], hold_timeout: Duration) -> Test {
    let (sender, receiver) = watch::channel(directory(replicas));
    Test {
        gateway: gateway(receiver, Limits::default(), hold_timeout, Metrics::default()),
        directory: sender,
    }
}

fn post(path: &str, body: Value) -> Request {
    Request::post(path)
        .header("authorization", "Bearer key")
        .body(Body::from(body.to_string()))
        .unwrap()
}

fn chat() -> Request {
    post("/v1/chat/completions", json!({"model": "m"}))
}

async fn text(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

impl Test {
    async fn ask(&self, request: Request) -> (u16, String) {
        let response = self.gateway.router().oneshot(request).await.unwrap();
        text(response).await
    }
}

#[tokio::test]
async fn a_request_reaches_the_replica_as_it_was_sent() {
    let replica = replica(|headers, line| {
        let key = headers["authorization"].to_str().unwrap();
        ([("x-request-id", "7")], format!("{key} {line}")).into_response()
    })
    .await;
    let test = test(&[replica.address]);
    let response = test
        .gateway
        .router()
        .oneshot(post("/v1/completions?x=1", json!({"model": "m"})))
        .await;
    let response = response.unwrap();
    assert_eq!(response.headers()["x-request-id"], "7");
    let (status, body) = text(response).await;
    assert_eq!(
        (status, body.as_str()),
        (200, r#"Bearer key POST /v1/completions?x=1 {"model":"m"}"#)
    );
    let (_, body) = test.ask(post("/a/chat/v2/x/health", json!({}))).await;
    assert_eq!(body, "Bearer key POST /v2/x/health {}");
    let (status, body) = test.ask(post("/v1/completions", json!({"model": "other"}))).await;
    assert!(
        status == 404 && body.contains("model_not_found"),
        "{status} {body}"
    );
}

#[tokio::test]
async fn replicas_share_the_requests() {
    let replicas = [with_status(200).await, with_status(200).await];
    let test = test(&replicas.each_ref().map(|replica| replica.address));
    for _ in 0..10 {
        assert_eq!(test.ask(chat()).await.0, 200);
    }
    assert_eq!(replicas.each_ref().map(Replica::n_requests), [5, 5]);
}

#[tokio::test]
async fn another_replica_answers_for_one_that_cannot() {
    for status in [503, 429] {
        let (bad, good) = (with_status(status).await, with_status(200).await);
        let test = test(&[bad.address, good.address, closed().await]);
        for _ in 0..6 {
            assert_eq!(test.ask(chat()).await.0, 200);
        }
        assert!(bad.n_requests() > 0 && good.n_requests() == 6);
    }
    let full = [with_status(429).await, with_status(429).await];
    let test = test(&full.each_ref().map(|replica| replica.address));
    assert_eq!(test.ask(chat()).await.0, 429);
    assert_eq!(
        full.each_ref().map(Replica::n_requests),
        [1, 1],
        "each was asked once"
    );
}

#[tokio::test]
async fn an_answer_that_breaks_off_ends_with_an_error_event() {
    let is_read = Arc::new(Notify::new());
    let seen = Arc::clone(&is_read);
    let replica = replica(move |_, _| {
        let seen = Arc::clone(&seen);
        let first = stream::iter([Ok(Bytes::from("data: 1\n\n"))]);
        let end = stream::once(async move {
            seen.notified().await;
            Err(std::io::Error::other("gone"))
        });
        let body = Body::from_stream(first.chain(end));
        ([("content-type", "text/event-stream")], body).into_response()
    })
    .await;
    let test = test(&[replica.address]);
    let response = test.gateway.router().oneshot(chat()).await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body().into_data_stream();
    assert_eq!(body.next().await.unwrap().unwrap(), "data: 1\n\n");
    is_read.notify_one();
    let last = body.next().await.unwrap().unwrap();
    let last = std::str::from_utf8(&last).unwrap().trim();
    let event: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(event["error"]["code"], "answer_cut_off");
    assert!(body.next().await.is_none());
    assert_eq!(replica.n_requests(), 1, "a part of the answer was known");
}

#[tokio::test]
async fn a_job_is_not_sent_twice_and_is_found_at_any_replica() {
    let broken = replica(|_, _| {
        let pieces = [Err::<Bytes, _>(std::io::Error::other("gone"))];
        Body::from_stream(stream::iter(pieces)).into_response()
    })
    .await;
    let test = test(&[broken.address]);
    let (status, body) = test.ask(post("/v2/chat/run", json!({"input": {}}))).await;
    assert!(status == 502 && body.contains("no_answer"), "{status} {body}");
    assert_eq!(broken.n_requests(), 1);
    let (status, _) = test.ask(chat()).await;
    assert_eq!(
        (status, broken.n_requests()),
        (502, 1 + 3),
        "a chat is sent again, a few times"
    );

    let replicas = [
        with_status(404).await,
        with_status(200).await,
        with_status(404).await,
    ];
    let test = self::test(&replicas.each_ref().map(|replica| replica.address));
    for _ in 0..5 {
        assert_eq!(test.ask(post("/v2/chat/status/7", json!({}))).await.0, 200);
        assert_ne!(test.ask(chat()).await.0, 503);
    }
    let missing = self::test(&[replicas[0].address, replicas[2].address]);
    assert_eq!(missing.ask(post("/v2/chat/status/7", json!({}))).await.0, 404);
}

#[tokio::test]
async fn a_request_waits_for_a_replica_that_becomes_ready() {
    let test = test(&[]);
    let asked = tokio::spawn(test.gateway.router().oneshot(chat()));
    let unreachable = closed().await;
    test.directory.send_replace(directory(&[unreachable]));
    let replica = with_status(200).await;
    test.directory
        .send_replace(directory(&[unreachable, replica.address]));
    let response = timeout(PATIENCE, asked).await.unwrap().unwrap().unwrap();
    assert_eq!(response.status(), 200);

    let late = held_for(&[], Duration::from_millis(20));
    let (status, body) = late.ask(chat()).await;
    assert!(
        status == 503 && body.contains("no_ready_replica"),
        "{status} {body}"
    );
    late.directory.send_replace(Arc::default());
    assert!(late.ask(chat()).await.1.contains("\"starting\""));
}

#[tokio::test]
async fn only_so_many_requests_wait() {
    let test = test(&[]);
    let requests = stream::iter(0..HELD_MAX + 5).map(|_| test.ask(chat()));
    let mut answers = requests.buffer_unordered(HELD_MAX + 5);
    for _ in 0..5 {
        let (status, body) = answers.next().await.unwrap();
        assert!(status == 429 && body.contains("queue_full"), "{status} {body}");
    }
    let replica = with_status(200).await;
    test.directory.send_replace(directory(&[replica.address]));
    let rest: Vec<_> = answers.collect().await;
    assert!(rest.len() == HELD_MAX && rest.iter().all(|(status, _)| *status == 200));
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_request() {
    let (left, mut seen) = watch::channel(());
    let left = Arc::new(left);
    let weak = Arc::downgrade(&left);
    let replica = replica(move |_, _| {
        let left = weak.upgrade();
        let endless = stream::unfold(left, |left| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from("data: 1\n\n")), left))
        });
        Body::from_stream(endless).into_response()
    })
    .await;
    let test = test(&[replica.address]);
    let response = test.gateway.router().oneshot(chat()).await.unwrap();
    drop(left);
    let mut body = response.into_body().into_data_stream();
    assert!(body.next().await.unwrap().is_ok());
    drop(body);
    // The last sender is gone when the replica drops its answer.
    assert!(timeout(PATIENCE, seen.changed()).await.unwrap().is_err());
}

#[tokio::test]
async fn the_list_has_what_the_key_may_use() {
    let open = replica(|headers, _| match headers.get("authorization") {
        Some(_) => axum::Json(json!({"data": [{"id": "m"}, {"id": "not-its-name"}]})).into_response(),
        None => StatusCode::UNAUTHORIZED.into_response(),
    })
    .await;
    let test = test(&[open.address]);
    let list = |key: bool| {
        let request = Request::get("/v1/models");
        let request = match key {
            true => request.header("authorization", "Bearer key"),
            false => request,
        };
        request.body(Body::empty()).unwrap()
    };
    let ids = |body: &str| {
        let body: Value = serde_json::from_str(body).unwrap();
        let models = body["data"].as_array().unwrap();
        models
            .iter()
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&test.ask(list(true)).await.1), ["m"]);
    assert!(ids(&test.ask(list(false)).await.1).is_empty());
}

/// The ModelDeployment of [`directory`] whose replicas are started by requests with the key `key`.
fn asleep(replicas: &[SocketAddr]) -> Arc<Directory> {
    let slices: Vec<_> = replicas.iter().map(|at| slice_at(("a", "chat"), *at)).collect();
    let model = on_demand(&model(("a", "chat"), &["m"], 0), "key");
    Arc::new(Directory::of(&[model], &slices))
}

async fn demand(gateway: &Gateway) -> Value {
    let request = Request::get("/internal/demand").body(Body::empty()).unwrap();
    let router = gateway.control_router(prometheus_client::registry::Registry::default());
    let (_, body) = text(router.oneshot(request).await.unwrap()).await;
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn a_request_that_starts_a_replica_is_reported_and_a_strangers_is_refused() {
    let test = test(&[]);
    test.directory.send_replace(asleep(&[]));
    assert_eq!(demand(&test.gateway).await, json!({"held": []}));
    let stranger = Request::post("/v1/chat/completions")
        .header("authorization", "Bearer other")
        .body(Body::from(r#"{"model": "m"}"#))
        .unwrap();
    let (status, body) = test.ask(stranger).await;
    assert!(
        status == 401 && body.contains("invalid_api_key") && body.contains("no ready replica"),
        "{status} {body}"
    );
    for (method, path) in [("GET", "/a/chat/v1/models"), ("POST", "/v2/chat/cancel/7")] {
        let look = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", "Bearer key");
        let (status, body) = test.ask(look.body(Body::empty()).unwrap()).await;
        assert!(
            status == 503 && body.contains("scaled_to_zero"),
            "{status} {body}"
        );
    }
    assert_eq!(demand(&test.gateway).await, json!({"held": []}));

    let asked = tokio::spawn(test.gateway.router().oneshot(chat()));
    let held = loop {
        let held = demand(&test.gateway).await["held"].clone();
        if held != json!([]) {
            break held;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (&held[0]["namespace"], &held[0]["name"], &held[0]["requests"]),
        (&json!("a"), &json!("chat"), &json!(1))
    );
    let replica = with_status(200).await;
    test.directory.send_replace(asleep(&[replica.address]));
    let response = timeout(PATIENCE, asked).await.unwrap().unwrap().unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(demand(&test.gateway).await, json!({"held": []}));
}

#[tokio::test]
async fn requests_that_waited_for_the_first_replica_wait_while_its_queue_is_full() {
    let test = test(&[]);
    let n_refused = Arc::<AtomicUsize>::default();
    let counter = Arc::clone(&n_refused);
    let replica = replica(move |_, _| match counter.fetch_add(1, Ordering::SeqCst) {
        0..3 => StatusCode::TOO_MANY_REQUESTS.into_response(),
        _ => StatusCode::OK.into_response(),
    })
    .await;
    let asked = tokio::spawn(test.gateway.router().oneshot(chat()));
    while demand(&test.gateway).await == json!({"held": []}) {
        tokio::task::yield_now().await;
    }
    test.directory.send_replace(directory(&[replica.address]));
    let response = timeout(PATIENCE, asked).await.unwrap().unwrap().unwrap();
    assert_eq!((response.status(), replica.n_requests()), (StatusCode::OK, 4));
}
