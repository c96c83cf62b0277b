//! RunPod's job routes: `/run`, `/runsync`, `/status`, `/stream`, `/cancel`, `/retry`, `/purge-queue`.
//!
//! A job is a request to the OpenAI routes of this process, made by a task of its own. Jobs live in this process only:
//! another replica does not know them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Method, Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::api::error::{ApiError, shortened};
use crate::api::jobs::batches::BatchRule;
use crate::api::jobs::input::OutputKind;
use crate::api::jobs::input::{self, Call};
use crate::api::jobs::output::{self, Collector, EventFormat, EventReader};
use crate::api::jobs::store::{Claim, End, NewJob, Owner, RetryError, Status, View};
use crate::api::jobs::{KEPT_FOR_ASYNC, KEPT_FOR_SYNC, Work};
use crate::api::openapi::{Access, Operation, RouteDoc};
use crate::http::app::App;
use crate::http::background::of_job;
use crate::http::body::{JsonBytes, weight};
use crate::http::extract::{InPath, InQuery};
use crate::http::ignored::name_ignored;
use crate::http::route::{Dialect, Route};

/// A job in the background.
pub(super) const RUN: Route = Route {
    doc: RouteDoc {
        path: "/run",
        methods: &["post"],
        summary: "Begin a job",
        access: Access::Key,
        operation: Some(Operation::Job),
    },
    handler: || post(run),
    dialect: Dialect::Openai,
};

/// A job that is waited for.
pub(super) const RUN_AND_WAIT: Route = Route {
    doc: RouteDoc {
        path: "/runsync",
        methods: &["post"],
        summary: "Begin a job and wait for it",
        access: Access::Key,
        operation: Some(Operation::Job),
    },
    handler: || post(run_and_wait),
    dialect: Dialect::Openai,
};

/// The state of a job.
pub(super) const STATUS: Route = Route {
    doc: RouteDoc {
        path: "/status/{id}",
        methods: &["get", "post"],
        summary: "The state of a job, and its output once it ended",
        access: Access::Key,
        operation: Some(Operation::Job),
    },
    handler: || get(status).post(status),
    dialect: Dialect::Openai,
};

/// The output of a job.
pub(super) const STREAM: Route = Route {
    doc: RouteDoc {
        path: "/stream/{id}",
        methods: &["get", "post"],
        summary: "The output of a job since the last call",
        access: Access::Key,
        operation: Some(Operation::Job),
    },
    handler: || get(stream).post(stream),
    dialect: Dialect::Openai,
};

/// The end of a job.
pub(super) const CANCEL: Route = Route {
    doc: RouteDoc {
        path: "/cancel/{id}",
        methods: &["post"],
        summary: "End a job",
        access: Access::Key,
        operation: Some(Operation::Job),
    },
    handler: || post(cancel),
    dialect: Dialect::Openai,
};

/// Another attempt of a job.
pub(super) const RETRY: Route = Route {
    doc: RouteDoc {
        path: "/retry/{id}",
        methods: &["post"],
        summary: "Begin a failed job again",
        access: Access::Key,
        operation: Some(Operation::Job),
    },
    handler: || post(retry),
    dialect: Dialect::Openai,
};

/// The end of all waiting jobs.
pub(super) const PURGE: Route = Route {
    doc: RouteDoc {
        path: "/purge-queue",
        methods: &["post"],
        summary: "Remove the jobs that have not begun",
        access: Access::Key,
        operation: Some(Operation::Job),
    },
    handler: || post(purge),
    dialect: Dialect::Openai,
};

/// Longest wait of `/runsync` unless the client names another, and the bounds of that.
const WAIT: Duration = Duration::from_secs(90);
const WAIT_MS: std::ops::RangeInclusive<u64> = 1_000..=300_000;

/// Longest run of a job without a policy.
const EXECUTION_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest time in the queue without a policy.
const TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest either may be.
const POLICY_MS_MAX: u64 = 7 * 24 * 60 * 60 * 1000;

/// Longest answer that a job takes at once, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Longest error that is kept, characters.
const ERROR_CHARS_MAX: usize = 1000;

/// The routes that jobs ask, without a check of keys: the jobs' own routes have one.
#[derive(Clone, Debug)]
pub(super) struct InsideRouter(pub(super) Router);

/// What the job routes need.
#[derive(Clone, Debug)]
struct JobsState {
    app: Arc<App>,
    openai: Router,
    /// Whose jobs the client may see.
    owner: Owner,
}

impl FromRequestParts<Arc<App>> for JobsState {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let InsideRouter(openai) = parts.extensions.get().cloned().ok_or(ApiError::Internal)?;
        Ok(Self {
            app: Arc::clone(app),
            openai,
            owner: parts.extensions.get().copied().ok_or(ApiError::Internal)?,
        })
    }
}

async fn run(state: JobsState, body: JsonBytes) -> Result<Response, ApiError> {
    let (claim, ignored) = submit(&state, body, "", KEPT_FOR_ASYNC).await?;
    let id = claim.id.clone();
    state.app.jobs.tasks.spawn(of_job(work(state.clone(), claim)));
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
    state: JobsState,
    InQuery(query): InQuery<WaitQuery>,
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
    let (claim, ignored) = submit(&state, body, "sync-", KEPT_FOR_SYNC).await?;
    let id = claim.id.clone();
    let task = state.app.jobs.tasks.spawn(of_job(work(state.clone(), claim)));
    // The view shows whether the job ended in time.
    let _in_time = tokio::time::timeout(wait, task).await;
    let view = state.app.jobs.store().view(state.owner, &id, Instant::now());
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
    state: JobsState,
    InPath(id): InPath<String>,
    InQuery(query): InQuery<TtlQuery>,
) -> Result<Response, ApiError> {
    let mut store = state.app.jobs.store();
    if let Some(ttl) = query.ttl {
        store.keep(state.owner, &id, Duration::from_millis(ttl.min(POLICY_MS_MAX)));
    }
    let view = store.view(state.owner, &id, Instant::now());
    view.map(|view| answer(&view)).ok_or_else(|| unknown(&id))
}

async fn stream(state: JobsState, InPath(id): InPath<String>) -> Result<Response, ApiError> {
    let view = state.app.jobs.store().stream(state.owner, &id, Instant::now());
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

async fn cancel(state: JobsState, InPath(id): InPath<String>) -> Result<Json<Value>, ApiError> {
    let status = state.app.jobs.store().cancel(state.owner, &id, Instant::now());
    let status = status.ok_or_else(|| unknown(&id))?;
    Ok(Json(json!({"id": id, "status": status.label()})))
}

async fn retry(state: JobsState, InPath(id): InPath<String>) -> Result<Json<Value>, ApiError> {
    accepts(&state.app)?;
    let claim = state.app.jobs.store().retry(state.owner, &id, Instant::now());
    let claim = claim.map_err(|error| match error {
        RetryError::Unknown => unknown(&id),
        RetryError::NotFailed(status) => ApiError::Contradiction {
            param: "id".into(),
            reason: format!(
                "the job is {}; only FAILED and TIMED_OUT ones are tried again",
                status.label()
            ),
        },
        RetryError::Refused => ApiError::Contradiction {
            param: "id".into(),
            reason: "the job failed because of its input, which is not kept; send a corrected job".into(),
        },
    })?;
    state.app.jobs.tasks.spawn(of_job(work(state.clone(), claim)));
    Ok(Json(json!({"id": id, "status": Status::InQueue.label()})))
}

async fn purge(state: JobsState) -> Json<Value> {
    let removed = state.app.jobs.store().purge(state.owner, Instant::now());
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
async fn submit(
    state: &JobsState,
    body: JsonBytes,
    id_prefix: &str,
    kept_for: Duration,
) -> Result<(Claim<Work>, Vec<String>), ApiError> {
    accepts(&state.app)?;
    let (work, ignored) = elsewhere(move || read(&body.0)).await??;
    let job = NewJob {
        id: format!("{id_prefix}{}-u1", uuid::Uuid::new_v4()),
        owner: state.owner,
        n_work_bytes: work.input.get().len(),
        work,
        kept_for,
    };
    let submitted = state.app.jobs.store().submit(job, Instant::now());
    Ok((submitted.map_err(|_| ApiError::JobsFull)?, ignored))
}

/// Does work that may take long off the threads that serve others.
async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| ApiError::Internal)
}

/// The fields of an object, each as it came.
type RawFields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

fn read(body: &[u8]) -> Result<(Work, Vec<String>), ApiError> {
    let broken = |error: serde_json::Error| ApiError::BrokenJson {
        reason: error.to_string(),
    };
    let body: &RawValue = serde_json::from_slice(body).map_err(broken)?;
    let mut fields: RawFields<'_> = match body.get().as_bytes() {
        [b'{', ..] => serde_json::from_str(body.get()).map_err(broken)?,
        _ => return Err(ApiError::NotAnObject),
    };
    let mut take = |name: &str| fields.remove(name).filter(|value| value.get() != "null");
    let input = take("input").ok_or_else(|| ApiError::missing("input"))?;
    if !input.get().starts_with('{') {
        let got = serde_json::from_str(input.get()).map_err(broken)?;
        return Err(ApiError::invalid("input", "an object", &got));
    }
    let names: RawFields<'_> = serde_json::from_str(input.get()).map_err(broken)?;
    // This server calls nobody, and its outputs lie nowhere but here.
    for name in ["webhook", "s3Config"] {
        if take(name).is_some() {
            return Err(ApiError::Contradiction {
                param: name.into(),
                reason: "this server calls no other one; ask /status or /stream for the results".into(),
            });
        }
    }
    let policy = take("policy").map(|policy| serde_json::from_str(policy.get()));
    let policy: Value = policy.transpose().map_err(broken)?.unwrap_or_default();
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
        input: input.to_owned(),
    };
    let mut ignored: Vec<String> = fields.keys().map(ToString::to_string).collect();
    ignored.extend(input::unknown_fields(names.keys().map(AsRef::as_ref)));
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

/// Runs a job: waits for its turn, sends the request, and stores the output.
async fn work(state: JobsState, claim: Claim<Work>) {
    let jobs = &state.app.jobs;
    tokio::select! {
        () = claim.turn() => {}
        () = claim.cancelled.cancelled() => return,
        () = tokio::time::sleep(claim.work.ttl) => {
            let error = "the job waited longer than its ttl";
            if jobs.store().give_up_waiting(&claim, error, Instant::now()) {
                return;
            }
        }
    }
    let end = tokio::select! {
        end = tokio::time::timeout(claim.work.execution_timeout, perform(&state, &claim)) => end,
        // Dropping the answer cancels what the engine does for it.
        () = claim.cancelled.cancelled() => return,
    };
    let end = match end {
        Ok(Ok(())) => End::Completed,
        Ok(Err(failed)) => failed.end(),
        Err(_) => End::TimedOut("the job ran longer than its executionTimeout".into()),
    };
    jobs.store().finish(&claim, end, Instant::now());
}

/// Why a job failed.
enum JobFailure {
    /// Because of its input: another attempt would fail as well.
    Refused(String),
    /// For another reason.
    Failed(String),
}

impl JobFailure {
    fn end(self) -> End {
        let shortened = |error: String| error.chars().take(ERROR_CHARS_MAX).collect();
        match self {
            Self::Refused(error) => End::Refused(shortened(error)),
            Self::Failed(error) => End::Failed(shortened(error)),
        }
    }
}

impl From<String> for JobFailure {
    fn from(error: String) -> Self {
        Self::Failed(error)
    }
}

/// The request that a job makes, as text.
struct CallText {
    path: String,
    body: Option<Bytes>,
    output: OutputKind,
}

/// Reads the input of a job. Its values are counted while there are any.
async fn call(state: &JobsState, claim: &Claim<Work>) -> Result<CallText, JobFailure> {
    let (app, work) = (Arc::clone(&state.app), Arc::clone(&claim.work));
    let n_bytes = elsewhere(move || weight(work.input.get().as_bytes())).await;
    let share = app.body_memory.for_values(n_bytes.map_err(refused)?).await;
    let work = Arc::clone(&claim.work);
    let read = move || {
        let _share = share;
        let input = serde_json::from_str(work.input.get()).map_err(|error| ApiError::BrokenJson {
            reason: error.to_string(),
        })?;
        let config = &app.config;
        let rule = BatchRule::of(&config.streaming);
        let Call { path, body, output } = input::read(&input, &config.served_names.first, rule)?;
        let body = body.map(|body| Bytes::from(body.to_string()));
        Ok(CallText { path, body, output })
    };
    elsewhere(read).await.map_err(refused)?.map_err(refused)
}

fn refused(error: ApiError) -> JobFailure {
    JobFailure::Refused(error.to_string())
}

async fn perform(state: &JobsState, claim: &Claim<Work>) -> Result<(), JobFailure> {
    let config = &state.app.config;
    let call = call(state, claim).await?;
    let response = asked(state, &call).await?;
    let status = response.status();
    let push = |item| {
        let pushed = state.app.jobs.store().push(claim, item);
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
            true => Ok(push(output::whole(call.output, &body)?)?),
            false => Err(failure(status, &body)),
        };
    };
    let (mut body, mut reader) = (response.into_body().into_data_stream(), EventReader::default());
    while let Some(bytes) = body.next().await {
        for event in reader.push(&bytes.map_err(|error| error.to_string())?) {
            collector.event(&event)?.into_iter().try_for_each(push)?;
        }
    }
    Ok(collector.end()?.map_or(Ok(()), push)?)
}

/// Asks the OpenAI route; as often as it is full, because a job has time.
async fn asked(state: &JobsState, call: &CallText) -> Result<Response, String> {
    loop {
        let (method, body) = match &call.body {
            Some(body) => (Method::POST, Body::from(body.clone())),
            None => (Method::GET, Body::empty()),
        };
        let request = Request::builder()
            .method(method)
            .uri(&call.path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| error.to_string())?;
        let Ok(response) = state.openai.clone().oneshot(request).await;
        if response.status() != StatusCode::TOO_MANY_REQUESTS {
            return Ok(response);
        }
        let seconds = response.headers().get(header::RETRY_AFTER);
        let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
        tokio::time::sleep(Duration::from_secs(seconds.unwrap_or(1))).await;
    }
}

fn failure(status: StatusCode, body: &str) -> JobFailure {
    let message = serde_json::from_str(body)
        .ok()
        .and_then(|body| output::error_of(&body));
    let message = message.unwrap_or_else(|| format!("the route answered {status}"));
    match status.is_client_error() {
        true => JobFailure::Refused(message),
        false => JobFailure::Failed(message),
    }
}
