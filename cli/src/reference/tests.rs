//! What is found by a name, and what is printed of it.

use super::*;

#[test]
fn a_setting_is_found_by_each_of_its_names() {
    for name in [
        "maxModelLen",
        "max_model_len",
        "MAX_MODEL_LEN",
        "max-model-len",
        "--max-model-len",
        "spec.engine.maxModelLen",
        "engine.maxModelLen",
    ] {
        let Found::Setting(setting) = find(name) else {
            panic!("{name} is not found");
        };
        assert_eq!(setting.field, "max_model_len");
    }
    for setting in SETTINGS {
        for name in setting.env_names() {
            assert!(
                matches!(find(&name), Found::Setting(found) if found.field == setting.field),
                "{name}"
            );
        }
    }
}

#[test]
fn an_unknown_name_has_near_ones_in_its_own_style() {
    let near = |name: &str| match find(name) {
        Found::Nothing { nearest } => nearest.into_iter().next().unwrap_or_default(),
        found => panic!("{name} is {found:?}"),
    };
    assert_eq!(near("MAX_MODEL_LENGTH"), "MAX_MODEL_LEN");
    assert_eq!(near("maxModelLength"), "maxModelLen");
    assert_eq!(near("--max-model-length"), "--max-model-len");
    assert_eq!(near("TENSOR_PARALEL_SIZE"), "TENSOR_PARALLEL_SIZE");
    assert_eq!(near("qqqqqqqqqqqq"), "");
}

#[test]
fn everything_of_the_table_can_be_explained() {
    let overview = overview();
    for setting in SETTINGS {
        let text = explain(setting.field).unwrap();
        assert!(
            text.contains(&setting.env()) && text.contains("default"),
            "{text}"
        );
        assert!(overview.contains(&setting.camel()), "{}", setting.field);
    }
    for foreign in FOREIGN {
        assert!(
            explain(foreign.name).unwrap().contains("disposition"),
            "{}",
            foreign.name
        );
    }
}

#[test]
fn a_setting_a_secret_a_variable_and_a_field() {
    let texts: Vec<String> = [
        "maxNumSeqs",
        "HF_TOKEN",
        "PORT",
        "TRUST_REMOTE_CODE",
        "cache.size",
    ]
    .into_iter()
    .map(|name| explain(name).unwrap())
    .collect();
    insta::assert_snapshot!(texts.join("\n"));
}
