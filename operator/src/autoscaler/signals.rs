//! From the answers of single replicas to the load of all of them.
//!
//! Pure. Owns what was read before: rates follow from counters, and the use of a cache is its largest within a minute.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use crds::load::LoadStatus;

use super::decision::{Load, Room};

/// Seconds over which the largest use of a cache counts.
const KV_WINDOW_S: f64 = 60.0;

/// What was read of each ready replica.
#[derive(Debug, Default)]
pub(super) struct Signals {
    replicas: BTreeMap<IpAddr, Replica>,
    read_s: Option<f64>,
}

#[derive(Debug, Default)]
struct Replica {
    arrivals_total: Option<u64>,
    kv_usage: VecDeque<(f64, f64)>,
}

impl Signals {
    /// The load of the replicas that are ready; `None` is a replica that did not answer.
    pub(super) fn load(
        &mut self,
        now_s: f64,
        answers: &BTreeMap<IpAddr, Option<LoadStatus>>,
        room: Room,
    ) -> Load {
        self.replicas.retain(|ip, _| answers.contains_key(ip));
        let elapsed_s = self
            .read_s
            .map(|before_s| now_s - before_s)
            .filter(|seconds| *seconds > 0.0);
        self.read_s = Some(now_s);
        let mut load = Load {
            n_ready: count(answers.len()),
            room,
            ..Load::default()
        };
        let (mut n_arrived, mut kv_usage, mut service) = (0, 0.0, Mean::default());
        for (ip, answer) in answers {
            let Some(answer) = answer else {
                load.n_silent += 1;
                continue;
            };
            let replica = self.replicas.entry(*ip).or_default();
            n_arrived += replica.arrived(answer.arrivals_total);
            kv_usage += replica.largest_kv_usage(now_s, answer.kv_usage);
            load.n_running += answer.running as f64;
            load.n_waiting += answer.waiting as f64;
            if answer.capacity > 0 {
                let n_places = answer.capacity as f64;
                load.n_places = Some(load.n_places.map_or(n_places, |other: f64| other.max(n_places)));
            }
            if let Some(seconds) = answer.service_time_seconds {
                service.add(seconds);
            }
        }
        load.arrivals_per_s = elapsed_s.map_or(0.0, |seconds| n_arrived as f64 / seconds);
        load.service_s = service.mean();
        let n_answers = load.n_ready - load.n_silent;
        load.kv_usage = kv_usage / f64::from(n_answers.max(1));
        load
    }
}

impl Replica {
    /// Requests since the last answer. A process that started again counts from zero.
    fn arrived(&mut self, total: u64) -> u64 {
        let before = self.arrivals_total.replace(total);
        before.map_or(0, |before| total.checked_sub(before).unwrap_or(total))
    }

    fn largest_kv_usage(&mut self, now_s: f64, kv_usage: f64) -> f64 {
        self.kv_usage.push_back((now_s, kv_usage));
        while self
            .kv_usage
            .front()
            .is_some_and(|(at, _)| *at < now_s - KV_WINDOW_S)
        {
            self.kv_usage.pop_front();
        }
        self.kv_usage.iter().map(|(_, usage)| *usage).fold(0.0, f64::max)
    }
}

#[derive(Default)]
struct Mean {
    sum: f64,
    n: u32,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.n += 1;
    }

    fn mean(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / f64::from(self.n))
    }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    fn answer(arrivals_total: u64, kv_usage: f64) -> Option<LoadStatus> {
        Some(LoadStatus {
            running: 2,
            waiting: 1,
            capacity: 8,
            kv_usage,
            arrivals_total,
            service_time_seconds: Some(3.0),
            ..LoadStatus::default()
        })
    }

    #[test]
    fn rates_follow_from_counters_of_replicas_that_come_go_and_start_again() {
        let mut signals = Signals::default();
        let first = [(ip(1), answer(100, 0.5)), (ip(2), answer(7, 0.1))].into();
        assert_eq!(signals.load(0.0, &first, Room::Free).arrivals_per_s, 0.0);
        let next = [
            (ip(1), answer(110, 0.2)),
            (ip(2), answer(2, 0.1)),
            (ip(3), answer(50, 0.0)),
        ]
        .into();
        let load = signals.load(2.0, &next, Room::Used);
        assert_eq!(
            load.arrivals_per_s, 6.0,
            "10 more, 2 since a restart, and a new replica"
        );
        assert_eq!(
            (load.n_running, load.n_waiting, load.n_places),
            (6.0, 3.0, Some(8.0))
        );
        assert!(
            (load.kv_usage - 0.2).abs() < 1e-9,
            "the largest of a minute: {load:?}"
        );
        assert_eq!(
            (load.service_s, load.n_ready, load.room),
            (Some(3.0), 3, Room::Used)
        );
    }

    #[test]
    fn a_replica_that_does_not_answer_counts_as_silent() {
        let mut signals = Signals::default();
        let load = signals.load(0.0, &[(ip(1), None), (ip(2), answer(1, 0.4))].into(), Room::Free);
        assert_eq!((load.n_ready, load.n_silent), (2, 1));
        assert!((load.kv_usage - 0.4).abs() < 1e-9);
        let load = signals.load(2.0, &[(ip(1), None)].into(), Room::Free);
        assert_eq!((load.n_places, load.service_s), (None, None));
    }
}
