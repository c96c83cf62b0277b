//! What an operator of the server sees: metrics, a line of statistics, and the log of requests.

pub mod metrics;
pub mod preemptions;
pub mod request_log;
pub mod statistics;
