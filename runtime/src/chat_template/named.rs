//! Templates that `CONV_TEMPLATE` and `ti_model_config.json` call by name: for checkpoints that bring none.
//!
//! The formats are those of FastChat's `conversation.py`, which the names come from.

/// A template with a name.
#[derive(Debug, PartialEq, Eq)]
pub struct Named {
    /// What it is called by.
    pub name: &'static str,
    /// The template in Jinja; `None`: its format is not public, so the checkpoint must bring it.
    pub source: Option<&'static str>,
    /// Tokens that end an answer in this format, where the tokenizer has them.
    pub stops: &'static [&'static str],
}

/// Every name.
pub const NAMED: &[Named] = &[
    Named {
        name: "generate",
        source: Some("{% for m in messages %}{{ m.content }}{% endfor %}"),
        stops: &[],
    },
    Named {
        name: "shennong_chat",
        source: None,
        stops: &[],
    },
    Named {
        name: "llama-3",
        source: Some(
            "<|begin_of_text|>{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n\
             {{ m.content | trim }}<|eot_id|>{% endfor %}\
             {% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
        ),
        stops: &["<|end_of_text|>", "<|eot_id|>"],
    },
    Named {
        name: "llama-2",
        source: Some(
            "{{ bos_token }}{% set ns = namespace(system='') %}\
             {% for m in messages %}\
             {% if m.role == 'system' %}{% set ns.system = '<<SYS>>\n' ~ m.content ~ '\n<</SYS>>\n\n' %}\
             {% elif m.role == 'user' %}[INST] {{ ns.system }}{{ m.content }} [/INST]{% set ns.system = '' %}\
             {% else %} {{ m.content }} {{ eos_token }}{% if not loop.last %}{{ bos_token }}{% endif %}{% endif %}\
             {% endfor %}",
        ),
        stops: &[],
    },
    Named {
        name: "qwen-7b-chat",
        source: Some(
            "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}\
             {% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
             {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        ),
        stops: &["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    },
    Named {
        name: "baichuan2-chat",
        source: Some(
            "{% for m in messages %}{% if m.role == 'user' %}<reserved_106>{% elif m.role == 'assistant' %}\
             <reserved_107>{% endif %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<reserved_107>{% endif %}",
        ),
        stops: &["<reserved_106>"],
    },
    Named {
        name: "baichuan-chat",
        source: Some(
            "{% for m in messages %}{% if m.role == 'user' %}<reserved_102>{% elif m.role == 'assistant' %}\
             <reserved_103>{% endif %}{{ m.content }}{% endfor %}{% if add_generation_prompt %}<reserved_103>{% endif %}",
        ),
        stops: &["<reserved_102>"],
    },
    Named {
        name: "chatglm3",
        source: Some(
            "{% for m in messages %}<|{{ m.role }}|>\n {{ m.content }}{% endfor %}\
             {% if add_generation_prompt %}<|assistant|>{% endif %}",
        ),
        stops: &["<|user|>", "<|observation|>"],
    },
    Named {
        name: "chatglm2",
        source: Some(
            "{% set ns = namespace(round=1) %}{% for m in messages %}\
             {% if m.role == 'system' %}{{ m.content }}\n\n\
             {% elif m.role == 'user' %}[Round {{ ns.round }}]\n\n问：{{ m.content }}\n\n{% set ns.round = ns.round + 1 %}\
             {% else %}答：{{ m.content }}\n\n{% endif %}{% endfor %}{% if add_generation_prompt %}答：{% endif %}",
        ),
        stops: &[],
    },
];

impl Named {
    /// The template of this name.
    pub fn get(name: &str) -> Option<&'static Named> {
        NAMED.iter().find(|named| named.name == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::super::{ChatTemplate, Conversation, Ending};
    use super::*;

    fn rendered(name: &str) -> String {
        let tokens = BTreeMap::from([
            ("bos_token", "<s>".to_string()),
            ("eos_token", "</s>".to_string()),
        ]);
        let source = Named::get(name).unwrap().source.unwrap();
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

    /// Expected texts were written by FastChat 0.2.36's conversations of these names; the trailing space that it
    /// leaves between llama-2's answers stands where the tokenizer's end is written here.
    #[test]
    fn the_formats_are_fastchats() {
        let expected = [
            ("generate", "SABC"),
            (
                "llama-3",
                "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>\
                 <|start_header_id|>user<|end_header_id|>\n\nA<|eot_id|>\
                 <|start_header_id|>assistant<|end_header_id|>\n\nB<|eot_id|>\
                 <|start_header_id|>user<|end_header_id|>\n\nC<|eot_id|>\
                 <|start_header_id|>assistant<|end_header_id|>\n\n",
            ),
            (
                "llama-2",
                "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\nA [/INST] B </s><s>[INST] C [/INST]",
            ),
            (
                "qwen-7b-chat",
                "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA<|im_end|>\n\
                 <|im_start|>assistant\nB<|im_end|>\n<|im_start|>user\nC<|im_end|>\n<|im_start|>assistant\n",
            ),
            (
                "baichuan2-chat",
                "S<reserved_106>A<reserved_107>B<reserved_106>C<reserved_107>",
            ),
            (
                "baichuan-chat",
                "S<reserved_102>A<reserved_103>B<reserved_102>C<reserved_103>",
            ),
            (
                "chatglm3",
                "<|system|>\n S<|user|>\n A<|assistant|>\n B<|user|>\n C<|assistant|>",
            ),
            (
                "chatglm2",
                "S\n\n[Round 1]\n\n问：A\n\n答：B\n\n[Round 2]\n\n问：C\n\n答：",
            ),
        ];
        for (name, text) in expected {
            assert_eq!(rendered(name), text, "{name}");
        }
        assert_eq!(NAMED.len(), expected.len() + 1);
    }
}
