//! The settings table: one row per setting, in the order of the form.
//!
//! A row with `= value` has a default; its accessor returns the type. A row with `=> …` has none that is a value; its
//! accessor returns an `Option`, and the words describe what holds instead.

use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::DefaultValue::{Absent, FromMachine, FromModel};
use super::{
    ContentFormat, ConvTemplate, DefaultValue, Device, Dtype, KvCacheDtype, LoadFormat, LoaderConfig,
    LogFormat, LogLevel, Place, PreemptionMode, Quantization, Row, SchedulingPolicy, Setting, TaskChoice,
};
use crate::schema;

const ROW: Row = Row {
    env: None,
    env_aliases: &[],
    flag: None,
    flag_aliases: &[],
    synonyms: &[],
    elsewhere: &[],
    place: Place::Field,
    secret: false,
    refuses_empty: false,
    valid: &[],
    invalid: &[],
};

/// What to do where a value of QUANTIZATION means a checkpoint that was quantised before.
const UNQUANTISED: &str =
    "name a checkpoint that is not quantised, and set QUANTIZATION to ifq (8 bits), ifq_nf4 (4 bits) or none";

/// A setting that is on or off.
const SWITCH: Row = Row {
    valid: &["true", "False", "0", "1", "off"],
    invalid: &["maybe", "2"],
    ..ROW
};

/// Why TLS has no field in the custom resource.
const TLS_PLACE: Place = Place::RuntimeOnly("a Service or gateway ends TLS");

macro_rules! settings {
    ($(
        $(#[$group_doc:meta])*
        $group:ident: $Group:ident, title: $title:literal, {
            $(
                $(#[doc = $doc:literal])+
                #[schemars($($schema:tt)*)]
                $field:ident: $ty:ty $(= $value:expr)? $(=> $otherwise:expr)?, $row:expr;
            )*
        }
    )*) => {
        $(
            $(#[$group_doc])*
            #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
            #[serde(rename_all = "camelCase")]
            pub struct $Group {
                $(
                    $(#[doc = $doc])+
                    #[schemars($($schema)*)]
                    #[serde(default, skip_serializing_if = "Option::is_none")]
                    pub $field: Option<$ty>,
                )*
            }

            impl $Group {
                $( accessor! { $field: $ty $(= $value)? } )*
            }
        )*

        /// Every setting, in the order of the form.
        pub const SETTINGS: &[Setting] = &[ $( $( Setting {
            group: stringify!($group),
            field: stringify!($field),
            default: default_value! { $ty $(= $value)? $(=> $otherwise)? },
            row: $row,
            doc: &[ $($doc),+ ],
        }, )* )* ];

        /// The groups and their titles, in the order of the form.
        pub const GROUPS: &[(&str, &str)] = &[ $( (stringify!($group), $title), )* ];

        /// All settings of one process, merged from its layers.
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct Settings {
            $( $(#[$group_doc])* #[serde(default)] pub $group: $Group, )*
        }

        /// JSON schema of the group with this name.
        pub(super) fn group_schema(group: &str) -> Value {
            match group {
                $( stringify!($group) => schema::of::<$Group>(), )*
                other => unreachable!("no group {other}"),
            }
        }
    };
}

macro_rules! accessor {
    ($field:ident: $ty:ty = $value:expr) => {
        #[doc = concat!("The given `", stringify!($field), "`, or its default.")]
        pub fn $field(&self) -> $ty {
            given_or(&self.$field, || $value)
        }
    };
    ($field:ident: $ty:ty) => {
        #[doc = concat!("The given `", stringify!($field), "`; it has no default value.")]
        pub fn $field(&self) -> Option<$ty> {
            self.$field.clone()
        }
    };
}

macro_rules! default_value {
    ($ty:ty = $value:expr) => {
        DefaultValue::Value(|| json::<$ty>($value))
    };
    ($ty:ty => $otherwise:expr) => {
        $otherwise
    };
}

/// The default of a choice is the default of its row.
macro_rules! default_of_row {
    ($( $Choice:ident: $Group:ident.$field:ident, )*) => { $(
        impl Default for $Choice {
            fn default() -> Self {
                $Group::default().$field()
            }
        }
    )* };
}

default_of_row! {
    Dtype: EngineSettings.dtype,
    KvCacheDtype: EngineSettings.kv_cache_dtype,
    LoadFormat: EngineSettings.load_format,
    TaskChoice: EngineSettings.task,
    PreemptionMode: EngineSettings.preemption_mode,
    Quantization: EngineSettings.quantization,
    SchedulingPolicy: EngineSettings.scheduling_policy,
}

fn given_or<T: Clone>(given: &Option<T>, default: impl FnOnce() -> T) -> T {
    given.clone().unwrap_or_else(default)
}

fn json<T: Serialize>(value: T) -> Value {
    serde_json::to_value(value).expect("a default is plain data")
}

settings! {
    /// Names of the model for clients.
    model: ModelSettings, title: "Model", {
        /// Names that clients use for the model. Requests that name no model are for the first one.
        #[schemars(title = "Served names", length(min = 1, max = 16), schema_with = "names_schema")]
        served_model_name: Vec<String> => FromModel("the repository's name"), Row {
            env_aliases: &["OPENAI_SERVED_MODEL_NAME_OVERRIDE", "MODEL_ID"],
            valid: &["a", "a,b", r#"["a,b", "c"]"#],
            invalid: &["[]", "[3]", r#"[""]"#],
            ..ROW
        };
    }

    /// From text to tokens, and from messages to text.
    tokenizer: TokenizerSettings, title: "Tokenizer", {
        /// Repository or directory of the tokenizer, if it is not the model's own.
        #[schemars(title = "Tokenizer", length(min = 1, max = 253))]
        tokenizer: String => FromModel("the model's"), Row {
            env_aliases: &["TOKENIZER_NAME"], valid: &["org/name", "/models/tokenizer"], invalid: &[""], ..ROW
        };
        /// Branch, tag or commit of the tokenizer's repository.
        #[schemars(title = "Tokenizer revision", length(min = 1, max = 253))]
        tokenizer_revision: String = "main".into(), Row { valid: &["v1"], invalid: &[""], ..ROW };
        /// Jinja template that makes a prompt from messages: its text, or the path of a file that the server can read.
        #[schemars(title = "Chat template", length(min = 1, max = 32768))]
        custom_chat_template: String => FromModel("the model's"), Row {
            flag: Some("chat-template"),
            flag_aliases: &["custom-chat-template"],
            valid: &["{% for m in messages %}{{ m.content }}\n{% endfor %}"],
            invalid: &[""],
            ..ROW
        };
        /// Chat template by its TI-ONE name, for a model that has none. `ti_model_config.json` in the model's folder
        /// can also name it. `shennong_chat` is the model's own template, because its format is not public.
        #[schemars(title = "Conversation template")]
        conv_template: ConvTemplate => FromModel("the model's"), Row {
            valid: &["generate", "llama-3"], invalid: &["vicuna"], ..ROW
        };
        /// Serve without a tokenizer: prompts and answers are token ids, and text in a request is an error.
        #[schemars(title = "No tokenizer")]
        skip_tokenizer_init: bool = false, SWITCH;
        /// Number of requests that are read and tokenized at the same time: so many small ones, and so many large ones
        /// (at least 2); the others wait, the clients in turn. 0 means one per core.
        #[schemars(title = "Tokenizer threads", range(min = 0, max = 1024))]
        tokenizer_pool_size: u32 = 0, Row { valid: &["0", "1024"], invalid: &["-1", "1025", "all"], ..ROW };
        /// Form in which the chat template expects the content of a message: a text, or a list of parts as in OpenAI's
        /// API. `auto` follows the template.
        #[schemars(title = "Content format")]
        chat_template_content_format: ContentFormat = ContentFormat::Auto, Row {
            valid: &["auto", "string", "openai"], invalid: &["text"], ..ROW
        };
    }

    /// How the engine loads and runs the model.
    engine: EngineSettings, title: "Engine", {
        /// What computes the model: the CPU, or a GPU (`cuda`). `auto` is the first GPU that can be used, else the CPU; the
        /// log says which and why.
        #[schemars(title = "Device")]
        device: Device = Device::Auto, Row { valid: &["auto", "cpu", "cuda"], invalid: &["gpu", "cuda:1"], ..ROW };
        /// Number type of the weights in memory. `auto` keeps the checkpoint's.
        #[schemars(title = "Data type")]
        dtype: Dtype = Dtype::Auto, Row {
            env_aliases: &["DS_DTYPE"],
            flag_aliases: &["ds-dtype"],
            elsewhere: &[("int8", "set DTYPE to float16, and QUANTIZATION to ifq for weights of 8 bits")],
            valid: &["auto", "half", "float32"],
            invalid: &["int4", "AUTO"],
            ..ROW
        };
        /// How the matrices of the layers are kept in memory. `ifq`, `fp8` and `ifq_nf4` quantise them while they are loaded,
        /// to 8-bit integers, 8-bit floats and 4-bit normal floats with a scale for each 64 numbers; embedding, output
        /// layer and router stay as `dtype` says. `auto` is `ifq` where the weights take more than 60 % of the free
        /// memory, else `none`; the log says which and why. For the CPU.
        #[schemars(title = "Quantization")]
        quantization: Quantization = Quantization::None, Row {
            valid: &["none", "auto", "ifq", "ifq_nf4", "fp8"],
            invalid: &["int3", "IFQ"],
            elsewhere: &[
                ("awq", UNQUANTISED),
                ("awq_marlin", UNQUANTISED),
                ("gptq", UNQUANTISED),
                ("gptq_marlin", UNQUANTISED),
                ("marlin", UNQUANTISED),
                ("squeezellm", UNQUANTISED),
                ("aqlm", UNQUANTISED),
                ("compressed-tensors", UNQUANTISED),
                ("modelopt", UNQUANTISED),
                ("fbgemm_fp8", UNQUANTISED),
                ("gguf", UNQUANTISED),
                ("smoothquant", UNQUANTISED),
                ("bitsandbytes", "set QUANTIZATION to ifq_nf4 (4 bits) or ifq (8 bits)"),
                ("deepspeedfp", "set QUANTIZATION to fp8"),
                ("mxfp4", "set QUANTIZATION to none; the checkpoint's own MXFP4 weights are widened"),
            ],
            ..ROW
        };
        /// What the model is served for. `auto` is what the checkpoint is for. `embed` makes vectors with a model that
        /// generates text: the last token's, of length 1.
        #[schemars(title = "Task")]
        task: TaskChoice = TaskChoice::Auto, Row {
            elsewhere: &[("reward", "serve the model as a classifier, with TASK=classify")],
            valid: &["auto", "generate", "embed", "embedding", "score", "classify"],
            invalid: &["chat"],
            ..ROW
        };
        /// Threads that read weights. Each holds a part of a tensor in memory.
        #[schemars(title = "Loading threads", range(min = 1, max = 1024))]
        max_parallel_loading_workers: u32 => FromMachine("one per core"), Row {
            valid: &["1", "1024"], invalid: &["0", "1025", "all"], ..ROW
        };
        /// How weights are read, as a JSON object: `num_threads`, or `enable_multithread_load` `false` for one thread.
        #[schemars(title = "Loader")]
        model_loader_extra_config: LoaderConfig => Absent("all loading threads read"), Row {
            valid: &[r#"{"num_threads": 2}"#, r#"{"enable_multithread_load": false}"#],
            invalid: &["2", r#"{"threads": 2}"#, r#"{"num_threads": 0}"#],
            ..ROW
        };
        /// Files from which the weights are read: safetensors, PyTorch's (`pt`), or those that the model has (`auto`).
        /// `dummy` reads none and makes random weights, for benchmarks. It needs `config.json` and the tokenizer, and
        /// still downloads a repository; `ignorePatterns` of the repository can leave out the weights.
        #[schemars(title = "Load format")]
        load_format: LoadFormat = LoadFormat::Auto, Row {
            elsewhere: &[
                ("gguf", "choose a checkpoint of safetensors"),
                ("mistral", "choose a checkpoint with config.json"),
                ("bitsandbytes", "set it to auto"),
                ("tensorizer", "set it to auto"),
                ("sharded_state", "set it to auto"),
                ("runai_streamer", "set it to auto; files are read in parallel"),
                ("fastsafetensors", "set it to auto; files are read in parallel"),
            ],
            valid: &["auto", "safetensors", "pt", "npcache", "dummy"],
            invalid: &["zip"],
            ..ROW
        };
        /// Longest context in tokens, prompt and answer together.
        #[schemars(title = "Context length", range(min = 1, max = 16_777_216))]
        max_model_len: u32 => FromModel("the model's"), Row {
            valid: &["1", "16777216"], invalid: &["0", "16777217", "8k"], ..ROW
        };
        /// Most sequences that run in one step.
        #[schemars(title = "Sequences in a step", range(min = 1, max = 4096))]
        max_num_seqs: u32 = 256, Row {
            env_aliases: &["MAX_BATCH_SIZE"],
            flag_aliases: &["max-batch-size"],
            valid: &["1", "4096"],
            invalid: &["0", "4097", "many"],
            ..ROW
        };
        /// Most tokens that one step computes. A longer prompt is computed in chunks of at most this size.
        #[schemars(title = "Tokens in a step", range(min = 1, max = 1_048_576))]
        max_num_batched_tokens: u32 = 512, Row {
            valid: &["1", "1048576"], invalid: &["0", "1048577", "2.5"], ..ROW
        };
        /// Compute long prompts in chunks. `false` computes each prompt in one step, and has an effect only where
        /// `maxNumBatchedTokens` is given and at least the context length: forms contain `false`, and a step never
        /// grows by it. Answers do not change.
        #[schemars(title = "Chunked prefill")]
        enable_chunked_prefill: bool = true, SWITCH;
        /// Before new prompts join sequences that run, wait for this factor times the time that the last prompts took, so
        /// that more prompts are computed together.
        #[schemars(title = "Delay factor", range(min = 0, max = 1000))]
        scheduler_delay_factor: f64 = 0.0, Row {
            valid: &["0.0", "0.5", "1000"], invalid: &["-1", "1001", "long"], ..ROW
        };
        /// Longest wait of an idle engine for further requests, in seconds, before it computes those it has. It waits
        /// for no more than `maxNumSeqs`.
        #[schemars(title = "Batch wait", range(min = 0, max = 60))]
        batch_wait_timeout: f64 = 0.0, Row {
            valid: &["0.1", "60"], invalid: &["-0.1", "61", "100ms"], ..ROW
        };
        /// Tokens in one block of the KV cache.
        #[schemars(title = "Block size", schema_with = "block_size_schema")]
        block_size: u32 = 16, Row { valid: &["8", "16", "32"], invalid: &["0", "12", "64"], ..ROW };
        /// Number type of the KV cache. `auto` is that of the weights in memory, as `dtype` sets it. `fp8` is `fp8_e4m3`:
        /// half the memory of 16 bits, and less exact; numbers beyond 448 become 448, and there are no scales. A GPU
        /// has only the type of its weights.
        #[schemars(title = "KV-cache data type")]
        kv_cache_dtype: KvCacheDtype = KvCacheDtype::Auto, Row {
            valid: &["auto", "fp8", "fp8_e5m2", "bfloat16", "float32"], invalid: &["int8", "fp8_e3m4", "FP8"], ..ROW
        };
        /// Number of KV-cache blocks.
        #[schemars(title = "KV-cache blocks", range(min = 1, max = 16_777_216))]
        num_gpu_blocks_override: u32 => FromMachine("as many as fit into memory"), Row {
            valid: &["1", "16777216"], invalid: &["0", "16777217"], ..ROW
        };
        /// Part of a GPU's memory that weights, activations and KV cache may take together.
        #[schemars(title = "GPU memory", range(min = 0.05, max = 1.0))]
        gpu_memory_utilization: f64 = 0.9, Row {
            valid: &["0.95", "1"], invalid: &["0", "1.1", "90%"], ..ROW
        };
        /// Compute each step on a GPU op by op. Otherwise a step in which every sequence has one new token is recorded as
        /// a CUDA graph and replayed, which is faster. Answers do not change.
        #[schemars(title = "No CUDA graphs")]
        enforce_eager: bool = false, SWITCH;
        /// Longest context of a sequence in a step that is replayed as a CUDA graph, in tokens.
        #[schemars(title = "Longest recorded context", range(min = 0, max = 16_777_216))]
        max_seq_len_to_capture: u32 = 8192, Row {
            valid: &["0", "16777216"], invalid: &["-1", "16777217", "8k"], ..ROW
        };
        /// Keep the KV cache of computed prompts for requests that begin with the same tokens. Answers do not change.
        #[schemars(title = "Prefix caching")]
        enable_prefix_caching: bool = true, SWITCH;
        /// What happens to a sequence whose KV-cache blocks an older sequence needs: its tokens are computed again, or
        /// its blocks are swapped to host memory and back. `save` means `swap`.
        #[schemars(title = "Preemption mode")]
        preemption_mode: PreemptionMode = PreemptionMode::Recompute, Row {
            valid: &["recompute", "swap", "save"], invalid: &["abort"], ..ROW
        };
        /// Time between two checks whether sequences lost their blocks, in seconds. If some did, the log says how many.
        #[schemars(title = "Preemption check", range(min = 0.1, max = 3600))]
        preemption_check_period: f64 = 1.0, Row {
            valid: &["0.1", "60"], invalid: &["0", "3601", "1s"], ..ROW
        };
        /// Percentage of the free host memory that swapped blocks may take, if `preemptionMode` is `swap`.
        #[schemars(title = "Swap share", range(min = 0, max = 50))]
        preemption_cpu_capacity: f64 = 20.0, Row { valid: &["0", "2", "50"], invalid: &["-1", "51", "2%"], ..ROW };
        /// Host memory for swapped blocks, in GiB. It is used only if `preemptionMode` is `swap`, within
        /// `preemptionCpuCapacity`.
        #[schemars(title = "Swap space", range(min = 0, max = 4096))]
        swap_space: u32 = 4, Row { valid: &["0", "4096"], invalid: &["-1", "4097", "4GiB"], ..ROW };
        /// Let every layer see the whole context, which ends at the smallest window of the model.
        #[schemars(title = "No sliding window")]
        disable_sliding_window: bool = false, SWITCH;
        /// Rotary scaling in place of that in config.json, as a JSON object such as
        /// `{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}`.
        #[schemars(title = "RoPE scaling", schema_with = "object_schema")]
        rope_scaling: Map<String, Value> => FromModel("config.json's"), Row {
            valid: &[r#"{"rope_type": "linear", "factor": 2.0}"#], invalid: &["linear", "2", "[]"], ..ROW
        };
        /// Base of the rotary frequencies in place of that in config.json.
        #[schemars(title = "RoPE base", range(min = 1, max = 1e15))]
        rope_theta: f64 => FromModel("config.json's"), Row {
            valid: &["10000", "1e6"], invalid: &["0", "1e16", "base"], ..ROW
        };
        /// Order of waiting requests: `fcfs` by arrival, `priority` by the request's `priority`, the smallest first.
        #[schemars(title = "Scheduling policy")]
        scheduling_policy: SchedulingPolicy = SchedulingPolicy::Fcfs, Row {
            valid: &["fcfs", "priority"], invalid: &["lifo"], ..ROW
        };
        /// Seed of requests that have none.
        #[schemars(title = "Seed", range(min = 0, max = 9_007_199_254_740_991_i64))]
        seed: u64 = 0, Row {
            valid: &["0", "9007199254740991"], invalid: &["-1", "9007199254740992", "0x10"], ..ROW
        };
        /// Largest `logprobs` that a request may have. -1 means the size of the vocabulary.
        #[schemars(title = "Log probabilities", range(min = -1, max = 1000))]
        max_logprobs: i32 = 20, Row { valid: &["-1", "0", "1000"], invalid: &["-2", "1001", "all"], ..ROW };
    }

    /// Number of tokens in a stream item of a job. The first item has the minimum; each next one is larger by the
    /// factor, up to the maximum: 1, 3, 9, 27, 50, 50 by default.
    streaming: StreamingSettings, title: "Streaming batches", {
        /// Most tokens in a stream item of a job.
        #[schemars(title = "Batch size", range(min = 1, max = 1_048_576))]
        default_batch_size: u32 = 50, Row { valid: &["1", "1048576"], invalid: &["0", "1048577"], ..ROW };
        /// Tokens in the first stream item of a job.
        #[schemars(title = "First batch size", range(min = 1, max = 1_048_576))]
        default_min_batch_size: u32 = 1, Row { valid: &["1", "1048576"], invalid: &["0", "1048577"], ..ROW };
        /// Factor from the size of one stream item of a job to the size of the next.
        #[schemars(title = "Batch growth", range(min = 1, max = 1000))]
        default_batch_size_growth_factor: f64 = 3.0, Row {
            valid: &["1.5", "1000"], invalid: &["0.5", "1001", "twice"], ..ROW
        };
    }

    /// Behaviour of the OpenAI routes.
    openai: OpenaiSettings, title: "OpenAI API", {
        /// Role of the messages that the model writes.
        #[schemars(title = "Response role", length(min = 1, max = 64))]
        openai_response_role: String = "assistant".into(), Row {
            flag_aliases: &["response-role"], valid: &["bot"], invalid: &[""], ..ROW
        };
        /// Refuse requests with parameters that neither OpenAI nor vLLM has. Otherwise the response header
        /// `x-slipway-ignored-parameters` names them.
        #[schemars(title = "Refuse unknown parameters")]
        strict_parameters: bool = false, SWITCH;
        /// Format in which the model writes tool calls, by vLLM's names (`hermes`, `llama3_json`, `mistral`, …).
        /// `auto` takes it from the chat template, `none` leaves calls in the text.
        #[schemars(title = "Tool-call parser", length(min = 1, max = 64))]
        tool_call_parser: String = "auto".into(), Row { valid: &["none", "hermes"], invalid: &[""], ..ROW };
        /// Find tool calls in answers when `tool_choice` is `auto`. If this is false, only `tool_choice` `required` or
        /// a named tool makes calls.
        #[schemars(title = "Automatic tool choice")]
        enable_auto_tool_choice: bool = true, SWITCH;
        /// Format in which the model writes its reasoning, by vLLM's names (`deepseek_r1`, `qwen3`, …). `auto` takes it
        /// from the chat template, `none` leaves the reasoning in the text.
        #[schemars(title = "Reasoning parser", length(min = 1, max = 64))]
        reasoning_parser: String = "auto".into(), Row { valid: &["none", "qwen3"], invalid: &[""], ..ROW };
        /// Stream items of a job with `openai_route` are server-sent events as text. If this is false, they are the
        /// JSON objects of the events.
        #[schemars(title = "Raw OpenAI output")]
        raw_openai_output: bool = true, SWITCH;
    }

    /// How one replica serves.
    serving: ServingSettings, title: "Serving", {
        /// Requests that one replica runs at the same time. As many again may wait; further ones get status 429. For a
        /// model with `ti_model_config.json` or `CONV_TEMPLATE` the default is 128, as in TI-ONE.
        #[schemars(title = "Concurrent requests", range(min = 1, max = 65_536))]
        max_concurrency: u32 = 300, Row {
            flag_aliases: &["limit-worker-concurrency"], valid: &["1", "65536"], invalid: &["0", "65537"], ..ROW
        };
        /// Which events are logged.
        #[schemars(title = "Log level")]
        log_level: LogLevel = LogLevel::Info, Row {
            flag_aliases: &["uvicorn-log-level"],
            synonyms: &[("warning", "warn"), ("critical", "error")],
            valid: &["error", "trace", "warning"],
            invalid: &["loud"],
            ..ROW
        };
        /// Form of a line of the log.
        #[schemars(title = "Log format")]
        log_format: LogFormat = LogFormat::Text, Row { valid: &["text", "json"], invalid: &["xml"], ..ROW };
        /// Do not log the parameters and prompts of requests. Prompts are private.
        #[schemars(title = "No request log")]
        disable_log_requests: bool = true, Row { env_aliases: &["DISABLE_LOGGING_REQUEST"], ..SWITCH };
        /// Most characters of a prompt in a line of the request log.
        #[schemars(title = "Logged prompt", range(min = 0, max = 16_777_216))]
        max_log_len: u32 => Absent("no limit"), Row {
            valid: &["0", "16777216"], invalid: &["-1", "16777217"], ..ROW
        };
        /// Do not log throughput and load. Otherwise one line is logged every 10 s while requests run.
        #[schemars(title = "No load log")]
        disable_log_stats: bool = false, SWITCH;
        /// Origins of the web pages that may send requests from a browser, or `*` for all. `[]` allows none.
        #[schemars(title = "CORS origins", length(max = 64), schema_with = "names_schema")]
        allowed_origins: Vec<String> = vec!["*".into()], Row {
            valid: &["*", "https://a.example,https://b.example", "[]"], invalid: &["[3]", r#"[""]"#], ..ROW
        };
        /// Methods that those pages may use, or `*` for all.
        #[schemars(title = "CORS methods", length(max = 16), schema_with = "names_schema")]
        allowed_methods: Vec<String> = vec!["*".into()], Row {
            valid: &["*", "GET,POST"], invalid: &["[3]", r#"[""]"#], ..ROW
        };
        /// Headers that those pages may send, or `*` for all.
        #[schemars(title = "CORS headers", length(max = 64), schema_with = "names_schema")]
        allowed_headers: Vec<String> = vec!["*".into()], Row {
            valid: &["*", "authorization,content-type"], invalid: &["[3]", r#"[""]"#], ..ROW
        };
        /// Allow those pages to send the cookies and credentials that the browser has stored.
        #[schemars(title = "CORS credentials")]
        allow_credentials: bool = false, SWITCH;
        /// Path prefix that a proxy adds to every route, such as `/models/a`. The routes also work without it.
        #[schemars(title = "Root path", length(min = 1, max = 253))]
        root_path: String => Absent("no prefix"), Row { valid: &["/models/a"], invalid: &[""], ..ROW };
    }

    /// Settings of the process that the custom resource has elsewhere, or not at all.
    process: ProcessSettings, title: "Process", {
        /// Repository on the hub, or a directory.
        #[schemars(title = "Model", length(min = 1, max = 4096))]
        model: String => Absent("required"), Row {
            env: Some("MODEL_NAME"),
            env_aliases: &["MODEL_PATH"],
            flag_aliases: &["model-name", "model-path"],
            place: Place::At("spec.model.huggingFace.repo"),
            valid: &["org/name", "/models/a"],
            invalid: &[""],
            ..ROW
        };
        /// Branch, tag or commit of the model's repository.
        #[schemars(title = "Model revision", length(min = 1, max = 253))]
        model_revision: String = "main".into(), Row {
            flag: Some("revision"),
            flag_aliases: &["model-revision"],
            place: Place::At("spec.model.huggingFace.revision"),
            valid: &["v1"],
            invalid: &[""],
            ..ROW
        };
        /// Directory below which models are downloaded, each into a folder of its own. A complete one that is there
        /// already is served without the hub.
        #[schemars(title = "Download directory", length(min = 1, max = 4096))]
        download_dir: String => FromMachine("`HF_HOME`, `XDG_CACHE_HOME` or `HOME/.cache`"), Row {
            env_aliases: &["BASE_PATH"],
            flag_aliases: &["base-path"],
            place: Place::Ignored("the operator mounts the cache of spec.cache"),
            valid: &["/models"],
            invalid: &[""],
            ..ROW
        };
        /// Token for gated and private repositories of the hub.
        #[schemars(title = "Hub token", length(min = 1, max = 4096))]
        hf_token: String => Absent("none"), Row {
            env_aliases: &[
                "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN", "HUGGINGFACE_TOKEN",
                "HUGGING_FACE_TOKEN", "HUGGINGFACE_API_KEY", "HF_API_TOKEN", "HF_HUB_TOKEN",
            ],
            place: Place::At("spec.model.tokenSecretRef"), secret: true, valid: &["hf_abc"], invalid: &[""], ..ROW
        };
        /// Keys for clients, one of which a client must send as a bearer token.
        #[schemars(title = "API keys", length(min = 1, max = 256), schema_with = "keys_schema")]
        api_key: Vec<String> => Absent("no key is required"), Row {
            env_aliases: &["OPENAI_API_KEYS", "VLLM_API_KEY"],
            flag_aliases: &["api-keys"],
            place: Place::At("spec.auth.apiKeysSecretRef"),
            secret: true,
            refuses_empty: true,
            valid: &["first", "first,second"],
            invalid: &["", "[]", "[12345]"],
            ..ROW
        };
        /// File with the keys for clients: a list as in `OPENAI_API_KEYS`, or one key per line. The server reads it
        /// again when it changes, and keeps the last valid keys if the new ones are not valid.
        #[schemars(title = "File of API keys", length(min = 1, max = 4096))]
        api_keys_file: String => Absent("no file"), Row {
            place: Place::RuntimeOnly("the operator mounts the Secret"),
            refuses_empty: true,
            valid: &["/keys/keys"],
            invalid: &[""],
            ..ROW
        };
        /// Address on which the server listens. `::` means all addresses, those of IPv4 too.
        #[schemars(title = "Host", length(min = 1, max = 253))]
        host: String = "::".into(), Row {
            place: Place::RuntimeOnly("a pod listens on all its addresses"),
            valid: &["127.0.0.1", "[::1]"],
            invalid: &[""],
            ..ROW
        };
        /// Port on which the server listens.
        #[schemars(title = "Port", range(min = 1, max = 65_535))]
        port: u16 = 8000, Row {
            place: Place::RuntimeOnly("the Service's target"),
            valid: &["1", "65535"],
            invalid: &["0", "65536", "http"],
            ..ROW
        };
        /// Second port, for the kubelet, Prometheus and the operator. It answers probes, metrics and load without TLS
        /// and without keys, and has connections of its own. `/startupz`, `/metrics`, `/load` and `/internal/load` are
        /// then on this port only.
        #[schemars(title = "Control port", range(min = 1, max = 65_535))]
        control_port: u16 => Absent("`PORT` answers all of it"), Row {
            place: Place::RuntimeOnly("the operator sets it"),
            valid: &["8001"],
            invalid: &["0", "65536", "http"],
            ..ROW
        };
        /// File with the certificate chain for TLS, in PEM.
        #[schemars(title = "TLS certificate", length(min = 1, max = 4096))]
        ssl_certfile: String => Absent("no TLS"), Row {
            place: TLS_PLACE, valid: &["/tls/chain.pem"], invalid: &[""], ..ROW
        };
        /// File with the key of that certificate, in PEM.
        #[schemars(title = "TLS key", length(min = 1, max = 4096))]
        ssl_keyfile: String => Absent("no TLS"), Row {
            place: TLS_PLACE, valid: &["/tls/key.pem"], invalid: &[""], ..ROW
        };
        /// File with authorities, in PEM. A client must present a certificate of one of them.
        #[schemars(title = "TLS client authorities", length(min = 1, max = 4096))]
        ssl_ca_certs: String => Absent("clients need no certificate"), Row {
            place: TLS_PLACE, valid: &["/tls/authorities.pem"], invalid: &[""], ..ROW
        };
        /// Longest time for running requests to finish after SIGTERM, in seconds.
        #[schemars(title = "Drain timeout", range(min = 0, max = 3600))]
        drain_timeout_seconds: u32 = 90, Row {
            place: Place::At("spec.rollout.drainTimeoutSeconds"),
            valid: &["0", "3600"],
            invalid: &["-1", "3601", "1m"],
            ..ROW
        };
        /// Seconds after SIGTERM in which the server still accepts requests, but is not ready and closes each connection
        /// after its answer, so that load balancers move clients to other servers.
        #[schemars(title = "Shutdown delay", range(min = 0, max = 600))]
        shutdown_delay_seconds: u32 = 0, Row {
            place: Place::RuntimeOnly("the operator sets it"),
            valid: &["0", "5", "600"],
            invalid: &["-1", "601", "5s"],
            ..ROW
        };
    }
}

fn object_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
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
