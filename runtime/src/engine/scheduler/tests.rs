//! Short courses of the scheduler, step by step.

use super::*;
use crate::batch::{Batch, KvGroup};
use crate::engine::config::EngineConfig;
use crate::engine::request::GenerateRequest;

const TOKEN: Option<Next> = Some(Next {
    token: 7,
    is_complete: false,
});

fn limits() -> Limits {
    sized(config())
}

fn config() -> EngineConfig {
    EngineConfig {
        n_blocks: 100,
        block_size: 4,
        enable_prefix_caching: false,
        max_num_seqs: 8,
        max_num_batched_tokens: 8,
        max_model_len: 100,
        eos_token_ids: [9].into(),
        ..EngineConfig::default()
    }
}

fn sized(config: EngineConfig) -> Limits {
    Limits {
        config,
        groups: vec![KvGroup::default()],
        whole_prompts: false,
        has_prefixes: true,
        reads_media: false,
        vocab_size: 10,
    }
}

/// A scheduler with one waiting sequence per prompt length, which all may generate 10 tokens.
fn scheduler(limits: &Limits, n_prompts: &[usize]) -> Scheduler {
    let mut scheduler = Scheduler::new(limits, 1);
    for (id, &n_prompt) in n_prompts.iter().enumerate() {
        let request = GenerateRequest {
            prompt: vec![1; n_prompt].into(),
            max_tokens: Some(10),
            ..GenerateRequest::default()
        };
        let admitted = limits.admit(request).unwrap();
        let branch = Branch {
            id: self::id(id),
            seed: 0,
        };
        scheduler.add(Sequence::new(admitted, vec![branch], id as u64, 0));
    }
    scheduler
}

fn id(arrival: usize) -> SequenceId {
    SequenceId {
        priority: 0,
        turn: arrival as u64,
        arrival: arrival as u64,
    }
}

/// Runs `n_steps`; each row as `id:tokens`, with `*` if it draws and `-id` for a preemption.
fn course(scheduler: &mut Scheduler, n_steps: usize) -> String {
    let mut course = Vec::new();
    for _ in 0..n_steps {
        let step = scheduler.schedule();
        let draws = |row: &StepRow| if row.yields == Yield::Logits { "*" } else { "" };
        let rows = step
            .rows
            .iter()
            .map(|row| format!("{}:{}{}", row.id.arrival, row.n_tokens, draws(row)));
        let preempted = step.preempted.iter().map(|id| format!("-{}", id.arrival));
        course.push(rows.chain(preempted).collect::<Vec<_>>().join(" "));
        let n_draws = step.rows.iter().filter(|row| row.yields == Yield::Logits).count();
        scheduler.assume(&step);
        scheduler.commit(&step, &vec![TOKEN; n_draws]);
    }
    course.join(" | ")
}

#[test]
fn decodes_come_first_and_prompts_are_chunked() {
    let mut scheduler = scheduler(&limits(), &[3, 12, 2]);
    assert_eq!(course(&mut scheduler, 3), "0:3* 1:5 | 0:1* 1:7* | 0:1* 1:1* 2:2*");
}

#[test]
fn no_more_run_than_a_step_has_tokens() {
    let limits = sized(EngineConfig {
        max_num_batched_tokens: 2,
        ..config()
    });
    let mut scheduler = scheduler(&limits, &[1, 1, 1]);
    assert_eq!(course(&mut scheduler, 2), "0:1* 1:1* | 0:1* 1:1*");
    assert_eq!(scheduler.n_waiting(), 1);
}

#[test]
fn the_youngest_is_preempted_and_recomputed_with_what_it_generated() {
    let limits = sized(EngineConfig {
        n_blocks: 4,
        ..config()
    });
    let mut scheduler = scheduler(&limits, &[3, 3, 3]);
    // Three blocks for three prompts, and one more that the oldest gets.
    assert_eq!(course(&mut scheduler, 1), "0:3* 1:3* 2:2");
    assert_eq!(
        course(&mut scheduler, 3),
        "0:1* 1:1* 2:1* | 0:1* 1:1* -2 | 0:1* 1:1*"
    );
    let front = scheduler.waiting.front().unwrap();
    assert_eq!(
        (front.id(), front.generated(), front.n_computed()),
        (id(2), &[7][..], 0)
    );
    // At its ninth token the oldest needs a third block, and the second gives way too.
    assert_eq!(course(&mut scheduler, 3), "0:1* 1:1* | 0:1* 1:1* | 0:1* -1");
    // The oldest has its ten tokens after three more; the others compute prompt and answer again.
    assert_eq!(course(&mut scheduler, 5), "0:1* | 0:1* | 0:1* | 1:8 | 1:1* 2:4*");
}

#[test]
fn a_waiting_sequence_that_does_not_fit_is_not_overtaken() {
    let limits = sized(EngineConfig {
        n_blocks: 6,
        max_num_batched_tokens: 32,
        ..config()
    });
    let mut scheduler = scheduler(&limits, &[8, 14, 1]);
    assert_eq!(course(&mut scheduler, 2), "0:8* 1:14* | 0:1* -1");
    assert_eq!((scheduler.n_running(), scheduler.n_waiting()), (1, 2));
}

#[test]
fn what_ends_frees_its_blocks_at_once() {
    let mut scheduler = scheduler(&limits(), &[4, 4]);
    let step = scheduler.schedule();
    assert_eq!(scheduler.cache().pool().n_used(), 2);
    scheduler.assume(&step);
    let progress = scheduler.commit(&step, &[Some(Next::from(9)), None]);
    let ended = progress
        .iter()
        .map(|p| (p.id.arrival, p.token, p.finished))
        .collect::<Vec<_>>();
    assert_eq!(ended, [(0, Some(9), Some(FinishReason::Eos(9))), (1, None, None)]);
    assert_eq!((scheduler.cache().pool().n_used(), scheduler.n_running()), (0, 0));
    let nothing = Step {
        is_alone: true,
        ..Step::default()
    };
    assert_eq!(scheduler.schedule(), nothing);
}

#[test]
fn the_batch_of_a_second_chunk_goes_on_where_the_first_ended() {
    let limits = sized(EngineConfig {
        max_num_batched_tokens: 3,
        ..config()
    });
    let mut scheduler = scheduler(&limits, &[5]);
    course(&mut scheduler, 1);
    let step = scheduler.schedule();
    let mut batch = Batch::default();
    scheduler.fill(&mut batch, &step);
    assert_eq!(
        (batch.tokens.len(), batch.positions, batch.logits_at),
        (2, vec![3, 4], vec![1])
    );
    assert_eq!(
        (batch.rows[0].context_len, batch.rows[0].block_tables[0].len()),
        (5, 2)
    );
}
