//! Checkpoints: the trained model to the bit, dtypes, progress, limits, and what broken files and contradictory
//! batches get.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "oracle/fixture.rs"]
mod fixture;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use runtime::batch::{Batch, BatchRow, BlockId, BlockMove, HostBlockId, Logits, StepError};
use runtime::model::{DtypeChoice, KvDtypeChoice, LoadFormat, LoadOptions, Model, ModelError};
use serde::Deserialize;

/// Largest difference of a logit or a log-probability between two fp32 implementations.
const TOLERANCE: f64 = 2e-4;
/// Margins below this may fall to either token.
const MARGIN_MIN: f64 = 4.0 * TOLERANCE;

const BLOCK_SIZE: usize = 16;
const N_BLOCKS: usize = 1024;

#[derive(Deserialize)]
struct Reference {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    ids: Vec<u32>,
    prompt_logprobs: Vec<Option<f64>>,
    last_logits_top20: Vec<(u32, f64)>,
    greedy: Vec<u32>,
    greedy_margins: Vec<f64>,
}

/// A sequence in the cache: its tokens so far, how many of them were run, and its blocks.
#[derive(Clone)]
struct Sequence {
    tokens: Vec<u32>,
    n_prompt: usize,
    n_done: usize,
    blocks: Vec<BlockId>,
}

/// Which logits a step returns.
#[derive(Clone, Copy, PartialEq)]
enum Wanted {
    All,
    Last,
}

fn trained() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-trained")
}

fn fixture(name: &str) -> tempfile::TempDir {
    fixture::materialise(name)
}

fn reference(dir: &Path) -> Reference {
    serde_json::from_slice(&std::fs::read(dir.join("reference.json")).unwrap()).unwrap()
}

fn open(dir: &Path, options: &LoadOptions) -> Model {
    let mut model = Model::load(dir, options, &|_| {}).unwrap();
    model.allocate_cache(N_BLOCKS, BLOCK_SIZE, 0).unwrap();
    model
}

fn open_auto(dir: &Path) -> Model {
    open_with(dir, KvDtypeChoice::Auto)
}

fn open_with(dir: &Path, kv_cache_dtype: KvDtypeChoice) -> Model {
    let options = LoadOptions {
        kv_cache_dtype,
        n_threads: Some(2),
        ..LoadOptions::default()
    };
    open(dir, &options)
}

/// Sequences whose blocks are interleaved and in descending order, none shared.
fn sequences(prompts: &[&[u32]]) -> Vec<Sequence> {
    let n_each = N_BLOCKS / prompts.len();
    let blocks = |i: usize| {
        (0..n_each)
            .map(|j| BlockId((N_BLOCKS - 1 - (j * prompts.len() + i)) as u32))
            .collect()
    };
    let sequence = |(i, prompt): (usize, &&[u32])| Sequence {
        tokens: prompt.to_vec(),
        n_prompt: prompt.len(),
        n_done: 0,
        blocks: blocks(i),
    };
    prompts.iter().enumerate().map(sequence).collect()
}

/// Runs the next `n` tokens of each `(sequence, n)` in one batch.
fn step(model: &mut Model, sequences: &mut [Sequence], takes: &[(usize, usize)], wanted: Wanted) -> Logits {
    let mut batch = Batch::default();
    for &(idx, n) in takes {
        let sequence = &mut sequences[idx];
        let query_start = batch.tokens.len();
        for position in sequence.n_done..sequence.n_done + n {
            batch.tokens.push(sequence.tokens[position]);
            batch.positions.push(position as u32);
            if wanted == Wanted::All {
                batch.logits_at.push(batch.tokens.len() as u32 - 1);
            }
        }
        if wanted == Wanted::Last {
            batch.logits_at.push(batch.tokens.len() as u32 - 1);
        }
        sequence.n_done += n;
        batch.rows.push(BatchRow {
            query_start,
            query_len: n,
            context_len: sequence.n_done,
            prompt_len: sequence.n_prompt,
            block_tables: vec![sequence.blocks.clone()],
            ..BatchRow::default()
        });
    }
    model.forward(&batch).unwrap().logits
}

/// The logits after every prompt token, in one step.
fn prompt_logits(model: &mut Model, prompt: &[u32]) -> Logits {
    let mut alone = sequences(&[prompt]);
    step(model, &mut alone, &[(0, prompt.len())], Wanted::All)
}

fn argmax(row: &[f32]) -> u32 {
    let best = row
        .iter()
        .enumerate()
        .max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    best.unwrap().0 as u32
}

fn logprob(row: &[f32], token: u32) -> f64 {
    let max = row
        .iter()
        .fold(f64::NEG_INFINITY, |max, &v| max.max(f64::from(v)));
    let total: f64 = row.iter().map(|&v| (f64::from(v) - max).exp()).sum();
    f64::from(row[token as usize]) - max - total.ln()
}

/// Compares one prompt, teacher-forced: logits of the last position, log-probabilities, greedy tokens.
/// Answers the largest difference seen.
fn check_prompt(model: &mut Model, prompt: &Prompt, (tolerance, context): (f64, &str)) -> f64 {
    let logits = prompt_logits(model, &prompt.ids);
    let last = logits.row(prompt.ids.len() - 1);
    let mut worst = 0.0_f64;
    for &(token, want) in &prompt.last_logits_top20 {
        worst = worst.max((f64::from(last[token as usize]) - want).abs());
    }
    for (at, want) in prompt.prompt_logprobs.iter().enumerate() {
        if let Some(want) = want {
            worst = worst.max((logprob(logits.row(at - 1), prompt.ids[at]) - want).abs());
        }
    }
    assert!(worst < tolerance, "{context}: off by {worst}");
    let mut full = prompt.ids.clone();
    full.extend(&prompt.greedy);
    let logits = prompt_logits(model, &full);
    for (i, (&want, &margin)) in prompt.greedy.iter().zip(&prompt.greedy_margins).enumerate() {
        let got = argmax(logits.row(prompt.ids.len() - 1 + i));
        assert!(
            got == want || margin < 4.0 * tolerance,
            "{context}: token {i} is {got}, not {want}"
        );
    }
    worst
}

/// Greedy continuation of every prompt, all in one batch, prefilled in chunks of `chunk` tokens: sequences
/// start to decode while others still prefill. Answers tokens and the logits they were taken from.
fn generate(model: &mut Model, prompts: &[&Prompt], chunk: usize) -> Vec<(Vec<u32>, Vec<Vec<f32>>)> {
    let mut running = sequences(&prompts.iter().map(|prompt| &prompt.ids[..]).collect::<Vec<_>>());
    let mut answers = vec![(Vec::new(), Vec::new()); prompts.len()];
    loop {
        let left = |i: usize| running[i].tokens.len() - running[i].n_done;
        let takes: Vec<(usize, usize)> = (0..prompts.len())
            .filter(|&i| answers[i].0.len() < prompts[i].greedy.len())
            .map(|i| (i, left(i).min(chunk)))
            .collect();
        if takes.is_empty() {
            return answers;
        }
        let logits = step(model, &mut running, &takes, Wanted::Last);
        for (row, (i, _)) in takes.into_iter().enumerate() {
            if running[i].n_done == running[i].tokens.len() {
                let token = argmax(logits.row(row));
                running[i].tokens.push(token);
                answers[i].0.push(token);
                answers[i].1.push(logits.row(row).to_vec());
            }
        }
    }
}

/// Whether every greedy choice of the reference is clear enough to be reproduced.
fn is_clear(prompt: &Prompt) -> bool {
    prompt.greedy_margins.iter().all(|&margin| margin > MARGIN_MIN)
}

#[test]
fn the_trained_model_agrees_with_transformers() {
    let mut model = open_with(&trained(), KvDtypeChoice::Float32);
    let info = model.info().clone();
    assert_eq!(
        (info.architecture.as_str(), info.dtype),
        ("LlamaForCausalLM", "bfloat16")
    );
    assert_eq!(
        (info.vocab_size, info.n_layers, info.max_model_len),
        (4096, 4, 2048)
    );
    assert_eq!(info.eos_token_ids, [0, 2]);
    assert_eq!(
        (info.n_params, info.kv_bytes_per_token),
        (4_983_040, 4 * 2 * 2 * 64 * 4)
    );
    for (i, prompt) in reference(&trained()).prompts.iter().enumerate() {
        check_prompt(
            &mut model,
            prompt,
            (TOLERANCE, &format!("tiny-trained prompt {i}")),
        );
    }
}

/// Per type of the cache: its name, the bytes of a token in it, and the largest difference of a logit or a log-probability.
const CACHES: [(KvDtypeChoice, &str, u64, f64); 6] = [
    (KvDtypeChoice::Auto, "bfloat16", 2048, 0.1),
    (KvDtypeChoice::Bfloat16, "bfloat16", 2048, 0.1),
    (KvDtypeChoice::Float16, "float16", 2048, 0.1),
    (KvDtypeChoice::Fp8, "fp8_e4m3", 1024, 1.0),
    (KvDtypeChoice::Fp8E4m3, "fp8_e4m3", 1024, 1.0),
    (KvDtypeChoice::Fp8E5m2, "fp8_e5m2", 1024, 1.0),
];

#[test]
fn a_narrow_cache_stays_near_transformers() {
    for (choice, name, bytes, tolerance) in CACHES {
        let mut model = open_with(&trained(), choice);
        let info = model.info();
        assert_eq!(
            (info.kv_cache_dtype, info.kv_bytes_per_token),
            (name, bytes),
            "{choice}"
        );
        let mut worst = 0.0_f64;
        for prompt in &reference(&trained()).prompts {
            worst = worst.max(check_prompt(&mut model, prompt, (tolerance, name)));
        }
        println!("worst {name} {worst}");
        assert!(worst > TOLERANCE, "{name}: as exact as f32");
    }
}

#[test]
fn the_trained_model_answers_the_same_alone_batched_and_in_chunks() {
    let mut model = open_auto(&trained());
    let prompts = reference(&trained()).prompts;
    let clear: Vec<&Prompt> = prompts.iter().filter(|prompt| is_clear(prompt)).collect();
    assert!(clear.len() >= 9, "the chat prompts and a verse are clear");
    let alone: Vec<_> = clear
        .iter()
        .map(|&p| generate(&mut model, &[p], usize::MAX).remove(0))
        .collect();
    for (prompt, (tokens, _)) in clear.iter().zip(&alone) {
        assert_eq!(tokens, &prompt.greedy);
    }
    // Sixteen rows of different lengths: every clear prompt, some of them twice.
    let sixteen: Vec<usize> = (0..16).map(|i| i % clear.len()).collect();
    let batch: Vec<&Prompt> = sixteen.iter().map(|&i| clear[i]).collect();
    for chunk in [usize::MAX, 16, 3, 1] {
        for (row, answer) in generate(&mut model, &batch, chunk).into_iter().enumerate() {
            assert!(
                answer == alone[sixteen[row]],
                "row {row} in chunks of {chunk}: not the same bits as alone"
            );
        }
    }
}

#[test]
fn made_up_weights_are_finite_and_the_same_each_time() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(trained().join("config.json"), dir.path().join("config.json")).unwrap();
    let logits = || {
        let options = LoadOptions {
            format: LoadFormat::Dummy,
            n_threads: Some(2),
            ..LoadOptions::default()
        };
        let mut model = open(dir.path(), &options);
        assert_eq!(
            (model.info().n_params, model.info().dtype),
            (4_983_040, "bfloat16")
        );
        prompt_logits(&mut model, &[1, 2, 3]).values
    };
    let first = logits();
    assert!(first.iter().all(|logit| logit.is_finite()));
    assert!(first.iter().any(|logit| *logit != first[0]));
    assert!(first == logits());
    assert!(Model::load(dir.path(), &LoadOptions::default(), &|_| {}).is_err());
}

/// More rows than pass through a feed-forward part at once.
#[test]
fn rows_beyond_a_chunk_of_the_feed_forward_part_get_the_same_bits() {
    for name in ["llama3", "mixtral", "deepseek_v3"] {
        let dir = fixture(name);
        let mut model = open_auto(dir.path());
        let prompts = reference(dir.path()).prompts;
        let n_each = prompts.iter().map(|prompt| prompt.ids.len()).sum::<usize>();
        let many: Vec<&[u32]> = prompts
            .iter()
            .cycle()
            .take(prompts.len() * (1200 / n_each + 1))
            .map(|prompt| prompt.ids.as_slice())
            .collect();
        let mut together = sequences(&many);
        let takes: Vec<(usize, usize)> = many.iter().map(|prompt| prompt.len()).enumerate().collect();
        let n_rows: usize = takes.iter().map(|(_, n)| n).sum();
        assert!(n_rows > 1024, "{name}: {n_rows} rows are no more than two chunks");
        let logits = step(&mut model, &mut together, &takes, Wanted::All);
        let mut row = 0;
        for prompt in many {
            let alone = prompt_logits(&mut model, prompt);
            let n = alone.values.len();
            assert!(
                logits.values[row..row + n] == alone.values,
                "{name}: other bits than alone"
            );
            row += n;
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let prompts = reference(&trained()).prompts;
    let logits = [1, 2, 3].map(|n_threads| {
        let options = LoadOptions {
            n_threads: Some(n_threads),
            ..LoadOptions::default()
        };
        prompt_logits(&mut open(&trained(), &options), &prompts[7].ids)
    });
    assert!(logits[0] == logits[1] && logits[1] == logits[2]);
}

#[test]
fn dtypes_are_converted_at_load() {
    let of = |name: &str, dtype| {
        let options = LoadOptions {
            dtype,
            kv_cache_dtype: KvDtypeChoice::Float32,
            n_threads: Some(2),
            ..LoadOptions::default()
        };
        open(fixture(name).path(), &options)
    };
    let prompts = reference(fixture("llama3").path()).prompts;
    let logits = |model: &mut Model| prompt_logits(model, &prompts[1].ids);
    let stored = logits(&mut of("llama3", DtypeChoice::Auto));
    let mut widened = of("llama3", DtypeChoice::Float32);
    assert_eq!(widened.info().dtype, "float32");
    assert!(logits(&mut widened) == stored, "bf16 in f32 is exact");
    // Tolerances of 16-bit weights with fp32 activations: half of what 16-bit computation was measured at.
    for (dtype, name, tolerance) in [
        (DtypeChoice::Float16, "float16", 0.04),
        (DtypeChoice::Bfloat16, "bfloat16", 0.3),
    ] {
        let dir = fixture("llama-bias-sharded-f32");
        let mut model = of("llama-bias-sharded-f32", dtype);
        assert_eq!(model.info().dtype, name);
        let stored_bytes = of("llama-bias-sharded-f32", DtypeChoice::Auto)
            .info()
            .weights_bytes;
        assert!(
            model.info().weights_bytes < stored_bytes * 52 / 100,
            "only norms and biases stay in f32"
        );
        for prompt in &reference(dir.path()).prompts {
            let worst = check_prompt(&mut model, prompt, (tolerance, name));
            assert!(worst > 0.0);
        }
    }
}

#[test]
fn the_cache_follows_the_weights_in_memory_unless_a_setting_names_its_type() {
    let cache_of = |dtype, kv_cache_dtype| {
        let options = LoadOptions {
            dtype,
            kv_cache_dtype,
            n_threads: Some(1),
            ..LoadOptions::default()
        };
        let model = Model::load(&trained(), &options, &|_| {}).unwrap();
        (model.info().kv_cache_dtype, model.info().kv_bytes_per_token)
    };
    let auto = KvDtypeChoice::Auto;
    assert_eq!(cache_of(DtypeChoice::Auto, auto), ("bfloat16", 2048));
    assert_eq!(cache_of(DtypeChoice::Float16, auto), ("float16", 2048));
    assert_eq!(cache_of(DtypeChoice::Float32, auto), ("float32", 4096));
    let fp8 = cache_of(DtypeChoice::Float32, KvDtypeChoice::Fp8E5m2);
    assert_eq!(fp8, ("fp8_e5m2", 1024));
}

#[test]
fn progress_ends_at_the_total() {
    let seen = std::sync::Mutex::new(Vec::new());
    Model::load(&trained(), &LoadOptions::default(), &|progress| {
        seen.lock().unwrap().push(progress);
    })
    .unwrap();
    let seen = seen.into_inner().unwrap();
    assert!(seen.is_sorted_by_key(|progress| progress.bytes_done) && seen.len() > 10);
    let last = seen.last().unwrap();
    assert_eq!(
        (last.bytes_done, last.bytes_total),
        (2 * 4_983_040, 2 * 4_983_040)
    );
}

#[test]
fn as_many_threads_read_weights_as_the_settings_name() {
    let loaders = |n_loading_threads| {
        let options = LoadOptions {
            n_threads: Some(4),
            n_loading_threads,
            ..LoadOptions::default()
        };
        let threads = Mutex::new(HashSet::new());
        let model = Model::load(&trained(), &options, &|_| {
            threads.lock().unwrap().insert(std::thread::current().id());
        });
        (threads.into_inner().unwrap().len(), model.unwrap())
    };
    assert_eq!(loaders(Some(1)).0, 1);
    assert!(loaders(Some(2)).0 <= 2);
}

#[test]
fn the_context_bounds_max_model_len() {
    let load = |asked| {
        let options = LoadOptions {
            max_model_len: Some(asked),
            n_threads: Some(1),
            ..LoadOptions::default()
        };
        Model::load(&trained(), &options, &|_| {}).map(|model| model.info().max_model_len)
    };
    assert_eq!(load(100).unwrap(), 100);
    assert!(matches!(
        load(2049),
        Err(ModelError::MaxModelLen {
            asked: 2049,
            limit: 2048
        })
    ));
    assert!(matches!(load(0), Err(ModelError::MaxModelLen { .. })));
    let linear = Model::load(fixture("llama-linear").path(), &LoadOptions::default(), &|_| {}).unwrap();
    assert_eq!(linear.info().max_model_len, 4 * 256);
}

/// A copy of a fixture with one file changed by `edit`.
fn edited(name: &str, file: &str, edit: impl Fn(Vec<u8>) -> Vec<u8>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let whole = fixture(name);
    for entry in std::fs::read_dir(whole.path()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        let bytes = if path.file_name().unwrap() == file {
            edit(bytes)
        } else {
            bytes
        };
        std::fs::write(dir.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    dir
}

fn refusal(dir: &Path) -> ModelError {
    let options = LoadOptions {
        n_threads: Some(1),
        ..LoadOptions::default()
    };
    Model::load(dir, &options, &|_| {}).expect_err("a broken checkpoint was loaded")
}

#[test]
fn a_truncated_or_flipped_weight_file_is_refused() {
    let length = std::fs::metadata(fixture("llama2").path().join("model.safetensors"))
        .unwrap()
        .len() as usize;
    for keep in [0, 7, 8, 9, 100, 2000, length / 2, length - 1] {
        let dir = edited("llama2", "model.safetensors", |bytes| bytes[..keep].to_vec());
        assert!(
            matches!(refusal(dir.path()), ModelError::WeightFile { .. }),
            "{keep} bytes"
        );
    }
    let longer = edited("llama2", "model.safetensors", |bytes| {
        [bytes, vec![0; 3]].concat()
    });
    assert!(matches!(refusal(longer.path()), ModelError::WeightFile { .. }));
    // Every byte of the header changed in turn: an error, or a header that still means the same.
    for at in (0..1500).step_by(7) {
        let dir = edited("llama2", "model.safetensors", |mut bytes| {
            bytes[at] ^= 0x15;
            bytes
        });
        let options = LoadOptions {
            n_threads: Some(1),
            ..LoadOptions::default()
        };
        let _ = Model::load(dir.path(), &options, &|_| {});
    }
}

#[test]
fn a_config_that_contradicts_the_weights_names_the_tensor() {
    let replaced = |from: &str, to: &str| {
        let dir = edited("llama2", "config.json", |bytes| {
            let text = String::from_utf8(bytes).unwrap();
            assert!(text.contains(from), "{from}");
            text.replace(from, to).into_bytes()
        });
        refusal(dir.path()).to_string()
    };
    let wider = replaced(r#""intermediate_size":128"#, r#""intermediate_size":96"#);
    assert_eq!(
        wider,
        "tensor model.layers.0.mlp.down_proj.weight has shape [64, 128], config.json gives [64, 96]"
    );
    let shorter = replaced(r#""num_hidden_layers":2"#, r#""num_hidden_layers":1"#);
    assert!(
        shorter.starts_with("tensor model.layers.1.") && shorter.ends_with("not part of the architecture")
    );
    let longer = replaced(r#""num_hidden_layers":2"#, r#""num_hidden_layers":3"#);
    assert_eq!(longer, "tensor model.layers.2.input_layernorm.weight is missing");
    let biased = replaced(r#""attention_bias":false"#, r#""attention_bias":true"#);
    assert_eq!(biased, "tensor model.layers.0.self_attn.k_proj.bias is missing");
}

#[test]
fn a_config_of_any_kind_is_an_error_not_a_panic() {
    let deep = format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000));
    let huge = format!(r#"{{"a": "{}"}}"#, "x".repeat(9 << 20));
    for config in [
        "",
        "nonsense",
        "[]",
        "{}",
        "null",
        r#"{"architectures": []}"#,
        &deep,
        &huge,
    ] {
        let dir = edited("llama2", "config.json", |_| config.as_bytes().to_vec());
        let refused = refusal(dir.path());
        assert!(
            matches!(refused, ModelError::Json { .. } | ModelError::Config { .. }),
            "{refused}"
        );
    }
    let generation = edited("llama2", "generation_config.json", |_| b"[".to_vec());
    assert!(matches!(refusal(generation.path()), ModelError::Json { .. }));
    let other = edited("llama2", "config.json", |_| {
        br#"{"architectures": ["Mamba2ForCausalLM"]}"#.to_vec()
    });
    assert!(matches!(
        refusal(other.path()),
        ModelError::UnsupportedArchitecture { .. }
    ));
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(refusal(empty.path()), ModelError::MissingFile { .. }));
}

#[test]
fn a_missing_shard_is_named() {
    let shard = "model-00002-of-00002.safetensors";
    let dir = edited("llama-bias-sharded-f32", shard, |bytes| bytes);
    std::fs::remove_file(dir.path().join(shard)).unwrap();
    let refused = refusal(dir.path());
    assert!(
        matches!(&refused, ModelError::MissingFile { path } if path.ends_with(shard)),
        "{refused}"
    );
}

#[test]
fn a_batch_that_contradicts_itself_is_refused_and_the_next_one_works() {
    let mut model = Model::load(fixture("llama2").path(), &LoadOptions::default(), &|_| {}).unwrap();
    let row = BatchRow {
        query_start: 0,
        query_len: 2,
        context_len: 2,
        prompt_len: 2,
        block_tables: vec![vec![BlockId(3)]],
        ..BatchRow::default()
    };
    let good = Batch {
        tokens: vec![5, 6],
        positions: vec![0, 1],
        rows: vec![row.clone()],
        logits_at: vec![1],
        ..Batch::default()
    };
    assert!(
        matches!(model.forward(&good), Err(StepError::Batch { .. })),
        "there is no cache yet"
    );
    assert!(matches!(
        model.allocate_cache(0, BLOCK_SIZE, 0),
        Err(ModelError::Cache { .. })
    ));
    assert!(matches!(
        model.allocate_cache(usize::MAX, usize::MAX, 0),
        Err(ModelError::Cache { .. })
    ));
    model.allocate_cache(4, BLOCK_SIZE, 0).unwrap();
    let with = |change: fn(&mut Batch)| {
        let mut batch = good.clone();
        change(&mut batch);
        batch
    };
    let bad = [
        with(|batch| batch.tokens[0] = 512),
        with(|batch| batch.positions[1] = 2),
        with(|batch| batch.positions.clear()),
        with(|batch| batch.token_types = vec![0]),
        with(|batch| batch.pooled_rows = vec![0]),
        with(|batch| {
            batch.moves = vec![BlockMove::Copy {
                from: BlockId(0),
                to: BlockId(4),
            }]
        }),
        with(|batch| {
            batch.moves = vec![BlockMove::SwapOut {
                from: BlockId(0),
                to: HostBlockId(0),
            }]
        }),
        with(|batch| batch.logits_at = vec![2]),
        with(|batch| batch.logits_at = vec![1, 0]),
        with(|batch| batch.rows.clear()),
        with(|batch| batch.rows[0].query_start = 1),
        with(|batch| batch.rows[0].query_len = 0),
        with(|batch| batch.rows[0].query_len = usize::MAX),
        with(|batch| batch.rows[0].context_len = 1),
        with(|batch| batch.rows[0].context_len = usize::MAX),
        with(|batch| batch.rows[0].block_tables = vec![vec![BlockId(4)]]),
        with(|batch| batch.rows[0].block_tables.clear()),
    ];
    for batch in bad {
        let refused = model.forward(&batch);
        assert!(matches!(refused, Err(StepError::Batch { .. })), "{batch:?}");
    }
    let logits = model.forward(&good).unwrap().logits;
    assert_eq!((logits.values.len(), logits.vocab_size), (512, 512));
    assert!(
        model
            .forward(&with(|batch| batch.logits_at.clear()))
            .unwrap()
            .logits
            .values
            .is_empty()
    );
    assert!(model.forward(&Batch::default()).unwrap().logits.values.is_empty());
}

#[test]
fn a_context_whose_blocks_were_moved_gives_the_same_bits() {
    let dir = trained();
    let prompt = &reference(&dir).prompts[7];
    let mut model = open_auto(&dir);
    model.allocate_cache(N_BLOCKS, BLOCK_SIZE, 8).unwrap();
    let (last, ids) = prompt.ids.split_last().unwrap();
    let n_blocks = ids.len().div_ceil(BLOCK_SIZE) as u32;
    let decode = |moves: Vec<BlockMove>, first: u32| Batch {
        moves,
        tokens: vec![*last],
        positions: vec![ids.len() as u32],
        rows: vec![BatchRow {
            query_start: 0,
            query_len: 1,
            context_len: ids.len() + 1,
            prompt_len: ids.len(),
            block_tables: vec![(0..=n_blocks).map(|idx| BlockId(first + idx)).collect()],
            ..BatchRow::default()
        }],
        logits_at: vec![0],
        ..Batch::default()
    };
    let prefill = Batch {
        tokens: ids.to_vec(),
        positions: (0..ids.len() as u32).collect(),
        rows: vec![BatchRow {
            query_start: 0,
            query_len: ids.len(),
            context_len: ids.len(),
            prompt_len: ids.len(),
            block_tables: vec![(0..n_blocks).map(BlockId).collect()],
            ..BatchRow::default()
        }],
        ..Batch::default()
    };
    model.forward(&prefill).unwrap();
    let expected = model.forward(&decode(Vec::new(), 0)).unwrap();
    // One block after the other to the host, to other blocks, and on from there.
    let moves = (0..n_blocks).flat_map(|idx| {
        let (host, twice) = (HostBlockId(idx % 8), BlockId(200 + idx));
        let (from, to) = (BlockId(idx), BlockId(100 + idx));
        [
            BlockMove::SwapOut { from, to: host },
            BlockMove::SwapIn { from: host, to },
            BlockMove::Copy { from: to, to: twice },
        ]
    });
    let moved = model.forward(&decode(moves.collect(), 200)).unwrap();
    assert!(moved == expected);
}
