//! Which turn a submission has among those of all clients.
//!
//! Clients are served in turn. A client that has nothing in the engine has its turn now; one that has some submissions
//! there has it later, by a fixed distance for each. So a client with many requests does not keep others waiting, and
//! submissions of one client keep their order.
//!
//! Now is a number that grows by at least one with each submission, and that is never below the first turn in the engine.
//! So a submission whose turn is `n` later than now is overtaken by fewer than `n` later ones.

use std::collections::BTreeSet;

/// Gives turns to submissions.
#[derive(Debug)]
pub struct Turns {
    now: u64,
    distance: u64,
}

/// What is in the engine when a submission arrives.
#[derive(Debug, Default)]
pub struct Present {
    /// The first turn of a submission; `None`: the engine has nothing to do.
    pub first: Option<u64>,
    /// Turns of the submissions of the client whose submission arrives.
    pub own: BTreeSet<u64>,
}

impl Turns {
    /// Turns in which each submission that a client has in the engine moves its next one back by `distance`.
    pub fn new(distance: u64) -> Turns {
        Turns { now: 0, distance }
    }

    /// The turn of the next submission.
    pub fn next(&mut self, present: &Present) -> u64 {
        self.now = (self.now + 1).max(present.first.unwrap_or(0));
        let in_turn = self.now + present.own.len() as u64 * self.distance;
        present
            .own
            .last()
            .map_or(in_turn, |latest| in_turn.max(latest + 1))
    }

    /// The turn of a client that had nothing in the engine when the latest submission arrived.
    pub fn now(&self) -> u64 {
        self.now
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DISTANCE: u64 = 4;

    /// Submissions in the engine: client and turn, in the order of arrival.
    #[derive(Debug, Default)]
    struct World(Vec<(u8, u64)>);

    impl World {
        fn present(&self, client: u8) -> Present {
            let own = self.0.iter().filter(|(of, _)| *of == client);
            Present {
                first: self.0.iter().map(|(_, turn)| *turn).min(),
                own: own.map(|(_, turn)| *turn).collect(),
            }
        }
    }

    #[test]
    fn a_client_with_nothing_in_the_engine_goes_before_the_many_of_another() {
        let (mut turns, mut world) = (Turns::new(DISTANCE), World::default());
        for _ in 0..256 {
            let turn = turns.next(&world.present(1));
            world.0.push((1, turn));
        }
        let turn = turns.next(&world.present(2));
        let n_before = world.0.iter().filter(|(_, other)| *other <= turn).count();
        // It is late by the 257 submissions until now, and the others by four each.
        assert_eq!((turn, n_before), (257, 52));
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Arrive { client: u8 },
        End { idx: usize },
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0..4u8).prop_map(|client| Op::Arrive { client }),
            2 => (0..20usize).prop_map(|idx| Op::End { idx }),
        ]
    }

    proptest! {
        #[test]
        fn clients_keep_their_order_and_nobody_is_overtaken_without_end(
            ops in prop::collection::vec(op(), 0..400),
        ) {
            let (mut turns, mut world) = (Turns::new(DISTANCE), World::default());
            // Turn, how late it was, and later submissions that came before it.
            let mut seen: Vec<(u64, u64, u64)> = Vec::new();
            let mut n_own_max = 0;
            for op in ops {
                match op {
                    Op::Arrive { client } => {
                        let present = world.present(client);
                        n_own_max = n_own_max.max(present.own.len() as u64);
                        let turn = turns.next(&present);
                        let late = turn - turns.now();
                        prop_assert!(present.own.iter().all(|other| *other < turn), "out of order");
                        prop_assert!(!present.own.is_empty() || late == 0);
                        prop_assert!(late <= n_own_max * DISTANCE, "later than its client has requests");
                        for (other, _, n_overtaking) in &mut seen {
                            *n_overtaking += u64::from(turn < *other);
                        }
                        seen.push((turn, late, 0));
                        world.0.push((client, turn));
                    }
                    Op::End { idx } if idx < world.0.len() => {
                        world.0.remove(idx);
                    }
                    Op::End { .. } => {}
                }
            }
            for (turn, late, n_overtaking) in seen {
                prop_assert!(n_overtaking <= late, "turn {turn}: {n_overtaking} > {late}");
            }
        }
    }
}
