//! Blocks in each form, and any block at all.

use crds::{
    ModelDeployment, generate, schema,
    settings::{FOREIGN, SETTINGS},
};
use proptest::prelude::*;

use super::*;

const YAML: &str = r#"
    - name: MODEL_NAME
      value: Qwen/Qwen2.5-7B-Instruct
    - {name: MAX_MODEL_LEN, value: 4096}
    - {name: GPU_MEMORY_UTILIZATION, value: "0.95"}
"#;

fn pairs(text: &str) -> Vec<(String, String)> {
    let variables = read(text).unwrap();
    variables
        .into_iter()
        .map(|variable| match variable.given {
            Given::Text(text) => (variable.name, text),
            other => (variable.name, format!("{other:?}")),
        })
        .collect()
}

fn expected() -> Vec<(String, String)> {
    [
        ("MODEL_NAME", "Qwen/Qwen2.5-7B-Instruct"),
        ("MAX_MODEL_LEN", "4096"),
        ("GPU_MEMORY_UTILIZATION", "0.95"),
    ]
    .map(|(name, value)| (name.to_string(), value.to_string()))
    .to_vec()
}

fn imported(text: &str) -> Import {
    import(&read(text).unwrap(), &Options::default()).unwrap()
}

#[test]
fn every_form_of_a_block_is_read() {
    for block in [
        YAML.to_string(),
        format!("env:{YAML}"),
        format!("apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: worker\n    env:{}", YAML.replace("\n", "\n    ")),
        "environment:\n  MODEL_NAME: Qwen/Qwen2.5-7B-Instruct\n  MAX_MODEL_LEN: 4096\n  GPU_MEMORY_UTILIZATION: 0.95\n".into(),
        "environment:\n  - MODEL_NAME=Qwen/Qwen2.5-7B-Instruct\n  - MAX_MODEL_LEN=4096\n  - GPU_MEMORY_UTILIZATION=0.95\n".into(),
        "MODEL_NAME: Qwen/Qwen2.5-7B-Instruct\nMAX_MODEL_LEN: 4096\nGPU_MEMORY_UTILIZATION: 0.95\n".into(),
        r#"{"env": [{"key": "MODEL_NAME", "value": "Qwen/Qwen2.5-7B-Instruct"}, {"key": "MAX_MODEL_LEN", "value": "4096"},
            {"key": "GPU_MEMORY_UTILIZATION", "value": "0.95"}]}"#
            .into(),
        "# a comment\nMODEL_NAME=Qwen/Qwen2.5-7B-Instruct\nexport MAX_MODEL_LEN=4096 # tokens\n\nGPU_MEMORY_UTILIZATION = \"0.95\"\n".into(),
        "docker run --gpus all -e MODEL_NAME=Qwen/Qwen2.5-7B-Instruct \\\n  --env MAX_MODEL_LEN='4096' --env=GPU_MEMORY_UTILIZATION=0.95 \\\n -p 80:80 image\n".into(),
        "-e MODEL_NAME=\"Qwen/Qwen2.5-7B-Instruct\" -eMAX_MODEL_LEN=4096\n-e GPU_MEMORY_UTILIZATION=0.95".into(),
        "sudo docker build -t name/image:tag --build-arg MODEL_NAME=\"Qwen/Qwen2.5-7B-Instruct\" --build-arg MAX_MODEL_LEN=4096 --build-arg GPU_MEMORY_UTILIZATION=0.95 .".into(),
    ] {
        assert_eq!(pairs(&block), expected(), "{block}");
    }
}

#[test]
fn values_keep_their_marks() {
    let block = "A=\"line 1\\nline \\\"2\\\"\"\nB='raw \\n $X'\nC={\"type\": \"dynamic\", \"factor\": 2.0}\nD=\nE=a=b\nF=\"two\nlines\"\n";
    let found: Vec<String> = pairs(block).into_iter().map(|(_, value)| value).collect();
    assert_eq!(
        found,
        [
            "line 1\nline \"2\"",
            "raw \\n $X",
            "{\"type\": \"dynamic\", \"factor\": 2.0}",
            "",
            "a=b",
            "two\nlines"
        ]
    );
}

#[test]
fn what_cannot_be_read_is_an_error_without_its_text() {
    for (block, words) in [
        ("", "no variables"),
        ("# nothing\n", "no variables"),
        ("hello", "no variables"),
        ("A=1\nhf_secret\n", "line 2"),
        ("A=\"1\n", "not closed"),
        ("env: [", "not valid YAML"),
        ("- 3\n", "item 1"),
        ("docker run image", "no variables"),
    ] {
        let error = read(block).unwrap_err().to_string();
        assert!(
            error.contains(words) && !error.contains("hf_secret"),
            "{block}: {error}"
        );
    }
}

#[test]
fn a_block_of_a_runpod_worker() {
    let import = imported(
        "MODEL_NAME=meta-llama/Llama-3.1-8B-Instruct\nHF_TOKEN=hf_do_not_print\nMAX_MODEL_LEN=8192\nDTYPE=bfloat16\n\
         MAX_NUM_SEQS=many\nOPENAI_SERVED_MODEL_NAME_OVERRIDE=llama\nTRUST_REMOTE_CODE=1\nMODEL_LOADER_EXTRA_CONFIG={\"a\":1}\n\
         QUANTIZATION=None\nRUNPOD_API_KEY=rpa_do_not_print\nMY_FLAG=7\nMAX_MODEL_LENGTH=5\nOPENAI_API_KEYS=sk-do-not-print\n\
         MODEL_REVISION=v1\nPORT=80\n",
    );
    let yaml = import.yaml();
    assert!(
        !format!("{yaml}{}", import.report()).contains("do"),
        "a secret is printed: {yaml}"
    );
    insta::assert_snapshot!(format!("{yaml}--- standard error\n{}", import.report()));
}

#[test]
fn a_block_without_a_model_has_the_default_of_the_worker() {
    let import = imported("env:\n- {name: MODEL_NAME, value: /models/mine}\n- {name: SEED, value: 3}\n");
    let report = import.report();
    assert!(
        report.contains("spec.model.pvc") && report.contains("facebook/opt-125m"),
        "{report}"
    );
}

#[test]
fn a_secret_that_exists_is_named() {
    let import = imported(
        "env:\n- {name: MODEL_NAME, value: a/b}\n- name: HF_TOKEN\n  valueFrom: {secretKeyRef: {name: hub, key: token}}\n",
    );
    assert!(import.secret_commands.is_empty());
    let reference = import.deployment.spec.model.token_secret_ref.unwrap();
    assert_eq!(
        (reference.name.as_str(), reference.key.as_deref()),
        ("hub", Some("token"))
    );
}

/// Every documented variable, aliases and unknown names.
fn names() -> Vec<String> {
    let settings = SETTINGS.iter().flat_map(|setting| setting.env_names());
    let foreign = FOREIGN.iter().map(|foreign| foreign.name.to_string());
    let others = ["MY_FLAG", "lower", "WANDB_API_KEY", "1X", "A B", "É", ""].map(str::to_string);
    settings.chain(foreign).chain(others).collect()
}

fn values() -> impl Strategy<Value = String> {
    let examples = SETTINGS
        .iter()
        .flat_map(|setting| setting.row.valid.iter().chain(setting.row.invalid));
    let mut known: Vec<String> = examples.map(|text| text.to_string()).collect();
    known.extend(
        [
            "None",
            "",
            "true",
            "0",
            "{}",
            "a: b",
            "- x",
            "'",
            "# c",
            "\u{1F600}",
            "null",
            "1e5",
            "~",
        ]
        .map(str::to_string),
    );
    prop_oneof![3 => prop::sample::select(known), 1 => ".{0,40}", 1 => "[a-zA-Z0-9/_.-]{1,20}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Each variable of any block has a note; one that is left out has a remedy; the object fits the schema; its YAML is
    /// read as the same object; and a secret's value is in no output.
    #[test]
    fn any_block_is_imported_or_named(
        block in prop::collection::vec((prop::sample::select(names()), values()), 1..24),
        gpus in 0_u32..3,
    ) {
        let variables: Vec<Variable> = block
            .iter()
            .map(|(name, value)| Variable { name: name.clone(), given: Given::Text(value.clone()) })
            .collect();
        let import = import(&variables, &Options { gpus, ..Options::default() }).unwrap();
        prop_assert_eq!(import.notes.len(), variables.len());
        let object = serde_json::to_value(&import.deployment).unwrap();
        for (variable, note) in variables.iter().zip(&import.notes) {
            prop_assert_eq!(&variable.name, &note.name);
            let at = |path: &str| object.pointer(&format!("/{}", path.replace('.', "/"))).cloned();
            match &note.fate {
                Fate::Field(path) | Fate::Secret(path) => prop_assert!(at(path).is_some(), "{} is lost", path),
                Fate::Env(why) => {
                    let env = &import.deployment.spec.env;
                    let Given::Text(text) = &variable.given else { unreachable!() };
                    prop_assert!(env.iter().any(|e| e.name == variable.name && e.value == *text));
                    prop_assert!(!why.is_empty());
                }
                Fate::LeftOut { why, remedy } => prop_assert!(!why.is_empty() && !remedy.is_empty(), "{}", note.name),
                Fate::Absent => {}
            }
        }
        let yaml = import.yaml();
        let back: ModelDeployment = serde_saphyr::from_str(&yaml).unwrap();
        prop_assert_eq!(serde_json::to_value(&back).unwrap(), object.clone());
        let crd = generate::crd();
        let spec = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        prop_assert_eq!(schema::check(spec, &object["spec"]), []);
    }

    /// A secret's value is in no output.
    #[test]
    fn secrets_are_never_printed(name in prop::sample::select(secret_names()), value in "[A-Za-z0-9]{24}") {
        let variables = [Variable { name, given: Given::Text(value.clone()) }];
        let import = import(&variables, &Options::default()).unwrap();
        prop_assert!(!import.yaml().contains(&value) && !import.report().contains(&value));
    }

    /// A text that is no block is an error, never a panic.
    #[test]
    fn any_text_is_read_or_refused(text in "[-=:{}\\[\\]'\"# \\n\\\\a-zA-Z0-9_]{0,200}") {
        if let Ok(variables) = read(&text) {
            import(&variables, &Options::default()).unwrap();
        }
    }
}

fn secret_names() -> Vec<String> {
    let settings = SETTINGS.iter().filter(|setting| setting.row.secret);
    let others = ["RUNPOD_API_KEY", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD"].map(str::to_string);
    settings
        .flat_map(|setting| setting.env_names())
        .chain(others)
        .collect()
}
