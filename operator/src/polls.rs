//! Requests to pods, outside of reconciles: one task asks one address again and again, and a reconcile reads the newest
//! answer.
//!
//! Owns the tasks and their answers. An answer that differs triggers a reconcile of its ModelDeployment.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use crds::{ModelDeployment, startup::StartupStatus};
use kube::runtime::reflector::ObjectRef;
use tokio::{
    sync::{Semaphore, broadcast},
    task::JoinHandle,
    time::sleep,
};

use crate::probe::Probe;

/// Requests at the same time, of all ModelDeployments.
const REQUESTS_MAX: usize = 32;
/// Triggers that wait for the controller. Beyond this number the oldest are lost, and the next check finds the answer.
const CHANGES_MAX: usize = 1024;
/// Progress in percent does not change faster.
const STARTUP_PERIOD: Duration = Duration::from_secs(1);
/// Nodes need a moment to route a Service to a new pod.
const READY_PERIOD: Duration = Duration::from_millis(300);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// How far a start has come.
    Startup,
    /// Whether a replica answers that it is ready.
    Ready,
}

/// An address and the question for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Address of a pod or a Service.
    pub ip: IpAddr,
    /// Port.
    pub port: u16,
    /// The question.
    pub question: Question,
}

/// The newest answer of a target.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The start has come this far.
    Startup(Box<StartupStatus>),
    /// A replica is ready.
    Ready,
}

/// A running task; it ends when this value is dropped.
struct Poll {
    newest: Arc<Mutex<Option<Answer>>>,
    task: JoinHandle<()>,
}

impl Drop for Poll {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The running tasks of every ModelDeployment.
pub struct Polls {
    probe: Probe,
    places: Arc<Semaphore>,
    running: Mutex<HashMap<ObjectRef<ModelDeployment>, BTreeMap<Target, Poll>>>,
    changes: broadcast::Sender<ObjectRef<ModelDeployment>>,
}

impl Polls {
    /// No tasks.
    pub fn new(probe: Probe) -> Self {
        Self {
            probe,
            places: Arc::new(Semaphore::new(REQUESTS_MAX)),
            running: Mutex::default(),
            changes: broadcast::channel(CHANGES_MAX).0,
        }
    }

    /// Asks these targets of `object` from now on, and no others, and returns the answers so far.
    pub fn follow(
        &self,
        object: &ObjectRef<ModelDeployment>,
        targets: &[Target],
    ) -> BTreeMap<Target, Answer> {
        let mut running = self.running.lock().expect("no holder panics");
        if targets.is_empty() {
            running.remove(object);
            return BTreeMap::new();
        }
        let polls = running.entry(object.clone()).or_default();
        polls.retain(|target, _| targets.contains(target));
        for target in targets {
            polls
                .entry(*target)
                .or_insert_with(|| self.start(object.clone(), *target));
        }
        let newest = |poll: &Poll| poll.newest.lock().expect("no holder panics").clone();
        let answers = polls
            .iter()
            .filter_map(|(target, poll)| Some((*target, newest(poll)?)));
        answers.collect()
    }

    /// Ends the requests for a ModelDeployment that was deleted.
    pub fn forget(&self, namespace: &str, name: &str) {
        let object = ObjectRef::new(name).within(namespace);
        self.running.lock().expect("no holder panics").remove(&object);
    }

    /// The ModelDeployments with a new answer, from now on.
    pub fn changes(&self) -> broadcast::Receiver<ObjectRef<ModelDeployment>> {
        self.changes.subscribe()
    }

    /// Where other tasks announce that a ModelDeployment has something new.
    pub fn notifier(&self) -> broadcast::Sender<ObjectRef<ModelDeployment>> {
        self.changes.clone()
    }

    fn start(&self, object: ObjectRef<ModelDeployment>, target: Target) -> Poll {
        let newest = Arc::new(Mutex::new(None));
        let known = Arc::clone(&newest);
        let (probe, places, changes) = (self.probe.clone(), Arc::clone(&self.places), self.changes.clone());
        let task = tokio::spawn(async move {
            loop {
                let answer = {
                    let _place = places.acquire().await;
                    ask(&probe, target).await
                };
                let period = match (target.question, &answer) {
                    (Question::Startup, _) => STARTUP_PERIOD,
                    (Question::Ready, None) => READY_PERIOD,
                    // One answer is enough: after it the kubelet's own probes count.
                    (Question::Ready, Some(_)) => Duration::MAX,
                };
                let before = std::mem::replace(&mut *known.lock().expect("no holder panics"), answer.clone());
                if is_news(before.as_ref(), answer.as_ref()) {
                    // Nobody listens while no controller runs.
                    let _receivers = changes.send(object.clone());
                }
                sleep(period).await;
            }
        });
        Poll { newest, task }
    }
}

async fn ask(probe: &Probe, target: Target) -> Option<Answer> {
    match target.question {
        Question::Startup => {
            let status = probe.startup(target.ip, target.port).await?;
            Some(Answer::Startup(Box::new(status)))
        }
        Question::Ready => probe
            .is_ready(target.ip, target.port)
            .await
            .then_some(Answer::Ready),
    }
}

/// Whether the status of the ModelDeployment may change with this answer. The rate and the bytes of a transfer change
/// with every answer and count only together with the percentage.
fn is_news(before: Option<&Answer>, now: Option<&Answer>) -> bool {
    match (before, now) {
        (Some(Answer::Startup(before)), Some(Answer::Startup(now))) => {
            let shown = |status: &StartupStatus| StartupStatus {
                bytes_done: 0,
                rate_per_second: 0,
                eta_seconds: None,
                percent: status.percent.or_else(|| {
                    let total = status.bytes_total.filter(|total| *total > 0)?;
                    u8::try_from(u128::from(status.bytes_done) * 100 / u128::from(total)).ok()
                }),
                ..status.clone()
            };
            shown(before) != shown(now)
        }
        (before, now) => before != now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, http::StatusCode, routing::get};
    use crds::startup::Stage;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn only_what_the_status_shows_is_news() {
        let progress = |bytes_done, rate_per_second| {
            Answer::Startup(Box::new(StartupStatus {
                stage: Stage::Downloading,
                bytes_done,
                bytes_total: Some(1000),
                rate_per_second,
                ..StartupStatus::default()
            }))
        };
        let first = progress(500, 10);
        assert!(is_news(None, Some(&first)));
        assert!(
            !is_news(Some(&first), Some(&progress(501, 12))),
            "the same percentage"
        );
        assert!(is_news(Some(&first), Some(&progress(510, 10))));
        assert!(is_news(Some(&first), None));
    }

    #[tokio::test]
    async fn a_new_answer_triggers_and_a_target_that_is_not_followed_is_not_asked() {
        let ready = Arc::new(AtomicBool::new(false));
        let answer = Arc::clone(&ready);
        let route = get(move || async move {
            match answer.load(Ordering::SeqCst) {
                true => StatusCode::OK,
                false => StatusCode::SERVICE_UNAVAILABLE,
            }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = Router::new().route(crate::names::READY_PATH, route);
        let _server = tokio::spawn(async move { axum::serve(listener, app).await });

        let polls = Polls::new(Probe::new().unwrap());
        let mut changes = polls.changes();
        let object = ObjectRef::new("chat").within("team");
        let target = Target {
            ip: "127.0.0.1".parse().unwrap(),
            port,
            question: Question::Ready,
        };
        assert!(polls.follow(&object, &[target]).is_empty(), "no answer yet");
        ready.store(true, Ordering::SeqCst);
        assert_eq!(changes.recv().await.unwrap(), object);
        assert_eq!(polls.follow(&object, &[target])[&target], Answer::Ready);
        polls.forget("team", "chat");
        assert!(polls.running.lock().unwrap().is_empty());
    }
}
