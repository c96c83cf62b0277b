//! Clients that connect with TLS, while the files of the certificate change.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{Router, routing::get};
use prometheus_client::registry::Registry;
use reqwest::tls::TlsInfo;
use tokio::net::TcpListener;

use crate::gateway::{
    metrics::Metrics,
    reload::Reloaded,
    server,
    tls::{configuration, files},
};

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/tests/http/tls");
    std::fs::read(folder.join(name)).unwrap()
}

/// Mounts a version of a Secret as the kubelet does: files that are links into a folder that is a link itself.
fn mount(folder: &Path, version: &str, certificate: &[u8], key: &[u8]) {
    let version = folder.join(version);
    std::fs::create_dir(&version).unwrap();
    std::fs::write(version.join("tls.crt"), certificate).unwrap();
    std::fs::write(version.join("tls.key"), key).unwrap();
    let next = folder.join("..data_tmp");
    symlink(&version, &next).unwrap();
    std::fs::rename(next, folder.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        // From the second version on, the links are there.
        let _exists = symlink(PathBuf::from("..data").join(name), folder.join(name));
    }
}

#[test]
fn contents_that_cannot_be_used_are_named() {
    let (certificate, key) = (fixture("server.pem"), fixture("server.key"));
    let refused = |certificate: &[u8], key: &[u8]| {
        let contents = [certificate.to_vec(), key.to_vec()];
        configuration(&contents).map(|_| ()).unwrap_err()
    };
    assert_eq!(refused(b"text\n", &key), "tls.crt has no certificate");
    assert!(refused(&certificate, b"").starts_with("tls.key has no key: "));
    assert!(
        refused(&certificate, &fixture("client.key"))
            .starts_with("tls.crt and tls.key cannot be used together: ")
    );
    assert!(configuration(&[certificate, key]).is_ok());
}

#[tokio::test]
async fn a_new_certificate_is_served_and_a_broken_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, mut registry) = (folder.path(), Registry::default());
    let metrics = Metrics::register(&mut registry);
    let load = || Reloaded::load("tls", files(folder), configuration, metrics.clone());
    let missing = load().await.map(|_| ()).unwrap_err().to_string();
    assert!(missing.contains("tls.crt"), "{missing}");

    mount(folder, "..1", &fixture("server.pem"), &fixture("server.key"));
    let mut tls = load().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(|| async { "hello" }));
    let _server = tokio::spawn(server::serve(
        listener,
        Some(tls.value()),
        router,
        std::future::pending(),
    ));
    let served = || async move {
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_info(true)
            .danger_accept_invalid_certs(true)
            .build()
            .unwrap();
        let answer = client.get(format!("https://{address}/")).send().await.unwrap();
        let info: &TlsInfo = answer.extensions().get().unwrap();
        let certificate = info.peer_certificate().unwrap().to_vec();
        assert_eq!(answer.text().await.unwrap(), "hello");
        certificate
    };
    let first = served().await;

    mount(folder, "..2", &fixture("client.pem"), &fixture("client.key"));
    tls.look().await;
    let second = served().await;
    assert_ne!(first, second);

    mount(folder, "..3", &fixture("server.pem"), b"broken");
    tls.look().await;
    tls.look().await;
    assert_eq!(served().await, second);
    let text = crate::metrics::text(&Arc::new(registry));
    for line in [
        "slipway_gateway_reload_failures_total{files=\"tls\"} 1\n",
        "slipway_gateway_last_reload_successful{files=\"tls\"} 0\n",
    ] {
        assert!(text.contains(line), "{text}");
    }

    mount(folder, "..4", &fixture("server.pem"), &fixture("server.key"));
    tls.look().await;
    assert_eq!(served().await, first);
    let plain = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(plain.get(format!("http://{address}/")).send().await.is_err());
}
