//! Precedence of layers, and what is made of the merged settings.

use crds::settings::{Dtype, PreemptionMode, SchedulingPolicy};

use super::*;

fn config(
    flags: &[(&str, &str)],
    env: &[(&str, &str)],
    file: Option<(&str, &str)>,
) -> Result<ServeConfig, String> {
    let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, text)| (name.to_string(), text.to_string()))
            .collect()
    };
    let folder = tempfile::tempdir().unwrap();
    let mut arguments = ServeArguments {
        flags: pairs(flags),
        ..ServeArguments::default()
    };
    if let Some((kind, text)) = file {
        let path = folder.path().join("file.yaml");
        std::fs::write(&path, text).unwrap();
        *if kind == "config" {
            &mut arguments.config
        } else {
            &mut arguments.from
        } = Some(path);
    }
    let environment = Environment::from_iter(env.iter().copied());
    resolve(&arguments, &environment).map_err(|error| {
        error
            .failure()
            .message
            .replace(&folder.path().display().to_string(), "DIR")
    })
}

const DEPLOYMENT: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: x}
---
apiVersion: slipway.dev/v1alpha1
kind: ModelDeployment
metadata: {name: tiny}
spec:
  model:
    huggingFace: {repo: org/tiny, revision: v1, endpoint: 'http://hub'}
    servedModelName: [tiny, alias]
  engine: {maxModelLen: 128}
  env:
    - {name: MAX_MODEL_LEN, value: '64'}
    - {name: MAX_NUM_SEQS, value: '3'}
    - {name: TRUST_REMOTE_CODE, value: '1'}
  rollout: {drainTimeoutSeconds: 5}
  replicas: 2
";

#[test]
fn defaults_are_filled_in() {
    let config = config(&[("model", "org/name")], &[], None).unwrap();
    assert_eq!(config.served_names.to_vec(), ["org/name"]);
    assert_eq!(
        (config.port, config.engine.max_num_seqs(), config.max_logprobs),
        (8000, 256, Some(20))
    );
    assert!(
        matches!(config.model, ModelSource::Repository(Repository { ref revision, .. }) if revision == "main")
    );
}

#[test]
fn what_pages_may_do_and_where_tls_is_read_are_settings() {
    let set = |flags: &[(&str, &str)]| {
        let mut flags = flags.to_vec();
        flags.push(("model", "a/b"));
        config(&flags, &[], None)
    };
    let plain = set(&[]).unwrap();
    assert_eq!(
        (plain.cors.origins, plain.cors.with_credentials),
        (Allowed::Any, false)
    );
    assert_eq!((plain.tls, plain.root_path.as_str()), (None, ""));
    let none = set(&[("allowed-origins", "[]")]).unwrap();
    assert_eq!(none.cors.origins, Allowed::Only(Vec::new()));
    let json = set(&[
        ("allowed-origins", "[\"https://a\", \"https://b\"]"),
        ("root-path", "a/b/"),
    ])
    .unwrap();
    let origins = ["https://a", "https://b"].map(http::HeaderValue::from_static);
    assert_eq!(json.cors.origins, Allowed::Only(origins.to_vec()));
    assert_eq!(json.root_path, "/a/b");
    let said = |flags: &[(&str, &str)]| set(flags).unwrap_err();
    assert_eq!(said(&[("ssl-keyfile", "k")]), "SSL_KEYFILE needs SSL_CERTFILE");
    assert_eq!(
        said(&[("ssl-ca-certs", "c")]),
        "SSL_CA_CERTS needs SSL_CERTFILE and SSL_KEYFILE"
    );
    assert!(said(&[("allowed-methods", "G ET")]).contains("\"G ET\""));
}

#[test]
fn the_cache_and_the_order_are_chosen() {
    let chosen = |env: &[(&str, &str)]| {
        let config = config(&[("model", "a/b")], env, None).unwrap();
        (
            config.engine.enable_prefix_caching(),
            config.engine.preemption_mode(),
            config.engine.swap_space(),
            config.engine.scheduling_policy(),
        )
    };
    let defaults = (true, PreemptionMode::Recompute, 4, SchedulingPolicy::Fcfs);
    assert_eq!(chosen(&[]), defaults);
    let variables = [
        ("ENABLE_PREFIX_CACHING", "false"),
        ("PREEMPTION_MODE", "save"),
        ("SWAP_SPACE", "1"),
        ("SCHEDULING_POLICY", "priority"),
    ];
    let others = (false, PreemptionMode::Save, 1, SchedulingPolicy::Priority);
    assert_eq!(chosen(&variables), others);
}

#[test]
fn a_directory_is_served_by_its_name() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let config = config(&[("model", model)], &[], None).unwrap();
    assert_eq!(config.model, ModelSource::Directory(model.into()));
    assert_eq!(config.served_names.to_vec(), ["src"]);
}

#[test]
fn command_line_environment_file_default() {
    let file = Some(("config", "max-model-len: 1\nmax-num-seqs: 2\nseed: 3\n"));
    let config = config(
        &[("model", "a/b"), ("max-model-len", "10")],
        &[("MAX_NUM_SEQS", "20")],
        file,
    )
    .unwrap();
    assert_eq!(
        (
            config.engine.max_model_len(),
            config.engine.max_num_seqs(),
            config.engine.seed()
        ),
        (Some(10), 20, 3)
    );
}

#[test]
fn chunks_that_a_form_switches_off_are_named() {
    let names = |flags: &[(&str, &str)]| {
        let variables = &[("MODEL_NAME", "a/b"), ("ENABLE_CHUNKED_PREFILL", "False")];
        let config = config(flags, variables, None).unwrap();
        let names: Vec<String> = config.accepted.into_iter().map(|(name, _)| name).collect();
        names.join(" ")
    };
    assert_eq!(names(&[]), "ENABLE_CHUNKED_PREFILL");
    let step = ("max-num-batched-tokens", "4096");
    assert_eq!(
        names(&[step, ("max-model-len", "4097")]),
        "ENABLE_CHUNKED_PREFILL"
    );
    assert_eq!(names(&[step, ("max-model-len", "4096")]), "");
    // The model's own context is known when it is loaded.
    assert_eq!(names(&[step]), "");
}

#[test]
fn a_model_deployment_is_served_as_the_cluster_would() {
    let config = config(&[], &[("HF_TOKEN", "secret")], Some(("from", DEPLOYMENT))).unwrap();
    assert_eq!(config.served_names.to_vec(), ["tiny", "alias"]);
    assert_eq!(
        (config.engine.max_model_len(), config.engine.max_num_seqs()),
        (Some(128), 3)
    );
    assert_eq!(config.drain_timeout, Duration::from_secs(5));
    assert_eq!(config.accepted[0].0, "TRUST_REMOTE_CODE");
    let ModelSource::Repository(repository) = &config.model else {
        panic!("{:?}", config.model)
    };
    assert_eq!(repository.endpoint.as_deref(), Some("http://hub"));
    assert_eq!(repository.revision, "v1");
    assert_eq!(repository.token.as_deref(), Some("secret"));
    assert!(!format!("{repository:?}").contains("secret"));
}

#[test]
fn command_line_and_environment_win_over_a_model_deployment() {
    let config = config(
        &[("model", "a/b"), ("max-model-len", "10")],
        &[("MAX_NUM_SEQS", "20"), ("HF_ENDPOINT", "http://mirror")],
        Some(("from", DEPLOYMENT)),
    )
    .unwrap();
    assert_eq!(
        (config.engine.max_model_len(), config.engine.max_num_seqs()),
        (Some(10), 20)
    );
    let ModelSource::Repository(repository) = &config.model else {
        panic!("{:?}", config.model)
    };
    assert_eq!(
        (repository.repo.as_str(), repository.revision.as_str()),
        ("a/b", "main")
    );
    assert_eq!(repository.endpoint.as_deref(), Some("http://mirror"));
}

#[test]
fn what_cannot_be_used_is_named() {
    let said = |file: (&str, &str)| config(&[], &[], Some(file)).unwrap_err();
    assert_eq!(said(("config", "seed: 1")), "no model is named");
    assert_eq!(
        said(("config", "model: a/b\nspeed: 1")),
        "DIR/file.yaml: there is no setting 'speed'; did you mean 'seed'?"
    );
    assert_eq!(
        said(("from", "kind: Pod")),
        "DIR/file.yaml contains no ModelDeployment"
    );
    assert_eq!(
        said(("from", &DEPLOYMENT.replace("engine:", "motor:"))),
        "DIR/file.yaml: spec: there is no field 'motor'"
    );
    assert_eq!(
        said(("from", &format!("{DEPLOYMENT}extra: 1\n"))),
        "DIR/file.yaml: there is no field 'extra'"
    );
    assert_eq!(
        said(("from", &DEPLOYMENT.replace("MAX_NUM_SEQS", "PORT"))),
        "spec.env: PORT cannot be set here: the Service's target"
    );
    let claim = DEPLOYMENT.replace(
        "huggingFace: {repo: org/tiny, revision: v1, endpoint: 'http://hub'}",
        "pvc: {claimName: c}",
    );
    assert_eq!(said(("from", &claim)), "spec.model.pvc needs a cluster");
    let keys = format!("{DEPLOYMENT}  auth: {{apiKeysSecretRef: {{name: keys}}}}\n");
    assert_eq!(
        said(("from", &keys)),
        "spec.auth.apiKeysSecretRef needs a cluster"
    );
    let missing = ServeArguments {
        from: Some("no/such/file".into()),
        ..ServeArguments::default()
    };
    assert!(
        resolve(&missing, &Environment::default())
            .unwrap_err()
            .failure()
            .message
            .starts_with("cannot read no/such/file: ")
    );
}

#[test]
fn a_folder_of_ti_one_is_a_layer_of_settings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ti_model_config.json");
    std::fs::write(
        &path,
        r#"{"model_id": "Baichuan2-13B-Chat", "conv_template_name": "baichuan2-chat"}"#,
    )
    .unwrap();
    let model = folder.path().display().to_string();
    let of_file = config(&[], &[("MODEL_PATH", &model)], None).unwrap();
    assert_eq!(of_file.served_names.to_vec(), ["Baichuan2-13B-Chat"]);
    assert_eq!(of_file.conv_template, Some(ConvTemplate::Baichuan2Chat));
    assert_eq!(of_file.serving.max_concurrency(), 128);
    let env = [
        ("MODEL_PATH", model.as_str()),
        ("MODEL_ID", "mine"),
        ("CONV_TEMPLATE", "llama-2"),
    ];
    let of_env = config(&[], &env, None).unwrap();
    assert_eq!(of_env.served_names.to_vec(), ["mine"]);
    assert_eq!(of_env.conv_template, Some(ConvTemplate::Llama2));
    assert!(
        config(&[], &[("CONV_TEMPLATE", "vicuna")], None)
            .unwrap_err()
            .contains("CONV_TEMPLATE")
    );
    for text in ["[", r#"{"conv_template_name": "vicuna"}"#] {
        std::fs::write(&path, text).unwrap();
        let error = config(&[], &[("MODEL_PATH", &model)], None).unwrap_err();
        assert!(error.contains("ti_model_config.json"), "{error}");
    }
}

#[test]
fn the_start_command_of_ti_one_has_its_defaults() {
    let run = |flags: &[(&str, &str)]| {
        let arguments = ServeArguments {
            flags: flags
                .iter()
                .map(|(name, text)| (name.to_string(), text.to_string()))
                .collect(),
            start_mode: StartMode::Run,
            ..ServeArguments::default()
        };
        resolve(&arguments, &Environment::default()).unwrap()
    };
    let defaults = run(&[]);
    let ModelSource::Repository(Repository { repo, .. }) = &defaults.model else {
        panic!("{:?} is on this machine", defaults.model)
    };
    assert_eq!(repo, "/data/model");
    assert_eq!((defaults.port, defaults.serving.max_concurrency()), (8501, 128));
    assert_eq!(defaults.engine.dtype(), Dtype::Float16);
    // Twice the same would be a chance of one in 2^53.
    assert_ne!(defaults.engine.seed(), run(&[]).engine.seed());
    let given = run(&[
        ("dtype", "auto"),
        ("limit-worker-concurrency", "5"),
        ("seed", "7"),
        ("port", "80"),
    ]);
    assert_eq!((given.port, given.serving.max_concurrency()), (80, 5));
    assert_eq!((given.engine.dtype(), given.engine.seed()), (Dtype::Auto, 7));
}

#[test]
fn the_tokenizer_has_a_revision_of_its_own() {
    let flags = [
        ("model", "a/b"),
        ("tokenizer", "c/d"),
        ("tokenizer-revision", "v2"),
    ];
    let config = config(&flags, &[("MODEL_REVISION", "v1")], None).unwrap();
    let Some(ModelSource::Repository(Repository { repo, revision, .. })) = config.tokenizer else {
        panic!("{:?}", config.tokenizer)
    };
    assert_eq!((repo.as_str(), revision.as_str()), ("c/d", "v2"));
}
