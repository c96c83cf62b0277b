//! Who gets the next place: clients in turn, and of one client in turn its smallest work and its oldest.
//!
//! A client holds at most all but one of the places while others wait. Must not know threads or time.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Places for work, and the work that waits for one.
#[derive(Debug)]
pub(super) struct Turns<C, W> {
    n_places: usize,
    n_waiting_max: usize,
    /// The waiting work of each client, in the order of the clients' turns.
    waiting: VecDeque<Queue<C, W>>,
    n_waiting: usize,
    /// Places that each client holds; clients without a place are absent.
    held: HashMap<C, usize>,
    next_id: u64,
}

/// The waiting work of one client, the oldest first.
#[derive(Debug)]
struct Queue<C, W> {
    client: C,
    works: VecDeque<Waiting<W>>,
    /// The next turn is for the smallest work, so that it does not wait for all large work that came before; the turn
    /// after it is for the oldest work, so that none waits for ever.
    is_for_smallest: bool,
}

#[derive(Debug)]
struct Waiting<W> {
    id: u64,
    n_bytes: usize,
    work: W,
}

impl<C: Copy + Eq + Hash, W> Turns<C, W> {
    /// `n_places` places, at least one, and room for `n_waiting_max` pieces of waiting work.
    pub(super) fn new(n_places: usize, n_waiting_max: usize) -> Self {
        Self {
            n_places: n_places.max(1),
            n_waiting_max,
            waiting: VecDeque::new(),
            n_waiting: 0,
            held: HashMap::new(),
            next_id: 0,
        }
    }

    /// Adds work of a client, whose input has `n_bytes` bytes, and returns its id; `None` if there is no room. One client
    /// takes at most half of the room, so that others find some.
    pub(super) fn arrive(&mut self, client: C, n_bytes: usize, work: W) -> Option<u64> {
        let idx = self.waiting.iter().position(|queue| queue.client == client);
        let n_own = idx.map_or(0, |idx| self.waiting[idx].works.len());
        if self.n_waiting >= self.n_waiting_max || n_own > self.n_waiting_max / 2 {
            return None;
        }
        let id = self.next_id;
        self.next_id += 1;
        let arrived = Waiting { id, n_bytes, work };
        match idx {
            Some(idx) => self.waiting[idx].works.push_back(arrived),
            None => self.waiting.push_back(Queue {
                client,
                works: VecDeque::from([arrived]),
                is_for_smallest: true,
            }),
        }
        self.n_waiting += 1;
        Some(id)
    }

    /// Gives a place to the next client in turn that may have one; `None` if there is none.
    pub(super) fn next(&mut self) -> Option<(C, W)> {
        if self.held.values().sum::<usize>() >= self.n_places {
            return None;
        }
        let n_max = match self.waiting.len() {
            0 | 1 => self.n_places,
            _ => (self.n_places - 1).max(1),
        };
        let n_held = |client: &C| self.held.get(client).copied().unwrap_or_default();
        let idx = self
            .waiting
            .iter()
            .position(|queue| n_held(&queue.client) < n_max)?;
        let mut queue = self.waiting.remove(idx)?;
        let work = queue.take()?;
        let client = queue.client;
        if !queue.works.is_empty() {
            self.waiting.push_back(queue);
        }
        self.n_waiting -= 1;
        *self.held.entry(client).or_default() += 1;
        Some((client, work))
    }

    /// Takes back a place that a client held.
    pub(super) fn ended(&mut self, client: C) {
        if let Some(n_held) = self.held.get_mut(&client) {
            *n_held -= 1;
            if *n_held == 0 {
                self.held.remove(&client);
            }
        }
    }

    /// Removes work that waits; `None` if it does not wait any longer.
    pub(super) fn leave(&mut self, client: C, id: u64) -> Option<W> {
        let idx = self.waiting.iter().position(|queue| queue.client == client)?;
        let works = &mut self.waiting[idx].works;
        let at = works.iter().position(|waiting| waiting.id == id)?;
        let left = works.remove(at)?;
        if works.is_empty() {
            self.waiting.remove(idx);
        }
        self.n_waiting -= 1;
        Some(left.work)
    }
}

impl<C, W> Queue<C, W> {
    /// Takes the work whose turn it is.
    fn take(&mut self) -> Option<W> {
        let is_for_smallest = self.is_for_smallest;
        self.is_for_smallest = !is_for_smallest;
        let sizes = self.works.iter().map(|waiting| waiting.n_bytes).enumerate();
        let at = match is_for_smallest {
            true => sizes.min_by_key(|(_, n_bytes)| *n_bytes)?.0,
            false => 0,
        };
        Some(self.works.remove(at)?.work)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// What happens to the places.
    #[derive(Clone, Copy, Debug)]
    enum Happens {
        /// Work of this client arrives.
        Arrives(u8),
        /// One of the works that hold a place ends.
        Ends(usize),
        /// One of the works that wait leaves.
        Leaves(usize),
    }

    fn happens() -> impl Strategy<Value = Happens> {
        prop_oneof![
            4 => (0..5u8).prop_map(Happens::Arrives),
            // One client has more work than all others together.
            4 => Just(Happens::Arrives(0)),
            6 => any::<usize>().prop_map(Happens::Ends),
            1 => any::<usize>().prop_map(Happens::Leaves),
        ]
    }

    const N_WAITING_MAX: usize = 40;

    /// The size of a work.
    fn n_bytes(work: u64) -> usize {
        (work * 7919 % 11) as usize
    }

    /// The places, with a list of what waits and what runs beside them.
    struct Simulation {
        turns: Turns<u8, u64>,
        n_places: usize,
        n_works: u64,
        /// Client, work and id of what waits, in the order of arrival.
        waiting: Vec<(u8, u64, u64)>,
        running: Vec<(u8, u64)>,
        /// For each client, whether its next turn is for its smallest work.
        is_for_smallest: [bool; 5],
        /// For each client that waits, how often each other client began since it could have begun.
        begun: [[usize; 5]; 5],
    }

    impl Simulation {
        fn new(n_places: usize) -> Self {
            Self {
                turns: Turns::new(n_places, N_WAITING_MAX),
                n_places,
                n_works: 0,
                waiting: Vec::new(),
                running: Vec::new(),
                is_for_smallest: [true; 5],
                begun: [[0; 5]; 5],
            }
        }

        fn happen(&mut self, happens: Happens) {
            match happens {
                Happens::Arrives(client) => {
                    self.n_works += 1;
                    let work = self.n_works;
                    let is_first = self.waiting.iter().all(|(other, ..)| *other != client);
                    match self.turns.arrive(client, n_bytes(work), work) {
                        Some(id) => self.waiting.push((client, work, id)),
                        None => {
                            let n_own = self.waiting.iter().filter(|(other, ..)| *other == client).count();
                            assert!(self.waiting.len() == N_WAITING_MAX || n_own > N_WAITING_MAX / 2);
                        }
                    }
                    if is_first {
                        self.begun[usize::from(client)] = [0; 5];
                        self.is_for_smallest[usize::from(client)] = true;
                    }
                }
                Happens::Ends(at) if !self.running.is_empty() => {
                    let at = at % self.running.len();
                    let (client, _) = self.running.swap_remove(at);
                    self.turns.ended(client);
                }
                Happens::Leaves(at) if !self.waiting.is_empty() => {
                    let at = at % self.waiting.len();
                    let (client, work, id) = self.waiting.remove(at);
                    assert_eq!(self.turns.leave(client, id), Some(work));
                    assert_eq!(self.turns.leave(client, id), None);
                }
                Happens::Ends(_) | Happens::Leaves(_) => {}
            }
            self.fill();
        }

        fn n_held(&self, client: u8) -> usize {
            self.running.iter().filter(|(other, _)| *other == client).count()
        }

        /// How many places a client that waits may hold.
        fn n_held_max(&self, client: u8) -> usize {
            match self.waiting.iter().any(|(other, ..)| *other != client) {
                true => (self.n_places - 1).max(1),
                false => self.n_places,
            }
        }

        /// Whether a client that waits may begin as soon as a place is free.
        fn may_begin(&self, client: u8) -> bool {
            self.n_held(client) < self.n_held_max(client)
        }

        fn fill(&mut self) {
            loop {
                let is_free = self.running.len() < self.n_places;
                let waits = self.waiting.iter().any(|(client, ..)| self.may_begin(*client));
                let Some((client, work)) = self.turns.next() else {
                    assert!(!is_free || !waits, "a place stays empty");
                    return;
                };
                assert!(is_free, "too many places");
                assert!(self.may_begin(client), "a client took the last place");
                self.begin(client, work);
            }
        }

        fn begin(&mut self, client: u8, work: u64) {
            let others: BTreeSet<u8> = self.waiting.iter().map(|(other, ..)| *other).collect();
            for other in others {
                if other != client && self.may_begin(other) {
                    let n_begun = &mut self.begun[usize::from(other)][usize::from(client)];
                    *n_begun += 1;
                    assert!(*n_begun <= 1, "{client} began twice while {other} waited");
                }
            }
            self.begun[usize::from(client)] = [0; 5];
            let own = || self.waiting.iter().filter(|(other, ..)| *other == client);
            let expected = match self.is_for_smallest[usize::from(client)] {
                true => own().min_by_key(|(_, work, _)| n_bytes(*work)),
                false => own().next(),
            };
            assert_eq!(expected.unwrap().1, work);
            self.is_for_smallest[usize::from(client)] ^= true;
            self.waiting.retain(|(_, other, _)| *other != work);
            self.running.push((client, work));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn clients_begin_in_turn(n_places in 1..5usize, events in prop::collection::vec(happens(), 1..300)) {
            let mut simulation = Simulation::new(n_places);
            for event in events {
                simulation.happen(event);
            }
        }
    }
}
