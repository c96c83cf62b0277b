//! Chat templates by the names of `CONV_TEMPLATE` and `ti_model_config.json`, for checkpoints without a template.
//!
//! Formats and names are those of FastChat's `conversation.py`.

use crds::settings::ConvTemplate;

/// A template by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedTemplate {
    /// The template in Jinja; `None` for a format that is not public. The checkpoint must then contain it.
    pub source: Option<&'static str>,
    /// Tokens that end an answer in this format. The tokenizer may lack some.
    pub stops: &'static [&'static str],
}

impl NamedTemplate {
    /// The template with this name.
    pub const fn of(name: ConvTemplate) -> Self {
        match name {
            ConvTemplate::Generate => GENERATE,
            ConvTemplate::ShennongChat => SHENNONG_CHAT,
            ConvTemplate::Llama3 => LLAMA_3,
            ConvTemplate::Llama2 => LLAMA_2,
            ConvTemplate::Qwen7bChat => QWEN_7B_CHAT,
            ConvTemplate::Baichuan2Chat => BAICHUAN2_CHAT,
            ConvTemplate::BaichuanChat => BAICHUAN_CHAT,
            ConvTemplate::Chatglm3 => CHATGLM3,
            ConvTemplate::Chatglm2 => CHATGLM2,
        }
    }
}

const GENERATE: NamedTemplate = NamedTemplate {
    source: Some("{% for m in messages %}{{ m.content }}{% endfor %}"),
    stops: &[],
};
const SHENNONG_CHAT: NamedTemplate = NamedTemplate {
    source: None,
    stops: &[],
};
const LLAMA_3: NamedTemplate = NamedTemplate {
    source: Some(
        "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n\
         {{ m.content | trim }}<|eot_id|>{% endfor %}\
         {% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    ),
    stops: &["<|end_of_text|>", "<|eot_id|>"],
};
const LLAMA_2: NamedTemplate = NamedTemplate {
    source: Some(
        "{{ bos_token }}{% set ns = namespace(system='') %}\
         {% for m in messages %}\
         {% if m.role == 'system' %}{% set ns.system = '<<SYS>>\n' ~ m.content ~ '\n<</SYS>>\n\n' %}\
         {% elif m.role == 'user' %}[INST] {{ ns.system }}{{ m.content }} [/INST]{% set ns.system = '' %}\
         {% else %} {{ m.content }} {{ eos_token }}{% if not loop.last %}{{ bos_token }}{% endif %}{% endif %}\
         {% endfor %}",
    ),
    stops: &[],
};
const QWEN_7B_CHAT: NamedTemplate = NamedTemplate {
    source: Some(
        "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}\
         {% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    ),
    stops: &["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
};
const BAICHUAN2_CHAT: NamedTemplate = NamedTemplate {
    source: Some(
        "{% for m in messages %}{% if m.role == 'user' %}<reserved_106>{% elif m.role == 'assistant' %}\
         <reserved_107>{% endif %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<reserved_107>{% endif %}",
    ),
    stops: &["<reserved_106>"],
};
const BAICHUAN_CHAT: NamedTemplate = NamedTemplate {
    source: Some(
        "{% for m in messages %}{% if m.role == 'user' %}<reserved_102>{% elif m.role == 'assistant' %}\
         <reserved_103>{% endif %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<reserved_103>{% endif %}",
    ),
    stops: &["<reserved_102>"],
};
const CHATGLM3: NamedTemplate = NamedTemplate {
    source: Some(
        "{% for m in messages %}<|{{ m.role }}|>\n {{ m.content }}{% endfor %}\
         {% if add_generation_prompt %}<|assistant|>{% endif %}",
    ),
    stops: &["<|user|>", "<|observation|>"],
};
const CHATGLM2: NamedTemplate = NamedTemplate {
    source: Some(
        "{% set ns = namespace(round=1) %}{% for m in messages %}\
         {% if m.role == 'system' %}{{ m.content }}\n\n\
         {% elif m.role == 'user' %}[Round {{ ns.round }}]\n\n问：{{ m.content }}\n\n{% set ns.round = ns.round + 1 %}\
         {% else %}答：{{ m.content }}\n\n{% endif %}{% endfor %}{% if add_generation_prompt %}答：{% endif %}",
    ),
    stops: &[],
};

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::super::{ChatTemplate, Conversation, Ending};
    use super::*;

    fn rendered(name: ConvTemplate) -> String {
        let tokens = BTreeMap::from([
            ("bos_token", "<s>".to_string()),
            ("eos_token", "</s>".to_string()),
        ]);
        let source = NamedTemplate::of(name).source.unwrap();
        let messages = json!([
            {"role": "system", "content": "S"},
            {"role": "user", "content": "A"},
            {"role": "assistant", "content": "B"},
            {"role": "user", "content": "C"},
        ]);
        let conversation = Conversation {
            messages: messages.as_array().unwrap().clone(),
            ending: Ending::GenerationPrompt,
            variables: serde_json::Map::<String, Value>::new(),
        };
        let template = ChatTemplate::compile(source, tokens).unwrap();
        template.render(&conversation).unwrap()
    }

    /// The expected texts are those of FastChat 0.2.36 for these names. It writes a space after each answer of llama-2;
    /// this template writes the tokenizer's end token.
    #[test]
    fn the_formats_are_fastchats() {
        let expected = [
            (ConvTemplate::Generate, "SABC"),
            (
                ConvTemplate::Llama3,
                "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>\
                 <|start_header_id|>user<|end_header_id|>\n\nA<|eot_id|>\
                 <|start_header_id|>assistant<|end_header_id|>\n\nB<|eot_id|>\
                 <|start_header_id|>user<|end_header_id|>\n\nC<|eot_id|>\
                 <|start_header_id|>assistant<|end_header_id|>\n\n",
            ),
            (
                ConvTemplate::Llama2,
                "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nA [/INST] B </s><s>[INST] C [/INST]",
            ),
            (
                ConvTemplate::Qwen7bChat,
                "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA<|im_end|>\n\
                 <|im_start|>assistant\nB<|im_end|>\n<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\n",
            ),
            (
                ConvTemplate::Baichuan2Chat,
                "S<reserved_106>A<reserved_107>B<reserved_106>C<reserved_107>",
            ),
            (
                ConvTemplate::BaichuanChat,
                "S<reserved_102>A<reserved_103>B<reserved_102>C<reserved_103>",
            ),
            (
                ConvTemplate::Chatglm3,
                "<|system|>\n S<|user|>\n A<|assistant|>\n B<|user|>\n C<|assistant|>",
            ),
            (
                ConvTemplate::Chatglm2,
                "S\n\n[Round 1]\n\n问：A\n\n答：B\n\n[Round 2]\n\n问：C\n\n答：",
            ),
        ];
        for (name, text) in expected {
            assert_eq!(rendered(name), text, "{name}");
        }
        assert_eq!(NamedTemplate::of(ConvTemplate::ShennongChat).source, None);
    }
}
