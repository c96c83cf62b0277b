//! `slipway-runtime inspect --effective`: the value of each setting and where it is from.

use std::fmt::Write as _;
use std::path::Path;

use crds::settings::{DefaultValue, Effective};
use serde::Serialize;
use serde_json::Value;

use crate::config::EffectiveSettings;
use crate::model::{Outline, Overrides};
use crate::serving::overrides;

/// A line of the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// The flag without dashes.
    pub setting: String,
    /// The value; text for one that is known only in words.
    pub value: Value,
    /// The layer that gives it, `model` or `default`.
    pub source: String,
    /// Its name in that layer; absent for a default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The report in the chosen form.
pub fn text(effective: &EffectiveSettings, is_json: bool) -> String {
    let lines = lines(effective);
    if is_json {
        let accepted = effective
            .accepted
            .iter()
            .map(|(name, why)| (name.clone(), (*why).into()));
        let accepted: serde_json::Map<String, Value> = accepted.collect();
        return format!(
            "{:#}\n",
            serde_json::json!({"settings": lines, "without_effect": accepted})
        );
    }
    let mut text = String::new();
    for line in &lines {
        let value = match &line.value {
            Value::String(value) => value.clone(),
            other => other.to_string(),
        };
        let name = line.name.as_deref().unwrap_or_default();
        let source = format!("{} {name}", line.source);
        let _ = writeln!(text, "{:<34} {value:<40} {}", line.setting, source.trim_end());
    }
    for (name, why) in &effective.accepted {
        let _ = writeln!(text, "{name:<34} without effect: {why}");
    }
    text
}

/// One line per setting, in the order of the form.
pub fn lines(effective: &EffectiveSettings) -> Vec<Line> {
    let model = effective.merged.process.model().unwrap_or_default();
    let overrides = overrides(&effective.merged.engine);
    let facts = ModelFacts::read(Path::new(&model), &overrides);
    effective
        .settings
        .iter()
        .map(|setting| line(setting, &facts))
        .collect()
}

fn line(
    Effective {
        setting,
        value,
        source,
    }: &Effective,
    facts: &ModelFacts,
) -> Line {
    let is_secret = setting.row.secret && value.is_some();
    let (value, source, name) = match (value, source) {
        (Some(value), Some((layer, name))) => (value.clone(), layer.clone(), Some(name.clone())),
        _ => match (facts.value(setting.field), setting.default) {
            (Some(value), _) => (value, "model".to_owned(), None),
            (None, DefaultValue::Value(value)) => (value(), "default".to_owned(), None),
            (None, DefaultValue::FromModel(words)) => (words.into(), "model".to_owned(), None),
            (None, DefaultValue::FromMachine(words)) => (words.into(), "machine".to_owned(), None),
            (None, DefaultValue::Absent(words)) => (words.into(), "default".to_owned(), None),
        },
    };
    Line {
        setting: setting.flag(),
        value: if is_secret { "(secret)".into() } else { value },
        source,
        name,
    }
}

/// What the files of a model say about settings that nobody gave.
struct ModelFacts {
    context_len: Option<usize>,
}

impl ModelFacts {
    /// Nothing for a model that is not in a folder here.
    fn read(folder: &Path, overrides: &Overrides) -> ModelFacts {
        ModelFacts {
            context_len: Outline::read_with(folder, overrides)
                .ok()
                .map(|outline| outline.context_len),
        }
    }

    fn value(&self, field: &str) -> Option<Value> {
        match field {
            "max_model_len" => self.context_len.map(Value::from),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Environment, ServeArguments};

    const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/models/tiny-trained");

    fn read(flags: &[(&str, &str)], env: &[(&str, &str)]) -> Vec<Line> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settings.yaml");
        std::fs::write(&file, "max-num-seqs: 7\n").unwrap();
        let arguments = ServeArguments {
            flags: flags
                .iter()
                .map(|(name, text)| (name.to_string(), text.to_string()))
                .collect(),
            config: Some(file),
            ..ServeArguments::default()
        };
        let environment = env.iter().copied().collect::<Environment>();
        lines(&config::effective(&arguments, &environment).unwrap())
    }

    #[test]
    fn each_value_has_its_source() {
        let lines = read(
            &[("model", TINY), ("seed", "3"), ("api-key", "k")],
            &[("MAX_BATCH_SIZE", "9"), ("BLOCK_SIZE", "32")],
        );
        let of = |setting: &str| {
            let line = lines.iter().find(|line| line.setting == setting).unwrap();
            let name = line.name.clone().unwrap_or_default();
            (line.value.to_string(), line.source.clone(), name)
        };
        let is =
            |value: &str, source: &str, name: &str| (value.to_string(), source.to_string(), name.to_string());
        assert_eq!(of("seed"), is("3", "command line", "--seed"));
        assert_eq!(of("max-num-seqs"), is("9", "environment", "MAX_BATCH_SIZE"));
        assert_eq!(of("block-size"), is("32", "environment", "BLOCK_SIZE"));
        assert_eq!(of("dtype"), is("\"auto\"", "default", ""));
        assert_eq!(of("api-key"), is("\"(secret)\"", "command line", "--api-key"));
        assert_eq!(of("max-model-len").1, "model");
        assert!(of("max-model-len").0.parse::<usize>().is_ok());
        let of_file = read(&[("model", TINY)], &[]);
        let line = of_file
            .iter()
            .find(|line| line.setting == "max-num-seqs")
            .unwrap();
        assert!(
            line.source.ends_with("settings.yaml") && line.value == 7,
            "{line:?}"
        );
    }
}
