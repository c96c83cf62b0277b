//! RunPod's job routes: `/run`, `/runsync`, `/status`, `/stream`, `/cancel`, `/retry`, `/purge-queue`.
//!
//! A job is a request to the OpenAI routes of this process, made by a task of its own. Jobs live in this process only:
//! another replica does not know them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, to_bytes};
use axum::extract::{Path, Query, State};
use axum::http::{Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use crate::api::error::{ApiError, shortened};
use crate::api::jobs::batches::BatchRule;
use crate::api::jobs::input::{self, Call};
use crate::api::jobs::output::{self, Collector, EventFormat, EventReader};
use crate::api::jobs::store::{Claim, End, RetryError, Status, View};
use crate::api::jobs::{KEPT_FOR_ASYNC, KEPT_FOR_SYNC, Work};
use crate::http::app::App;
use crate::http::body::JsonBytes;
use crate::http::ignored::name_ignored;

/// Longest wait of `/runsync` unless the client names another, and the bounds of that.
const WAIT: Duration = Duration::from_secs(90);
const WAIT_MS: std::ops::RangeInclusive<u64> = 1_000..=300_000;

/// Longest run of a job unless its policy says otherwise.
const EXECUTION_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest time in the queue unless its policy says otherwise.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest either may be.
const POLICY_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1000;

/// Longest answer that a job takes at once, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Longest error that is kept, characters.
const ERROR_CHARS_MAX: usize = 1000;

/// What the job routes need: the process, and its OpenAI routes without a door.
#[derive(Clone, Debug)]
struct Desk {
    app: Arc<App>,
    openai: Router,
}

/// The routes. `openai` are those that jobs ask, without a check of keys: the jobs' own routes have one.
pub(super) fn routes(app: Arc<App>, openai: Router) -> Router<Arc<App>> {
    Router::new()
        .route("/run", post(run))
        .route("/runsync", post(run_and_wait))
        .route("/status/{id}", get(status).post(status))
        .route("/stream/{id}", get(stream).post(stream))
        .route("/cancel/{id}", post(cancel))
        .route("/retry/{id}", post(retry))
        .route("/purge-queue", post(purge))
        .with_state(Desk { app, openai })
}

async fn run(State(desk): State<Desk>, body: JsonBytes) -> Result<Response, ApiError> {
    let (claim, ignored) = submit(&desk, &body, "", KEPT_FOR_ASYNC)?;
    let id = claim.id.clone();
    desk.app.jobs.tasks.spawn(work(desk.clone(), claim));
    let mut response = Json(json!({"id": id, "status": Status::InQueue.label()})).into_response();
    name_ignored(&mut response, &ignored);
    Ok(response)
}

#[derive(Debug, Deserialize)]
struct WaitQuery {
    /// Milliseconds.
    wait: Option<u64>,
}

async fn run_and_wait(
    State(desk): State<Desk>,
    Query(query): Query<WaitQuery>,
    body: JsonBytes,
) -> Result<Response, ApiError> {
    let wait = match query.wait {
        None => WAIT,
        Some(ms) if WAIT_MS.contains(&ms) => Duration::from_millis(ms),
        Some(ms) => {
            return Err(ApiError::invalid(
                "wait",
                "1000 to 300000 milliseconds",
                &json!(ms),
            ));
        }
    };
    let (claim, ignored) = submit(&desk, &body, "sync-", KEPT_FOR_SYNC)?;
    let id = claim.id.clone();
    let task = desk.app.jobs.tasks.spawn(work(desk.clone(), claim));
    // Whether it is done or not: the view tells.
    let _in_time = tokio::time::timeout(wait, task).await;
    let view = desk.app.jobs.store().view(&id, Instant::now());
    let mut response = answer(&view.ok_or_else(|| unknown(&id))?);
    name_ignored(&mut response, &ignored);
    Ok(response)
}

#[derive(Debug, Deserialize)]
struct TtlQuery {
    /// Milliseconds.
    ttl: Option<u64>,
}

async fn status(
    State(desk): State<Desk>,
    Path(id): Path<String>,
    Query(query): Query<TtlQuery>,
) -> Result<Response, ApiError> {
    let mut store = desk.app.jobs.store();
    if let Some(ttl) = query.ttl {
        store.keep(&id, Duration::from_millis(ttl.min(POLICY_MS_MAX)));
    }
    let view = store.view(&id, Instant::now());
    view.map(|view| answer(&view)).ok_or_else(|| unknown(&id))
}

async fn stream(State(desk): State<Desk>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let view = desk.app.jobs.store().stream(&id, Instant::now());
    let view = view.ok_or_else(|| unknown(&id))?;
    let items: Vec<String> = view
        .items
        .iter()
        .map(|item| format!(r#"{{"output":{item}}}"#))
        .collect();
    let mut fields = vec![
        ("status", quoted(view.status.label())),
        ("stream", format!("[{}]", items.join(","))),
    ];
    fields.extend(view.error.as_deref().map(|error| ("error", quoted(error))));
    Ok(object(&fields))
}

async fn cancel(State(desk): State<Desk>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let status = desk.app.jobs.store().cancel(&id, Instant::now());
    let status = status.ok_or_else(|| unknown(&id))?;
    Ok(Json(json!({"id": id, "status": status.label()})))
}

async fn retry(State(desk): State<Desk>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    accepts(&desk.app)?;
    let claim = desk.app.jobs.store().retry(&id, Instant::now());
    let claim = claim.map_err(|error| match error {
        RetryError::Unknown => unknown(&id),
        RetryError::NotFailed(status) => ApiError::Contradiction {
            param: "id".into(),
            reason: format!(
                "the job is {}; only FAILED and TIMED_OUT ones are tried again",
                status.label()
            ),
        },
    })?;
    desk.app.jobs.tasks.spawn(work(desk.clone(), claim));
    Ok(Json(json!({"id": id, "status": Status::InQueue.label()})))
}

async fn purge(State(desk): State<Desk>) -> Json<Value> {
    let removed = desk.app.jobs.store().purge(Instant::now());
    Json(json!({"removed": removed, "status": "completed"}))
}

fn unknown(id: &str) -> ApiError {
    ApiError::UnknownJob { id: shortened(id) }
}

/// A job is taken by a replica that could do it now.
fn accepts(app: &App) -> Result<(), ApiError> {
    if app.is_draining() {
        return Err(ApiError::Draining);
    }
    app.ready().map(drop)
}

/// Takes a job into the store; also the names in its body that mean nothing here.
fn submit(
    desk: &Desk,
    body: &JsonBytes,
    id_prefix: &str,
    kept_for: Duration,
) -> Result<(Claim<Work>, Vec<String>), ApiError> {
    accepts(&desk.app)?;
    let (work, ignored) = read(&body.0)?;
    let id = format!("{id_prefix}{}-u1", uuid::Uuid::new_v4());
    let claim = desk
        .app
        .jobs
        .store()
        .submit(id, (work, body.0.len()), kept_for, Instant::now())
        .map_err(|_| ApiError::JobsFull)?;
    Ok((claim, ignored))
}

fn read(body: &[u8]) -> Result<(Work, Vec<String>), ApiError> {
    let mut fields: Map<String, Value> =
        match serde_json::from_slice(body).map_err(|error| ApiError::BrokenJson {
            reason: error.to_string(),
        })? {
            Value::Object(fields) => fields,
            _ => return Err(ApiError::NotAnObject),
        };
    let input = match fields.shift_remove("input") {
        Some(Value::Object(input)) => input,
        None | Some(Value::Null) => {
            return Err(ApiError::Missing {
                param: "input".into(),
            });
        }
        Some(other) => return Err(ApiError::invalid("input", "an object", &other)),
    };
    // This server calls nobody, and its outputs lie nowhere but here.
    for name in ["webhook", "s3Config"] {
        if fields.shift_remove(name).is_some_and(|value| !value.is_null()) {
            return Err(ApiError::Contradiction {
                param: name.into(),
                reason: "this server calls no other one; ask /status or /stream for the results".into(),
            });
        }
    }
    let policy = fields.shift_remove("policy").unwrap_or_default();
    let time = |name: &str, least: u64, default: Duration| match &policy[name] {
        Value::Null => Ok(default),
        value => match value.as_u64().filter(|ms| (least..=POLICY_MS_MAX).contains(ms)) {
            Some(ms) => Ok(Duration::from_millis(ms)),
            None => {
                let expected = format!("{least} to {POLICY_MS_MAX} milliseconds");
                Err(ApiError::invalid(format!("policy.{name}"), expected, value))
            }
        },
    };
    let work = Work {
        execution_timeout: time("executionTimeout", 5_000, EXECUTION_TIMEOUT)?,
        ttl: time("ttl", 10_000, TTL)?,
        input,
    };
    let mut ignored: Vec<String> = fields.keys().cloned().collect();
    ignored.extend(input::unknown_fields(&work.input));
    Ok((work, ignored))
}

/// RunPod's body of a job.
fn answer(view: &View) -> Response {
    let mut fields = Vec::new();
    let ms = |time: Duration| time.as_millis().to_string();
    fields.extend(view.delay.map(|time| ("delayTime", ms(time))));
    fields.extend(view.error.as_deref().map(|error| ("error", quoted(error))));
    fields.extend(view.execution.map(|time| ("executionTime", ms(time))));
    fields.push(("id", quoted(&view.id)));
    if view.status == Status::Completed {
        fields.push(("output", format!("[{}]", view.items.join(","))));
    }
    fields.push(("status", quoted(view.status.label())));
    object(&fields)
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// An object of values that are JSON already.
fn object(fields: &[(&str, String)]) -> Response {
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}:{value}", quoted(name)))
        .collect();
    let body = format!("{{{}}}", fields.join(","));
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Does a job: waits for a place, asks, and writes down what comes.
async fn work(desk: Desk, claim: Claim<Work>) {
    let jobs = &desk.app.jobs;
    let places = Arc::clone(&jobs.places);
    let waiting = tokio::time::timeout(claim.work.ttl, places.acquire_owned());
    let place = tokio::select! {
        place = waiting => place,
        () = claim.cancelled.cancelled() => return,
    };
    let Ok(Ok(_place)) = place else {
        let end = End::TimedOut("the job waited longer than its ttl".into());
        return jobs.store().finish(&claim, end, Instant::now());
    };
    if !jobs.store().start(&claim, Instant::now()) {
        return;
    }
    let end = tokio::select! {
        end = tokio::time::timeout(claim.work.execution_timeout, perform(&desk, &claim)) => end,
        // Dropping the answer cancels what the engine does for it.
        () = claim.cancelled.cancelled() => return,
    };
    let end = match end {
        Ok(Ok(())) => End::Completed,
        Ok(Err(error)) => End::Failed(error.chars().take(ERROR_CHARS_MAX).collect()),
        Err(_) => End::TimedOut("the job ran longer than its executionTimeout".into()),
    };
    jobs.store().finish(&claim, end, Instant::now());
}

async fn perform(desk: &Desk, claim: &Claim<Work>) -> Result<(), String> {
    let config = &desk.app.config;
    let call = input::read(
        &claim.work.input,
        &config.served_names.first,
        BatchRule::of(&config.streaming),
    )
    .map_err(|error| error.to_string())?;
    let response = asked(desk, &call).await?;
    let status = response.status();
    let push = |item| {
        let pushed = desk.app.jobs.store().push(claim, item);
        pushed.map_err(|_| "the output is larger than this replica can hold".to_string())
    };
    let format = if config.openai.raw_openai_output() {
        EventFormat::Raw
    } else {
        EventFormat::Objects
    };
    let is_whole = !status.is_success();
    let Some(mut collector) = (!is_whole).then(|| Collector::new(call.output, format)).flatten() else {
        let bytes = to_bytes(response.into_body(), ANSWER_BYTES_MAX).await;
        let body = String::from_utf8_lossy(&bytes.map_err(|error| error.to_string())?).into_owned();
        return match status.is_success() {
            true => push(output::whole(call.output, &body)?),
            false => Err(failure(status, &body)),
        };
    };
    let (mut body, mut reader) = (response.into_body().into_data_stream(), EventReader::default());
    while let Some(bytes) = body.next().await {
        for event in reader.push(&bytes.map_err(|error| error.to_string())?) {
            collector.event(&event)?.into_iter().try_for_each(push)?;
        }
    }
    collector.end()?.map_or(Ok(()), push)
}

/// Asks the OpenAI route; as often as it is full, because a job has time.
async fn asked(desk: &Desk, call: &Call) -> Result<Response, String> {
    loop {
        let (method, body) = match &call.body {
            Some(body) => (Method::POST, Body::from(body.to_string())),
            None => (Method::GET, Body::empty()),
        };
        let request = Request::builder()
            .method(method)
            .uri(&call.path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| error.to_string())?;
        let Ok(response) = desk.openai.clone().oneshot(request).await;
        if response.status() != StatusCode::TOO_MANY_REQUESTS {
            return Ok(response);
        }
        let seconds = response.headers().get(header::RETRY_AFTER);
        let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
        tokio::time::sleep(Duration::from_secs(seconds.unwrap_or(1))).await;
    }
}

fn failure(status: StatusCode, body: &str) -> String {
    let message = serde_json::from_str(body)
        .ok()
        .and_then(|body| output::error_of(&body));
    message.unwrap_or_else(|| format!("the route answered {status}"))
}
