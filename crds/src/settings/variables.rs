//! Environment variables of the servers that Slipway replaces: honoured, without effect, or refused.

use super::{SETTINGS, Setting};

/// A variable of worker-vllm, vLLM or TI-ONE that is not a setting of this version.
#[derive(Clone, Copy, Debug)]
pub struct Foreign {
    /// Its name.
    pub name: &'static str,
    /// The values that request what this version does anyway.
    pub harmless: Harmless,
    /// Why such a value has no effect, for log and status.
    pub why: &'static str,
    /// What to do in place of another value.
    pub instead: &'static str,
}

/// Values of a variable that change nothing.
#[derive(Clone, Copy, Debug)]
pub enum Harmless {
    /// Every value.
    Any,
    /// These values, in any spelling of switches and numbers.
    Only(&'static [&'static str]),
}

/// Every variable of those servers that is not a setting.
///
/// Forms that people copy contain every variable at its default. A value that requests what happens anyway is
/// therefore accepted and listed; another value would change what is served, and is refused.
pub const FOREIGN: &[Foreign] = &[
    any(
        "TRUST_REMOTE_CODE",
        "models are native; no code of a repository is run",
    ),
    any("TOKENIZER_POOL_TYPE", "tokenization runs in threads, not in Ray"),
    any("TOKENIZER_MODE", "there is one implementation for both names"),
    any(
        "GUIDED_DECODING_BACKEND",
        "there is one implementation for all names",
    ),
    any(
        "TOKENIZER_POOL_EXTRA_CONFIG",
        "tokenization runs in threads, not in Ray",
    ),
    any("USE_V2_BLOCK_MANAGER", "there is one block manager"),
    any("NUM_LOOKAHEAD_SLOTS", "there is one block manager"),
    any("WORKER_USE_RAY", "Kubernetes is the distributed engine"),
    any("RAY_WORKERS_USE_NSIGHT", "Kubernetes is the distributed engine"),
    any("DISABLE_CUSTOM_ALL_REDUCE", "there is one all-reduce"),
    only(
        "TENSOR_PARALLEL_SIZE",
        &["1"],
        "a replica computes on one device",
        "set it to 1, and raise spec.replicas for more throughput",
    ),
    only(
        "TP",
        &["1"],
        "a replica computes on one device",
        "set it to 1, and raise spec.replicas for more throughput",
    ),
    only(
        "PIPELINE_PARALLEL_SIZE",
        &["1"],
        "a replica computes on one device",
        "set it to 1, and raise spec.replicas for more throughput",
    ),
    only(
        "WORKER_NUM",
        &["1"],
        "a replica has one engine",
        "set it to 1, and raise spec.replicas",
    ),
    any(
        "DISTRIBUTED_EXECUTOR_BACKEND",
        "Kubernetes is the distributed engine",
    ),
    only(
        "QUANTIZATION_PARAM_PATH",
        &[],
        "the KV cache has no scales",
        "remove it",
    ),
    only(
        "KV_CACHE_DTYPE",
        &["auto"],
        "the KV cache has one data type",
        "set it to auto",
    ),
    only(
        "DS_DTYPE",
        &["auto", "float16", "bfloat16"],
        "it belongs to another engine; DTYPE is the data type",
        "set DTYPE, or QUANTIZATION=ifq for int8",
    ),
    any(
        "MAX_PARALLEL_LOADING_WORKERS",
        "weights are read in parallel in bounded memory",
    ),
    only(
        "MODEL_LOADER_EXTRA_CONFIG",
        &["{}"],
        "the loader has no further settings",
        "remove it",
    ),
    only(
        "DOWNLOAD_DIR",
        &[],
        "the operator chooses the directory of the model",
        "set spec.model.cache, or for a server without a cluster XDG_CACHE_HOME",
    ),
    only(
        "BASE_PATH",
        &["/runpod-volume"],
        "the operator chooses the directory of the model",
        "set spec.model.cache, or for a server without a cluster XDG_CACHE_HOME",
    ),
    only(
        "SKIP_TOKENIZER_INIT",
        &["false"],
        "the tokenizer is always loaded",
        "set it to false; a prompt may be token ids all the same",
    ),
    only(
        "ROPE_SCALING",
        &["{}"],
        "config.json of the model decides",
        "write rope_scaling into config.json of the model",
    ),
    only(
        "ROPE_THETA",
        &[],
        "config.json of the model decides",
        "write rope_theta into config.json of the model",
    ),
    any(
        "ENABLE_CHUNKED_PREFILL",
        "long prompts are computed in chunks; the answers are the same",
    ),
    only(
        "DISABLE_SLIDING_WINDOW",
        &["false"],
        "windows are as config.json says",
        "set it to false, and MAX_MODEL_LEN to the size of the window",
    ),
    only(
        "SCHEDULER_DELAY_FACTOR",
        &["0"],
        "requests are scheduled at once",
        "set it to 0",
    ),
    only(
        "MAX_BATCH_SIZE",
        &["16"],
        "requests are batched continuously",
        "set MAX_NUM_SEQS",
    ),
    any("BATCH_WAIT_TIMEOUT", "requests join the running batch at once"),
    any("PREEMPTION_CHECK_PERIOD", "preemption is decided in each step"),
    only(
        "PREEMPTION_CPU_CAPACITY",
        &["2"],
        "SWAP_SPACE is the size of the host memory for preempted sequences",
        "set SWAP_SPACE",
    ),
    only(
        "ENABLE_LORA",
        &["false"],
        "no adapter is loaded",
        "set it to false, and serve a checkpoint with the adapter merged into it",
    ),
    only(
        "LORA_MODULES",
        &["[]"],
        "no adapter is loaded",
        "serve a checkpoint with the adapter merged into it",
    ),
    any("MAX_LORAS", "it has an effect only with ENABLE_LORA"),
    any("MAX_LORA_RANK", "it has an effect only with ENABLE_LORA"),
    any("LORA_EXTRA_VOCAB_SIZE", "it has an effect only with ENABLE_LORA"),
    any("LORA_DTYPE", "it has an effect only with ENABLE_LORA"),
    any(
        "LONG_LORA_SCALING_FACTORS",
        "it has an effect only with ENABLE_LORA",
    ),
    any("MAX_CPU_LORAS", "it has an effect only with ENABLE_LORA"),
    any("FULLY_SHARDED_LORAS", "it has an effect only with ENABLE_LORA"),
    only("SPECULATIVE_MODEL", &[], "no draft model is loaded", "remove it"),
    only(
        "USE_LOOKAHEAD",
        &["0"],
        "tokens are not predicted ahead",
        "set it to 0",
    ),
    any(
        "NUM_SPECULATIVE_TOKENS",
        "it has an effect only with speculative decoding",
    ),
    any(
        "SPECULATIVE_DRAFT_TENSOR_PARALLEL_SIZE",
        "it has an effect only with speculative decoding",
    ),
    any(
        "SPECULATIVE_MAX_MODEL_LEN",
        "it has an effect only with speculative decoding",
    ),
    any(
        "SPECULATIVE_DISABLE_BY_BATCH_SIZE",
        "it has an effect only with speculative decoding",
    ),
    any(
        "NGRAM_PROMPT_LOOKUP_MAX",
        "it has an effect only with speculative decoding",
    ),
    any(
        "NGRAM_PROMPT_LOOKUP_MIN",
        "it has an effect only with speculative decoding",
    ),
    any(
        "SPEC_DECODING_ACCEPTANCE_METHOD",
        "it has an effect only with speculative decoding",
    ),
    any(
        "TYPICAL_ACCEPTANCE_SAMPLER_POSTERIOR_THRESHOLD",
        "it has an effect only with speculative decoding",
    ),
    any(
        "TYPICAL_ACCEPTANCE_SAMPLER_POSTERIOR_ALPHA",
        "it has an effect only with speculative decoding",
    ),
];

const fn any(name: &'static str, why: &'static str) -> Foreign {
    Foreign {
        name,
        harmless: Harmless::Any,
        why,
        instead: "",
    }
}

const fn only(
    name: &'static str,
    harmless: &'static [&'static str],
    why: &'static str,
    instead: &'static str,
) -> Foreign {
    Foreign {
        name,
        harmless: Harmless::Only(harmless),
        why,
        instead,
    }
}

impl Foreign {
    fn has_no_effect(&self, text: &str) -> bool {
        match self.harmless {
            Harmless::Any => true,
            Harmless::Only(values) => values.iter().any(|value| canonical(value) == canonical(text)),
        }
    }
}

/// What an environment variable with a value is to Slipway.
#[derive(Clone, Copy, Debug)]
pub enum Variable {
    /// One of the names of this setting.
    Setting(&'static Setting),
    /// Recognised, without effect.
    Accepted(&'static Foreign),
    /// It requests something that this version does not do.
    Refused(&'static Foreign),
    /// Not a variable of Slipway.
    Unknown,
}

/// Looks up an environment variable by its name and its value.
pub fn variable(name: &str, text: &str) -> Variable {
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.has_variable(name)) {
        return Variable::Setting(setting);
    }
    match FOREIGN.iter().find(|foreign| foreign.name == name) {
        Some(foreign) if is_absent(text) || foreign.has_no_effect(text) => Variable::Accepted(foreign),
        Some(foreign) => Variable::Refused(foreign),
        None => Variable::Unknown,
    }
}

/// Whether the value of a setting's variable means that it is not set: nothing, or Python's `None`, which forms submit.
pub fn is_absent(text: &str) -> bool {
    text.is_empty() || text == "None"
}

/// One spelling of a switch, a number or a word.
fn canonical(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    match text.as_str() {
        "true" | "yes" | "on" => "1".into(),
        "false" | "no" | "off" => "0".into(),
        other => other
            .parse::<f64>()
            .map_or(text.clone(), |number| number.to_string()),
    }
}
