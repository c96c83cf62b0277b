//! How much a `tokenizer.json` may lengthen a text.
//!
//! A file of two kilobytes can double a text in each of sixty steps, or put a hundred million tokens around it. The
//! library follows it until the memory is full, so the factors are added up before it reads the file.

use serde_json::Value;

/// Times that the normaliser may lengthen a text, all its steps together.
const GROWTH_MAX: usize = 4096;
/// Steps of a normaliser.
const STEPS_MAX: usize = 256;
/// Pieces of the templates of a post-processor, and ids of a piece, all together.
const TEMPLATE_IDS_MAX: usize = 4096;

/// Checks the growth of texts by normaliser and post-processor.
///
/// # Errors
/// What grows too much.
pub(super) fn check(tokenizer: &Value) -> Result<(), String> {
    let mut growth = Growth {
        factor: 1,
        n_steps: 0,
    };
    growth.follow(&tokenizer["normalizer"])?;
    let n_ids = template_ids(&tokenizer["post_processor"]);
    if n_ids > TEMPLATE_IDS_MAX {
        return Err(format!(
            "its post-processor adds up to {n_ids} tokens, must be at most {TEMPLATE_IDS_MAX}"
        ));
    }
    Ok(())
}

struct Growth {
    factor: usize,
    n_steps: usize,
}

impl Growth {
    /// The nesting of steps is bounded by the JSON parser.
    fn follow(&mut self, step: &Value) -> Result<(), String> {
        for inner in step["normalizers"].as_array().into_iter().flatten() {
            self.follow(inner)?;
        }
        self.n_steps += 1;
        let content = step["content"].as_str().unwrap_or_default();
        let times = match step["type"].as_str() {
            // A regular expression may match one character, or none between any two.
            Some("Replace") => match step["pattern"]["String"].as_str() {
                Some(pattern) => content.len().div_ceil(pattern.len().max(1)),
                None => content.len().saturating_add(1),
            },
            // Before each text, which may be one character.
            Some("Prepend") => step["prepend"]
                .as_str()
                .unwrap_or_default()
                .len()
                .saturating_add(1),
            // Compatibility forms lengthen one character to 18 at most; others less.
            _ => 1,
        };
        self.factor = self.factor.saturating_mul(times.max(1));
        if self.n_steps > STEPS_MAX {
            return Err(format!("its normalizer has more than {STEPS_MAX} steps"));
        }
        if self.factor > GROWTH_MAX {
            return Err(format!(
                "its normalizer lengthens a text more than {GROWTH_MAX} times"
            ));
        }
        Ok(())
    }
}

/// Tokens that a post-processor writes around a text, at most.
fn template_ids(step: &Value) -> usize {
    let inner = step["processors"].as_array().into_iter().flatten();
    let inner: usize = inner.map(template_ids).sum();
    let pieces = ["single", "pair"].map(|name| step[name].as_array().map_or(0, Vec::len));
    let tokens = step["special_tokens"].as_object().into_iter().flatten();
    let ids: usize = tokens
        .map(|(_, token)| token["ids"].as_array().map_or(0, Vec::len))
        .sum();
    let longest = pieces.into_iter().max().unwrap_or(0);
    inner.saturating_add(longest.saturating_mul(ids.max(1)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn usual_files_pass() {
        let llama = json!({"normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]}});
        let bert = json!({
            "normalizer": {"type": "BertNormalizer", "lowercase": true},
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [101], "tokens": ["[CLS]"]}}},
        });
        for file in [llama, bert, json!({}), json!([])] {
            assert_eq!(check(&file), Ok(()), "{file}");
        }
    }

    #[test]
    fn bombs_are_refused() {
        let doubling = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        let wide = json!({"type": "Replace", "pattern": {"Regex": "."}, "content": "x".repeat(1_000_000)});
        let many = json!({"type": "Lowercase"});
        for (normalizers, what) in [
            (vec![doubling; 60], "lengthens"),
            (vec![wide], "lengthens"),
            (vec![many; 300], "steps"),
        ] {
            let file = json!({"normalizer": {"type": "Sequence", "normalizers": normalizers}});
            let refused = check(&file).unwrap_err();
            assert!(refused.contains(what), "{refused}");
        }
        let file = json!({"post_processor": {"type": "Sequence", "processors": [{
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "x", "type_id": 0}}],
            "special_tokens": {"x": {"ids": vec![1; 100_000]}},
        }]}});
        assert!(check(&file).unwrap_err().contains("100000 tokens"));
    }
}
