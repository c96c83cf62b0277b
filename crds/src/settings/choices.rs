//! Settings that are one of a few names: one enum each.
//!
//! A name is written once; YAML, variables, flags, documents and errors take it from here. The default is in the
//! setting's row.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! choices {
    ($(
        $(#[doc = $doc:literal])+
        $Name:ident { $( $(#[doc = $variant_doc:literal])+ $Variant:ident = $name:literal, )+ }
    )*) => { $(
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum $Name {
            $( $(#[doc = $variant_doc])+ #[serde(rename = $name)] $Variant, )+
        }

        impl $Name {
            /// The choice as settings write it.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$Variant => $name, )+ }
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    )* };
}

choices! {
    /// Number type of the weights in memory.
    Dtype {
        /// The checkpoint's.
        Auto = "auto",
        /// Same as `float16`.
        Half = "half",
        /// IEEE half precision.
        Float16 = "float16",
        /// Brain float.
        Bfloat16 = "bfloat16",
        /// Same as `float32`.
        Float = "float",
        /// IEEE single precision.
        Float32 = "float32",
    }

    /// Type of the numbers in the KV cache.
    KvCacheDtype {
        /// That of the weights in memory.
        Auto = "auto",
        /// Same as `fp8_e4m3`.
        Fp8 = "fp8",
        /// Eight bits, four of them exponent.
        Fp8E4m3 = "fp8_e4m3",
        /// Eight bits, five of them exponent.
        Fp8E5m2 = "fp8_e5m2",
        /// IEEE half precision.
        Float16 = "float16",
        /// Brain float.
        Bfloat16 = "bfloat16",
        /// IEEE single precision.
        Float32 = "float32",
    }
    /// How the matrices of the layers are kept in memory.
    Quantization {
        /// As `dtype` says.
        None = "none",
        /// As `dtype` says if they fit into memory that way, else as `ifq`.
        Auto = "auto",
        /// Integers of 8 bits.
        Ifq = "ifq",
        /// NormalFloat of 4 bits.
        IfqNf4 = "ifq_nf4",
        /// Floats of 8 bits (e4m3).
        Fp8 = "fp8",
    }

    /// What computes the model.
    Device {
        /// The first GPU that can be used, else the CPU.
        Auto = "auto",
        /// The CPU.
        Cpu = "cpu",
        /// The first GPU; without one the server does not start.
        Cuda = "cuda",
    }

    /// Files from which the weights are read.
    LoadFormat {
        /// Safetensors if there are any, else PyTorch's files.
        Auto = "auto",
        /// Safetensors only.
        Safetensors = "safetensors",
        /// PyTorch's files only.
        Pt = "pt",
        /// Same as `pt`; no cache of NumPy arrays is written, because the files are read at the same speed without.
        Npcache = "npcache",
        /// No files: seeded random weights of the shapes in `config.json`.
        Dummy = "dummy",
    }

    /// What the model is served for.
    TaskChoice {
        /// What the checkpoint is for.
        Auto = "auto",
        /// Continuing a text.
        Generate = "generate",
        /// Making a vector of a text.
        Embed = "embed",
        /// Same as `embed`.
        Embedding = "embedding",
        /// Scoring pairs of texts.
        Score = "score",
        /// Assigning a text to classes.
        Classify = "classify",
    }

    /// What happens to a sequence whose KV-cache blocks an older sequence needs.
    PreemptionMode {
        /// Its tokens are computed again.
        Recompute = "recompute",
        /// Its blocks are swapped to host memory and back.
        Swap = "swap",
        /// Same as `swap`.
        Save = "save",
    }

    /// The order of waiting requests.
    SchedulingPolicy {
        /// By arrival.
        Fcfs = "fcfs",
        /// By `priority`, the smallest first; equal ones by arrival.
        Priority = "priority",
    }

    /// Which events are logged.
    LogLevel {
        /// Failures only.
        Error = "error",
        /// Also warnings.
        Warn = "warn",
        /// Also the main events of the process.
        Info = "info",
        /// Also their details.
        Debug = "debug",
        /// Everything.
        Trace = "trace",
    }

    /// Conversation templates by the names of TI-ONE, which are FastChat's.
    ConvTemplate {
        /// No template: contents are joined without any marks.
        Generate = "generate",
        /// The model's own template; the format of this name is not public.
        ShennongChat = "shennong_chat",
        /// Llama 3.
        Llama3 = "llama-3",
        /// Llama 2.
        Llama2 = "llama-2",
        /// Qwen, in the ChatML format.
        Qwen7bChat = "qwen-7b-chat",
        /// Baichuan 2.
        Baichuan2Chat = "baichuan2-chat",
        /// Baichuan.
        BaichuanChat = "baichuan-chat",
        /// ChatGLM 3.
        Chatglm3 = "chatglm3",
        /// ChatGLM 2.
        Chatglm2 = "chatglm2",
    }

    /// The form in which a chat template expects the content of a message.
    ContentFormat {
        /// The form that the template can read, found by trying both.
        Auto = "auto",
        /// A text.
        String = "string",
        /// A list of parts, as in OpenAI's API.
        Openai = "openai",
    }

    /// Form of a line of the log.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }
}

/// How weights are read, by the names of vLLM's loader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoaderConfig {
    /// Read with several threads. If this is false, one thread reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_multithread_load: Option<bool>,
    /// Threads that read.
    #[schemars(range(min = 1, max = 1024))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_threads: Option<u32>,
}
