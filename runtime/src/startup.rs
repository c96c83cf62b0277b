//! How far a process has come on its way to serving, and the route `/startupz` that reports it.
//!
//! Owns the current stage, its byte counts and the facts about the model, for `fetch` and `serve` alike. The body is
//! [`StartupStatus`], which the operator reads. Must not know how files are downloaded or weights are loaded.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use crds::failure::Failure;
pub use crds::startup::{ModelFacts, Stage, StartupStatus};

/// The rate is an average over this time: long enough to be steady, short enough to show a stall.
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Samples closer together than this are not kept, so the window holds at most 21 of them.
const SAMPLE_SPACING: Duration = Duration::from_millis(500);

/// The shared record that [`StartupStatus`] is made from, cheap to update. Clones refer to the same record.
#[derive(Clone, Debug)]
pub struct StartupTracker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bytes_done: AtomicU64,
    phase: Mutex<Phase>,
}

#[derive(Debug)]
struct Phase {
    stage: Stage,
    bytes_total: Option<u64>,
    samples: VecDeque<Sample>,
    problem: Option<Failure>,
    model: Option<ModelFacts>,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    bytes_done: u64,
}

impl Default for StartupTracker {
    fn default() -> Self {
        Self::new()
    }
}

impl StartupTracker {
    /// A record at [`Stage::Starting`].
    pub fn new() -> Self {
        let phase = Phase {
            stage: Stage::Starting,
            bytes_total: None,
            samples: VecDeque::new(),
            problem: None,
            model: None,
        };
        Self {
            inner: Arc::new(Inner {
                bytes_done: AtomicU64::new(0),
                phase: Mutex::new(phase),
            }),
        }
    }

    /// Enters a stage that is not measured in bytes.
    pub fn enter(&self, stage: Stage) {
        self.begin_at(stage, 0, None, Instant::now());
    }

    /// Enters a stage of `bytes_total` bytes, of which `bytes_done` are already done.
    pub fn begin(&self, stage: Stage, bytes_done: u64, bytes_total: u64) {
        self.begin_at(stage, bytes_done, Some(bytes_total), Instant::now());
    }

    /// Counts `n_bytes` more as done. This is one atomic addition, cheap enough for every buffer that arrives.
    pub fn add(&self, n_bytes: u64) {
        self.inner.bytes_done.fetch_add(n_bytes, Ordering::Relaxed);
    }

    /// Subtracts `n_bytes` that have to be done again, such as a file with a wrong checksum.
    pub fn retract(&self, n_bytes: u64) {
        let back = |done: u64| Some(done.saturating_sub(n_bytes));
        let _previous = self
            .inner
            .bytes_done
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
    }

    /// Sets what failed and is being retried, or clears it with `None`.
    pub fn set_problem(&self, problem: Option<Failure>) {
        self.phase().problem = problem;
    }

    /// Sets the facts about the model that are known so far.
    pub fn set_model(&self, model: ModelFacts) {
        self.phase().model = Some(model);
    }

    /// The current state.
    pub fn status(&self) -> StartupStatus {
        self.status_at(Instant::now())
    }

    fn begin_at(&self, stage: Stage, bytes_done: u64, bytes_total: Option<u64>, now: Instant) {
        let mut phase = self.phase();
        self.inner.bytes_done.store(bytes_done, Ordering::Relaxed);
        phase.stage = stage;
        phase.bytes_total = bytes_total;
        phase.samples.clear();
        phase.problem = None;
        phase.samples.push_back(Sample { at: now, bytes_done });
    }

    fn status_at(&self, now: Instant) -> StartupStatus {
        let mut phase = self.phase();
        let bytes_done = self.inner.bytes_done.load(Ordering::Relaxed);
        let rate_per_second = phase.rate_at(Sample { at: now, bytes_done });
        let bytes_left = phase.bytes_total.map(|total| total.saturating_sub(bytes_done));
        StartupStatus {
            stage: phase.stage,
            bytes_done,
            bytes_total: phase.bytes_total,
            percent: phase.bytes_total.map(|total| percent(bytes_done, total)),
            rate_per_second,
            eta_seconds: bytes_left.and_then(|left| match left {
                0 => Some(0),
                left => left.checked_div(rate_per_second),
            }),
            problem: phase.problem.clone(),
            model: phase.model.clone(),
            done: phase.stage == Stage::Ready,
        }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.inner.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Phase {
    /// Bytes per second between the oldest sample of the window and `now`, which is kept as a sample.
    fn rate_at(&mut self, now: Sample) -> u64 {
        while self.samples.len() > 1 && now.at.duration_since(self.samples[0].at) > RATE_WINDOW {
            self.samples.pop_front();
        }
        let rate = self.samples.front().map_or(0, |oldest| {
            let elapsed_ms = now.at.duration_since(oldest.at).as_millis() as u64;
            let n_bytes = now.bytes_done.saturating_sub(oldest.bytes_done);
            n_bytes.saturating_mul(1000).checked_div(elapsed_ms).unwrap_or(0)
        });
        let spaced = self
            .samples
            .back()
            .is_none_or(|last| now.at.duration_since(last.at) >= SAMPLE_SPACING);
        if spaced {
            self.samples.push_back(now);
        }
        rate
    }
}

/// A router with `/startupz` alone, for a process that serves nothing else.
pub fn router(tracker: StartupTracker) -> Router {
    let startup = |State(tracker): State<StartupTracker>| async move { response(tracker.status()) };
    Router::new()
        .route(crds::startup::PATH, get(startup))
        .with_state(tracker)
}

/// The response of `GET /startupz`: 200 once ready, 503 before, with the same JSON in both cases.
pub fn response(status: StartupStatus) -> Response {
    let code = match status.done {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, Json(status)).into_response()
}

fn percent(bytes_done: u64, bytes_total: u64) -> u8 {
    let share = u128::from(bytes_done.min(bytes_total)) * 100;
    u8::try_from(share.checked_div(u128::from(bytes_total)).unwrap_or(100)).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use crds::failure::Reason;
    use proptest::prelude::*;
    use tower::ServiceExt;

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_new_process_is_starting_and_measures_nothing() {
        let body = serde_json::to_value(StartupTracker::new().status()).unwrap();
        let expected =
            serde_json::json!({ "stage": "Starting", "bytesDone": 0, "ratePerSecond": 0, "done": false });
        assert_eq!(body, expected);
    }

    #[test]
    fn rate_and_eta_leave_out_what_was_there_at_the_start() {
        let (tracker, start) = (StartupTracker::new(), Instant::now());
        tracker.begin_at(Stage::Downloading, 400, Some(1000), start);
        tracker.add(200);
        let status = tracker.status_at(start + seconds(2));
        assert_eq!((status.bytes_done, status.percent), (600, Some(60)));
        assert_eq!((status.rate_per_second, status.eta_seconds), (100, Some(4)));
    }

    #[test]
    fn a_stall_shows_as_rate_zero_and_no_eta() {
        let (tracker, start) = (StartupTracker::new(), Instant::now());
        tracker.begin_at(Stage::Downloading, 0, Some(1000), start);
        tracker.add(500);
        for second in 1..=12 {
            tracker.status_at(start + seconds(second));
        }
        let status = tracker.status_at(start + seconds(13));
        assert_eq!(
            (status.rate_per_second, status.eta_seconds, status.percent),
            (0, None, Some(50))
        );
    }

    #[test]
    fn a_problem_is_shown_until_it_is_over_and_the_model_stays() {
        let tracker = StartupTracker::new();
        let problem = Failure::new(Reason::DownloadStalled, "silence", "wait");
        tracker.set_model(ModelFacts {
            revision: Some("c0ffee".to_owned()),
            ..ModelFacts::default()
        });
        tracker.set_problem(Some(problem));
        let body = serde_json::to_value(tracker.status()).unwrap();
        assert_eq!(body["problem"]["reason"], "DownloadStalled");
        tracker.enter(Stage::Loading);
        let body = serde_json::to_value(tracker.status()).unwrap();
        assert_eq!(
            (&body["model"]["revision"], body.get("problem")),
            (&"c0ffee".into(), None)
        );
    }

    #[test]
    fn ready_is_done_and_a_retraction_never_underflows() {
        let tracker = StartupTracker::new();
        tracker.begin(Stage::Downloading, 0, 10);
        tracker.add(3);
        tracker.retract(5);
        assert_eq!(tracker.status().bytes_done, 0);
        tracker.enter(Stage::Ready);
        assert!(tracker.status().done);
    }

    #[tokio::test]
    async fn startupz_answers_503_until_ready() {
        let tracker = StartupTracker::new();
        tracker.begin(Stage::Loading, 5, 10);
        let get = || Request::get("/startupz").body(Body::empty()).unwrap();
        let response = router(tracker.clone()).oneshot(get()).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        let status: StartupStatus = serde_json::from_slice(&body).unwrap();
        assert_eq!((status.stage, status.percent), (Stage::Loading, Some(50)));
        tracker.enter(Stage::Ready);
        assert_eq!(
            router(tracker).oneshot(get()).await.unwrap().status(),
            StatusCode::OK
        );
    }

    proptest! {
        #[test]
        fn percent_is_100_only_when_all_is_done(total in 1u64.., done in 0u64..) {
            let percent = percent(done, total);
            prop_assert!(percent <= 100);
            prop_assert_eq!(percent == 100, done >= total);
        }

        #[test]
        fn the_window_stays_small(gaps_ms in prop::collection::vec(0u64..5000, 1..400)) {
            let (tracker, mut now) = (StartupTracker::new(), Instant::now());
            tracker.begin_at(Stage::Loading, 0, Some(u64::MAX), now);
            for gap_ms in gaps_ms {
                now += Duration::from_millis(gap_ms);
                tracker.add(gap_ms);
                tracker.status_at(now);
            }
            prop_assert!(tracker.phase().samples.len() <= 22);
        }
    }
}
