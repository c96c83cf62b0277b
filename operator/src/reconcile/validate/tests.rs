//! Tests of plans: made from minimal specs; resolved values and refusals are checked.

use serde_json::json;

use crate::autoscaler::{
    Activity, Autoscaled,
    decision::{Cause, Decision},
};

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
        (hub.repository.revision.as_str(), &hub.cache),
        ("main", &CacheVolume::Ephemeral { size: None })
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
        plan.notes[0].starts_with("without effect: TRUST_REMOTE_CODE ("),
        "{:?}",
        plan.notes
    );
}

#[test]
fn chunks_that_forms_switch_off_are_named_unless_a_step_has_room() {
    let accepted = |engine: &str, env: &str| {
        let spec =
            format!("{{model: {{huggingFace: {{repo: acme/model}}}}, engine: {{{engine}}}, env: [{env}]}}");
        let plan = planned(&object(&spec));
        let notes = plan.notes.join("");
        assert_eq!(
            notes.contains("MAX_NUM_BATCHED_TOKENS"),
            !plan.settings.accepted.is_empty()
        );
        plan.settings.accepted
    };
    let pasted = "{name: ENABLE_CHUNKED_PREFILL, value: 'False'}";
    assert_eq!(accepted("", pasted), ["ENABLE_CHUNKED_PREFILL"]);
    let typed = "enableChunkedPrefill: false, maxModelLen: 4096, maxNumBatchedTokens: ";
    let field = ["spec.engine.enableChunkedPrefill"];
    assert_eq!(accepted(&format!("{typed} 4095"), ""), field);
    assert_eq!(accepted(&format!("{typed} 4096"), "").len(), 0);
    assert_eq!(accepted("enableChunkedPrefill: true", pasted).len(), 0);
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
        (with_env("HUGGING_FACE_HUB_TOKEN", "secret"), "spec.env"),
        (with_env("HUGGINGFACE_TOKEN", "secret"), "spec.env"),
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

fn live(kind: &'static str, metadata: Value) -> Observed {
    let mut live: kube::api::DynamicObject = serde_json::from_value(json!({"metadata": metadata})).unwrap();
    live.metadata.owner_references = Some(vec![owner(&object(HUB))]);
    Observed {
        live: [(kind, std::sync::Arc::new(live))].into_iter().collect(),
        ..Observed::default()
    }
}

#[test]
fn the_image_is_that_of_the_spec_or_the_default_of_the_time_when_it_was_first_seen() {
    let image = |object: &ModelDeployment, observed: &Observed| {
        plan(object, observed, &installation()).unwrap().image
    };
    let none = Observed::default();
    let unnamed = object(HUB);
    assert_eq!(image(&unnamed, &none).reference, IMAGE);
    let named = object("{model: {huggingFace: {repo: acme/model}}, runtime: {image: 'typo:1'}}");
    assert_eq!(
        (
            image(&named, &none).reference.as_str(),
            image(&named, &none).default.as_str()
        ),
        ("typo:1", IMAGE)
    );
    // The image is taken out of the spec again; the status has the one that was tried.
    let pinned = live(
        "Deployment",
        json!({"name": "chat", "annotations": {DEFAULT_IMAGE: "pinned:1"}}),
    );
    let mut back = object(HUB);
    back.status = Some(crds::ModelDeploymentStatus {
        runtime_image: Some("typo:1".into()),
        ..Default::default()
    });
    assert_eq!(image(&back, &pinned).reference, "pinned:1");
    assert_eq!(image(&named, &pinned).default, "pinned:1");
    // The status is lost, or the Deployment.
    assert_eq!(image(&unnamed, &pinned).reference, "pinned:1");
    assert_eq!(image(&back, &none).reference, "typo:1");
}

#[test]
fn pods_with_gpus_may_have_an_image_of_their_own() {
    let with_gpu = object("{model: {huggingFace: {repo: acme/model}}, resources: {gpu: {count: 1}}}");
    let none = Observed::default();
    let with_both = Installation {
        runtime_cuda_image: Some("cuda:1".into()),
        ..installation()
    };
    let of = |object: &ModelDeployment, observed: &Observed, installation: &Installation| {
        super::image(object, observed, installation).reference
    };
    assert_eq!(of(&with_gpu, &none, &with_both), "cuda:1");
    assert_eq!(of(&object(HUB), &none, &with_both), IMAGE);
    assert_eq!(of(&with_gpu, &none, &installation()), IMAGE);
    let pinned = live(
        "Deployment",
        json!({"name": "chat", "annotations": {DEFAULT_IMAGE: "pinned:1"}}),
    );
    assert_eq!(of(&with_gpu, &pinned, &with_both), "pinned:1");
}

#[test]
fn the_commit_of_the_first_pods_is_kept_for_the_same_source() {
    let of = |object: &ModelDeployment, observed: &Observed| {
        let Source::Hub(hub) = plan(object, observed, &installation()).unwrap().source else {
            panic!("a hub")
        };
        hub.commit
    };
    let mut reported = object(HUB);
    reported.status = serde_json::from_value(json!({"model": {"revision": "first"}})).unwrap();
    assert_eq!(
        of(&reported, &Observed::default()),
        None,
        "it may be another model's"
    );
    let source = planned(&reported).source_key().to_string();
    let pods = live(
        "Deployment",
        json!({"name": "chat", "annotations": {SOURCE: source}}),
    );
    assert_eq!(of(&reported, &pods).as_deref(), Some("first"));
    assert_eq!(of(&object(HUB), &pods), None, "the pods have not reported it");
    let recorded = live(
        "ConfigMap",
        json!({"name": "chat-commit", "annotations": {SOURCE: source, COMMIT: "zeroth"}}),
    );
    assert_eq!(of(&reported, &recorded).as_deref(), Some("zeroth"));
    assert_eq!(
        of(&object(HUB), &recorded).as_deref(),
        Some("zeroth"),
        "the status is lost"
    );
    let other = object("model: {huggingFace: {repo: acme/model, revision: v2}}");
    assert_eq!(of(&other, &recorded), None);
}

#[test]
fn labels_and_annotations_of_the_operator_are_refused_by_name() {
    for (kind, key) in [
        ("labels", "slipway.dev/model-deployment"),
        ("labels", "app.kubernetes.io/managed-by"),
        ("annotations", "slipway.dev/template-hash"),
    ] {
        let spec = format!(
            "{{model: {{huggingFace: {{repo: a/b}}}}, podMetadata: {{{kind}: {{{key}: x, other: z}}}}}}"
        );
        let failure = refused(&spec);
        assert!(
            failure.message.contains(key) && !failure.message.contains("other"),
            "{failure:?}"
        );
    }
}

#[test]
fn a_claim_that_is_no_longer_requested_is_kept_and_named() {
    let claim = live("PersistentVolumeClaim", json!({"name": "chat-cache"}));
    let notes = |object: &ModelDeployment| plan(object, &claim, &installation()).unwrap().notes;
    assert!(notes(&object(HUB))[0].contains("kubectl delete pvc chat-cache"));
    let cached = object("{model: {huggingFace: {repo: a/b}}, cache: {type: PVC}}");
    assert_eq!(notes(&cached), Vec::<String>::new());
}

#[test]
fn the_network_of_the_installation_holds_where_the_spec_says_nothing() {
    let with = |installed: Value, spec: Value| {
        let mut installation = installation();
        installation.network = serde_json::from_value(installed).unwrap();
        let mut object = object(HUB);
        object.spec.network = serde_json::from_value(spec).unwrap();
        plan(&object, &Observed::default(), &installation)
            .unwrap()
            .network
    };
    let peer = |cidr: &str| json!({"ipBlock": {"cidr": cidr}});
    let (a, b) = (json!([peer("10.0.0.0/8")]), json!([peer("192.168.0.0/16")]));
    let clients = |network: Option<Connections>| json!(network.unwrap().clients);
    assert_eq!(clients(with(json!({}), Value::Null)), Value::Null);
    assert_eq!(clients(with(json!({"clients": a}), Value::Null)), a);
    assert_eq!(clients(with(json!({"clients": a}), json!({"clients": b}))), b);
    assert_eq!(with(json!({"policy": "None"}), Value::Null), None);
    assert!(with(json!({"policy": "None"}), json!({"policy": "Managed"})).is_some());
    let monitoring = with(json!({"monitoring": a}), json!({"monitoring": b}))
        .unwrap()
        .monitoring;
    assert_eq!(monitoring.len(), 2);
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

#[test]
fn a_cache_beside_a_model_in_a_claim_is_noted() {
    let in_claim = object("{model: {pvc: {claimName: models}}, cache: {type: PVC, size: 1Gi}}");
    let notes = planned(&in_claim).notes;
    assert!(notes[0].starts_with("spec.cache has no effect"), "{notes:?}");
    let downloaded = object("{model: {huggingFace: {repo: a/b}}, cache: {type: PVC, size: 1Gi}}");
    assert_eq!(planned(&downloaded).notes, Vec::<String>::new());
}

#[test]
fn the_autoscaler_decides_within_the_limits_and_replicas_beside_it_are_noted() {
    let object = object(
        "{model: {huggingFace: {repo: a/b}}, replicas: 7, autoscaling: {minReplicas: 2, maxReplicas: 5}}",
    );
    let with = |decided: Option<i32>| {
        let autoscaled = decided.map(|replicas| Autoscaled {
            decision: Decision {
                replicas,
                cause: Cause::Arrivals,
                trace: String::new(),
            },
            activity: Activity::Active,
            key_hashes: Vec::new(),
        });
        let observed = Observed {
            autoscaled,
            ..Observed::default()
        };
        plan(&object, &observed, &installation()).unwrap()
    };
    for (decided, replicas) in [(None, 2), (Some(1), 2), (Some(3), 3), (Some(9), 5)] {
        assert_eq!(with(decided).replicas, replicas);
    }
    assert!(with(None).notes[0].starts_with("spec.replicas has no effect"));
}

#[test]
fn a_last_replica_that_stays_against_the_spec_is_noted() {
    let spec = "model: {huggingFace: {repo: a/b}}, autoscaling: {minReplicas: 0, maxReplicas: 5}";
    let with_keys = format!("{{{spec}, auth: {{apiKeysSecretRef: {{name: keys}}}}}}");
    let notes = |spec: &str, installation: &Installation| {
        let plan = plan(&object(spec), &Observed::default(), installation).unwrap();
        assert_eq!(plan.replicas, 1, "a new one starts once");
        plan.notes
    };
    let with_gateway = installation();
    assert_eq!(notes(&format!("{{{spec}}}"), &with_gateway), Vec::<String>::new());
    let reported = &notes(&with_keys, &with_gateway)[0];
    assert!(reported.contains("API keys"), "{reported}");
    let without_gateway = Installation {
        gateway_service: None,
        ..installation()
    };
    let reported = &notes(&with_keys, &without_gateway)[0];
    assert!(reported.contains("gateway.enabled"), "{reported}");
}
