//! Names, examples and defaults of every row, and the merging of layers.

use super::*;
use crate::modeldeployment::{ModelDeploymentSpec, ModelSource, Rollout};
use crate::schema;

fn env(pairs: &[(&str, &str)]) -> Result<Layer, SettingError> {
    Layer::from_env(
        "environment",
        pairs
            .iter()
            .map(|(name, text)| (name.to_string(), text.to_string())),
    )
}

fn flags(pairs: &[(&str, &str)]) -> Result<Layer, SettingError> {
    Layer::from_flags(
        "command line",
        pairs
            .iter()
            .map(|(name, text)| (name.to_string(), text.to_string())),
    )
}

fn file(value: Value) -> Result<Layer, SettingError> {
    Layer::from_config_file("config.yaml", &value)
}

#[test]
fn names_follow_from_the_field() {
    let setting = SETTINGS
        .iter()
        .find(|setting| setting.field == "max_num_batched_tokens")
        .unwrap();
    assert_eq!(setting.camel(), "maxNumBatchedTokens");
    assert_eq!(setting.env(), "MAX_NUM_BATCHED_TOKENS");
    assert_eq!(setting.flag(), "max-num-batched-tokens");
    assert_eq!(setting.crd_path().unwrap(), "spec.engine.maxNumBatchedTokens");
}

#[test]
fn an_earlier_layer_wins() {
    let layers = [
        flags(&[("max-model-len", "64")]).unwrap(),
        env(&[("MAX_MODEL_LEN", "128"), ("MAX_NUM_SEQS", "4")]).unwrap(),
        file(serde_json::json!({"max-num-seqs": 8, "seed": 7})).unwrap(),
    ];
    let settings = Settings::merge(&layers);
    assert_eq!(settings.engine.max_model_len, Some(64));
    assert_eq!(settings.engine.max_num_seqs, Some(4));
    assert_eq!(settings.engine.seed, Some(7));
    assert_eq!(settings.engine.block_size, None);
}

/// The settings of a ModelDeployment that was written as YAML, checked by the CRD's schema and read again.
fn through_yaml(settings: &Settings) -> Result<Settings, String> {
    let spec = ModelDeploymentSpec {
        model: ModelSource {
            settings: settings.model.clone(),
            ..ModelSource::default()
        },
        tokenizer: settings.tokenizer.clone(),
        engine: settings.engine.clone(),
        streaming: settings.streaming.clone(),
        openai: settings.openai.clone(),
        serving: settings.serving.clone(),
        rollout: settings.process.drain_timeout_seconds.map(|seconds| Rollout {
            drain_timeout_seconds: Some(seconds),
        }),
        ..ModelDeploymentSpec::default()
    };
    let yaml = serde_saphyr::to_string(&spec).map_err(|error| error.to_string())?;
    let value: Value = serde_saphyr::from_str(&yaml).map_err(|error| error.to_string())?;
    let crd = crate::generate::crd();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    if let Some(violation) = schema::check(schema, &value).first() {
        return Err(violation.to_string());
    }
    let spec: ModelDeploymentSpec = serde_json::from_value(value).map_err(|error| error.to_string())?;
    Ok(spec.settings())
}

#[test]
fn every_valid_example_is_the_same_value_in_every_layer() {
    for setting in SETTINGS {
        let name = setting.field;
        assert!(!setting.row.valid.is_empty(), "{name} has no valid example");
        for text in setting.row.valid {
            let settings = Settings::merge(&[flags(&[(&setting.flag(), text)]).unwrap()]);
            assert_ne!(settings, Settings::default(), "{name}: {text}");
            for variable in setting.env_names() {
                let layer = env(&[(&variable, text)]).unwrap();
                assert_eq!(Settings::merge(&[layer]), settings, "{variable}: {text}");
            }
            if setting.row.secret {
                assert_eq!(settings.to_config_file().len(), 0, "{name}");
                continue;
            }
            let yaml = serde_saphyr::to_string(&settings.to_config_file()).unwrap();
            let layer = file(serde_saphyr::from_str(&yaml).unwrap()).unwrap();
            assert_eq!(Settings::merge(&[layer]), settings, "{name}: {text}");
            if setting.row.place == Place::Field || setting.field == "drain_timeout_seconds" {
                assert_eq!(through_yaml(&settings).as_ref(), Ok(&settings), "{name}: {text}");
            }
        }
    }
}

#[test]
fn every_invalid_example_is_refused_with_the_name_of_the_setting() {
    for setting in SETTINGS {
        let (variable, flag) = (setting.env(), setting.flag());
        assert!(!setting.row.invalid.is_empty(), "{flag} has no invalid example");
        for text in setting.row.invalid {
            let refused = |layer: Result<Layer, SettingError>, name: &str| {
                let error = layer
                    .map(|_| format!("{name} takes {text:?}"))
                    .unwrap_err()
                    .to_string();
                assert!(error.contains(name), "{error}");
                let is_told = text.is_empty() || !setting.row.secret;
                assert!(is_told || error.contains("a secret value"), "{error}");
            };
            refused(flags(&[(&flag, text)]), &format!("--{flag}: "));
            refused(
                file(serde_json::json!({flag.as_str(): text})),
                &format!("{flag}: "),
            );
            match env(&[(&variable, text)]) {
                Ok(layer) if text.is_empty() && !setting.row.refuses_empty => {
                    assert_eq!(layer, Layer::default(), "{variable}");
                }
                layer => refused(layer, &variable),
            }
        }
    }
}

#[test]
fn every_default_is_a_valid_value() {
    for setting in SETTINGS {
        if let DefaultValue::Value(value) = setting.default {
            assert_eq!(
                schema::check(&setting.schema(), &value()),
                [],
                "{}",
                setting.field
            );
        }
    }
}

#[test]
fn an_accessor_returns_the_given_value_or_the_default() {
    let given = Settings::merge(&[env(&[("MAX_NUM_SEQS", "4"), ("MAX_MODEL_LEN", "128")]).unwrap()]);
    assert_eq!(given.engine.max_num_seqs(), 4);
    assert_eq!(given.engine.max_model_len(), Some(128));
    let none = Settings::default();
    assert_eq!(none.engine.max_num_seqs(), 256);
    assert_eq!(none.engine.max_model_len(), None);
    assert_eq!(none.engine.preemption_mode(), PreemptionMode::Recompute);
    assert_eq!(none.serving.allowed_origins(), ["*"]);
    assert_eq!(none.process.drain_timeout_seconds(), 90);
}

#[test]
fn switches_and_whole_numbers_are_read_as_forms_write_them() {
    for (text, is_on) in [
        ("0", false),
        ("1", true),
        ("True", true),
        ("false", false),
        (" FALSE ", false),
    ] {
        let settings = Settings::merge(&[env(&[("ENABLE_PREFIX_CACHING", text)]).unwrap()]);
        assert_eq!(settings.engine.enable_prefix_caching, Some(is_on), "{text}");
    }
    let settings = Settings::merge(&[env(&[("MAX_NUM_SEQS", "256.0")]).unwrap()]);
    assert_eq!(settings.engine.max_num_seqs, Some(256));
    assert!(env(&[("MAX_NUM_SEQS", "2.5")]).is_err());
}

#[test]
fn other_words_for_a_value_mean_the_same() {
    let level = Settings::merge(&[flags(&[("uvicorn-log-level", "warning")]).unwrap()]);
    assert_eq!(level.serving.log_level(), LogLevel::Warn);
    let level = Settings::merge(&[file(serde_json::json!({"log-level": "critical"})).unwrap()]);
    assert_eq!(level.serving.log_level(), LogLevel::Error);
}

#[test]
fn an_object_is_json_and_its_keys_are_checked() {
    let settings = Settings::merge(&[env(&[
        ("MODEL_LOADER_EXTRA_CONFIG", r#"{"num_threads": 2}"#),
        ("ROPE_SCALING", r#"{"rope_type": "linear", "factor": 2.0}"#),
    ])
    .unwrap()]);
    assert_eq!(
        settings.engine.model_loader_extra_config.unwrap().num_threads,
        Some(2)
    );
    assert_eq!(settings.engine.rope_scaling.unwrap()["factor"], 2.0);
    let said = |name: &str, text: &str| env(&[(name, text)]).unwrap_err().to_string();
    assert_eq!(
        said("MODEL_LOADER_EXTRA_CONFIG", r#"{"threads": 2}"#),
        "environment: MODEL_LOADER_EXTRA_CONFIG: there is no field 'threads'"
    );
    assert!(said("ROPE_SCALING", "{").starts_with("environment: ROPE_SCALING: expected"));
}

#[test]
fn a_flag_of_another_server_is_accepted_or_refused_by_name() {
    let layer = flags(&[("tensor-parallel-size", "1"), ("trust-remote-code", "true")]).unwrap();
    let accepted: Vec<&str> = layer.accepted.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(accepted, ["--tensor-parallel-size", "--trust-remote-code"]);
    let said = |layer: Result<Layer, SettingError>| layer.unwrap_err().to_string();
    assert_eq!(
        said(flags(&[("num-gpus", "2")])),
        "command line: --num-gpus=2 is not in this version: set it to 1, and raise spec.replicas for more throughput"
    );
    assert!(said(file(serde_json::json!({"cpu-offload-gb": 4}))).contains("cpu-offload-gb=4"));
    let tp = said(env(&[("TP", "4")]));
    assert!(tp.starts_with("environment: TP=4 is not in this version"), "{tp}");
}

#[test]
fn a_setting_that_a_cluster_decides_is_listed_and_dropped() {
    let mut layer = env(&[("BASE_PATH", "/runpod-volume"), ("SEED", "1")]).unwrap();
    assert!(Settings::merge(&[layer.clone()]).process.download_dir.is_some());
    layer.drop_ignored();
    assert_eq!(layer.accepted[0].0, "BASE_PATH");
    assert_eq!(Settings::merge(&[layer]).process.download_dir, None);
    assert!(without_effect("DOWNLOAD_DIR", "/models").is_some());
    assert!(without_effect("SEED", "1").is_none());
}

#[test]
fn each_value_is_known_with_the_layer_that_gives_it() {
    let layers = [
        env(&[("MAX_BATCH_SIZE", "9")]).unwrap(),
        file(serde_json::json!({"max-num-seqs": 7, "seed": 3})).unwrap(),
    ];
    let effective = Settings::effective(&layers);
    let source = |field: &str| {
        let setting = effective
            .iter()
            .find(|found| found.setting.field == field)
            .unwrap();
        setting.source.clone()
    };
    let is = |layer: &str, name: &str| Some((layer.to_string(), name.to_string()));
    assert_eq!(source("max_num_seqs"), is("environment", "MAX_BATCH_SIZE"));
    assert_eq!(source("seed"), is("config.yaml", "seed"));
    assert_eq!(source("block_size"), None);
}

#[test]
fn two_names_of_one_setting_must_agree() {
    assert!(env(&[("TOKENIZER", "a"), ("TOKENIZER_NAME", "a")]).is_ok());
    let error = env(&[("TOKENIZER", "a"), ("TOKENIZER_NAME", "b")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment: TOKENIZER and TOKENIZER_NAME are one setting and have different values"
    );
}

#[test]
fn keys_are_read_from_each_of_their_variables() {
    for name in ["API_KEY", "OPENAI_API_KEYS", "VLLM_API_KEY"] {
        let settings = Settings::merge(&[env(&[(name, "first,second")]).unwrap()]);
        assert_eq!(
            settings.process.api_key,
            Some(vec!["first".into(), "second".into()]),
            "{name}"
        );
    }
}

#[test]
fn an_empty_list_of_keys_is_no_permission() {
    for name in ["API_KEY", "OPENAI_API_KEYS", "VLLM_API_KEY", "API_KEYS_FILE"] {
        let error = env(&[(name, "")]).unwrap_err().to_string();
        assert_eq!(error, format!("environment: {name} is empty"));
    }
}

#[test]
fn variables_that_are_not_honoured_are_never_silent() {
    let layer = env(&[("TRUST_REMOTE_CODE", "1"), ("HOME", "/"), ("SEED", "")]).unwrap();
    assert_eq!(layer.accepted[0].0, "TRUST_REMOTE_CODE");
    assert_eq!(Settings::merge(&[layer]), Settings::default());
    let error = env(&[("TENSOR_PARALLEL_SIZE", "2")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment: TENSOR_PARALLEL_SIZE=2 is not in this version: set it to 1, and raise spec.replicas for more \
         throughput"
    );
}

/// Every variable of the documents of the replaced servers; the file says what its columns are.
const DOCUMENTED: &str = include_str!("documented.tsv");

/// A row of [`DOCUMENTED`].
struct Documented {
    name: &'static str,
    values: Vec<&'static str>,
    disposition: &'static str,
    proof: &'static str,
}

fn documented() -> impl Iterator<Item = Documented> {
    let rows = DOCUMENTED.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| {
        let [_, name, values, disposition, proof] = row.split('\t').collect::<Vec<_>>()[..] else {
            panic!("five columns: {row}")
        };
        Documented {
            name,
            values: values.split('|').filter(|value| !value.is_empty()).collect(),
            disposition,
            proof,
        }
    })
}

#[test]
fn every_documented_value_is_accepted_and_never_in_silence() {
    for Documented { name, values, .. } in documented() {
        for value in values {
            let layer = env(&[(name, value)]).unwrap_or_else(|error| panic!("{error}"));
            let is_listed = layer.accepted.iter().any(|(accepted, _)| accepted == name);
            let has_effect = Settings::merge(&[layer]) != Settings::default();
            assert!(
                is_listed || has_effect || is_absent(value),
                "{name}={value} is ignored in silence"
            );
        }
    }
}

/// An honoured variable has a test that shows its effect; the others have none.
#[test]
fn every_documented_variable_is_what_the_list_says() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for Documented {
        name,
        disposition,
        proof,
        ..
    } in documented()
    {
        let found = match variable(name, "a value of no form") {
            Variable::Setting(_) => "honoured",
            Variable::Accepted(_) => "accepted",
            Variable::Refused(_) => "refused",
            Variable::Unknown => "unknown",
        };
        assert_eq!(found, disposition, "{name}");
        if disposition != "honoured" {
            assert_eq!(proof, "-", "{name}");
            continue;
        }
        let (file, test) = proof
            .split_once("::")
            .unwrap_or_else(|| panic!("{name}: {proof}"));
        let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
        assert!(
            text.contains(&format!("fn {test}()")),
            "{name}: there is no {proof}"
        );
    }
}

#[test]
fn a_value_that_asks_for_more_is_refused_with_what_to_do() {
    for foreign in foreign().filter(|foreign| matches!(foreign.harmless, Harmless::Only(_))) {
        let error = env(&[(foreign.name, "something-else")]).unwrap_err().to_string();
        assert!(
            error.contains(foreign.name) && error.ends_with(foreign.instead),
            "{error}"
        );
        assert!(!foreign.instead.is_empty(), "{}", foreign.name);
    }
}

#[test]
fn values_that_only_other_servers_have_are_refused_with_what_to_do() {
    for setting in SETTINGS {
        for (text, instead) in setting.row.elsewhere {
            let value = serde_json::json!({ setting.flag(): text });
            let variable = setting.env();
            for layer in [
                env(&[(&variable, text)]),
                flags(&[(&setting.flag(), text)]),
                file(value),
            ] {
                let error = layer.unwrap_err().to_string();
                assert!(error.contains(text) && error.ends_with(instead), "{error}");
            }
        }
    }
    assert_eq!(
        flags(&[("quantization", "bitsandbytes")])
            .unwrap_err()
            .to_string(),
        "command line: --quantization=bitsandbytes is not in this version: set QUANTIZATION to ifq_nf4 (4 bits) or ifq \
         (8 bits)"
    );
}

#[test]
fn a_bad_value_is_named_with_what_was_expected() {
    let said = |layer: Result<Layer, SettingError>| layer.unwrap_err().to_string();
    assert_eq!(
        said(env(&[("MAX_NUM_SEQS", "many")])),
        r#"environment: MAX_NUM_SEQS: expected a whole number, got "many""#
    );
    assert_eq!(
        said(flags(&[("max-num-seqs", "0")])),
        "command line: --max-num-seqs: 0 is not at least 1"
    );
    assert_eq!(
        said(flags(&[("dtype", "int4")])),
        r#"command line: --dtype: expected one of auto, half, float16, bfloat16, float, float32, got "int4""#
    );
    assert_eq!(
        said(file(serde_json::json!({"block-size": 12}))),
        "config.yaml: block-size: expected one of 8, 16, 32, got 12"
    );
    assert_eq!(
        said(file(serde_json::json!({"blocksize": 16}))),
        "config.yaml: there is no setting 'blocksize'; did you mean 'block-size'?"
    );
    assert_eq!(
        said(file(serde_json::json!([1]))),
        "config.yaml: expected a map of settings"
    );
    assert_eq!(
        said(env(&[("SEED", "99999999999999999999999")])),
        "environment: SEED: expected a whole number, got 1e+23"
    );
}
