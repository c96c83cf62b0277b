//! The binary itself: what it logs, and TLS.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use runtime::config::TlsFiles;
use runtime::http::connection::{self, ConnectionLimits, Listener};
use runtime::http::tls::configuration;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::fixture::{PATIENCE, tiny, tiny_folder, until};

/// A process of the binary; it ends with the test.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) address: String,
    log: Arc<Mutex<String>>,
}

impl Process {
    /// At an address of this machine that nobody else has.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_with(flags, &[])
    }

    pub(crate) fn start_with(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tiny_folder();
        let model = ["--model", folder.to_str().unwrap()];
        Self::start_without_model(&[&model[..], flags].concat(), variables)
    }

    pub(crate) fn start_without_model(flags: &[&str], variables: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let host = format!("127.{high}.{low}.{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut child = Command::new(env!("CARGO_BIN_EXE_slipway-runtime"))
            .args(["serve", "--host", &host, "--served-model-name", "tiny"])
            .args(["--num-gpu-blocks-override", "256"])
            .args(flags)
            .env_clear()
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (lines, kept) = (
            BufReader::new(child.stderr.take().unwrap()).lines(),
            Arc::clone(&log),
        );
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self {
            child,
            address: format!("{host}:8000"),
            log,
        }
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) async fn logged(&self, text: &str) {
        until(text, || self.log().contains(text)).await;
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

pub(crate) fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().timeout(PATIENCE)
}

async fn post(client: &reqwest::Client, url: &str, body: Value) -> u16 {
    client
        .post(url)
        .json(&body)
        .send()
        .await
        .unwrap()
        .status()
        .as_u16()
}

/// The variables of the servers that Slipway replaces, with their documented values.
const DOCUMENTED: &str = include_str!("../../../crds/src/settings/documented.tsv");

/// The first documented value of each variable of a server.
fn documented(server: &str) -> Vec<(&'static str, &'static str)> {
    let rows = DOCUMENTED
        .lines()
        .filter_map(|row| row.strip_prefix(server)?.strip_prefix('\t'));
    let columns = rows.map(|row| row.split('\t').collect::<Vec<_>>());
    let variables = columns.map(|columns| (columns[0], columns[1].split('|').next().unwrap_or_default()));
    variables.filter(|(_, value)| !value.is_empty()).collect()
}

#[tokio::test]
async fn a_pasted_block_of_documented_defaults_starts_a_server() {
    for (server, without_effect) in [
        ("worker", "TENSOR_PARALLEL_SIZE"),
        ("ti-one-vllm", "TP"),
        ("ti-one-deepspeed", "TP"),
    ] {
        let process = Process::start_with(&[], &documented(server));
        process.logged("ready").await;
        let url = format!("http://{}/v1/completions", process.address);
        let body = json!({"prompt": "a", "max_tokens": 1});
        assert_eq!(
            post(&client().build().unwrap(), &url, body).await,
            200,
            "{server}"
        );
        process.logged(&format!("{without_effect} has no effect")).await;
    }
}

#[tokio::test]
async fn lost_blocks_are_in_the_log() {
    let flags = [
        "--num-gpu-blocks-override=8",
        "--max-model-len=128",
        "--preemption-check-period=0.1",
    ];
    let process = Process::start(&flags);
    process.logged("ready").await;
    let url = format!("http://{}/v1/completions", process.address);
    let prompts = [vec![5; 30], vec![6; 30], vec![7; 30]];
    let body = json!({"prompt": prompts, "max_tokens": 60, "ignore_eos": true});
    assert_eq!(post(&client().build().unwrap(), &url, body).await, 200);
    process.logged("sequences lost their blocks").await;
}

#[tokio::test]
async fn the_load_is_logged_unless_it_is_switched_off() {
    let silent = Process::start(&["--disable-log-stats"]);
    silent.logged("ready").await;
    let telling = Process::start(&[]);
    telling.logged("ready").await;
    for process in [&silent, &telling] {
        let url = format!("http://{}/v1/completions", process.address);
        let body = json!({"prompt": "a", "max_tokens": 1});
        assert_eq!(post(&client().build().unwrap(), &url, body).await, 200);
    }
    // It was ready later, so its line would come later.
    telling.logged("Avg generation throughput").await;
    assert!(!silent.log().contains("Avg generation throughput"));
}

const SECRET: &str = "xylophone";

/// Requests of every kind whose text is a secret.
async fn tell_secrets(process: &Process) {
    let client = client().build().unwrap();
    let url = |path: &str| format!("http://{}{path}", process.address);
    let messages = json!([{"role": "user", "content": SECRET}]);
    for (path, body, status) in [
        ("/v1/completions", json!({"prompt": SECRET, "max_tokens": 1}), 200),
        (
            "/v1/completions",
            json!({"prompt": SECRET, "max_tokens": -1}),
            400,
        ),
        (
            "/v1/chat/completions",
            json!({"messages": messages, "max_tokens": 1, "stream": true}),
            200,
        ),
        (
            "/v1/chat/completions",
            json!({"messages": messages, "chat_template": "{{ nothing.at.all }}"}),
            400,
        ),
        ("/tokenize", json!({"prompt": SECRET}), 200),
        ("/runsync", json!({"input": {"prompt": SECRET}}), 200),
        ("/runsync", json!({"input": {"prompt": {"no": SECRET}}}), 200),
    ] {
        assert_eq!(
            post(&client, &url(path), body.clone()).await,
            status,
            "{path} {body}"
        );
    }
    let broken = client
        .post(url("/v1/completions"))
        .body(format!("{{\"prompt\": \"{SECRET}"));
    assert_eq!(broken.send().await.unwrap().status(), 400);
    // What was logged before this is in the log once this is.
    assert_eq!(
        client
            .get(url("/v1/models/the-last-one"))
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
}

#[tokio::test]
async fn no_text_of_a_request_is_in_the_log_at_any_level() {
    let process = Process::start(&["--log-level", "trace"]);
    process.logged("ready").await;
    tell_secrets(&process).await;
    until("the last request is logged", || {
        process.log().matches("answered").count() >= 9
    })
    .await;
    let log = process.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains(SECRET)).collect();
    assert_eq!(told, [""; 0]);
}

#[tokio::test]
async fn requests_are_logged_if_asked_for_and_prompts_in_part() {
    let process = Process::start(&["--disable-log-requests", "false", "--max-log-len", "5"]);
    process.logged("ready").await;
    let client = client().build().unwrap();
    let url = format!("http://{}/v1/completions", process.address);
    post(&client, &url, json!({"prompt": SECRET, "max_tokens": 3})).await;
    process.logged("received").await;
    let log = process.log();
    let line = log.lines().find(|line| line.contains("received")).unwrap();
    assert!(
        line.contains("xylop") && line.contains("max_tokens") && !log.contains(SECRET),
        "{line}"
    );
}

/// A folder as Kubernetes mounts a Secret: `keys` leads through the link `..data` to a folder of one version.
struct MountedSecret(tempfile::TempDir);

impl MountedSecret {
    fn new(keys: &str) -> Self {
        let secret = Self(tempfile::tempdir().unwrap());
        secret.write(keys);
        symlink("..data/keys", secret.0.path().join("keys")).unwrap();
        secret
    }

    /// Writes a new version, and renames a link over the old one.
    fn write(&self, keys: &str) {
        let version = tempfile::tempdir_in(self.0.path()).unwrap().keep();
        std::fs::write(version.join("keys"), keys).unwrap();
        let link = self.0.path().join("..data_tmp");
        symlink(version, &link).unwrap();
        std::fs::rename(link, self.0.path().join("..data")).unwrap();
    }

    fn flags(&self) -> [String; 2] {
        [
            "--api-keys-file".to_owned(),
            self.0.path().join("keys").display().to_string(),
        ]
    }
}

#[tokio::test]
async fn keys_of_a_mounted_secret_are_read_again() {
    let secret = MountedSecret::new("old\n");
    let flags = secret.flags();
    let process = Process::start(&flags.each_ref().map(String::as_str));
    process.logged("ready").await;
    let client = client().build().unwrap();
    let url = format!("http://{}/v1/models", process.address);
    let status = async |key: &str| {
        let sent = client.get(&url).bearer_auth(key).send().await;
        sent.unwrap().status().as_u16()
    };
    assert_eq!([status("old").await, status("new").await], [200, 401]);
    secret.write("new,newer");
    process.logged("the API keys changed").await;
    assert_eq!([status("old").await, status("newer").await], [401, 200]);
    secret.write("[]");
    process.logged("cannot be used").await;
    assert_eq!([status("old").await, status("new").await], [401, 200]);
    assert!(!process.log().contains("newer"));
}

#[tokio::test]
async fn a_file_without_keys_is_a_failure_at_the_start() {
    let secret = MountedSecret::new("");
    let flags = secret.flags();
    let mut process = Process::start(&flags.each_ref().map(String::as_str));
    process.logged("Write at least one key").await;
    let status = tokio::task::spawn_blocking(move || process.child.wait().unwrap());
    assert_eq!(status.await.unwrap().code(), Some(10));
}

#[tokio::test]
async fn the_control_port_is_another_port_of_the_same_address() {
    let process = Process::start(&["--control-port", "8001"]);
    process.logged("ready").await;
    let client = client().build().unwrap();
    let control = process.address.replace(":8000", ":8001");
    for (address, path, status) in [
        (&process.address, "/v1/models", 200),
        (&process.address, "/metrics", 404),
        (&control, "/metrics", 200),
        (&control, "/v1/models", 404),
    ] {
        let sent = client.get(format!("http://{address}{path}")).send().await;
        assert_eq!(sent.unwrap().status(), status, "{address}{path}");
    }
}

fn pem(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/http/tls")
        .join(name)
}

fn secure_client() -> reqwest::ClientBuilder {
    let authority = std::fs::read(pem("ca.pem")).unwrap();
    let authority = reqwest::Certificate::from_pem(&authority).unwrap();
    client().use_rustls_tls().add_root_certificate(authority)
}

/// The shipped model behind TLS, and the guard that ends it.
async fn secure(
    authorities: Option<&str>,
    limits: ConnectionLimits,
) -> (String, tokio_util::sync::DropGuard) {
    let server = tiny(&[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let files = TlsFiles {
        certificates: pem("server.pem"),
        key: pem("server.key"),
        client_authorities: authorities.map(pem),
    };
    let listener = Listener {
        listener,
        tls: Some(configuration(&files).unwrap()),
    };
    let stop = CancellationToken::new();
    tokio::spawn(connection::serve(
        listener,
        server.router.clone(),
        limits,
        stop.clone(),
    ));
    (address, stop.drop_guard())
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_served_and_a_handshake_that_never_ends_costs_nothing() {
    let limits = ConnectionLimits {
        n_max: 2,
        head_timeout: Duration::from_millis(300),
        ..ConnectionLimits::default()
    };
    let (address, _stop) = secure(None, limits).await;
    // Both places are taken by clients that say nothing.
    let silent = [
        TcpStream::connect(&address).await.unwrap(),
        TcpStream::connect(&address).await.unwrap(),
    ];
    let url = format!("https://{address}/v1/completions");
    let body = json!({"prompt": "Hello", "max_tokens": 4, "stream": true});
    let sent = secure_client()
        .build()
        .unwrap()
        .post(&url)
        .json(&body)
        .send()
        .await
        .unwrap();
    assert!(sent.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    drop(silent);
    let plain = client()
        .build()
        .unwrap()
        .get(format!("http://{address}/livez"))
        .send()
        .await;
    assert!(plain.is_err(), "without TLS nothing is answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_must_present_a_certificate_where_authorities_are_named() {
    let (address, _stop) = secure(Some("ca.pem"), ConnectionLimits::default()).await;
    let url = format!("https://{address}/livez");
    assert!(secure_client().build().unwrap().get(&url).send().await.is_err());
    let mut identity = std::fs::read(pem("client.pem")).unwrap();
    identity.extend(std::fs::read(pem("client.key")).unwrap());
    let identity = reqwest::Identity::from_pem(&identity).unwrap();
    let known = secure_client().identity(identity).build().unwrap();
    assert_eq!(known.get(&url).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_binary_speaks_tls_or_says_why_not() {
    let (certificate, key) = (pem("server.pem"), pem("server.key"));
    let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
    let mut wrong = Process::start(&["--ssl-certfile", key, "--ssl-keyfile", key]);
    wrong.logged("holds no certificate").await;
    let status = tokio::task::spawn_blocking(move || wrong.child.wait().unwrap());
    assert!(!status.await.unwrap().success());
    let process = Process::start(&["--ssl-certfile", certificate, "--ssl-keyfile", key]);
    process.logged("ready").await;
    // The certificate is another address's.
    let client = secure_client().danger_accept_invalid_certs(true).build().unwrap();
    let models = client
        .get(format!("https://{}/v1/models", process.address))
        .send()
        .await
        .unwrap();
    assert_eq!(models.status(), 200);
}
