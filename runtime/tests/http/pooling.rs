//! Embeddings and scores over HTTP, from a model whose vectors tell what it was given.

use axum::http::{Request, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use runtime::batch::{Batch, Forward, FunctionModel, StepOutput};
use runtime::model::Task;
use serde_json::{Value, json};

use crate::checkpoint::materialise;
use crate::fixture::{Reply, Server, tiny, with, with_task};

const VOCAB_SIZE: usize = 4096;
const EMBED: Task = Task::Embed {
    normalises: false,
    closing_token: None,
};
const SCORE: Task = Task::Score { n_labels: 1 };

/// Its vector is the first token, the last, their number and how many of them are of the second text.
fn telltale() -> impl Forward + Send + 'static {
    FunctionModel::new(VOCAB_SIZE, |batch: &Batch| {
        Ok(pooled(batch, |numbers| numbers.to_vec()))
    })
    .with_whole_prompts()
}

/// A cross-encoder: the raw score is a hundredth of the number of tokens.
fn length() -> impl Forward + Send + 'static {
    let score = |numbers: &[f32; 4]| vec![numbers[2] / 100.0];
    FunctionModel::new(VOCAB_SIZE, move |batch: &Batch| Ok(pooled(batch, score))).with_whole_prompts()
}

/// One vector per row, made of its first token, its last, their number and how many of them are of the second text.
fn pooled(batch: &Batch, vector: impl Fn(&[f32; 4]) -> Vec<f32>) -> StepOutput {
    let of_row = |row: &u32| {
        let row = &batch.rows[*row as usize];
        let range = row.query_start..row.query_start + row.query_len;
        let tokens = &batch.tokens[range.clone()];
        let types = batch.token_types.get(range).unwrap_or_default();
        let numbers = [
            tokens[0],
            tokens[tokens.len() - 1],
            tokens.len() as u32,
            types.iter().sum(),
        ];
        vector(&numbers.map(|number| number as f32))
    };
    StepOutput {
        pooled: batch.pooled_rows.iter().map(of_row).collect(),
        ..StepOutput::default()
    }
}

async fn embed(server: &Server, extra: Value) -> Reply {
    let body = with(json!({"model": "tiny", "input": "Hello"}), extra);
    server.post("/v1/embeddings", body).await
}

async fn score(server: &Server, text_1: Value, text_2: Value) -> Reply {
    let body = json!({"model": "tiny", "text_1": text_1, "text_2": text_2});
    server.post("/v1/score", body).await
}

/// The vectors of a reply, once its shape is checked.
fn vectors(reply: &Reply) -> Vec<Vec<f32>> {
    assert_eq!(reply.status, 200, "{}", reply.text);
    let body = reply.json();
    assert_eq!(
        (&body["object"], &body["model"]),
        (&json!("list"), &json!("tiny"))
    );
    let data = body["data"].as_array().unwrap().iter().enumerate();
    data.map(|(idx, entry)| {
        assert_eq!(
            (&entry["index"], &entry["object"]),
            (&json!(idx), &json!("embedding"))
        );
        serde_json::from_value(entry["embedding"].clone()).unwrap()
    })
    .collect()
}

fn scores(reply: &Reply) -> Vec<f64> {
    assert_eq!(reply.status, 200, "{}", reply.text);
    let body = reply.json();
    assert!(body["id"].as_str().unwrap().starts_with("score-"));
    let data = body["data"].as_array().unwrap().iter().enumerate();
    data.map(|(idx, entry)| {
        assert_eq!(
            (&entry["index"], &entry["object"]),
            (&json!(idx), &json!("score"))
        );
        entry["score"].as_f64().unwrap()
    })
    .collect()
}

/// Numbers in f32, computed in another order.
const TOLERANCE: f64 = 1e-4;

/// A server of a checkpoint of `fixtures/oracle`, and the reference's prompts.
async fn of_checkpoint(name: &str) -> (Server, Vec<Value>) {
    let folder = materialise(name);
    // As exact as the references: neither cache nor products in 16 bits.
    let model = folder.path().display().to_string();
    let server = tiny(&[("model", &model), ("dtype", "float32")]).await;
    let reference = std::fs::read(folder.path().join("reference.json")).unwrap();
    let reference: Value = serde_json::from_slice(&reference).unwrap();
    (server, reference["prompts"].as_array().unwrap().clone())
}

fn assert_close(got: &[f64], expected: &Value, what: &str) {
    let expected: Vec<f64> = serde_json::from_value(expected.clone()).unwrap();
    let far = got
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max);
    assert_eq!(got.len(), expected.len(), "{what}");
    assert!(far < TOLERANCE, "{what}: off by {far}");
}

#[tokio::test]
async fn embeddings_are_the_references() {
    let names = [
        "bert-minilm-mean",
        "bge-bert-cls",
        "bge-m3-xlmr-cls",
        "e5-mistral-lasttoken",
        "qwen3-embedding-lasttoken",
    ];
    for name in names {
        let (server, prompts) = of_checkpoint(name).await;
        for field in ["ids", "text"] {
            let input: Vec<&Value> = prompts.iter().map(|prompt| &prompt[field]).collect();
            let vectors = vectors(&embed(&server, json!({"input": input})).await);
            for (vector, prompt) in vectors.into_iter().zip(&prompts) {
                let vector: Vec<f64> = vector.into_iter().map(f64::from).collect();
                assert_close(&vector, &prompt["embedding"], name);
            }
        }
    }
}

#[tokio::test]
async fn scores_are_the_references() {
    for name in ["bge-reranker-xlmr", "bert-cross-encoder"] {
        let (server, prompts) = of_checkpoint(name).await;
        for prompt in &prompts {
            let reply = score(&server, prompt["query"].clone(), prompt["document"].clone()).await;
            assert_close(&scores(&reply), &prompt["sigmoid"], name);
        }
        let of = |field: &str| {
            prompts
                .iter()
                .map(|prompt| prompt[field].clone())
                .collect::<Value>()
        };
        let sigmoids: Vec<Value> = prompts
            .iter()
            .map(|prompt| prompt["sigmoid"][0].clone())
            .collect();
        let reply = score(&server, of("query"), of("document")).await;
        assert_close(&scores(&reply), &sigmoids.into(), name);
    }
}

#[tokio::test]
async fn every_form_of_input_has_its_vectors_in_order() {
    let server = with_task(telltale(), EMBED, &[]).await;
    let hello = vectors(&embed(&server, json!({})).await);
    let listed = vectors(&embed(&server, json!({"input": ["Hello", "Hello there", "Hello"]})).await);
    assert_eq!((&listed[0], &listed[2]), (&hello[0], &hello[0]));
    assert_ne!(listed[1], listed[0]);
    let tokens = embed(&server, json!({"input": [5, 6, 7]})).await;
    assert_eq!(vectors(&tokens), [[5.0, 7.0, 3.0, 0.0]]);
    assert_eq!(
        tokens.json()["usage"],
        json!({"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3})
    );
    let several = embed(&server, json!({"input": [[5, 6], [9]]})).await;
    assert_eq!(vectors(&several), [[5.0, 6.0, 2.0, 0.0], [9.0, 9.0, 1.0, 0.0]]);
    assert_eq!(several.json()["usage"]["total_tokens"], 3);
}

#[tokio::test]
async fn more_inputs_than_the_engine_holds_are_answered_in_order() {
    let server = with_task(telltale(), EMBED, &[]).await;
    let input: Vec<Vec<u32>> = (0..200).map(|n| vec![n, n + 1]).collect();
    let vectors = vectors(&embed(&server, json!({"input": input})).await);
    let firsts: Vec<f32> = vectors.iter().map(|vector| vector[0]).collect();
    assert_eq!(firsts, (0..200).map(|n| n as f32).collect::<Vec<_>>());
}

#[tokio::test]
async fn base64_holds_the_same_numbers() {
    let server = with_task(telltale(), EMBED, &[]).await;
    let body = embed(
        &server,
        json!({"input": [[1, 4095], [2]], "encoding_format": "base64"}),
    )
    .await
    .json();
    let numbers = |idx: usize| -> Vec<f32> {
        let bytes = STANDARD
            .decode(body["data"][idx]["embedding"].as_str().unwrap())
            .unwrap();
        bytes
            .chunks(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
            .collect()
    };
    assert_eq!(numbers(0), [1.0, 4095.0, 2.0, 0.0]);
    assert_eq!(numbers(1), [2.0, 2.0, 1.0, 0.0]);
}

#[tokio::test]
async fn vectors_have_length_1_where_the_model_says_so() {
    let server = with_task(
        telltale(),
        Task::Embed {
            normalises: true,
            closing_token: None,
        },
        &[],
    )
    .await;
    let vectors = vectors(&embed(&server, json!({"input": [[3, 4]]})).await);
    let length: f32 = vectors[0].iter().map(|x| x * x).sum();
    assert!((length - 1.0).abs() < 1e-6, "{vectors:?}");
    assert!((vectors[0][1] / vectors[0][0] - 4.0 / 3.0).abs() < 1e-6);
}

#[tokio::test]
async fn what_is_wrong_with_an_input_is_named() {
    let server = with_task(telltale(), EMBED, &[]).await;
    let long = vec![1; 300];
    let cases = [
        (json!({"input": null}), "input", "missing_required_parameter"),
        (json!({"input": 5}), "input", "invalid_value"),
        (json!({"input": []}), "input", "invalid_value"),
        (json!({"input": ["a", 5]}), "input", "invalid_value"),
        (json!({"input": [1, "a"]}), "input", "invalid_value"),
        (json!({"input": [1.5]}), "input", "invalid_value"),
        (json!({"input": vec!["a"; 2049]}), "input", "invalid_value"),
        (json!({"input": ""}), "input", "invalid_value"),
        (json!({"input": [[1], [4096]]}), "input[1]", "invalid_value"),
        (
            json!({"input": [[1], long]}),
            "input[1]",
            "context_length_exceeded",
        ),
        (
            json!({"input": "a".repeat(1 << 20)}),
            "input",
            "context_length_exceeded",
        ),
        (
            json!({"encoding_format": "hex"}),
            "encoding_format",
            "invalid_value",
        ),
        (json!({"dimensions": 0}), "dimensions", "invalid_value"),
        (json!({"dimensions": 2}), "dimensions", "invalid_value"),
    ];
    for (extra, param, code) in cases {
        let reply = embed(&server, extra.clone()).await;
        let error = reply.json()["error"].clone();
        let got = (reply.status, error["param"].as_str(), error["code"].as_str());
        assert_eq!(got, (400, Some(param), Some(code)), "{}", error["message"]);
    }
    // The message of a text that is too long names both numbers.
    let message = embed(&server, json!({"input": vec![1; 300]})).await.text;
    assert!(message.contains("300") && message.contains("64"), "{message}");
    let unknown = embed(&server, json!({"model": "other"})).await;
    assert_eq!(unknown.status, 404);
    let odd = embed(&server, json!({"odd": 1, "user": "u"})).await;
    assert_eq!(odd.headers["x-slipway-ignored-parameters"], "odd");
}

#[tokio::test]
async fn an_embedding_model_scores_by_the_angle() {
    let server = with_task(telltale(), EMBED, &[]).await;
    let one = scores(&score(&server, json!("Hello"), json!("Hello")).await);
    assert!((one[0] - 1.0).abs() < 1e-6, "{one:?}");
    let reply = score(&server, json!("Hello"), json!(["Hello", "Hello there", "Hello"])).await;
    let several = scores(&reply);
    assert_eq!((several.len(), several[0], several[2]), (3, one[0], one[0]));
    assert!(several[1] < 1.0);
    let pairs = scores(&score(&server, json!(["Hello", "a"]), json!(["Hello there", "a"])).await);
    assert_eq!((pairs[0], pairs.len()), (several[1], 2));
    let alias = json!({"model": "tiny", "text_1": "Hello", "text_2": "Hello"});
    assert_eq!(scores(&server.post("/score", alias).await), one);
}

#[tokio::test]
async fn a_cross_encoder_reads_both_texts_at_once() {
    let server = with_task(length(), SCORE, &[]).await;
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let one = score(&server, json!("Hello"), json!("Hello")).await;
    let n_tokens = one.json()["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(n_tokens > 0 && n_tokens % 2 == 0);
    let expected = sigmoid(n_tokens as f64 / 100.0);
    assert!((scores(&one)[0] - expected).abs() < 1e-6);
    let got = scores(&score(&server, json!("Hello"), json!(["Hello", "Hello Hello Hello"])).await);
    assert!((got[0] - expected).abs() < 1e-6 && got[1] > got[0], "{got:?}");
}

#[tokio::test]
async fn what_is_wrong_with_a_pair_is_named() {
    let server = with_task(length(), SCORE, &[]).await;
    let cases = [
        (json!(null), json!("a"), "text_1", "missing_required_parameter"),
        (json!("a"), json!([]), "text_2", "invalid_value"),
        (json!("a"), json!(["b", 1]), "text_2[1]", "invalid_value"),
        (json!(["a", "b"]), json!("c"), "text_1", "invalid_value"),
        (
            json!("a"),
            json!("b".repeat(1 << 20)),
            "text_2",
            "context_length_exceeded",
        ),
        (
            json!("a"),
            json!(["b", "x ".repeat(400)]),
            "text_2[1]",
            "context_length_exceeded",
        ),
    ];
    for (text_1, text_2, param, code) in cases {
        let reply = score(&server, text_1, text_2).await;
        let error = reply.json()["error"].clone();
        let got = (reply.status, error["param"].as_str(), error["code"].as_str());
        assert_eq!(got, (400, Some(param), Some(code)), "{}", error["message"]);
    }
}

#[tokio::test]
async fn a_model_says_what_it_is_not_for() {
    let check = |reply: Reply, expected: &str| {
        let error = reply.json()["error"].clone();
        let got = (reply.status, error["param"].as_str(), error["code"].as_str());
        assert_eq!(got, (400, Some("model"), Some("unsupported_model")));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
    };
    let generating = tiny(&[]).await;
    check(
        embed(&generating, json!({})).await,
        "does not make embeddings; it generates text",
    );
    check(
        score(&generating, json!("a"), json!("b")).await,
        "does not score pairs",
    );
    let embedding = with_task(telltale(), EMBED, &[]).await;
    check(
        embedding.complete(json!({})).await,
        "does not generate text; it makes embeddings",
    );
    check(embedding.chat(json!({})).await, "does not generate text");
    let scoring = with_task(length(), SCORE, &[]).await;
    check(embed(&scoring, json!({})).await, "it scores pairs");
    let sorting = with_task(telltale(), Task::Score { n_labels: 3 }, &[]).await;
    check(
        score(&sorting, json!("a"), json!("b")).await,
        "classification model",
    );
}

#[tokio::test]
async fn the_routes_need_a_key_and_a_loaded_model() {
    let server = with_task(telltale(), EMBED, &[("api-key", "secret")]).await;
    assert_eq!(embed(&server, json!({})).await.status, 401);
    assert_eq!(score(&server, json!("a"), json!("b")).await.status, 401);
    let body = json!({"model": "tiny", "input": "Hello"}).to_string();
    let request = Request::post("/v1/embeddings")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, "Bearer secret");
    assert_eq!(server.send(request.body(body.into()).unwrap()).await.status, 200);
    let loading = crate::fixture::loading(&[]);
    assert_eq!(embed(&loading, json!({})).await.status, 503);
}

#[tokio::test]
async fn documents_are_ranked() {
    let server = with_task(length(), SCORE, &[]).await;
    let body = json!({"query": "a", "documents": ["b", "b b b b", {"text": "b b"}], "top_n": 2});
    for path in ["/rerank", "/v1/rerank", "/v2/rerank"] {
        let ranking = server.post(path, body.clone()).await.json();
        let results = ranking["results"].as_array().unwrap();
        assert_eq!(results.len(), 2, "{ranking}");
        assert!(results[0]["relevance_score"].as_f64() >= results[1]["relevance_score"].as_f64());
        let scores = score(&server, json!("a"), json!(["b", "b b b b", "b b"]))
            .await
            .json();
        for result in results {
            let index = result["index"].as_u64().unwrap() as usize;
            assert_eq!(result["relevance_score"], scores["data"][index]["score"]);
            assert_eq!(result["document"]["text"], ["b", "b b b b", "b b"][index]);
        }
    }
    let bare = json!({"query": "a", "documents": ["b"], "return_documents": false});
    let ranking = server.post("/rerank", bare).await.json();
    assert!(ranking["results"][0].get("document").is_none());
    let texts = json!({"query": "a", "texts": ["b", "b b b b", "b b"], "top_n": 2});
    let named = server.post("/rerank", body).await.json();
    let of = |result: &Value, score: &str| json!({"index": result["index"], "score": result[score]});
    let expected: Vec<Value> = named["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| of(result, "relevance_score"))
        .collect();
    assert_eq!(server.post("/rerank", texts).await.json(), json!(expected));
    for documents in [json!([]), json!(null), json!(123), json!([1, 2])] {
        let reply = server
            .post("/rerank", json!({"query": "a", "documents": documents}))
            .await;
        assert_eq!(reply.status, 400, "{documents}");
    }
}
