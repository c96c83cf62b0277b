//! A `ModelDeployment` in a file, served without a cluster.

use std::path::Path;

use crds::ModelDeploymentSpec;
use crds::modeldeployment::HuggingFace;
use crds::schema;
use crds::settings::{self, Layer, Place, Setting, Settings, Variable};

use super::ConfigError;
use super::file::read_yaml;

/// What a ModelDeployment says about one replica.
pub(super) struct Deployment {
    /// Typed fields, then `spec.env`.
    pub(super) layers: [Layer; 2],
    /// Its repository; only the endpoint if a layer above names another model.
    pub(super) repository: HuggingFace,
}

impl Deployment {
    /// Reads the first ModelDeployment of a file. `above` are the settings with precedence over it.
    ///
    /// # Errors
    /// [`ConfigError`] for a file without a valid one, or one that needs a cluster.
    pub(super) fn read(path: &Path, above: &Settings) -> Result<Self, ConfigError> {
        let spec = read_spec(path)?;
        check(&spec, above)?;
        let mut typed = spec.settings();
        let mut repository = spec.model.hugging_face.clone().unwrap_or_default();
        if above.process.model.is_none() {
            typed.process.model = Some(repository.repo.clone()).filter(|repo| !repo.is_empty());
            typed.process.model_revision = repository.revision.clone();
        } else {
            // Revision and patterns belong to the file's repository, not to the model that is named above it.
            repository = HuggingFace {
                endpoint: repository.endpoint,
                ..HuggingFace::default()
            };
        }
        let variables = spec
            .env
            .into_iter()
            .map(|variable| (variable.name, variable.value));
        Ok(Self {
            layers: [
                Layer::from_settings(&path.display().to_string(), &typed),
                Layer::from_env("spec.env", variables)?,
            ],
            repository,
        })
    }
}

/// Refuses what only a cluster has, and variables whose place is not `spec.env`.
fn check(spec: &ModelDeploymentSpec, above: &Settings) -> Result<(), ConfigError> {
    if spec.model.pvc.is_some() && above.process.model.is_none() {
        return Err(ConfigError::NeedsCluster {
            field: "spec.model.pvc",
            remedy: "Name the directory of the model with --model.",
        });
    }
    let auth = spec.auth.as_ref();
    let needs_keys = auth.is_some_and(|auth| auth.api_keys_secret_ref.is_some());
    let has_keys = above.process.api_key.is_some() || above.process.api_keys_file.is_some();
    if needs_keys && !has_keys {
        return Err(ConfigError::NeedsCluster {
            field: "spec.auth.apiKeysSecretRef",
            remedy: "Give the keys with --api-key, --api-keys-file or in OPENAI_API_KEYS.",
        });
    }
    for variable in &spec.env {
        if let Variable::Setting(Setting { row, .. }) = settings::variable(&variable.name, &variable.value)
            && let Place::At(place) | Place::RuntimeOnly(place) = row.place
        {
            return Err(ConfigError::NotInEnv {
                name: variable.name.clone(),
                place: place.into(),
            });
        }
    }
    Ok(())
}

fn read_spec(path: &Path) -> Result<ModelDeploymentSpec, ConfigError> {
    let mut document = read_yaml(path)?
        .into_iter()
        .find(|document| {
            document["kind"] == "ModelDeployment" && document["apiVersion"] == "slipway.dev/v1alpha1"
        })
        .ok_or_else(|| ConfigError::NoModelDeployment { path: path.into() })?;
    for known in ["apiVersion", "kind", "metadata"] {
        document.as_object_mut().map(|fields| fields.shift_remove(known));
    }
    let crd = crds::generate::crd();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    if let Some(violation) = schema::check(schema, &document).into_iter().next() {
        return Err(ConfigError::Schema {
            path: path.into(),
            violation,
        });
    }
    serde_json::from_value(document["spec"].take()).map_err(|error| ConfigError::Yaml {
        path: path.into(),
        reason: error.to_string(),
    })
}
