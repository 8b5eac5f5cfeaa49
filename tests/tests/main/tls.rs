//! TLS of both services: who trusts whom, and certificates that change while they run.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tasker_client::{Client, Credentials, Error};
use tasker_tests::{
    TestDatabase,
    process::{ORCHESTRATION, Process, TASKER, WORKER, command},
    system::eventually,
};
use tempfile::TempDir;

/// An authority that signs certificates for these tests.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

/// A certificate with its key, as files.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let dir = tempfile::tempdir()?;
        fs::write(dir.path().join("ca.pem"), issuer.pem())?;
        Ok(Self { issuer, dir })
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    fn pem(&self) -> Vec<u8> {
        self.issuer.pem().into_bytes()
    }

    /// A certificate for this machine, or for a client.
    fn sign(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> Result<Files> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages = vec![purpose];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let files = self.at(name);
        fs::write(&files.certificate, certificate.pem())?;
        fs::write(&files.key, key.serialize_pem())?;
        Ok(files)
    }

    fn at(&self, name: &str) -> Files {
        let file = |end: &str| self.dir.path().join(format!("{name}{end}"));
        Files { certificate: file(".pem"), key: file(".key") }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn client(process_url: &str, authority: Option<&Authority>, certificate: Option<&Files>) -> Result<Client> {
    let certificate = certificate
        .map(|files| Ok::<_, anyhow::Error>([fs::read(&files.certificate)?, fs::read(&files.key)?].concat()));
    let credentials =
        Credentials { authority: authority.map(Authority::pem), certificate: certificate.transpose()?, token: None };
    Ok(Client::with_credentials(&process_url.replace("http://", "https://"), &credentials)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_services_speak_tls_to_those_who_trust_their_authority() -> Result<()> {
    let (database, authority) = (TestDatabase::create().await?, Authority::new()?);
    let files = authority.sign("server", ExtendedKeyUsagePurpose::ServerAuth)?;
    for (program, section) in [(ORCHESTRATION, "ORCHESTRATION"), (WORKER, "WORKER")] {
        let (certificate, key) =
            (format!("TASKER__{section}__TLS__CERTIFICATE"), format!("TASKER__{section}__TLS__KEY"));
        let settings = [(certificate.as_str(), &*shown(&files.certificate)), (key.as_str(), &*shown(&files.key))];
        let mut process = Process::service(program, &database.url, &settings)?;
        let url = process.url().await?;
        let health = client(&url, Some(&authority), None)?.health().await?;
        assert_eq!(health.status, "healthy");
        let untrusted = client(&url, None, None)?.health().await;
        assert!(matches!(&untrusted, Err(Error::Unreachable { .. })), "{untrusted:?}");
        let plain = Client::new(&url)?.health().await;
        assert!(plain.is_err(), "{plain:?}");
        let mut tasker = command(TASKER)?;
        tasker.args(["health", "--url", &url.replace("http://", "https://"), "--ca", &shown(&authority.file())]);
        let ran = tasker.output().await?;
        ensure!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        process.drain().await?;
    }
    database.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_says_nothing_holds_nobody_else_up() -> Result<()> {
    let (database, authority) = (TestDatabase::create().await?, Authority::new()?);
    let files = authority.sign("server", ExtendedKeyUsagePurpose::ServerAuth)?;
    let settings = [
        ("TASKER__ORCHESTRATION__TLS__CERTIFICATE", &*shown(&files.certificate)),
        ("TASKER__ORCHESTRATION__TLS__KEY", &*shown(&files.key)),
        ("TASKER__ORCHESTRATION__MAX_HTTP_CONNECTIONS", "10"),
    ];
    let mut process = Process::service(ORCHESTRATION, &database.url, &settings)?;
    let url = process.url().await?;
    let address = url.strip_prefix("http://").context("an address")?;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(tokio::net::TcpStream::connect(address).await?);
    }
    assert_eq!(client(&url, Some(&authority), None)?.health().await?.status, "healthy");
    drop(silent);
    process.drain().await?;
    database.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_asks_for_client_certificates_answers_nobody_else() -> Result<()> {
    let (database, authority, other) = (TestDatabase::create().await?, Authority::new()?, Authority::new()?);
    let files = authority.sign("server", ExtendedKeyUsagePurpose::ServerAuth)?;
    let settings = [
        ("TASKER__ORCHESTRATION__TLS__CERTIFICATE", &*shown(&files.certificate)),
        ("TASKER__ORCHESTRATION__TLS__KEY", &*shown(&files.key)),
        ("TASKER__ORCHESTRATION__TLS__CLIENT_AUTHORITY", &*shown(&authority.file())),
    ];
    let mut process = Process::service(ORCHESTRATION, &database.url, &settings)?;
    let url = process.url().await?;
    let known = authority.sign("client", ExtendedKeyUsagePurpose::ClientAuth)?;
    let stranger = other.sign("client", ExtendedKeyUsagePurpose::ClientAuth)?;
    assert_eq!(client(&url, Some(&authority), Some(&known))?.health().await?.status, "healthy");
    for certificate in [None, Some(&stranger)] {
        assert!(client(&url, Some(&authority), certificate)?.health().await.is_err());
    }
    process.drain().await?;
    database.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_changes_the_certificate_and_one_that_cannot_be_used_changes_nothing() -> Result<()> {
    let (database, old, new) = (TestDatabase::create().await?, Authority::new()?, Authority::new()?);
    let files = old.sign("server", ExtendedKeyUsagePurpose::ServerAuth)?;
    let settings = [
        ("TASKER__ORCHESTRATION__TLS__CERTIFICATE", &*shown(&files.certificate)),
        ("TASKER__ORCHESTRATION__TLS__KEY", &*shown(&files.key)),
    ];
    let mut process = Process::service(ORCHESTRATION, &database.url, &settings)?;
    let url = process.url().await?;
    assert_eq!(client(&url, Some(&old), None)?.health().await?.status, "healthy");
    fs::write(&files.certificate, "nothing")?;
    process.signal(Signal::SIGHUP)?;
    let kept = process.wrote("the certificates in use stay").await?;
    assert!(kept.contains("orchestration.tls.certificate") && kept.contains("no certificate in PEM"), "{kept}");
    assert_eq!(client(&url, Some(&old), None)?.health().await?.status, "healthy");
    let fresh = new.sign("server", ExtendedKeyUsagePurpose::ServerAuth)?;
    fs::copy(&fresh.certificate, &files.certificate)?;
    fs::copy(&fresh.key, &files.key)?;
    process.signal(Signal::SIGHUP)?;
    eventually("the new authority is trusted", async || Ok(client(&url, Some(&new), None)?.health().await.is_ok()))
        .await?;
    assert!(client(&url, Some(&old), None)?.health().await.is_err());
    process.drain().await?;
    database.drop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_cannot_be_used_stops_the_start_with_its_name() -> Result<()> {
    let (database, authority) = (TestDatabase::create().await?, Authority::new()?);
    let (files, other) = (
        authority.sign("server", ExtendedKeyUsagePurpose::ServerAuth)?,
        authority.sign("other", ExtendedKeyUsagePurpose::ServerAuth)?,
    );
    let absent = authority.at("absent");
    for (certificate, key, setting) in [
        (&absent.certificate, &files.key, "worker.tls.certificate"),
        (&files.certificate, &absent.key, "worker.tls.key"),
        (&files.certificate, &files.certificate, "worker.tls.key"),
        (&files.certificate, &other.key, "with the key beside it"),
    ] {
        let mut command = command(WORKER)?;
        command.env("TASKER_ENV", "test").env("DATABASE_URL", &database.url);
        command.env("TASKER__WORKER__TLS__CERTIFICATE", certificate).env("TASKER__WORKER__TLS__KEY", key);
        let ran = command.output().await?;
        let told = String::from_utf8(ran.stderr)?;
        assert!(ran.status.code() == Some(1) && told.contains(setting), "{setting}: {told}");
    }
    database.drop().await
}
