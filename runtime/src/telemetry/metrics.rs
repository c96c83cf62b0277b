//! What `/metrics` shows: the names that vLLM's dashboards and autoscalers read, beside our own.
//!
//! Owns names, buckets and labels. Must not know how a request runs.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::{
    MetricType, counter::Counter, family::Family, gauge::Gauge, histogram::Histogram,
};
use prometheus_client::registry::Registry;

use crate::engine::{Counters, Load, STEP_TOKENS_BOUNDS, Timing};

/// Seconds to the first token, and of queueing: vLLM's buckets, from a cached word to a long prompt on a CPU.
const WAIT_SECONDS: [f64; 18] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0,
];
/// Seconds between tokens.
const TOKEN_SECONDS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.4, 0.8, 1.6, 3.2,
];
/// Seconds from the arrival of a request to its end.
const REQUEST_SECONDS: [f64; 15] = [
    0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 60.0, 120.0, 240.0, 480.0,
];
/// Tokens of a request.
const REQUEST_TOKENS: [f64; 12] = [
    1.0, 8.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 16384.0, 65536.0,
];

/// Weight of the newest request in the mean service time.
const SERVICE_TIME_WEIGHT: f64 = 0.1;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FinishedLabel {
    finished_reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabel {
    error: &'static str,
}

/// Handles on every metric.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    running: Gauge,
    waiting: Gauge,
    cache_usage: Gauge<f64, AtomicU64>,
    preemptions: Counter,
    prefix_cache_queries: Counter,
    prefix_cache_hits: Counter,
    prompt_tokens: Counter,
    generation_tokens: Counter,
    steps: Counter,
    step_tokens: StepTokens,
    cancelled: Counter,
    arrivals: Counter,
    finished: Family<FinishedLabel, Counter>,
    errors: Family<ErrorLabel, Counter>,
    first_token: Histogram,
    inter_token: Histogram,
    end_to_end: Histogram,
    queue: Histogram,
    request_prompt_tokens: Histogram,
    request_generation_tokens: Histogram,
    /// Mean seconds of a request in the engine, as the bits of an `f64`; zero before the first.
    service_seconds: AtomicU64,
}

/// The engine's histogram of the tokens of a step, as of the latest scrape.
#[derive(Clone, Debug, Default)]
struct StepTokens(Arc<Mutex<StepTokensRead>>);

#[derive(Debug, Default)]
struct StepTokensRead {
    sum: u64,
    /// Steps per bucket, not cumulative.
    counts: [u64; STEP_TOKENS_BOUNDS.len() + 1],
}

/// A request that ended by itself.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// When what happened to it.
    pub timing: Timing,
    /// Tokens of its prompt.
    pub n_prompt: usize,
    /// Tokens of its answer.
    pub n_generated: usize,
    /// OpenAI's `finish_reason`.
    pub reason: &'static str,
}

impl Metrics {
    /// Metrics of a server of `model_name`.
    pub fn new(model_name: &str) -> Self {
        let labels = [("model_name".into(), model_name.to_string().into())];
        let mut registry = Registry::with_labels(labels.into_iter());
        let mut m = Metrics::unregistered();
        m.register_engine(&mut registry);
        m.register_requests(&mut registry);
        m.registry = registry;
        m
    }

    /// What is read off the engine at each scrape.
    fn register_engine(&self, r: &mut Registry) {
        r.register(
            "vllm:num_requests_running",
            "Requests that hold KV-cache blocks",
            self.running.clone(),
        );
        r.register(
            "vllm:num_requests_waiting",
            "Requests that wait for a place",
            self.waiting.clone(),
        );
        r.register(
            "vllm:kv_cache_usage_perc",
            "Share of KV-cache blocks in use, 0 to 1",
            self.cache_usage.clone(),
        );
        r.register(
            "vllm:num_preemptions",
            "Times a request lost its blocks",
            self.preemptions.clone(),
        );
        r.register(
            "vllm:prefix_cache_queries",
            "Prompt tokens that were looked up in the prefix cache",
            self.prefix_cache_queries.clone(),
        );
        r.register(
            "vllm:prefix_cache_hits",
            "Prompt tokens that the prefix cache had",
            self.prefix_cache_hits.clone(),
        );
        r.register(
            "vllm:prompt_tokens",
            "Prompt tokens computed",
            self.prompt_tokens.clone(),
        );
        r.register(
            "vllm:generation_tokens",
            "Tokens generated",
            self.generation_tokens.clone(),
        );
        r.register(
            "slipway_engine_steps",
            "Steps the engine computed",
            self.steps.clone(),
        );
        r.register(
            "vllm:iteration_tokens_total",
            "Tokens computed in a step",
            self.step_tokens.clone(),
        );
        r.register(
            "slipway_requests_cancelled",
            "Requests whose client left",
            self.cancelled.clone(),
        );
    }

    /// What the routes report.
    fn register_requests(&self, r: &mut Registry) {
        r.register(
            "vllm:request_success",
            "Requests that ended by themselves",
            self.finished.clone(),
        );
        r.register(
            "vllm:time_to_first_token_seconds",
            "Arrival to first token",
            self.first_token.clone(),
        );
        r.register(
            "vllm:inter_token_latency_seconds",
            "Time between tokens",
            self.inter_token.clone(),
        );
        r.register(
            "vllm:e2e_request_latency_seconds",
            "Arrival to last token",
            self.end_to_end.clone(),
        );
        r.register(
            "vllm:request_queue_time_seconds",
            "Arrival to first step",
            self.queue.clone(),
        );
        r.register(
            "vllm:request_prompt_tokens",
            "Prompt tokens of a request",
            self.request_prompt_tokens.clone(),
        );
        r.register(
            "vllm:request_generation_tokens",
            "Generated tokens of a request",
            self.request_generation_tokens.clone(),
        );
        r.register(
            "slipway_requests_arrived",
            "Generation requests that arrived",
            self.arrivals.clone(),
        );
        r.register(
            "slipway_request_errors",
            "Requests answered with an error, by its kind",
            self.errors.clone(),
        );
    }

    fn unregistered() -> Self {
        let histogram = |bounds: &[f64]| Histogram::new(bounds.iter().copied());
        Metrics {
            registry: Registry::default(),
            running: Gauge::default(),
            waiting: Gauge::default(),
            cache_usage: Gauge::default(),
            preemptions: Counter::default(),
            prefix_cache_queries: Counter::default(),
            prefix_cache_hits: Counter::default(),
            prompt_tokens: Counter::default(),
            generation_tokens: Counter::default(),
            steps: Counter::default(),
            step_tokens: StepTokens::default(),
            cancelled: Counter::default(),
            arrivals: Counter::default(),
            finished: Family::default(),
            errors: Family::default(),
            first_token: histogram(&WAIT_SECONDS),
            inter_token: histogram(&TOKEN_SECONDS),
            end_to_end: histogram(&REQUEST_SECONDS),
            queue: histogram(&WAIT_SECONDS),
            request_prompt_tokens: histogram(&REQUEST_TOKENS),
            request_generation_tokens: histogram(&REQUEST_TOKENS),
            service_seconds: AtomicU64::new(0),
        }
    }

    /// A generation request arrived, whatever becomes of it.
    pub fn arrived(&self) {
        self.arrivals.inc();
    }

    /// Generation requests that arrived so far.
    pub fn n_arrived(&self) -> u64 {
        self.arrivals.get()
    }

    /// A request was answered with an error of this kind.
    pub fn failed(&self, error: &'static str) {
        self.errors.get_or_create(&ErrorLabel { error }).inc();
    }

    /// Requests answered with an error of this kind so far.
    pub fn n_failed(&self, error: &'static str) -> u64 {
        self.errors.get_or_create(&ErrorLabel { error }).get()
    }

    /// Time passed between two tokens of one request.
    pub fn token_gap(&self, gap: Duration) {
        self.inter_token.observe(gap.as_secs_f64());
    }

    /// A request ended before its answer was complete: its client left, or the process stops.
    pub fn aborted(&self) {
        self.ended("abort");
    }

    fn ended(&self, finished_reason: &'static str) {
        self.finished
            .get_or_create(&FinishedLabel { finished_reason })
            .inc();
    }

    /// A request ended by itself.
    pub fn finished(&self, finished: Finished) {
        self.ended(finished.reason);
        let Timing {
            queued_at,
            scheduled_at,
            first_token_at,
            last_event_at,
        } = finished.timing;
        let since = |then: std::time::Instant| then.saturating_duration_since(queued_at).as_secs_f64();
        if let Some(at) = scheduled_at {
            self.queue.observe(since(at));
        }
        if let Some(at) = first_token_at {
            self.first_token.observe(since(at));
        }
        if let Some(at) = last_event_at {
            self.end_to_end.observe(since(at));
            let started_at = scheduled_at.unwrap_or(queued_at);
            self.served(at.saturating_duration_since(started_at).as_secs_f64());
        }
        self.request_prompt_tokens.observe(finished.n_prompt as f64);
        self.request_generation_tokens
            .observe(finished.n_generated as f64);
    }

    /// Mean seconds that a request spends in the engine; `None` before the first one ended.
    pub fn service_seconds(&self) -> Option<f64> {
        let mean = f64::from_bits(self.service_seconds.load(Ordering::Relaxed));
        (mean > 0.0).then_some(mean)
    }

    fn served(&self, seconds: f64) {
        let mean = self
            .service_seconds()
            .map_or(seconds, |mean| mean + SERVICE_TIME_WEIGHT * (seconds - mean));
        self.service_seconds.store(mean.to_bits(), Ordering::Relaxed);
    }

    /// Everything as OpenMetrics text. Without an engine, as while loading, its figures stay zero.
    pub fn encode(&self, engine: Option<(Load, &Counters)>) -> String {
        if let Some((load, counters)) = engine {
            self.read_engine(load, counters);
        }
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("a string takes everything");
        out
    }

    fn read_engine(&self, load: Load, counters: &Counters) {
        self.running.set(load.n_running as i64);
        self.waiting.set(load.n_waiting as i64);
        self.cache_usage
            .set(load.n_blocks_used as f64 / load.n_blocks.max(1) as f64);
        let set = |counter: &Counter, value: u64| counter.inner().store(value, Ordering::Relaxed);
        set(&self.preemptions, counters.preemptions.get());
        set(&self.prefix_cache_queries, counters.prefix_cache_queries.get());
        set(&self.prefix_cache_hits, counters.prefix_cache_hits.get());
        set(&self.prompt_tokens, counters.prompt_tokens.get());
        set(&self.generation_tokens, counters.generation_tokens.get());
        set(&self.steps, counters.steps.get());
        self.step_tokens.set(counters);
        set(&self.cancelled, counters.cancelled.get());
    }
}

impl StepTokens {
    fn set(&self, counters: &Counters) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = StepTokensRead {
            sum: counters.step_tokens.sum(),
            counts: counters.step_tokens.counts(),
        };
    }
}

impl EncodeMetric for StepTokens {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let read = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bounds = STEP_TOKENS_BOUNDS.iter().map(|&bound| bound as f64);
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::MAX]).zip(read.counts).collect();
        let n_steps = read.counts.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(read.sum as f64, n_steps, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
