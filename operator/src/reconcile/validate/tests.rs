//! Tests of plans: made from minimal specs; resolved values and refusals are checked.

use serde_json::json;

use super::{
    super::fixtures::{HUB, IMAGE, installation, object, plan as planned},
    *,
};

fn refused(spec: &str) -> Failure {
    plan(&object(spec), &Observed::default(), &installation())
        .unwrap_err()
        .failure
}

#[test]
fn the_smallest_spec_gets_every_default() {
    let plan = planned(&object(HUB));
    assert_eq!((plan.replicas, plan.served_name.as_str()), (1, "acme/model"));
    assert_eq!(plan.image.reference, IMAGE);
    assert_eq!(
        (plan.drain_timeout_seconds, plan.startup_timeout_seconds),
        (90, 1200)
    );
    assert_eq!(plan.volume_reach, VolumeReach::EveryNode);
    let config = json!({"served-model-name": ["acme/model"], "drain-timeout-seconds": 90});
    assert_eq!(Value::Object(plan.config), config);
    let Source::Hub(hub) = plan.source else {
        panic!("a hub")
    };
    assert_eq!(
        (hub.repository.revision.as_str(), hub.cache),
        ("main", CacheVolume::Ephemeral { size: None })
    );
}

#[test]
fn different_downloads_have_different_directories() {
    let dir = |spec: &str| planned(&object(spec)).model_dir;
    let specs = [
        HUB,
        "model: {huggingFace: {repo: acme/model, revision: v2}}",
        "model: {huggingFace: {repo: other/model}}",
        "model: {huggingFace: {repo: acme/model, endpoint: 'http://hub'}}",
        "model: {huggingFace: {repo: acme/model, ignorePatterns: ['*.bin']}}",
    ];
    let dirs: std::collections::BTreeSet<String> = specs.iter().map(|spec| dir(spec)).collect();
    assert_eq!(dirs.len(), specs.len());
    assert!(
        dirs.iter().all(|dir| dir.starts_with("/models/model-")),
        "{dirs:?}"
    );
    assert_eq!(dir("model: {pvc: {claimName: c}}"), "/models");
    assert_eq!(dir("model: {pvc: {claimName: c, path: a/b/}}"), "/models/a/b");
}

#[test]
fn env_becomes_settings_and_typed_fields_win() {
    let object = object(
        "{model: {huggingFace: {repo: acme/model}}, engine: {maxModelLen: 100}, env: [
            {name: MAX_MODEL_LEN, value: '200'}, {name: MAX_NUM_SEQS, value: '7'}, {name: SEED, value: ''},
            {name: TRUST_REMOTE_CODE, value: '1'}, {name: MY_OWN, value: x}]}",
    );
    let plan = planned(&object);
    assert_eq!(
        (
            plan.config["max-model-len"].clone(),
            plan.config["max-num-seqs"].clone()
        ),
        (json!(100), json!(7))
    );
    assert_eq!(plan.config.get("seed"), None);
    assert_eq!(
        plan.env,
        BTreeMap::from([("MY_OWN".to_string(), "x".to_string())])
    );
    assert_eq!(plan.settings.accepted, ["TRUST_REMOTE_CODE"]);
    assert_eq!(plan.settings.unknown, ["MY_OWN"]);
    assert!(
        plan.notes[0].starts_with("TRUST_REMOTE_CODE has no effect"),
        "{:?}",
        plan.notes
    );
}

#[test]
fn a_refusal_has_a_reason_and_a_remedy() {
    let with_env =
        |name: &str, value: &str| format!("{{{HUB_FLOW}, env: [{{name: {name}, value: '{value}'}}]}}");
    const HUB_FLOW: &str = "model: {huggingFace: {repo: acme/model}}";
    for (spec, named) in [
        (with_env("MAX_NUM_SEQS", "many"), "MAX_NUM_SEQS"),
        (with_env("TENSOR_PARALLEL_SIZE", "2"), "TENSOR_PARALLEL_SIZE"),
        (with_env("MODEL_NAME", "other/model"), "spec.env"),
        (with_env("API_KEY", "secret"), "spec.env"),
        (with_env("PORT", "9"), "spec.env"),
        (
            format!("{{{HUB_FLOW}, tokenizer: {{tokenizer: /mnt/tokenizer}}}}"),
            "tokenizer",
        ),
        (
            "{model: {pvc: {claimName: c}}, tokenizer: {tokenizer: acme/other}}".into(),
            "tokenizer",
        ),
        ("{model: {}}".into(), "source"),
    ] {
        let failure = refused(&spec);
        assert_eq!(failure.reason, Reason::InvalidSetting, "{spec}");
        assert!(
            failure.message.contains(named) && !failure.remedy.is_empty(),
            "{spec}: {failure:?}"
        );
        assert!(!failure.message.contains("secret"), "{failure:?}");
    }
}

#[test]
fn the_tokenizer_of_another_repository_is_in_a_directory_of_the_model() {
    let plan = planned(&object(
        "{model: {huggingFace: {repo: acme/model}}, tokenizer: {tokenizer: acme/words, tokenizerRevision: v1}}",
    ));
    let tokenizer = plan.tokenizer.unwrap();
    assert_eq!(
        (tokenizer.repo.as_str(), tokenizer.revision.as_str()),
        ("acme/words", "v1")
    );
    assert_eq!(
        plan.config["tokenizer"],
        json!(format!("{}/tokenizer", plan.model_dir))
    );
    assert_eq!(plan.config.get("tokenizer-revision"), None);
}

#[test]
fn the_image_is_that_of_the_spec_or_pinned_or_the_default() {
    let mut object = object(HUB);
    assert_eq!(planned(&object).image.reference, IMAGE);
    object.status = Some(crds::ModelDeploymentStatus {
        runtime_image: Some("pinned:1".into()),
        ..Default::default()
    });
    assert_eq!(planned(&object).image.reference, "pinned:1");
    object.spec.runtime = Some(crds::modeldeployment::Runtime {
        image: Some("chosen:1".into()),
        pull_policy: None,
    });
    assert_eq!(planned(&object).image.reference, "chosen:1");
}

#[test]
fn replicas_share_a_node_only_if_their_volume_requires_it() {
    let reach = |rest: &str| {
        planned(&object(&format!(
            "{{model: {{huggingFace: {{repo: a/b}}}}, {rest}}}"
        )))
        .volume_reach
    };
    assert_eq!(reach("replicas: 1"), VolumeReach::EveryNode);
    assert_eq!(reach("resources: {gpu: {count: 1}}"), VolumeReach::EveryNode);
    assert_eq!(reach("cache: {type: PVC}"), VolumeReach::OneNode);
    assert_eq!(
        reach("cache: {type: PVC, accessMode: ReadWriteMany}"),
        VolumeReach::EveryNode
    );
    assert_eq!(reach("cache: {type: PVC, claimName: c}"), VolumeReach::OneNode);
    let shared = Observed {
        named_claim: serde_json::from_value(
            json!({"metadata": {}, "spec": {"accessModes": ["ReadWriteMany"]}}),
        )
        .unwrap(),
        ..Observed::default()
    };
    let object = object("{model: {huggingFace: {repo: a/b}}, cache: {type: PVC, claimName: c}}");
    assert_eq!(
        plan(&object, &shared, &installation()).unwrap().volume_reach,
        VolumeReach::EveryNode
    );
}

#[test]
fn an_object_of_somebody_else_is_not_taken_over() {
    let live = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "chat", "uid": "1"}});
    let live = std::sync::Arc::new(serde_json::from_value(live).unwrap());
    let observed = Observed {
        live: [("Service", live)].into_iter().collect(),
        ..Observed::default()
    };
    let failure = plan(&object(HUB), &observed, &installation())
        .unwrap_err()
        .failure;
    assert_eq!(failure.reason, Reason::NameTaken);
    assert!(failure.message.contains("Service chat"), "{failure:?}");
}
