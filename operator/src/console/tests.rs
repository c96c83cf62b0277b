//! The console before an API server with a thousand ModelDeployments: in requests, rows and bytes.

use std::sync::{Arc, Mutex};

use axum::{
    body::{Body, Bytes},
    extract::{Query, State},
    http::{Request, StatusCode},
    routing::get,
};
use futures::{StreamExt, channel::mpsc};
use kube::Config;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceExt;

use super::*;

const N_MODELS: usize = 1000;
const MODELS: &str = "/apis/slipway.dev/v1alpha1/modeldeployments";

#[derive(Deserialize)]
struct List {
    limit: Option<usize>,
    r#continue: Option<usize>,
}

/// A page of the table, as large as objects that three managers have written.
async fn table(State(asked): State<Arc<Mutex<usize>>>, Query(list): Query<List>) -> axum::Json<Value> {
    *asked.lock().unwrap() += 1;
    let from = list.r#continue.unwrap_or_default();
    let until = N_MODELS.min(from + list.limit.unwrap_or(N_MODELS));
    let row = |idx: usize| {
        let metadata =
            json!({"name": format!("model-{idx}"), "namespace": "team", "managedFields": ["x".repeat(5000)]});
        json!({"cells": [format!("model-{idx}")], "object": {"metadata": metadata}})
    };
    let next = (until < N_MODELS).then(|| until.to_string());
    let rows: Vec<Value> = (from..until).map(row).collect();
    axum::Json(json!({"metadata": {"continue": next}, "columnDefinitions": [], "rows": rows}))
}

/// The console before this API server.
async fn console(api: Router) -> Router {
    // A test before may have chosen it.
    let _chosen = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, api).await });
    let config = Config::new(format!("http://{address}").parse().unwrap());
    router(Console {
        client: Client::try_from(config).unwrap(),
        identity: Identity::Token,
        places: Arc::new(tokio::sync::Semaphore::new(1)),
    })
}

fn asked(query: &str) -> Request<Body> {
    Request::get(format!("/k8s{MODELS}?{query}"))
        .header("x-slipway-console", "1")
        .header("authorization", "Bearer a")
        .body(Body::empty())
        .unwrap()
}

#[tokio::test]
async fn the_first_page_of_a_thousand_is_one_request_and_a_tenth_of_the_bytes() {
    let n_asked = Arc::new(Mutex::new(0));
    let api = Router::new()
        .route(MODELS, get(table))
        .with_state(Arc::clone(&n_asked));
    let console = console(api).await;
    let page = async |query: String| {
        let answer = console.clone().oneshot(asked(&query)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        axum::body::to_bytes(answer.into_body(), usize::MAX)
            .await
            .unwrap()
    };
    let whole = page(String::new()).await;
    let first = page(format!("limit={}", page_rows())).await;
    assert_eq!(*n_asked.lock().unwrap(), 2);
    assert!(
        first.len() * 9 < whole.len(),
        "{} of {}",
        first.len(),
        whole.len()
    );
    let mut names = Vec::new();
    let mut next = json!("0");
    while let Some(from) = next.as_str() {
        let bytes = page(format!("limit={}&continue={from}", page_rows())).await;
        let part: Value = serde_json::from_slice(&bytes).unwrap();
        names.extend(
            part["rows"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["cells"][0].clone()),
        );
        next = part["metadata"]["continue"].clone();
    }
    names.dedup();
    assert_eq!((names.len(), *n_asked.lock().unwrap()), (N_MODELS, 12));
}

/// Rows of a page of the list, as the pages have it.
fn page_rows() -> usize {
    let script = include_str!("../../console/list.js");
    let line = script.lines().find_map(|line| line.strip_prefix("const PAGE = "));
    line.unwrap().trim_end_matches(';').parse().unwrap()
}

#[tokio::test]
async fn an_answer_is_passed_on_as_it_comes_and_never_held_as_a_whole() {
    let (mut pieces, answer) = mpsc::channel::<Result<Bytes, std::io::Error>>(0);
    let answer = Arc::new(Mutex::new(Some(answer)));
    let api = Router::new().route(
        MODELS,
        get(move || std::future::ready(Body::from_stream(answer.lock().unwrap().take().unwrap()))),
    );
    let console = console(api).await;
    pieces.try_send(Ok("first".into())).unwrap();
    let mut body = console
        .oneshot(asked(""))
        .await
        .unwrap()
        .into_body()
        .into_data_stream();
    // The API server has not sent the rest, and would wait for ever if the console did.
    assert_eq!(body.next().await.unwrap().unwrap(), "first");
    drop(pieces);
    assert!(body.next().await.is_none());
}
