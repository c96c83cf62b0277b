//! What grammars cost: tokens per second of a batch with a JSON schema and without, in turns:
//! `guided_speed CHECKPOINT [ROUNDS [BATCH [TOKENS]]]`.

use std::env;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use runtime::batch::Forward;
use runtime::engine::{Engine, EngineConfig, Event, GenerateRequest, SamplingParams, Ticket};
use runtime::grammar::{Constraint, Grammar, Grammars};
use runtime::model::{LoadOptions, Model};
use runtime::tokenizer::Tokenizer;
use serde_json::json;

const BLOCK_SIZE: usize = 16;
const N_PROMPT: usize = 32;

/// Sizes of a measurement.
#[derive(Clone, Copy)]
struct Sizes {
    n_rounds: usize,
    n_batch: usize,
    n_tokens: usize,
}

fn main() -> anyhow::Result<()> {
    let mut arguments = env::args().skip(1);
    let folder = arguments
        .next()
        .context("usage: guided_speed CHECKPOINT [ROUNDS [BATCH [TOKENS]]]")?;
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let sizes = Sizes {
        n_rounds: number(5)?,
        n_batch: number(16)?,
        n_tokens: number(32)?,
    };
    let tokenizer = Tokenizer::load(Path::new(&folder))?;
    let (engine, grammars) = start(Path::new(&folder), &tokenizer, sizes)?;
    let begun = Instant::now();
    let grammar = grammars.compile(&Constraint::JsonSchema(schema()))?;
    println!("first grammar, with the tree of tokens: {:?}", begun.elapsed());
    let begun = Instant::now();
    grammars.compile(&Constraint::JsonSchema(schema()))?;
    println!("second grammar: {:?}", begun.elapsed());

    let tokio = tokio::runtime::Builder::new_current_thread().build()?;
    let mut ratios = Vec::new();
    for round in 0..=sizes.n_rounds {
        let free = tokio.block_on(generate(&engine, None, sizes))?;
        let guided = tokio.block_on(generate(&engine, Some(&grammar), sizes))?;
        // The first round warms up.
        if round > 0 {
            println!(
                "round {round}: {:.1} tokens/s free, {:.1} guided",
                rate(free, sizes),
                rate(guided, sizes)
            );
            ratios.push(free.as_secs_f64() / guided.as_secs_f64());
        }
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "guided / free: {:.3} (median of {})",
        ratios[ratios.len() / 2],
        ratios.len()
    );
    Ok(())
}

fn start(folder: &Path, tokenizer: &Tokenizer, sizes: Sizes) -> anyhow::Result<(Engine, Grammars)> {
    let mut model = Model::load(folder, &LoadOptions::default(), &|_| {})?;
    let info = model.info().clone();
    let n_blocks = model.kv_groups().len() * sizes.n_batch * (N_PROMPT + sizes.n_tokens).div_ceil(BLOCK_SIZE);
    model.allocate_cache(n_blocks, BLOCK_SIZE, 0)?;
    let grammars = Grammars::new(tokenizer.tokens(), &info.eos_token_ids, model.vocab_size())?;
    let config = EngineConfig {
        n_blocks,
        block_size: BLOCK_SIZE,
        enable_prefix_caching: false,
        max_num_seqs: sizes.n_batch,
        max_num_batched_tokens: sizes.n_batch * N_PROMPT,
        max_model_len: N_PROMPT + sizes.n_tokens,
        max_waiting: 0,
        eos_token_ids: info.eos_token_ids.into(),
        ..EngineConfig::default()
    };
    Ok((Engine::start(Box::new(model), config)?, grammars))
}

/// A list that no answer comes to the end of.
fn schema() -> serde_json::Value {
    json!({"type": "array", "minItems": 10_000, "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
            "kind": {"enum": ["guest", "member"]},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 20}, "maxItems": 4}
        },
        "required": ["name", "age", "kind", "tags"],
        "additionalProperties": false
    }})
}

/// Time of one batch from its submission to its last token.
async fn generate(engine: &Engine, grammar: Option<&Grammar>, sizes: Sizes) -> anyhow::Result<Duration> {
    let request = |idx: usize| GenerateRequest {
        prompt: (0..N_PROMPT)
            .map(|at| (97 * idx + 31 * at) as u32 % 256)
            .collect(),
        sampling: SamplingParams {
            seed: Some(idx as u64),
            ..SamplingParams::default()
        }
        .into(),
        max_tokens: Some(sizes.n_tokens),
        ignore_eos: true,
        grammar: grammar.cloned(),
        ..GenerateRequest::default()
    };
    let begun = Instant::now();
    let mut tickets = engine.submit((0..sizes.n_batch).map(request).collect())?;
    for ticket in &mut tickets {
        let n_generated = finished(ticket).await?;
        anyhow::ensure!(n_generated == sizes.n_tokens, "an answer of {n_generated} tokens");
    }
    Ok(begun.elapsed())
}

async fn finished(ticket: &mut Ticket) -> anyhow::Result<usize> {
    loop {
        match ticket.next().await {
            Some(Event::Token { .. }) => {}
            Some(Event::Finished { n_generated, .. }) => return Ok(n_generated),
            other => bail!("{other:?}"),
        }
    }
}

fn rate(elapsed: Duration, sizes: Sizes) -> f64 {
    (sizes.n_batch * sizes.n_tokens) as f64 / elapsed.as_secs_f64()
}
