//! Clients on real sockets that go away.

use std::time::Duration;

use futures::future::join_all;
use runtime::http::connection::{self, ConnectionLimits};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::fixture::{PATIENCE, Server, Then, fake, tiny, until, with_model};

/// Serves on a free port; the port is free again when the token is dropped.
async fn listening(server: &Server) -> (String, tokio_util::sync::DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let served = connection::serve(
        listener,
        server.router.clone(),
        ConnectionLimits::default(),
        stop.clone(),
    );
    tokio::spawn(served);
    (url, stop.drop_guard())
}

async fn assert_nothing_is_held(server: &Server) {
    let load = || server.app.serving.get().unwrap().engine.load();
    until("no block is used", || {
        load().n_blocks_used == 0 && load().n_running == 0 && load().n_waiting == 0
    })
    .await;
}

/// A small generator: the same clients leave at the same chunk in every run.
fn scattered(seed: usize) -> usize {
    seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_streams_with_random_disconnects_leave_nothing_behind() {
    let server = tiny(&[("num-gpu-blocks-override", "512"), ("max-num-seqs", "64")]).await;
    let (url, _stop) = listening(&server).await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .unwrap();
    let one = |idx: usize| {
        let (client, url) = (client.clone(), url.clone());
        async move {
            let body = json!({
                "model": "tiny", "prompt": "And Moses said unto the people, ".repeat(1 + idx % 9),
                "stream": true, "max_tokens": 24, "ignore_eos": true, "seed": idx, "n": 1 + idx % 2,
            });
            let mut response = client
                .post(format!("{url}/v1/completions"))
                .json(&body)
                .send()
                .await
                .unwrap();
            assert_eq!(response.status(), 200);
            // A third stays to the end.
            let n_chunks = if idx.is_multiple_of(3) {
                usize::MAX
            } else {
                scattered(idx) % 20
            };
            let mut text = String::new();
            for _ in 0..n_chunks {
                match response.chunk().await.unwrap() {
                    Some(chunk) => text += &String::from_utf8_lossy(&chunk),
                    None => break,
                }
            }
            // On a busy machine several events share a chunk, so that few chunks may hold a complete answer.
            let is_complete = text.ends_with("data: [DONE]\n\n");
            assert!(is_complete || n_chunks < usize::MAX, "{text}");
        }
    };
    join_all((0..200).map(one)).await;
    assert_nothing_is_held(&server).await;
    let counters = server.app.serving.get().unwrap().engine.counters();
    assert!(counters.cancelled.get() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_before_its_whole_answer_frees_its_place() {
    left_early(async |stream| drop(stream)).await;
}

/// Nobody can tell it from one that is gone, and it would hold its place until the answer is complete.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_half_frees_its_place_as_well() {
    left_early(async |mut stream| {
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        let _reset = stream.read_to_end(&mut rest).await;
    })
    .await;
}

async fn left_early(leave: impl AsyncFnOnce(TcpStream)) {
    let (gate, receiver) = std::sync::mpsc::channel();
    let server = with_model(fake(Then::Gate(receiver)), &[]).await;
    let (url, _stop) = listening(&server).await;
    let body = json!({"model": "tiny", "prompt": "Hello", "max_tokens": 200}).to_string();
    let mut stream = TcpStream::connect(url.trim_start_matches("http://"))
        .await
        .unwrap();
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    until("it runs", || {
        server.app.serving.get().unwrap().engine.load().n_running == 1
    })
    .await;
    leave(stream).await;
    drop(gate);
    assert_nothing_is_held(&server).await;
    assert_eq!(
        server
            .app
            .serving
            .get()
            .unwrap()
            .engine
            .counters()
            .cancelled
            .get(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_answered_although_the_client_sends_all_of_it_first() {
    let server = tiny(&[]).await;
    let (url, _stop) = listening(&server).await;
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .unwrap();
    let sent = client
        .post(format!("{url}/v1/completions"))
        .body(vec![b' '; 10 << 20])
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 413);
    let body: serde_json::Value = sent.json().await.unwrap();
    assert_eq!(body["error"]["code"], "body_too_large");
    let next = client
        .get(format!("{url}/v1/models"))
        .timeout(Duration::from_secs(60))
        .send()
        .await
        .unwrap();
    assert_eq!(next.status(), 200);
}
