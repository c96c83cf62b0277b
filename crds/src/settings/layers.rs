//! Layers of settings: one per source, checked value by value, merged by precedence.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{SETTINGS, Setting, Settings, Variable, is_absent, variable};
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
    #[error("{source_name}: there is no setting '{setting}'")]
    Unknown {
        /// Layer.
        source_name: String,
        /// The key.
        setting: String,
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
    values: BTreeMap<(&'static str, String), Value>,
    /// Recognised variables without effect, as `(name, reason)`.
    pub accepted: Vec<(String, &'static str)>,
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
        self.values.insert((setting.group, setting.camel()), value);
        Ok(())
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
                        name: foreign.name,
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
                    let value = parse(setting, &text);
                    layer.set(
                        setting,
                        value,
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
            let setting =
                SETTINGS
                    .iter()
                    .find(|s| s.flag() == *key)
                    .ok_or_else(|| SettingError::Unknown {
                        source_name: source_name.into(),
                        setting: key.clone(),
                    })?;
            layer.set(
                setting,
                value.clone(),
                Origin {
                    source_name,
                    name: key,
                },
            )?;
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
        for (flag, text) in flags {
            let setting =
                SETTINGS
                    .iter()
                    .find(|s| s.flag() == flag)
                    .ok_or_else(|| SettingError::Unknown {
                        source_name: source_name.into(),
                        setting: format!("--{flag}"),
                    })?;
            let name = format!("--{flag}");
            layer.set(
                setting,
                parse(setting, &text),
                Origin {
                    source_name,
                    name: &name,
                },
            )?;
        }
        Ok(layer)
    }

    /// The values of typed groups, as a custom resource has them. They are not checked again.
    pub fn from_settings(settings: &Settings) -> Self {
        let mut layer = Layer::default();
        let groups = serde_json::to_value(settings).expect("settings serialize");
        for setting in SETTINGS {
            let value = groups.pointer(&format!("/{}/{}", setting.group, setting.camel()));
            if let Some(value) = value {
                layer
                    .values
                    .insert((setting.group, setting.camel()), value.clone());
            }
        }
        layer
    }
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
            for ((group, name), value) in &layer.values {
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

    /// The flat map of a configuration file: flag names and values, without secrets.
    pub fn to_config_file(&self) -> Map<String, Value> {
        let layer = Layer::from_settings(self);
        SETTINGS
            .iter()
            .filter(|setting| !setting.row.secret)
            .filter_map(|s| {
                layer
                    .values
                    .get(&(s.group, s.camel()))
                    .map(|value| (s.flag(), value.clone()))
            })
            .collect()
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

/// Reads text as the type of the setting's schema. Text that does not parse stays text, so that the error of the
/// schema check names the expected type.
fn parse(setting: &Setting, text: &str) -> Value {
    let schema = setting.schema();
    let as_text = || Value::String(text.to_string());
    match schema.get("type").and_then(Value::as_str) {
        Some("integer" | "number") => serde_json::from_str::<Value>(text.trim())
            .ok()
            .filter(Value::is_number)
            .unwrap_or_else(as_text),
        Some("boolean") => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Value::Bool(true),
            "false" | "0" | "no" | "off" => Value::Bool(false),
            _ => as_text(),
        },
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
