//! Flags of vLLM's server that the documents of the replaced servers do not list: without effect, or refused with the
//! replacement. Newer workers read each as a variable, too.

use super::foreign::{Foreign, any, only};

/// Why settings of images and sounds have no effect.
const NO_MEDIA: &str = "models read text alone";
/// Why settings of prompt adapters have no effect.
const NO_ADAPTERS: &str = "no adapter is loaded";
/// What to do about adapters.
const MERGE: &str = "serve a checkpoint with the adapter merged into it";
/// What to do for more throughput.
const REPLICAS: &str = "set it to 1, and raise spec.replicas for more throughput";
/// Why settings of speculative decoding have no effect.
const NO_SPECULATION: &str = "it has an effect only with speculative decoding";
/// Why settings of vLLM's own parts have no effect.
const NATIVE: &str = "the engine is not written in Python";

/// Every flag of `vllm serve` that is neither a setting nor in the documents.
pub(super) const VLLM: &[Foreign] = &[
    only("DATA_PARALLEL_SIZE", &["1"], "a replica has one engine", REPLICAS),
    only(
        "ENABLE_EXPERT_PARALLEL",
        &["false"],
        "a replica computes on one device",
        "set it to false",
    )
    .switch(),
    only(
        "CPU_OFFLOAD_GB",
        &["0"],
        "weights are in one memory",
        "set it to 0, and choose a smaller model or a GPU with more memory",
    ),
    only(
        "HF_OVERRIDES",
        &["{}"],
        "config.json of the model decides",
        "set ROPE_SCALING, ROPE_THETA or MAX_MODEL_LEN, or change config.json of the model",
    ),
    only(
        "OVERRIDE_GENERATION_CONFIG",
        &["{}"],
        "generation_config.json of the model decides",
        "set the parameters in requests, or change generation_config.json of the model",
    ),
    only(
        "GENERATION_CONFIG",
        &["auto"],
        "generation_config.json of the model decides",
        "set it to auto",
    ),
    only(
        "OVERRIDE_POOLER_CONFIG",
        &["{}"],
        "the model's files decide how vectors are made",
        "change 1_Pooling/config.json of the model",
    ),
    only(
        "CODE_REVISION",
        &["main"],
        "no code of a repository is run",
        "remove it",
    ),
    only(
        "CONFIG_FORMAT",
        &["auto", "hf"],
        "config.json is read",
        "set it to auto",
    ),
    only(
        "MODEL_IMPL",
        &["auto", "vllm"],
        "models are native",
        "set it to auto",
    ),
    only(
        "IGNORE_PATTERNS",
        &["original/**/*"],
        "only files that are needed are downloaded",
        "set spec.model.huggingFace.ignorePatterns",
    ),
    only(
        "LOGITS_PROCESSOR_PATTERN",
        &[],
        "no code of clients is run",
        "use logit_bias, bad_words or structured outputs in requests",
    ),
    only("MIDDLEWARE", &[], NATIVE, "put a proxy before the server"),
    only("TOOL_PARSER_PLUGIN", &[], NATIVE, "set TOOL_CALL_PARSER"),
    only("SCHEDULER_CLS", &[], NATIVE, "remove it"),
    only("WORKER_CLS", &["auto"], NATIVE, "remove it"),
    only("WORKER_EXTENSION_CLS", &[], NATIVE, "remove it"),
    only(
        "KV_TRANSFER_CONFIG",
        &["{}"],
        "a cache belongs to one replica",
        "remove it",
    ),
    only(
        "ENABLE_SLEEP_MODE",
        &["false"],
        "a replica does not sleep",
        "set it to false, and use spec.autoscaling",
    )
    .switch(),
    only(
        "CALCULATE_KV_SCALES",
        &["false"],
        "the KV cache has no scales",
        "set it to false",
    )
    .switch(),
    only(
        "OTLP_TRACES_ENDPOINT",
        &[],
        "no traces are sent",
        "remove it; /metrics has times of requests",
    ),
    only("COLLECT_DETAILED_TRACES", &[], "no traces are sent", "remove it"),
    only(
        "ENABLE_SSL_REFRESH",
        &["false"],
        "certificates are read at the start",
        "set it to false, and start the server again for a new certificate",
    )
    .switch(),
    only(
        "SSL_CERT_REQS",
        &["0", "2"],
        "with SSL_CA_CERTS a client must present a certificate, without it need not",
        "remove it, and set SSL_CA_CERTS or not",
    ),
    only(
        "DISABLE_FASTAPI_DOCS",
        &["false"],
        "/docs and /openapi.json are served",
        "set it to false, and refuse these paths in a proxy",
    )
    .switch(),
    only(
        "RETURN_TOKENS_AS_TOKEN_IDS",
        &["false"],
        "requests choose it",
        "set return_tokens_as_token_ids in requests",
    )
    .switch(),
    only(
        "LONG_PREFILL_TOKEN_THRESHOLD",
        &["0"],
        "all prompts are computed in turn",
        "set MAX_NUM_BATCHED_TOKENS",
    ),
    only(
        "NUM_SCHEDULER_STEPS",
        &["1"],
        "steps are scheduled one by one",
        "set it to 1",
    ),
    only("ENABLE_PROMPT_ADAPTER", &["false"], NO_ADAPTERS, MERGE).switch(),
    only("PROMPT_ADAPTERS", &["[]"], NO_ADAPTERS, MERGE),
    only("QLORA_ADAPTER_NAME_OR_PATH", &[], NO_ADAPTERS, MERGE),
    only(
        "SPECULATIVE_CONFIG",
        &["{}"],
        "no draft model is loaded",
        "remove it",
    ),
    any("ENABLE_LORA_BIAS", "it has an effect only with ENABLE_LORA").switch(),
    any("MAX_PROMPT_ADAPTERS", NO_ADAPTERS),
    any("MAX_PROMPT_ADAPTER_TOKEN", NO_ADAPTERS),
    any("SPECULATIVE_MODEL_QUANTIZATION", NO_SPECULATION),
    any("SPECULATIVE_DISABLE_MQA_SCORER", NO_SPECULATION).switch(),
    any("DISABLE_LOGPROBS_DURING_SPEC_DECODING", NO_SPECULATION).switch(),
    any("LIMIT_MM_PER_PROMPT", NO_MEDIA),
    any("MM_PROCESSOR_KWARGS", NO_MEDIA),
    any("DISABLE_MM_PREPROCESSOR_CACHE", NO_MEDIA).switch(),
    any("ALLOWED_LOCAL_MEDIA_PATH", NO_MEDIA),
    any("COMPILATION_CONFIG", NATIVE),
    any("ADDITIONAL_CONFIG", NATIVE),
    any("OVERRIDE_NEURON_CONFIG", NATIVE),
    any("DISABLE_ASYNC_OUTPUT_PROC", NATIVE).switch(),
    any("DISABLE_FRONTEND_MULTIPROCESSING", "the server is one process").switch(),
    any("USE_TQDM_ON_LOAD", "progress is on /startupz and in the log").switch(),
    any("MULTI_STEP_STREAM_OUTPUTS", "each token is sent when it is there").switch(),
    any("MAX_NUM_PARTIAL_PREFILLS", "all prompts are computed in turn"),
    any("MAX_LONG_PARTIAL_PREFILLS", "all prompts are computed in turn"),
    any("ENABLE_REASONING", "REASONING_PARSER decides").switch(),
    any("ENABLE_REQUEST_ID_HEADERS", "every answer has X-Request-Id").switch(),
    any("ENABLE_PROMPT_TOKENS_DETAILS", "usage always has them").switch(),
    any("ENABLE_SERVER_LOAD_TRACKING", "/load always answers").switch(),
    any("SHOW_HIDDEN_METRICS_FOR_VERSION", "no metric is hidden"),
];
