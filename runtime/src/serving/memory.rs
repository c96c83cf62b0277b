//! How much memory this process takes at most, so that its container can have a limit that it never reaches.
//!
//! What it takes once it has answered is measured; what it may take besides follows from the sizes of its caches, of a step
//! and of requests.

use std::path::Path;

use super::capacity;

const MIB: u64 = 1 << 20;

/// What requests take at most, without their preparation: bodies in arrival 128 MiB, what they become 192 MiB, jobs 256 MiB,
/// unread answers 64 MiB (docs/security.md).
const REQUESTS_BYTES: u64 = 640 * MIB;
/// What the preparation of one request takes at most: a template has 256 MiB.
const PLACE_BYTES: u64 = 256 * MIB;
/// Places for the preparation of requests that are counted. More of them are never full at the same time: a template needs
/// some seconds of a processor to fill one.
const PLACES_MAX: u64 = 4;
/// One part in so many of what was measured, for the gaps of the allocator.
const SLACK_PART: u64 = 16;
/// A limit is a multiple of this, so that equal replicas have the same.
const STEP_BYTES: u64 = 64 * MIB;

/// What the process may take besides what it takes now, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Growth {
    /// The cache of keys and values.
    pub(super) cache_bytes: u64,
    /// The cache of sequences that are swapped out.
    pub(super) host_bytes: u64,
    /// The part of the free memory that it may take.
    pub(super) host_share: f64,
    /// Activations and results of the largest step.
    pub(super) step_bytes: u64,
}

/// Bytes that this process takes at most; `None` if the system does not say what it takes now.
pub(super) fn bytes_max(growth: Growth) -> Option<u64> {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).ok()?;
    Some(bytes_max_of(growth, resident_bytes(&status)?))
}

/// A process that starts again below this limit also finds room for caches of the same sizes.
fn bytes_max_of(growth: Growth, resident_bytes: u64) -> u64 {
    let Growth {
        cache_bytes,
        host_bytes,
        host_share,
        step_bytes,
    } = growth;
    let requests = REQUESTS_BYTES + PLACES_MAX * PLACE_BYTES;
    let while_serving = cache_bytes + host_bytes + step_bytes + requests;
    let at_start = capacity::bytes_free_for(cache_bytes, host_bytes, host_share);
    let slack = resident_bytes / SLACK_PART;
    (resident_bytes + slack + while_serving.max(at_start)).next_multiple_of(STEP_BYTES)
}

/// Memory of the process that is no copy of a file, from the text of `/proc/self/status`.
fn resident_bytes(status: &str) -> Option<u64> {
    let row = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: u64 = row.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_limit_holds_what_is_there_and_all_that_may_come() {
        let growth = Growth {
            cache_bytes: GIB,
            host_bytes: 0,
            host_share: 0.2,
            step_bytes: GIB / 2,
        };
        let bytes = bytes_max_of(growth, 16 * GIB);
        assert!(
            bytes >= 16 * GIB + GIB + GIB + GIB / 2 + REQUESTS_BYTES,
            "{bytes}"
        );
        assert!(bytes <= 21 * GIB, "{bytes}");
        assert_eq!(bytes % STEP_BYTES, 0);
    }

    #[test]
    fn a_large_cache_finds_room_again_after_a_restart() {
        let growth = Growth {
            cache_bytes: 40 * GIB,
            ..Growth::default()
        };
        assert!(bytes_max_of(growth, GIB) >= GIB + capacity::bytes_free_for(40 * GIB, 0, 0.2));
    }

    #[test]
    fn anonymous_memory_is_read_from_the_status_of_the_process() {
        let status = "VmRSS:\t  300 kB\nRssAnon:\t     200 kB\nRssFile:\t 100 kB\n";
        assert_eq!(resident_bytes(status), Some(200 * 1024));
        assert_eq!(resident_bytes("VmRSS: 300 kB\n"), None);
    }
}
