//! Environment variables of the servers that Slipway replaces: honoured, without effect, or refused.

use super::foreign::{Foreign, any, only};
use super::vllm::VLLM;
use super::{Place, SETTINGS, Setting};

/// Every variable of those servers that is not a setting.
///
/// Forms that people copy contain every variable at its default. A value that requests what happens anyway is
/// therefore accepted and listed; another value would change what is served, and is refused.
pub const FOREIGN: &[Foreign] = &[
    any(
        "TRUST_REMOTE_CODE",
        "models are native; no code of a repository is run",
    )
    .switch(),
    any("TOKENIZER_POOL_TYPE", "tokenization runs in threads, not in Ray"),
    only(
        "TOKENIZER_MODE",
        &["auto", "slow"],
        "there is one implementation for both names",
        "set it to auto",
    ),
    only(
        "GUIDED_DECODING_BACKEND",
        &["auto", "outlines", "lm-format-enforcer", "xgrammar", "guidance"],
        "there is one implementation for all names",
        "set it to auto",
    ),
    any(
        "TOKENIZER_POOL_EXTRA_CONFIG",
        "tokenization runs in threads, not in Ray",
    ),
    any("USE_V2_BLOCK_MANAGER", "there is one block manager").switch(),
    any("NUM_LOOKAHEAD_SLOTS", "there is one block manager"),
    any("WORKER_USE_RAY", "Kubernetes is the distributed engine").switch(),
    any("RAY_WORKERS_USE_NSIGHT", "Kubernetes is the distributed engine").switch(),
    any("DISABLE_CUSTOM_ALL_REDUCE", "there is one all-reduce").switch(),
    only(
        "TENSOR_PARALLEL_SIZE",
        &["1"],
        "a replica computes on one device",
        "set it to 1, and raise spec.replicas for more throughput",
    )
    .also(&["TP", "NUM_GPUS"]),
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
    only(
        "DISTRIBUTED_EXECUTOR_BACKEND",
        &["mp", "ray", "uni"],
        "Kubernetes is the distributed engine",
        "set it to mp, and raise spec.replicas for more throughput",
    ),
    only(
        "QUANTIZATION_PARAM_PATH",
        &[],
        "the KV cache has no scales",
        "remove it",
    ),
    only(
        "ENABLE_LORA",
        &["false"],
        "no adapter is loaded",
        "set it to false, and serve a checkpoint with the adapter merged into it",
    )
    .switch(),
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
    any("FULLY_SHARDED_LORAS", "it has an effect only with ENABLE_LORA").switch(),
    only("SPECULATIVE_MODEL", &[], "no draft model is loaded", "remove it"),
    only(
        "USE_LOOKAHEAD",
        &["0"],
        "tokens are not predicted ahead",
        "set it to 0",
    )
    .switch(),
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

/// What an environment variable or a flag with a value is to Slipway.
#[derive(Clone, Copy, Debug)]
pub enum Variable {
    /// One of the names of this setting.
    Setting(&'static Setting),
    /// Recognised, without effect.
    Accepted(&'static Foreign),
    /// It requests something that this version does not do.
    Refused(&'static Foreign),
    /// Not a name of Slipway.
    Unknown,
}

/// Every variable of other servers that is not a setting.
pub fn foreign() -> impl Iterator<Item = &'static Foreign> {
    FOREIGN.iter().chain(VLLM)
}

/// Looks up an environment variable by its name and its value.
pub fn variable(name: &str, text: &str) -> Variable {
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.has_variable(name)) {
        return Variable::Setting(setting);
    }
    let foreign = foreign().find(|foreign| foreign.names().any(|other| other == name));
    of_foreign(foreign, text)
}

/// Looks up a flag, or a key of a configuration file, by its name without dashes and its value.
pub fn flag(name: &str, text: &str) -> Variable {
    if let Some(setting) = SETTINGS.iter().find(|setting| setting.has_flag(name)) {
        return Variable::Setting(setting);
    }
    let foreign = foreign().find(|foreign| foreign.flags().any(|other| other == name));
    of_foreign(foreign, text)
}

fn of_foreign(foreign: Option<&'static Foreign>, text: &str) -> Variable {
    match foreign {
        Some(foreign) if is_absent(text) || foreign.has_no_effect(text) => Variable::Accepted(foreign),
        Some(foreign) => Variable::Refused(foreign),
        None => Variable::Unknown,
    }
}

/// Why a variable of `spec.env` is accepted and has no effect; `None` if it has one.
pub fn without_effect(name: &str, text: &str) -> Option<&'static str> {
    match variable(name, text) {
        Variable::Accepted(foreign) => Some(foreign.why),
        Variable::Setting(setting) => match setting.row.place {
            Place::Ignored(why) => Some(why),
            Place::Field | Place::At(_) | Place::RuntimeOnly(_) => None,
        },
        Variable::Refused(_) | Variable::Unknown => None,
    }
}

/// Whether the value of a setting's variable means that it is not set: nothing, or Python's `None`, which forms submit.
pub fn is_absent(text: &str) -> bool {
    text.is_empty() || text == "None"
}
