//! How much memory there is, and how many blocks of KV cache fit into it.

use std::path::Path;

use crate::batch::KvGroup;
use crate::model::DeviceMemory;

/// Share of the memory left after the weights that the KV cache may take. The rest is for activations, the
/// tokenizer, HTTP and the page cache.
const CACHE_SHARE: f64 = 0.4;

/// Bytes of a device that stay free: for recorded steps, the driver and the code of kernels.
const DEVICE_SLACK_BYTES: u64 = 512 << 20;

/// What the size of the cache depends on.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// Bytes of keys and values of one token, in all layers.
    pub kv_bytes_per_token: u64,
    /// The layers' groups, each of as many layers; a block belongs to one of them. At least one.
    pub groups: &'a [KvGroup],
    /// Tokens in a block.
    pub block_size: usize,
    /// Longest context in tokens.
    pub max_model_len: usize,
    /// Most sequences at a time.
    pub max_num_seqs: usize,
}

/// The memory cannot hold one sequence of the longest context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "one sequence of {max_model_len} tokens needs {bytes_needed} bytes of KV cache, and {bytes_available} are available for it; {fitting_len} tokens fit"
)]
pub struct CacheDoesNotFit {
    /// Longest context in tokens.
    pub max_model_len: usize,
    /// Bytes that one such sequence needs.
    pub bytes_needed: u64,
    /// Bytes that the cache may take.
    pub bytes_available: u64,
    /// The longest context that fits; 0 if not even one block does.
    pub fitting_len: usize,
}

/// Bytes of the host's memory that the cache may take, of `bytes_free`.
pub fn of_host(bytes_free: u64) -> u64 {
    (bytes_free as f64 * CACHE_SHARE) as u64
}

/// Bytes of the host's memory that swapped blocks may take, of `bytes_free`, if they may take this part.
pub fn for_swapping(bytes_free: u64, share: f64) -> u64 {
    (bytes_free as f64 * share) as u64
}

/// Bytes of a device's memory that the cache may take, if everything together may take the part `utilization` of it. What
/// other processes have taken counts too.
pub fn of_device(memory: DeviceMemory, utilization: f64) -> u64 {
    let kept_free = (memory.total_bytes as f64 * (1.0 - utilization)) as u64 + DEVICE_SLACK_BYTES;
    memory.free_bytes.saturating_sub(kept_free)
}

/// Blocks of the cache: as many as all sequences can need, at most what fits into `bytes_available`.
///
/// # Errors
/// When not even one sequence of the longest context fits.
pub fn n_blocks(demand: Demand<'_>, bytes_available: u64) -> Result<usize, CacheDoesNotFit> {
    let bytes_per_block = demand.bytes_per_block();
    let per_sequence = demand.n_blocks_of(demand.max_model_len);
    let wanted = per_sequence.saturating_mul(demand.max_num_seqs as u64);
    let fitting = bytes_available / bytes_per_block;
    if fitting < per_sequence {
        return Err(CacheDoesNotFit {
            max_model_len: demand.max_model_len,
            bytes_needed: per_sequence.saturating_mul(bytes_per_block),
            bytes_available,
            fitting_len: demand.fitting_len(fitting),
        });
    }
    // Slots are numbered with 32 bits.
    let numbered = u64::from(u32::MAX) / demand.block_size as u64;
    Ok(wanted.min(fitting).min(numbered) as usize)
}

/// Blocks of the host for sequences that are swapped out: as many as `swap_space_bytes` hold, at most what fits
/// into `bytes_available`.
pub fn n_host_blocks(demand: Demand<'_>, swap_space_bytes: u64, bytes_available: u64) -> usize {
    let fitting = swap_space_bytes.min(bytes_available) / demand.bytes_per_block();
    fitting.min(u64::from(u32::MAX) / demand.block_size as u64) as usize
}

/// The smallest `bytes_free` with which [`n_blocks`] and [`n_host_blocks`] give caches of these sizes again, if swapped
/// blocks may take the part `host_share` of it.
pub fn bytes_free_for(cache_bytes: u64, host_bytes: u64, host_share: f64) -> u64 {
    let whole = |part: u64, share: f64| match part {
        0 => 0,
        part => (part as f64 / share).ceil() as u64,
    };
    whole(cache_bytes, CACHE_SHARE).max(whole(host_bytes, host_share))
}

impl Demand<'_> {
    /// Blocks that one sequence of `len` tokens needs.
    fn n_blocks_of(&self, len: usize) -> u64 {
        let of_group = |group: &KvGroup| group.n_blocks_min(len, self.block_size) as u64;
        self.groups.iter().map(of_group).sum()
    }

    /// The longest sequence that `n_blocks` blocks hold.
    fn fitting_len(&self, n_blocks: u64) -> usize {
        let (mut fits, mut too_long) = (0, self.max_model_len + 1);
        while too_long - fits > 1 {
            let len = fits + (too_long - fits) / 2;
            if self.n_blocks_of(len) <= n_blocks {
                fits = len;
            } else {
                too_long = len;
            }
        }
        fits
    }

    /// Bytes of keys and values of one block.
    pub fn bytes_per_block(&self) -> u64 {
        let bytes_per_token = self.kv_bytes_per_token / self.groups.len().max(1) as u64;
        bytes_per_token.saturating_mul(self.block_size as u64).max(1)
    }
}

/// Bytes that this process may still take: the machine's available memory, or what its control group leaves.
pub fn bytes_free() -> u64 {
    bytes_free_below(Path::new("/"))
}

fn bytes_free_below(root: &Path) -> u64 {
    let text = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let number = |path: &str| text(path)?.trim().parse::<u64>().ok();
    let available = text("proc/meminfo")
        .and_then(|text| meminfo_bytes(&text, "MemAvailable"))
        .unwrap_or(u64::MAX);
    CONTROL_GROUPS
        .iter()
        .filter_map(|group| {
            // The page cache counts as usage and is given back on demand; the mapped weights are in it.
            let cached = text(group.stat)
                .and_then(|text| stat_bytes(&text, group.cached))
                .unwrap_or(0);
            let usage = number(group.usage)?.saturating_sub(cached);
            Some(number(group.limit)?.saturating_sub(usage))
        })
        .fold(available, u64::min)
}

/// Files of a memory control group.
struct ControlGroup {
    limit: &'static str,
    usage: &'static str,
    stat: &'static str,
    cached: &'static str,
}

/// Versions 2 and 1, as a container sees its own.
const CONTROL_GROUPS: [ControlGroup; 2] = [
    ControlGroup {
        limit: "sys/fs/cgroup/memory.max",
        usage: "sys/fs/cgroup/memory.current",
        stat: "sys/fs/cgroup/memory.stat",
        cached: "inactive_file",
    },
    ControlGroup {
        limit: "sys/fs/cgroup/memory/memory.limit_in_bytes",
        usage: "sys/fs/cgroup/memory/memory.usage_in_bytes",
        stat: "sys/fs/cgroup/memory/memory.stat",
        cached: "total_inactive_file",
    },
];

fn stat_bytes(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A row of `/proc/meminfo`, which counts in units of 1024 bytes.
fn meminfo_bytes(text: &str, name: &str) -> Option<u64> {
    let row = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    row.split_whitespace()
        .next()?
        .parse::<u64>()
        .ok()
        .map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand<'_> = Demand {
        kv_bytes_per_token: 1000,
        groups: &[KvGroup { window: None }],
        block_size: 16,
        max_model_len: 100,
        max_num_seqs: 4,
    };

    #[test]
    fn no_more_than_all_sequences_can_need() {
        assert_eq!(n_blocks(DEMAND, u64::MAX), Ok(7 * 4));
    }

    #[test]
    fn no_more_than_fits() {
        assert_eq!(n_blocks(DEMAND, of_host(16_000 * 25)), Ok(10));
    }

    #[test]
    fn a_window_needs_no_more_than_it_sees() {
        let groups = [KvGroup { window: None }, KvGroup { window: Some(17) }];
        let demand = Demand {
            groups: &groups,
            ..DEMAND
        };
        assert_eq!(n_blocks(demand, u64::MAX), Ok((7 + 2) * 4));
        // A block holds the layers of one of two groups.
        assert_eq!(n_blocks(demand, of_host(8_000 * 25)), Ok(10));
    }

    #[test]
    fn a_device_keeps_what_is_not_to_be_used_and_some_slack() {
        let memory = DeviceMemory {
            total_bytes: 100 << 30,
            free_bytes: 60 << 30,
        };
        assert_eq!(of_device(memory, 0.5), (10 << 30) - DEVICE_SLACK_BYTES);
        assert_eq!(of_device(memory, 0.3), 0);
    }

    #[test]
    fn swapped_blocks_take_their_space_and_no_more_than_their_share() {
        let fitting = |swap_space_bytes, bytes_free, share| {
            n_host_blocks(DEMAND, swap_space_bytes, for_swapping(bytes_free, share))
        };
        assert_eq!(fitting(16_000 * 3, u64::MAX, 0.2), 3);
        assert_eq!(fitting(u64::MAX, 16_000 * 10, 0.2), 2);
        assert_eq!(fitting(u64::MAX, 16_000 * 10, 0.5), 5);
        assert_eq!(fitting(u64::MAX, 16_000 * 10, 0.0), 0);
        assert_eq!(fitting(0, u64::MAX, 0.2), 0);
    }

    #[test]
    fn caches_have_the_same_sizes_in_the_memory_that_is_asked_for_them() {
        for n_wanted in [7, 10, 28] {
            let (cache_bytes, host_bytes) = (16_000 * n_wanted, 16_000 * 3);
            let bytes_free = bytes_free_for(cache_bytes, host_bytes, 0.2);
            assert_eq!(n_blocks(DEMAND, of_host(bytes_free)), Ok(n_wanted as usize));
            assert!(n_host_blocks(DEMAND, host_bytes, for_swapping(bytes_free, 0.2)) >= 3);
        }
    }

    #[test]
    fn one_longest_sequence_must_fit() {
        assert_eq!(
            n_blocks(DEMAND, of_host(16_000 * 17)),
            Err(CacheDoesNotFit {
                max_model_len: 100,
                bytes_needed: 112_000,
                bytes_available: 108_800,
                fitting_len: 96
            })
        );
    }

    #[test]
    fn the_tightest_limit_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/meminfo", "MemTotal:  99 kB\nMemAvailable:   64 kB\n");
        assert_eq!(bytes_free_below(root.path()), 65_536);
        write("sys/fs/cgroup/memory.max", "max\n");
        write("sys/fs/cgroup/memory.current", "5\n");
        assert_eq!(bytes_free_below(root.path()), 65_536);
        write("sys/fs/cgroup/memory.max", "1005\n");
        assert_eq!(bytes_free_below(root.path()), 1000);
        write("sys/fs/cgroup/memory.stat", "inactive_anon 7\ninactive_file 3\n");
        assert_eq!(bytes_free_below(root.path()), 1003);
    }
}
