//! The results as a table for people.

use std::fmt::{self, Display, Formatter};

use super::machine::Limits;
use super::report::{Bound, OpTime, Phase, PhaseKind, Rates, Report, Served, WeightsFrom};

/// A difference of the probes from which on the table says that the machine was not quiet.
const DRIFT: f64 = 0.2;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let machine = &self.machine;
        writeln!(
            f,
            "machine  {}, {} threads, {}, last cache {}; computed on: {}",
            machine.processor,
            machine.threads,
            machine.instructions,
            machine.last_cache_bytes.map_or("unknown".into(), mebibytes),
            machine.device,
        )?;
        let model = &self.model;
        writeln!(
            f,
            "model    {} in {}: {:.2} G parameters, {:.2} GB of weights in {} ({}), {} bytes of KV cache per token",
            model.architecture,
            model.folder,
            model.parameters as f64 / 1e9,
            model.weights_bytes as f64 / 1e9,
            model.dtype,
            match model.weights {
                WeightsFrom::Files => "from files",
                WeightsFrom::Random => "random numbers",
            },
            model.kv_bytes_per_token,
        )?;
        writeln!(
            f,
            "\n{:<9}{:>7}  {:>22}  {:>22}  {:>22}",
            "probe", "threads", "read, 1 stream, GB/s", "read, streams, GB/s", "f32 FMA, GFLOP/s"
        )?;
        for (start, end) in self.probe.start.iter().zip(&self.probe.end) {
            probe_row(f, start, end)?;
        }
        if self.probe.start.iter().zip(&self.probe.end).any(drifts) {
            writeln!(
                f,
                "         start and end differ by more than {:.0} %: others use this machine, so measure again",
                100.0 * DRIFT
            )?;
        }
        if !self.steps.is_empty() {
            writeln!(
                f,
                "\n{:<26}{:>10}{:>11}{:>21}{:>6}  {RATES}",
                "steps", "tokens/s", "ms", "ms, min – max", "runs"
            )?;
        }
        self.steps.iter().try_for_each(|phase| step_row(f, phase))?;
        for phase in self.steps.iter().filter(|phase| !phase.ops.is_empty()) {
            profile(f, phase)?;
        }
        self.served.iter().try_for_each(|served| streams(f, served))
    }
}

/// The head of what [`rates`] writes.
const RATES: &str = "   GB/s   GFLOP/s   of the limit";

fn rates(rates: &Rates) -> String {
    let limit = match (rates.of_limit, rates.bound) {
        (Some(share), Some(Bound::Memory)) => format!("{:>4.0} % of reading", 100.0 * share),
        (Some(share), Some(Bound::Compute)) => format!("{:>4.0} % of FMA", 100.0 * share),
        (None, _) | (_, None) => "   –".to_owned(),
    };
    format!("{:>7.1}{:>10.1}   {limit}", rates.gb_s, rates.gflop_s)
}

fn probe_row(f: &mut Formatter<'_>, start: &Limits, end: &Limits) -> fmt::Result {
    let pair = |of: fn(&Limits) -> f64| format!("{:.1} | {:.1}", of(start), of(end));
    writeln!(
        f,
        "{:<9}{:>7}  {:>22}  {:>22}  {:>22}",
        "",
        start.threads,
        pair(|limits| limits.read_one_stream_gb_s),
        pair(|limits| limits.read_streams_gb_s),
        pair(|limits| limits.fma_f32_gflop_s),
    )
}

fn drifts((start, end): (&Limits, &Limits)) -> bool {
    let is_far = |a: f64, b: f64| (a - b).abs() > DRIFT * a.max(b);
    is_far(start.read_gb_s(), end.read_gb_s()) || is_far(start.fma_f32_gflop_s, end.fma_f32_gflop_s)
}

impl PhaseKind {
    /// A phase of it in words.
    pub(super) fn title(self, n_sequences: usize, context_len: usize) -> String {
        match self {
            PhaseKind::Prefill => format!("prefill {context_len}"),
            PhaseKind::Decode => format!("decode {n_sequences} × {context_len} tokens"),
        }
    }
}

impl Phase {
    /// What it is, in words.
    pub fn title(&self) -> String {
        self.kind.title(self.sequences, self.context_len)
    }
}

fn step_row(f: &mut Formatter<'_>, phase: &Phase) -> fmt::Result {
    writeln!(
        f,
        "{:<26}{:>10.1}{:>11.2}{:>21}{:>6}  {}",
        phase.title(),
        phase.tokens_per_s,
        phase.ms.p50,
        format!("{:.2} – {:.2}", phase.ms.min, phase.ms.max),
        phase.runs,
        rates(&phase.rates),
    )
}

fn profile(f: &mut Formatter<'_>, phase: &Phase) -> fmt::Result {
    writeln!(
        f,
        "\n{:<34}{:>6}{:>11}{:>8}  {RATES}",
        phase.title(),
        "count",
        "ms",
        "share"
    )?;
    phase.ops.iter().try_for_each(|op: &OpTime| {
        writeln!(
            f,
            "  {:<32}{:>6}{:>11.3}{:>6.1} %  {}",
            op.op,
            op.count,
            op.ms,
            100.0 * op.share,
            rates(&op.rates),
        )
    })
}

fn streams(f: &mut Formatter<'_>, served: &Served) -> fmt::Result {
    writeln!(
        f,
        "\n{} streams at once, prompts of {}, answers of {} tokens, through the engine; {} run{}",
        served.streams,
        served.prompt_tokens,
        served.output_tokens,
        served.runs,
        if served.runs == 1 { "" } else { "s" },
    )?;
    let mut row = |name: &str, text: String| writeln!(f, "  {name:<34}{text}");
    row("tokens/s of all answers", format!("{:.1}", served.tokens_per_s))?;
    let first = served.first_token_ms;
    row(
        "first token, ms",
        format!("p50 {:.0}   p99 {:.0}", first.p50, first.p99),
    )?;
    if let Some(gap) = served.gap_ms {
        row(
            "between tokens, ms",
            format!("p50 {:.1}   p99 {:.1}   max {:.1}", gap.p50, gap.p99, gap.max),
        )?;
    }
    if let (Some(tokens), Some(longest)) = (served.prompt_tokens_in_gap, served.prompt_tokens_in_longest_gap)
    {
        row(
            "others' prompt tokens meanwhile",
            format!(
                "p50 {}   p99 {}   in the longest gap {longest}",
                tokens.p50, tokens.p99
            ),
        )?;
    }
    row(
        "steps",
        format!("{}  {}", served.steps, rates(&served.rates).trim_start()),
    )
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20))
}
