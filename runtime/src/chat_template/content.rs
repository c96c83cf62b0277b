//! The form in which a template reads the content of a message: a text, or a list of parts.

use std::borrow::Cow;

use crds::settings::ContentFormat;
use serde_json::{Value, json};

use crate::jinja::Template;

/// A text that no template contains.
const PROBE: &str = "qzprobezq";

/// The contents that a template reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contents {
    Texts,
    Parts,
    /// Both: each content stays as it was sent.
    Both,
}

impl Contents {
    /// What a template reads. It reads parts if it has a loop over the content of a message, as in vLLM, and `writes`
    /// the text of a user's part. It reads texts too if it writes a user's text.
    pub(super) fn of(template: &Template, writes: impl Fn(&Value) -> String) -> Self {
        let writes_probe = |content: Value| {
            let text = writes(&json!([{"role": "user", "content": content}]));
            // A template that takes a list for a text writes it in Python's syntax.
            text.contains(PROBE) && !text.contains("'type'") && !text.contains("\"type\"")
        };
        let reads_parts = template.loops_over("messages", "content")
            && writes_probe(json!([{"type": "text", "text": PROBE}]));
        match (reads_parts, writes_probe(json!(PROBE))) {
            (false, _) => Self::Texts,
            (true, true) => Self::Both,
            (true, false) => Self::Parts,
        }
    }

    /// What a setting asks for; `None` for `Auto`.
    pub(super) fn of_setting(format: ContentFormat) -> Option<Self> {
        match format {
            ContentFormat::Auto => None,
            ContentFormat::String => Some(Self::Texts),
            ContentFormat::Openai => Some(Self::Parts),
        }
    }

    /// The messages with such contents.
    pub(super) fn convert(self, messages: &[Value]) -> Vec<Value> {
        let converted = |message: &Value| {
            let content = &message["content"];
            let content = match self {
                Self::Texts if content.is_array() => Value::String(text(content).into_owned()),
                Self::Parts if content.is_string() => json!([{"type": "text", "text": content}]),
                Self::Texts | Self::Parts | Self::Both => return message.clone(),
            };
            let mut message = message.clone();
            message["content"] = content;
            message
        };
        messages.iter().map(converted).collect()
    }
}

/// A content as one text. Line ends join the parts, as in vLLM.
pub fn text(content: &Value) -> Cow<'_, str> {
    match content {
        Value::String(text) => Cow::Borrowed(text),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            Cow::Owned(texts.collect::<Vec<_>>().join("\n"))
        }
        _ => Cow::Borrowed(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(source: &str) -> Contents {
        let template = Template::parse(source).unwrap();
        Contents::of(&template, |messages| {
            template.render(&[("messages", messages)]).unwrap_or_default()
        })
    }

    #[test]
    fn a_loop_over_contents_reads_parts() {
        let loops = "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}";
        let quoted = loops.replace(".content", "['content']");
        let copied = loops.replace("m.content", "c | list");
        for source in [
            format!("{{% for m in messages %}}{loops}{{% endfor %}}"),
            format!("{{% set rest = messages[0:] %}}{{% for m in rest %}}{quoted}{{% endfor %}}"),
            format!("{{% for m in messages %}}{{% set c = m.content %}}{copied}{{% endfor %}}"),
        ] {
            assert_eq!(contents(&source), Contents::Parts, "{source}");
        }
        let both = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}LOOP{% endif %}\
                    {% endfor %}";
        assert_eq!(contents(&both.replace("LOOP", loops)), Contents::Both);
        for source in [
            "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
            "{% for m in messages %}{% for c in m.tool_calls %}{{ c }}{% endfor %}{% endfor %}",
            "{# {% for m in messages %}{% for p in m.content %}{% endfor %}{% endfor %} #}",
            "{{ messages | tojson }}",
            // Only other messages have parts.
            "{% for m in messages %}{% if m.role == 'tool' %}{% for p in m.content %}{{ p }}{% endfor %}\
             {% else %}{{ 'user: ' + m.content }}{% endif %}{% endfor %}",
        ] {
            assert_eq!(contents(source), Contents::Texts, "{source}");
        }
    }

    #[test]
    fn contents_are_converted() {
        let parts = json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]);
        let text = json!([{"role": "user", "content": "a"}]);
        let of = |contents: Contents, messages: &Value| {
            contents.convert(messages.as_array().unwrap())[0]["content"].clone()
        };
        assert_eq!(of(Contents::Texts, &parts), "a\nb");
        assert_eq!(of(Contents::Texts, &text), "a");
        assert_eq!(of(Contents::Parts, &parts), parts[0]["content"]);
        assert_eq!(of(Contents::Parts, &text), json!([{"type": "text", "text": "a"}]));
        assert_eq!(of(Contents::Both, &parts), parts[0]["content"]);
        assert_eq!(of(Contents::Both, &text), "a");
    }
}
