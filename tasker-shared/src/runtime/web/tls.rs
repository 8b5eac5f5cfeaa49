//! TLS for a server: certificate and key from files, read again at SIGHUP, with client certificates where asked for.

use crate::config;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Why a certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to use {file} ({setting}): {reason}")]
pub struct Unusable {
    file: String,
    setting: String,
    reason: String,
}

/// The certificates of one server; cheap to clone.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    files: Files,
    current: RwLock<Arc<ServerConfig>>,
}

struct Files {
    section: &'static str,
    certificate: PathBuf,
    key: PathBuf,
    client_authority: Option<PathBuf>,
}

impl Tls {
    /// As configured in `section`, such as `orchestration.tls`; `None` for plain HTTP.
    ///
    /// # Errors
    /// [`Unusable`] names the file and the setting.
    pub fn load(settings: &config::Tls, section: &'static str) -> Result<Option<Self>, Unusable> {
        let (Some(certificate), Some(key)) = (settings.certificate.clone(), settings.key.clone()) else {
            return Ok(None);
        };
        let files = Files { section, certificate, key, client_authority: settings.client_authority.clone() };
        let current = RwLock::new(Arc::new(files.read()?));
        Ok(Some(Self(Arc::new(Inner { files, current }))))
    }

    /// What new connections are made with.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner)).into()
    }

    /// Reads the files again. What is in use stays when they cannot be used.
    ///
    /// # Errors
    /// As [`Tls::load`].
    pub fn reload(&self) -> Result<(), Unusable> {
        let fresh = Arc::new(self.0.files.read()?);
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Reads the files again whenever the process gets SIGHUP, until `shutdown`.
    pub(super) async fn reload_at_signals(self, shutdown: CancellationToken) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => return tracing::error!("failed to listen for SIGHUP, certificates stay: {error}"),
        };
        let section = self.0.files.section;
        loop {
            tokio::select! { _ = hangup.recv() => {}, () = shutdown.cancelled() => return }
            match self.reload() {
                Ok(()) => tracing::info!(section, "read the certificates again"),
                Err(error) => tracing::error!(section, "the certificates in use stay: {error}"),
            }
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("certificate", &self.0.files.certificate).finish_non_exhaustive()
    }
}

impl Files {
    fn read(&self) -> Result<ServerConfig, Unusable> {
        let chain = self.certificates(&self.certificate, "certificate")?;
        let key = PrivateKeyDer::from_pem_file(&self.key);
        let key =
            key.map_err(|error| self.unusable(&self.key, "key", format!("it has no private key in PEM: {error}")))?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| self.unusable(&self.certificate, "certificate", error.to_string()))?;
        let builder = match &self.client_authority {
            Some(file) => builder.with_client_cert_verifier(self.verifier(file)?),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            self.unusable(&self.certificate, "certificate", format!("with the key beside it: {error}"))
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn verifier(&self, file: &Path) -> Result<Arc<dyn ClientCertVerifier>, Unusable> {
        let unusable = |reason: String| self.unusable(file, "client_authority", reason);
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates(file, "client_authority")? {
            roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        }
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        verifier.map_err(|error| unusable(error.to_string())).map(|verifier| verifier as Arc<dyn ClientCertVerifier>)
    }

    fn certificates(&self, file: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>, Unusable> {
        let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match read {
            Ok(found) if found.is_empty() => Err(self.unusable(file, key, "it has no certificate in PEM".to_owned())),
            read => read.map_err(|error| self.unusable(file, key, error.to_string())),
        }
    }

    fn unusable(&self, file: &Path, key: &str, reason: String) -> Unusable {
        Unusable { file: file.display().to_string(), setting: format!("{}.{key}", self.section), reason }
    }
}
