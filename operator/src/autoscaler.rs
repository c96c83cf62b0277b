//! Decides the number of replicas of ModelDeployments with `spec.autoscaling`, every two seconds from the replicas' load.
//!
//! One task for each of them asks all its ready replicas (`signals`) and decides (`decision`). A reconcile says which
//! replicas there are and reads the newest decision; a decision that differs triggers a reconcile, which alone writes the
//! number. A process that begins to lead keeps the number that it finds for a whole window.

pub mod decision;
mod signals;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use crds::{ModelDeployment, load::LoadStatus};
use futures::future::join_all;
use kube::runtime::reflector::ObjectRef;
use tokio::{
    sync::{Semaphore, broadcast},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::probe::Probe;
use decision::{Decision, Load, Policy, Room, Scaler};
use signals::Signals;

/// Time between two decisions.
const PERIOD: Duration = Duration::from_secs(2);
/// Requests at the same time, of all ModelDeployments.
const REQUESTS_MAX: usize = 64;

/// The replicas of a ModelDeployment, as a reconcile sees them.
#[derive(Clone, Debug, PartialEq)]
pub struct Fleet {
    /// What the spec requests.
    pub policy: Policy,
    /// Replicas that the Deployment requests now; the first decision keeps them.
    pub replicas: i32,
    /// Addresses of the ready replicas.
    pub ready: Vec<IpAddr>,
    /// Port of their load.
    pub port: u16,
    /// Whether there is a node for another replica.
    pub room: Room,
}

/// Whether the autoscaler can decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It reads the load of replicas.
    Active,
    /// No replica is ready.
    NoReadyReplica,
    /// Ready replicas do not answer.
    NoAnswer,
    /// It wants more replicas, or would, and there is no node for them.
    NoRoom,
}

/// The newest decision, and whether it follows from the load.
#[derive(Clone, Debug, PartialEq)]
pub struct Autoscaled {
    /// The decision.
    pub decision: Decision,
    /// Whether it can decide.
    pub activity: Activity,
}

/// What a task and the reconciles of its ModelDeployment share.
#[derive(Debug)]
struct Shared {
    fleet: Fleet,
    newest: Autoscaled,
}

/// A running task; it ends when this value is dropped.
struct Scaling {
    shared: Arc<Mutex<Shared>>,
    task: JoinHandle<()>,
}

impl Drop for Scaling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The tasks of every ModelDeployment with `spec.autoscaling`.
pub struct Autoscaler {
    probe: Probe,
    places: Arc<Semaphore>,
    running: Mutex<HashMap<ObjectRef<ModelDeployment>, Scaling>>,
    changes: broadcast::Sender<ObjectRef<ModelDeployment>>,
}

impl Autoscaler {
    /// No tasks. A new decision is sent to `changes`.
    pub fn new(probe: Probe, changes: broadcast::Sender<ObjectRef<ModelDeployment>>) -> Self {
        Self {
            probe,
            places: Arc::new(Semaphore::new(REQUESTS_MAX)),
            running: Mutex::default(),
            changes,
        }
    }

    /// Follows the load of this fleet from now on, and returns the newest decision.
    pub fn follow(&self, object: &ObjectRef<ModelDeployment>, fleet: Fleet) -> Autoscaled {
        let mut running = self.running.lock().expect("no holder panics");
        let scaling = running
            .entry(object.clone())
            .or_insert_with(|| self.start(object.clone(), fleet.clone()));
        let mut shared = scaling.shared.lock().expect("no holder panics");
        shared.fleet = fleet;
        shared.newest.clone()
    }

    /// Ends the task of a ModelDeployment that was deleted or whose spec has no autoscaling.
    pub fn forget(&self, object: &ObjectRef<ModelDeployment>) {
        self.running.lock().expect("no holder panics").remove(object);
    }

    fn start(&self, object: ObjectRef<ModelDeployment>, fleet: Fleet) -> Scaling {
        let scaler = Scaler::new(fleet.replicas, 0.0);
        let newest = Autoscaled {
            decision: scaler.decision().clone(),
            activity: Activity::NoReadyReplica,
        };
        let shared = Arc::new(Mutex::new(Shared { fleet, newest }));
        let task = Task {
            object,
            shared: Arc::clone(&shared),
            probe: self.probe.clone(),
            places: Arc::clone(&self.places),
            changes: self.changes.clone(),
        };
        let task = tokio::spawn(task.run(scaler));
        Scaling { shared, task }
    }
}

struct Task {
    object: ObjectRef<ModelDeployment>,
    shared: Arc<Mutex<Shared>>,
    probe: Probe,
    places: Arc<Semaphore>,
    changes: broadcast::Sender<ObjectRef<ModelDeployment>>,
}

impl Task {
    async fn run(self, mut scaler: Scaler) {
        let began = Instant::now();
        let mut signals = Signals::default();
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let fleet = self.shared.lock().expect("no holder panics").fleet.clone();
            let answers = self.ask(&fleet).await;
            let now_s = began.elapsed().as_secs_f64();
            let load = signals.load(now_s, &answers, fleet.room);
            let decision = scaler.step(now_s, &fleet.policy, &load).clone();
            let activity = activity(&load);
            self.publish(Autoscaled { decision, activity });
        }
    }

    /// The load of each ready replica; `None` where one does not answer or takes no more requests.
    async fn ask(&self, fleet: &Fleet) -> BTreeMap<IpAddr, Option<LoadStatus>> {
        let asked = fleet.ready.iter().map(|ip| async {
            let _place = self.places.acquire().await;
            (*ip, self.probe.load(*ip, fleet.port).await)
        });
        let answers = join_all(asked).await.into_iter();
        let is_draining = |answer: &Option<LoadStatus>| answer.as_ref().is_some_and(|answer| answer.draining);
        answers.filter(|(_, answer)| !is_draining(answer)).collect()
    }

    /// A decision of the same number is no news, so that a steady load writes nothing.
    fn publish(&self, decided: Autoscaled) {
        let mut shared = self.shared.lock().expect("no holder panics");
        let before = &shared.newest;
        let is_same =
            before.decision.replicas == decided.decision.replicas && before.activity == decided.activity;
        if is_same {
            return;
        }
        tracing::info!(
            object = %self.object, from = before.decision.replicas, to = decided.decision.replicas,
            cause = decided.decision.cause.as_str(), trace = decided.decision.trace, activity = ?decided.activity,
            "autoscaling"
        );
        shared.newest = decided;
        drop(shared);
        // Nobody listens while no controller runs.
        let _receivers = self.changes.send(self.object.clone());
    }
}

fn activity(load: &Load) -> Activity {
    match load.n_ready {
        0 => Activity::NoReadyReplica,
        n_ready if n_ready == load.n_silent => Activity::NoAnswer,
        _ if load.room == Room::Used => Activity::NoRoom,
        _ => Activity::Active,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Json, Router, routing::get};
    use crds::load::PATH;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[tokio::test]
    async fn a_rising_load_triggers_a_reconcile_with_more_replicas() {
        let n_arrived = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&n_arrived);
        let load = get(move || async move {
            Json(LoadStatus {
                capacity: 4,
                service_time_seconds: Some(1.0),
                arrivals_total: counter.fetch_add(1000, Ordering::SeqCst),
                ..LoadStatus::default()
            })
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new().route(PATH, load);
        let _server = tokio::spawn(async move { axum::serve(listener, app).await });

        let (changes, mut changed) = broadcast::channel(8);
        let autoscaler = Autoscaler::new(Probe::new().unwrap(), changes);
        let object = ObjectRef::new("chat").within("team");
        let fleet = Fleet {
            policy: Policy {
                replicas_min: 1,
                replicas_max: 5,
                utilization: 0.7,
                kv_usage: 0.8,
                down_window_s: 60.0,
            },
            replicas: 1,
            ready: vec!["127.0.0.1".parse().unwrap()],
            port,
            room: Room::Free,
        };
        let first = autoscaler.follow(&object, fleet.clone());
        assert_eq!(
            (first.decision.replicas, first.activity),
            (1, Activity::NoReadyReplica)
        );
        while autoscaler.follow(&object, fleet.clone()).decision.replicas != 5 {
            assert_eq!(changed.recv().await.unwrap(), object);
        }
        assert_eq!(autoscaler.follow(&object, fleet).activity, Activity::Active);
        autoscaler.forget(&object);
        assert!(autoscaler.running.lock().unwrap().is_empty());
    }
}
