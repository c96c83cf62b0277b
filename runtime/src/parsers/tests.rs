//! The pieces of each format, which do not depend on how the text is split into chunks.

use std::sync::Arc;

use openai_protocol::common::Tool;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn tools() -> Arc<[Tool]> {
    let tool = |name: &str| {
        json!({"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {
            "city": {"type": "string"}, "days": {"type": "integer"}, "tags": {"type": "array"}
        }}}})
    };
    serde_json::from_value(json!([tool("get_weather"), tool("search")])).unwrap()
}

fn formats(calls: &str, reasoning: &str, template: &str) -> Formats {
    let names = FormatNames {
        calls: calls.into(),
        reasoning: reasoning.into(),
        reads_chosen_calls: true,
    };
    names.formats(Some(template)).unwrap()
}

fn chosen(name: &str) -> ParserPlan {
    let format = formats(name, "none", "").calls.unwrap();
    ParserPlan {
        calls: Some(Calls::Chosen {
            format,
            tools: tools(),
        }),
        ..ParserPlan::default()
    }
}

fn thinking(name: &str, prompt: &str) -> ParserPlan {
    let format = formats("none", name, "").reasoning.unwrap();
    let begins = format.begins(prompt);
    ParserPlan {
        reasoning: Some(Reasoning { format, begins }),
        ..ParserPlan::default()
    }
}

/// Pieces as one text: `[r]` reasoning, `[c]` content, `[index name]` a call and its arguments.
fn shown(pieces: &[Piece]) -> String {
    let mut shown = String::new();
    let mut last = "";
    for piece in pieces {
        let (kind, text) = match piece {
            Piece::Reasoning(text) => ("[r]", text),
            Piece::Content(text) => ("[c]", text),
            Piece::Call { index, name, .. } => {
                shown.push_str(&format!("[{index} {name}]"));
                last = "";
                continue;
            }
            Piece::Arguments { text, .. } => ("", text),
        };
        if kind != last {
            shown.push_str(kind);
        }
        last = kind;
        shown.push_str(text);
    }
    shown
}

fn parsed(plan: &ParserPlan, parts: &[&str]) -> String {
    let mut parser = OutputParser::new(plan);
    let mut pieces: Vec<Piece> = parts
        .iter()
        .flat_map(|part| parser.push((*part).to_string()))
        .collect();
    pieces.extend(parser.finish());
    shown(&pieces)
}

const CASES: &[(&str, &str, &str)] = &[
    (
        "hermes",
        "Sure.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Os}lo\", \"days\": 2}}\n</tool_call>",
        "[c]Sure.[0 get_weather]{\"city\": \"Os}lo\", \"days\": 2}",
    ),
    (
        "hermes",
        "<tool_call>\n{\"arguments\": {\"q\": [1, {\"a\": \"\\\"\"}]}, \"name\": \"search\"}\n</tool_call>\n<tool_call>\n{\"name\": \"search\", \"arguments\": {}}\n</tool_call> Done. ",
        "[0 search]{\"q\": [1, {\"a\": \"\\\"\"}]}[1 search]{}[c]Done. ",
    ),
    ("hermes", "a < b <tool", "[c]a < b <tool"),
    (
        "hermes",
        "<tool_call>\n{\"name\": \"nope\", \"arguments\": {}}\n</tool_call>",
        "[c]<tool_call>\n{\"name\": \"nope\", \"arguments\": {}}\n</tool_call>",
    ),
    (
        "hermes",
        "<tool_call>hm</tool_call>",
        "[c]<tool_call>hm</tool_call>",
    ),
    ("hermes", "<tool_call></tool_call>", "[c]<tool_call></tool_call>"),
    (
        "hermes",
        "<tool_call>{\"name\": <tool_call>{\"name\": \"search\"}</tool_call>",
        "[c]<tool_call>{\"name\":[0 search]{}",
    ),
    (
        "hermes",
        "<tool_call>{\"name\": \"search\", \"arguments\": {\"q\": 1}\n</tool_call>!",
        "[0 search]{\"q\": 1}[c]!",
    ),
    (
        "hermes",
        "<tool_call>{\"name\": \"search\", \"arguments\": \"{\\\"q\\\": 1}\"}</tool_call>",
        "[0 search]{\"q\": 1}",
    ),
    (
        "hermes",
        "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Os",
        "[0 get_weather]{\"city\": \"Os",
    ),
    (
        "hermes",
        "<tool_call>{\"name\": \"get_weath",
        "[c]<tool_call>{\"name\": \"get_weath",
    ),
    (
        "llama3_json",
        "<|python_tag|>{\"name\": \"search\", \"parameters\": {\"q\": \"x\"}}; {\"name\": \"search\", \"parameters\": {}}",
        "[0 search]{\"q\": \"x\"}[1 search]{}",
    ),
    (
        "llama3_json",
        "\n{\"name\": \"search\", \"parameters\": {}}",
        "[0 search]{}",
    ),
    ("llama3_json", "{\"a\": 1}", "[c]{\"a\": 1}"),
    (
        "llama3_json",
        "Use {\"name\": \"search\"}",
        "[c]Use {\"name\": \"search\"}",
    ),
    (
        "mistral",
        "[TOOL_CALLS] [{\"name\": \"search\", \"arguments\": {\"q\": 1}}, {\"name\": \"get_weather\", \"arguments\": {}}]",
        "[0 search]{\"q\": 1}[1 get_weather]{}",
    ),
    (
        "mistral",
        "Hi[TOOL_CALLS]search[ARGS]{\"q\": 1}[TOOL_CALLS]get_weather{\"city\": \"x\"}",
        "[c]Hi[0 search]{\"q\": 1}[1 get_weather]{\"city\": \"x\"}",
    ),
    (
        "mistral",
        "[TOOL_CALLS]search[CALL_ID]abc[ARGS]{}",
        "[0 search]{}",
    ),
    (
        "qwen3_coder",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\n7\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>",
        "[0 get_weather]{\"city\":\"7\",\"days\":2}",
    ),
    (
        "qwen3_coder",
        "<tool_call>\n<function=get_w",
        "[c]<tool_call>\n<function=get_w",
    ),
    (
        "glm45",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n</tool_call>",
        "[0 get_weather]{\"city\":\"Oslo\"}",
    ),
    (
        "deepseek_v3",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>search\n```json\n{\"q\": \"x\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "[0 search]{\"q\":\"x\"}",
    ),
    (
        "deepseek_v31",
        "Hm<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>search<｜tool▁sep｜>{\"q\": \"x\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "[c]Hm[0 search]{\"q\":\"x\"}",
    ),
    (
        "kimi_k2",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.search:0<|tool_call_argument_begin|>{\"q\": 1}<|tool_call_end|><|tool_calls_section_end|>",
        "[0 search]{\"q\": 1}",
    ),
    (
        "minimax_m2",
        "<minimax:tool_call>\n<invoke name=\"search\">\n<parameter name=\"city\">x</parameter>\n</invoke>\n</minimax:tool_call>",
        "[0 search]{\"city\":\"x\"}",
    ),
    (
        "deepseek_v32",
        "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"search\">\n<｜DSML｜parameter name=\"city\" string=\"true\">x</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        "[0 search]{\"city\":\"x\"}",
    ),
    (
        "step3",
        "<｜tool_calls_begin｜><｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name=\"search\"><steptml:parameter name=\"city\">x</steptml:parameter></steptml:invoke><｜tool_call_end｜><｜tool_calls_end｜>",
        "[0 search]{\"city\":\"x\"}",
    ),
    (
        "pythonic",
        "[get_weather(city='Oslo', days=2), search(tags=['a', True])]",
        "[0 get_weather]{\"city\":\"Oslo\",\"days\":2}[1 search]{\"tags\":[\"a\",true]}",
    ),
    ("pythonic", "[1, 2] are numbers", "[c][1, 2] are numbers"),
    (
        "cohere",
        "<|START_ACTION|>[\n{\"tool_call_id\": \"0\", \"tool_name\": \"search\", \"parameters\": {\"q\": 1}}\n]<|END_ACTION|>",
        "[0 search]{\"q\": 1}",
    ),
    (
        "phi4_mini_json",
        "functools[{\"name\": \"search\", \"arguments\": {}}]",
        "[0 search]{}",
    ),
    (
        "granite",
        "<|tool_call|>[{\"name\": \"search\", \"arguments\": {}}]",
        "[0 search]{}",
    ),
    (
        "jamba",
        "<tool_calls>[{\"name\": \"search\", \"arguments\": {}}]</tool_calls>",
        "[0 search]{}",
    ),
    (
        "internlm",
        "<|action_start|><|plugin|>\n{\"name\": \"search\", \"parameters\": {}}<|action_end|>",
        "[0 search]{}",
    ),
    (
        "json",
        "[{\"name\": \"search\", \"arguments\": {}}] ok",
        "[0 search]{}[c]ok",
    ),
    (
        "openai",
        "<|channel|>analysis<|message|>I a < b<|end|><|start|>assistant<|channel|>commentary<|message|>One moment.<|end|><|start|>assistant<|channel|>commentary to=functions.search <|constrain|>json<|message|>{\"q\": 1}<|call|>",
        "[r]I a < b[c]One moment.[0 search]{\"q\": 1}",
    ),
    (
        "openai",
        " to=functions.get_weather<|channel|>commentary json<|message|>{}<|call|><|start|>assistant to=functions.search<|channel|>commentary<|message|>{\"q",
        "[0 get_weather]{}[1 search]{\"q",
    ),
    (
        "openai",
        "<|channel|>commentary to=functions.nope <|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>Hi <|end",
        "[c]{}Hi <|end",
    ),
    ("openai", "to be <|or", "[c]to be <|or"),
    ("openai", "<|channel|>final", ""),
];

#[test]
fn every_format_is_parsed() {
    for (name, text, expected) in CASES {
        assert_eq!(&parsed(&chosen(name), &[text]), expected, "{name}: {text}");
    }
    for format in super::formats::tool_formats() {
        let is_tested = CASES.iter().any(|(name, ..)| format.names.contains(name));
        assert!(is_tested || format.names[0] == "glm47", "{:?}", format.names);
    }
}

#[test]
fn reasoning_precedes_the_answer() {
    let cases = [
        ("qwen3", "user", "<think>\nhm\n</think>\n\nHi\n", "[r]hm[c]Hi\n"),
        ("qwen3", "user", "Hi <think>no</think>", "[c]Hi <think>no</think>"),
        (
            "qwen3",
            "assistant\n<think>\n",
            "hm</think>Hi</think>",
            "[r]hm[c]Hi</think>",
        ),
        ("qwen3", "<think>\n\n</think>\n\n", "Hi", "[c]Hi"),
        ("qwen3", "user", "<think>cut o", "[r]cut o"),
        ("deepseek_r1", "user", "hm</think>Hi", "[r]hm[c]Hi"),
        (
            "deepseek_r1",
            "user",
            "<think>a < b</thin k</think>",
            "[r]a < b</thin k",
        ),
        ("deepseek_r1", "user", "only this", "[r]only this"),
        ("mistral", "user", "[THINK]a[/THINK]b", "[r]a[c]b"),
        (
            "granite",
            "user",
            "Here is my thought process: a Here is my response: b",
            "[r]a[c]b",
        ),
        ("seed_oss", "user", "<seed:think>a</seed:think>b", "[r]a[c]b"),
        (
            "openai_gptoss",
            "<|start|>assistant",
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|channel|>final<|message|>c <",
            "[r]ab[c]c <",
        ),
    ];
    for (name, prompt, text, expected) in cases {
        assert_eq!(
            parsed(&thinking(name, prompt), &[text]),
            expected,
            "{name}: {text}"
        );
        let chars: Vec<String> = text.chars().map(String::from).collect();
        let chars: Vec<&str> = chars.iter().map(String::as_str).collect();
        assert_eq!(
            parsed(&thinking(name, prompt), &chars),
            expected,
            "{name}: {text}"
        );
    }
}

#[test]
fn forced_calls_follow_reasoning() {
    let think = thinking("qwen3", "<think>");
    let named = Calls::Named {
        name: "search".into(),
    };
    let named = ParserPlan {
        calls: Some(named),
        ..think.clone()
    };
    assert_eq!(
        parsed(&named, &["a</thi", "nk>\n\n{\"q\":", " 1}"]),
        "[r]a[0 search]{\"q\": 1}"
    );
    let listed = ParserPlan {
        calls: Some(Calls::Listed { tools: tools() }),
        ..think
    };
    let two =
        "a</think>[{\"name\":\"search\",\"parameters\":{\"q\":1}},{\"name\":\"search\",\"parameters\":{}}]";
    assert_eq!(parsed(&listed, &[two]), "[r]a[0 search]{\"q\":1}[1 search]{}");
    let single = ParserPlan {
        single_call: true,
        ..listed
    };
    assert_eq!(parsed(&single, &[two]), "[r]a[0 search]{\"q\":1}");
}

#[test]
fn an_empty_plan_changes_nothing() {
    assert_eq!(
        parsed(&ParserPlan::default(), &[" <think>", "\n", ""]),
        "[c] <think>\n"
    );
}

#[test]
fn a_template_determines_its_formats() {
    let calls = |template: &str| {
        formats("auto", "auto", template)
            .calls
            .map(|format| format.names[0])
    };
    assert_eq!(calls("<tool_call>\\n{\"name\": <function-name>"), Some("hermes"));
    assert_eq!(
        calls("<tool_call>\\n<function=x>\\n<parameter=y>"),
        Some("qwen3_coder")
    );
    assert_eq!(calls("[TOOL_CALLS]"), Some("mistral"));
    assert_eq!(
        calls("<|start|>assistant<|channel|>final<|message|>"),
        Some("openai")
    );
    assert_eq!(calls("{{ message['content'] }}"), None);
    let reasoning = |template: &str| {
        formats("auto", "auto", template)
            .reasoning
            .map(|format| format.names[0])
    };
    assert_eq!(reasoning("content.split('</think>')"), Some("qwen3"));
    assert_eq!(reasoning("{{ content }}"), None);
    assert!(formats("none", "none", "<tool_call></think>").calls.is_none());
    let names = |calls: &str, reads_chosen_calls| FormatNames {
        calls: calls.into(),
        reasoning: "auto".into(),
        reads_chosen_calls,
    };
    assert!(names("hermes", false).formats(None).unwrap().calls.is_none());
    let error = names("herms", true).formats(None).unwrap_err().to_string();
    assert!(error.contains("'herms'") && error.contains("hermes"), "{error}");
}

/// The chunks of `text` between these places.
fn cut<'a>(text: &'a str, places: &[prop::sample::Index]) -> Vec<&'a str> {
    let mut at: Vec<usize> = places
        .iter()
        .map(|place| place.index(text.len() + 1))
        .filter(|at| text.is_char_boundary(*at))
        .chain([0, text.len()])
        .collect();
    at.sort_unstable();
    at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

const FRAGMENTS: &[&str] = &[
    "<tool_call>",
    "</tool_call>",
    "{",
    "}",
    "[",
    "]",
    "\"name\"",
    ":",
    "\"search\"",
    "\"arguments\"",
    ",",
    " ",
    "\n",
    "{\"q\": \"<\"}",
    "<think>",
    "</think>",
    "[TOOL_CALLS]",
    "search",
    "[ARGS]",
    "<|python_tag|>",
    "é",
    "<",
    "\\\"",
    "<function=search>",
    "</function>",
    "{\"name\": \"search\", \"arguments\": {\"q\": 1}}",
    "</",
    "null",
    ";",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "search(city='a')",
    "<arg_key>",
    "</arg_value>",
    "<parameter=city>",
    "<|channel|>",
    "analysis",
    "<|message|>",
    "<|start|>",
    " to=functions.search",
    "<|call|>",
];

proptest! {
    #[test]
    fn chunks_do_not_matter(
        case in prop::sample::select(CASES),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let (name, text, expected) = case;
        prop_assert_eq!(&parsed(&chosen(name), &cut(text, &places)), expected);
    }

    #[test]
    fn any_text_is_parsed_equally_in_any_chunks_and_is_not_lost(
        format in prop::sample::select(super::formats::tool_formats()),
        thinks in any::<bool>(),
        fragments in prop::collection::vec(prop::sample::select(FRAGMENTS), 0..16),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let text = fragments.concat();
        let plan = ParserPlan {
            reasoning: thinks.then(|| thinking("qwen3", "").reasoning).flatten(),
            ..chosen(format.names[0])
        };
        let unsplit = parsed(&plan, &[&text]);
        prop_assert_eq!(&parsed(&plan, &cut(&text, &places)), &unsplit);
        // Headers of messages are dropped.
        if !thinks && !unsplit.contains("[0 ") && !format.has_messages() {
            prop_assert_eq!(unsplit.strip_prefix("[c]").unwrap_or(&unsplit), &text);
        }
    }
}
