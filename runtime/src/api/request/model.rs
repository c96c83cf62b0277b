//! The parameter `model`, and whether the served model is for the route.

use super::params::Params;
use super::rules::Rules;
use crate::api::error::{ApiError, shortened};
use crate::model::Task;

/// The served model that the request names, or the first one if it names none.
pub(super) fn served_model(params: &mut Params, rules: &Rules<'_>) -> Result<String, ApiError> {
    let Some(model) = params.text("model")?.filter(|model| !model.is_empty()) else {
        return Ok(rules.served.first.clone());
    };
    if rules.served.contains(&model) {
        return Ok(model);
    }
    Err(ApiError::UnknownModel {
        model: shortened(&model),
        served: rules.served.to_vec(),
    })
}

/// The same for a route that generates text.
pub(super) fn generating_model(params: &mut Params, rules: &Rules<'_>) -> Result<String, ApiError> {
    let model = served_model(params, rules)?;
    match rules.task {
        Task::Generate => Ok(model),
        Task::Embed { .. } | Task::Score { .. } => Err(wrong_task(model, "generate text", rules.task)),
    }
}

/// The error for a model that is not for the route; `wanted` completes "the model does not …".
pub(super) fn wrong_task(model: String, wanted: &'static str, task: Task) -> ApiError {
    let does = match task {
        Task::Generate => "generates text",
        Task::Embed { .. } => "makes embeddings",
        Task::Score { n_labels: 1 } => "scores pairs of texts",
        Task::Score { .. } => "is a classification model",
    };
    ApiError::WrongTask { model, wanted, does }
}
