//! The settings table: one declaration per setting.
//!
//! A row of [`settings!`] is at once the field of the custom resource (title, description, bounds, choices),
//! the environment variable, the command-line flag, the configuration-file key and the reference
//! documentation. Names are a bijection: `max_model_len` here is `maxModelLen` in YAML, `MAX_MODEL_LEN` in
//! the environment and `--max-model-len` on the command line; exceptions are written in the row.
//!
//! Every value is optional: absent means the engine's default, so nobody submits a default as a choice.

mod layers;

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::schema;
pub use layers::{Layer, Origin, SettingError};

/// Where a setting stands in the custom resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `spec.<group>.<camelCase name>`.
    Field,
    /// Elsewhere, at this path.
    At(&'static str),
    /// Nowhere: the operator or the machine decides.
    RuntimeOnly(&'static str),
}

/// What a row says beyond the field itself.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The default in words or as a literal.
    pub default: &'static str,
    /// Environment variable if it is not the field's name in upper case.
    pub env: Option<&'static str>,
    /// Further environment variables with the same meaning.
    pub env_aliases: &'static [&'static str],
    /// Flag (without dashes) if it is not the field's name in kebab case.
    pub flag: Option<&'static str>,
    /// Where the custom resource has it.
    pub place: Place,
    /// True for values that no log, status or `--help` may show.
    pub secret: bool,
}

const ROW: Row = Row {
    default: "none",
    env: None,
    env_aliases: &[],
    flag: None,
    place: Place::Field,
    secret: false,
};

/// One setting: its row and its names.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Group of the spec and of the form.
    pub group: &'static str,
    /// Field name in `snake_case`.
    pub field: &'static str,
    /// The rest of its declaration.
    pub row: Row,
}

impl Setting {
    /// `maxModelLen`.
    pub fn camel(&self) -> String {
        let mut out = String::new();
        for (idx, word) in self.field.split('_').enumerate() {
            let mut chars = word.chars();
            match chars.next() {
                Some(first) if idx > 0 => {
                    out.push(first.to_ascii_uppercase());
                    out.push_str(chars.as_str());
                }
                _ => out.push_str(word),
            }
        }
        out
    }

    /// `MAX_MODEL_LEN`.
    pub fn env(&self) -> String {
        self.row
            .env
            .map_or_else(|| self.field.to_ascii_uppercase(), str::to_string)
    }

    /// `max-model-len`: the flag without its dashes, and the configuration-file key.
    pub fn flag(&self) -> String {
        self.row
            .flag
            .map_or_else(|| self.field.replace('_', "-"), str::to_string)
    }

    /// Path in the custom resource, or `None` where only the runtime has it.
    pub fn crd_path(&self) -> Option<String> {
        match self.row.place {
            Place::Field => Some(format!("spec.{}.{}", self.group, self.camel())),
            Place::At(path) => Some(path.to_string()),
            Place::RuntimeOnly(_) => None,
        }
    }

    /// JSON schema of the value: type, title, description, bounds, choices.
    ///
    /// # Panics
    /// Never for a row of [`SETTINGS`]; a test walks them all.
    pub fn schema(&self) -> Value {
        group_schema(self.group)
            .pointer(&format!("/properties/{}", self.camel()))
            .cloned()
            .expect("every row is a field of its group")
    }

    fn answers_to(&self, env_name: &str) -> bool {
        self.env() == env_name || self.row.env_aliases.contains(&env_name)
    }
}

macro_rules! settings {
    ($(
        $(#[$group_doc:meta])*
        $group:ident: $Group:ident, title: $title:literal, {
            $( $(#[$meta:meta])* $field:ident: $ty:ty => $row:expr; )*
        }
    )*) => {
        $(
            $(#[$group_doc])*
            #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
            #[serde(rename_all = "camelCase")]
            pub struct $Group {
                $(
                    $(#[$meta])*
                    #[serde(default, skip_serializing_if = "Option::is_none")]
                    pub $field: Option<$ty>,
                )*
            }
        )*

        /// Every setting, in the order of the form.
        pub const SETTINGS: &[Setting] = &[
            $( $( Setting { group: stringify!($group), field: stringify!($field), row: $row }, )* )*
        ];

        /// The groups and their titles, in the order of the form.
        pub const GROUPS: &[(&str, &str)] = &[ $( (stringify!($group), $title), )* ];

        /// All settings of one process, merged from its layers.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct Settings {
            $( $(#[$group_doc])* #[serde(default)] pub $group: $Group, )*
        }

        fn group_schema(group: &str) -> Value {
            match group {
                $( stringify!($group) => schema::of::<$Group>(), )*
                other => unreachable!("no group {other}"),
            }
        }
    };
}

settings! {
    /// What clients call the model.
    model: ModelSettings, title: "Model", {
        /// Names under which clients ask for the model. The first one is what `/v1/models` shows first.
        #[schemars(title = "Served names", length(min = 1, max = 16), schema_with = "names_schema")]
        served_model_name: Vec<String> => Row {
            default: "the repository's name",
            env_aliases: &["OPENAI_SERVED_MODEL_NAME_OVERRIDE", "MODEL_ID"],
            ..ROW
        };
    }

    /// Text to tokens, and messages to text.
    tokenizer: TokenizerSettings, title: "Tokenizer", {
        /// Repository or directory of the tokenizer, if it is not the model's own.
        #[schemars(title = "Tokenizer", length(min = 1, max = 253))]
        tokenizer: String => Row { default: "the model's", env_aliases: &["TOKENIZER_NAME"], ..ROW };
        /// Branch, tag or commit of the tokenizer's repository.
        #[schemars(title = "Tokenizer revision", length(min = 1, max = 253))]
        tokenizer_revision: String => Row { default: "main", ..ROW };
        /// Jinja template that turns messages into a prompt: its text, or on the command line also a file's path.
        #[schemars(title = "Chat template", length(min = 1, max = 32768))]
        custom_chat_template: String => Row { default: "the model's", flag: Some("chat-template"), ..ROW };
        /// Chat template by the name that TI-ONE has for it, for a model that brings none. A model's folder can also
        /// name it in `ti_model_config.json`. `shennong_chat` is the model's own template: its format is not public.
        #[schemars(title = "Conversation template")]
        conv_template: ConvTemplate => Row { default: "the model's", ..ROW };
        /// Requests that are tokenized at a time; 0: one per core. The others wait.
        #[schemars(title = "Tokenizer threads", range(min = 0, max = 1024))]
        tokenizer_pool_size: u32 => Row { default: "0", ..ROW };
        /// What the chat template expects as a message's content: a text, or a list of parts as OpenAI has it.
        #[schemars(title = "Content format")]
        chat_template_content_format: ContentFormat => Row { default: "auto", ..ROW };
    }

    /// How the engine loads and runs the model.
    engine: EngineSettings, title: "Engine", {
        /// Number type of the weights. `auto` keeps the checkpoint's.
        #[schemars(title = "Data type")]
        dtype: Dtype => Row { default: "auto", ..ROW };
        /// Longest context in tokens, prompt and answer together.
        #[schemars(title = "Context length", range(min = 1, max = 16_777_216))]
        max_model_len: u32 => Row { default: "the model's", ..ROW };
        /// Most sequences that run in one step.
        #[schemars(title = "Sequences in a step", range(min = 1, max = 4096))]
        max_num_seqs: u32 => Row { default: "256", ..ROW };
        /// Most tokens that one step computes. A longer prompt is computed in chunks of at most this size.
        #[schemars(title = "Tokens in a step", range(min = 1, max = 1_048_576))]
        max_num_batched_tokens: u32 => Row { default: "512 on the CPU", ..ROW };
        /// Tokens in one block of the KV cache.
        #[schemars(title = "Block size", schema_with = "block_size_schema")]
        block_size: u32 => Row { default: "16", ..ROW };
        /// Number of KV-cache blocks, instead of as many as fit the memory.
        #[schemars(title = "KV-cache blocks", range(min = 1, max = 16_777_216))]
        num_gpu_blocks_override: u32 => Row { default: "as many as fit", ..ROW };
        /// Keep the KV cache of computed texts for requests that begin alike. Answers do not change.
        #[schemars(title = "Prefix caching")]
        enable_prefix_caching: bool => Row { default: "true", ..ROW };
        /// What becomes of a sequence whose KV-cache blocks an older one needs: its tokens are computed again, or
        /// its blocks are swapped to the host's memory and back. `save` means `swap`.
        #[schemars(title = "Preemption mode")]
        preemption_mode: PreemptionMode => Row { default: "recompute", ..ROW };
        /// Memory of the host for swapped blocks, in GiB; taken only where `preemptionMode` is `swap`, and at most
        /// a fifth of what is free.
        #[schemars(title = "Swap space", range(min = 0, max = 4096))]
        swap_space: u32 => Row { default: "4", ..ROW };
        /// Which waiting request goes first: the one that arrived first, or the one with the smallest `priority`.
        #[schemars(title = "Scheduling policy")]
        scheduling_policy: SchedulingPolicy => Row { default: "fcfs", ..ROW };
        /// Seed of requests that bring none of their own.
        #[schemars(title = "Seed", range(min = 0, max = 9_007_199_254_740_991_i64))]
        seed: u64 => Row { default: "0", ..ROW };
        /// Most alternatives a request may ask for with `logprobs`; -1: as many as there are tokens.
        #[schemars(title = "Log probabilities", range(min = -1, max = 1000))]
        max_logprobs: i32 => Row { default: "20", ..ROW };
    }

    /// How many tokens a stream item of a job holds. The first holds the minimum, each next one as many more as the
    /// factor says, up to the maximum: 1, 3, 9, 27, 50, 50 by default.
    streaming: StreamingSettings, title: "Streaming batches", {
        /// Most tokens in a stream item of a job.
        #[schemars(title = "Batch size", range(min = 1, max = 1_048_576))]
        default_batch_size: u32 => Row { default: "50", ..ROW };
        /// Tokens in the first stream item of a job.
        #[schemars(title = "First batch size", range(min = 1, max = 1_048_576))]
        default_min_batch_size: u32 => Row { default: "1", ..ROW };
        /// By how much each stream item of a job is larger than the one before.
        #[schemars(title = "Batch growth", range(min = 1, max = 1000))]
        default_batch_size_growth_factor: f64 => Row { default: "3", ..ROW };
    }

    /// What the OpenAI routes answer.
    openai: OpenaiSettings, title: "OpenAI API", {
        /// Role of the messages that the model writes.
        #[schemars(title = "Response role", length(min = 1, max = 64))]
        openai_response_role: String => Row { default: "assistant", ..ROW };
        /// Refuse parameters of a request that neither OpenAI nor vLLM has, instead of naming them in the header
        /// `x-slipway-ignored-parameters`.
        #[schemars(title = "Refuse unknown parameters")]
        strict_parameters: bool => Row { default: "false", ..ROW };
        /// Format in which the model writes tool calls, by vLLM's names (`hermes`, `llama3_json`, `mistral`, …).
        /// `auto` takes it from the chat template, `none` leaves calls in the text.
        #[schemars(title = "Tool-call parser", length(min = 1, max = 64))]
        tool_call_parser: String => Row { default: "auto", ..ROW };
        /// Read calls out of answers where the model may choose to call a tool. Where this is false, only
        /// `tool_choice` `required` or a named tool makes calls.
        #[schemars(title = "Automatic tool choice")]
        enable_auto_tool_choice: bool => Row { default: "true", ..ROW };
        /// Format in which the model writes its thoughts, by vLLM's names (`deepseek_r1`, `qwen3`, …). `auto` takes it
        /// from the chat template, `none` leaves thoughts in the text.
        #[schemars(title = "Reasoning parser", length(min = 1, max = 64))]
        reasoning_parser: String => Row { default: "auto", ..ROW };
        /// Stream items of a job with `openai_route` are texts of server-sent events; `false`: they are the events'
        /// objects.
        #[schemars(title = "Raw OpenAI output")]
        raw_openai_output: bool => Row { default: "true", ..ROW };
    }

    /// How one replica serves.
    serving: ServingSettings, title: "Serving", {
        /// Requests that one replica works on at a time. As many again may wait; then clients get 429.
        #[schemars(title = "Concurrent requests", range(min = 1, max = 65_536))]
        max_concurrency: u32 => Row { default: "300", ..ROW };
        /// How much is logged.
        #[schemars(title = "Log level")]
        log_level: LogLevel => Row { default: "info", ..ROW };
        /// How a line of the log looks.
        #[schemars(title = "Log format")]
        log_format: LogFormat => Row { default: "text", ..ROW };
        /// Keep the parameters and prompts of requests out of the log. Prompts are private, so they are by default.
        #[schemars(title = "No request log")]
        disable_log_requests: bool => Row {
            default: "true", env_aliases: &["DISABLE_LOGGING_REQUEST"], ..ROW
        };
        /// Most characters of a prompt in a line of the request log.
        #[schemars(title = "Logged prompt", range(min = 0, max = 16_777_216))]
        max_log_len: u32 => Row { default: "all", ..ROW };
        /// Leave out the line with throughput and load that is otherwise logged every 10 s while requests run.
        #[schemars(title = "No load log")]
        disable_log_stats: bool => Row { default: "false", ..ROW };
        /// Origins whose pages a browser may let ask, or `*`. `[]` lets none.
        #[schemars(title = "CORS origins", length(max = 64), schema_with = "names_schema")]
        allowed_origins: Vec<String> => Row { default: "*", ..ROW };
        /// Methods that those pages may use, or `*`.
        #[schemars(title = "CORS methods", length(max = 16), schema_with = "names_schema")]
        allowed_methods: Vec<String> => Row { default: "*", ..ROW };
        /// Headers that those pages may send, or `*`.
        #[schemars(title = "CORS headers", length(max = 64), schema_with = "names_schema")]
        allowed_headers: Vec<String> => Row { default: "*", ..ROW };
        /// Whether those pages may send cookies and keys that the browser holds.
        #[schemars(title = "CORS credentials")]
        allow_credentials: bool => Row { default: "false", ..ROW };
        /// Path that a proxy puts in front of every route, such as `/models/a`. Requests are answered with it and
        /// without.
        #[schemars(title = "Root path", length(min = 1, max = 253))]
        root_path: String => Row { ..ROW };
    }

    /// What the process needs and the custom resource says elsewhere.
    process: ProcessSettings, title: "Process", {
        /// Repository on the hub, or a directory.
        #[schemars(title = "Model", length(min = 1, max = 4096))]
        model: String => Row {
            env: Some("MODEL_NAME"), env_aliases: &["MODEL_PATH"], place: Place::At("spec.model.huggingFace.repo"), ..ROW
        };
        /// Branch, tag or commit of the model's repository.
        #[schemars(title = "Model revision", length(min = 1, max = 253))]
        model_revision: String => Row {
            default: "main", flag: Some("revision"), place: Place::At("spec.model.huggingFace.revision"), ..ROW
        };
        /// Token for gated and private repositories of the hub.
        #[schemars(title = "Hub token", length(min = 1, max = 4096))]
        hf_token: String => Row { place: Place::At("spec.model.tokenSecretRef"), secret: true, ..ROW };
        /// Keys of which a client must present one as a bearer token. None: no key is asked for.
        #[schemars(title = "API keys", length(min = 1, max = 256), schema_with = "keys_schema")]
        api_key: Vec<String> => Row {
            env_aliases: &["OPENAI_API_KEYS", "VLLM_API_KEY"],
            place: Place::At("spec.auth.apiKeysSecretRef"), secret: true, ..ROW
        };
        /// Address to listen on.
        #[schemars(title = "Host", length(min = 1, max = 253))]
        host: String => Row {
            default: "0.0.0.0", place: Place::RuntimeOnly("a pod listens on all its addresses"), ..ROW
        };
        /// Port to listen on.
        #[schemars(title = "Port", range(min = 1, max = 65_535))]
        port: u16 => Row { default: "8000", place: Place::RuntimeOnly("the Service's target"), ..ROW };
        /// File with the certificate chain to serve TLS with, in PEM.
        #[schemars(title = "TLS certificate", length(min = 1, max = 4096))]
        ssl_certfile: String => Row { place: Place::RuntimeOnly("a Service or gateway ends TLS"), ..ROW };
        /// File with the key of that certificate, in PEM.
        #[schemars(title = "TLS key", length(min = 1, max = 4096))]
        ssl_keyfile: String => Row { place: Place::RuntimeOnly("a Service or gateway ends TLS"), ..ROW };
        /// File with the authorities, in PEM, of which clients must present a certificate.
        #[schemars(title = "TLS client authorities", length(min = 1, max = 4096))]
        ssl_ca_certs: String => Row { place: Place::RuntimeOnly("a Service or gateway ends TLS"), ..ROW };
        /// Longest wait for running requests after SIGTERM, in seconds.
        #[schemars(title = "Drain timeout", range(min = 0, max = 3600))]
        drain_timeout_seconds: u32 => Row {
            default: "90", place: Place::At("spec.rollout.drainTimeoutSeconds"), ..ROW
        };
        /// Seconds after SIGTERM in which the server still accepts requests, but is not ready and closes each connection
        /// after its answer, so that load balancers move clients to other servers.
        #[schemars(title = "Shutdown delay", range(min = 0, max = 600))]
        shutdown_delay_seconds: u32 => Row {
            default: "0", place: Place::RuntimeOnly("the operator sets it"), ..ROW
        };
    }
}

/// Number type of the weights. `auto` keeps the checkpoint's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// The checkpoint's.
    #[default]
    Auto,
    /// Same as `float16`.
    Half,
    /// IEEE half precision.
    Float16,
    /// Brain float.
    Bfloat16,
    /// Same as `float32`.
    Float,
    /// IEEE single precision.
    Float32,
}

/// What becomes of a sequence whose KV-cache blocks an older one needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PreemptionMode {
    /// Its tokens are computed again.
    #[default]
    Recompute,
    /// Its blocks are swapped to the host and back.
    Swap,
    /// Same as `swap`.
    Save,
}

/// Which waiting request goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SchedulingPolicy {
    /// The one that arrived first.
    #[default]
    Fcfs,
    /// The one with the smallest `priority`.
    Priority,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// And what looks wrong.
    Warn,
    /// And what happens.
    #[default]
    Info,
    /// And how.
    Debug,
    /// Everything.
    Trace,
}

/// Names of conversation templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConvTemplate {
    /// No template: the contents as they are.
    #[serde(rename = "generate")]
    Generate,
    /// The model's own template.
    #[serde(rename = "shennong_chat")]
    ShennongChat,
    /// Llama 3.
    #[serde(rename = "llama-3")]
    Llama3,
    /// Llama 2.
    #[serde(rename = "llama-2")]
    Llama2,
    /// Qwen, in the ChatML format.
    #[serde(rename = "qwen-7b-chat")]
    Qwen7bChat,
    /// Baichuan 2.
    #[serde(rename = "baichuan2-chat")]
    Baichuan2Chat,
    /// Baichuan.
    #[serde(rename = "baichuan-chat")]
    BaichuanChat,
    /// ChatGLM 3.
    #[serde(rename = "chatglm3")]
    Chatglm3,
    /// ChatGLM 2.
    #[serde(rename = "chatglm2")]
    Chatglm2,
}

impl ConvTemplate {
    /// The name, as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::ShennongChat => "shennong_chat",
            Self::Llama3 => "llama-3",
            Self::Llama2 => "llama-2",
            Self::Qwen7bChat => "qwen-7b-chat",
            Self::Baichuan2Chat => "baichuan2-chat",
            Self::BaichuanChat => "baichuan-chat",
            Self::Chatglm3 => "chatglm3",
            Self::Chatglm2 => "chatglm2",
        }
    }
}

/// What a chat template expects as a message's content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContentFormat {
    /// Found by giving the template both.
    #[default]
    Auto,
    /// A text.
    String,
    /// A list of parts.
    Openai,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

fn names_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 253}})
}

fn keys_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 4096}})
}

fn block_size_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "integer", "enum": [8, 16, 32]})
}

/// Variables of worker-vllm, vLLM and TI-ONE that are recognised and have no effect in this engine, with the
/// reason that log and status give.
pub const ACCEPTED: &[(&str, &str)] = &[
    (
        "TRUST_REMOTE_CODE",
        "models are native; no code of a repository is run",
    ),
    ("TOKENIZER_POOL_TYPE", "tokenization runs in threads, not in Ray"),
    ("TOKENIZER_MODE", "one implementation answers to both"),
    (
        "GUIDED_DECODING_BACKEND",
        "one implementation answers to all names",
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

/// Variables of those documents that this version refuses rather than ignores.
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
    "LOAD_FORMAT",
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

/// What became of one environment variable.
#[derive(Clone, Copy, Debug)]
pub enum Variable {
    /// It is this setting.
    Setting(&'static Setting),
    /// It is recognised and has no effect, for this reason.
    Accepted(&'static str),
    /// It belongs to the documents, but not to this version.
    NotInThisVersion,
    /// It is none of ours.
    Unknown,
}

/// Looks an environment variable up in the table.
pub fn variable(name: &str) -> Variable {
    if let Some(setting) = SETTINGS.iter().find(|s| s.answers_to(name)) {
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

#[cfg(test)]
mod tests;
