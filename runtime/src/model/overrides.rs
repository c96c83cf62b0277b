//! What settings change in the description of a checkpoint: its task, its rotary positions and its windows.

pub use crds::settings::TaskChoice;
use serde_json::{Map, Value};

use super::config::Fields;
use super::error::ModelError;
use super::pooling::{Pooling, PoolingKind};
use super::spec::{Attention, ModelSpec, Task};

/// The base of the frequencies.
const ROPE_THETA: &str = "rope_theta";
/// How `embed` makes a vector with a model that generates text, as vLLM does.
const LAST_TOKEN: Pooling = Pooling {
    kind: PoolingKind::Last,
    normalises: true,
};

/// What settings change in the description of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// What it is served for.
    pub task: TaskChoice,
    /// Rotary scaling in place of config.json's.
    pub rope_scaling: Option<Map<String, Value>>,
    /// Base of the rotary frequencies in place of config.json's.
    pub rope_theta: Option<f64>,
    /// Whether all layers see the whole context, which ends at the smallest window.
    pub disable_sliding_window: bool,
}

impl Overrides {
    /// Whether config.json is read as it is.
    pub(super) fn keep_config(&self) -> bool {
        self.rope_scaling.is_none() && self.rope_theta.is_none()
    }

    /// Writes the rotary parameters into the fields of config.json.
    ///
    /// # Errors
    /// [`ModelError::Setting`] for a model that has other parameters for each kind of layer.
    pub(super) fn write(&self, config: &mut Fields) -> Result<(), ModelError> {
        if self.keep_config() {
            return Ok(());
        }
        let fields = config.text_fields();
        let parameters = fields.get("rope_parameters").and_then(Value::as_object);
        let Some(parameters) = parameters.cloned() else {
            if let Some(scaling) = &self.rope_scaling {
                fields.insert("rope_scaling".into(), scaling.clone().into());
            }
            if let Some(theta) = self.rope_theta {
                fields.insert(ROPE_THETA.into(), theta.into());
            }
            return Ok(());
        };
        if parameters.values().any(Value::is_object) {
            return Err(ModelError::Setting {
                setting: self.setting(),
                reason:
                    "rope_parameters of this model has an object for each kind of layer; change config.json"
                        .to_owned(),
            });
        }
        // What the new scaling does not name is no part of the old one: base and turning part.
        let mut written = self.rope_scaling.clone().unwrap_or_else(|| parameters.clone());
        for kept in [ROPE_THETA, "partial_rotary_factor"] {
            if let (None, Some(value)) = (written.get(kept), parameters.get(kept)) {
                written.insert(kept.to_owned(), value.clone());
            }
        }
        if let Some(theta) = self.rope_theta {
            written.insert(ROPE_THETA.into(), theta.into());
        }
        fields.shift_remove("rope_scaling");
        fields.insert("rope_parameters".into(), written.into());
        Ok(())
    }

    /// Checks that the model has read the base of the frequencies that was written. Parameters of a scaling that it has
    /// not read are refused as those of config.json are.
    ///
    /// # Errors
    /// [`ModelError::Setting`] for a model without rotary positions.
    pub(super) fn check_read(&self, config: &Fields) -> Result<(), ModelError> {
        let is_base = |path: &str| path.rsplit('.').next() == Some(ROPE_THETA);
        let is_unread = config.unread().iter().any(|unread| is_base(&unread.path));
        if self.rope_theta.is_some() && is_unread {
            return Err(ModelError::Setting {
                setting: "ROPE_THETA",
                reason: "this model has no rotary positions".to_owned(),
            });
        }
        Ok(())
    }

    /// The setting that an error of rotary parameters names.
    pub(super) fn setting(&self) -> &'static str {
        if self.rope_scaling.is_some() {
            "ROPE_SCALING"
        } else {
            "ROPE_THETA"
        }
    }

    /// Lets all layers see the whole context, which ends at the smallest window.
    pub(super) fn widen(&self, spec: &mut ModelSpec) {
        if !self.disable_sliding_window {
            return;
        }
        for layer in &mut spec.layers {
            if let Attention::Grouped(attention) = &mut layer.attention
                && let Some(window) = attention.window.take()
            {
                spec.context_len = spec.context_len.min(window);
            }
        }
    }

    /// Makes the model what it is served for. `stored` is the pooling that the checkpoint names; returned is the one that
    /// holds.
    ///
    /// # Errors
    /// [`ModelError::Setting`] for a task that the checkpoint has no weights for.
    pub(super) fn assign(
        &self,
        spec: &mut ModelSpec,
        stored: Option<Pooling>,
    ) -> Result<Option<Pooling>, ModelError> {
        let refused = |reason: &str| {
            Err(ModelError::Setting {
                setting: "TASK",
                reason: format!("{} is not possible: {reason}", self.task),
            })
        };
        match (self.task, &spec.task) {
            (TaskChoice::Auto, _) => Ok(stored),
            (TaskChoice::Generate, Task::Generate(_)) if spec.is_causal => {
                spec.projections.clear();
                Ok(None)
            }
            (TaskChoice::Generate, _) => refused("this model has no head that generates text"),
            (TaskChoice::Embed | TaskChoice::Embedding, Task::Embed) => Ok(stored),
            (TaskChoice::Embed | TaskChoice::Embedding, Task::Generate(head)) => {
                let parts = head.weight.iter().flat_map(|weight| &weight.parts);
                let biases = parts
                    .clone()
                    .filter_map(|part| part.bias.as_ref().map(|bias| &bias.tensor));
                let tensors = parts.map(|part| &part.tensor).chain(biases);
                let unused: Vec<String> = tensors.map(|tensor| tensor.name.clone()).collect();
                spec.ignored.extend(unused);
                Ok(Some(stored.unwrap_or(LAST_TOKEN)))
            }
            (TaskChoice::Embed | TaskChoice::Embedding, Task::Classify(_)) => {
                refused("this model is a classifier")
            }
            (TaskChoice::Score | TaskChoice::Classify, Task::Classify(_)) => Ok(stored),
            (TaskChoice::Score | TaskChoice::Classify, _) => {
                refused("this model has no layer that makes scores")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn scaling(value: Value) -> Overrides {
        Overrides {
            rope_scaling: value.as_object().cloned(),
            ..Overrides::default()
        }
    }

    fn written(overrides: &Overrides, config: &str) -> Result<Value, String> {
        let mut config = Fields::parse(config);
        overrides.write(&mut config).map_err(|error| error.to_string())?;
        Ok(config.text_fields().clone().into())
    }

    #[test]
    fn rotary_parameters_are_written_where_the_config_has_them() {
        let linear = scaling(json!({"rope_type": "linear", "factor": 2}));
        let base = Overrides {
            rope_theta: Some(5e5),
            ..Overrides::default()
        };
        let old = r#"{"rope_theta": 1e4, "rope_scaling": null}"#;
        assert_eq!(
            written(&linear, old).unwrap(),
            json!({"rope_theta": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 2}})
        );
        assert_eq!(
            written(&base, old).unwrap(),
            json!({"rope_theta": 5e5, "rope_scaling": null})
        );
        let new = r#"{"rope_parameters": {"rope_theta": 1e4, "rope_type": "yarn", "factor": 8,
            "partial_rotary_factor": 0.5}}"#;
        assert_eq!(
            written(&linear, new).unwrap(),
            json!({"rope_parameters": {"rope_type": "linear", "factor": 2, "rope_theta": 1e4,
                "partial_rotary_factor": 0.5}})
        );
        assert_eq!(
            written(&base, new).unwrap()["rope_parameters"],
            json!({"rope_theta": 5e5, "rope_type": "yarn", "factor": 8, "partial_rotary_factor": 0.5})
        );
        let of_text = r#"{"text_config": {"rope_theta": 1e4}}"#;
        assert_eq!(written(&base, of_text).unwrap(), json!({"rope_theta": 5e5}));
        let kinds = r#"{"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}"#;
        let refused = written(&linear, kinds).unwrap_err();
        assert!(refused.starts_with("ROPE_SCALING: "), "{refused}");
    }
}
