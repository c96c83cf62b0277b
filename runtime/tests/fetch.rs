//! The download against a server that speaks the Hub's protocol and fails on demand.
#![allow(clippy::unwrap_used, reason = "the setup of a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crds::failure::{Failure, Reason};
use e2e::hub::{Fault, FaultKind, Hub, HubConfig, RepositoryPolicy, RequestRecord};
use runtime::fetch::{
    FetchArgs, FetchError, FetchOptions, Identity, MANIFEST_FILE, Manifest, Patterns, Progress, RetryPolicy,
    Token, Verify, fetch,
};
use runtime::startup::{Stage, StartupTracker};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

const REPO: &str = "acme/tiny";
const WEIGHTS: &str = "model.safetensors";
/// Several write buffers and a remainder.
const WEIGHTS_BYTES: usize = (2 << 20) + 12_345;

/// A Hub with one repository, and a folder to download into.
struct Scene {
    hub: Hub,
    root: tempfile::TempDir,
    destination: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let (root, destination) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let scene = Self {
            hub: Hub::start(root.path()).await.unwrap(),
            root,
            destination,
        };
        scene.publish(WEIGHTS, &bytes(1, WEIGHTS_BYTES));
        scene.publish("config.json", b"{\"model_type\": \"llama\"}");
        scene.publish("tokenizer.json", &bytes(2, 70_000));
        scene.publish("sub dir/vocab#1.txt", b"a\nb\n");
        scene.publish("README.md", b"# Not needed");
        scene.publish("pytorch_model.bin", b"a second copy of the weights");
        scene
    }

    fn publish(&self, path: &str, content: &[u8]) {
        let at = self.root.path().join(REPO).join(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, content).unwrap();
    }

    fn options(&self) -> FetchOptions {
        FetchOptions {
            endpoint: Some(self.hub.endpoint()),
            stall_timeout: Duration::from_secs(20),
            retry: RetryPolicy {
                n_attempts_max: 3,
                backoff_initial: Duration::from_millis(1),
                backoff_max: Duration::from_millis(2),
                retry_after_max: Duration::from_millis(2),
            },
            ..FetchOptions::new(REPO, self.destination.path())
        }
    }

    async fn fetch(&self) -> Result<Manifest, FetchError> {
        quietly(self.options()).await
    }

    fn fault(&self, path: &str, times: u32, kind: FaultKind) {
        self.hub.inject(REPO, Fault::of_file(path, times, kind));
    }

    fn protect(&self, token: &str, private: bool) {
        let policy = RepositoryPolicy {
            token: Some(token.to_owned()),
            private,
            faults: Vec::new(),
        };
        self.hub.configure(HubConfig {
            repositories: [(REPO.to_owned(), policy)].into(),
        });
    }

    fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.destination.path().join(path)).unwrap()
    }

    /// Requests for the bytes of the weights, after the redirect.
    fn weights_requests(&self) -> Vec<RequestRecord> {
        let cdn = self.hub.cdn_host();
        let of_weights = |request: &RequestRecord| request.host == cdn && request.path.ends_with(WEIGHTS);
        self.hub.requests().into_iter().filter(of_weights).collect()
    }

    fn assert_complete(&self, manifest: &Manifest) {
        let names: BTreeSet<String> = files_below(self.destination.path());
        let expected = [
            ".fetch.lock",
            "config.json",
            MANIFEST_FILE,
            WEIGHTS,
            "sub dir/vocab#1.txt",
            "tokenizer.json",
        ];
        assert_eq!(names, expected.map(str::to_owned).into());
        for file in &manifest.files {
            let published = fs::read(self.root.path().join(REPO).join(&file.path)).unwrap();
            assert!(self.read(&file.path) == published, "{} differs", file.path);
        }
        let recorded: Manifest = serde_json::from_slice(&self.read(MANIFEST_FILE)).unwrap();
        assert_eq!(recorded, *manifest);
    }
}

async fn quietly(options: FetchOptions) -> Result<Manifest, FetchError> {
    fetch(options, StartupTracker::new(), |_progress| {}).await
}

/// Pseudo-random bytes, so that no two buffers are equal.
fn bytes(seed: u32, n_bytes: usize) -> Vec<u8> {
    let mut state = seed;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(n_bytes).collect()
}

fn files_below(folder: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            names.extend(
                files_below(&entry.path())
                    .into_iter()
                    .map(|below| format!("{name}/{below}")),
            );
        } else {
            names.insert(name);
        }
    }
    names
}

fn reason(error: &FetchError) -> Reason {
    error.failure().reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_is_downloaded_and_recorded() {
    let scene = Scene::new().await;
    let manifest = scene.fetch().await.unwrap();
    scene.assert_complete(&manifest);
    assert_eq!(
        (manifest.repo.as_str(), manifest.revision.as_str()),
        (REPO, "main")
    );
    assert_eq!(manifest.commit.len(), 40);
    assert_eq!(manifest.bytes, WEIGHTS_BYTES as u64 + 70_000 + 23 + 4);
    let weights = manifest.files.iter().find(|file| file.path == WEIGHTS).unwrap();
    assert!(matches!(weights.identity, Identity::Sha256(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_files_are_downloaded_at_the_listed_commit() {
    let scene = Scene::new().await;
    let manifest = scene.fetch().await.unwrap();
    let requests = scene.hub.requests();
    assert_eq!(requests[0].path, format!("/api/models/{REPO}/revision/main"));
    assert!(
        requests[1..]
            .iter()
            .all(|request| request.path.contains(&manifest.commit)),
        "{requests:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_resumes_at_its_last_byte() {
    let scene = Scene::new().await;
    scene.fault(WEIGHTS, 2, FaultKind::Cut { after_bytes: 700_000 });
    let manifest = scene.fetch().await.unwrap();
    scene.assert_complete(&manifest);
    let requests = scene.weights_requests();
    let ranges: Vec<_> = requests.iter().map(|request| request.range.as_deref()).collect();
    assert_eq!(ranges, [None, Some("bytes=700000-"), Some("bytes=1400000-")]);
    assert!(
        requests[1]
            .if_range
            .as_deref()
            .is_some_and(|etag| etag.starts_with("\"cdn-"))
    );
    assert_eq!(requests[1].status, 206);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_download_resumes_in_the_next_run() {
    let scene = Scene::new().await;
    scene.fault(WEIGHTS, 1, FaultKind::Stall { after_bytes: 1 << 20 });
    let tracker = StartupTracker::new();
    let first = fetch(scene.options(), tracker.clone(), |_progress| {});
    let killed = async {
        while tracker.status().bytes_done < 1 << 20 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = first => panic!("the download must not end: {ended:?}"),
        () = killed => {}
    }
    assert!(files_below(scene.destination.path()).contains("model.safetensors.partial"));
    assert!(!files_below(scene.destination.path()).contains(WEIGHTS));
    let tracker = StartupTracker::new();
    let manifest = fetch(scene.options(), tracker.clone(), |_progress| {})
        .await
        .unwrap();
    scene.assert_complete(&manifest);
    assert_eq!(
        scene.weights_requests()[1].range.as_deref(),
        Some("bytes=1048576-")
    );
    assert_eq!(tracker.status().bytes_done, manifest.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_ranges_sends_the_file_again() {
    let scene = Scene::new().await;
    scene.fault(WEIGHTS, 1, FaultKind::Cut { after_bytes: 700_000 });
    scene.fault(WEIGHTS, 1, FaultKind::NoRange);
    let tracker = StartupTracker::new();
    let manifest = fetch(scene.options(), tracker.clone(), |_progress| {})
        .await
        .unwrap();
    scene.assert_complete(&manifest);
    assert_eq!(scene.weights_requests().last().unwrap().status, 200);
    assert_eq!(tracker.status().bytes_done, manifest.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_without_progress_are_bounded() {
    let scene = Scene::new().await;
    scene.fault(WEIGHTS, u32::MAX, FaultKind::Cut { after_bytes: 0 });
    let error = scene.fetch().await.unwrap_err();
    assert!(
        matches!(error, FetchError::GaveUp { n_attempts: 3, .. }),
        "{error:?}"
    );
    assert_eq!(reason(&error), Reason::DownloadFailed);
    assert_eq!(scene.weights_requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_resets_the_count_of_attempts() {
    let scene = Scene::new().await;
    scene.fault(WEIGHTS, u32::MAX, FaultKind::Cut { after_bytes: 300_000 });
    let manifest = scene.fetch().await.unwrap();
    scene.assert_complete(&manifest);
    assert_eq!(scene.weights_requests().len(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_part_of_another_version_is_not_continued() {
    let scene = Scene::new().await;
    scene.fault(WEIGHTS, 1, FaultKind::Cut { after_bytes: 700_000 });
    scene.fault(WEIGHTS, u32::MAX, FaultKind::Cut { after_bytes: 0 });
    scene.fetch().await.unwrap_err();
    assert_eq!(scene.read("model.safetensors.partial").len(), 700_000);
    scene.publish(WEIGHTS, &bytes(3, WEIGHTS_BYTES + 1));
    scene.hub.configure(HubConfig::default());
    scene.hub.clear_requests();
    let manifest = scene.fetch().await.unwrap();
    scene.assert_complete(&manifest);
    assert_eq!(
        scene
            .weights_requests()
            .iter()
            .map(|request| &request.range)
            .collect::<Vec<_>>(),
        [&None]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gated_repository_requires_its_token() {
    let scene = Scene::new().await;
    scene.protect("hf_right", false);
    let with = |token: &str| FetchOptions {
        token: Token::parse(token, "test").unwrap(),
        ..scene.options()
    };

    let missing = quietly(with("")).await.unwrap_err();
    assert_eq!(reason(&missing), Reason::DownloadUnauthorized);
    assert!(
        missing.failure().remedy.contains("Set spec.model.tokenSecretRef"),
        "{:?}",
        missing.failure()
    );

    let wrong = quietly(with("hf_wrong")).await.unwrap_err();
    assert_eq!(reason(&wrong), Reason::DownloadUnauthorized);
    let page = format!("Request access on {}/{REPO}", scene.hub.endpoint());
    assert!(wrong.failure().remedy.contains(&page), "{:?}", wrong.failure());
    assert!(!format!("{wrong:?} {:?}", wrong.failure()).contains("hf_wrong"));

    scene.assert_complete(&quietly(with("hf_right")).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_repository_does_not_exist_for_strangers() {
    let scene = Scene::new().await;
    scene.protect("hf_right", true);
    let stranger = scene.fetch().await.unwrap_err();
    assert_eq!(reason(&stranger), Reason::DownloadNotFound);
    assert!(stranger.failure().remedy.contains("tokenSecretRef"));
    let owner = FetchOptions {
        token: Token::parse("hf_right", "test").unwrap(),
        ..scene.options()
    };
    scene.assert_complete(&quietly(owner).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_goes_to_the_endpoint_and_nowhere_else() {
    let scene = Scene::new().await;
    let options = FetchOptions {
        token: Token::parse("hf_secret", "test").unwrap(),
        ..scene.options()
    };
    quietly(options).await.unwrap();
    let cdn = scene.hub.cdn_host();
    let (to_cdn, to_hub): (Vec<_>, Vec<_>) = scene
        .hub
        .requests()
        .into_iter()
        .partition(|request| request.host == cdn);
    assert!(
        to_hub.iter().all(|request| request.authorized) && to_hub.len() == 5,
        "{to_hub:#?}"
    );
    assert!(
        to_cdn.iter().all(|request| !request.authorized) && to_cdn.len() == 1,
        "{to_cdn:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_what_does_not_exist_without_retries() {
    let scene = Scene::new().await;
    let unknown = quietly(FetchOptions {
        repo: "acme/unknown".into(),
        ..scene.options()
    })
    .await
    .unwrap_err();
    assert!(matches!(&unknown, FetchError::RepoNotFound { repo, .. } if repo == "acme/unknown"));
    let token = Token::parse("any", "test").unwrap();
    let unknown = quietly(FetchOptions {
        repo: "acme/unknown".into(),
        token,
        ..scene.options()
    })
    .await
    .unwrap_err();
    assert!(matches!(&unknown, FetchError::RepoNotFound { .. }));
    let revision = quietly(FetchOptions {
        revision: "v9/x".into(),
        ..scene.options()
    })
    .await
    .unwrap_err();
    assert!(matches!(&revision, FetchError::RevisionNotFound { revision, .. } if revision == "v9/x"));
    scene.fault(
        "config.json",
        1,
        FaultKind::Status {
            code: 404,
            retry_after_seconds: None,
        },
    );
    let file = scene.fetch().await.unwrap_err();
    assert!(matches!(&file, FetchError::FileNotFound { what, .. } if what == "config.json"));
    for error in [unknown, revision, file] {
        assert_eq!(reason(&error), Reason::DownloadNotFound);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_attempt_is_retried() {
    let scene = Scene::new().await;
    let options = || FetchOptions {
        stall_timeout: Duration::from_secs(1),
        ..scene.options()
    };
    scene.fault(WEIGHTS, 1, FaultKind::Stall { after_bytes: 500_000 });
    scene.assert_complete(&quietly(options()).await.unwrap());
    assert_eq!(
        scene.weights_requests()[1].range.as_deref(),
        Some("bytes=500000-")
    );

    fs::remove_file(scene.destination.path().join(WEIGHTS)).unwrap();
    scene.fault(WEIGHTS, u32::MAX, FaultKind::Stall { after_bytes: 0 });
    let tracker = StartupTracker::new();
    let error = fetch(options(), tracker.clone(), |_progress| {})
        .await
        .unwrap_err();
    assert_eq!(reason(&error), Reason::DownloadStalled);
    assert_eq!(tracker.status().problem.unwrap().reason, Reason::DownloadStalled);
    assert!(
        error
            .failure()
            .message
            .contains("no byte of model.safetensors arrived for 1 s")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_discarded_and_requested_again() {
    let scene = Scene::new().await;
    scene.fault(WEIGHTS, 1, FaultKind::Corrupt);
    let tracker = StartupTracker::new();
    let manifest = fetch(scene.options(), tracker.clone(), |_progress| {})
        .await
        .unwrap();
    scene.assert_complete(&manifest);
    assert_eq!(tracker.status().bytes_done, manifest.bytes);
    assert_eq!(
        scene
            .weights_requests()
            .iter()
            .map(|request| &request.range)
            .collect::<Vec<_>>(),
        [&None, &None]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_wrong_twice_are_a_checksum_mismatch() {
    for path in [WEIGHTS, "tokenizer.json"] {
        let scene = Scene::new().await;
        scene.fault(path, u32::MAX, FaultKind::Corrupt);
        let error = scene.fetch().await.unwrap_err();
        assert!(
            matches!(&error, FetchError::ChecksumMismatch { file, .. } if file == path),
            "{error:?}"
        );
        assert_eq!(reason(&error), Reason::ChecksumMismatch);
        let left = files_below(scene.destination.path());
        assert!(
            !left
                .iter()
                .any(|name| name.starts_with(path) || name == MANIFEST_FILE),
            "{left:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_hub_is_retried_after_at_most_the_longest_wait() {
    let scene = Scene::new().await;
    let busy = |code, retry_after_seconds| FaultKind::Status {
        code,
        retry_after_seconds,
    };
    // Without the bound this test would take a day.
    scene.hub.inject(
        REPO,
        Fault {
            path: None,
            times: Some(2),
            kind: busy(429, Some(86_400)),
        },
    );
    scene.fault("config.json", 2, busy(503, None));
    scene.assert_complete(&scene.fetch().await.unwrap());
    let listings = scene
        .hub
        .requests()
        .iter()
        .filter(|request| request.path.starts_with("/api/"))
        .count();
    assert_eq!(listings, 3);

    scene.hub.inject("acme/busy", Fault::always(busy(503, None)));
    fs::create_dir(scene.root.path().join("acme/busy")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = FetchOptions {
        repo: "acme/busy".into(),
        destination: folder.path().to_owned(),
        ..scene.options()
    };
    assert_eq!(
        reason(&quietly(options).await.unwrap_err()),
        Reason::DownloadFailed
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_on_one_volume_download_once() {
    let scene = Scene::new().await;
    scene.fault(WEIGHTS, 1, FaultKind::Cut { after_bytes: 700_000 });
    let (first, second) = tokio::join!(scene.fetch(), scene.fetch());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(first, second);
    scene.assert_complete(&first);
    assert_eq!(scene.weights_requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_complete_folder_costs_one_request_and_a_pinned_one_none() {
    let scene = Scene::new().await;
    let manifest = scene.fetch().await.unwrap();
    scene.hub.clear_requests();
    assert_eq!(scene.fetch().await.unwrap(), manifest);
    assert_eq!(scene.hub.requests().len(), 1);
    scene.hub.clear_requests();
    let pinned = FetchOptions {
        revision: manifest.commit.clone(),
        ..scene.options()
    };
    assert_eq!(quietly(pinned).await.unwrap(), manifest);
    assert_eq!(scene.hub.requests(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_missing_file_is_downloaded() {
    let scene = Scene::new().await;
    scene.fetch().await.unwrap();
    fs::write(scene.destination.path().join("tokenizer.json"), "cut").unwrap();
    scene.hub.clear_requests();
    scene.assert_complete(&scene.fetch().await.unwrap());
    assert_eq!(scene.hub.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_a_manifest_are_verified() {
    let scene = Scene::new().await;
    scene.fetch().await.unwrap();
    fs::remove_file(scene.destination.path().join(MANIFEST_FILE)).unwrap();
    fs::write(scene.destination.path().join("tokenizer.json"), bytes(9, 70_000)).unwrap();
    scene.hub.clear_requests();
    let tracker = StartupTracker::new();
    let manifest = fetch(scene.options(), tracker.clone(), |_progress| {})
        .await
        .unwrap();
    scene.assert_complete(&manifest);
    let paths: Vec<_> = scene
        .hub
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    assert_eq!(paths.len(), 2, "{paths:?}");
    assert!(paths[1].ends_with("tokenizer.json"));
    assert_eq!(tracker.status().bytes_done, manifest.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_commit_replaces_files_only_after_all_are_verified() {
    let scene = Scene::new().await;
    let before = scene.fetch().await.unwrap();
    scene.publish("config.json", b"{\"model_type\": \"mistral\"}");
    scene.publish("sharded.safetensors", &bytes(5, 1000));
    fs::remove_file(scene.root.path().join(REPO).join("sub dir/vocab#1.txt")).unwrap();
    scene.hub.clear_requests();

    scene.fault("sharded.safetensors", 3, FaultKind::Cut { after_bytes: 0 });
    scene.fetch().await.unwrap_err();
    assert_eq!(scene.read("config.json"), b"{\"model_type\": \"llama\"}");
    let pinned = FetchOptions {
        revision: before.commit.clone(),
        ..scene.options()
    };
    assert_eq!(quietly(pinned).await.unwrap(), before);

    let after = scene.fetch().await.unwrap();
    assert_ne!(after.commit, before.commit);
    assert_eq!(scene.read("config.json"), b"{\"model_type\": \"mistral\"}");
    assert_eq!(scene.read("sharded.safetensors").len(), 1000);
    let left = files_below(scene.destination.path());
    assert!(
        !left
            .iter()
            .any(|name| name.contains("vocab") || name.contains("partial")),
        "{left:?}"
    );
    assert_eq!(scene.weights_requests(), []);
}

/// Others may write to a shared volume: neither their files nor their manifest count.
#[tokio::test(flavor = "multi_thread")]
async fn contents_are_verified_where_others_may_write() {
    let scene = Scene::new().await;
    let manifest = scene.fetch().await.unwrap();
    let verifying = FetchOptions {
        verify: Verify::Contents,
        revision: manifest.commit.clone(),
        ..scene.options()
    };
    let weights = scene.destination.path().join(WEIGHTS);
    fs::write(&weights, bytes(7, WEIGHTS_BYTES)).unwrap();
    let of_main = scene.fetch().await.unwrap();
    assert_eq!(of_main, manifest, "sizes alone show no difference");
    assert_ne!(scene.read(WEIGHTS), bytes(1, WEIGHTS_BYTES));
    let mended = quietly(verifying.clone()).await.unwrap();
    scene.assert_complete(&mended);

    let Scene { hub, destination, .. } = scene;
    drop(hub);
    quietly(verifying.clone()).await.unwrap();
    fs::write(
        destination.path().join("config.json"),
        b"{\"model_type\": \"llamb\"}",
    )
    .unwrap();
    let refused = quietly(verifying).await.unwrap_err();
    assert_eq!(reason(&refused), Reason::ChecksumMismatch);
    assert!(refused.to_string().contains("config.json"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_in_the_folder_lead_nowhere() {
    for (name, is_harmful) in [
        ("config.json.partial", true),
        ("tokenizer.json.partial.note", true),
        (".fetch.lock", true),
        ("sub dir", true),
        (".manifest.json.new", false),
        ("config.json", false),
    ] {
        let (scene, outside) = (Scene::new().await, tempfile::tempdir().unwrap());
        let target = outside.path().join("target");
        match name {
            "sub dir" => fs::create_dir(&target).unwrap(),
            _file => fs::write(&target, "precious").unwrap(),
        }
        std::os::unix::fs::symlink(&target, scene.destination.path().join(name)).unwrap();
        let fetched = scene.fetch().await;
        assert_eq!(fetched.is_err(), is_harmful, "{name}: {fetched:?}");
        match name {
            "sub dir" => assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "{name}"),
            _file => assert_eq!(fs::read_to_string(&target).unwrap(), "precious", "{name}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_the_hub_uses_the_downloaded_model() {
    let scene = Scene::new().await;
    let manifest = scene.fetch().await.unwrap();
    let (options, elsewhere) = (scene.options(), tempfile::tempdir().unwrap());
    let Scene { hub, destination, .. } = scene;
    drop(hub);
    assert_eq!(quietly(options.clone()).await.unwrap(), manifest);

    let fresh = FetchOptions {
        destination: elsewhere.path().to_owned(),
        ..options.clone()
    };
    assert_eq!(reason(&quietly(fresh).await.unwrap_err()), Reason::DownloadFailed);
    fs::remove_file(destination.path().join(WEIGHTS)).unwrap();
    assert_eq!(
        reason(&quietly(options).await.unwrap_err()),
        Reason::DownloadFailed
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_select_the_files_and_a_change_of_patterns_takes_effect() {
    let scene = Scene::new().await;
    let with = |allow: &[&str], ignore: &[&str]| {
        let owned = |list: &[&str]| list.iter().map(|pattern| (*pattern).to_owned()).collect();
        let patterns = Patterns {
            allow: owned(allow),
            ignore: owned(ignore),
        };
        FetchOptions {
            patterns,
            ..scene.options()
        }
    };
    let names = |manifest: Manifest| {
        manifest
            .files
            .into_iter()
            .map(|file| file.path)
            .collect::<Vec<_>>()
    };
    let taken = quietly(with(&["*.json", "**.md"], &["tok*"])).await.unwrap();
    assert_eq!(names(taken), ["README.md", "config.json"]);
    let taken = quietly(with(&["*.json"], &[])).await.unwrap();
    assert_eq!(names(taken), ["config.json", "tokenizer.json"]);
    assert!(!files_below(scene.destination.path()).contains("README.md"));
    let nothing = quietly(with(&["*.gguf"], &[])).await.unwrap_err();
    assert_eq!(reason(&nothing), Reason::InvalidSetting);
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_free_space_is_an_error_before_the_first_byte() {
    let scene = Scene::new().await;
    let options = FetchOptions {
        free_bytes: |_folder| Ok(1_000_000),
        ..scene.options()
    };
    let error = quietly(options).await.unwrap_err();
    let expected = WEIGHTS_BYTES as u64 + 70_000 + 23 + 4;
    assert!(
        matches!(error, FetchError::DiskFull { needed_bytes, free_bytes: 1_000_000, .. } if needed_bytes == expected)
    );
    assert_eq!(reason(&error), Reason::DiskFull);
    assert_eq!(scene.hub.requests().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_counts_all_bytes() {
    let scene = Scene::new().await;
    let lines = Mutex::new(Vec::new());
    let tracker = StartupTracker::new();
    let report = |progress: &Progress| lines.lock().unwrap().push(progress.clone());
    let manifest = fetch(scene.options(), tracker.clone(), report).await.unwrap();
    let lines = lines.into_inner().unwrap();
    let last = lines.last().unwrap();
    assert_eq!(
        (last.bytes_done, last.bytes_total, last.percent),
        (manifest.bytes, manifest.bytes, 100)
    );
    assert_eq!(last.eta_seconds, Some(0));
    let status = tracker.status();
    assert_eq!((status.stage, status.problem), (Stage::Downloading, None));
    assert_eq!(status.model.unwrap().revision, Some(manifest.commit));
    let json = serde_json::to_value(last).unwrap();
    assert!(json["bytesDone"].is_u64() && json["ratePerSecond"].is_u64() && json["stage"] == "download");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_downloads_model_and_tokenizer() {
    let scene = Scene::new().await;
    let args = FetchArgs {
        repo: REPO.to_owned(),
        revision: "main".to_owned(),
        commit: None,
        destination: scene.destination.path().to_owned(),
        token_file: None,
        endpoint: Some(format!("{}/", scene.hub.endpoint())),
        allow_patterns: vec!["*.safetensors".to_owned()],
        ignore_patterns: Vec::new(),
        parallel: 2.try_into().unwrap(),
        stall_timeout_seconds: 20,
        tokenizer_repo: Some("acme/words".to_owned()),
        tokenizer_revision: String::new(),
        verify_contents: false,
        progress_listen: Some("127.0.0.1:0".parse().unwrap()),
    };
    let words = scene.root.path().join("acme/words");
    fs::create_dir_all(&words).unwrap();
    fs::write(words.join("tokenizer.json"), "{}").unwrap();
    let unchecked = |_: &Path| panic!("the patterns select no config.json");
    runtime::fetch::run(args, None, unchecked).await.unwrap();
    let left = files_below(scene.destination.path());
    assert!(
        left.contains(WEIGHTS) && left.contains("tokenizer/tokenizer.json"),
        "{left:?}"
    );
    assert!(!left.contains("config.json"));
}

/// The config.json of a model that can be served.
fn config_that_is_served() -> Vec<u8> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../examples/models/tiny-trained/config.json"
    );
    fs::read(path).unwrap()
}

/// What `slipway-runtime fetch` prints when it gives up, after it left no weights on the disk.
async fn refusal(scene: &Scene) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_slipway-runtime"));
    let endpoint = scene.hub.endpoint();
    command
        .args(["fetch", "--repo", REPO, "--endpoint", &endpoint, "--destination"])
        .arg(scene.destination.path());
    let ended = tokio::task::spawn_blocking(move || command.output());
    let ended = ended.await.unwrap().unwrap();
    let reason = Reason::UnsupportedArchitecture;
    assert_eq!(ended.status.code(), Some(reason.exit_code().into()), "{ended:?}");
    assert!(scene.weights_requests().is_empty());
    let names = files_below(scene.destination.path());
    assert!(names.iter().all(|name| !name.starts_with(WEIGHTS)), "{names:?}");
    assert!(
        names.iter().all(|name| !name.starts_with(".configuration")),
        "{names:?}"
    );
    String::from_utf8(ended.stderr).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_cannot_be_served_is_refused_before_its_weights_are_downloaded() {
    let scene = Scene::new().await;
    let tiny: serde_json::Value = serde_json::from_slice(&config_that_is_served()).unwrap();
    let refused_with = async |field: &str, value: serde_json::Value| {
        let mut config = tiny.clone();
        config[field] = value;
        scene.publish("config.json", config.to_string().as_bytes());
        refusal(&scene).await
    };
    let hybrid = refused_with("architectures", serde_json::json!(["Zamba2ForCausalLM"])).await;
    assert!(
        hybrid
            .contains("UnsupportedArchitecture: the model cannot be loaded: architecture Zamba2ForCausalLM"),
        "{hybrid}"
    );
    let quantized = refused_with("quantization_config", serde_json::json!({"quant_method": "hqq"})).await;
    assert!(quantized.contains("quantization_config = hqq"), "{quantized}");
    // The description of a quantization in a file of its own, unlike config.json, is checked too.
    scene.publish("config.json", tiny.to_string().as_bytes());
    scene.publish(
        "hf_quant_config.json",
        br#"{"quantization": {"quant_algo": "W4A8_AWQ"}}"#,
    );
    let quantized = refusal(&scene).await;
    assert!(quantized.contains("W4A8_AWQ"), "{quantized}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_update_leaves_the_old_model_in_place() {
    let scene = Scene::new().await;
    let old = scene.fetch().await.unwrap();
    scene.publish("config.json", b"{\"model_type\": \"new\"}");
    let refusing = FetchOptions {
        check: Some(|folder| {
            let config = fs::read_to_string(folder.join("config.json")).unwrap();
            assert!(!folder.join(WEIGHTS).exists());
            Err(Failure::new(
                Reason::UnsupportedArchitecture,
                config,
                "Choose another.",
            ))
        }),
        ..scene.options()
    };
    let refused = quietly(refusing).await.unwrap_err().failure();
    assert_eq!(refused.message, "{\"model_type\": \"new\"}");
    assert_eq!(scene.read("config.json"), b"{\"model_type\": \"llama\"}");
    let kept: Manifest = serde_json::from_slice(&scene.read(MANIFEST_FILE)).unwrap();
    assert_eq!(kept, old);
}

/// Forwards TLS connections to `hub`, with the certificate of an authority that nobody knows; returns its endpoint.
async fn behind_tls(hub: &Hub) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http/tls");
    let certificates = CertificateDer::pem_file_iter(format!("{folder}/server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(format!("{folder}/server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(certificates.map(Result::unwrap).collect(), key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let address = hub.endpoint().replace("http://", "");
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let (acceptor, address) = (acceptor.clone(), address.clone());
            tokio::spawn(async move {
                let mut inside = acceptor.accept(connection).await?;
                let mut hub = tokio::net::TcpStream::connect(address).await?;
                tokio::io::copy_bidirectional(&mut inside, &mut hub).await
            });
        }
    });
    endpoint
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_of_another_authority_is_trusted_once_its_certificate_is_given() {
    let scene = Scene::new().await;
    let endpoint = behind_tls(&scene.hub).await;
    let stranger = FetchOptions {
        endpoint: Some(endpoint.clone()),
        ..scene.options()
    };
    let failure = quietly(stranger).await.unwrap_err().failure();
    assert!(failure.remedy.contains("spec.caBundle"), "{failure:?}");

    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http/tls/ca.pem");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_slipway-runtime"));
    command
        .args(["fetch", "--repo", REPO, "--endpoint", &endpoint, "--destination"])
        .arg(scene.destination.path())
        .env("SSL_CERT_FILE", authority);
    let fetched = tokio::task::spawn_blocking(move || command.output());
    let fetched = fetched.await.unwrap().unwrap();
    assert!(fetched.status.success(), "{fetched:?}");
    assert_eq!(scene.read(WEIGHTS), bytes(1, WEIGHTS_BYTES));
}
