//! The Service: the stable address of the replicas, `http://<name>.<namespace>.svc/v1`.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{metadata, selector_labels};
use crate::{
    names::{Names, SERVE_PORT_NAME, SERVICE_PORT},
    reconcile::plan::Plan,
};

pub(crate) fn build(plan: &Plan) -> Service {
    Service {
        metadata: metadata(plan, Names::of(&plan.name).main),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            selector: Some(selector_labels(plan)),
            ports: Some(vec![ServicePort {
                name: Some(SERVE_PORT_NAME.into()),
                app_protocol: Some("http".into()),
                port: i32::from(SERVICE_PORT),
                target_port: Some(IntOrString::String(SERVE_PORT_NAME.into())),
                protocol: Some("TCP".into()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
