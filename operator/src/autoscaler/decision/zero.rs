//! From some replicas to none, and back to the first ones. Pure.

/// A replica stays for this many times the time that its start took.
const STARTS_KEPT: f64 = 2.0;

/// Whether the last replica may end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LastReplica {
    /// The spec requests it.
    Requested,
    /// It ends without requests.
    EndsIdle {
        /// Seconds without a request.
        after_s: f64,
        /// Median seconds of the last starts; 0 while none is known.
        start_s: f64,
    },
    /// The spec does not request it, but there is no gateway, so nobody could tell of a request.
    NoGateway,
    /// The spec does not request it, but clients need keys and no replica has reported which, so a stranger's request could
    /// not be distinguished from a client's.
    NoKeys,
}

impl LastReplica {
    /// Whether there may be no replica.
    pub fn may_end(self) -> bool {
        matches!(self, LastReplica::EndsIdle { .. })
    }
}

/// Since when there was no request.
#[derive(Clone, Debug)]
pub(super) struct Idle {
    /// When there was a request, a replica that started, or one that did not answer.
    busy_s: f64,
    /// Since when all replicas are ready.
    ready_s: Option<f64>,
}

impl Idle {
    /// A time without requests begins now.
    pub(super) fn new(now_s: f64) -> Self {
        Self {
            busy_s: now_s,
            ready_s: None,
        }
    }

    /// Takes a look: whether all requested replicas are ready, at least one, and whether there is a request or may be one.
    pub(super) fn remember(&mut self, now_s: f64, is_ready: bool, has_requests: bool) {
        self.ready_s = is_ready.then(|| self.ready_s.unwrap_or(now_s));
        if has_requests || !is_ready {
            self.busy_s = now_s;
        }
    }

    /// Whether all replicas may end: there was no request for this time, none starts, and none has just started.
    pub(super) fn is_over(&self, now_s: f64, last: LastReplica) -> bool {
        let LastReplica::EndsIdle { after_s, start_s } = last else {
            return false;
        };
        let is_worth_its_start = |since_s: f64| now_s - since_s >= STARTS_KEPT * start_s;
        now_s - self.busy_s >= after_s && self.ready_s.is_some_and(is_worth_its_start)
    }
}
