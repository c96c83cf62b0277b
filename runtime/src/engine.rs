//! The engine: one thread that owns the model, the scheduler and the KV cache.
//!
//! Async ends at its two bounded channels: submissions go in, each ticket's events come out. It knows
//! tokens, never text, HTTP or JSON.

pub mod admission;
pub mod beam;
pub mod blocks;
mod channels;
pub mod config;
mod draw;
mod echo;
pub mod load;
pub mod pace;
pub mod paged_cache;
pub mod philox;
pub mod prefix_cache;
pub mod prompt;
mod reply;
pub mod request;
pub mod sampler;
pub mod scheduler;
pub mod sequence;
pub mod step;
mod thread;
pub mod ticket;
pub mod turns;
mod unread;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::watch;

pub use admission::AdmitError;
pub use channels::{Death, Phase};
pub use config::{ConfigError, EngineConfig};
pub use crds::settings::{PreemptionMode, SchedulingPolicy};
pub use echo::Echo;
pub use load::{Counters, Load, STEP_TOKENS_BOUNDS};
pub use pace::Pace;
pub use prompt::{Prompt, Span};
pub use request::{BeamParams, BeamRequest, EarlyStopping, FinishReason, GenerateRequest, PoolRequest};
pub use sampler::{SampleError, SamplingParams, TokenLogprobs};
pub use ticket::{Beam, Event, RequestFailure, Ticket, Timing};

use channels::{Channels, Submission};
use config::Limits;
use load::LoadGauge;
use request::{Admitted, Task};
use thread::EngineThread;
use unread::UnreadTotal;

use crate::batch::Forward;

/// The engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Sizes with which no engine can start.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The operating system gave no thread.
    #[error("no engine thread")]
    Spawn(#[source] std::io::Error),
    /// The operating system gave no threads to sample with.
    #[error("no sampling threads")]
    Samplers(#[source] rayon::ThreadPoolBuildError),
}

/// A submission was refused; none of its requests runs.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// A request that could never run.
    #[error("request {request_idx} can never run")]
    Refused {
        /// Which one of the submission.
        request_idx: usize,
        /// Why.
        #[source]
        error: AdmitError,
    },
    /// The engine holds as many requests as it may.
    #[error("the engine's queue is full")]
    QueueFull {
        /// When a place is likely to be free, seconds.
        retry_after_s: u64,
    },
    /// More requests at once than the engine ever holds.
    #[error("{n_requests} requests at once, where {n_requests_max} can be held")]
    TooMany {
        /// Requests submitted.
        n_requests: usize,
        /// Requests held at most.
        n_requests_max: usize,
    },
    /// The engine finishes what it has and accepts no more.
    #[error("the engine is draining")]
    Draining,
    /// The engine died; see [`Phase::Dead`].
    #[error("the engine stopped on an internal error")]
    EngineDead,
}

/// Whether the engine's loop turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liveness {
    /// Where it is in its life.
    pub phase: Phase,
    /// Time since the latest turn began; an idle engine turns once a second, a busy one once a step.
    pub turned_ago: Duration,
}

/// The handle of a running engine; any thread may use it. Dropping it aborts what runs.
#[derive(Debug)]
pub struct Engine {
    limits: Limits,
    n_held_max: usize,
    /// `None` once draining: the engine thread ends when the channel is closed and its work done.
    intake: Mutex<Option<SyncSender<Vec<Submission>>>>,
    gauge: Arc<LoadGauge>,
    unread: UnreadTotal,
    phase: watch::Receiver<Phase>,
    death: Arc<OnceLock<Death>>,
}

impl Engine {
    /// Starts the engine thread, which owns `model` from now on.
    ///
    /// # Errors
    /// [`EngineError`] if a size makes no sense or there is no thread.
    pub fn start(model: Box<dyn Forward + Send>, config: EngineConfig) -> Result<Engine, EngineError> {
        let samplers = samplers()?;
        let limits = config.limits(model.as_ref())?;
        Self::spawn(limits, |limits, channels| {
            let engine_thread = EngineThread::new(model, samplers, limits, channels);
            move || engine_thread.run()
        })
    }

    /// Starts an engine that computes nothing, to measure the code around an engine: answers are as long as they may
    /// get and consist of one token. `model` only gives its sizes.
    ///
    /// # Errors
    /// [`EngineError`] if a size makes no sense or there is no thread.
    pub fn start_echo(echo: Echo, model: &dyn Forward, config: EngineConfig) -> Result<Engine, EngineError> {
        let limits = config.limits(model)?;
        Self::spawn(limits, |_, channels| move || echo::run(echo, channels))
    }

    /// An engine whose thread does what `thread` makes.
    fn spawn<R: FnOnce() + Send + 'static>(
        limits: Limits,
        thread: impl FnOnce(&Limits, Channels) -> R,
    ) -> Result<Engine, EngineError> {
        let n_held_max = limits.n_running_max() + limits.config.max_waiting;
        // Every message holds at least one request, so the channel never fills before the engine does.
        let (intake_sender, intake) = sync_channel(n_held_max);
        let (phase_sender, phase) = watch::channel(Phase::Serving);
        let gauge = Arc::new(LoadGauge::new(n_held_max));
        let death = Arc::default();
        let channels = Channels {
            death: Arc::clone(&death),
            intake,
            gauge: Arc::clone(&gauge),
            phase: phase_sender,
        };
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(thread(&limits, channels))
            .map_err(EngineError::Spawn)?;
        Ok(Engine {
            limits,
            n_held_max,
            intake: Mutex::new(Some(intake_sender)),
            gauge,
            unread: UnreadTotal::default(),
            phase,
            death,
        })
    }

    /// Submits requests, all or none; one ticket for each answer, in their order. Never waits.
    ///
    /// # Errors
    /// [`SubmitError`]; then none was accepted.
    pub fn submit(&self, requests: Vec<GenerateRequest>) -> Result<Vec<Ticket>, SubmitError> {
        self.submit_admitted(admit_all(requests, |request| self.limits.admit(request)))
    }

    /// Submits requests for pooled vectors, all or none; one ticket each, in their order. Never waits.
    ///
    /// # Errors
    /// [`SubmitError`]; then none was accepted.
    pub fn submit_pooling(&self, requests: Vec<PoolRequest>) -> Result<Vec<Ticket>, SubmitError> {
        self.submit_admitted(admit_all(requests, |request| self.limits.admit_pooling(request)))
    }

    /// Submits requests for beam searches, all or none; one ticket each, in their order. Never waits.
    ///
    /// # Errors
    /// [`SubmitError`]; then none was accepted.
    pub fn submit_beam_searches(&self, requests: Vec<BeamRequest>) -> Result<Vec<Ticket>, SubmitError> {
        self.submit_admitted(admit_all(requests, |request| {
            self.limits.admit_beam_search(request)
        }))
    }

    fn submit_admitted(
        &self,
        admitted: Result<Vec<Admitted>, SubmitError>,
    ) -> Result<Vec<Ticket>, SubmitError> {
        if *self.phase.borrow() == Phase::Dead {
            return Err(SubmitError::EngineDead);
        }
        let admitted = admitted?;
        let n_requests = admitted.iter().map(Admitted::n_tickets).sum();
        let intake = self.lock_intake();
        let Some(sender) = intake.as_ref() else {
            return Err(SubmitError::Draining);
        };
        self.hold(n_requests)?;
        let queued_at = Instant::now();
        let (submissions, tickets): (_, Vec<_>) = admitted
            .into_iter()
            .map(|admitted| ticketed(admitted, &self.unread, queued_at))
            .unzip();
        sender.try_send(submissions).map_err(|error| {
            self.gauge.unhold(n_requests);
            match error {
                TrySendError::Full(_) => self.queue_full(),
                TrySendError::Disconnected(_) => SubmitError::EngineDead,
            }
        })?;
        Ok(tickets.into_iter().flatten().collect())
    }

    /// The load now.
    pub fn load(&self) -> Load {
        self.gauge.load(&self.limits)
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.gauge.counters
    }

    /// Whether the loop turns.
    pub fn liveness(&self) -> Liveness {
        Liveness {
            phase: self.phase(),
            turned_ago: self.gauge.turned_ago(),
        }
    }

    /// Refuses new requests from now on and finishes those it has.
    pub fn drain(&self) {
        self.lock_intake().take();
    }

    /// Refuses new requests from now on and ends those it has before their next step.
    pub fn abort(&self) {
        self.gauge.abort();
        self.drain();
    }

    /// Waits until a drained or aborted engine has ended everything it had, or the engine is dead.
    pub async fn drained(&self) -> Phase {
        let mut phase = self.phase.clone();
        let ended = phase
            .wait_for(|phase| matches!(phase, Phase::Stopped | Phase::Dead))
            .await;
        // The sender is gone only after the thread, which sends its last phase first.
        ended.map_or(Phase::Dead, |phase| *phase)
    }

    /// Why the engine is dead, if it is.
    pub fn death(&self) -> Option<&Death> {
        self.death.get()
    }

    fn phase(&self) -> Phase {
        // Copied out: a lock on the phase must not be held while the intake's is taken.
        let phase = *self.phase.borrow();
        match phase {
            Phase::Serving if self.lock_intake().is_none() => Phase::Draining,
            Phase::Serving | Phase::Draining | Phase::Stopped | Phase::Dead => phase,
        }
    }

    fn hold(&self, n_requests: usize) -> Result<(), SubmitError> {
        if n_requests > self.n_held_max {
            return Err(SubmitError::TooMany {
                n_requests,
                n_requests_max: self.n_held_max,
            });
        }
        if self.gauge.hold(n_requests) {
            Ok(())
        } else {
            Err(self.queue_full())
        }
    }

    fn queue_full(&self) -> SubmitError {
        SubmitError::QueueFull {
            retry_after_s: self.gauge.retry_after_s(),
        }
    }

    fn lock_intake(&self) -> MutexGuard<'_, Option<SyncSender<Vec<Submission>>>> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Admits all requests or none.
fn admit_all<R>(
    requests: Vec<R>,
    admit: impl Fn(R) -> Result<Admitted, AdmitError>,
) -> Result<Vec<Admitted>, SubmitError> {
    let admit =
        |(request_idx, request)| admit(request).map_err(|error| SubmitError::Refused { request_idx, error });
    requests.into_iter().enumerate().map(admit).collect()
}

/// Threads that draw tokens. The engine's own: on a pool that others use too, a step would wait for their work.
fn samplers() -> Result<ThreadPool, EngineError> {
    ThreadPoolBuilder::new()
        .thread_name(|idx| format!("sample-{idx}"))
        .build()
        .map_err(EngineError::Samplers)
}

/// A submission and its tickets. Each channel holds the prompt's event, every token the answer can have and the
/// event that ends it, so the engine thread never finds it full.
fn ticketed(admitted: Admitted, unread: &UnreadTotal, queued_at: Instant) -> (Submission, Vec<Ticket>) {
    let n_events_max = match &admitted.task {
        Task::Generate {
            stop,
            prompt_logprobs,
            ..
        } => stop.max_tokens + 1 + usize::from(prompt_logprobs.is_some()),
        Task::Search { .. } | Task::Pool { .. } => 1,
    };
    let channel = |_| ticket::channel(n_events_max, unread.answer());
    let (events, receivers): (_, Vec<_>) = (0..admitted.n_tickets()).map(channel).unzip();
    let submission = Submission {
        admitted,
        events,
        queued_at,
    };
    let tickets = receivers
        .into_iter()
        .map(|receiver| Ticket::new(receiver, queued_at));
    (submission, tickets.collect())
}
