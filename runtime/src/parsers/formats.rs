//! The formats in which models write calls and reasoning: one row each, under vLLM's names.
//!
//! Sources are the chat templates of the models' repositories. JSON formats are parsed incrementally, so that
//! arguments stream. In the other formats, a block is parsed when it is complete, here or by the crate `tool-parser`.
//! The streaming of that crate is not used, because its result depends on how the text is split into chunks.

use openai_protocol::common::Tool;
use tool_parser::parsers::{
    DeepSeek31Parser, DeepSeekDsmlParser, DeepSeekParser, Glm4MoeParser, Step3Parser,
};

use super::pythonic::{self, ParsedCall};
use super::tagged::{self, calls};
use crate::grammar::Preamble;

/// A format of calls.
#[derive(Debug)]
pub struct ToolFormat {
    /// Its names; the first is the canonical one.
    pub names: &'static [&'static str],
    /// `auto` chooses this format for a chat template that writes no calls but contains all of these; never if empty.
    pub(super) template_words: &'static [&'static str],
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
    /// The ids that the template accepts.
    pub ids: CallIds,
}

/// The ids of calls that a template accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallIds {
    /// Any text.
    #[default]
    Any,
    /// This number of letters and digits.
    Length(usize),
    /// `functions.NAME:N`: the template writes the id in the place of the name. N counts the calls of the conversation.
    Numbered,
}

impl CallIds {
    /// Whether the template accepts an id.
    pub(super) fn accept(self, id: &str) -> bool {
        match self {
            Self::Any | Self::Numbered => !id.is_empty(),
            Self::Length(length) => id.len() == length && id.chars().all(|char| char.is_ascii_alphanumeric()),
        }
    }
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
    /// Sections, whose first lines are names.
    Sections,
}

impl ToolFormat {
    /// Whether calls and reasoning are messages.
    pub(super) fn has_messages(&self) -> bool {
        matches!(self.body, Body::Messages)
    }

    /// Whether calls and content are sections.
    pub(super) fn has_sections(&self) -> bool {
        matches!(self.body, Body::Sections)
    }
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
    ids: CallIds::Any,
};

/// The list of calls that a grammar enforces for `tool_choice: required`.
pub(super) static LISTED: ToolFormat = ToolFormat {
    names: &["listed"],
    starts: &['['],
    is_certain: true,
    ..JSON
};

const GRANITE: ToolFormat = ToolFormat {
    names: &["granite"],
    template_words: &["<|tool_call|>"],
    opens: &["<|tool_call|>", "<tool_call>"],
    starts: &['['],
    closes: &["</tool_call>", "<|/tool_call|>"],
    has_special_marks: true,
    ..JSON
};

/// All formats. `auto` chooses the first that reads the calls of the chat template, or whose words the template contains.
pub(super) static TOOL_FORMATS: &[ToolFormat] = &[
    ToolFormat {
        names: &["qwen3_coder", "qwen3_xml", "qwen_xml"],
        template_words: &["<function=", "<parameter="],
        opens: &["<tool_call>"],
        closes: &["</tool_call>"],
        body: Body::Block(tagged::functions),
        ..JSON
    },
    ToolFormat {
        names: &["seed_oss"],
        template_words: &["<seed:tool_call>"],
        opens: &["<seed:tool_call>"],
        closes: &["</seed:tool_call>"],
        body: Body::Block(tagged::functions),
        has_special_marks: true,
        ..JSON
    },
    ToolFormat {
        names: &["functionary_v31"],
        opens: &["<function="],
        closes: &["</function>"],
        body: Body::Block(tagged::function_objects),
        ..JSON
    },
    ToolFormat {
        names: &["functionary_v32"],
        template_words: &[">>>all"],
        opens: &[SECTION],
        body: Body::Sections,
        ..JSON
    },
    ToolFormat {
        names: &["gemma4"],
        template_words: &["<|tool_call>call:"],
        opens: &["<|tool_call>"],
        closes: &["<tool_call|>"],
        body: Body::Block(tagged::gemma),
        has_special_marks: true,
        ..JSON
    },
    ToolFormat {
        names: &["functiongemma"],
        template_words: &["<start_function_call>"],
        opens: &["<start_function_call>"],
        closes: &["<end_function_call>"],
        body: Body::Block(tagged::gemma),
        has_special_marks: true,
        ..JSON
    },
    ToolFormat {
        names: &["apertus"],
        template_words: &["<|tools_prefix|>"],
        opens: &["<|tools_prefix|>"],
        closes: &["<|tools_suffix|>"],
        body: Body::Block(tagged::named_objects),
        has_special_marks: true,
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
        body: Body::Block(tagged::invocations),
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
        names: &["deepseek_v4"],
        opens: &["<｜DSML｜tool_calls>"],
        closes: &["</｜DSML｜tool_calls>"],
        body: Body::Block(|block, tools| calls(DeepSeekDsmlParser::v4(), block, tools)),
        ..JSON
    },
    ToolFormat {
        names: &["kimi_k2"],
        template_words: &["<|tool_calls_section_begin|>"],
        opens: &["<|tool_calls_section_begin|>"],
        closes: &["<|tool_calls_section_end|>"],
        body: Body::Block(tagged::numbered),
        has_special_marks: true,
        ids: CallIds::Numbered,
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
        ids: CallIds::Length(9),
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
        names: &["command_r"],
        template_words: &["Action:", "```json", "tool_name"],
        opens: &["Action:\n```json", "Action: ```json", "Action:```json"],
        closes: &["```"],
        ..JSON
    },
    ToolFormat {
        names: &["gigachat3"],
        template_words: &["function call<|role_sep|>"],
        opens: &[
            "<|message_sep|>\n\nfunction call<|role_sep|>",
            "function call<|role_sep|>",
            "<|function_call|>",
        ],
        closes: &["<|message_sep|>"],
        has_special_marks: true,
        ..JSON
    },
    ToolFormat {
        names: &["granite-20b-fc"],
        template_words: &["<function_call>"],
        opens: &["<function_call>"],
        ..JSON
    },
    ToolFormat {
        names: &["nemotron"],
        template_words: &["<TOOLCALL>"],
        opens: &["<TOOLCALL>"],
        closes: &["</TOOLCALL>"],
        ..JSON
    },
    ToolFormat {
        names: &["longcat"],
        template_words: &["<longcat_tool_call>"],
        opens: &["<longcat_tool_call>"],
        closes: &["</longcat_tool_call>"],
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
    GRANITE,
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
        names: &["lfm2"],
        template_words: &["<|tool_list_start|>"],
        opens: &["<|tool_call_start|>"],
        closes: &["<|tool_call_end|>"],
        body: Body::Block(|block, _| pythonic::calls(block)),
        has_special_marks: true,
        ..JSON
    },
    ToolFormat {
        names: &["olmo3"],
        template_words: &["<function_calls>"],
        opens: &["<function_calls>"],
        closes: &["</function_calls>"],
        body: Body::Block(|block, _| pythonic::lines(block)),
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

/// Begins a section of functionary's format.
pub(super) const SECTION: &str = ">>>";
/// Words that only templates of the harmony format contain.
const HARMONY: &[&str] = &["<|channel|>", "<|message|>", "<|start|>"];

/// A format of reasoning.
#[derive(Debug)]
pub struct ReasoningFormat {
    /// Its names; the first is the canonical one.
    pub names: &'static [&'static str],
    /// `auto` chooses this format for a chat template that contains all of these; never if empty.
    pub(super) template_words: &'static [&'static str],
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

pub(super) static REASONING_FORMATS: &[ReasoningFormat] = &[
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
        names: &["gemma4"],
        template_words: &["<|channel>"],
        open: "<|channel>thought",
        close: "<channel|>",
        has_messages: false,
        begins: Begins::Outside,
        has_special_marks: true,
    },
    ReasoningFormat {
        names: &["apertus"],
        template_words: &["<|inner_prefix|>"],
        open: "<|inner_prefix|>",
        close: "<|inner_suffix|>",
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
