//! Tests of the built objects: snapshots of the examples, and what must not change.

use std::path::PathBuf;

use crds::ModelDeployment;
use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::{Value, json};

use super::{
    super::{
        children::Resources,
        fixtures::{HUB, Recorder, from_value, hash_of, object, plan},
        plan::Source,
    },
    *,
};
use crate::names::CONFIG_HASH;

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
            let owner = &document["metadata"]["ownerReferences"][0];
            assert_eq!(owner["blockOwnerDeletion"], json!(true), "{name}");
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
    assert_eq!(plain, hash("autoscaling: {maxReplicas: 5}"));
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

fn pod(object: &ModelDeployment) -> PodSpec {
    Resources::build(&plan(object))
        .deployment
        .spec
        .unwrap()
        .template
        .spec
        .unwrap()
}

/// The download container and the runtime's.
fn containers(object: &ModelDeployment) -> [Container; 2] {
    let mut pod = pod(object);
    [pod.init_containers.unwrap().remove(0), pod.containers.remove(0)]
}

fn hub_with(rest: &str) -> ModelDeployment {
    object(&format!("{{model: {{huggingFace: {{repo: a/b}}}}, {rest}}}"))
}

#[test]
fn secrets_reach_only_the_container_that_needs_them() {
    let object = object(
        "{model: {huggingFace: {repo: a/b}, tokenSecretRef: {name: hub-token}},
          auth: {apiKeysSecretRef: {name: keys-of-clients, key: list}}}",
    );
    let [fetch, runtime] = containers(&object).map(|container| json!(container).to_string());
    assert!(
        fetch.contains("hub-token") && !fetch.contains("api-keys"),
        "{fetch}"
    );
    assert!(
        runtime.contains("api-keys") && !runtime.contains("hub-token"),
        "{runtime}"
    );
    assert!(
        !runtime.contains("keys-of-clients"),
        "a variable would keep the old keys"
    );
    let pod = pod(&object);
    assert_eq!(pod.automount_service_account_token, Some(false));
    let volumes = json!(pod.volumes);
    let keys = json!({"name": "api-keys", "secret": {
        "secretName": "keys-of-clients", "items": [{"key": "list", "path": "keys"}]}});
    assert!(volumes.as_array().unwrap().contains(&keys), "{volumes}");
}

#[test]
fn a_template_names_the_configuration_file_that_it_was_made_with() {
    let of = |rest: &str| {
        let resources = Resources::build(&plan(&hub_with(rest)));
        let template = resources.deployment.spec.unwrap().template;
        let volumes = template.spec.unwrap().volumes.unwrap();
        let named = volumes
            .into_iter()
            .find_map(|volume| volume.config_map)
            .unwrap()
            .name;
        let label = template.metadata.unwrap().labels.unwrap()[CONFIG_HASH].clone();
        assert_eq!(named, format!("chat-config-{label}"));
        assert_eq!(Some(&named), resources.config_map.metadata.name.as_ref());
        assert_eq!(resources.config_map.metadata.labels.unwrap()[CONFIG_HASH], label);
        assert_eq!(resources.config_map.immutable, Some(true));
        named
    };
    assert_eq!(of("replicas: 1"), of("replicas: 2"));
    assert_ne!(of("replicas: 1"), of("engine: {maxModelLen: 64}"));
}

/// What Kubernetes makes of a text in an argument or a variable: `$$` is `$`, and `$(NAME)` is another variable's value.
fn expanded(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out += &rest[..at];
        rest = &rest[at..];
        let name_end = rest.find(')').filter(|_| rest.starts_with("$("));
        match (rest.strip_prefix("$$"), name_end) {
            (Some(after), _) => (out, rest) = (out + "$", after),
            (None, Some(end)) => (out, rest) = (out + "EXPANDED", &rest[end + 1..]),
            (None, None) => (out, rest) = (out + "$", &rest[1..]),
        }
    }
    out + rest
}

#[test]
fn texts_of_the_user_reach_the_containers_unchanged() {
    let alphabet = ['$', '(', ')', 'A'];
    let n_texts = 4_usize.pow(5);
    for number in 0..n_texts {
        let digits = (0..5).map(|place| number / 4_usize.pow(place) % 4);
        let text: String = digits.map(|digit| alphabet[digit]).collect();
        let mut object = hub_with("env: [{name: MINE, value: x}]");
        object.spec.env[0].value.clone_from(&text);
        object.spec.model.hugging_face.as_mut().unwrap().ignore_patterns = vec![text.clone()];
        let [fetch, runtime] = containers(&object);
        let pattern = fetch.args.as_ref().unwrap().last().unwrap();
        assert_eq!(expanded(pattern), text);
        for container in [&fetch, &runtime] {
            let mut env = container.env.iter().flatten();
            let mine = env.find(|env| env.name == "MINE").unwrap();
            assert_eq!(expanded(mine.value.as_ref().unwrap()), text);
        }
    }
}

#[test]
fn a_variable_of_the_spec_never_replaces_one_of_the_operator() {
    let object = object(
        "{model: {huggingFace: {repo: a/b, endpoint: 'http://mirror'}}, caBundle: {name: ca}, env: [
            {name: HF_ENDPOINT, value: other}, {name: MODEL_COMMIT, value: other},
            {name: SSL_CERT_FILE, value: other}]}",
    );
    let [fetch, _] = containers(&object);
    let env = fetch.env.unwrap();
    let of = |name: &str| {
        let found: Vec<_> = env.iter().filter(|env| env.name == name).collect();
        assert_eq!(found.len(), 1, "{name}");
        found[0].value.clone()
    };
    assert_eq!(of("HF_ENDPOINT").as_deref(), Some("http://mirror"));
    assert_eq!(of("MODEL_COMMIT"), None);
    assert_eq!(
        of("SSL_CERT_FILE").as_deref(),
        Some("/etc/slipway/ca-bundle/ca.crt")
    );
}

#[test]
fn the_download_requests_what_its_replica_requests_but_no_gpu() {
    let of = |resources: &str| containers(&hub_with(resources)).map(|container| json!(container.resources));
    let [fetch, runtime] = of("resources: {cpu: 2, memory: 4Gi, limits: {cpu: 4}, gpu: {count: 1}}");
    assert_eq!(
        fetch,
        json!({"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"cpu": "4", "memory": "4Gi"}})
    );
    assert_eq!(
        runtime,
        json!({"requests": {"cpu": "2", "memory": "4Gi"},
               "limits": {"cpu": "4", "memory": "4Gi", "nvidia.com/gpu": "1"}})
    );
    let [fetch, runtime] = of("replicas: 1");
    assert_eq!(fetch, json!({"requests": {"cpu": "10m", "memory": "64Mi"}}));
    assert_eq!(runtime, json!({}));
    let [fetch, _] = of("resources: {limits: {cpu: 1m}}");
    assert_eq!(
        fetch,
        json!({"requests": {"memory": "64Mi"}, "limits": {"cpu": "1m"}}),
        "a request is never larger than its limit"
    );
}

#[test]
fn the_kubelet_and_the_operator_use_a_port_that_clients_do_not() {
    let [fetch, runtime] = containers(&object(HUB));
    for probe in [
        &runtime.startup_probe,
        &runtime.readiness_probe,
        &runtime.liveness_probe,
    ] {
        let get = probe.as_ref().unwrap().http_get.as_ref().unwrap();
        assert_eq!(get.port, IntOrString::String("control".into()));
    }
    let args = |container: &Container| container.args.as_ref().unwrap().join(" ");
    assert!(
        args(&runtime).contains("--host :: --port 8000 --control-port 8001"),
        "{runtime:?}"
    );
    assert!(args(&fetch).contains("--progress-listen [::]:8001"), "{fetch:?}");
}

fn policy(object: &ModelDeployment) -> Value {
    json!(Resources::build(&plan(object)).network_policy)
}

#[test]
fn clients_and_monitoring_reach_their_own_ports_only() {
    let operator =
        json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "slipway-system"}}});
    let peers = |object: &ModelDeployment, port: u16| {
        let policy = policy(object);
        let rules = policy["spec"]["ingress"].as_array().unwrap().clone();
        let mut rules = rules.into_iter().filter(|rule| rule["ports"][0]["port"] == port);
        let rule = rules.next().unwrap();
        assert_eq!(rules.next(), None);
        rule["from"].clone()
    };
    let every_pod = json!({"namespaceSelector": {}});
    assert_eq!(peers(&object(HUB), 8000), json!([every_pod]));
    assert_eq!(peers(&object(HUB), 8001), json!([operator]));
    let open = hub_with(
        "network: {clients: [{ipBlock: {cidr: 0.0.0.0/0}}], monitoring: [{podSelector: {matchLabels: {app: prometheus}}}]}",
    );
    let anyone = json!({"ipBlock": {"cidr": "0.0.0.0/0"}});
    assert_eq!(peers(&open, 8000), json!([anyone, operator]));
    let prometheus = json!({"podSelector": {"matchLabels": {"app": "prometheus"}}});
    assert_eq!(peers(&open, 8001), json!([operator, prometheus]));
    assert_eq!(policy(&hub_with("network: {policy: None}")), Value::Null);
}

#[test]
fn pods_have_the_labels_and_annotations_of_the_spec() {
    let object = hub_with("podMetadata: {labels: {team: search}, annotations: {a/b: c}}");
    let template = Resources::build(&plan(&object)).deployment.spec.unwrap().template;
    let metadata = template.metadata.unwrap();
    let labels = metadata.labels.unwrap();
    assert_eq!(
        (labels["team"].as_str(), labels[OWNER_LABEL].as_str()),
        ("search", "chat")
    );
    assert_eq!(metadata.annotations.unwrap()["a/b"], "c");
}

#[test]
fn the_user_and_the_groups_are_those_of_the_image_of_the_spec_or_of_the_cluster() {
    let of = |rest: &str| {
        let context = pod(&hub_with(rest)).security_context.unwrap();
        assert_eq!(context.run_as_non_root, Some(true));
        (context.run_as_user, context.run_as_group, context.fs_group)
    };
    let all = |id| (Some(id), Some(id), Some(id));
    assert_eq!(of("replicas: 1"), all(65532));
    assert_eq!(
        of("securityContext: {runAsUser: 1000, fsGroup: 7}"),
        (Some(1000), Some(65532), Some(7))
    );
    assert_eq!(of("securityContext: {assignedBy: Platform}"), (None, None, None));
}

#[test]
fn the_rule_for_a_volume_of_one_node_is_added_to_the_affinity_of_the_spec() {
    let term = |key: &str| format!("{{topologyKey: {key}, labelSelector: {{matchLabels: {{app: x}}}}}}");
    let required = format!(
        "requiredDuringSchedulingIgnoredDuringExecution: [{}]",
        term("zone")
    );
    let keys = |cache: &str| {
        let object = hub_with(&format!(
            "scheduling: {{affinity: {{podAffinity: {{{required}}}}}}}, {cache}"
        ));
        let affinity = pod(&object).affinity.unwrap().pod_affinity.unwrap();
        let terms = affinity
            .required_during_scheduling_ignored_during_execution
            .unwrap();
        terms
            .into_iter()
            .map(|term| term.topology_key)
            .collect::<Vec<_>>()
    };
    assert_eq!(keys("cache: {type: Ephemeral}"), ["zone"]);
    assert_eq!(keys("cache: {type: PVC}"), ["zone", "kubernetes.io/hostname"]);
}

#[test]
fn a_commit_is_written_down_once_it_is_known_and_is_not_part_of_the_template() {
    let object = object(HUB);
    let mut plan = plan(&object);
    let before = Resources::build(&plan);
    assert_eq!(before.commit, None);
    let Source::Hub(hub) = &mut plan.source else {
        panic!("a hub")
    };
    hub.commit = Some("c0ffee".into());
    let after = Resources::build(&plan);
    let data = after.commit.unwrap().data.unwrap();
    assert_eq!(json!(data), json!({plan.source_key(): "c0ffee"}));
    assert_eq!(before.deployment, after.deployment);
    let [fetch, _] = containers(&object);
    let env = json!(
        fetch
            .env
            .unwrap()
            .into_iter()
            .find(|env| env.name == "MODEL_COMMIT")
    );
    let reference = json!({"name": "chat-commit", "key": plan.source_key(), "optional": true});
    assert_eq!(env["valueFrom"]["configMapKeyRef"], reference);
}

#[test]
fn a_retained_claim_has_no_owner_and_no_label_by_which_others_would_delete_it() {
    let claim = |retain: &str| {
        let object = hub_with(&format!("cache: {{type: PVC, size: 1Gi, retain: {retain}}}"));
        let metadata = Resources::build(&plan(&object)).claim.unwrap().metadata;
        let has_instance = metadata.labels.unwrap().contains_key(INSTANCE_LABEL);
        (metadata.owner_references.map(|owners| owners.len()), has_instance)
    };
    assert_eq!(claim("true"), (None, false));
    assert_eq!(claim("false"), (Some(1), true));
    assert!(Resources::build(&plan(&object(HUB))).claim.is_none());
}

#[test]
fn files_in_a_claim_of_others_are_verified_by_content() {
    let verifies = |cache: &str| {
        let object = object(&format!("{{{HUB}, cache: {cache}}}"));
        let fetch = super::containers::fetch;
        match &plan(&object).source {
            Source::Hub(hub) => fetch(&plan(&object), hub)
                .args
                .unwrap()
                .contains(&"--verify-contents".to_string()),
            Source::Claim { .. } => unreachable!("the model comes from the hub"),
        }
    };
    assert!(verifies("{type: PVC, claimName: shared}"));
    assert!(!verifies("{type: PVC, size: 1Gi}"));
    assert!(!verifies("{type: Ephemeral}"));
}
