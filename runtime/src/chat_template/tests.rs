//! Templates of the dialect, and what they make of conversations.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

fn conversation(messages: Json, ending: Ending) -> Conversation {
    Conversation {
        messages: messages.as_array().unwrap().clone(),
        ending,
        variables: json!({"enable_thinking": false}).as_object().unwrap().clone(),
    }
}

fn render_with(source: &str, conversation: &Conversation) -> Result<String, String> {
    let tokens = BTreeMap::from([
        ("bos_token", "<s>".to_string()),
        ("eos_token", "</s>".to_string()),
    ]);
    let template = ChatTemplate::compile(source, tokens).map_err(|error| error.to_string())?;
    template.render(conversation).map_err(|error| error.to_string())
}

fn check(source: &str, expected: &str) {
    let hi = conversation(
        json!([{"role": "user", "content": " hi "}]),
        Ending::GenerationPrompt,
    );
    assert_eq!(render_with(source, &hi).as_deref(), Ok(expected), "{source}");
}

fn refusal(source: &str) -> String {
    let hi = conversation(
        json!([{"role": "user", "content": "hi"}]),
        Ending::GenerationPrompt,
    );
    render_with(source, &hi).unwrap_err()
}

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}\
                      {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

#[test]
fn developers_become_the_system_if_the_template_does_not_know_them() {
    let messages = json!([{"role": "developer", "content": "a"}]);
    let of = |source: &str| render_with(source, &conversation(messages.clone(), Ending::Messages)).unwrap();
    assert_eq!(of("{{ messages[0].role }}"), "system");
    assert_eq!(of("{{ messages[0].role }}{# developer #}"), "developer");
}

#[test]
fn chatml_has_the_requested_ending() {
    let messages = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well, "}]);
    let render = |ending| render_with(CHATML, &conversation(messages.clone(), ending)).unwrap();
    let both = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nWell, <|im_end|>\n";
    assert_eq!(render(Ending::Messages), both);
    assert_eq!(
        render(Ending::GenerationPrompt),
        format!("{both}<|im_start|>assistant\n")
    );
    assert_eq!(
        render(Ending::OpenMessage),
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nWell, "
    );
}

#[test]
fn an_open_message_must_have_content() {
    let empty = conversation(
        json!([{"role": "assistant", "content": " "}]),
        Ending::OpenMessage,
    );
    assert!(
        render_with(CHATML, &empty)
            .unwrap_err()
            .contains("continue_final_message")
    );
    let trimmed = conversation(
        json!([{"role": "assistant", "content": " a "}]),
        Ending::OpenMessage,
    );
    assert_eq!(
        render_with("[{{ messages[0].content | trim }}]", &trimmed).unwrap(),
        "[a"
    );
}

#[test]
fn the_dialect_of_the_hub() {
    check(
        "{{ bos_token }}{{ messages[0]['content'] | trim | upper }}",
        "<s>HI",
    );
    check("{{ {'b': 1, 'a': '<é>'} | tojson }}", r#"{"b": 1, "a": "<é>"}"#);
    check(
        "{{ [1, {'a': []}] | tojson(indent=2) }}",
        "[\n  1,\n  {\n    \"a\": []\n  }\n]",
    );
    check(
        "{% set x = 'a,b'.split(',') %}{{ x[-1] }}{{ 'abc'[::-1] }}",
        "bcba",
    );
    check(
        "{{ 'a-b'.removeprefix('a-') }}{{ 'c.x'.removesuffix('.x') }}{{ ' d '.strip() }}",
        "bcd",
    );
    check(
        "{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
        "02",
    );
    check(
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
        "1",
    );
    check(
        "{%- macro m(a, b=2) -%}{{ a }}{{ b }}{%- endmacro -%}{{ m(1) }}",
        "12",
    );
    check("{{ messages | map(attribute='role') | join(',') }}", "user");
    check(
        "{{ True }} {{ None }} {{ enable_thinking is false }} {{ x is defined }}",
        "True None True False",
    );
    check(
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
        "1",
    );
    check(
        "{%- if tools %}t{% endif -%} {{ 'x' if documents is not defined }}",
        "x",
    );
    check("  {% if true %}\n  a\n  {% endif %}\n", "  a\n");
    check("a {%- generation -%} b {% endgeneration %} c", "ab  c");
}

#[test]
fn a_custom_template_wins_over_the_checkpoints() {
    let config = TokenizerConfig {
        chat_template: Some("its {{ eos_token }}".into()),
        eos_token: Some("</s>".into()),
        ..TokenizerConfig::default()
    };
    let hi = conversation(json!([]), Ending::Messages);
    let render = |custom| {
        ChatTemplate::choose(custom, &config)
            .unwrap()
            .unwrap()
            .render(&hi)
            .unwrap()
    };
    assert_eq!(render(None), "its </s>");
    assert_eq!(render(Some("mine")), "mine");
    assert!(
        ChatTemplate::choose(None, &TokenizerConfig::default())
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_template_can_read_the_clock() {
    let hi = conversation(json!([]), Ending::Messages);
    let year: i32 = render_with("{{ strftime_now('%Y') }}", &hi)
        .unwrap()
        .parse()
        .unwrap();
    assert!(year >= 2025);
    assert!(refusal("{{ strftime_now('%') }}").contains("strftime_now"));
}

#[test]
fn an_exception_of_a_template_is_the_error() {
    assert_eq!(
        refusal("{{ raise_exception('roles must alternate') }}"),
        "roles must alternate"
    );
    assert!(refusal("{{ messages.nothing.at_all }}").contains("undefined"));
}

#[test]
fn a_hostile_template_ends() {
    assert!(
        refusal("{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}")
            .contains("steps")
    );
    assert!(!refusal("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").is_empty());
}

#[test]
fn a_template_that_does_not_compile_is_named_with_its_line() {
    let error = ChatTemplate::compile("a\n{% if %}", BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
}

#[test]
fn variables_of_a_client_cannot_replace_the_messages() {
    let mut hi = conversation(json!([{"role": "user", "content": "hi"}]), Ending::Messages);
    hi.variables.insert("messages".into(), json!([]));
    hi.variables.insert("bos_token".into(), json!("fake"));
    assert_eq!(
        render_with("{{ messages | length }}{{ bos_token }}", &hi).unwrap(),
        "1<s>"
    );
}
