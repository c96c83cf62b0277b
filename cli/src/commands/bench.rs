//! `bench`: streams of chats through port-forwards for some seconds, and what they measured.
//!
//! The way through the API server is part of the figures.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::{Value, json};

use crate::{
    arguments::Bench,
    cluster::Cluster,
    display::percentile,
    endpoint::{Answer, Endpoint},
    error::Error,
    replica::Replica,
};

/// What one stream measured.
#[derive(Clone, Debug, Default, PartialEq)]
struct Measured {
    n_tokens: u64,
    n_answers: u64,
    first_seconds: Vec<f64>,
    gap_seconds: Vec<f64>,
    failures: Vec<String>,
}

pub(super) async fn run(arguments: &Bench, cluster: &Cluster) -> Result<(), Error> {
    let endpoint = Endpoint::of(cluster, &arguments.name, arguments.api_key.as_deref()).await?;
    let n_replicas = endpoint.replicas.len();
    // One answer that is not counted: connections, caches, and errors that every stream would have.
    let warm_up = &endpoint.replicas[0];
    let mut connection = warm_up.connect().await?;
    let mut answer = Answer::start(
        &mut connection,
        &question(&arguments.message, 0),
        &json!({"max_tokens": 1}),
    )
    .await?;
    while answer.next().await?.is_some() {}
    let start = Instant::now();
    let end = start + Duration::from_secs(arguments.seconds);
    eprintln!(
        "{} streams to {n_replicas} replicas for {} s …",
        arguments.streams, arguments.seconds
    );
    let streams = (0..usize::from(arguments.streams))
        .map(|idx| stream(arguments, &endpoint.replicas[idx % n_replicas], (idx, end)));
    let measured = join_all(streams).await;
    let total = measured.into_iter().fold(Measured::default(), Measured::and);
    print!("{}", report(&total, start.elapsed().as_secs_f64()));
    Ok(())
}

/// Asks one question after another until the end; an answer that is running then is cut and counts as far as it came.
async fn stream(arguments: &Bench, replica: &Replica, (idx, end): (usize, Instant)) -> Measured {
    let mut measured = Measured::default();
    let asking = ask_on(arguments, replica, (idx, &mut measured));
    let ended = tokio::time::timeout_at(end.into(), asking).await;
    if let Ok(Err(error)) = ended {
        measured.failures.push(error.to_string());
    }
    measured
}

async fn ask_on(
    arguments: &Bench,
    replica: &Replica,
    (idx, measured): (usize, &mut Measured),
) -> Result<(), Error> {
    let options = json!({"max_tokens": arguments.max_tokens, "ignore_eos": true});
    let mut connection = replica.connect().await?;
    let mut n_asked = idx;
    loop {
        n_asked += usize::from(arguments.streams);
        let messages = question(&arguments.message, n_asked);
        let mut answer = Answer::start(&mut connection, &messages, &options).await?;
        let mut last: Option<Instant> = None;
        let mut counted = 0;
        while answer.next().await?.is_some() {
            if answer.n_tokens == counted {
                continue;
            }
            let now = Instant::now();
            match last {
                None => measured
                    .first_seconds
                    .extend(answer.first.map(|first| first.as_secs_f64())),
                Some(before) => measured.gap_seconds.push((now - before).as_secs_f64()),
            }
            measured.n_tokens += answer.n_tokens - counted;
            (counted, last) = (answer.n_tokens, Some(now));
        }
        measured.n_answers += 1;
    }
}

/// Questions begin differently, so that no prompt is in the prefix cache.
fn question(text: &str, n: usize) -> Vec<Value> {
    vec![json!({"role": "user", "content": format!("{n}. {text}")})]
}

impl Measured {
    fn and(mut self, other: Measured) -> Measured {
        self.n_tokens += other.n_tokens;
        self.n_answers += other.n_answers;
        self.first_seconds.extend(other.first_seconds);
        self.gap_seconds.extend(other.gap_seconds);
        self.failures.extend(other.failures);
        self
    }
}

fn report(total: &Measured, seconds: f64) -> String {
    let shares = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at =
            |share: f64| percentile(&sorted, share).map_or("-".into(), |s| format!("{:.0} ms", s * 1000.0));
        format!("p50 {}   p99 {}   ({} values)", at(0.5), at(0.99), sorted.len())
    };
    let mut out = format!(
        "tokens         {} in {seconds:.1} s: {:.1} tokens/s\nanswers        {} complete\nfirst token    {}\nbetween tokens {}\n",
        total.n_tokens,
        total.n_tokens as f64 / seconds.max(f64::EPSILON),
        total.n_answers,
        shares(&total.first_seconds),
        shares(&total.gap_seconds),
    );
    if let Some(failure) = total.failures.first() {
        out += &format!(
            "streams that ended with an error: {}; the first one: {failure}\n",
            total.failures.len()
        );
    }
    out + "the way through the API server's port-forward is part of these figures\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_adds_the_streams() {
        let of = |first: f64, failure: Option<&str>| Measured {
            n_tokens: 10,
            n_answers: 1,
            first_seconds: vec![first],
            gap_seconds: vec![0.01; 9],
            failures: failure.map(str::to_string).into_iter().collect(),
        };
        let text = report(&of(0.1, None).and(of(0.3, Some("cut"))), 2.0);
        assert_eq!(
            text,
            "tokens         20 in 2.0 s: 10.0 tokens/s\nanswers        2 complete\n\
             first token    p50 100 ms   p99 300 ms   (2 values)\nbetween tokens p50 10 ms   p99 10 ms   (18 values)\n\
             streams that ended with an error: 1; the first one: cut\n\
             the way through the API server's port-forward is part of these figures\n"
        );
        assert!(report(&Measured::default(), 1.0).contains("p50 -"));
    }
}
