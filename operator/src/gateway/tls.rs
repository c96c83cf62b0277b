//! TLS of the clients' port: the certificate and the key of a Secret of type kubernetes.io/tls, mounted as a folder.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// The files of such a folder: the chain of certificates and the key.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    ["tls.crt", "tls.key"].map(|name| folder.join(name)).into()
}

/// What connections are accepted with, from the contents of [`files`].
///
/// # Errors
/// They are no certificate and the key that belongs to it.
pub(super) fn configuration(contents: &[Vec<u8>]) -> Result<ServerConfig, String> {
    let [certificates, key] = contents else {
        return Err("a certificate and a key are required".into());
    };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("tls.crt is not PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("tls.crt has no certificate".into());
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("tls.key has no key: {error}"))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut configuration = builder
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| format!("tls.crt and tls.key cannot be used together: {error}"))?;
    configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(configuration)
}
