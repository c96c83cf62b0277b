//! A line of the log with throughput and load, as vLLM logs it.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::{Counters, Engine, Load};

/// Time between two lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// Logs a line every 10 s in which something was done, and one last line when it falls idle.
pub async fn log(engine: Arc<Engine>) {
    let mut interval = tokio::time::interval(INTERVAL);
    let mut before = Totals::of(engine.counters());
    let mut was_idle = true;
    loop {
        interval.tick().await;
        let now = Totals::of(engine.counters());
        let load = engine.load();
        let is_idle = now == before && load.n_running + load.n_waiting == 0;
        if !(is_idle && was_idle) {
            tracing::info!("{}", line(before, now, &load));
        }
        (before, was_idle) = (now, is_idle);
    }
}

/// Tokens since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    n_prompt: u64,
    n_generated: u64,
    n_asked: u64,
    n_hit: u64,
}

impl Totals {
    fn of(counters: &Counters) -> Self {
        Self {
            n_prompt: counters.prompt_tokens.get(),
            n_generated: counters.generation_tokens.get(),
            n_asked: counters.prefix_cache_queries.get(),
            n_hit: counters.prefix_cache_hits.get(),
        }
    }
}

fn line(before: Totals, now: Totals, load: &Load) -> String {
    let per_second = |before: u64, now: u64| now.saturating_sub(before) as f64 / INTERVAL.as_secs_f64();
    let percent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
    format!(
        "Avg prompt throughput: {:.1} tokens/s, Avg generation throughput: {:.1} tokens/s, Running: {} reqs, \
         Waiting: {} reqs, KV cache usage: {:.1}%, Prefix cache hit rate: {:.1}%",
        per_second(before.n_prompt, now.n_prompt),
        per_second(before.n_generated, now.n_generated),
        load.n_running,
        load.n_waiting,
        percent(load.n_blocks_used as u64, load.n_blocks as u64),
        percent(now.n_hit, now.n_asked),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_what_was_done_since_the_line_before() {
        let before = Totals {
            n_prompt: 100,
            n_generated: 50,
            n_asked: 10,
            n_hit: 1,
        };
        let now = Totals {
            n_prompt: 600,
            n_generated: 75,
            n_asked: 40,
            n_hit: 10,
        };
        let load = Load {
            n_running: 3,
            n_waiting: 2,
            n_blocks_used: 1,
            n_blocks: 8,
            ..Load::default()
        };
        assert_eq!(
            line(before, now, &load),
            "Avg prompt throughput: 50.0 tokens/s, Avg generation throughput: 2.5 tokens/s, Running: 3 reqs, \
             Waiting: 2 reqs, KV cache usage: 12.5%, Prefix cache hit rate: 25.0%"
        );
    }
}
