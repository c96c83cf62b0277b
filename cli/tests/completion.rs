//! `kubectl-slipway complete` as kubectl calls it: by its standard output, with a cluster that answers and one that does not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    thread,
};

const NAMES: &str = r#"{"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "items": [
    {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "chat"}},
    {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "code"}}]}"#;

/// An API server that gives each connection to `answer`, and the kubeconfig for it.
fn cluster(name: &str, answer: fn(TcpStream)) -> PathBuf {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         clusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\nusers: [{{name: u, user: {{}}}}]\n"
    );
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&file, kubeconfig).unwrap();
    file
}

fn completed(kubeconfig: &Path, words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-slipway"))
        .args(["complete", "--"])
        .args(words)
        .env("KUBECONFIG", kubeconfig)
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn names_come_from_the_namespace_that_the_words_name() {
    let kubeconfig = cluster("answers", |mut stream| {
        let mut head = [0; 4096];
        let n_read = stream.read(&mut head).unwrap();
        let head = String::from_utf8_lossy(&head[..n_read]);
        let path = "GET /apis/slipway.dev/v1alpha1/namespaces/team/modeldeployments?";
        let (status, body) = match head.starts_with(path) && head.contains("limit=500") {
            true => ("200 OK", NAMES),
            false => ("404 Not Found", "{}"),
        };
        let n_bytes = body.len();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {n_bytes}\r\nconnection: close\r\n\r\n{body}"
        );
        stream.write_all(answer.as_bytes()).unwrap();
    });
    assert_eq!(
        completed(&kubeconfig, &["status", "-n", "team", ""]),
        "chat\ncode\n:4\n"
    );
    assert_eq!(
        completed(&kubeconfig, &["chat", "--namespace=team", "co"]),
        "code\n:4\n"
    );
    assert_eq!(completed(&kubeconfig, &["chat", "-n", "other", "co"]), ":4\n");
}

#[test]
fn a_cluster_that_does_not_answer_is_not_awaited() {
    let silent = cluster("silent", std::mem::forget);
    assert_eq!(completed(&silent, &["logs", ""]), ":4\n");
    let commands = completed(&silent, &[""]);
    assert!(commands.starts_with("deploy\tDeploy a model"), "{commands}");
}
