//! Decides the number of replicas of ModelDeployments with `spec.autoscaling`, every two seconds from the replicas' load.
//!
//! One task for each of them asks all its ready replicas (`signals`) and decides (`decision`). A reconcile says which
//! replicas there are and reads the newest decision; a decision that differs triggers a reconcile, which writes the
//! number. A start for requests that gateways hold waits for no look and no reconcile: it is announced by itself (`Wake`).
//! A process that begins to lead keeps the number that it finds for a whole window.

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
    sync::{Notify, Semaphore, broadcast},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::{
    demand::{Demand, Pace},
    probe::Probe,
};
use decision::{Cause, Decision, Load, Policy, Room, Scaler};
use signals::Signals;

/// Time between two decisions.
const PERIOD: Duration = Duration::from_secs(2);
/// Requests at the same time, of all ModelDeployments.
const REQUESTS_MAX: usize = 64;
/// Starts that wait to be written. Beyond this number the oldest are lost, and their reconciles write them.
const WAKES_MAX: usize = 1024;

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
    /// The salt for the API keys of a replica; `None`: there is no need to know them.
    pub salt: Option<String>,
}

/// Whether the autoscaler can decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It reads the load of replicas.
    Active,
    /// No replica is requested, and gateways say whether a request waits.
    AtZero,
    /// No replica is requested, and no gateway answers.
    NoGateway,
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
    /// The API keys that a replica reported last, as salted hashes; empty before.
    pub key_hashes: Vec<String>,
}

/// Replicas that start at once, because gateways hold requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Wake {
    /// The ModelDeployment.
    pub object: ObjectRef<ModelDeployment>,
    /// Replicas.
    pub replicas: i32,
    /// When the first of the requests came.
    pub held_since: Option<Instant>,
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
    demand: Arc<Demand>,
    places: Arc<Semaphore>,
    running: Mutex<HashMap<ObjectRef<ModelDeployment>, Scaling>>,
    changes: broadcast::Sender<ObjectRef<ModelDeployment>>,
    wakes: broadcast::Sender<Wake>,
}

impl Autoscaler {
    /// No tasks. A new decision is sent to `changes`.
    pub fn new(
        probe: Probe,
        demand: Arc<Demand>,
        changes: broadcast::Sender<ObjectRef<ModelDeployment>>,
    ) -> Self {
        Self {
            probe,
            demand,
            places: Arc::new(Semaphore::new(REQUESTS_MAX)),
            running: Mutex::default(),
            changes,
            wakes: broadcast::channel(WAKES_MAX).0,
        }
    }

    /// The replicas that start at once, from now on.
    pub fn wakes(&self) -> broadcast::Receiver<Wake> {
        self.wakes.subscribe()
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
            key_hashes: Vec::new(),
        };
        let shared = Arc::new(Mutex::new(Shared { fleet, newest }));
        let task = Task {
            object,
            shared: Arc::clone(&shared),
            probe: self.probe.clone(),
            demand: Arc::clone(&self.demand),
            places: Arc::clone(&self.places),
            changes: self.changes.clone(),
            wakes: self.wakes.clone(),
        };
        let task = tokio::spawn(task.run(scaler));
        Scaling { shared, task }
    }
}

struct Task {
    object: ObjectRef<ModelDeployment>,
    shared: Arc<Mutex<Shared>>,
    probe: Probe,
    demand: Arc<Demand>,
    places: Arc<Semaphore>,
    changes: broadcast::Sender<ObjectRef<ModelDeployment>>,
    wakes: broadcast::Sender<Wake>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.demand.forget(&self.object);
    }
}

impl Task {
    async fn run(self, mut scaler: Scaler) {
        let began = Instant::now();
        let mut signals = Signals::default();
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let news = self.follow_demand(scaler.decision().replicas);
            tokio::select! {
                _ = ticks.tick() => self.step(began, &mut scaler, &mut signals).await,
                () = news.notified() => self.wake(began, &mut scaler),
            }
        }
    }

    /// Asks gateways as often as is useful; without a need to ask, there is never news.
    fn follow_demand(&self, replicas: i32) -> Arc<Notify> {
        let fleet = self.fleet();
        if !fleet.policy.last.may_end() {
            self.demand.forget(&self.object);
            return Arc::default();
        }
        let pace = match replicas == 0 || fleet.ready.is_empty() {
            true => Pace::Quick,
            false => Pace::Slow,
        };
        self.demand.follow(&self.object, pace)
    }

    async fn step(&self, began: Instant, scaler: &mut Scaler, signals: &mut Signals) {
        let fleet = self.fleet();
        let answers = self.ask(&fleet).await;
        let key_hashes = self.key_hashes(&fleet).await;
        let now_s = began.elapsed().as_secs_f64();
        let load = Load {
            n_held: self.n_held(),
            ..signals.load(now_s, &answers, fleet.room)
        };
        let decision = scaler.step(now_s, &fleet.policy, &load).clone();
        let activity = activity(&load, decision.replicas, &self.demand);
        self.publish(Autoscaled {
            decision,
            activity,
            key_hashes: key_hashes.unwrap_or_else(|| self.newest().key_hashes),
        });
    }

    /// Decides for held requests alone.
    fn wake(&self, began: Instant, scaler: &mut Scaler) {
        let fleet = self.fleet();
        let load = Load {
            n_held: self.n_held(),
            n_ready: i32::try_from(fleet.ready.len()).unwrap_or(i32::MAX),
            room: fleet.room,
            ..Load::default()
        };
        if scaler.wake(began.elapsed().as_secs_f64(), &fleet.policy, &load) {
            let decision = scaler.decision().clone();
            let activity = activity(&load, decision.replicas, &self.demand);
            self.publish(Autoscaled {
                decision,
                activity,
                ..self.newest()
            });
        }
    }

    /// What a ready replica reports of its keys, if that is wanted and one answers.
    async fn key_hashes(&self, fleet: &Fleet) -> Option<Vec<String>> {
        let (salt, ip) = (fleet.salt.as_ref()?, fleet.ready.first()?);
        let reported = self.probe.keys(*ip, fleet.port, salt).await?.hashes;
        (!reported.is_empty()).then_some(reported)
    }

    fn n_held(&self) -> f64 {
        self.demand.held(&self.object).n_requests as f64
    }

    fn newest(&self) -> Autoscaled {
        self.shared.lock().expect("no holder panics").newest.clone()
    }

    fn fleet(&self) -> Fleet {
        self.shared.lock().expect("no holder panics").fleet.clone()
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
        let is_same = before.decision.replicas == decided.decision.replicas
            && before.activity == decided.activity
            && before.key_hashes == decided.key_hashes;
        if is_same {
            return;
        }
        tracing::info!(
            object = %self.object, from = before.decision.replicas, to = decided.decision.replicas,
            cause = decided.decision.cause.as_str(), trace = decided.decision.trace, activity = ?decided.activity,
            "autoscaling"
        );
        let is_wake = decided.decision.cause == Cause::HeldRequests
            && decided.decision.replicas > before.decision.replicas;
        let replicas = decided.decision.replicas;
        shared.newest = decided;
        drop(shared);
        // Nobody listens while no controller runs.
        if is_wake {
            let _receivers = self.wakes.send(Wake {
                object: self.object.clone(),
                replicas,
                held_since: self.demand.held(&self.object).since,
            });
        }
        let _receivers = self.changes.send(self.object.clone());
    }
}

fn activity(load: &Load, replicas: i32, demand: &Demand) -> Activity {
    match load.n_ready {
        _ if replicas == 0 && demand.is_heard() => Activity::AtZero,
        _ if replicas == 0 => Activity::NoGateway,
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
    use crds::{
        demand::{DemandStatus, HeldRequests},
        load::PATH,
    };
    use decision::LastReplica;
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
        let autoscaler = Autoscaler::new(Probe::new().unwrap(), Arc::default(), changes);
        let object = ObjectRef::new("chat").within("team");
        let fleet = Fleet {
            policy: Policy {
                replicas_min: 1,
                last: LastReplica::Requested,
                replicas_max: 5,
                utilization: 0.7,
                kv_usage: 0.8,
                down_window_s: 60.0,
                n_places: 4.0,
            },
            replicas: 1,
            ready: vec!["127.0.0.1".parse().unwrap()],
            port,
            room: Room::Free,
            salt: None,
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

    #[tokio::test]
    async fn a_held_request_starts_a_replica_without_a_look_at_the_load() {
        let demand = Arc::<Demand>::default();
        let (changes, mut changed) = broadcast::channel(8);
        let autoscaler = Autoscaler::new(Probe::new().unwrap(), Arc::clone(&demand), changes);
        let mut wakes = autoscaler.wakes();
        let object = ObjectRef::new("chat").within("team");
        let fleet = Fleet {
            policy: Policy {
                replicas_min: 1,
                last: LastReplica::EndsIdle {
                    after_s: 600.0,
                    start_s: 0.0,
                },
                replicas_max: 5,
                utilization: 0.7,
                kv_usage: 0.8,
                down_window_s: 60.0,
                n_places: 4.0,
            },
            replicas: 0,
            ready: Vec::new(),
            port: 1,
            room: Room::Free,
            salt: None,
        };
        autoscaler.follow(&object, fleet.clone());
        assert_eq!(changed.recv().await.unwrap(), object, "the first look");
        let at_zero = autoscaler.follow(&object, fleet.clone());
        assert_eq!(
            (at_zero.decision.replicas, at_zero.activity),
            (0, Activity::AtZero)
        );
        let held = HeldRequests {
            namespace: "team".into(),
            name: "chat".into(),
            requests: 9,
            since_milliseconds: 0,
        };
        demand.report([10, 0, 0, 1].into(), &DemandStatus { held: vec![held] });
        let wake = wakes.recv().await.unwrap();
        assert_eq!((wake.object, wake.replicas), (object.clone(), 3));
        let woken = autoscaler.follow(&object, fleet);
        assert_eq!(
            (woken.decision.cause, woken.activity),
            (Cause::HeldRequests, Activity::NoReadyReplica)
        );
    }
}
