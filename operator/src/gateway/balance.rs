//! Chooses a replica. Pure.

use std::{collections::BTreeSet, net::SocketAddr};

/// How a replica is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Strategy {
    /// The one with the fewest requests.
    #[default]
    LeastLoad,
    /// The one that is likely to have the prompt's beginning in its prefix cache, unless it has a quarter more requests
    /// than the mean. Mirrokni, Thorup and Zadimoghaddam (2016): consistent hashing with bounded loads.
    PrefixHash,
}

/// A replica that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) address: SocketAddr,
    /// Requests that run or wait there.
    pub(super) n_requests: usize,
}

/// By how much a replica may exceed the mean load.
const LOAD_FACTOR: f64 = 1.25;

/// The replica for a request; `None` without candidates. `prefix` is the hash of the prompt's beginning, and `turn`
/// makes equal replicas take turns. Replicas that were `tried` are taken only if there is no other.
pub(super) fn choose(
    candidates: &[Candidate],
    tried: &BTreeSet<SocketAddr>,
    prefix: Option<u64>,
    turn: usize,
) -> Option<SocketAddr> {
    let is_new = |candidate: &&Candidate| !tried.contains(&candidate.address);
    let new: Vec<Candidate> = candidates.iter().filter(is_new).copied().collect();
    let open = if new.is_empty() { candidates } else { &new };
    match prefix {
        None => least_loaded(open, turn),
        Some(prefix) => by_prefix(open, prefix),
    }
}

fn least_loaded(candidates: &[Candidate], turn: usize) -> Option<SocketAddr> {
    let n = candidates.len();
    let in_turn = (0..n).map(|idx| candidates[(idx + turn) % n]);
    Some(in_turn.min_by_key(|candidate| candidate.n_requests)?.address)
}

/// Rendezvous hashing (Thaler and Ravishankar 1996): a replica that comes or goes moves only its own prompts.
fn by_prefix(candidates: &[Candidate], prefix: u64) -> Option<SocketAddr> {
    let n_requests: usize = candidates.iter().map(|candidate| candidate.n_requests).sum();
    let most = ((n_requests + 1) as f64 * LOAD_FACTOR / candidates.len() as f64).ceil() as usize;
    let has_room = |candidate: &&Candidate| candidate.n_requests < most;
    let rank = |candidate: &&Candidate| weight(candidate.address, prefix);
    let chosen = candidates.iter().filter(has_room).max_by_key(rank);
    Some(chosen.or_else(|| candidates.iter().max_by_key(rank))?.address)
}

fn weight(address: SocketAddr, prefix: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&prefix.to_le_bytes());
    hasher.update(address.to_string().as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(loads: &[usize]) -> Vec<Candidate> {
        let address = |idx: usize| format!("10.0.0.{idx}:8000").parse().unwrap();
        let of = |(idx, &n_requests)| Candidate {
            address: address(idx),
            n_requests,
        };
        loads.iter().enumerate().map(of).collect()
    }

    fn index(address: SocketAddr) -> usize {
        address.to_string()["10.0.0.".len()..]
            .split(':')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }

    fn choice(loads: &[usize], tried: &[usize], prefix: Option<u64>, turn: usize) -> Option<usize> {
        let all = candidates(loads);
        let tried = tried.iter().map(|&idx| all[idx].address).collect();
        choose(&all, &tried, prefix, turn).map(index)
    }

    #[test]
    fn the_fewest_requests_win_and_equals_take_turns() {
        assert_eq!(choice(&[3, 1, 2], &[], None, 7), Some(1));
        let turns: Vec<_> = (0..4)
            .map(|turn| choice(&[0, 0, 5, 0], &[], None, turn).unwrap())
            .collect();
        assert_eq!(turns, [0, 1, 3, 3]);
        assert_eq!(choice(&[], &[], None, 0), None);
    }

    #[test]
    fn a_tried_replica_comes_last() {
        assert_eq!(choice(&[0, 9], &[0], None, 0), Some(1));
        assert_eq!(choice(&[0, 9], &[0], Some(1), 0), Some(1));
        assert_eq!(choice(&[4], &[0], None, 0), Some(0), "there is no other");
    }

    #[test]
    fn a_prefix_stays_at_its_replica_until_that_is_too_full() {
        for prefix in 0..50 {
            let home = choice(&[0; 5], &[], Some(prefix), 0).unwrap();
            let mut loads = [2; 5];
            assert_eq!(choice(&loads, &[], Some(prefix), 1), Some(home));
            loads[home] = 9;
            assert_ne!(choice(&loads, &[], Some(prefix), 2), Some(home));
        }
        let homes: BTreeSet<_> = (0..50)
            .map(|prefix| choice(&[0; 5], &[], Some(prefix), 0))
            .collect();
        assert_eq!(homes.len(), 5, "prefixes are spread");
    }
}
