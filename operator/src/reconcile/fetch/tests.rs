//! Tests of whose an object with a child's name is.

use serde_json::{Value, json};

use super::{
    super::fixtures::{HUB, object},
    *,
};

#[test]
fn a_child_is_known_by_its_owner_and_a_retained_claim_by_its_label() {
    let owner = |uid: &str, name: &str, kind: &str| json!([{"apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": true}]);
    let labels = json!({OWNER_LABEL: "chat"});
    for (owners, labels, expected) in [
        (
            owner("uid-of-chat", "chat", "ModelDeployment"),
            Value::Null,
            Standing::Owned,
        ),
        (
            owner("uid-of-before", "chat", "ModelDeployment"),
            labels.clone(),
            Standing::Leaving,
        ),
        (
            owner("uid-of-other", "other", "ModelDeployment"),
            labels.clone(),
            Standing::Foreign,
        ),
        (
            owner("uid-of-chat-2", "chat", "ReplicaSet"),
            labels.clone(),
            Standing::Foreign,
        ),
        (Value::Null, labels, Standing::Retained),
        (Value::Null, json!({OWNER_LABEL: "other"}), Standing::Foreign),
        (Value::Null, Value::Null, Standing::Foreign),
    ] {
        let live =
            serde_json::from_value(json!({"name": "chat", "ownerReferences": owners, "labels": labels}))
                .unwrap();
        assert_eq!(standing(&live, &object(HUB)), expected, "{live:?}");
    }
}
