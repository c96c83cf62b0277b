//! The engine: one thread that owns the model, the scheduler and the KV cache.
//!
//! Async ends at its two bounded channels: submissions go in, each ticket's events come out. It knows
//! tokens, never text, HTTP or JSON.

pub mod admission;
pub mod beam;
pub mod blocks;
mod draw;
mod echo;
pub mod load;
pub mod paged_cache;
pub mod philox;
pub mod prefix_cache;
pub mod request;
pub mod sampler;
pub mod scheduler;
pub mod sequence;
mod thread;
pub mod ticket;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::{mpsc, watch};

pub use admission::{AdmitError, PreemptionMode, SchedulingPolicy};
pub use load::{Counters, Load};
pub use request::{BeamParams, BeamRequest, EarlyStopping, FinishReason, GenerateRequest, PoolRequest};
pub use sampler::{SampleError, SamplingParams, TokenLogprobs};
pub use ticket::{Beam, Event, RequestFailure, Ticket, Timing};

use admission::Limits;
use load::Pulse;
use request::{Admitted, Task};
use thread::{EngineThread, Links, Submission};

use crate::batch::Forward;

/// Sizes of an engine. All but `n_host_blocks`, `max_waiting` and `seed` must be at least 1.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Blocks of the model's KV cache.
    pub n_blocks: usize,
    /// Blocks of the model's host cache, for sequences that are swapped out; may be 0.
    pub n_host_blocks: usize,
    /// Tokens per block.
    pub block_size: usize,
    /// Blocks of computed texts are kept for those that begin alike.
    pub enable_prefix_caching: bool,
    /// What becomes of a sequence whose blocks are taken for another.
    pub preemption_mode: PreemptionMode,
    /// Which sequence goes first.
    pub scheduling_policy: SchedulingPolicy,
    /// Sequences in one step at most.
    pub max_num_seqs: usize,
    /// Tokens in one step at most. Fewer than `max_num_seqs` also limits the sequences.
    pub max_num_batched_tokens: usize,
    /// Prompt and answer at most, tokens.
    pub max_model_len: usize,
    /// Requests held at most beyond those that can run at once.
    pub max_waiting: usize,
    /// Seeds the requests that bring no seed.
    pub seed: u64,
    /// Tokens with which the model ends an answer.
    pub eos_token_ids: Vec<u32>,
}

/// The engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A size that must be at least 1.
    #[error("{field} must be at least 1")]
    Zero {
        /// The field of [`EngineConfig`].
        field: &'static str,
    },
    /// A model without layers, or with a window that sees nothing.
    #[error("the model has no group of layers, or one whose window is 0")]
    NoLayers,
    /// Slots of the cache are numbered with 32 bits.
    #[error("{n_blocks} blocks of {block_size} tokens are more than 2^32 slots")]
    CacheTooLarge {
        /// Blocks of the cache.
        n_blocks: usize,
        /// Tokens per block.
        block_size: usize,
    },
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

/// Where the engine is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It accepts requests.
    Serving,
    /// It finishes what it has and accepts no more.
    Draining,
    /// It finished; its thread is gone.
    Stopped,
    /// The model failed or the thread panicked; only a new process helps.
    Dead,
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
    pulse: Arc<Pulse>,
    phase: watch::Receiver<Phase>,
}

impl Engine {
    /// Starts the engine thread, which owns `model` from now on.
    ///
    /// # Errors
    /// [`EngineError`] if a size makes no sense or there is no thread.
    pub fn start(model: Box<dyn Forward + Send>, config: EngineConfig) -> Result<Engine, EngineError> {
        let samplers = samplers()?;
        let seed = config.seed;
        let limits = config.limits(model.as_ref())?;
        Self::spawn(limits, config.max_waiting, |limits, links| {
            let engine_thread = EngineThread::new((model, samplers), limits, seed, links);
            move || engine_thread.run()
        })
    }

    /// Starts an engine that computes nothing: answers are as long as they may get and say nothing but `token`, the
    /// first at once and another at each `step`, or all at once where that has no length. For measuring what stands around
    /// an engine; `model` only tells its sizes.
    ///
    /// # Errors
    /// [`EngineError`] if a size makes no sense or there is no thread.
    pub fn start_echo(
        (token, step): (u32, Duration),
        model: &dyn Forward,
        config: EngineConfig,
    ) -> Result<Engine, EngineError> {
        let limits = config.limits(model)?;
        Self::spawn(limits, config.max_waiting, |_, links| {
            move || echo::run(token, step, links)
        })
    }

    /// An engine whose thread does what `thread` makes.
    fn spawn<R: FnOnce() + Send + 'static>(
        limits: Limits,
        max_waiting: usize,
        thread: impl FnOnce(&Limits, Links) -> R,
    ) -> Result<Engine, EngineError> {
        let n_held_max = limits.n_running_max() + max_waiting;
        // Every message holds at least one request, so the channel never fills before the engine does.
        let (intake_sender, intake) = sync_channel(n_held_max);
        let (phase_sender, phase) = watch::channel(Phase::Serving);
        let pulse = Arc::new(Pulse::new(n_held_max));
        let links = Links {
            intake,
            pulse: Arc::clone(&pulse),
            phase: phase_sender,
        };
        std::thread::Builder::new()
            .name("engine".to_owned())
            .spawn(thread(&limits, links))
            .map_err(EngineError::Spawn)?;
        Ok(Engine {
            limits,
            n_held_max,
            intake: Mutex::new(Some(intake_sender)),
            pulse,
            phase,
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
            .map(|admitted| ticketed(admitted, queued_at))
            .unzip();
        sender.try_send(submissions).map_err(|error| {
            self.pulse.unhold(n_requests);
            match error {
                TrySendError::Full(_) => self.queue_full(),
                TrySendError::Disconnected(_) => SubmitError::EngineDead,
            }
        })?;
        Ok(tickets.into_iter().flatten().collect())
    }

    /// The load now.
    pub fn load(&self) -> Load {
        self.pulse.load(&self.limits)
    }

    /// Counts since the start.
    pub fn counters(&self) -> &Counters {
        &self.pulse.counters
    }

    /// Whether the loop turns.
    pub fn liveness(&self) -> Liveness {
        Liveness {
            phase: self.phase(),
            turned_ago: self.pulse.turned_ago(),
        }
    }

    /// Refuses new requests from now on and finishes those it has.
    pub fn drain(&self) {
        self.lock_intake().take();
    }

    /// Refuses new requests from now on and ends those it has before their next step.
    pub fn abort(&self) {
        self.pulse.abort();
        self.drain();
    }

    /// Waits until a drained or aborted engine has ended everything it had, or the engine is dead.
    pub async fn drained(&self) -> Phase {
        let mut phase = self.phase.clone();
        let ended = phase
            .wait_for(|phase| matches!(phase, Phase::Stopped | Phase::Dead))
            .await;
        // The sender is gone only if the thread is, and it says its last phase first.
        ended.map_or(Phase::Dead, |phase| *phase)
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
        if self.pulse.hold(n_requests) {
            Ok(())
        } else {
            Err(self.queue_full())
        }
    }

    fn queue_full(&self) -> SubmitError {
        SubmitError::QueueFull {
            retry_after_s: self.pulse.retry_after_s(),
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

impl EngineConfig {
    fn check(&self) -> Result<(), EngineError> {
        let sizes = [
            ("n_blocks", self.n_blocks),
            ("block_size", self.block_size),
            ("max_num_seqs", self.max_num_seqs),
            ("max_num_batched_tokens", self.max_num_batched_tokens),
            ("max_model_len", self.max_model_len),
        ];
        if let Some((field, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(EngineError::Zero { field });
        }
        let n_slots = self.n_blocks.checked_mul(self.block_size).map(u32::try_from);
        match n_slots {
            Some(Ok(_)) => Ok(()),
            Some(Err(_)) | None => Err(EngineError::CacheTooLarge {
                n_blocks: self.n_blocks,
                block_size: self.block_size,
            }),
        }
    }

    fn limits(&self, model: &dyn Forward) -> Result<Limits, EngineError> {
        self.check()?;
        let groups = model.kv_groups();
        if groups.is_empty() || groups.iter().any(|group| group.window == Some(0)) {
            return Err(EngineError::NoLayers);
        }
        Ok(Limits {
            n_blocks: self.n_blocks,
            n_host_blocks: self.n_host_blocks,
            block_size: self.block_size,
            groups,
            whole_prompts: model.whole_prompts(),
            enable_prefix_caching: self.enable_prefix_caching,
            preemption_mode: self.preemption_mode,
            scheduling_policy: self.scheduling_policy,
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_batched_tokens,
            max_model_len: self.max_model_len,
            vocab_size: model.vocab_size(),
            eos_token_ids: self.eos_token_ids.as_slice().into(),
        })
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
fn ticketed(admitted: Admitted, queued_at: Instant) -> (Submission, Vec<Ticket>) {
    let n_events_max = match &admitted.task {
        Task::Generate {
            stop,
            prompt_logprobs,
            ..
        } => stop.max_tokens + 1 + usize::from(prompt_logprobs.is_some()),
        Task::Search { .. } | Task::Pool { .. } => 1,
    };
    let channel = |_| mpsc::channel(n_events_max);
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
