//! From some replicas to none and back, with single loads and with bursts.

use super::*;

const AFTER_S: f64 = 120.0;

const MAY_BE_NONE: Policy = Policy {
    replicas_min: 1,
    last: LastReplica::EndsIdle {
        after_s: AFTER_S,
        start_s: 0.0,
    },
    ..POLICY
};

/// A load of so many arrivals per second with all replicas ready.
fn ready(n_ready: i32, arrivals_per_s: f64) -> Load {
    Load {
        arrivals_per_s,
        service_s: Some(1.0),
        n_places: Some(N_PLACES),
        n_ready,
        ..Load::default()
    }
}

#[test]
fn all_replicas_end_after_a_time_without_requests_and_a_held_request_starts_them() {
    let mut scaler = Scaler::new(3, 0.0);
    let mut second = 0.0;
    while scaler.step(second, &MAY_BE_NONE, &ready(3, 0.0)).replicas > 0 {
        second += 1.0;
        assert!(second <= AFTER_S);
    }
    assert_eq!((second, scaler.decision().cause), (AFTER_S, Cause::Idle));
    for _ in 0..1000 {
        second += 1.0;
        assert_eq!(scaler.step(second, &MAY_BE_NONE, &Load::default()).replicas, 0);
    }
    let held = |n_held| Load {
        n_held,
        ..Load::default()
    };
    assert!(scaler.wake(second, &MAY_BE_NONE, &held(1.0)));
    let decision = scaler.decision();
    assert_eq!((decision.replicas, decision.cause), (1, Cause::HeldRequests));
    assert!(!scaler.wake(second, &MAY_BE_NONE, &held(N_PLACES)));
    assert!(
        scaler.wake(second, &MAY_BE_NONE, &held(100.0)),
        "a burst needs more than one"
    );
    assert_eq!(scaler.decision().replicas, 4, "100 requests, 28 places each");
    let full = Load {
        room: Room::Used,
        ..held(1000.0)
    };
    assert!(!scaler.wake(second, &MAY_BE_NONE, &full), "there is no node");
}

#[test]
fn a_replica_that_starts_is_never_ended_and_one_that_took_long_to_start_stays() {
    let mut scaler = Scaler::new(0, 0.0);
    let slow = Policy {
        last: LastReplica::EndsIdle {
            after_s: 10.0,
            start_s: 100.0,
        },
        ..MAY_BE_NONE
    };
    let held = Load {
        n_held: 60.0,
        ..Load::default()
    };
    assert_eq!(scaler.step(0.0, &slow, &held).replicas, 3);
    // The clients leave, and the start takes much longer than replicas may be idle.
    for second in 1..250 {
        assert_eq!(
            scaler.step(f64::from(second), &slow, &Load::default()).replicas,
            3
        );
        assert_eq!(
            scaler.step(f64::from(second), &slow, &ready(1, 0.0)).replicas,
            3,
            "two still start"
        );
    }
    let mut ended_s = None;
    for second in 250..600 {
        let now = scaler.step(f64::from(second), &slow, &ready(3, 0.0));
        if now.replicas == 0 {
            ended_s.get_or_insert(second);
        }
    }
    assert_eq!(
        ended_s,
        Some(450),
        "twice the time of a start after all were ready"
    );
}

#[test]
fn the_last_replica_stays_while_it_has_work_is_silent_or_nobody_could_start_another() {
    let ends = |policy: &Policy, load: &Load| {
        let mut scaler = Scaler::new(1, 0.0);
        (0..2000).any(|second| scaler.step(f64::from(second), policy, load).replicas == 0)
    };
    let idle = ready(1, 0.0);
    assert!(ends(&MAY_BE_NONE, &idle));
    for busy in [
        ready(1, 0.01),
        Load {
            n_running: 1.0,
            ..idle
        },
        Load {
            n_waiting: 1.0,
            ..idle
        },
        Load { n_held: 1.0, ..idle },
        Load { n_silent: 1, ..idle },
        Load { n_ready: 0, ..idle },
    ] {
        assert!(!ends(&MAY_BE_NONE, &busy), "{busy:?}");
    }
    for last in [
        LastReplica::Requested,
        LastReplica::NoGateway,
        LastReplica::NoKeys,
    ] {
        assert!(!ends(&Policy { last, ..MAY_BE_NONE }, &idle));
    }
}

#[test]
fn without_keys_or_a_gateway_a_model_at_zero_starts_again() {
    for (last, why) in [
        (LastReplica::NoKeys, "API keys"),
        (LastReplica::NoGateway, "no gateway"),
        (LastReplica::Requested, "1 to 64"),
    ] {
        let mut scaler = Scaler::new(0, 0.0);
        let decision = scaler.step(0.0, &Policy { last, ..MAY_BE_NONE }, &Load::default());
        assert_eq!((decision.replicas, decision.cause), (1, Cause::Limits));
        assert!(decision.trace.contains(why), "{}", decision.trace);
    }
}

/// Clients come in bursts with long pauses; each is held until a replica is ready. Nobody waits longer than a start and a
/// look, and between the bursts there is no replica.
#[test]
fn bursts_with_pauses_go_from_zero_to_some_and_back() {
    for seed in 0..10 {
        let mut noise = Noise(seed);
        let mut scaler = Scaler::new(0, 0.0);
        let (mut current, mut starting, mut n_ready) = (0, Vec::<f64>::new(), 0);
        let (mut held, mut running, mut held_since) = (0.0_f64, 0.0_f64, None);
        let (mut n_asked, mut n_answered, mut seconds_at_zero) = (0.0, 0.0, 0.0);
        for second in 0..20_000 {
            let now_s = f64::from(second);
            starting.retain(|ready_s| *ready_s > now_s);
            n_ready = n_ready.max(current - starting.len() as i32).min(current);
            let burst = f64::from(u8::from(noise.next() < 0.001)) * (1.0 + 99.0 * noise.next()).floor();
            n_asked += burst;
            match n_ready {
                0 => held += burst,
                _ => running += burst + std::mem::take(&mut held),
            }
            held_since = match held > 0.0 {
                true => Some(held_since.unwrap_or(now_s)),
                false => None,
            };
            let waited_s = held_since.map_or(0.0, |since_s| now_s - since_s);
            assert!(waited_s <= START_S + 2.0, "seed {seed}: {waited_s} s");
            let ended = running.min(f64::from(n_ready) * N_PLACES / SERVICE_S);
            running -= ended;
            n_answered += ended;
            let load = Load {
                arrivals_per_s: if n_ready > 0 { burst } else { 0.0 },
                n_running: running,
                n_held: held,
                n_ready,
                service_s: Some(SERVICE_S),
                n_places: (n_ready > 0).then_some(N_PLACES),
                ..Load::default()
            };
            let wanted = scaler.step(now_s, &MAY_BE_NONE, &load).replicas;
            for _ in current..wanted {
                starting.push(now_s + START_S);
            }
            assert!(
                wanted >= current || starting.is_empty(),
                "seed {seed}: a start ended"
            );
            assert!(wanted > 0 || running == 0.0, "seed {seed}: work was ended");
            current = wanted;
            n_ready = n_ready.min(current);
            seconds_at_zero += f64::from(u8::from(current == 0));
        }
        assert!(n_asked - n_answered - held - running < 1e-6, "seed {seed}");
        assert!(seconds_at_zero > 5000.0, "seed {seed}: {seconds_at_zero} s");
    }
}
