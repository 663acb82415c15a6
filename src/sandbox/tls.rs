//! The certificate a trial server shows, from a folder with `cert.pem` and `key.pem`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How a trial server speaks TLS.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Holds `cert.pem` (the chain, leaf first) and `key.pem`.
    pub folder: PathBuf,
    /// From the first byte; else by STARTTLS or STLS.
    pub implicit: bool,
    /// Mail and logins are refused in clear text.
    pub required: bool,
}

/// Why the certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or holds no PEM.
    #[error("cannot read {path}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// The cause.
        source: rustls::pki_types::pem::Error,
    },
    /// The key is not the certificate's, or of an unknown kind.
    #[error("the certificate in {folder} cannot be used")]
    Unfit {
        /// Which folder.
        folder: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
}

/// Reads the folder.
pub(super) fn server_config(folder: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let path = folder.join("cert.pem");
    let chain = CertificateDer::pem_file_iter(&path)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|source| TlsError::Read { path, source })?;
    let path = folder.join("key.pem");
    let key = PrivateKeyDer::from_pem_file(&path).map_err(|source| TlsError::Read { path, source })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|source| TlsError::Unfit { folder: folder.to_owned(), source })?;
    Ok(Arc::new(config))
}
