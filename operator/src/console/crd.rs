//! The schema of ModelDeployments as the cluster has it now: what the pages make their form of.

use axum::{Json, extract::State};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;

use super::{error::Error, state::Console};

/// The name of the CustomResourceDefinition.
const NAME: &str = "modeldeployments.slipway.dev";

/// The CustomResourceDefinition. It holds no secret: everybody may read it who may open the page.
pub(super) async fn read(State(console): State<Console>) -> Result<Json<CustomResourceDefinition>, Error> {
    let mut crd = Api::<CustomResourceDefinition>::all(console.own)
        .get(NAME)
        .await?;
    crd.metadata.managed_fields = None;
    Ok(Json(crd))
}
