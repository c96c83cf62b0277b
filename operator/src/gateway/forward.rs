//! Sends a request to a replica: waits for a ready one, tries another one before the first byte, and passes the answer on
//! as it comes. A client that leaves ends the request; one that reads slowly slows the replica, and nothing piles up here.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{
        HeaderMap, HeaderName, Method, StatusCode,
        header::{self, CONTENT_TYPE},
    },
    response::Response,
};
use futures::{Stream, StreamExt, stream};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    balance::{Candidate, Strategy, choose},
    body::{Buffered, prefix_hash},
    destination::Repetition,
    directory::{Backend, Directory, Key, Supply},
    error::Error,
    held::{Held, Waiting},
    loads::{Loads, Sent},
    metrics::Metrics,
    quotas::{Meter, Visit},
};

/// Longest time to connect to a pod of the cluster.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time before a request is sent again to replicas that could not be reached.
const PAUSE: Duration = Duration::from_millis(500);
/// Most times that a request is sent and breaks off before an answer.
const BROKEN_MAX: usize = 3;

/// Headers that are about one connection.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::HOST,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// A request as it goes to a replica.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) method: Method,
    /// Path and query.
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Buffered,
    pub(super) repetition: Repetition,
    /// Whether it waits for a ready replica. The client of a stream sees a sign of life meanwhile.
    pub(super) is_held: AtomicBool,
    /// Whom an answer is counted for; `None` for what is no work.
    pub(super) visit: Option<Visit>,
    /// Whether the gateway requested usage in the stream and the client did not.
    pub(super) hides_usage: bool,
}

impl Outgoing {
    /// Whether it is worth a start and counts: a look at a list or at a job that a replica of the past had does not.
    pub(super) fn is_work(&self) -> bool {
        self.method == Method::POST && self.repetition != Repetition::UntilFound
    }
}

/// Sends requests.
#[derive(Debug)]
pub(super) struct Forwarder {
    http: reqwest::Client,
    directory: watch::Receiver<Arc<Directory>>,
    loads: Arc<Loads>,
    waiting: Arc<Waiting>,
    metrics: Metrics,
    strategy: Strategy,
    hold_timeout: Duration,
    turn: AtomicUsize,
}

/// What became of one attempt.
enum Attempt {
    /// The answer of a replica, with its first piece.
    Answer(Answer),
    /// The replica could not be reached, or is not ready after all.
    Unreachable(String),
    /// The request arrived, perhaps, and there is no answer.
    Broken(String),
}

/// The beginning of an answer, and the rest of it.
#[derive(Debug)]
pub(super) struct Answer {
    response: reqwest::Response,
    first: Option<Bytes>,
    sent: Sent,
    meter: Option<Box<Meter>>,
}

/// The replicas that a request was sent to.
#[derive(Default)]
struct Tries {
    tried: BTreeSet<SocketAddr>,
    n_broken: usize,
    /// What the last one said.
    refusal: Option<Answer>,
    reason: String,
    held: Option<Held>,
    has_waited: bool,
}

impl Forwarder {
    /// A forwarder for the replicas of this directory.
    ///
    /// # Errors
    /// When the TLS backend cannot be set up.
    pub(super) fn new(
        directory: watch::Receiver<Arc<Directory>>,
        strategy: Strategy,
        hold_timeout: Duration,
        metrics: Metrics,
    ) -> Result<Forwarder, reqwest::Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .build()?;
        Ok(Forwarder {
            http,
            directory,
            loads: Arc::default(),
            waiting: Waiting::new(metrics.clone()),
            metrics,
            strategy,
            hold_timeout,
            turn: AtomicUsize::new(0),
        })
    }

    /// The client for requests to replicas.
    pub(super) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The counts of all replicas.
    pub(super) fn loads(&self) -> Arc<Loads> {
        Arc::clone(&self.loads)
    }

    /// The requests that wait.
    pub(super) fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// The directory.
    pub(super) fn directory(&self) -> watch::Receiver<Arc<Directory>> {
        self.directory.clone()
    }

    /// Sends a request to a replica of these ModelDeployments, which are not none.
    ///
    /// # Errors
    /// No replica is or becomes ready, or none answers.
    pub(super) async fn send(&self, backends: &[Arc<Backend>], outgoing: &Outgoing) -> Result<Answer, Error> {
        let key = &backends[0].key;
        let due_at = Instant::now() + self.hold_timeout;
        let prefix = match self.strategy {
            Strategy::LeastLoad => None,
            Strategy::PrefixHash => prefix_hash(&outgoing.body.bytes),
        };
        let mut directory = self.directory.clone();
        let mut tries = Tries::default();
        loop {
            let replicas = ready(&directory.borrow_and_update(), backends);
            if replicas.is_empty() {
                let key = waits_for(&directory.borrow(), backends, outgoing)?;
                self.hold(&mut tries, outgoing, &key)?;
                self.changed(&mut directory, due_at, &key).await?;
                continue;
            }
            let candidates: Vec<Candidate> =
                replicas.iter().map(|&address| self.candidate(address)).collect();
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let Some(replica) = choose(&candidates, &tries.tried, prefix, turn) else {
                continue;
            };
            if tries.tried.contains(&replica) {
                // Every replica was tried: a refusal is the answer; one that cannot be reached may come back. A request
                // that has waited for the first replica waits on while its queue is full of others that have.
                if let Some(refusal) = tries.refusal.take()
                    && !(tries.has_waited && is_full(&refusal) && has_time(due_at))
                {
                    return Ok(self.answered(key, refusal, outgoing));
                }
                self.hold(&mut tries, outgoing, key)?;
                self.pause(due_at, key).await?;
                tries.tried.clear();
                continue;
            }
            tries.held = None;
            outgoing.is_held.store(false, Ordering::Relaxed);
            if let Some(answer) = self.try_one(replica, outgoing, &mut tries, key).await? {
                return Ok(self.answered(key, answer, outgoing));
            }
        }
    }

    /// One attempt; `None` if another replica should be tried.
    async fn try_one(
        &self,
        replica: SocketAddr,
        outgoing: &Outgoing,
        tries: &mut Tries,
        key: &Key,
    ) -> Result<Option<Answer>, Error> {
        if tries.n_broken > 0 || !tries.tried.is_empty() {
            self.metrics.repeated();
        }
        tries.tried.insert(replica);
        match self.attempt(replica, outgoing).await {
            Attempt::Answer(answer) if is_final(answer.response.status(), outgoing.repetition) => {
                return Ok(Some(answer));
            }
            Attempt::Answer(refusal) => tries.refusal = Some(refusal),
            Attempt::Unreachable(reason) => tries.reason = reason,
            Attempt::Broken(reason) => {
                tries.n_broken += 1;
                tries.reason = reason;
                if tries.n_broken >= BROKEN_MAX || outgoing.repetition == Repetition::IfNotSent {
                    return Err(Error::NoAnswer {
                        key: key.clone(),
                        reason: std::mem::take(&mut tries.reason),
                    });
                }
            }
        }
        Ok(None)
    }

    async fn attempt(&self, replica: SocketAddr, outgoing: &Outgoing) -> Attempt {
        let sent = self.loads.sent(replica);
        let url = format!("http://{replica}{}", outgoing.path);
        let request = self
            .http
            .request(outgoing.method.clone(), url)
            .headers(outgoing.headers.clone())
            .body(outgoing.body.bytes.clone());
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Attempt::Unreachable(chain(&error)),
            Err(error) => return Attempt::Broken(chain(&error)),
        };
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            return Attempt::Unreachable(format!("{replica} answered 503"));
        }
        match response.chunk().await {
            Ok(first) => Attempt::Answer(Answer {
                response,
                first,
                sent,
                meter: None,
            }),
            Err(error) => Attempt::Broken(chain(&error)),
        }
    }

    fn candidate(&self, address: SocketAddr) -> Candidate {
        Candidate {
            address,
            n_requests: self.loads.n_requests(address),
        }
    }

    fn answered(&self, key: &Key, mut answer: Answer, outgoing: &Outgoing) -> Answer {
        self.metrics.answered(key, answer.response.status().as_u16());
        if !answer.is_error()
            && let Some(visit) = outgoing.visit.clone()
        {
            let hides_usage = outgoing.hides_usage && is_events(answer.response.headers());
            answer.meter = Some(Box::new(visit.accepted(hides_usage)));
        }
        answer
    }

    /// Takes a place among the requests that wait.
    fn hold(&self, tries: &mut Tries, outgoing: &Outgoing, key: &Key) -> Result<(), Error> {
        if tries.held.is_none() {
            tries.held = Some(match tries.has_waited {
                true => self.waiting.hold_again(key),
                false => self.waiting.hold(key, outgoing.body.bytes.len())?,
            });
            tries.has_waited = true;
            outgoing.is_held.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits for a change of the directory.
    async fn changed(
        &self,
        directory: &mut watch::Receiver<Arc<Directory>>,
        due_at: Instant,
        key: &Key,
    ) -> Result<(), Error> {
        match timeout_at(due_at, directory.changed()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(self.not_ready(key)),
        }
    }

    async fn pause(&self, due_at: Instant, key: &Key) -> Result<(), Error> {
        if !has_time(due_at) {
            return Err(self.not_ready(key));
        }
        sleep_until(Instant::now() + PAUSE).await;
        Ok(())
    }

    fn not_ready(&self, key: &Key) -> Error {
        Error::NotReady {
            key: key.clone(),
            seconds: self.hold_timeout.as_secs(),
        }
    }
}

impl Answer {
    /// The response for the client.
    pub(super) fn into_response(mut self, metrics: Metrics) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.response.status();
        *response.headers_mut() = end_to_end(self.response.headers());
        if let Some(meter) = &mut self.meter {
            response.headers_mut().extend(meter.allowance().headers());
        }
        *response.body_mut() = Body::from_stream(self.into_pieces(metrics));
        response
    }

    /// Whether it is an error.
    pub(super) fn is_error(&self) -> bool {
        !self.response.status().is_success()
    }

    /// The pieces of the body. A stream of events that breaks off ends with an event that says so.
    pub(super) fn into_pieces(
        self,
        metrics: Metrics,
    ) -> impl Stream<Item = Result<Bytes, Error>> + Send + use<> {
        let is_events = is_events(self.response.headers());
        let first = stream::iter(self.first.map(Ok));
        // Without a first piece the body has ended.
        let state = Some((self.response, self.sent, metrics));
        let rest = stream::unfold(state, move |state| async move {
            let (mut response, sent, metrics) = state?;
            match response.chunk().await {
                Ok(Some(piece)) => Some((Ok(piece), Some((response, sent, metrics)))),
                Ok(None) => None,
                Err(error) => {
                    metrics.cut_off();
                    let error = Error::CutOff {
                        reason: chain(&error),
                    };
                    let last = match is_events {
                        true => Ok(Bytes::from(format!("\n\n{}", error.event()))),
                        false => Err(error),
                    };
                    Some((last, None))
                }
            }
        });
        metered(first.chain(rest), self.meter)
    }
}

/// The pieces that the client receives, read by a meter.
fn metered(
    pieces: impl Stream<Item = Result<Bytes, Error>> + Send,
    meter: Option<Box<Meter>>,
) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    let state = Some((Box::pin(pieces), meter));
    let passed = stream::unfold(state, |state| async {
        let (mut pieces, mut meter) = state?;
        let piece = pieces.next().await;
        Some(match (piece, &mut meter) {
            (Some(Ok(piece)), Some(of)) => (Ok(of.pass(piece)), Some((pieces, meter))),
            (Some(piece), _) => (piece, Some((pieces, meter))),
            (None, Some(of)) => (Ok(of.end()), None),
            (None, None) => return None,
        })
    });
    // An empty piece is nothing to send.
    passed.filter(|piece| std::future::ready(!matches!(piece, Ok(piece) if piece.is_empty())))
}

/// Whether this status is the answer, whatever other replicas would say.
fn is_final(status: StatusCode, repetition: Repetition) -> bool {
    match status {
        // The queue of the replica is full.
        StatusCode::TOO_MANY_REQUESTS => false,
        StatusCode::NOT_FOUND => repetition != Repetition::UntilFound,
        _ => true,
    }
}

/// The ready replicas of these ModelDeployments.
fn ready(directory: &Directory, backends: &[Arc<Backend>]) -> Vec<SocketAddr> {
    let current = backends
        .iter()
        .filter_map(|backend| directory.of_key(&backend.key));
    current
        .flat_map(|backend| backend.replicas.iter().copied())
        .collect()
}

/// Whether there is time for another round of tries.
fn has_time(due_at: Instant) -> bool {
    Instant::now() + PAUSE <= due_at
}

/// Whether the replica has no place for the request.
fn is_full(answer: &Answer) -> bool {
    answer.response.status() == StatusCode::TOO_MANY_REQUESTS
}

/// The ModelDeployment for whose replica the request waits, one of these.
fn waits_for(directory: &Directory, backends: &[Arc<Backend>], outgoing: &Outgoing) -> Result<Key, Error> {
    let key = backends[0].key.clone();
    let current = || {
        backends
            .iter()
            .filter_map(|backend| directory.of_key(&backend.key))
    };
    let of_supply = |supply: Supply| current().filter(move |backend| backend.supply == supply);
    if let Some(requested) = of_supply(Supply::Requested).next() {
        return Ok(requested.key.clone());
    }
    let Some(on_demand) = of_supply(Supply::OnDemand).next() else {
        let is_known = current().next().is_some();
        return Err(match is_known {
            true => Error::AtZero { key },
            false => Error::UnknownDeployment { key },
        });
    };
    // Without a replica, a stranger's key differs from a client's only by the keys that one has reported.
    let mut admitted = of_supply(Supply::OnDemand).filter(|backend| backend.guests.admit(&outgoing.headers));
    let key = on_demand.key.clone();
    match admitted.next() {
        None => Err(Error::UnknownKey { key }),
        Some(_) if !outgoing.is_work() => Err(Error::NothingToStartFor { key }),
        Some(admitted) => Ok(admitted.key.clone()),
    }
}

/// The headers that are not about one connection.
pub(super) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut headers = headers.clone();
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    headers
}

fn is_events(headers: &HeaderMap) -> bool {
    let of = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    of.is_some_and(|value| value.starts_with("text/event-stream"))
}

/// An error with all its causes.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
