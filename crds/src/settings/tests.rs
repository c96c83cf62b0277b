//! The table's names, and what layers of it become.

use super::*;

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

#[test]
fn every_row_takes_a_value_from_the_environment_and_gives_it_back() {
    for setting in SETTINGS {
        let schema = setting.schema();
        let text = match (schema["type"].as_str(), schema["enum"].as_array()) {
            (_, Some(choices)) => choices[0].to_string().replace('"', ""),
            (Some("integer" | "number"), _) => schema["minimum"].as_f64().unwrap().to_string(),
            (Some("array"), _) => "a,b".to_string(),
            (Some("boolean"), _) => "true".to_string(),
            _ => "text".to_string(),
        };
        let layer = env(&[(&setting.env(), &text)]).unwrap();
        let settings = Settings::merge(&[layer]);
        let config = settings.to_config_file();
        assert_eq!(
            config.contains_key(&setting.flag()),
            !setting.row.secret,
            "{}",
            setting.field
        );
        if !setting.row.secret {
            assert_eq!(Settings::merge(&[file(config.into()).unwrap()]), settings);
        }
    }
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
fn a_key_is_asked_for_under_each_of_its_names() {
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
fn variables_that_are_not_honoured_are_never_silent() {
    let layer = env(&[("TRUST_REMOTE_CODE", "1"), ("HOME", "/"), ("SEED", "")]).unwrap();
    assert_eq!(layer.accepted[0].0, "TRUST_REMOTE_CODE");
    assert_eq!(Settings::merge(&[layer]), Settings::default());
    let error = env(&[("QUANTIZATION", "awq")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment: QUANTIZATION is not in this version; remove it"
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
