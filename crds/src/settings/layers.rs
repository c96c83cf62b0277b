//! Layers of settings: one per source, checked value by value, merged by precedence.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    EngineSettings, Place, SETTINGS, Setting, Settings, Variable, flag, is_absent, nearest, variable,
};
use crate::schema::{self, Violation};

/// Why a layer of settings cannot be used. `Display` names the source and the setting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// The value does not fit the setting's schema.
    #[error("{source_name}: {setting}: {violation}")]
    Invalid {
        /// Layer, such as `environment` or a file's name.
        source_name: String,
        /// The name of the setting in that layer.
        setting: String,
        /// Why the value does not fit.
        violation: Violation,
    },
    /// A variable that must not be empty has no value.
    #[error("{source_name}: {setting} is empty")]
    Empty {
        /// Layer.
        source_name: String,
        /// The variable.
        setting: String,
    },
    /// A configuration file or a command line has a key that is not a setting.
    #[error("{source_name}: there is no setting '{setting}'{}", did_you_mean(.nearest))]
    Unknown {
        /// Layer.
        source_name: String,
        /// The key.
        setting: String,
        /// The known key that is most like it.
        nearest: Option<String>,
    },
    /// A variable of another server, or a value that only other servers have, requests something that this version does not do.
    #[error("{source_name}: {setting}={value} is not in this version: {instead}")]
    NotInThisVersion {
        /// Layer.
        source_name: String,
        /// The variable.
        setting: String,
        /// Its value, shortened.
        value: String,
        /// What to do instead.
        instead: &'static str,
    },
    /// Two names of one setting have different values.
    #[error("{source_name}: {first} and {second} are one setting and have different values")]
    Contradiction {
        /// Layer.
        source_name: String,
        /// One name.
        first: String,
        /// The other.
        second: String,
    },
    /// The layer is not a map of settings.
    #[error("{source_name}: expected a map of settings")]
    NotAMap {
        /// Layer.
        source_name: String,
    },
}

/// Settings of one source, checked value by value: `(group, camelCase name) → value`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layer {
    values: BTreeMap<(&'static str, String), Given>,
    /// Recognised variables without effect, as `(name, reason)`.
    pub accepted: Vec<(String, &'static str)>,
}

/// A value and where it was read.
#[derive(Clone, Debug, PartialEq)]
struct Given {
    value: Value,
    /// Layer, such as `environment`.
    source_name: String,
    /// The name of the setting in that layer.
    name: String,
}

impl Layer {
    /// Sets one value.
    ///
    /// # Errors
    /// [`SettingError::Invalid`] for a value that does not fit the setting's schema, and
    /// [`SettingError::NotInThisVersion`] for one that only other servers have. The error of a secret setting
    /// does not contain the value.
    pub fn set(
        &mut self,
        setting: &'static Setting,
        value: Value,
        from: Origin<'_>,
    ) -> Result<(), SettingError> {
        let is_value = |elsewhere: &&(&str, &str)| value.as_str() == Some(elsewhere.0);
        if let Some((_, instead)) = setting.row.elsewhere.iter().find(is_value) {
            let text = value.as_str().unwrap_or_default();
            return Err(refused(from, text, instead));
        }
        if let Some(violation) = schema::check(&setting.schema(), &value).into_iter().next() {
            return Err(SettingError::Invalid {
                source_name: from.source_name.to_string(),
                setting: from.name.to_string(),
                violation: if setting.row.secret {
                    violation.redacted()
                } else {
                    violation
                },
            });
        }
        self.insert(setting, value, from);
        Ok(())
    }

    fn insert(&mut self, setting: &'static Setting, value: Value, from: Origin<'_>) {
        let given = Given {
            value,
            source_name: from.source_name.to_string(),
            name: from.name.to_string(),
        };
        self.values.insert((setting.group, setting.camel()), given);
    }

    /// Sets the value that a text means.
    fn set_text(
        &mut self,
        setting: &'static Setting,
        text: &str,
        from: Origin<'_>,
    ) -> Result<(), SettingError> {
        self.set(setting, parse(setting, text), from)
    }

    /// Removes values of settings that a custom resource has nowhere, and lists them as variables without effect.
    pub fn drop_ignored(&mut self) {
        for setting in SETTINGS {
            let Place::Ignored(why) = setting.row.place else {
                continue;
            };
            if let Some(given) = self.values.remove(&(setting.group, setting.camel())) {
                self.accepted.push((given.name, why));
            }
        }
    }

    /// Reads environment variables. `None` counts as absent, and so does an empty value unless the setting refuses it;
    /// unknown names are ignored.
    ///
    /// # Errors
    /// For a value that is empty or does not fit, two names of one setting with different values, or a variable that this version
    /// refuses.
    pub fn from_env<I>(source_name: &str, variables: I) -> Result<Self, SettingError>
    where
        I: IntoIterator<Item = (String, String)>,
    {
        let mut layer = Layer::default();
        let mut seen: BTreeMap<(&str, &str), (String, String)> = BTreeMap::new();
        for (name, text) in variables {
            match variable(&name, &text) {
                Variable::Setting(setting) if text.is_empty() && setting.row.refuses_empty => {
                    return Err(SettingError::Empty {
                        source_name: source_name.into(),
                        setting: name,
                    });
                }
                _ if is_absent(&text) => {}
                Variable::Unknown => {}
                Variable::Accepted(foreign) => layer.accepted.push((name, foreign.why)),
                Variable::Refused(foreign) => {
                    let from = Origin {
                        source_name,
                        name: &name,
                    };
                    return Err(refused(from, &text, foreign.instead));
                }
                Variable::Setting(setting) => {
                    let key = (setting.group, setting.field);
                    if let Some((first, _)) = seen.get(&key).filter(|(_, earlier)| *earlier != text) {
                        return Err(SettingError::Contradiction {
                            source_name: source_name.into(),
                            first: first.clone(),
                            second: name,
                        });
                    }
                    layer.set_text(
                        setting,
                        &text,
                        Origin {
                            source_name,
                            name: &name,
                        },
                    )?;
                    seen.insert(key, (name, text));
                }
            }
        }
        Ok(layer)
    }

    /// Reads a configuration file: a flat map with flag names as keys.
    ///
    /// # Errors
    /// For a key that is not a setting, or a value that does not fit.
    pub fn from_config_file(source_name: &str, file: &Value) -> Result<Self, SettingError> {
        let map = match file {
            Value::Null => return Ok(Layer::default()),
            Value::Object(map) => map,
            _ => {
                return Err(SettingError::NotAMap {
                    source_name: source_name.into(),
                });
            }
        };
        let mut layer = Layer::default();
        for (key, value) in map {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            let from = Origin {
                source_name,
                name: key,
            };
            match flag(key, &text) {
                Variable::Setting(setting) => match value {
                    Value::String(text) if setting.reads_texts() => layer.set_text(setting, text, from)?,
                    value => layer.set(setting, value.clone(), from)?,
                },
                other => layer.set_foreign(other, (key, &text), from)?,
            }
        }
        Ok(layer)
    }

    /// Reads command-line flags: `(name without dashes, text)`.
    ///
    /// # Errors
    /// As for a configuration file.
    pub fn from_flags<I>(source_name: &str, flags: I) -> Result<Self, SettingError>
    where
        I: IntoIterator<Item = (String, String)>,
    {
        let mut layer = Layer::default();
        for (key, text) in flags {
            let name = format!("--{key}");
            let from = Origin {
                source_name,
                name: &name,
            };
            match flag(&key, &text) {
                Variable::Setting(setting) => layer.set_text(setting, &text, from)?,
                other => layer.set_foreign(other, (&key, &text), from)?,
            }
        }
        Ok(layer)
    }

    /// Accepts or refuses what is not a setting.
    fn set_foreign(
        &mut self,
        variable: Variable,
        (key, text): (&str, &str),
        from: Origin<'_>,
    ) -> Result<(), SettingError> {
        match variable {
            Variable::Accepted(foreign) => self.accepted.push((from.name.to_string(), foreign.why)),
            Variable::Refused(foreign) => return Err(refused(from, text, foreign.instead)),
            Variable::Setting(_) | Variable::Unknown => {
                return Err(SettingError::Unknown {
                    source_name: from.source_name.to_string(),
                    setting: from.name.to_string(),
                    nearest: nearest::flag(key),
                });
            }
        }
        Ok(())
    }

    /// The values of typed groups, as a custom resource has them. They are not checked again.
    pub fn from_settings(source_name: &str, settings: &Settings) -> Self {
        let mut layer = Layer::default();
        let groups = serde_json::to_value(settings).expect("settings serialize");
        for setting in SETTINGS {
            let value = groups.pointer(&format!("/{}/{}", setting.group, setting.camel()));
            if let Some(value) = value {
                let name = setting.crd_path().unwrap_or_else(|| setting.flag());
                let from = Origin {
                    source_name,
                    name: &name,
                };
                layer.insert(setting, value.clone(), from);
            }
        }
        layer
    }
}

/// A setting and the value that it has.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The setting.
    pub setting: &'static Setting,
    /// The given value; `None` where the default holds.
    pub value: Option<Value>,
    /// The layer that gives it, and the setting's name there.
    pub source: Option<(String, String)>,
}

/// Where a value was read, for error messages.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Layer, such as `environment`.
    pub source_name: &'a str,
    /// The name of the setting in that layer.
    pub name: &'a str,
}

impl Settings {
    /// Merges layers; an earlier one wins.
    ///
    /// # Panics
    /// Never: every value of a [`Layer`] was checked against the schema that the types generate.
    pub fn merge(layers: &[Layer]) -> Self {
        let mut groups: Map<String, Value> = Map::new();
        for layer in layers.iter().rev() {
            for ((group, name), Given { value, .. }) in &layer.values {
                groups
                    .entry((*group).to_string())
                    .or_insert_with(|| Value::Object(Map::new()))
                    .as_object_mut()
                    .expect("groups are objects")
                    .insert(name.clone(), value.clone());
            }
        }
        serde_json::from_value(Value::Object(groups)).expect("checked values fit their types")
    }

    /// Every setting with the value that it has in these layers, an earlier one of which wins, and where it is from.
    pub fn effective(layers: &[Layer]) -> Vec<Effective> {
        let of = |setting: &'static Setting| {
            let key = (setting.group, setting.camel());
            let given = layers.iter().find_map(|layer| layer.values.get(&key));
            Effective {
                setting,
                value: given.map(|given| given.value.clone()),
                source: given.map(|given| (given.source_name.clone(), given.name.clone())),
            }
        };
        SETTINGS.iter().map(of).collect()
    }

    /// Settings that are given in these layers and have no effect beside the others, as `(name there, reason)`.
    pub fn ineffective(layers: &[Layer]) -> Vec<(String, &'static str)> {
        let engine = Self::merge(layers).engine;
        let n_context = engine.max_model_len.unwrap_or(1);
        let is_ineffective = !engine.enable_chunked_prefill() && !engine.wants_whole_prompts(n_context);
        let given = Self::effective(layers).into_iter();
        given
            .filter(|given| is_ineffective && given.setting.field == "enable_chunked_prefill")
            .filter_map(|given| Some((given.source?.1, CHUNKS_ANYWAY)))
            .collect()
    }

    /// The flat map of a configuration file: flag names and values, without secrets.
    pub fn to_config_file(&self) -> Map<String, Value> {
        let layer = Layer::from_settings("", self);
        SETTINGS
            .iter()
            .filter(|setting| !setting.row.secret)
            .filter_map(|s| {
                layer
                    .values
                    .get(&(s.group, s.camel()))
                    .map(|given| (s.flag(), given.value.clone()))
            })
            .collect()
    }
}

/// Why a prompt is computed in chunks though chunks are switched off.
pub const CHUNKS_ANYWAY: &str = "a prompt is computed in one step only where MAX_NUM_BATCHED_TOKENS is given and at least the context length";

impl EngineSettings {
    /// Whether each prompt is computed in one step, for a context of `max_model_len` tokens. Forms contain
    /// `ENABLE_CHUNKED_PREFILL=False`, so it alone makes no step as large as the context.
    pub fn wants_whole_prompts(&self, max_model_len: u32) -> bool {
        let has_room = self.max_num_batched_tokens.is_some_and(|n| n >= max_model_len);
        has_room && !self.enable_chunked_prefill()
    }
}

fn refused(from: Origin<'_>, text: &str, instead: &'static str) -> SettingError {
    SettingError::NotInThisVersion {
        source_name: from.source_name.into(),
        setting: from.name.into(),
        value: schema::shortened(text),
        instead,
    }
}

fn did_you_mean(nearest: &Option<String>) -> String {
    let named = nearest.as_ref().map(|name| format!("; did you mean '{name}'?"));
    named.unwrap_or_default()
}

/// Reads text as the type of the setting's schema. Text that does not parse stays text, so that the error of the
/// schema check names the expected type.
fn parse(setting: &Setting, text: &str) -> Value {
    let schema = setting.schema();
    let synonym = setting.row.synonyms.iter().find(|(word, _)| *word == text);
    let text = synonym.map_or(text, |(_, meaning)| meaning);
    let as_text = || Value::String(text.to_string());
    match schema.get("type").and_then(Value::as_str) {
        Some(kind @ ("integer" | "number")) => serde_json::from_str::<Value>(text.trim())
            .ok()
            .filter(Value::is_number)
            .map_or_else(
                as_text,
                |number| if kind == "integer" { whole(number) } else { number },
            ),
        Some("boolean") => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Value::Bool(true),
            "false" | "0" | "no" | "off" => Value::Bool(false),
            _ => as_text(),
        },
        Some("object") => serde_json::from_str::<Value>(text.trim())
            .ok()
            .filter(Value::is_object)
            .unwrap_or_else(as_text),
        Some("array") if text.trim_start().starts_with('[') => {
            serde_json::from_str(text.trim()).unwrap_or_else(|_| as_text())
        }
        Some("array") => text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| Value::String(item.to_string()))
            .collect(),
        _ => as_text(),
    }
}

/// A number without a fraction as a whole number: forms write `256.0`.
fn whole(number: Value) -> Value {
    const EXACT_MAX: f64 = (1_i64 << 53) as f64;
    match number.as_f64() {
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() <= EXACT_MAX => {
            Value::from(value as i64)
        }
        Some(_) | None => number,
    }
}
