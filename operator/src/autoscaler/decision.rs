//! How many replicas a ModelDeployment needs: a pure function of its load over time.
//!
//! The need is sized by the requests that arrive and the time that each takes (Little's law: mean concurrency = arrival
//! rate × service time), so a queue that grows while new replicas start does not ask for more of them. What the estimate
//! misses is repaired by two rules on what can be seen: replicas that stay saturated, and a KV cache that fills.

mod zero;

use std::{collections::VecDeque, fmt};

use zero::Idle;

pub use zero::LastReplica;

/// Seconds over which arrivals are averaged.
const ARRIVALS_S: f64 = 60.0;
/// Seconds over which a sudden rise of arrivals is averaged.
const BURST_S: f64 = 15.0;
/// Seconds for which saturation must last.
const SATURATED_S: f64 = 15.0;
/// Share of the places that are taken in a saturated replica.
const SATURATED_SHARE: f64 = 0.9;
/// Part of the places of a replica that must wait in a queue before it counts as saturation.
const QUEUE_SHARE: f64 = 0.5;
/// Seconds for which the answer to saturation is kept, so that the estimate has time to become right.
const FLOOR_S: f64 = 300.0;
/// Seconds between two replicas that end.
const DOWN_PERIOD_S: f64 = 60.0;

/// What the spec requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// Replicas at least, 1 or more, as long as there are any.
    pub replicas_min: i32,
    /// Whether the last ones may end.
    pub last: LastReplica,
    /// Replicas at most.
    pub replicas_max: i32,
    /// Share of the places that requests take, 0 to 1.
    pub utilization: f64,
    /// Share of the KV cache that is used, 0 to 1.
    pub kv_usage: f64,
    /// Seconds over which the largest need counts before replicas end.
    pub down_window_s: f64,
    /// Requests that one replica runs at the same time, as the spec has it: until a replica has answered.
    pub n_places: f64,
}

impl Policy {
    fn within(&self, replicas: i32) -> i32 {
        let least = match self.last.may_end() {
            true => 0,
            false => self.replicas_min,
        };
        replicas.clamp(least, self.replicas_max)
    }
}

/// The load since the last step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Requests that arrived per second, refused ones included.
    pub arrivals_per_s: f64,
    /// Seconds that a request takes in the engine; `None` before the first one ended.
    pub service_s: Option<f64>,
    /// Requests that run.
    pub n_running: f64,
    /// Requests that wait in replicas.
    pub n_waiting: f64,
    /// Requests that gateways hold, because no replica is ready.
    pub n_held: f64,
    /// Requests that one replica runs at the same time; `None` before a replica answered.
    pub n_places: Option<f64>,
    /// Mean of the used shares of the KV caches, 0 to 1.
    pub kv_usage: f64,
    /// Replicas that are ready.
    pub n_ready: i32,
    /// Ready replicas that did not answer.
    pub n_silent: i32,
    /// Whether there is a node for another replica.
    pub room: Room,
}

impl Load {
    /// Whether there is a request, or may be one.
    fn has_requests(&self) -> bool {
        let n_requests = self.arrivals_per_s + self.n_running + self.n_waiting + self.n_held;
        n_requests > 0.0 || self.n_silent > 0
    }
}

/// Whether there is a node for another replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// As far as is known.
    #[default]
    Free,
    /// A replica has found no node for some time.
    Used,
}

/// Why there are as many replicas as there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// There were as many when the autoscaler began.
    Start,
    /// So many requests arrive.
    Arrivals,
    /// The replicas stayed saturated.
    Saturation,
    /// The KV caches are full.
    KvCache,
    /// Fewer requests arrived for the whole window.
    LessLoad,
    /// No request came for the time that the spec sets.
    Idle,
    /// Gateways hold requests.
    HeldRequests,
    /// The limits of the spec changed.
    Limits,
}

impl Cause {
    /// The name in the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Start => "Start",
            Cause::Arrivals => "Arrivals",
            Cause::Saturation => "Saturation",
            Cause::KvCache => "KvCache",
            Cause::LessLoad => "LessLoad",
            Cause::Idle => "Idle",
            Cause::HeldRequests => "HeldRequests",
            Cause::Limits => "Limits",
        }
    }
}

/// A number of replicas, and what it follows from.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Replicas.
    pub replicas: i32,
    /// Why.
    pub cause: Cause,
    /// The figures.
    pub trace: String,
}

/// The needs of one step.
struct Needs {
    arrivals: i32,
    floor: i32,
    kv: i32,
}

/// The memory of past loads, and the newest decision.
#[derive(Clone, Debug)]
pub struct Scaler {
    decision: Decision,
    /// When it began, and rates of arrivals since, in seconds.
    began_s: f64,
    arrivals: VecDeque<(f64, f64)>,
    /// Needs while replicas might end.
    needs: VecDeque<(f64, i32)>,
    saturated_since_s: Option<f64>,
    /// Replicas that answer saturation, and until when.
    floor: Option<(i32, f64)>,
    ended_s: Option<f64>,
    idle: Idle,
    /// Places of a replica, once one has answered.
    n_places: Option<f64>,
}

impl Scaler {
    /// A scaler that finds so many replicas. It ends none before it has seen a whole window.
    pub fn new(replicas: i32, now_s: f64) -> Self {
        Self {
            decision: Decision {
                replicas,
                cause: Cause::Start,
                trace: "the number that was found".into(),
            },
            began_s: now_s,
            arrivals: VecDeque::new(),
            needs: VecDeque::new(),
            saturated_since_s: None,
            floor: None,
            ended_s: None,
            idle: Idle::new(now_s),
            n_places: None,
        }
    }

    /// The newest decision.
    pub fn decision(&self) -> &Decision {
        &self.decision
    }

    /// Decides from the load since the last step. Time does not go back.
    pub fn step(&mut self, now_s: f64, policy: &Policy, load: &Load) -> &Decision {
        let before = self.decision.replicas;
        if policy.within(before) != before {
            self.decide(policy.within(before), Cause::Limits, limits_trace(policy));
        }
        self.remember(now_s, load);
        self.wake(now_s, policy, load);
        if self.decision.replicas == 0 {
            return &self.decision;
        }
        if self.idle.is_over(now_s, policy.last) {
            self.decide(0, Cause::Idle, idle_trace(policy));
            return &self.decision;
        }
        self.answer_saturation(now_s, load);
        let needs = self.needs(now_s, policy, load);
        let within = |replicas: i32| replicas.clamp(policy.replicas_min, policy.replicas_max);
        let needed = within(needs.arrivals.max(needs.floor).max(needs.kv));
        let kept = within(needed.max(self.kept(policy, load)));
        self.needs.push_back((now_s, kept));
        let window = policy.down_window_s;
        while self.needs.front().is_some_and(|(at, _)| *at < now_s - window) {
            self.needs.pop_front();
        }
        let current = self.decision.replicas;
        if needed > current {
            if load.room == Room::Free {
                let cause = needs.cause(needed);
                self.decide(needed, cause, trace(policy, load, self.rate(now_s)));
            }
        } else if self.may_end(now_s, policy, load) {
            self.ended_s = Some(now_s);
            self.decide(
                current - 1,
                Cause::LessLoad,
                trace(policy, load, self.rate(now_s)),
            );
        }
        &self.decision
    }

    /// Starts replicas for requests that gateways hold, if none is ready for them and the last ones may end. It is no step,
    /// so it can be called at once; only the held requests, the ready replicas and the room of the load count. Returns
    /// whether the decision is new.
    pub fn wake(&mut self, now_s: f64, policy: &Policy, load: &Load) -> bool {
        let current = self.decision.replicas;
        let n_places = self.n_places.unwrap_or(policy.n_places);
        let needed = policy.within(ceil(load.n_held / n_places.max(1.0)));
        // What is ready or has no room while no replica is requested is what remains of those that end.
        let may_start = current == 0 || (load.n_ready == 0 && load.room == Room::Free);
        if !policy.last.may_end() || needed <= current || !may_start {
            return false;
        }
        // What was needed before says nothing of these replicas.
        self.needs.clear();
        self.needs.push_back((now_s, needed));
        let n_held = load.n_held;
        let trace = format!("{n_held:.0} requests held by gateways, {n_places:.0} places per replica");
        self.decide(needed, Cause::HeldRequests, trace);
        true
    }

    fn decide(&mut self, replicas: i32, cause: Cause, trace: String) {
        self.decision = Decision {
            replicas,
            cause,
            trace,
        };
    }

    fn remember(&mut self, now_s: f64, load: &Load) {
        self.n_places = load.n_places.or(self.n_places);
        let is_ready = self.decision.replicas > 0 && self.n_starting(load) == 0;
        self.idle.remember(now_s, is_ready, load.has_requests());
        self.arrivals.push_back((now_s, load.arrivals_per_s));
        while self
            .arrivals
            .front()
            .is_some_and(|(at, _)| *at < now_s - ARRIVALS_S)
        {
            self.arrivals.pop_front();
        }
    }

    /// Arrivals per second: the larger of the means over a minute and over the last seconds.
    fn rate(&self, now_s: f64) -> f64 {
        let mean = |seconds: f64| {
            let recent = self.arrivals.iter().filter(|(at, _)| *at > now_s - seconds);
            let (sum, n) = recent.fold((0.0, 0_u32), |(sum, n), (_, rate)| (sum + rate, n + 1));
            if n == 0 { 0.0 } else { sum / f64::from(n) }
        };
        mean(ARRIVALS_S).max(mean(BURST_S))
    }

    /// Replicas that have not become ready yet.
    fn n_starting(&self, load: &Load) -> i32 {
        (self.decision.replicas - load.n_ready).max(0)
    }

    fn answer_saturation(&mut self, now_s: f64, load: &Load) {
        let n_starting = self.n_starting(load);
        let is_saturated = load.n_places.is_some_and(|n_places| {
            load.n_waiting > n_places * QUEUE_SHARE
                && load.n_running >= SATURATED_SHARE * f64::from(load.n_ready) * n_places
                && n_starting == 0
        });
        if !is_saturated {
            self.saturated_since_s = None;
            return;
        }
        let since_s = *self.saturated_since_s.get_or_insert(now_s);
        if now_s - since_s >= SATURATED_S {
            let current = self.decision.replicas;
            self.floor = Some((current + 1 + current / 4, now_s + FLOOR_S));
            self.saturated_since_s = None;
        }
    }

    fn needs(&self, now_s: f64, policy: &Policy, load: &Load) -> Needs {
        let is_full = load.kv_usage > policy.kv_usage && load.n_ready > 0 && self.n_starting(load) == 0;
        Needs {
            arrivals: replicas_for(concurrency(self.rate(now_s), load), policy, load),
            floor: self
                .floor
                .filter(|(_, until_s)| now_s < *until_s)
                .map_or(0, |(floor, _)| floor),
            kv: if is_full { load.n_ready + 1 } else { 0 },
        }
    }

    /// Replicas that must not end now: requests run on them, their caches would not fit into the others, or they do not
    /// answer, so that they may be full.
    fn kept(&self, policy: &Policy, load: &Load) -> i32 {
        let current = self.decision.replicas;
        let n_silent = f64::from(load.n_silent) * load.n_places.unwrap_or(1.0);
        let running = replicas_for(load.n_running + n_silent, policy, load);
        let caches = load.kv_usage * f64::from(load.n_ready) / policy.kv_usage;
        running.max(ceil(caches)).min(current)
    }

    /// Whether a replica may end: the whole window needed fewer, and the last end was long enough ago.
    fn may_end(&self, now_s: f64, policy: &Policy, load: &Load) -> bool {
        let largest = self.needs.iter().map(|(_, need)| *need).max();
        let window_is_over = now_s - self.began_s >= policy.down_window_s;
        let period_is_over = self.ended_s.is_none_or(|at_s| now_s - at_s >= DOWN_PERIOD_S);
        let is_known = load.n_ready > load.n_silent;
        is_known
            && window_is_over
            && period_is_over
            && largest.is_some_and(|need| need < self.decision.replicas)
    }
}

impl Needs {
    fn cause(&self, needed: i32) -> Cause {
        if needed <= self.arrivals {
            Cause::Arrivals
        } else if needed <= self.floor {
            Cause::Saturation
        } else if needed <= self.kv {
            Cause::KvCache
        } else {
            Cause::Limits
        }
    }
}

/// Requests that run at the same time in the mean.
fn concurrency(arrivals_per_s: f64, load: &Load) -> f64 {
    arrivals_per_s * load.service_s.unwrap_or(0.0)
}

/// Replicas in which so many requests take the requested share of the places.
fn replicas_for(n_requests: f64, policy: &Policy, load: &Load) -> i32 {
    match load.n_places {
        Some(n_places) if n_places > 0.0 => ceil(n_requests / (n_places * policy.utilization)),
        _ => 0,
    }
}

/// The next whole number, with a tolerance for sums that should be whole.
fn ceil(value: f64) -> i32 {
    (value - 1e-9).ceil().clamp(0.0, f64::from(i32::MAX)) as i32
}

fn limits_trace(policy: &Policy) -> String {
    let why = match policy.last {
        LastReplica::NoGateway => ", and there is no gateway that could start the first one",
        LastReplica::NoKeys => ", and no replica has reported the API keys that may start the first one",
        LastReplica::Requested | LastReplica::EndsIdle { .. } => "",
    };
    format!(
        "the spec allows {} to {} replicas{why}",
        policy.within(0),
        policy.replicas_max
    )
}

fn idle_trace(policy: &Policy) -> String {
    match policy.last {
        LastReplica::EndsIdle { after_s, .. } => format!("no request for {after_s:.0} s"),
        LastReplica::Requested | LastReplica::NoGateway | LastReplica::NoKeys => String::new(),
    }
}

fn trace(policy: &Policy, load: &Load, arrivals_per_s: f64) -> String {
    Trace {
        policy,
        load,
        arrivals_per_s,
    }
    .to_string()
}

struct Trace<'a> {
    policy: &'a Policy,
    load: &'a Load,
    arrivals_per_s: f64,
}

impl fmt::Display for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            policy,
            load,
            arrivals_per_s,
        } = self;
        let places = load.n_places.unwrap_or(0.0);
        write!(
            f,
            "{arrivals_per_s:.2} requests/s × {:.2} s, {places:.0} places per replica at {:.0} %; {:.0} running, {:.0} waiting, KV cache {:.0} %, {} ready",
            load.service_s.unwrap_or(0.0),
            policy.utilization * 100.0,
            load.n_running,
            load.n_waiting,
            load.kv_usage * 100.0,
            load.n_ready,
        )
    }
}

#[cfg(test)]
mod simulator;
