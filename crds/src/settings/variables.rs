//! Environment variables of the servers that Slipway replaces: honoured, accepted without effect, or refused.

use super::{SETTINGS, Setting};

/// Variables of worker-vllm, vLLM and TI-ONE that are recognised and have no effect in this engine, each with the
/// reason that the log and the status give.
pub const ACCEPTED: &[(&str, &str)] = &[
    (
        "TRUST_REMOTE_CODE",
        "models are native; no code of a repository is run",
    ),
    ("TOKENIZER_POOL_TYPE", "tokenization runs in threads, not in Ray"),
    ("TOKENIZER_MODE", "there is one implementation for both names"),
    (
        "GUIDED_DECODING_BACKEND",
        "there is one implementation for all names",
    ),
    (
        "TOKENIZER_POOL_EXTRA_CONFIG",
        "tokenization runs in threads, not in Ray",
    ),
    ("USE_V2_BLOCK_MANAGER", "there is one block manager"),
    ("NUM_LOOKAHEAD_SLOTS", "there is one block manager"),
    ("WORKER_USE_RAY", "Kubernetes is the distributed engine"),
    ("RAY_WORKERS_USE_NSIGHT", "Kubernetes is the distributed engine"),
    ("DISABLE_CUSTOM_ALL_REDUCE", "there is one all-reduce"),
];

/// Variables of the same servers that this version refuses, because ignoring them would change what is served.
pub const NOT_IN_THIS_VERSION: &[&str] = &[
    "BASE_PATH",
    "BATCH_WAIT_TIMEOUT",
    "DISABLE_SLIDING_WINDOW",
    "DISTRIBUTED_EXECUTOR_BACKEND",
    "DOWNLOAD_DIR",
    "DS_DTYPE",
    "ENABLE_CHUNKED_PREFILL",
    "ENABLE_LORA",
    "ENFORCE_EAGER",
    "FULLY_SHARDED_LORAS",
    "GPU_MEMORY_UTILIZATION",
    "KV_CACHE_DTYPE",
    "LONG_LORA_SCALING_FACTORS",
    "LORA_DTYPE",
    "LORA_EXTRA_VOCAB_SIZE",
    "LORA_MODULES",
    "MAX_BATCH_SIZE",
    "MAX_CPU_LORAS",
    "MAX_LORAS",
    "MAX_LORA_RANK",
    "MAX_PARALLEL_LOADING_WORKERS",
    "MAX_SEQ_LEN_TO_CAPTURE",
    "MODEL_LOADER_EXTRA_CONFIG",
    "NGRAM_PROMPT_LOOKUP_MAX",
    "NGRAM_PROMPT_LOOKUP_MIN",
    "NUM_SPECULATIVE_TOKENS",
    "PIPELINE_PARALLEL_SIZE",
    "PREEMPTION_CHECK_PERIOD",
    "PREEMPTION_CPU_CAPACITY",
    "QUANTIZATION",
    "QUANTIZATION_PARAM_PATH",
    "ROPE_SCALING",
    "ROPE_THETA",
    "SCHEDULER_DELAY_FACTOR",
    "SKIP_TOKENIZER_INIT",
    "SPECULATIVE_DISABLE_BY_BATCH_SIZE",
    "SPECULATIVE_DRAFT_TENSOR_PARALLEL_SIZE",
    "SPECULATIVE_MAX_MODEL_LEN",
    "SPECULATIVE_MODEL",
    "SPEC_DECODING_ACCEPTANCE_METHOD",
    "TENSOR_PARALLEL_SIZE",
    "TYPICAL_ACCEPTANCE_SAMPLER_POSTERIOR_ALPHA",
    "TYPICAL_ACCEPTANCE_SAMPLER_POSTERIOR_THRESHOLD",
    "USE_LOOKAHEAD",
    "WORKER_NUM",
];

/// What an environment variable is to Slipway.
#[derive(Clone, Copy, Debug)]
pub enum Variable {
    /// One of the names of this setting.
    Setting(&'static Setting),
    /// Recognised, without effect, for this reason.
    Accepted(&'static str),
    /// A variable of those servers that this version refuses.
    NotInThisVersion,
    /// Not a variable of Slipway.
    Unknown,
}

/// Looks up an environment variable by its name.
pub fn variable(name: &str) -> Variable {
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.has_variable(name)) {
        return Variable::Setting(setting);
    }
    if let Some((_, why)) = ACCEPTED.iter().find(|(accepted, _)| *accepted == name) {
        return Variable::Accepted(why);
    }
    if NOT_IN_THIS_VERSION.contains(&name) {
        Variable::NotInThisVersion
    } else {
        Variable::Unknown
    }
}
