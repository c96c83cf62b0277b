//! A ModelDeployment that is being written: paths and values in, a checked object and its YAML out.
//!
//! Must not know a cluster.

use crds::{
    ModelDeployment, generate,
    schema::{self, Violation},
    settings::{self, Layer, Place, SETTINGS, Setting, SettingError},
};
use serde_json::{Map, Value, json};

use crate::reference::{self, Found};

/// Longest name of a ModelDeployment, which is also its Service's.
const NAME_CHARS_MAX: usize = 40;

/// Why a value cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The name is neither a setting nor a field.
    #[error("there is no setting or field '{name}'{}", reference::did_you_mean(.nearest))]
    Unknown {
        /// What was given.
        name: String,
        /// Names that are like it.
        nearest: Vec<String>,
    },
    /// The setting has no field.
    #[error("{name} has no field in a ModelDeployment: {why}")]
    NoField {
        /// What was given.
        name: String,
        /// Why there is none.
        why: String,
    },
    /// The value does not fit.
    #[error("{name}: {why}")]
    Value {
        /// Setting or field.
        name: String,
        /// What is expected.
        why: String,
    },
    /// The object does not fit the schema.
    #[error("the ModelDeployment is not valid: {}", list(.violations))]
    Invalid {
        /// Each fault.
        violations: Vec<Violation>,
    },
    /// The name of the object cannot be used.
    #[error("'{name}' is not a name of a ModelDeployment: at most 40 of a-z, 0-9 and '-', a letter first")]
    Name {
        /// What was given.
        name: String,
    },
}

fn list(violations: &[Violation]) -> String {
    let texts: Vec<String> = violations.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// The fields of a ModelDeployment that are set so far.
#[derive(Clone, Debug)]
pub struct Manifest {
    object: Value,
}

impl Manifest {
    /// One of this name, without a spec.
    ///
    /// # Errors
    /// [`ManifestError::Name`].
    pub fn new(name: &str, namespace: Option<&str>) -> Result<Self, ManifestError> {
        if !is_name(name) {
            return Err(ManifestError::Name { name: name.into() });
        }
        let mut metadata = json!({"name": name});
        if let Some(namespace) = namespace {
            metadata["namespace"] = namespace.into();
        }
        Ok(Self {
            object: json!({
                "apiVersion": "slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": metadata, "spec": {},
            }),
        })
    }

    /// Writes a value at a path such as `spec.engine.seed`.
    pub fn put(&mut self, path: &str, value: Value) {
        let mut place = &mut self.object;
        for part in path.split('.') {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            place = &mut place[part];
        }
        *place = value;
    }

    /// Whether something is written at a path.
    pub fn has(&self, path: &str) -> bool {
        self.object
            .pointer(&format!("/{}", path.replace('.', "/")))
            .is_some()
    }

    /// Writes the settings of a layer at their fields.
    pub fn put_settings(&mut self, layer: Layer) {
        let groups = serde_json::to_value(settings::Settings::merge(&[layer])).expect("settings serialize");
        for setting in SETTINGS {
            let given = groups.pointer(&format!("/{}/{}", setting.group, setting.camel()));
            if let (Some(value), Some(path)) = (given, setting.crd_path()) {
                self.put(&path, value.clone());
            }
        }
    }

    /// Adds a variable to `spec.env`, or changes it.
    pub fn put_variable(&mut self, name: &str, value: &str) {
        if !self.has("spec.env") {
            self.put("spec.env", json!([]));
        }
        let list = self.object["spec"]["env"]
            .as_array_mut()
            .expect("it was just written");
        list.retain(|item| item["name"] != name);
        list.push(json!({"name": name, "value": value}));
    }

    /// Writes a setting by any of its names, or a field by its path, from a text.
    ///
    /// # Errors
    /// For an unknown name, a setting without a field, or a value that does not fit.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), ManifestError> {
        match reference::find(name) {
            Found::Setting(setting) => self.set_setting(setting, (name, text)),
            Found::Field { path, schema } => {
                let value = value_of(&schema, text);
                if let Some(violation) = schema::check(&schema, &value).first() {
                    return Err(ManifestError::Value {
                        name: path,
                        why: violation.to_string(),
                    });
                }
                self.put(&path, value);
                Ok(())
            }
            Found::Foreign(foreign) => Err(ManifestError::NoField {
                name: name.into(),
                why: format!("{}. {}", foreign.why, foreign.instead)
                    .trim_end_matches(". ")
                    .into(),
            }),
            Found::Nothing { nearest } => Err(ManifestError::Unknown {
                name: name.into(),
                nearest,
            }),
        }
    }

    fn set_setting(
        &mut self,
        setting: &'static Setting,
        (name, text): (&str, &str),
    ) -> Result<(), ManifestError> {
        let no_field = |why: String| ManifestError::NoField {
            name: name.into(),
            why,
        };
        if setting.row.secret {
            let path = setting.crd_path().unwrap_or_default();
            return Err(no_field(format!("it is a secret, which {path}.name refers to")));
        }
        if setting.crd_path().is_none() {
            let why = match setting.row.place {
                Place::RuntimeOnly(why) => why,
                _ => "it has no effect there",
            };
            return Err(no_field(why.into()));
        }
        let flag = (setting.flag(), text.to_string());
        let layer = Layer::from_flags("--set", [flag]).map_err(|error| ManifestError::Value {
            name: name.into(),
            why: reason(error),
        })?;
        self.put_settings(layer);
        Ok(())
    }

    /// The object, checked against the schema of the resource.
    ///
    /// # Errors
    /// [`ManifestError::Invalid`].
    pub fn finish(self) -> Result<ModelDeployment, ManifestError> {
        let crd = generate::crd();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        let violations = schema::check(schema, &self.object["spec"]);
        if !violations.is_empty() {
            return Err(ManifestError::Invalid { violations });
        }
        let mut deployment: ModelDeployment =
            serde_json::from_value(self.object).expect("an object that fits the schema has its type");
        // Only what was chosen is written.
        deployment.status = None;
        Ok(deployment)
    }
}

/// What is wrong with a value, without the names of its layer.
pub fn reason(error: SettingError) -> String {
    match error {
        SettingError::Invalid { violation, .. } => violation.to_string(),
        other => other.to_string(),
    }
}

/// The YAML of a ModelDeployment, with a line end.
pub fn yaml(deployment: &ModelDeployment) -> String {
    let yaml = serde_saphyr::to_string(deployment).expect("a ModelDeployment is plain data");
    format!("{}\n", yaml.trim_end())
}

/// A name for the deployment of a model: the repository's, with the letters that a name may have.
pub fn name_of(model: &str) -> String {
    let last = model.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let mut name = String::new();
    for char in last.chars().flat_map(char::to_lowercase) {
        match char {
            'a'..='z' | '0'..='9' => name.push(char),
            _ if name.ends_with('-') => {}
            _ => name.push('-'),
        }
    }
    let name = name.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let end = name.len().min(NAME_CHARS_MAX);
    match name[..end].trim_end_matches('-') {
        "" => "model".into(),
        name => name.into(),
    }
}

fn is_name(name: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=NAME_CHARS_MAX).contains(&name.len())
        && name.chars().all(is_allowed)
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
}

/// A text as a value of a field.
fn value_of(schema: &Value, text: &str) -> Value {
    let as_text = || Value::String(text.to_string());
    if schema["x-kubernetes-int-or-string"] == Value::Bool(true) {
        return as_text();
    }
    match schema["type"].as_str() {
        Some("string") => as_text(),
        Some("array") if !text.trim_start().starts_with(['[', '-']) => {
            text.split(',').map(str::trim).collect()
        }
        _ => serde_saphyr::from_str(text).unwrap_or_else(|_| as_text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_follows_from_the_model() {
        for (model, name) in [
            ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2-5-0-5b-instruct"),
            ("/models/a_b/", "a-b"),
            ("a/01-ai__Yi", "ai-yi"),
            ("x/---", "model"),
            (
                "x/a-very-long-name-that-does-not-fit-into-a-service-name",
                "a-very-long-name-that-does-not-fit-into-",
            ),
        ] {
            assert_eq!(name_of(model), name.trim_end_matches('-'), "{model}");
            assert!(Manifest::new(&name_of(model), None).is_ok(), "{model}");
        }
    }

    #[test]
    fn a_variable_is_there_once() {
        let mut manifest = Manifest::new("m", None).unwrap();
        manifest.set("model.huggingFace.repo", "a/b").unwrap();
        manifest.put_variable("A", "1");
        manifest.put_variable("A", "2");
        let env = manifest.finish().unwrap().spec.env;
        assert_eq!(env.iter().map(|e| e.value.as_str()).collect::<Vec<_>>(), ["2"]);
    }
}
