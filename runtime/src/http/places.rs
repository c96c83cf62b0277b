//! Places for what clients keep open: as many as there may be, and the one that has waited longest for its client gives
//! way when all are taken.
//!
//! Clients that are silent on purpose therefore never keep others out. Must not know what a place is for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// A number of places.
#[derive(Debug)]
pub(super) struct Places {
    n_max: usize,
    state: Mutex<State>,
    /// A place was freed, or its holder began to wait for its client.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    n_taken: usize,
    /// Places that were told to give way and are not free yet.
    n_leaving: usize,
    n_waits: u64,
    /// The holders that wait for their clients, the longest wait first.
    waiting: BTreeMap<u64, CancellationToken>,
}

/// What a holder waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// For a complete request.
    Request,
    /// For the client to read.
    Reader,
}

/// A place. It is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    gives_way: CancellationToken,
    waits: Mutex<Waits>,
}

#[derive(Debug, Default)]
struct Waits {
    for_request: bool,
    for_reader: bool,
    /// Its number among the waiting holders.
    number: Option<u64>,
}

impl Places {
    /// This many places.
    pub(super) fn new(n_max: usize) -> Arc<Self> {
        Arc::new(Self {
            n_max: n_max.max(1),
            state: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// Takes a place for somebody who waits for a request. If there is none, the holder that has waited longest gives
    /// way; if no holder waits for its client, this waits.
    pub(super) async fn take(self: &Arc<Self>) -> Place {
        loop {
            let changed = self.changed.notified();
            if let Some(place) = self.try_take() {
                return place;
            }
            changed.await;
        }
    }

    fn try_take(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.state();
        if state.n_taken >= self.n_max {
            state.send_longest_away();
            return None;
        }
        state.n_taken += 1;
        drop(state);
        let place = Place {
            places: Arc::clone(self),
            gives_way: CancellationToken::new(),
            waits: Mutex::default(),
        };
        place.begin(Wait::Request);
        Some(place)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One at a time: the next one only if the first has not made room.
    fn send_longest_away(&mut self) {
        if self.n_leaving == 0
            && let Some((_, longest)) = self.waiting.pop_first()
        {
            self.n_leaving += 1;
            longest.cancel();
        }
    }
}

impl Place {
    /// The holder must give way to another one.
    pub(super) async fn gives_way(&self) {
        self.gives_way.cancelled().await;
    }

    /// From now on the holder waits for its client. Another wait that it has begun before counts on.
    pub(super) fn begin(&self, wait: Wait) {
        let mut waits = self.waits();
        *waits.flag(wait) = true;
        if waits.number.is_none() {
            let mut state = self.places.state();
            let number = state.n_waits;
            state.n_waits += 1;
            state.waiting.insert(number, self.gives_way.clone());
            waits.number = Some(number);
            drop(state);
            self.places.changed.notify_one();
        }
    }

    /// The client did what the holder waited for.
    pub(super) fn end(&self, wait: Wait) {
        let mut waits = self.waits();
        *waits.flag(wait) = false;
        if !waits.for_request
            && !waits.for_reader
            && let Some(number) = waits.number.take()
        {
            self.places.state().waiting.remove(&number);
        }
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waits {
    fn flag(&mut self, wait: Wait) -> &mut bool {
        match wait {
            Wait::Request => &mut self.for_request,
            Wait::Reader => &mut self.for_reader,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let number = self.waits().number.take();
        let mut state = self.places.state();
        state.n_taken -= 1;
        number.and_then(|number| state.waiting.remove(&number));
        if self.gives_way.is_cancelled() {
            state.n_leaving -= 1;
        }
        drop(state);
        self.places.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn must_go(place: &Place) -> bool {
        place.gives_way().now_or_never().is_some()
    }

    #[tokio::test]
    async fn the_longest_wait_gives_way_and_work_does_not() {
        let places = Places::new(3);
        let [first, second, third] = [places.take().await, places.take().await, places.take().await];
        first.end(Wait::Request);
        let newcomer = Arc::clone(&places);
        let taken = tokio::spawn(async move { newcomer.take().await });
        second.gives_way().await;
        assert!(!must_go(&first) && !must_go(&third), "one is enough");
        drop(second);
        let newcomer = taken.await.unwrap();
        // What begins to wait again is the last in the order.
        first.begin(Wait::Request);
        let fifth = Arc::clone(&places);
        let taken = tokio::spawn(async move { fifth.take().await });
        third.gives_way().await;
        drop(third);
        taken.await.unwrap();
        assert!(!must_go(&first) && !must_go(&newcomer));
    }

    #[tokio::test]
    async fn who_does_not_read_waits_for_its_client() {
        let places = Places::new(1);
        let only = places.take().await;
        only.end(Wait::Request);
        assert!(places.take().now_or_never().is_none());
        assert!(!must_go(&only), "its answer is being made");
        only.begin(Wait::Reader);
        assert!(places.take().now_or_never().is_none());
        assert!(must_go(&only));
    }

    /// What happens to one of the places, by its index.
    #[derive(Clone, Copy, Debug)]
    enum Happens {
        Arrives,
        Leaves(usize),
        Begins(usize, Wait),
        Ends(usize, Wait),
    }

    fn happens() -> impl Strategy<Value = Happens> {
        let wait = || prop_oneof![Just(Wait::Request), Just(Wait::Reader)];
        prop_oneof![
            3 => Just(Happens::Arrives),
            1 => (0_usize..8).prop_map(Happens::Leaves),
            1 => (0_usize..8, wait()).prop_map(|(at, wait)| Happens::Begins(at, wait)),
            2 => (0_usize..8, wait()).prop_map(|(at, wait)| Happens::Ends(at, wait)),
        ]
    }

    proptest! {
        #[test]
        fn there_are_never_too_many_and_somebody_who_waits_gives_way(
            n_max in 1_usize..5, events in prop::collection::vec(happens(), 0..100),
        ) {
            let places = Places::new(n_max);
            let mut held: Vec<Place> = Vec::new();
            for event in events {
                match event {
                    Happens::Arrives => {
                        let mut taken = places.try_take();
                        if taken.is_none() {
                            let at = held.iter().position(must_go);
                            let waits = held.iter().any(|place| place.waits().number.is_some());
                            prop_assert_eq!(at.is_some(), waits);
                            at.map(|at| held.remove(at));
                            taken = places.try_take();
                            prop_assert_eq!(taken.is_some(), at.is_some());
                        }
                        held.extend(taken);
                    }
                    Happens::Leaves(at) if at < held.len() => drop(held.remove(at)),
                    Happens::Begins(at, wait) if at < held.len() => held[at].begin(wait),
                    Happens::Ends(at, wait) if at < held.len() => held[at].end(wait),
                    Happens::Leaves(_) | Happens::Begins(..) | Happens::Ends(..) => {}
                }
                let state = places.state();
                prop_assert!(state.n_taken == held.len() && held.len() <= n_max);
                let n_waiting = held.iter().filter(|place| place.waits().number.is_some()).count();
                prop_assert_eq!(state.waiting.len(), n_waiting);
            }
        }
    }
}
