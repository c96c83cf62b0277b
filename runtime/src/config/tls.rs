//! The files for TLS.

use std::path::PathBuf;

use crds::settings::ProcessSettings;

use super::ConfigError;

/// Files for TLS, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, followed by those up to an authority.
    pub certificates: PathBuf,
    /// The key of the server's certificate.
    pub key: PathBuf,
    /// Authorities for the certificates of clients; `None`: clients need no certificate.
    pub client_authorities: Option<PathBuf>,
}

impl TlsFiles {
    /// The files of the settings; `None` serves without TLS.
    ///
    /// # Errors
    /// [`ConfigError::Incomplete`] for a setting without those that it needs.
    pub(super) fn of(process: &ProcessSettings) -> Result<Option<Self>, ConfigError> {
        let incomplete = |given, missing| Err(ConfigError::Incomplete { given, missing });
        match (
            process.ssl_certfile(),
            process.ssl_keyfile(),
            process.ssl_ca_certs(),
        ) {
            (Some(certificates), Some(key), authorities) => Ok(Some(Self {
                certificates: certificates.into(),
                key: key.into(),
                client_authorities: authorities.map(PathBuf::from),
            })),
            (Some(_), None, _) => incomplete("SSL_CERTFILE", "SSL_KEYFILE"),
            (None, Some(_), _) => incomplete("SSL_KEYFILE", "SSL_CERTFILE"),
            (None, None, Some(_)) => incomplete("SSL_CA_CERTS", "SSL_CERTFILE and SSL_KEYFILE"),
            (None, None, None) => Ok(None),
        }
    }
}
