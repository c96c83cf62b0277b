//! The channels between the engine's handle and its thread.
//!
//! Owns what goes through them. Must not know how requests are computed.

use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::watch;

use super::load::LoadGauge;
use super::request::Admitted;
use super::ticket::EventSender;

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

/// An admitted request on its way to the engine thread.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) admitted: Admitted,
    /// One per branch.
    pub(super) events: Vec<EventSender>,
    pub(super) queued_at: Instant,
}

/// What the engine thread shares with the handle.
pub(super) struct Channels {
    pub(super) intake: Receiver<Vec<Submission>>,
    pub(super) gauge: Arc<LoadGauge>,
    pub(super) phase: watch::Sender<Phase>,
    /// Set before the phase is [`Phase::Dead`].
    pub(super) death: Arc<OnceLock<Death>>,
}

/// Why an engine died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// What failed, with its causes.
    pub reason: String,
    /// Whether the device failed, and not the program.
    pub is_of_device: bool,
}
