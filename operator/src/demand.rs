//! Requests that gateways hold for ModelDeployments without a ready replica.
//!
//! Owns what gateways said and for how long it counts. Gateways are polled only while a ModelDeployment may have no
//! replica, often while one has none. Must not know what follows from it.

pub mod gateways;
mod leases;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use crds::{ModelDeployment, demand::DemandStatus};
use kube::runtime::reflector::ObjectRef;
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};

use crate::{names::CONTROL_PORT, probe::Probe};
use leases::{Key, Leases};

pub use leases::Held;

/// How often gateways are polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pace {
    /// There is a ready replica, so that requests are held only by mistake.
    Slow,
    /// A request may wait for a replica that nobody has started.
    Quick,
}

impl Pace {
    fn period(self) -> Duration {
        match self {
            Pace::Slow => Duration::from_secs(2),
            Pace::Quick => Duration::from_millis(250),
        }
    }
}

/// What gateways hold, and who wants to know it.
#[derive(Debug)]
pub struct Demand {
    leases: Mutex<Leases>,
    followers: Mutex<HashMap<ObjectRef<ModelDeployment>, Follower>>,
    pace: watch::Sender<Option<Pace>>,
}

#[derive(Debug)]
struct Follower {
    pace: Pace,
    news: Arc<Notify>,
}

impl Default for Demand {
    fn default() -> Self {
        Self {
            leases: Mutex::new(Leases::new(Instant::now())),
            followers: Mutex::default(),
            pace: watch::Sender::default(),
        }
    }
}

impl Demand {
    /// Asks for this ModelDeployment at this pace from now on. The answer is notified when it has held requests.
    pub fn follow(&self, object: &ObjectRef<ModelDeployment>, pace: Pace) -> Arc<Notify> {
        let mut followers = self.followers.lock().expect("no holder panics");
        let follower = followers.entry(object.clone()).or_insert_with(|| Follower {
            pace,
            news: Arc::default(),
        });
        follower.pace = pace;
        let news = Arc::clone(&follower.news);
        self.set_pace(&followers);
        news
    }

    /// Asks no more for this ModelDeployment.
    pub fn forget(&self, object: &ObjectRef<ModelDeployment>) {
        let mut followers = self.followers.lock().expect("no holder panics");
        followers.remove(object);
        self.set_pace(&followers);
    }

    fn set_pace(&self, followers: &HashMap<ObjectRef<ModelDeployment>, Follower>) {
        let pace = followers.values().map(|follower| follower.pace).max();
        self.pace.send_if_modified(|current| {
            let is_new = *current != pace;
            *current = pace;
            is_new
        });
    }

    /// What gateways hold for this ModelDeployment.
    pub fn held(&self, object: &ObjectRef<ModelDeployment>) -> Held {
        let leases = self.leases.lock().expect("no holder panics");
        leases.held(&key(object), Instant::now())
    }

    /// Whether a gateway answered lately.
    pub fn is_heard(&self) -> bool {
        let leases = self.leases.lock().expect("no holder panics");
        leases.is_heard(Instant::now())
    }

    /// Takes the answer of a gateway.
    pub fn report(&self, gateway: IpAddr, status: &DemandStatus) {
        let now = Instant::now();
        self.leases
            .lock()
            .expect("no holder panics")
            .report(gateway, status, now);
        let followers = self.followers.lock().expect("no holder panics");
        for held in &status.held {
            let object = ObjectRef::new(&held.name).within(&held.namespace);
            if let Some(follower) = followers.get(&object) {
                follower.news.notify_one();
            }
        }
    }

    /// Asks one gateway for ever, while there is a follower.
    async fn ask(&self, probe: &Probe, gateway: IpAddr) {
        let mut pace = self.pace.subscribe();
        loop {
            let current = *pace.borrow_and_update();
            let Some(current) = current else {
                if pace.changed().await.is_err() {
                    return;
                }
                continue;
            };
            if let Some(status) = probe.demand(gateway, CONTROL_PORT).await {
                self.report(gateway, &status);
            }
            tokio::select! {
                () = sleep(current.period()) => {}
                _ = pace.changed() => {}
            }
        }
    }
}

fn key(object: &ObjectRef<ModelDeployment>) -> Key {
    let namespace = object.namespace.clone().unwrap_or_default();
    (namespace, object.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::demand::HeldRequests;
    use futures::FutureExt;

    fn object(name: &str) -> ObjectRef<ModelDeployment> {
        ObjectRef::new(name).within("team")
    }

    #[test]
    fn gateways_are_asked_as_often_as_the_most_impatient_follower_wants() {
        let demand = Demand::default();
        let pace = demand.pace.subscribe();
        assert_eq!(*pace.borrow(), None);
        demand.follow(&object("a"), Pace::Slow);
        demand.follow(&object("b"), Pace::Quick);
        assert_eq!(*pace.borrow(), Some(Pace::Quick));
        demand.follow(&object("b"), Pace::Slow);
        assert_eq!(*pace.borrow(), Some(Pace::Slow));
        demand.forget(&object("a"));
        demand.forget(&object("b"));
        assert_eq!(*pace.borrow(), None);
    }

    #[test]
    fn a_follower_is_told_at_once() {
        let demand = Demand::default();
        let news = demand.follow(&object("a"), Pace::Quick);
        let others = demand.follow(&object("b"), Pace::Quick);
        let held = HeldRequests {
            namespace: "team".into(),
            name: "a".into(),
            requests: 2,
            since_milliseconds: 40,
        };
        demand.report([10, 0, 0, 1].into(), &DemandStatus { held: vec![held] });
        assert!(news.notified().now_or_never().is_some());
        assert!(others.notified().now_or_never().is_none());
        assert_eq!(demand.held(&object("a")).n_requests, 2);
        assert_eq!(demand.held(&object("b")), Held::default());
    }
}
