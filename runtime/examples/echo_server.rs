//! The real server without a model, for measuring the server: `echo_server PORT STEP_MS [scheduler]`.
//!
//! The engine has the first token of an answer at once and another at each step, or all at once with steps of 0 ms, so
//! that all there is to measure is what stands around it. With `scheduler`, answers come from the real engine, whose
//! model computes nothing and takes so long for a step; the vocabulary is the 256 bytes and three special tokens, so
//! that drawing a token costs next to nothing too.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use runtime::batch::{Batch, Forward, FunctionModel, Logits, StepOutput};
use runtime::config::{self, Environment, ServeArguments};
use runtime::engine::{self, Engine, EngineConfig};
use runtime::http::app::App;
use runtime::http::connection::{self, ConnectionLimits};
use runtime::http::routes;
use runtime::serving::load;
use runtime::startup::Stage;
use runtime::tokenizer::Tokenizer;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The shipped tokenizer begins with three special tokens and the 256 bytes.
const VOCAB_SIZE: usize = 259;
/// What the model always says: the token of `a`.
const TOKEN_A: usize = 67;
const N_STREAMS_MAX: usize = 4096;
const BLOCK_SIZE: usize = 16;
const CONTEXT: usize = 1024;

/// Every token is the same, after as long as a step is to take.
fn model(step: Duration) -> impl Forward + Send + 'static {
    FunctionModel::new(VOCAB_SIZE, move |batch: &Batch| {
        if !step.is_zero() {
            thread::sleep(step);
        }
        let mut values = vec![0.0; batch.logits_at.len() * VOCAB_SIZE];
        for row in values.chunks_mut(VOCAB_SIZE) {
            row[TOKEN_A] = 100.0;
        }
        let logits = Logits {
            values,
            vocab_size: VOCAB_SIZE,
        };
        Ok(StepOutput {
            logits,
            ..StepOutput::default()
        })
    })
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (port, step_ms, is_scheduled) = match arguments.as_slice() {
        [port, step_ms] => (port, step_ms, false),
        [port, step_ms, word] if word == "scheduler" => (port, step_ms, true),
        _ => bail!("usage: echo_server PORT STEP_MS [scheduler]"),
    };
    let app = serving(Duration::from_millis(step_ms.parse()?), is_scheduled).await?;
    let listener = TcpListener::bind(("127.0.0.1", port.parse()?)).await?;
    let router = routes::router(app);
    connection::serve(
        listener,
        router,
        ConnectionLimits::default(),
        CancellationToken::new(),
    )
    .await;
    Ok(())
}

/// The shipped model's server with another engine and fewer tokens.
async fn serving(step: Duration, is_scheduled: bool) -> anyhow::Result<Arc<App>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-trained");
    let flags = [
        ("model", folder.display().to_string()),
        ("served-model-name", "echo".to_owned()),
        ("num-gpu-blocks-override", "256".to_owned()),
    ];
    let arguments = ServeArguments {
        flags: flags.map(|(name, text)| (name.to_owned(), text)).to_vec(),
        ..ServeArguments::default()
    };
    let app = Arc::new(App::new(config::resolve(&arguments, &Environment::default())?));
    let mut serving = load(Arc::clone(&app.config), app.startup.clone()).await?;
    serving.tokenizer = Arc::new(bytes_only(folder)?);
    serving.max_model_len = CONTEXT;
    let model = model(step);
    let echo = engine::Echo {
        token: TOKEN_A as u32,
        step,
    };
    let engine = if is_scheduled {
        Engine::start(Box::new(model), sizes())?
    } else {
        Engine::start_echo(echo, &model, sizes())?
    };
    serving.engine = Arc::new(engine);
    app.serving
        .set(Arc::new(serving))
        .map_err(|_| anyhow::anyhow!("the model is loaded once"))?;
    app.startup.enter(Stage::Ready);
    Ok(app)
}

fn sizes() -> EngineConfig {
    EngineConfig {
        n_blocks: N_STREAMS_MAX * CONTEXT / BLOCK_SIZE / 2,
        block_size: BLOCK_SIZE,
        enable_prefix_caching: false,
        max_num_seqs: N_STREAMS_MAX,
        max_num_batched_tokens: 16 * N_STREAMS_MAX,
        max_model_len: CONTEXT,
        max_waiting: N_STREAMS_MAX,
        eos_token_ids: [2].into(),
        ..EngineConfig::default()
    }
}

/// The shipped tokenizer without its merges.
fn bytes_only(folder: PathBuf) -> anyhow::Result<Tokenizer> {
    let path = folder.join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    json["model"]["merges"] = Value::Array(Vec::new());
    let vocabulary = json["model"]["vocab"]
        .as_object_mut()
        .context("the tokenizer is no BPE")?;
    vocabulary.retain(|_, id| id.as_u64().is_some_and(|id| (id as usize) < VOCAB_SIZE));
    let config = Tokenizer::load(&folder)?.config().clone();
    Ok(Tokenizer::from_bytes(&path, &serde_json::to_vec(&json)?, config)?)
}
