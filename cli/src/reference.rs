//! What `explain` prints of a setting, and the search for one by any of its names.
//!
//! Reads the settings table and the schema of the resource. Must not know a cluster.

use std::fmt::Write as _;

use crds::{
    generate,
    settings::{self, DefaultValue, FOREIGN, Foreign, GROUPS, Harmless, Place, SETTINGS, Setting, Variable},
};
use serde_json::Value;

/// Names that an unknown one is compared with are like it from this similarity on, of 1.
const SIMILARITY_MIN: f64 = 0.6;
/// Most names that are proposed.
const NEAREST_MAX: usize = 3;

/// What a name means.
#[derive(Clone, Debug)]
pub enum Found {
    /// A setting, by any of its names.
    Setting(&'static Setting),
    /// A variable of another server.
    Foreign(&'static Foreign),
    /// Another field of the resource.
    Field {
        /// Its path, with `spec.`.
        path: String,
        /// Its schema.
        schema: Value,
    },
    /// Nothing.
    Nothing {
        /// Names that are like it, the most similar first.
        nearest: Vec<String>,
    },
}

/// Finds a setting, a variable or a field by a name in any form.
pub fn find(name: &str) -> Found {
    let flag = name.trim_start_matches('-');
    let path = if name.starts_with("spec.") {
        name.to_string()
    } else {
        format!("spec.{name}")
    };
    let has_name = |setting: &&Setting| {
        setting.field == name
            || setting.camel() == name
            || setting.flag() == flag
            || setting.env_names().iter().any(|env| env == name)
            || setting
                .crd_path()
                .is_some_and(|own| own == path && !setting.row.secret)
    };
    if let Some(setting) = SETTINGS.iter().find(has_name) {
        return Found::Setting(setting);
    }
    if let Variable::Accepted(foreign) | Variable::Refused(foreign) = settings::variable(name, "") {
        return Found::Foreign(foreign);
    }
    if let Some(schema) = field_schema(&path) {
        return Found::Field { path, schema };
    }
    Found::Nothing {
        nearest: nearest_setting(name),
    }
}

/// The schema of a field of the resource.
fn field_schema(path: &str) -> Option<Value> {
    let crd = generate::crd();
    let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let pointer: String = path
        .split('.')
        .map(|part| format!("/properties/{part}"))
        .collect();
    root.pointer(&pointer).cloned()
}

/// Names of settings and variables that are like `name`, in its own style.
fn nearest_setting(name: &str) -> Vec<String> {
    let is_flag = name.contains('-');
    let is_variable = !is_flag && name.chars().all(|c| !c.is_ascii_lowercase());
    let own_style = |setting: &Setting| {
        if is_flag {
            vec![format!("--{}", setting.flag())]
        } else if is_variable {
            setting.env_names()
        } else {
            vec![setting.camel()]
        }
    };
    let foreign = FOREIGN.iter().filter(|_| is_variable);
    let names = SETTINGS
        .iter()
        .flat_map(own_style)
        .chain(foreign.map(|foreign| foreign.name.to_string()));
    let last = name.rsplit('.').next().unwrap_or(name);
    nearest(last, names)
}

/// The candidates that are like `name`, the most similar first.
pub fn nearest(name: &str, candidates: impl IntoIterator<Item = String>) -> Vec<String> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['-', '_', '.'], "");
    let wanted = plain(name);
    let similarity = |candidate: &str| {
        let candidate = plain(candidate);
        let contains = wanted.len() > 3 && candidate.contains(&wanted);
        let similarity = strsim::normalized_damerau_levenshtein(&wanted, &candidate);
        if contains {
            similarity.max(SIMILARITY_MIN)
        } else {
            similarity
        }
    };
    let mut rated: Vec<(f64, String)> = candidates
        .into_iter()
        .map(|candidate| (similarity(&candidate), candidate))
        .filter(|(similarity, _)| *similarity >= SIMILARITY_MIN)
        .collect();
    rated.sort_by(|a, b| b.0.total_cmp(&a.0));
    rated.truncate(NEAREST_MAX);
    rated.into_iter().map(|(_, name)| name).collect()
}

/// `; did you mean A or B?`, or nothing.
pub fn did_you_mean(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        names => format!("; did you mean {}?", names.join(" or ")),
    }
}

/// What is known of a name; `Err` has the nearest names of an unknown one.
///
/// # Errors
/// The nearest names.
pub fn explain(name: &str) -> Result<String, Vec<String>> {
    match find(name) {
        Found::Setting(setting) => Ok(setting_text(setting)),
        Found::Foreign(foreign) => Ok(foreign_text(foreign)),
        Found::Field { path, schema } => Ok(field_text(&path, &schema)),
        Found::Nothing { nearest } => Err(nearest),
    }
}

/// Every setting by category, one line each.
pub fn overview() -> String {
    let mut out = String::new();
    for (group, title) in GROUPS {
        let _ = writeln!(out, "{title}");
        for setting in SETTINGS.iter().filter(|setting| setting.group == *group) {
            let description = setting.description();
            let first = description
                .split(". ")
                .next()
                .unwrap_or_default()
                .trim_end_matches('.');
            let _ = writeln!(out, "  {:<34} {first}", setting.camel());
        }
        out.push('\n');
    }
    out
}

fn setting_text(setting: &Setting) -> String {
    let schema = setting.schema();
    let title = schema["title"].as_str().unwrap_or_default();
    let group = GROUPS.iter().find(|(group, _)| *group == setting.group);
    let category = group.map_or("", |(_, title)| title);
    let mut out = format!("{} ({title}; category {category})\n\n", setting.camel());
    out.push_str(&wrapped(&setting.description()));
    out.push('\n');
    let mut row = |name: &str, value: String| {
        let _ = writeln!(out, "  {name:<12} {value}");
    };
    match (setting.crd_path(), setting.row.place) {
        (Some(path), _) => row("field", path),
        (None, Place::RuntimeOnly(why)) => row("field", format!("none: {why}")),
        (None, _) => row("field", "none".into()),
    }
    row("variable", setting.env_names().join(", "));
    row("flag", format!("--{}", setting.flag()));
    row("value", value_in_words(&schema));
    row("default", default_in_words(setting));
    row("disposition", disposition(setting));
    row("examples", setting.row.valid.join("   "));
    out
}

fn default_in_words(setting: &Setting) -> String {
    match setting.default {
        DefaultValue::Value(_) => setting.default.to_string(),
        DefaultValue::FromModel(words) | DefaultValue::FromMachine(words) | DefaultValue::Absent(words) => {
            words.to_string()
        }
    }
}

/// Where a value has an effect.
fn disposition(setting: &Setting) -> String {
    if setting.row.secret {
        return "honoured; a secret: put it into a Secret, which the field names".into();
    }
    match setting.row.place {
        Place::Field => "honoured in the field and in spec.env; the field wins".into(),
        Place::At(_) => "honoured in the field only, not in spec.env".into(),
        _ => "honoured by slipway-runtime serve; not in a ModelDeployment".into(),
    }
}

fn foreign_text(foreign: &Foreign) -> String {
    let mut out = format!(
        "{} (a variable of other servers, no setting of Slipway)\n\n",
        foreign.name
    );
    out.push_str(&wrapped(&format!("{}.", foreign.why)));
    out.push('\n');
    let disposition = match foreign.harmless {
        Harmless::Any => "accepted with any value, without effect".to_string(),
        Harmless::Only([]) => "refused with any value but an empty one".to_string(),
        Harmless::Only(values) => format!(
            "accepted without effect if it is {}; else refused",
            values.join(" or ")
        ),
    };
    let _ = writeln!(out, "  {:<12} {disposition}", "disposition");
    if !foreign.instead.is_empty() {
        let _ = writeln!(out, "  {:<12} {}", "instead", foreign.instead);
    }
    out
}

fn field_text(path: &str, schema: &Value) -> String {
    let title = schema["title"].as_str();
    let mut out = match title {
        Some(title) => format!("{path} ({title})\n\n"),
        None => format!("{path}\n\n"),
    };
    out.push_str(&wrapped(schema["description"].as_str().unwrap_or_default()));
    let _ = writeln!(out, "\n  {:<12} {}", "value", value_in_words(schema));
    let fields: Vec<&str> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    if !fields.is_empty() {
        let _ = writeln!(out, "  {:<12} {}", "fields", fields.join(", "));
    }
    out
}

/// What values a schema allows.
pub fn value_in_words(schema: &Value) -> String {
    if let Some(choices) = schema["enum"].as_array() {
        let choices: Vec<String> = choices
            .iter()
            .filter(|choice| !choice.is_null())
            .map(|choice| choice.to_string().replace('"', ""))
            .collect();
        return choices.join(", ");
    }
    let number = |key: &str| schema[key].as_f64().map(|number| number.to_string());
    let kind = match schema["type"].as_str() {
        Some("integer") => "a whole number",
        Some("number") => "a number",
        Some("boolean") => "true or false",
        Some("array") => "a list",
        Some("object") => "fields",
        Some("string") => "a text",
        _ => "a number or a text",
    };
    let bounds = match (number("minimum"), number("maximum")) {
        (Some(min), Some(max)) => format!(" from {min} to {max}"),
        _ => match schema["maxLength"]
            .as_u64()
            .filter(|_| schema["type"] == "string")
        {
            Some(most) => format!(" of at most {most} characters"),
            None => String::new(),
        },
    };
    format!("{kind}{bounds}")
}

/// A text in lines of at most 90 characters.
fn wrapped(text: &str) -> String {
    const WIDTH: usize = 90;
    let mut out = String::new();
    let mut width = 0;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width > 0 && width + 1 + length > WIDTH {
            out.push('\n');
            width = 0;
        }
        if width > 0 {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += length;
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests;
