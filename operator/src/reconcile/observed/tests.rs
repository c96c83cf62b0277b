//! Tests of who owns an object that has a child's name.

use serde_json::{Value, json};

use super::{
    super::fixtures::{HUB, object},
    *,
};

#[test]
fn a_child_is_known_by_its_owner_and_a_retained_claim_by_its_labels() {
    let owner = |uid: &str, name: &str, kind: &str| json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": true}]);
    let labels = json!({OWNER_LABEL: "chat", MANAGED_BY_LABEL: FIELD_MANAGER});
    for (owners, labels, expected) in [
        (
            owner("uid-of-chat", "chat", "ModelDeployment"),
            Value::Null,
            Ownership::Owned,
        ),
        (
            owner("uid-of-before", "chat", "ModelDeployment"),
            labels.clone(),
            Ownership::Leaving,
        ),
        (
            owner("uid-of-other", "other", "ModelDeployment"),
            labels.clone(),
            Ownership::Foreign,
        ),
        (
            owner("uid-of-chat-2", "chat", "ReplicaSet"),
            labels.clone(),
            Ownership::Foreign,
        ),
        (Value::Null, labels, Ownership::Retained),
        (Value::Null, json!({OWNER_LABEL: "chat"}), Ownership::Foreign),
        (
            Value::Null,
            json!({OWNER_LABEL: "other", MANAGED_BY_LABEL: FIELD_MANAGER}),
            Ownership::Foreign,
        ),
        (Value::Null, Value::Null, Ownership::Foreign),
    ] {
        let live =
            serde_json::from_value(json!({"name": "chat", "ownerReferences": owners, "labels": labels}))
                .unwrap();
        assert_eq!(ownership(&live, &object(HUB)), expected, "{live:?}");
    }
}
