//! Control characters inside the strings of a JSON text, which models write as they are and JSON forbids.

/// Writes a JSON text with the control characters of its strings escaped. Other characters do not change.
#[derive(Clone, Debug, Default)]
pub(super) struct JsonText {
    in_string: bool,
    escaped: bool,
}

impl JsonText {
    /// Appends the next character to `text`.
    pub(super) fn push(&mut self, char: char, text: &mut String) {
        let follows_backslash = self.escaped;
        self.escaped = self.in_string && char == '\\' && !follows_backslash;
        if self.in_string && char < ' ' {
            // A backslash before it is already written.
            let code = match char {
                '\n' => "n".to_owned(),
                '\r' => "r".to_owned(),
                '\t' => "t".to_owned(),
                other => format!("u{:04x}", u32::from(other)),
            };
            if !follows_backslash {
                text.push('\\');
            }
            text.push_str(&code);
            return;
        }
        if char == '"' && !follows_backslash {
            self.in_string = !self.in_string;
        }
        text.push(char);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn written(text: &str) -> String {
        let (mut json, mut written) = (JsonText::default(), String::new());
        text.chars().for_each(|char| json.push(char, &mut written));
        written
    }

    #[test]
    fn control_characters_in_strings_are_escaped() {
        let text = "{\n\"a\": \"b\nc\td\\\\\u{1}\\\"\r\",\n\"e\": [\"\\n\"]}";
        let expected = "{\n\"a\": \"b\\nc\\td\\\\\\u0001\\\"\\r\",\n\"e\": [\"\\n\"]}";
        assert_eq!(written(text), expected);
        assert!(serde_json::from_str::<Value>(expected).is_ok());
        assert_eq!(written("\"a\\\nb\""), "\"a\\nb\"");
    }

    proptest! {
        #[test]
        fn valid_json_does_not_change(texts in prop::collection::vec("[\\PC\"\\\\]{0,12}", 0..6)) {
            let text = Value::from(texts).to_string();
            prop_assert_eq!(written(&text), text);
        }
    }
}
