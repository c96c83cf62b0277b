//! Tests of the built objects: snapshots of the examples, and what must not change.

use std::path::PathBuf;

use crds::ModelDeployment;
use serde_json::{Value, json};

use super::{
    super::{
        children::Resources,
        fixtures::{HUB, Recorder, from_value, hash_of, object, plan},
    },
    *,
};

fn examples() -> Vec<(String, Value)> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples"));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("# "), "{path:?} opens with a comment");
            let name = path.file_stem().unwrap().to_str().unwrap().to_string();
            found.push((name, serde_saphyr::from_str(&text).unwrap()));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(found.len() >= 6, "{found:?}");
    found
}

fn example(name: &str) -> ModelDeployment {
    let (_, value) = examples().into_iter().find(|(found, _)| found == name).unwrap();
    from_value(value)
}

/// The objects as a list of documents, in the order of the table of children; null where one is absent.
fn documents(plan: &Plan) -> Vec<Value> {
    let recorder = Recorder::default();
    recorder.applied(plan);
    recorder.documents.into_inner()
}

#[test]
fn every_example_fits_the_schema_and_builds() {
    let schema = crds::generate::crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    for (name, value) in examples() {
        let spec = json!({"spec": value["spec"]});
        assert_eq!(crds::schema::check(&schema, &spec), [], "{name}");
        let object = from_value(value);
        let documents = documents(&plan(&object));
        for document in documents.iter().filter(|document| !document.is_null()) {
            assert_eq!(
                document["metadata"]["labels"][OWNER_LABEL],
                json!(object.metadata.name),
                "{name}"
            );
            assert_eq!(
                document["metadata"]["ownerReferences"][0]["uid"],
                json!("uid-of-chat"),
                "{name}"
            );
        }
    }
}

#[test]
fn objects_of_the_demo() {
    insta::assert_yaml_snapshot!(documents(&plan(&example("modeldeployment"))));
}

#[test]
fn objects_of_one_gpu() {
    insta::assert_yaml_snapshot!(documents(&plan(&example("one-gpu"))));
}

#[test]
fn objects_of_a_claim() {
    insta::assert_yaml_snapshot!(documents(&plan(&example("pvc-source"))));
}

/// A changed hash restarts every model of every user when the operator is upgraded. Accept a new hash only for a change
/// that is worth it, and write it in CHANGELOG.md.
#[test]
fn an_upgrade_of_the_operator_changes_no_template() {
    let hashes: BTreeMap<String, String> = examples()
        .into_iter()
        .map(|(name, value)| (name, hash_of(&from_value(value))))
        .collect();
    insta::assert_yaml_snapshot!(hashes);
}

#[test]
fn a_setting_rolls_out_and_a_replica_count_does_not() {
    let hash = |rest: &str| {
        hash_of(&object(&format!(
            "{{model: {{huggingFace: {{repo: a/b}}}}, {rest}}}"
        )))
    };
    let plain = hash("replicas: 1");
    assert_eq!(plain, hash("replicas: 5"));
    assert_eq!(plain, hash("cache: {type: Ephemeral}"));
    for change in [
        "engine: {maxModelLen: 64}",
        "env: [{name: MAX_MODEL_LEN, value: '64'}]",
        "runtime: {image: b}",
    ] {
        assert_ne!(plain, hash(change), "{change}");
    }
    assert_eq!(
        hash("engine: {maxModelLen: 64}"),
        hash("env: [{name: MAX_MODEL_LEN, value: '64'}]"),
        "one setting, written in two ways"
    );
}

#[test]
fn secrets_reach_only_the_container_that_needs_them() {
    let object = object(
        "{model: {huggingFace: {repo: a/b}, tokenSecretRef: {name: hub-token}},
          auth: {apiKeysSecretRef: {name: api-keys, key: list}}}",
    );
    let pod = Resources::build(&plan(&object))
        .deployment
        .spec
        .unwrap()
        .template
        .spec
        .unwrap();
    let [fetch, runtime] = [json!(pod.init_containers), json!(pod.containers)].map(|list| list.to_string());
    assert!(
        fetch.contains("hub-token") && !fetch.contains("api-keys"),
        "{fetch}"
    );
    assert!(
        runtime.contains("api-keys") && !runtime.contains("hub-token"),
        "{runtime}"
    );
    assert_eq!(pod.automount_service_account_token, Some(false));
}

#[test]
fn a_variable_of_the_spec_never_replaces_one_of_the_operator() {
    let object = object(
        "{model: {huggingFace: {repo: a/b, endpoint: 'http://mirror'}}, env: [{name: HF_ENDPOINT, value: 'http://other'}]}",
    );
    let pod = Resources::build(&plan(&object))
        .deployment
        .spec
        .unwrap()
        .template
        .spec
        .unwrap();
    let env = pod.init_containers.unwrap().remove(0).env.unwrap();
    let endpoints: Vec<_> = env.iter().filter(|env| env.name == "HF_ENDPOINT").collect();
    assert_eq!(endpoints.len(), 1);
    assert_eq!(endpoints[0].value.as_deref(), Some("http://mirror"));
}

#[test]
fn a_retained_claim_has_no_owner() {
    let claim = |retain: &str| {
        let object = object(&format!(
            "{{model: {{huggingFace: {{repo: a/b}}}}, cache: {{type: PVC, size: 1Gi, retain: {retain}}}}}"
        ));
        Resources::build(&plan(&object))
            .claim
            .unwrap()
            .metadata
            .owner_references
    };
    assert_eq!(claim("true"), None);
    assert_eq!(claim("false").map(|owners| owners.len()), Some(1));
    assert!(Resources::build(&plan(&object(HUB))).claim.is_none());
}
