//! `bake` and what follows: a server with its model in an image, and no hub.

use std::path::Path;
use std::process::{Command, Output};

use e2e::hub::{Hub, HubConfig, RepositoryPolicy};
use serde_json::json;

use crate::binary::{Process, client};
use crate::fixture::tiny_folder;

const REPO: &str = "acme/tiny";
const TOKEN: &str = "hf_0123456789abcdefSECRET";

/// A hub whose one repository needs the token.
async fn hub(root: &Path) -> Hub {
    let repository = root.join(REPO);
    std::fs::create_dir_all(&repository).unwrap();
    for entry in std::fs::read_dir(tiny_folder()).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), repository.join(entry.file_name())).unwrap();
    }
    let hub = Hub::start(root).await.unwrap();
    let policy = RepositoryPolicy {
        token: Some(TOKEN.to_owned()),
        private: true,
        faults: Vec::new(),
    };
    hub.configure(HubConfig {
        repositories: [(REPO.to_owned(), policy)].into(),
    });
    hub
}

async fn baked(flags: Vec<String>, variables: Vec<(String, String)>) -> Output {
    let bake = move || {
        Command::new(env!("CARGO_BIN_EXE_slipway-runtime"))
            .arg("bake")
            .args(flags)
            .env_clear()
            .envs(variables)
            .output()
            .unwrap()
    };
    tokio::task::spawn_blocking(bake).await.unwrap()
}

/// Whether a file below the folder contains the text.
fn contains(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder)
        .unwrap()
        .map(Result::unwrap)
        .any(|entry| {
            let path = entry.path();
            if path.is_dir() {
                return contains(&path, text);
            }
            let bytes = std::fs::read(path).unwrap();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        })
}

#[tokio::test]
async fn a_baked_model_needs_no_hub_and_no_token_afterwards() {
    let (root, base, secret) = (
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let hub = hub(root.path()).await;
    let endpoint = hub.endpoint();
    let token_file = secret.path().join("HF_TOKEN");
    std::fs::write(&token_file, format!("{TOKEN}\n")).unwrap();
    let variables = [
        ("MODEL_NAME", REPO),
        ("MODEL_REVISION", "main"),
        ("BASE_PATH", base.path().to_str().unwrap()),
        ("QUANTIZATION", "ifq"),
        // Build arguments without a value.
        ("TOKENIZER_NAME", ""),
        ("TOKENIZER_REVISION", ""),
        ("HF_ENDPOINT", &endpoint),
    ];
    let owned = variables.map(|(name, value)| (name.to_string(), value.to_string()));
    let flags = |file: &Path| vec!["--token-file".to_string(), file.display().to_string()];

    let refused = baked(flags(&secret.path().join("no-such-secret")), owned.to_vec()).await;
    assert!(!refused.status.success(), "{refused:?}");
    let done = baked(flags(&token_file), owned.to_vec()).await;
    assert!(done.status.success(), "{done:?}");
    assert!(!String::from_utf8_lossy(&done.stderr).contains(TOKEN));
    assert!(contains(base.path(), REPO) && !contains(base.path(), TOKEN));

    hub.clear_requests();
    let offline = [&variables[..], &[("HF_HUB_OFFLINE", "1")]].concat();
    let process = Process::start_without_model(&[], &offline);
    process.logged("ready").await;
    let url = format!("http://{}/v1/completions", process.address);
    let body = json!({"prompt": "a", "max_tokens": 1});
    let answer = client()
        .build()
        .unwrap()
        .post(&url)
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(hub.requests(), []);

    drop(hub);
    let without_hub = Process::start_without_model(&[], &offline);
    without_hub.logged("ready").await;
    let other = [&offline[..], &[("MODEL_REVISION", "v2")]].concat();
    let refused = Process::start_without_model(&[], &other);
    refused
        .logged("contains acme/tiny at main, not all files of acme/tiny at v2")
        .await;
    refused.logged("unset HF_HUB_OFFLINE").await;
}

#[tokio::test]
async fn a_directory_is_not_baked() {
    let model = tiny_folder().display().to_string();
    let done = baked(
        vec!["--model".into(), model],
        vec![("HOME".into(), "unused".into())],
    )
    .await;
    let told = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        !done.status.success() && told.contains("there is nothing to download"),
        "{told}"
    );
}
