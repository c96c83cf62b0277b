//! TLS: a certificate and its key, read once at the start.
//!
//! Must not know connections or HTTP beyond its name in the handshake.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use crate::config::TlsFiles;

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there, or is no PEM.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A file has nothing that could be used.
    #[error("{} holds no certificate", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// An authority is no certificate.
    #[error("an authority in {} cannot be used", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The authorities cannot verify anybody.
    #[error("the authorities for clients cannot be used")]
    Verifier(#[from] VerifierBuilderError),
    /// The key is not the certificate's, or neither can be used.
    #[error("the certificate and the key cannot be used")]
    Pair(#[from] rustls::Error),
}

/// Reads the files.
///
/// # Errors
/// [`TlsError`] for a file that cannot be used.
pub fn configuration(files: &TlsFiles) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match &files.client_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|source| TlsError::Authority {
                    path: path.clone(),
                    source,
                })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|source| TlsError::Read {
        path: files.key.clone(),
        source,
    })?;
    let mut config = builder.with_single_cert(certificates(&files.certificates)?, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Read {
        path: path.into(),
        source,
    };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(failed)?;
    if certificates.is_empty() {
        return Err(TlsError::Empty { path: path.into() });
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_cannot_be_used_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("none.pem");
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "nothing here\n").unwrap();
        let fixture = |name: &str| {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/http/tls")
                .join(name)
        };
        let said = |certificates: &Path, key: &Path, authorities: Option<&Path>| {
            let files = TlsFiles {
                certificates: certificates.into(),
                key: key.into(),
                client_authorities: authorities.map(Path::to_path_buf),
            };
            let error = configuration(&files).map(|_| ()).unwrap_err();
            crds::failure::chain(&error).replace(&folder.path().display().to_string(), "DIR")
        };
        let (certificate, key) = (fixture("server.pem"), fixture("server.key"));
        assert!(said(&none, &key, None).starts_with("cannot read DIR/none.pem: "));
        assert_eq!(said(&empty, &key, None), "DIR/empty.pem holds no certificate");
        assert!(said(&certificate, &empty, None).starts_with("cannot read DIR/empty.pem: "));
        assert_eq!(
            said(&certificate, &key, Some(&empty)),
            "DIR/empty.pem holds no certificate"
        );
        let other = said(&certificate, &fixture("client.key"), None);
        assert!(
            other.starts_with("the certificate and the key cannot be used: "),
            "{other}"
        );
    }
}
