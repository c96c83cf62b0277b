//! How long the answer of a gateway counts. Pure.
//!
//! Held requests count for a while after a gateway's last word of them: a client that leaves, or a gateway that ends, must
//! not take back a start that has just been decided.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use crds::demand::DemandStatus;
use tokio::time::Instant;

/// Time for which held requests count.
const LEASE: Duration = Duration::from_secs(10);

/// Namespace and name of a ModelDeployment.
pub(super) type Key = (String, String);

/// The requests that gateways hold for one ModelDeployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Their number, over all gateways.
    pub n_requests: u64,
    /// When the first of them came; `None` if there is none.
    pub since: Option<Instant>,
}

/// What each gateway said of each ModelDeployment.
#[derive(Debug)]
pub(super) struct Leases {
    held: HashMap<(IpAddr, Key), Lease>,
    heard_at: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    n_requests: u64,
    since: Instant,
    ends_at: Instant,
}

impl Leases {
    /// Nothing is held; gateways have a lease's time to say something.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            held: HashMap::new(),
            heard_at: now,
        }
    }

    /// Takes the answer of a gateway. A smaller number than before counts only when the larger one's time is over.
    pub(super) fn report(&mut self, gateway: IpAddr, status: &DemandStatus, now: Instant) {
        self.heard_at = now;
        self.held.retain(|_, lease| lease.ends_at > now);
        for held in &status.held {
            let age = Duration::from_millis(held.since_milliseconds);
            let lease = Lease {
                n_requests: held.requests,
                since: now.checked_sub(age).unwrap_or(now),
                ends_at: now + LEASE,
            };
            let key = (gateway, (held.namespace.clone(), held.name.clone()));
            let known = self.held.entry(key).or_insert(lease);
            if lease.n_requests >= known.n_requests {
                *known = lease;
            }
        }
    }

    /// The requests for one ModelDeployment, of all gateways.
    pub(super) fn held(&self, key: &Key, now: Instant) -> Held {
        let of_key = self.held.iter().filter(|((_, of), _)| of == key);
        let valid = of_key.map(|(_, lease)| lease).filter(|lease| lease.ends_at > now);
        valid.fold(Held::default(), |held, lease| Held {
            n_requests: held.n_requests + lease.n_requests,
            since: Some(held.since.map_or(lease.since, |since| since.min(lease.since))),
        })
    }

    /// Whether a gateway has answered within the time of a lease.
    pub(super) fn is_heard(&self, now: Instant) -> bool {
        now.duration_since(self.heard_at) <= LEASE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::demand::HeldRequests;

    fn says(requests: &[(&str, u64)]) -> DemandStatus {
        let held = requests.iter().map(|(name, requests)| HeldRequests {
            namespace: "team".into(),
            name: (*name).into(),
            requests: *requests,
            since_milliseconds: 100,
        });
        DemandStatus { held: held.collect() }
    }

    #[test]
    fn requests_are_summed_over_gateways_and_outlive_the_client_and_the_gateway_for_a_while() {
        let began = Instant::now();
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        let mut leases = Leases::new(began);
        let [one, other] = [[10, 0, 0, 1], [10, 0, 0, 2]].map(IpAddr::from);
        let key = |name: &str| ("team".to_owned(), name.to_owned());
        let n_held = |leases: &Leases, now| leases.held(&key("a"), now).n_requests;

        leases.report(one, &says(&[("a", 3)]), at(1000));
        leases.report(other, &says(&[("a", 4), ("b", 1)]), at(1100));
        assert_eq!(n_held(&leases, at(1100)), 7);
        assert_eq!(leases.held(&key("a"), at(1100)).since, Some(at(900)));
        assert_eq!(leases.held(&key("none"), at(1100)), Held::default());

        // The clients of one gateway leave; the other gateway says nothing more.
        leases.report(one, &says(&[("a", 1)]), at(2000));
        leases.report(one, &says(&[]), at(3000));
        assert_eq!(n_held(&leases, at(10_900)), 7);
        assert_eq!(n_held(&leases, at(11_050)), 4);
        assert_eq!(n_held(&leases, at(11_100)), 0);
        leases.report(one, &says(&[("a", 2)]), at(12_000));
        assert_eq!(n_held(&leases, at(12_000)), 2, "a new lease");
        assert_eq!(leases.held.len(), 1, "old ones are forgotten");
    }

    #[test]
    fn a_gateway_is_heard_for_the_time_of_a_lease() {
        let began = Instant::now();
        let mut leases = Leases::new(began);
        assert!(leases.is_heard(began + LEASE));
        assert!(!leases.is_heard(began + LEASE * 2));
        leases.report([10, 0, 0, 1].into(), &says(&[]), began + LEASE * 2);
        assert!(leases.is_heard(began + LEASE * 3));
    }
}
