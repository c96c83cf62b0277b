//! `worker-config.json`: the form that RunPod's website makes of a worker's settings, in the schema of its documents.
//!
//! A row of the settings table is one field of the form; a group is one of its categories.

use serde_json::{Map, Value, json};

use crate::settings::{DefaultValue, GROUPS, Place, SETTINGS, Setting};

/// Image of the runtime; its tag is the version.
const IMAGE: &str = "slipway-runtime-cuda";
/// Oldest CUDA that a driver must support to load the kernels.
const CUDA_VERSION_MIN: &str = "13.0";

/// The text of the file.
pub fn text() -> String {
    format!("{:#}\n", document())
}

fn document() -> Value {
    let fields: Map<String, Value> = settings()
        .map(|setting| (setting.env(), field(setting)))
        .collect();
    let categories: Vec<Value> = GROUPS.iter().filter_map(|group| category(*group)).collect();
    let version = env!("CARGO_PKG_VERSION");
    json!({
        "schema": fields,
        "versions": {
            version: {
                "imageName": format!("{IMAGE}:{version}"),
                "minimumCudaVersion": CUDA_VERSION_MIN,
                "categories": categories,
            },
        },
    })
}

/// The settings that a person may choose: not those that whoever starts the container sets.
fn settings() -> impl Iterator<Item = &'static Setting> {
    let is_chosen = |setting: &&Setting| matches!(setting.row.place, Place::Field | Place::At(_));
    SETTINGS.iter().filter(is_chosen)
}

fn category((group, title): (&str, &str)) -> Option<Value> {
    let names: Vec<String> = settings()
        .filter(|setting| setting.group == group)
        .map(Setting::env)
        .collect();
    (!names.is_empty()).then(|| json!({"title": title, "settings": names}))
}

fn field(setting: &Setting) -> Value {
    let schema = setting.schema();
    let mut field = json!({
        "env_var_name": setting.env(),
        "value": value(setting),
        "title": schema["title"],
        "description": setting.description(),
        "required": setting.env() == "MODEL_NAME",
        "type": kind(&schema),
    });
    if let Some(choices) = choices(&schema) {
        let options = choices.map(|choice| json!({"value": choice, "label": choice}));
        field["options"] = options.collect();
    }
    field
}

/// The default as the form shows it: a switch or a number as such, everything else as text, empty without one.
fn value(setting: &Setting) -> Value {
    let DefaultValue::Value(default) = setting.default else {
        return "".into();
    };
    match default() {
        number @ Value::Number(_) if kind(&setting.schema()) == "number" => number,
        switch @ Value::Bool(_) => switch,
        _ => setting.default.to_string().into(),
    }
}

/// The kind of input of a value with this schema.
fn kind(schema: &Value) -> &'static str {
    match (choices(schema).is_some(), schema["type"].as_str()) {
        (true, _) => "select",
        (_, Some("boolean")) => "toggle",
        (_, Some("integer" | "number")) => "number",
        _ => "text",
    }
}

fn choices(schema: &Value) -> Option<impl Iterator<Item = String>> {
    let choices = schema["enum"]
        .as_array()?
        .iter()
        .filter(|choice| !choice.is_null());
    Some(choices.map(|choice| choice.as_str().map_or_else(|| choice.to_string(), str::to_string)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{schema, settings::Layer};

    /// The form of the file, written from RunPod's document.
    const FORM: &str = include_str!("worker_config/form.json");

    #[test]
    fn the_file_has_the_documented_form() {
        let form: Value = serde_json::from_str(FORM).unwrap();
        assert_eq!(schema::check(&form, &document()), []);
        for (name, field) in document()["schema"].as_object().unwrap() {
            assert_eq!(field["env_var_name"], *name);
            let is_select = field["type"] == "select";
            assert_eq!(
                field.get("options").is_some(),
                is_select,
                "{name}: options are for a select"
            );
            let options = field["options"].as_array().cloned().unwrap_or_default();
            let has_value = options.iter().any(|option| option["value"] == field["value"]);
            assert!(
                !is_select || has_value || field["value"] == "",
                "{name}: the value is no option"
            );
            let fits = match field["type"].as_str().unwrap() {
                "toggle" => field["value"].is_boolean(),
                "number" => field["value"].is_number() || field["value"] == "",
                _ => field["value"].is_string(),
            };
            assert!(fits, "{name}: {} is no {}", field["value"], field["type"]);
        }
    }

    #[test]
    fn every_field_is_in_one_category() {
        let document = document();
        let version = &document["versions"][env!("CARGO_PKG_VERSION")];
        let categories = version["categories"].as_array().unwrap().iter();
        let listed: Vec<&str> = categories
            .flat_map(|category| category["settings"].as_array().unwrap())
            .map(|name| name.as_str().unwrap())
            .collect();
        let fields: Vec<&String> = document["schema"].as_object().unwrap().keys().collect();
        assert_eq!(listed, fields);
    }

    /// A person who submits the form as it is gets the defaults.
    #[test]
    fn what_the_form_submits_is_accepted() {
        let document = document();
        let submitted = document["schema"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, field)| {
                let value = field["value"]
                    .as_str()
                    .map_or_else(|| field["value"].to_string(), str::to_string);
                (name.clone(), value)
            });
        // An empty list of keys is refused on purpose; RunPod leaves out what is empty.
        let given = submitted.filter(|(_, value)| !value.is_empty());
        Layer::from_env("the form", given).unwrap();
    }
}
