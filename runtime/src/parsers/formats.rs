//! The formats in which models write calls and reasoning: one row each, under vLLM's names.
//!
//! Sources are the chat templates of the models' repositories. JSON formats are parsed incrementally, so that
//! arguments stream. In the other formats, a block is parsed when it is complete, mostly by the crate `tool-parser`.
//! The streaming of that crate is not used, because its result depends on how the text is split into chunks.

use crds::settings::OpenaiSettings;
use futures::FutureExt;
use openai_protocol::common::Tool;
use tool_parser::parsers::{
    DeepSeek31Parser, DeepSeekDsmlParser, DeepSeekParser, Glm4MoeParser, KimiK2Parser, MinimaxM2Parser,
    QwenXmlParser, Step3Parser,
};
use tool_parser::traits::ToolParser;

use super::pythonic::{self, ParsedCall};
use crate::grammar::Preamble;

/// A format of calls.
#[derive(Debug)]
pub struct ToolFormat {
    /// Its names; the first is the canonical one.
    pub names: &'static [&'static str],
    /// `auto` chooses this format for a chat template that contains all of these; never if empty.
    template_words: &'static [&'static str],
    /// Marks that begin calls.
    pub(super) opens: &'static [&'static str],
    /// Characters that begin calls at the start of an answer.
    pub(super) starts: &'static [char],
    /// Marks that end calls.
    pub(super) closes: &'static [&'static str],
    /// The syntax between the marks.
    pub(super) body: Body,
    /// Whether a name without quotes may precede the JSON arguments.
    pub(super) has_bare_names: bool,
    /// Whether the marks are special tokens.
    pub(super) has_special_marks: bool,
    /// Whether a grammar enforces calls, so that incomplete ones are not content.
    pub(super) is_certain: bool,
    /// Length of a call's id, if the template requires one.
    pub(super) id_length: Option<usize>,
}

/// Parses a block; returns no calls if it cannot.
pub(super) type ReadBlock = fn(&str, &[Tool]) -> Vec<ParsedCall>;

/// The syntax of calls between their marks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Body {
    /// Objects with a name and arguments, alone or listed.
    Json,
    /// A syntax that this function parses, including the marks.
    Block(ReadBlock),
    /// Messages, whose headers also mark reasoning.
    Messages,
}

impl ToolFormat {
    /// Whether calls and reasoning are messages.
    pub(super) fn has_messages(&self) -> bool {
        matches!(self.body, Body::Messages)
    }
}

/// Parses a block with a parser of the crate.
fn calls(parser: impl ToolParser, block: &str, tools: &[Tool]) -> Vec<ParsedCall> {
    // These parsers are futures that never wait.
    let parsed = parser.parse_complete_with_tools(block, tools).now_or_never();
    let Some(Ok((_, calls))) = parsed else {
        return Vec::new();
    };
    let functions = calls.into_iter().map(|call| call.function);
    let parsed = functions.map(|call| ParsedCall {
        name: call.name,
        arguments: call.arguments,
    });
    parsed.collect()
}

const JSON: ToolFormat = ToolFormat {
    names: &[],
    template_words: &[],
    opens: &[],
    starts: &[],
    closes: &[],
    body: Body::Json,
    has_bare_names: false,
    has_special_marks: false,
    is_certain: false,
    id_length: None,
};

/// The list of calls that a grammar enforces for `tool_choice: required`.
pub(super) static LISTED: ToolFormat = ToolFormat {
    names: &["listed"],
    starts: &['['],
    is_certain: true,
    ..JSON
};

/// All formats. `auto` chooses the first that fits the chat template.
static TOOL_FORMATS: &[ToolFormat] = &[
    ToolFormat {
        names: &["qwen3_coder", "qwen3_xml", "qwen_xml"],
        template_words: &["<function=", "<parameter="],
        opens: &["<tool_call>"],
        closes: &["</tool_call>"],
        body: Body::Block(|block, tools| calls(QwenXmlParser::new(), block, tools)),
        ..JSON
    },
    ToolFormat {
        names: &["glm45", "glm4_moe"],
        template_words: &["<arg_key>", "\\n<arg_key>"],
        opens: &["<tool_call>"],
        closes: &["</tool_call>"],
        body: Body::Block(|block, tools| calls(Glm4MoeParser::glm45(), block, tools)),
        ..JSON
    },
    ToolFormat {
        names: &["glm47", "glm47_moe"],
        template_words: &["<arg_key>"],
        opens: &["<tool_call>"],
        closes: &["</tool_call>"],
        body: Body::Block(|block, tools| calls(Glm4MoeParser::glm47(), block, tools)),
        ..JSON
    },
    ToolFormat {
        names: &["minimax_m2", "minimax-m2"],
        template_words: &["<minimax:tool_call>"],
        opens: &["<minimax:tool_call>"],
        closes: &["</minimax:tool_call>"],
        body: Body::Block(|block, tools| calls(MinimaxM2Parser::new(), block, tools)),
        ..JSON
    },
    ToolFormat {
        names: &["deepseek_v3"],
        template_words: &["<｜tool▁calls▁begin｜>", "```json"],
        opens: &["<｜tool▁calls▁begin｜>"],
        closes: &["<｜tool▁calls▁end｜>"],
        body: Body::Block(|block, tools| calls(DeepSeekParser::new(), block, tools)),
        ..JSON
    },
    ToolFormat {
        names: &["deepseek_v31"],
        template_words: &["<｜tool▁calls▁begin｜>"],
        opens: &["<｜tool▁calls▁begin｜>"],
        closes: &["<｜tool▁calls▁end｜>"],
        body: Body::Block(|block, tools| calls(DeepSeek31Parser::new(), block, tools)),
        ..JSON
    },
    ToolFormat {
        names: &["deepseek_v32"],
        template_words: &["｜DSML｜function_calls"],
        opens: &["<｜DSML｜function_calls>"],
        closes: &["</｜DSML｜function_calls>"],
        body: Body::Block(|block, tools| calls(DeepSeekDsmlParser::v32(), block, tools)),
        ..JSON
    },
    ToolFormat {
        names: &["kimi_k2"],
        template_words: &["<|tool_calls_section_begin|>"],
        opens: &["<|tool_calls_section_begin|>"],
        closes: &["<|tool_calls_section_end|>"],
        body: Body::Block(|block, tools| calls(KimiK2Parser::new(), block, tools)),
        has_special_marks: true,
        ..JSON
    },
    ToolFormat {
        names: &["step3"],
        template_words: &["<｜tool_calls_begin｜>"],
        opens: &["<｜tool_calls_begin｜>"],
        closes: &["<｜tool_calls_end｜>"],
        body: Body::Block(|block, tools| calls(Step3Parser::new(), block, tools)),
        ..JSON
    },
    ToolFormat {
        names: &["mistral"],
        template_words: &["[TOOL_CALLS]"],
        opens: &["[TOOL_CALLS]"],
        has_bare_names: true,
        has_special_marks: true,
        // Mistral's templates reject other lengths.
        id_length: Some(9),
        ..JSON
    },
    ToolFormat {
        names: &["cohere", "cohere_command3"],
        template_words: &["<|START_ACTION|>"],
        opens: &["<|START_ACTION|>"],
        closes: &["<|END_ACTION|>"],
        has_special_marks: true,
        ..JSON
    },
    ToolFormat {
        names: &["internlm"],
        template_words: &["<|action_start|>"],
        opens: &["<|action_start|><|plugin|>"],
        closes: &["<|action_end|>"],
        has_special_marks: true,
        ..JSON
    },
    ToolFormat {
        names: &["granite"],
        template_words: &["<|tool_call|>"],
        opens: &["<|tool_call|>", "<tool_call>"],
        starts: &['['],
        closes: &["</tool_call>"],
        has_special_marks: true,
        ..JSON
    },
    ToolFormat {
        names: &["jamba", "hunyuan_a13b"],
        template_words: &["<tool_calls>"],
        opens: &["<tool_calls>"],
        closes: &["</tool_calls>"],
        has_special_marks: true,
        ..JSON
    },
    ToolFormat {
        names: &["phi4_mini_json"],
        template_words: &["functools["],
        opens: &["functools"],
        ..JSON
    },
    ToolFormat {
        names: &["pythonic", "llama4_pythonic"],
        template_words: &["[func_name1("],
        opens: &["<|python_start|>"],
        starts: &['['],
        closes: &["<|python_end|>"],
        body: Body::Block(|block, _| pythonic::calls(block)),
        has_special_marks: true,
        ..JSON
    },
    ToolFormat {
        names: &["llama3_json", "llama4_json", "llama"],
        template_words: &["\"parameters\": ", "ipython"],
        opens: &["<|python_tag|>"],
        starts: &['{'],
        has_special_marks: true,
        ..JSON
    },
    ToolFormat {
        names: &["hermes", "qwen", "qwen25"],
        template_words: &["<tool_call>"],
        opens: &["<tool_call>"],
        closes: &["</tool_call>"],
        ..JSON
    },
    ToolFormat {
        names: &["openai", "gpt_oss"],
        template_words: HARMONY,
        body: Body::Messages,
        has_special_marks: true,
        ..JSON
    },
    ToolFormat {
        names: &["xlam", "json"],
        starts: &['[', '{'],
        ..JSON
    },
];

/// Words that only templates of the harmony format contain.
const HARMONY: &[&str] = &["<|channel|>", "<|message|>", "<|start|>"];

/// A format of reasoning.
#[derive(Debug)]
pub struct ReasoningFormat {
    /// Its names; the first is the canonical one.
    pub names: &'static [&'static str],
    /// `auto` chooses this format for a chat template that contains all of these; never if empty.
    template_words: &'static [&'static str],
    pub(super) open: &'static str,
    pub(super) close: &'static str,
    /// Whether reasoning is a message of the harmony format.
    pub(super) has_messages: bool,
    /// Where an answer begins if the prompt ends with neither mark.
    begins: Begins,
    pub(super) has_special_marks: bool,
}

/// Where an answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// With content, unless the model opens its reasoning first.
    Outside,
    /// Inside the reasoning.
    Inside,
}

static REASONING_FORMATS: &[ReasoningFormat] = &[
    ReasoningFormat {
        names: &["openai_gptoss", "gpt_oss"],
        template_words: HARMONY,
        open: "<|channel|>analysis<|message|>",
        close: "<|channel|>final<|message|>",
        has_messages: true,
        begins: Begins::Outside,
        has_special_marks: true,
    },
    ReasoningFormat {
        names: &["mistral"],
        template_words: &["[THINK]"],
        open: "[THINK]",
        close: "[/THINK]",
        has_messages: false,
        begins: Begins::Outside,
        has_special_marks: true,
    },
    ReasoningFormat {
        names: &["seed_oss"],
        template_words: &["<seed:think>"],
        open: "<seed:think>",
        close: "</seed:think>",
        has_messages: false,
        begins: Begins::Outside,
        has_special_marks: false,
    },
    ReasoningFormat {
        names: &["granite"],
        template_words: &["Here is my thought process:"],
        open: "Here is my thought process:",
        close: "Here is my response:",
        has_messages: false,
        begins: Begins::Outside,
        has_special_marks: false,
    },
    ReasoningFormat {
        names: &[
            "qwen3",
            "deepseek_v3",
            "deepseek_v31",
            "glm45",
            "holo2",
            "kimi_k2",
            "nemotron_v3",
            "olmo3",
        ],
        template_words: &["</think>"],
        open: "<think>",
        close: "</think>",
        has_messages: false,
        begins: Begins::Outside,
        has_special_marks: false,
    },
    ReasoningFormat {
        names: &["deepseek_r1", "minimax_m2", "step3", "qwen3_thinking"],
        template_words: &[],
        open: "<think>",
        close: "</think>",
        has_messages: false,
        begins: Begins::Inside,
        has_special_marks: false,
    },
];

/// The name of an unknown format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no parser '{name}'; available are auto, none, {}", known.join(", "))]
pub struct UnknownParser {
    /// The requested name.
    pub name: String,
    /// All names.
    pub known: Vec<&'static str>,
}

/// The names of the formats in the settings. `auto` means the format of the chat template, `none` means no format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatNames {
    /// Of calls.
    pub calls: String,
    /// Of reasoning.
    pub reasoning: String,
    /// Whether calls are parsed if the model may choose to make none.
    pub reads_chosen_calls: bool,
}

/// The formats of a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Formats {
    /// Of calls that the model chooses to make.
    pub calls: Option<&'static ToolFormat>,
    /// Of reasoning.
    pub reasoning: Option<&'static ReasoningFormat>,
}

impl FormatNames {
    /// Reads the names from the settings and checks that they exist.
    ///
    /// # Errors
    /// [`UnknownParser`] for an unknown name.
    pub fn of(openai: &OpenaiSettings) -> Result<Self, UnknownParser> {
        let names = Self {
            calls: openai.tool_call_parser(),
            reasoning: openai.reasoning_parser(),
            reads_chosen_calls: openai.enable_auto_tool_choice(),
        };
        names.formats(None)?;
        Ok(names)
    }

    /// The formats of a model with this chat template.
    ///
    /// # Errors
    /// [`UnknownParser`] for an unknown name.
    pub fn formats(&self, template: Option<&str>) -> Result<Formats, UnknownParser> {
        let template = template.unwrap_or_default();
        let has_all = |words: &[&str]| !words.is_empty() && words.iter().all(|word| template.contains(word));
        let calls = choose(
            &self.calls,
            TOOL_FORMATS,
            |format| format.names,
            |format| has_all(format.template_words),
        )?;
        let reasoning = choose(
            &self.reasoning,
            REASONING_FORMATS,
            |format| format.names,
            |format| has_all(format.template_words),
        )?;
        Ok(Formats {
            calls: calls.filter(|_| self.reads_chosen_calls),
            reasoning,
        })
    }
}

fn choose<T>(
    setting: &str,
    formats: &'static [T],
    names: fn(&T) -> &'static [&'static str],
    fits: impl Fn(&T) -> bool,
) -> Result<Option<&'static T>, UnknownParser> {
    match setting {
        "none" => return Ok(None),
        "auto" => return Ok(formats.iter().find(|format| fits(format))),
        _ => {}
    }
    let named = formats.iter().find(|format| names(format).contains(&setting));
    named.map(Some).ok_or_else(|| UnknownParser {
        name: setting.to_string(),
        known: formats.iter().flat_map(names).copied().collect(),
    })
}

#[cfg(test)]
pub(super) fn tool_formats() -> Vec<&'static ToolFormat> {
    TOOL_FORMATS.iter().collect()
}

impl ReasoningFormat {
    /// What an answer to this prompt contains before the part that a grammar describes; `None` if the prompt already
    /// contains the reasoning.
    pub fn preamble(&self, prompt: &str) -> Option<Preamble> {
        if self.has_messages {
            return Some(Preamble::Messages {
                open: self.open,
                close: "<|end|><|start|>assistant",
                answer: self.close,
            });
        }
        match self.begins(prompt) {
            Begins::Inside => Some(Preamble::Until { close: self.close }),
            Begins::Outside if prompt.trim_end().ends_with(self.close) => None,
            Begins::Outside => Some(Preamble::Between {
                open: self.open,
                close: self.close,
            }),
        }
    }

    /// Where an answer to this prompt begins.
    pub fn begins(&self, prompt: &str) -> Begins {
        let prompt = prompt.trim_end();
        if prompt.ends_with(self.open) {
            Begins::Inside
        } else if prompt.ends_with(self.close) {
            Begins::Outside
        } else {
            self.begins
        }
    }
}
