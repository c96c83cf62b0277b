//! How many connections there may be, and how long they may wait.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Most connections of clients.
const CONNECTIONS_MAX: usize = 4096;
/// Connections of the control port: the kubelet, Prometheus and the operator keep few.
const CONTROL_CONNECTIONS_MAX: usize = 32;
/// Fewest connections of clients, however few files the process may open.
const CONNECTIONS_MIN: usize = 16;
/// Open files that are no connections of clients: those of the control port and of the model.
const OTHER_FILES: usize = 128;

/// Bounds of what clients may take without having sent a request.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections at a time. For a further one, the one that has waited longest for its client gives way.
    pub n_max: usize,
    /// Longest time from the start of a connection to the end of its first request's head, the TLS handshake included.
    pub head_timeout: Duration,
    /// Longest time between the end of an answer and the end of the next request's head.
    pub idle_timeout: Duration,
    /// Longest time in which a client reads nothing of what is sent.
    pub stall_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            n_max: CONNECTIONS_MAX,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
        }
    }
}

impl ConnectionLimits {
    /// Bounds for clients, which fit the number of files that this process may open. That number becomes as large as
    /// it may be.
    pub fn of_process() -> Self {
        Self {
            n_max: n_connections_max(n_files_max()),
            ..Self::default()
        }
    }

    /// Bounds for the control port.
    pub fn control() -> Self {
        Self {
            n_max: CONTROL_CONNECTIONS_MAX,
            ..Self::default()
        }
    }
}

fn n_connections_max(n_files_max: usize) -> usize {
    n_files_max
        .saturating_sub(OTHER_FILES)
        .clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
}

/// Files that this process may open, after its limit was raised as far as needed.
fn n_files_max() -> usize {
    let wanted = (CONNECTIONS_MAX + OTHER_FILES) as u64;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let current = current.unwrap_or(u64::MAX);
    let possible = wanted.min(maximum.unwrap_or(u64::MAX));
    let raised = Rlimit {
        current: Some(possible),
        maximum,
    };
    let is_raised = current < possible && setrlimit(Resource::Nofile, raised).is_ok();
    let n_files = if is_raised { possible } else { current };
    usize::try_from(n_files).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_files_leave_room_for_what_is_no_client() {
        assert_eq!(n_connections_max(256), 128);
        assert_eq!(n_connections_max(1024), 896);
        assert_eq!(n_connections_max(usize::MAX), CONNECTIONS_MAX);
        assert_eq!(n_connections_max(0), CONNECTIONS_MIN);
        const { assert!(CONTROL_CONNECTIONS_MAX < OTHER_FILES) };
    }
}
