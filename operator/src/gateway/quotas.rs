//! Who uses how much: usage is counted by key, and a key that has used its limits up is refused.
//!
//! A key appears as its salted hash or as a name from the limits, never as itself. It counts once a replica has accepted it, or
//! when its hash is known, so that guessed keys cost neither memory nor metrics.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Instant,
};

use axum::{body::Bytes, http::HeaderMap};
use crds::keys;
use tokio::sync::watch;

use super::{
    bucket::{Allowance, Bucket, Left},
    directory::{Backend, Guests, Key, presented},
    error::Error,
    limits::{Limit, Limits, NO_KEY, OTHERS},
    metrics::Metrics,
    usage::{Filter, Reader, Usage},
};

/// Most clients of ModelDeployments that have an account of their own; the others share one.
const ACCOUNTS_MAX: usize = 4096;
/// Bytes of a body that are taken for a token of a prompt where nobody has counted.
const BYTES_PER_TOKEN: u64 = 4;

/// The accounts of all clients.
#[derive(Debug)]
pub(super) struct Quotas {
    limits: watch::Receiver<Arc<Limits>>,
    accounts: Mutex<HashMap<Id, Account>>,
    metrics: Metrics,
}

/// A client of a ModelDeployment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Id {
    model: Key,
    /// The name or the hash of its key, [`NO_KEY`] or [`OTHERS`].
    client: String,
}

/// What a client has left.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    requests: Bucket,
    tokens: Bucket,
}

impl Account {
    fn allowance(&self, limit: Limit, now: Instant) -> Allowance {
        let left = |bucket: &Bucket, limit: Option<u64>| Some(Left::of(bucket, limit?, now));
        Allowance {
            requests: left(&self.requests, limit.requests_per_minute),
            tokens: left(&self.tokens, limit.tokens_per_minute),
        }
    }

    fn take_request(&mut self, limit: Limit, now: Instant) {
        if let Some(limit) = limit.requests_per_minute {
            self.requests.take(1, limit, now);
        }
    }

    fn take_tokens(&mut self, n_tokens: u64, limit: Limit, now: Instant) {
        if let Some(limit) = limit.tokens_per_minute {
            self.tokens.take(n_tokens, limit, now);
        }
    }
}

/// A request that may be sent.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    quotas: Arc<Quotas>,
    id: Id,
    /// Whether the request was taken from an account.
    is_counted: bool,
    body_bytes: usize,
}

impl Quotas {
    /// Accounts from which nothing was taken.
    pub(super) fn new(limits: watch::Receiver<Arc<Limits>>, metrics: Metrics) -> Arc<Quotas> {
        Arc::new(Quotas {
            limits,
            accounts: Mutex::default(),
            metrics,
        })
    }

    /// Lets a request with these headers and a body of so many bytes pass.
    ///
    /// # Errors
    /// Its key has used up a limit.
    pub(super) fn admit(
        self: &Arc<Quotas>,
        backend: &Backend,
        headers: &HeaderMap,
        body_bytes: usize,
    ) -> Result<Visit, Error> {
        let limits = Arc::clone(&self.limits.borrow());
        let mut accounts = self.accounts.lock().expect("no holder panics");
        let id = |client: &str| Id {
            model: backend.key.clone(),
            client: client.to_owned(),
        };
        let has_account = |hash: &str| accounts.contains_key(&id(hash));
        let (client, is_counted) = identify(&limits, &backend.guests, headers, has_account);
        let mut visit = Visit {
            quotas: Arc::clone(self),
            id: id(&client),
            is_counted,
            body_bytes,
        };
        if is_counted {
            let (limit, now) = (limits.of(&backend.key, &client), Instant::now());
            let account = account(&mut accounts, &mut visit.id);
            let allowance = account.allowance(limit, now);
            if let Some((what, left)) = allowance.exhausted() {
                let Id { model, client } = visit.id;
                self.metrics.limited(&model, &client, what);
                return Err(Error::Limited {
                    key: model,
                    client,
                    what,
                    left,
                    allowance: Box::new(allowance),
                });
            }
            account.take_request(limit, now);
        }
        Ok(visit)
    }

    /// Changes the account of a client.
    fn with<T>(
        &self,
        visit: &mut Visit,
        change: impl FnOnce(&mut Visit, &mut Account, Limit, Instant) -> T,
    ) -> T {
        let limit = self.limits.borrow().of(&visit.id.model, &visit.id.client);
        let mut accounts = self.accounts.lock().expect("no holder panics");
        let mut id = visit.id.clone();
        let account = account(&mut accounts, &mut id);
        visit.id = id;
        change(visit, account, limit, Instant::now())
    }
}

/// The client with these headers, and whether its key is known to be valid.
fn identify(
    limits: &Limits,
    guests: &Guests,
    headers: &HeaderMap,
    has_account: impl Fn(&str) -> bool,
) -> (String, bool) {
    let Guests::Keys { salt, hashes } = guests else {
        return (NO_KEY.into(), true);
    };
    let mut presented: Vec<String> = presented(headers).map(|key| keys::hash(salt, key)).collect();
    presented.dedup();
    for hash in &presented {
        if let Some(name) = limits.name(hash) {
            return (name.into(), true);
        }
        if hashes.contains(hash) || has_account(hash) {
            return (hash.clone(), true);
        }
    }
    match presented.as_slice() {
        [] => (NO_KEY.into(), false),
        [only] => (only.clone(), false),
        // If a replica accepts one of two, nobody knows which.
        _ => (OTHERS.into(), false),
    }
}

/// The account of a client. It is made if there are fewer than [`ACCOUNTS_MAX`], else the client becomes [`OTHERS`].
fn account<'a>(accounts: &'a mut HashMap<Id, Account>, id: &mut Id) -> &'a mut Account {
    if accounts.len() >= ACCOUNTS_MAX && !accounts.contains_key(id) {
        id.client = OTHERS.into();
    }
    accounts.entry(id.clone()).or_default()
}

impl Visit {
    /// Counts the request, which a replica has accepted. With `hides_usage` the client receives no usage in a stream.
    pub(super) fn accepted(mut self, hides_usage: bool) -> Meter {
        self.quotas.clone().with(&mut self, |visit, account, limit, now| {
            if !std::mem::replace(&mut visit.is_counted, true) {
                account.take_request(limit, now);
            }
        });
        self.quotas.metrics.used_request(&self.id.model, &self.id.client);
        Meter {
            visit: self,
            reader: Reader::default(),
            filter: hides_usage.then(Filter::default),
            has_ended: false,
        }
    }
}

/// Reads what an answer costs while it passes, and counts it at its end, even if the client leaves.
#[derive(Debug)]
pub(super) struct Meter {
    visit: Visit,
    reader: Reader,
    filter: Option<Filter>,
    has_ended: bool,
}

impl Meter {
    /// What the client receives of a piece; perhaps nothing.
    pub(super) fn pass(&mut self, piece: Bytes) -> Bytes {
        self.reader.read(&piece);
        match &mut self.filter {
            Some(filter) => filter.pass(&piece),
            None => piece,
        }
    }

    /// What the client receives after the last piece; perhaps nothing.
    pub(super) fn end(&mut self) -> Bytes {
        self.has_ended = true;
        self.filter.as_mut().map_or_else(Bytes::new, Filter::rest)
    }

    /// What the client has left before this answer.
    pub(super) fn allowance(&mut self) -> Allowance {
        let quotas = Arc::clone(&self.visit.quotas);
        quotas.with(&mut self.visit, |_, account, limit, now| {
            account.allowance(limit, now)
        })
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let (usage, quotas) = (self.reader.usage, Arc::clone(&self.visit.quotas));
        let Id { model, client } = &self.visit.id;
        let mut n_tokens = usage
            .prompt
            .unwrap_or(0)
            .saturating_add(usage.completion.unwrap_or(0));
        quotas.metrics.used_tokens(model, client, usage);
        // The client left before the last count, or a stream has none.
        let is_cut = !self.has_ended && usage.completion.is_none_or(|n| n == 0);
        let is_unnamed = usage == Usage::default() && self.reader.n_objects > 1;
        if is_cut || is_unnamed {
            quotas.metrics.estimated(model, client);
            let prompt = usage
                .prompt
                .unwrap_or(self.visit.body_bytes as u64 / BYTES_PER_TOKEN);
            n_tokens = prompt.saturating_add(self.reader.n_objects);
        }
        quotas.with(&mut self.visit, |_, account, limit, now| {
            account.take_tokens(n_tokens, limit, now);
        });
    }
}
