//! Fields that somebody else added to the Deployment: they reach the pods, and the ModelDeployment does not have them.
//!
//! Pure. The operator repairs changes of its own fields, but does not remove what others own: it cannot know why they
//! added it. It says so instead, because the pods are not what the spec describes.

use crds::failure::{Failure, Reason};
use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry};
use serde_json::{Map, Value};

use super::diagnosis::{Diagnosis, Part, Recovery};
use crate::names::{FIELD_MANAGER, REPLICAS_MANAGER};

/// Fields that a message names.
const NAMED_MAX: usize = 8;
/// Annotations of the template are for `kubectl rollout restart` and the like, and change no pod's behaviour.
const RESTART_PATH: &str = "template.metadata.annotations";

/// The failure of a Deployment that has fields of others in its spec.
pub(super) fn of_deployment(deployment: &Deployment) -> Option<Diagnosis> {
    let entries = deployment.metadata.managed_fields.as_deref()?;
    let ours: Vec<&Value> = entries
        .iter()
        .filter(|entry| is_ours(entry))
        .filter_map(spec)
        .collect();
    let others = entries
        .iter()
        .filter(|entry| !is_ours(entry) && entry.subresource.is_none());
    let mut added = Vec::new();
    for fields in others.filter_map(spec) {
        walk(fields, &ours, &mut Vec::new(), &mut added);
    }
    added.sort();
    added.dedup();
    added.retain(|path| !path.starts_with(RESTART_PATH));
    if added.is_empty() {
        return None;
    }
    let name = deployment.metadata.name.clone().unwrap_or_default();
    let more = match added.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        n_more => format!(" and {n_more} more"),
    };
    added.truncate(NAMED_MAX);
    let failure = Failure::new(
        Reason::Drifted,
        format!(
            "somebody added to the spec of Deployment {name}: {}{more}",
            added.join(", ")
        ),
        format!("set it in the ModelDeployment, or remove it: kubectl edit deployment {name}"),
    );
    Some(Diagnosis {
        failure,
        part: Part::Template,
        recovery: Recovery::Manual,
        pod: name,
        exit_code: None,
        time: None,
    })
}

fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    matches!(entry.manager.as_deref(), Some(FIELD_MANAGER | REPLICAS_MANAGER))
}

fn spec(entry: &ManagedFieldsEntry) -> Option<&Value> {
    entry.fields_v1.as_ref()?.0.get("f:spec")
}

/// Adds the paths in `theirs` that none of `ours` has. A field that is owned as a whole has no fields below it.
fn walk(theirs: &Value, ours: &[&Value], path: &mut Vec<String>, added: &mut Vec<String>) {
    let none = Map::new();
    for (key, below) in theirs
        .as_object()
        .unwrap_or(&none)
        .iter()
        .filter(|(key, _)| *key != ".")
    {
        path.push(name_of(key));
        let same: Vec<&Value> = ours.iter().filter_map(|ours| ours.get(key)).collect();
        let name = path.concat().trim_start_matches('.').to_string();
        // A list is named by its elements.
        let is_list = below
            .as_object()
            .is_some_and(|below| below.keys().any(|key| key.starts_with("k:")));
        match same.is_empty() && !is_list && !RESTART_PATH.starts_with(&name) {
            true => added.push(name),
            false => walk(below, &same, path, added),
        }
        path.pop();
    }
}

/// `.name` for a field `f:name`, `[a]` for the element `k:{"name":"a"}` of a list.
fn name_of(key: &str) -> String {
    match key.split_once(':') {
        Some(("f", field)) => format!(".{field}"),
        Some(("k", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let values: Vec<String> = keys
                .values()
                .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_string))
                .collect();
            format!("[{}]", values.join(" "))
        }
        _ => format!("[{key}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(manager: &str, subresource: Option<&str>, fields: Value) -> Deployment {
        let ours = json!({"f:spec": {"f:paused": {}, "f:template": {"f:spec": {"f:containers": {
            "k:{\"name\":\"runtime\"}": {".": {}, "f:name": {}, "f:args": {}, "f:env": {"k:{\"name\":\"A\"}": {".": {}, "f:name": {}, "f:value": {}}}},
        }}}}});
        serde_json::from_value(json!({"metadata": {"name": "chat", "managedFields": [
            {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": ours},
            {"manager": manager, "operation": "Update", "subresource": subresource, "fieldsV1": {"f:spec": fields}},
        ]}}))
        .unwrap()
    }

    fn added(fields: Value) -> Option<String> {
        let found = of_deployment(&deployment("kubectl", None, fields))?;
        Some(found.failure.message)
    }

    #[test]
    fn variables_containers_and_ports_of_others_are_named() {
        let in_container = |fields: Value| json!({"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"runtime\"}": fields}}}});
        let variable =
            in_container(json!({"f:env": {"k:{\"name\":\"MAX_CONCURRENCY\"}": {".": {}, "f:value": {}}}}));
        assert!(
            added(variable)
                .unwrap()
                .ends_with("template.spec.containers[runtime].env[MAX_CONCURRENCY]")
        );
        let port =
            in_container(json!({"f:ports": {"k:{\"containerPort\":9,\"protocol\":\"TCP\"}": {".": {}}}}));
        assert!(added(port).unwrap().ends_with("containers[runtime].ports[9 TCP]"));
        let sidecar = json!({"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"proxy\"}": {".": {}, "f:image": {}}}}}});
        assert!(
            added(sidecar)
                .unwrap()
                .ends_with("template.spec.containers[proxy]")
        );
    }

    #[test]
    fn a_restart_the_same_values_and_a_status_are_no_drift() {
        let restart = json!({"f:template": {"f:metadata": {"f:annotations": {"f:kubectl.kubernetes.io/restartedAt": {}}}}});
        assert_eq!(added(restart.clone()), None);
        assert_eq!(added(json!({"f:paused": {}})), None);
        assert_eq!(
            added(
                json!({"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"runtime\"}": {"f:args": {}}}}}})
            ),
            None
        );
        let whole = json!({"f:template": {"f:metadata": {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/restartedAt": {}}}}});
        assert_eq!(added(whole), None);
        let scaled = deployment(
            "kube-controller-manager",
            Some("scale"),
            json!({"f:replicas": {}}),
        );
        assert_eq!(of_deployment(&scaled), None);
        let ours = deployment(REPLICAS_MANAGER, None, json!({"f:replicas": {}}));
        assert_eq!(of_deployment(&ours), None);
    }
}
