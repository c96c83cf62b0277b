//! What a reference holds, and the fixtures that are checked against theirs.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Deserialize;

use super::fixture;

#[derive(Deserialize)]
pub(crate) struct Reference {
    pub(crate) prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
pub(crate) struct Prompt {
    pub(crate) ids: Vec<u32>,
    #[serde(default)]
    pub(crate) rope_depends_on_length: bool,
    #[serde(default)]
    pub(crate) prompt_logprobs: Vec<Option<f32>>,
    #[serde(default)]
    pub(crate) last_logits_top20: Vec<(usize, f32)>,
    #[serde(default)]
    pub(crate) greedy: Vec<u32>,
    #[serde(default)]
    pub(crate) token_type_ids: Vec<u32>,
    pub(crate) embedding: Option<Vec<f32>>,
    pub(crate) score: Option<Vec<f32>>,
}

/// Calls `check` for every fixture of interest, on two threads: each waits for an engine most of the time.
pub(crate) fn each_fixture(is_of_interest: fn(&Reference) -> bool, check: fn(&str, &Path, &Reference)) {
    let names = Mutex::new(fixture::names());
    let n_checked = AtomicUsize::new(0);
    let work = || {
        loop {
            let Some(name) = names.lock().unwrap().pop() else {
                return;
            };
            let dir = fixture::materialise(&name);
            let json = std::fs::read(dir.path().join("reference.json")).unwrap();
            let reference: Reference = serde_json::from_slice(&json).unwrap();
            if is_of_interest(&reference) {
                check(&name, dir.path(), &reference);
                n_checked.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        let threads = [(); 2].map(|()| scope.spawn(work));
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    assert!(n_checked.into_inner() > 0, "no fixture is of interest");
}

pub(crate) fn generates(reference: &Reference) -> bool {
    reference.prompts.iter().all(|prompt| !prompt.greedy.is_empty())
}

pub(crate) fn pools(reference: &Reference) -> bool {
    !generates(reference)
}

/// Prompts of a fixture with room for their answers, each of another length.
pub(crate) fn prompts<'a>(reference: &'a Reference, context_len: usize) -> Vec<&'a Prompt> {
    let fits = |prompt: &&'a Prompt| prompt.ids.len() + prompt.greedy.len() <= context_len;
    let prompts: Vec<_> = reference.prompts.iter().filter(fits).collect();
    let mut lengths: Vec<usize> = prompts.iter().map(|prompt| prompt.ids.len()).collect();
    lengths.sort_unstable();
    lengths.dedup();
    assert_eq!(
        lengths.len(),
        prompts.len(),
        "logits are told apart by the length of the prompt"
    );
    prompts
}

/// The vector of length 1 in the same direction.
pub(crate) fn of_length_one(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    vector.iter().map(|v| v / length).collect()
}
