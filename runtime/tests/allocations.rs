//! A step that is not larger than an earlier one allocates nothing. This is the only test of its process: the allocator
//! counts for all threads.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

#[path = "inspect/configuration.rs"]
mod configuration;

use configuration::configuration;
use kernels::CountingAllocator;
use runtime::batch::{Batch, BatchRow, BlockId, Forward, StepOutput};
use runtime::model::{LoadFormat, LoadOptions, Model, Task};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

const BLOCK_SIZE: usize = 16;
const BLOCKS_PER_SEQUENCE: usize = 4;
const N_PROMPT: usize = 21;

/// Steps that are counted. The queue through which a step reaches the threads takes a new piece of memory once in 62
/// steps, so there are fewer of them, those before included.
const N_COUNTED: usize = 24;

/// Sequences of one step, each with `query_len` new tokens up to `context_len`.
fn batch(model: &Model, n_sequences: usize, (query_len, context_len): (usize, usize)) -> Batch {
    let n_groups = model.kv_groups().len();
    let mut batch = Batch::default();
    for idx in 0..n_sequences {
        let query_start = batch.tokens.len();
        for position in context_len - query_len..context_len {
            batch.tokens.push(((7 * idx + 5 * position) % 50) as u32);
            batch.positions.push(position as u32);
        }
        match model.info().task {
            Task::Generate => batch.logits_at.push(batch.tokens.len() as u32 - 1),
            Task::Embed { .. } | Task::Score { .. } => batch.pooled_rows.push(idx as u32),
        }
        let table = |group: usize| {
            let first = (idx * n_groups + group) * BLOCKS_PER_SEQUENCE;
            let blocks = first..first + BLOCKS_PER_SEQUENCE;
            blocks.map(|block| BlockId(block as u32)).collect()
        };
        batch.rows.push(BatchRow {
            query_start,
            query_len,
            context_len,
            place: idx as u32,
            prompt_len: N_PROMPT,
            block_tables: (0..n_groups).map(table).collect(),
        });
    }
    batch
}

/// Allocations of [`N_COUNTED`] steps after a prompt and one step of the same kind.
fn n_allocations(name: &str, n_sequences: usize, models: &mut Vec<Model>) -> u64 {
    let dir = configuration(name);
    let options = LoadOptions {
        format: LoadFormat::Dummy,
        n_threads: Some(2),
        ..LoadOptions::default()
    };
    let mut model = Model::load(dir.path(), &options, &|_| {}).unwrap();
    let n_blocks = model.kv_groups().len() * n_sequences * BLOCKS_PER_SEQUENCE;
    model.allocate_cache(n_blocks, BLOCK_SIZE, 0).unwrap();
    let decodes = model.info().task == Task::Generate && !model.whole_prompts();
    let prompt = batch(&model, n_sequences, (N_PROMPT, N_PROMPT));
    let sizes = |at: usize| {
        if decodes {
            (1, N_PROMPT + 1 + at)
        } else {
            (N_PROMPT, N_PROMPT)
        }
    };
    let steps: Vec<Batch> = (0..=N_COUNTED)
        .map(|at| batch(&model, n_sequences, sizes(at)))
        .collect();
    let mut output = StepOutput::default();
    model.compute(&prompt, &mut output).unwrap();
    model.compute(&steps[0], &mut output).unwrap();
    let before = ALLOCATOR.n_allocations();
    for step in &steps[1..] {
        model.compute(step, &mut output).unwrap();
    }
    let n = ALLOCATOR.n_allocations() - before;
    models.push(model);
    n
}

#[test]
fn a_step_allocates_nothing() {
    // Kept to the end, for the threads of a model allocate when they end.
    let mut models = Vec::new();
    for name in [
        "llama3",
        "phi3-longrope",
        "llama-dynamic-ntk",
        "gemma2",
        "gpt_oss-bf16",
        "qwen2_moe",
        "deepseek_v3",
        "falcon-7b",
        "bloom",
        "opt-350m-postln",
        "baichuan2-7b",
        "bert-minilm-mean",
        "bge-reranker-xlmr",
    ] {
        // Few rows and many rows are different products.
        for n_sequences in [1, 3, 20] {
            let n = n_allocations(name, n_sequences, &mut models);
            assert_eq!(n, 0, "{name}, {n_sequences} sequences");
        }
    }
}
