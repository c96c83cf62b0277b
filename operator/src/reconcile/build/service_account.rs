//! The ServiceAccount: the identity of the pods. It has no token, because the runtime never uses the API server.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::metadata;
use crate::{names::Names, reconcile::plan::Plan};

pub(crate) fn build(plan: &Plan) -> ServiceAccount {
    ServiceAccount {
        metadata: metadata(plan, Names::of(&plan.name).main),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
