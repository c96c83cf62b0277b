//! A closed loop of clients that read streams and measure them: `sse_load PORT N_CLIENTS SECONDS BODY [RAMP_SECONDS]`.
//!
//! Clients begin evenly over the ramp, without one all at once; the seconds are those after it.
//! Prints one line of JSON: responses and events per second, the wait for the first byte, and the gaps between reads.
//! It speaks HTTP/1.1 itself, so that what it measures costs more than it does; one thread, for a machine of few cores.
//! Knows nothing of what is served but the route.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures::future::try_join_all;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const ROUTE: &str = "/v1/chat/completions";
const END_OF_CHUNKS: &[u8] = b"\r\n0\r\n\r\n";
const READ_BYTES: usize = 64 << 10;

/// What one client saw, in seconds.
#[derive(Default)]
struct Seen {
    n_responses: usize,
    n_events: usize,
    n_bytes: usize,
    first_byte_s: Vec<f64>,
    longest_gap_s: Vec<f64>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (port, n_clients, seconds, body, ramp) = match arguments.as_slice() {
        [port, n_clients, seconds, body] => (port, n_clients, seconds, body, "0"),
        [port, n_clients, seconds, body, ramp] => (port, n_clients, seconds, body, ramp.as_str()),
        _ => bail!("usage: sse_load PORT N_CLIENTS SECONDS BODY [RAMP_SECONDS]"),
    };
    let port: u16 = port.parse()?;
    let n_clients: usize = n_clients.parse()?;
    let request = format!(
        "POST {ROUTE} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let start = Instant::now();
    let ramp = Duration::from_secs_f64(ramp.parse()?);
    let end = start + ramp + Duration::from_secs_f64(seconds.parse()?);
    let begin = |idx: usize| start + ramp.mul_f64(idx as f64 / n_clients as f64);
    let clients = (0..n_clients).map(|idx| client(port, &request, (begin(idx), end)));
    let seen = try_join_all(clients).await?;
    println!("{}", report(seen, start.elapsed().as_secs_f64()));
    Ok(())
}

/// Asks again and again on one connection from `begin` to `end`, at least once.
async fn client(port: u16, request: &str, (begin, end): (Instant, Instant)) -> anyhow::Result<Seen> {
    tokio::time::sleep_until(begin.into()).await;
    let mut seen = Seen::default();
    let mut stream = connect(port).await?;
    while seen.n_responses == 0 || Instant::now() < end {
        stream.write_all(request.as_bytes()).await?;
        if !response(&mut stream, &mut seen).await? {
            stream = connect(port).await?;
        }
    }
    Ok(seen)
}

async fn connect(port: u16) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads one response to its end; whether the connection may be used again. The events of a client's first response
/// are counted, those of others taken to be as many.
async fn response(stream: &mut TcpStream, seen: &mut Seen) -> anyhow::Result<bool> {
    let asked_at = Instant::now();
    let mut buffer = vec![0; READ_BYTES];
    let mut head = Vec::new();
    let body_start = loop {
        let n_read = stream.read(&mut buffer).await?;
        ensure!(n_read > 0, "the server closed the connection inside a head");
        head.extend_from_slice(&buffer[..n_read]);
        if let Some(at) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(&head[..body_start]).to_ascii_lowercase();
    ensure!(text.starts_with("http/1.1 200"), "{text}");
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let length: Option<usize> = field("content-length:").map(str::parse).transpose()?;
    ensure!(
        length.is_some() || field("transfer-encoding:") == Some("chunked"),
        "{text}"
    );
    let counts_events = seen.n_responses == 0;
    let mut body = head.split_off(body_start);
    let mut n_body = body.len();
    let (mut first, mut last, mut longest_gap) = (None, asked_at, Duration::ZERO);
    loop {
        if n_body > 0 {
            let now = Instant::now();
            longest_gap = longest_gap.max(first.map_or(Duration::ZERO, |_: Instant| now - last));
            first = first.or(Some(now));
            last = now;
        }
        if length.map_or(body.ends_with(END_OF_CHUNKS), |length| n_body >= length) {
            break;
        }
        let n_read = stream.read(&mut buffer).await?;
        ensure!(n_read > 0, "the server closed the connection inside a body");
        n_body += n_read;
        body.extend_from_slice(&buffer[..n_read]);
        if !counts_events {
            body.drain(..body.len().saturating_sub(END_OF_CHUNKS.len()));
        }
    }
    if counts_events {
        seen.n_events = body.windows(6).filter(|bytes| bytes == b"data: ").count();
    }
    seen.n_responses += 1;
    seen.n_bytes += n_body;
    let first = first.context("the body is empty")?;
    seen.first_byte_s.push((first - asked_at).as_secs_f64());
    seen.longest_gap_s.push(longest_gap.as_secs_f64());
    Ok(field("connection:") != Some("close"))
}

fn report(seen: Vec<Seen>, elapsed_s: f64) -> serde_json::Value {
    let n_responses: usize = seen.iter().map(|client| client.n_responses).sum();
    let n_events: usize = seen
        .iter()
        .map(|client| client.n_events * client.n_responses)
        .sum();
    let n_bytes: usize = seen.iter().map(|client| client.n_bytes).sum();
    let all = |of: fn(&Seen) -> &Vec<f64>| {
        let mut numbers: Vec<f64> = seen
            .iter()
            .flat_map(|client| of(client).iter().copied())
            .collect();
        numbers.sort_by(f64::total_cmp);
        numbers
    };
    let (first, gaps) = (
        all(|client| &client.first_byte_s),
        all(|client| &client.longest_gap_s),
    );
    let ms = |sorted: &[f64], share: f64| 1e3 * sorted[((sorted.len() - 1) as f64 * share) as usize];
    json!({
        "responses": n_responses,
        "events": n_events,
        "seconds": elapsed_s,
        "responses_per_s": n_responses as f64 / elapsed_s,
        "events_per_s": n_events as f64 / elapsed_s,
        "megabytes_per_s": n_bytes as f64 / elapsed_s / 1e6,
        "first_byte_ms_p50": ms(&first, 0.5),
        "first_byte_ms_p99": ms(&first, 0.99),
        "longest_gap_ms_p50": ms(&gaps, 0.5),
        "longest_gap_ms_p99": ms(&gaps, 0.99),
        "longest_gap_ms": ms(&gaps, 1.0),
    })
}
