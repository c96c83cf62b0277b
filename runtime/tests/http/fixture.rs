//! A server in this process: the real routes, tokenizer and engine over the shipped model or a fake one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, header};
use runtime::batch::{Batch, BatchRow, Forward, FunctionModel, Logits, StepError, StepOutput};
use runtime::config::{self, Environment, ServeArguments};
use runtime::engine::{Engine, EngineConfig};
use runtime::http::app::App;
use runtime::http::routes;
use runtime::model::Task;
use runtime::serving::load;
use runtime::startup::Stage;
use runtime::tokenizer::{Begin, Tokenizer};
use serde_json::{Value, json};
use tower::ServiceExt;

/// A limit that only a test that hangs reaches.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn tiny_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-trained")
}

/// A server without a socket.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) app: Arc<App>,
    pub(crate) router: Router,
}

/// What came back.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The data of a stream's events, with what differs from run to run made the same.
    pub(crate) fn events(&self) -> Vec<String> {
        assert_eq!(
            self.headers[header::CONTENT_TYPE],
            "text/event-stream; charset=utf-8"
        );
        self.text
            .split("\n\n")
            .filter_map(|event| event.strip_prefix("data: "))
            .map(steady)
            .collect()
    }
}

/// A body with its id and time replaced.
pub(crate) fn steady(body: &str) -> String {
    let Ok(mut json) = serde_json::from_str::<Value>(body) else {
        return body.to_string();
    };
    for (field, value) in [("id", json!("ID")), ("created", json!(0))] {
        if json.get(field).is_some() {
            json[field] = value;
        }
    }
    json.to_string()
}

/// A server whose model is still being loaded.
pub(crate) fn loading(flags: &[(&str, &str)]) -> Server {
    let folder = tiny_folder().display().to_string();
    let base = [
        ("model", folder.as_str()),
        ("served-model-name", "tiny,alias"),
        ("num-gpu-blocks-override", "1024"),
    ];
    let is_given = |name: &str| flags.iter().any(|(given, _)| *given == name);
    let given = base.iter().filter(|(name, _)| !is_given(name)).chain(flags);
    let arguments = ServeArguments {
        flags: given
            .map(|(name, text)| (name.to_string(), text.to_string()))
            .collect(),
        ..ServeArguments::default()
    };
    let app = Arc::new(App::new(
        config::resolve(&arguments, &Environment::default()).unwrap(),
    ));
    let router = routes::router(Arc::clone(&app));
    Server { app, router }
}

/// A server of the shipped model, unless the flags name another.
pub(crate) async fn tiny(flags: &[(&str, &str)]) -> Server {
    let server = loading(flags);
    let serving = load(Arc::clone(&server.app.config), server.app.startup.clone())
        .await
        .unwrap();
    server.app.serving.set(Arc::new(serving)).unwrap();
    server.app.startup.enter(Stage::Ready);
    server
}

/// The same with another model behind it: four sequences at a time, two more may wait.
pub(crate) async fn with_model(model: impl Forward + Send + 'static, flags: &[(&str, &str)]) -> Server {
    with_task(model, Task::Generate, flags).await
}

/// The same for another task than generating.
pub(crate) async fn with_task(
    model: impl Forward + Send + 'static,
    task: Task,
    flags: &[(&str, &str)],
) -> Server {
    let server = loading(flags);
    let mut serving = load(Arc::clone(&server.app.config), server.app.startup.clone())
        .await
        .unwrap();
    let config = EngineConfig {
        n_blocks: 64,
        max_num_seqs: 4,
        max_num_batched_tokens: 64,
        max_model_len: 256,
        max_waiting: 2,
        eos_token_ids: [2].into(),
        ..EngineConfig::default()
    };
    serving.engine = Arc::new(Engine::start(Box::new(model), config).unwrap());
    serving.info.task = task;
    server.app.serving.set(Arc::new(serving)).unwrap();
    server.app.startup.enter(Stage::Ready);
    server
}

impl Server {
    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        let response = tokio::time::timeout(PATIENCE, self.router.clone().oneshot(request)).await;
        let response = response.expect("the server answers").unwrap();
        let (parts, body) = response.into_parts();
        let bytes = tokio::time::timeout(PATIENCE, to_bytes(body, usize::MAX)).await;
        Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            text: String::from_utf8(bytes.expect("the answer ends").unwrap().to_vec()).unwrap(),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Reply {
        self.send(post(path, body.to_string())).await
    }

    pub(crate) async fn complete(&self, extra: Value) -> Reply {
        self.post(
            "/v1/completions",
            with(
                json!({"model": "tiny", "prompt": "Hello", "temperature": 0}),
                extra,
            ),
        )
        .await
    }

    pub(crate) async fn chat(&self, extra: Value) -> Reply {
        let messages = json!([{"role": "user", "content": "What is 7 plus 5?"}]);
        self.post(
            "/v1/chat/completions",
            with(
                json!({"model": "tiny", "messages": messages, "temperature": 0}),
                extra,
            ),
        )
        .await
    }
}

pub(crate) fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

/// An object with further fields.
pub(crate) fn with(mut body: Value, extra: Value) -> Value {
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(PATIENCE, waiting).await.is_ok(),
        "never: {what}"
    );
}

/// What happens.
pub(crate) enum Then {
    /// The step with this number fails.
    Fail { step: usize },
    /// The step with this number panics.
    Panic { step: usize },
    /// Logits of this step are NaN.
    NotANumber { step: usize },
    /// No step is made before the gate's other end is dropped.
    Gate(std::sync::mpsc::Receiver<()>),
}

const VOCAB_SIZE: usize = 4096;
/// The token of `a` in the shipped tokenizer.
pub(crate) const TOKEN_A: usize = 67;

/// A model whose every token is the one for `a`, until something happens.
pub(crate) fn fake(then: Then) -> impl Forward + Send + 'static {
    let mut steps = 0..;
    FunctionModel::new(VOCAB_SIZE, move |batch: &Batch| {
        let step_now = steps.next().unwrap();
        let mut best = 1.0;
        match &then {
            Then::Fail { step } if *step == step_now => {
                return Err(StepError::Batch {
                    reason: "on purpose".into(),
                });
            }
            Then::Panic { step } if *step == step_now => panic!("on purpose"),
            Then::NotANumber { step } if *step == step_now => best = f32::NAN,
            Then::Gate(gate) => {
                let _closed = gate.recv();
            }
            Then::Fail { .. } | Then::Panic { .. } | Then::NotANumber { .. } => {}
        }
        Ok(logits_of(batch, |_| (TOKEN_A, best)))
    })
}

/// Logits that are 0 but for one token in each row, which `of_position` names with its logit.
fn logits_of(batch: &Batch, of_position: impl Fn(usize) -> (usize, f32)) -> StepOutput {
    let mut values = vec![0.0; batch.logits_at.len() * VOCAB_SIZE];
    for (row, at) in values.chunks_mut(VOCAB_SIZE).zip(&batch.logits_at) {
        let (token, logit) = of_position(*at as usize);
        row[token] = logit;
    }
    StepOutput {
        logits: Logits {
            values,
            vocab_size: VOCAB_SIZE,
        },
        ..StepOutput::default()
    }
}

/// A model that answers everything with one text, and ends.
pub(crate) fn script(text: &str) -> impl Forward + Send + 'static {
    let tokenizer = Tokenizer::load(&tiny_folder()).unwrap();
    let mut tokens = tokenizer.encode(text, Begin::Leave).unwrap();
    tokens.push(EOS);
    FunctionModel::new(VOCAB_SIZE, move |batch: &Batch| {
        Ok(logits_of(batch, |at| {
            let is_inside =
                |row: &&BatchRow| (row.query_start..row.query_start + row.query_len).contains(&at);
            let prompt_len = batch.rows.iter().find(is_inside).unwrap().prompt_len;
            let n_before = (batch.positions[at] as usize + 1).saturating_sub(prompt_len);
            (*tokens.get(n_before).unwrap_or(&EOS) as usize, 9.0)
        }))
    })
}

/// Ends an answer in [`with_model`]'s engines.
const EOS: u32 = 2;
