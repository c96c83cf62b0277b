//! A simulator of replicas under load, and the rule beside those of others.
//!
//! Fluid: numbers of requests are real, a step is a second. A request takes the service time once it runs; replicas start
//! for two minutes; a queue may have a bound. Seeded noise makes arrivals irregular.

mod zero;

use super::*;

/// Places of a replica, seconds of service, seconds of a start.
const N_PLACES: f64 = 28.0;
const SERVICE_S: f64 = 10.0;
const START_S: f64 = 120.0;
const STEP_AT_S: f64 = 300.0;
const REPLICAS_MAX: i32 = 64;

const POLICY: Policy = Policy {
    replicas_min: 2,
    last: LastReplica::Requested,
    replicas_max: REPLICAS_MAX,
    utilization: 0.7,
    kv_usage: 0.8,
    down_window_s: 300.0,
    n_places: N_PLACES,
};

/// Requests arrive at 3/s, and at 20/s from [`STEP_AT_S`] on: 8 replicas can just serve that, 11 at 70 %.
fn step_of_load(now_s: f64) -> f64 {
    if now_s < STEP_AT_S { 3.0 } else { 20.0 }
}

/// Numbers between 0 and 1 from a seed (SplitMix64).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A rule that says how many replicas there should be, each second.
trait Rule {
    fn replicas(&mut self, now_s: f64, load: &Load, current: i32) -> i32;
}

/// The rule of this file.
struct Ours {
    scaler: Scaler,
    policy: Policy,
    /// Service time as the replicas report it, over the true one.
    service_error: f64,
}

impl Ours {
    fn new() -> Self {
        Self {
            scaler: Scaler::new(2, 0.0),
            policy: POLICY,
            service_error: 1.0,
        }
    }
}

impl Rule for Ours {
    fn replicas(&mut self, now_s: f64, load: &Load, _: i32) -> i32 {
        // The operator asks every two seconds.
        if now_s as i64 % 2 == 1 {
            return self.scaler.decision().replicas;
        }
        let load = Load {
            service_s: load.service_s.map(|seconds| seconds * self.service_error),
            ..*load
        };
        self.scaler.step(now_s, &self.policy, &load).replicas
    }
}

/// The largest of the wishes over five minutes counts before replicas end, one each minute.
#[derive(Default)]
struct Stabilised {
    wishes: VecDeque<(f64, i32)>,
    ended_s: f64,
}

impl Stabilised {
    fn of(&mut self, now_s: f64, wish: i32, current: i32) -> i32 {
        self.wishes.push_back((now_s, wish));
        while self.wishes.front().is_some_and(|(at, _)| *at < now_s - 300.0) {
            self.wishes.pop_front();
        }
        let largest = self.wishes.iter().map(|(_, wish)| *wish).max().unwrap_or(wish);
        if wish >= current {
            return wish;
        }
        if largest < current && now_s - self.ended_s >= 60.0 && now_s > 300.0 {
            self.ended_s = now_s;
            return current - 1;
        }
        current
    }
}

/// A HorizontalPodAutoscaler, or KEDA, on the number of waiting requests with the target 5: pods that are not ready count as
/// pods without waiting requests.
#[derive(Default)]
struct WaitingTarget {
    wish: i32,
    stabilised: Stabilised,
}

impl Rule for WaitingTarget {
    fn replicas(&mut self, now_s: f64, load: &Load, current: i32) -> i32 {
        if now_s as i64 % 15 == 0 {
            let ratio = load.n_waiting / f64::from(current.max(1)) / 5.0;
            let wish = match ratio {
                ratio if (0.9..1.1).contains(&ratio) => current,
                ratio => ceil(f64::from(current) * ratio),
            };
            self.wish = wish.min((current * 2).max(current + 4));
        }
        self.stabilised.of(now_s, self.wish, current)
    }
}

/// KubeAI's: the mean over ten minutes of requests that run or wait, each ten seconds.
struct TenMinutes {
    samples: VecDeque<f64>,
    wish: i32,
    stabilised: Stabilised,
}

impl Default for TenMinutes {
    fn default() -> Self {
        Self {
            samples: VecDeque::from(vec![0.0; 60]),
            wish: 2,
            stabilised: Stabilised::default(),
        }
    }
}

impl Rule for TenMinutes {
    fn replicas(&mut self, now_s: f64, load: &Load, current: i32) -> i32 {
        if now_s as i64 % 10 == 0 {
            self.samples.pop_front();
            self.samples.push_back(load.n_running + load.n_waiting);
            let mean = self.samples.iter().sum::<f64>() / self.samples.len() as f64;
            self.wish = ceil(mean / (N_PLACES * 0.7));
        }
        self.stabilised.of(now_s, self.wish, current)
    }
}

/// What replicas are under.
struct World {
    arrivals: fn(f64) -> f64,
    seconds: f64,
    queue_max: f64,
    /// Clients that wait for their answers before they ask again; `None` is an open loop.
    clients: Option<fn(f64) -> f64>,
    noise: Option<Noise>,
    /// Share of the cache that a request takes.
    kv_per_request: f64,
}

impl World {
    fn new(arrivals: fn(f64) -> f64) -> Self {
        Self {
            arrivals,
            seconds: 1800.0,
            queue_max: f64::INFINITY,
            clients: None,
            noise: None,
            kv_per_request: 0.0,
        }
    }
}

/// What became of it.
#[derive(Debug, Default)]
struct Outcome {
    peak: i32,
    refused: f64,
    /// From the step of the load until 11 replicas are ready.
    eleven_s: Option<f64>,
    n_changes: usize,
    /// 95th percentile of the time that the queue would take.
    wait_p95_s: f64,
    /// Mean share of taken places in the last ten minutes.
    utilization: f64,
    end: i32,
    /// Times at which replicas ended.
    ends_s: Vec<f64>,
}

fn run(rule: &mut dyn Rule, mut world: World) -> Outcome {
    let mut outcome = Outcome::default();
    let (mut n_ready, mut starting, mut current) = (2, Vec::<f64>::new(), 2);
    let (mut waiting, mut running) = (0.0_f64, 0.0_f64);
    let (mut waits, mut shares) = (Vec::new(), Vec::new());
    for second in 0..world.seconds as i64 {
        let now_s = second as f64;
        let mut rate = (world.arrivals)(now_s);
        if let Some(noise) = &mut world.noise {
            // The standard deviation of independent arrivals is the root of their number.
            rate = (rate + (12.0 * rate).sqrt() * (noise.next() - 0.5)).max(0.0);
        }
        if let Some(clients) = world.clients {
            rate = rate.min(clients(now_s) - waiting - running).max(0.0);
        }
        let n_before = starting.len();
        starting.retain(|ready_s| *ready_s > now_s);
        n_ready += (n_before - starting.len()) as i32;
        waiting += rate;
        if waiting > world.queue_max {
            outcome.refused += waiting - world.queue_max;
            waiting = world.queue_max;
        }
        running -= running / SERVICE_S;
        let n_places = f64::from(n_ready) * N_PLACES;
        let admitted = waiting.min(n_places - running).max(0.0);
        running += admitted;
        waiting -= admitted;
        let load = Load {
            arrivals_per_s: rate,
            service_s: Some(SERVICE_S),
            n_running: running,
            n_waiting: waiting,
            n_places: Some(N_PLACES),
            kv_usage: (running * world.kv_per_request / f64::from(n_ready)).min(1.0),
            n_ready,
            ..Load::default()
        };
        let wanted = rule.replicas(now_s, &load, current).clamp(2, REPLICAS_MAX);
        outcome.n_changes += usize::from(wanted != current);
        for _ in current..wanted {
            starting.push(now_s + START_S);
        }
        for _ in wanted..current {
            outcome.ends_s.push(now_s);
            if starting.pop().is_none() {
                n_ready -= 1;
            }
        }
        current = wanted;
        outcome.peak = outcome.peak.max(current);
        if outcome.eleven_s.is_none() && now_s >= STEP_AT_S && n_ready >= 11 {
            outcome.eleven_s = Some(now_s - STEP_AT_S);
        }
        waits.push(waiting / (n_places / SERVICE_S).max(1e-9));
        if now_s >= world.seconds - 600.0 {
            shares.push(running / n_places);
        }
    }
    waits.sort_by(f64::total_cmp);
    outcome.wait_p95_s = waits[waits.len() * 95 / 100];
    outcome.utilization = shares.iter().sum::<f64>() / shares.len() as f64;
    outcome.end = current;
    outcome
}

/// A load that goes up and down by a half, in waves of twenty minutes.
fn waves(now_s: f64) -> f64 {
    10.0 + 5.0 * (now_s / 1200.0 * std::f64::consts::TAU).sin()
}

#[test]
fn a_step_of_load_is_answered_by_as_many_replicas_as_it_needs() {
    let outcome = run(&mut Ours::new(), World::new(step_of_load));
    assert!(outcome.peak <= 14 && outcome.end >= 11, "{outcome:?}");
    assert!((0.6..0.8).contains(&outcome.utilization), "{outcome:?}");
    let bounded = World {
        queue_max: 100.0,
        ..World::new(step_of_load)
    };
    let outcome = run(&mut Ours::new(), bounded);
    assert!(outcome.peak <= 12, "{outcome:?}");
    assert!(outcome.eleven_s.unwrap() <= 140.0, "{outcome:?}");
    assert!(
        outcome.refused < 1800.0,
        "those of two minutes without more replicas: {outcome:?}"
    );
}

#[test]
fn clients_that_wait_for_their_answers_are_served() {
    let world = World {
        clients: Some(|now_s| if now_s < STEP_AT_S { 40.0 } else { 300.0 }),
        ..World::new(step_of_load)
    };
    let outcome = run(&mut Ours::new(), world);
    assert!(outcome.peak <= 16 && outcome.end >= 11, "{outcome:?}");
}

#[test]
fn a_wrong_service_time_is_repaired_by_saturation_and_bounded_by_it() {
    for (service_error, peak_max) in [(0.5, 14), (1.5, 22)] {
        let mut rule = Ours {
            service_error,
            ..Ours::new()
        };
        let outcome = run(&mut rule, World::new(step_of_load));
        assert!(
            outcome.end >= 8 && outcome.peak <= peak_max,
            "{service_error}: {outcome:?}"
        );
        assert!(outcome.utilization <= 1.0);
    }
}

#[test]
fn irregular_arrivals_cause_few_changes_and_ends_are_a_minute_apart() {
    for seed in 0..20 {
        let noisy = |arrivals| World {
            noise: Some(Noise(seed)),
            seconds: 7200.0,
            ..World::new(arrivals)
        };
        let steady = run(&mut Ours::new(), noisy(|_| 10.0));
        assert!(steady.n_changes <= 24, "seed {seed}: {steady:?}");
        assert!((5..=8).contains(&steady.end), "seed {seed}: {steady:?}");
        let waves = run(&mut Ours::new(), noisy(waves));
        assert!(waves.peak <= 14, "seed {seed}: {waves:?}");
        for pair in waves.ends_s.windows(2) {
            assert!(pair[1] - pair[0] >= DOWN_PERIOD_S, "seed {seed}");
        }
    }
}

#[test]
fn a_full_cache_gets_replicas_and_keeps_them() {
    let world = World {
        kv_per_request: 0.06,
        ..World::new(|_| 3.0)
    };
    let outcome = run(&mut Ours::new(), world);
    // 30 requests take 1.8 caches, which are 80 % of 2.25.
    assert_eq!((outcome.peak, outcome.end), (3, 3), "{outcome:?}");
}

#[test]
fn replicas_end_only_after_a_window_without_load_and_only_if_they_answer() {
    let policy = Policy {
        replicas_min: 1,
        ..POLICY
    };
    let idle = |n_ready, n_silent| Load {
        n_places: Some(N_PLACES),
        service_s: Some(1.0),
        n_ready,
        n_silent,
        ..Load::default()
    };
    let mut scaler = Scaler::new(3, 0.0);
    let mut ends = Vec::new();
    for second in 0..800 {
        let before = scaler.decision().replicas;
        let now = scaler.step(f64::from(second), &policy, &idle(before, 0)).replicas;
        if now < before {
            ends.push(second);
        }
    }
    assert_eq!(ends, [300, 360]);
    assert_eq!(scaler.decision().cause, Cause::LessLoad);

    let mut scaler = Scaler::new(2, 0.0);
    for second in 0..800 {
        scaler.step(f64::from(second), &policy, &idle(2, 1));
    }
    assert_eq!(
        scaler.decision().replicas,
        2,
        "one of two does not answer, and may be full"
    );
    let mut scaler = Scaler::new(2, 0.0);
    for second in 0..800 {
        scaler.step(f64::from(second), &policy, &idle(2, 2));
    }
    assert_eq!(scaler.decision().replicas, 2, "nothing is known");
}

#[test]
fn without_room_there_are_no_more_replicas_and_limits_win_at_once() {
    let busy = Load {
        arrivals_per_s: 100.0,
        service_s: Some(1.0),
        n_places: Some(10.0),
        n_ready: 2,
        room: Room::Used,
        ..Load::default()
    };
    let mut scaler = Scaler::new(2, 0.0);
    assert_eq!(scaler.step(1.0, &POLICY, &busy).replicas, 2);
    let free = Load {
        room: Room::Free,
        ..busy
    };
    let decision = scaler.step(2.0, &POLICY, &free);
    assert_eq!((decision.replicas, decision.cause), (15, Cause::Arrivals));
    assert!(
        decision.trace.contains("100.00 requests/s × 1.00 s"),
        "{}",
        decision.trace
    );
    let small = Policy {
        replicas_max: 4,
        ..POLICY
    };
    let decision = scaler.step(3.0, &small, &free);
    assert_eq!((decision.replicas, decision.cause), (4, Cause::Limits));
}

/// Makes a rule.
type Make = fn() -> Box<dyn Rule>;

/// The table of docs/autoscaling.md.
#[test]
fn others_overshoot_or_are_late_where_ours_does_not() {
    let rules: [(&str, Make); 3] = [
        ("ours", || Box::new(Ours::new())),
        ("waiting", || Box::<WaitingTarget>::default()),
        ("ten minutes", || Box::<TenMinutes>::default()),
    ];
    let mut rows = Vec::new();
    for (name, rule) in rules {
        let open = run(&mut *rule(), World::new(step_of_load));
        let bounded = World {
            queue_max: 100.0,
            ..World::new(step_of_load)
        };
        let bounded = run(&mut *rule(), bounded);
        let noisy = World {
            noise: Some(Noise(7)),
            seconds: 7200.0,
            ..World::new(|_| 10.0)
        };
        let noisy = run(&mut *rule(), noisy);
        println!("{name}: open {open:?}\n  bounded {bounded:?}\n  noisy {noisy:?}");
        rows.push((open, bounded, noisy));
    }
    let [ours, waiting, ten_minutes] = &rows[..] else {
        unreachable!("three rules")
    };
    assert!(ours.0.peak * 2 < waiting.0.peak && ours.0.peak * 2 < ten_minutes.0.peak);
    assert!(ours.1.refused < waiting.1.refused && ours.1.refused < ten_minutes.1.refused);
    assert!(ours.2.n_changes <= waiting.2.n_changes);
}
