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

/// The variables of the replaced servers at their documented defaults, and at what their forms submit.
const DOCUMENTED: &str = include_str!("documented.txt");

fn documented() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = DOCUMENTED.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split_once('=').expect("NAME=value"))
}

#[test]
fn every_documented_default_is_accepted() {
    for (name, value) in documented() {
        let layer = env(&[(name, value)]).unwrap_or_else(|error| panic!("{error}"));
        let is_known = !matches!(variable(name, value), Variable::Unknown);
        assert!(is_known, "{name} is not known");
        let is_listed = layer.accepted.iter().any(|(accepted, _)| accepted == name);
        let has_effect = Settings::merge(&[layer]) != Settings::default();
        assert!(
            is_listed || has_effect || is_absent(value),
            "{name}={value} is ignored in silence"
        );
    }
}

#[test]
fn a_value_that_asks_for_more_is_refused_with_what_to_do() {
    for foreign in FOREIGN
        .iter()
        .filter(|foreign| matches!(foreign.harmless, Harmless::Only(_)))
    {
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
        "config.yaml: there is no setting 'blocksize'"
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
