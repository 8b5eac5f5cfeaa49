//! Fetches PostgreSQL programs for a machine that has none.
//!
//! Prebuilt archives come by HTTPS from the releases of the `theseus-rs/postgresql-binaries` project (or a mirror laid
//! out like it) together with their SHA-256; where these cannot be reached, the same archives come by [`crate::pip`].

use crate::{Error, Installation, Search, archive, default_cache_dir, pip};
use std::{io::Read as _, path::PathBuf, time::Duration};

const RELEASES: &str = "https://github.com/theseus-rs/postgresql-binaries/releases/download";
/// The release that is fetched for each major version, the preferred one first.
const VERSIONS: [(u32, &str); 5] = [(18, "18.6.0"), (17, "17.11.0"), (16, "16.15.0"), (15, "15.19.0"), (14, "14.23.0")];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CHECKSUM_TIMEOUT: Duration = Duration::from_secs(10);
const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(300);
const ARCHIVE_LIMIT: u64 = 256 << 20;

/// Where programs are downloaded from and kept.
#[derive(Debug, Clone)]
pub struct Download {
    /// The directory that keeps what was downloaded.
    pub cache: PathBuf,
    /// The base URL of the releases, without a slash at the end.
    pub mirror: String,
    /// Whether to try Python's installer where the releases cannot be reached.
    pub pip: bool,
    /// Whether to download at all.
    pub enabled: bool,
}

impl Download {
    /// The usual cache and releases; `TASKER_PG_MIRROR` replaces the base URL.
    pub fn from_env() -> Self {
        let mirror = std::env::var("TASKER_PG_MIRROR").ok().filter(|url| !url.is_empty());
        let mirror = mirror.unwrap_or_else(|| RELEASES.to_owned()).trim_end_matches('/').to_owned();
        Self { cache: default_cache_dir(), mirror, pip: true, enabled: true }
    }

    /// Finds programs on this machine, or downloads them: the newest version, or exactly `required_major`.
    ///
    /// # Errors
    /// [`Error::NotFound`] says what to install; [`Error::Checksum`] when an archive arrived damaged.
    pub fn find_or_fetch(
        &self,
        search: &Search,
        required_major: Option<u32>,
        progress: fn(&str),
    ) -> Result<Installation, Error> {
        let found = search.discover()?;
        if let Some(fit) = found.into_iter().find(|i| required_major.is_none_or(|major| i.major == major)) {
            return Ok(fit);
        }
        let not_found = |reason| {
            let wanted = required_major.map_or_else(|| "14 or later".to_owned(), |major| major.to_string());
            Error::NotFound { wanted, reason }
        };
        if search.only.is_some() {
            return Err(not_found("not tried, because TASKER_PG_BIN is set".to_owned()));
        }
        self.fetch(required_major, progress).map_err(|error| match error {
            Error::Download(reason) => not_found(reason),
            other => other,
        })
    }

    /// Downloads and unpacks the release of a major version (the preferred one when `None`) into the cache.
    ///
    /// # Errors
    /// [`Error::Download`] when nothing could be reached; [`Error::Checksum`]; [`Error::Io`] for the cache.
    pub fn fetch(&self, major: Option<u32>, progress: fn(&str)) -> Result<Installation, Error> {
        if !self.enabled {
            return Err(Error::Download("turned off".to_owned()));
        }
        let (major, version) = *VERSIONS
            .iter()
            .find(|(m, _)| major.is_none_or(|major| major == *m))
            .ok_or_else(|| Error::Download("no prebuilt archive of that version".to_owned()))?;
        progress(&format!("PostgreSQL is not installed here: downloading {version} into {}", self.cache.display()));
        let (version, archive) = match self.fetch_release(version) {
            Ok(archive) => (version.to_owned(), archive),
            Err(Error::Download(reason)) if self.pip => {
                progress(&format!("no release to be had ({reason}): trying pip"));
                pip::download(major, &self.cache).map_err(|error| match error {
                    Error::Download(said) => Error::Download(format!("{reason}; {said}")),
                    other => other,
                })?
            }
            Err(error) => return Err(error),
        };
        archive::install(&archive, &self.cache, &version)
    }

    fn fetch_release(&self, version: &str) -> Result<Vec<u8>, Error> {
        let target =
            target().ok_or_else(|| Error::Download("no prebuilt archive for this kind of machine".to_owned()))?;
        let url = format!("{}/{version}/postgresql-{version}-{target}.tar.gz", self.mirror);
        let shown = without_credentials(&url);
        let client = client()?;
        let published = get(&client, &format!("{url}.sha256"), CHECKSUM_TIMEOUT)?;
        let published = String::from_utf8_lossy(&published).split_whitespace().next().unwrap_or("").to_lowercase();
        if published.len() != 64 {
            return Err(Error::Download(format!("{shown}.sha256 holds no SHA-256")));
        }
        let archive = get(&client, &url, ARCHIVE_TIMEOUT)?;
        let actual = archive::sha256(&archive);
        if actual == published { Ok(archive) } else { Err(Error::Checksum { url: shown, expected: published, actual }) }
    }
}

/// The address of an archive for those who read of it; a mirror may ask for a name and a password.
fn without_credentials(url: &str) -> String {
    let Ok(mut url) = reqwest::Url::parse(url) else { return "the mirror's archive".to_owned() };
    match url.set_username("").and_then(|()| url.set_password(None)) {
        Ok(()) => url.to_string(),
        Err(()) => "the mirror's archive".to_owned(),
    }
}

/// How the releases call this kind of machine.
fn target() -> Option<&'static str> {
    Some(match (std::env::consts::OS, std::env::consts::ARCH, cfg!(target_env = "musl")) {
        ("linux", "x86_64", false) => "x86_64-unknown-linux-gnu",
        ("linux", "x86_64", true) => "x86_64-unknown-linux-musl",
        ("linux", "aarch64", false) => "aarch64-unknown-linux-gnu",
        ("linux", "aarch64", true) => "aarch64-unknown-linux-musl",
        ("macos", "x86_64", _) => "x86_64-apple-darwin",
        ("macos", "aarch64", _) => "aarch64-apple-darwin",
        _ => return None,
    })
}

fn client() -> Result<reqwest::blocking::Client, Error> {
    // Fails when the program has already chosen a provider, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::blocking::Client::builder().connect_timeout(CONNECT_TIMEOUT);
    builder.build().map_err(|e| Error::Download(with_causes(&e)))
}

fn get(client: &reqwest::blocking::Client, url: &str, limit: Duration) -> Result<Vec<u8>, Error> {
    let failed = |e: &dyn std::error::Error| Error::Download(with_causes(e));
    let response = client.get(url).timeout(limit).send().and_then(|r| r.error_for_status()).map_err(|e| failed(&e))?;
    let mut body = Vec::new();
    response.take(ARCHIVE_LIMIT).read_to_end(&mut body).map_err(|e| failed(&e))?;
    Ok(body)
}

/// The outermost message of an HTTP error says only that it failed; the innermost one says why.
fn with_causes(error: &dyn std::error::Error) -> String {
    let innermost = std::iter::successors(Some(error), |e| e.source()).last().map(ToString::to_string);
    match innermost {
        Some(cause) if cause != error.to_string() => format!("{error}: {cause}"),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::{
        collections::HashMap,
        fs,
        io::{BufRead as _, BufReader, Write as _},
        net::TcpListener,
        path::Path,
    };

    /// Serves files on localhost until the process ends, and answers 404 to everything else.
    fn serve(files: HashMap<String, Vec<u8>>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let path = lines.next().unwrap_or_default().split(' ').nth(1).unwrap_or_default().to_owned();
                lines.take_while(|line| !line.is_empty()).for_each(drop);
                let (status, body) = files.get(&path).map_or(("404 Not Found", &[][..]), |b| ("200 OK", &b[..]));
                let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
            }
        });
        base
    }

    fn archive_of(version: &str) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for program in ["postgres", "initdb"] {
            let script = format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n");
            let mut header = tar::Header::new_gnu();
            header.set_size(script.len() as u64);
            header.set_mode(0o755);
            tar.append_data(&mut header, format!("postgresql-x/bin/{program}"), script.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    fn mirror(major: u32, archive: Vec<u8>, checksum: &str) -> (String, String) {
        let version = VERSIONS.iter().find(|(m, _)| *m == major).unwrap().1;
        let path = format!("/{version}/postgresql-{version}-{}.tar.gz", target().unwrap());
        let checksum = format!("{checksum}  postgresql.tar.gz\n").into_bytes();
        (serve(HashMap::from([(format!("{path}.sha256"), checksum), (path.clone(), archive)])), path)
    }

    fn download(mirror: String, cache: &Path) -> Download {
        Download { cache: cache.to_owned(), mirror, pip: false, enabled: true }
    }

    #[test]
    fn an_archive_with_the_published_checksum_is_installed_and_found_again() {
        let cache = tempfile::tempdir().unwrap();
        let archive = archive_of("18.6");
        let checksum = archive::sha256(&archive);
        let (mirror, _) = mirror(18, archive, &checksum);
        let download = download(mirror, cache.path());
        let first = download.find_or_fetch(&Search::default(), None, |_| ()).unwrap();
        assert_eq!(first.bin, cache.path().join("postgresql-18.6.0/bin"));
        assert_eq!((first.major, first.minor), (18, 6));
        assert_eq!(download.fetch(None, |_| ()).unwrap(), first, "a second download uses the first one's place");
        let entries: Vec<_> = fs::read_dir(cache.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(entries, ["postgresql-18.6.0"], "no unfinished work stays behind");
    }

    #[test]
    fn the_required_major_version_is_fetched() {
        let cache = tempfile::tempdir().unwrap();
        let archive = archive_of("16.15");
        let checksum = archive::sha256(&archive);
        let (mirror, _) = mirror(16, archive, &checksum);
        let found = download(mirror, cache.path()).find_or_fetch(&Search::default(), Some(16), |_| ()).unwrap();
        assert_eq!((found.major, found.minor), (16, 15));
    }

    #[test]
    fn an_archive_with_another_checksum_is_refused_and_leaves_nothing() {
        let cache = tempfile::tempdir().unwrap();
        let archive = archive_of("18.6");
        let actual = archive::sha256(&archive);
        let expected = "0".repeat(64);
        let (mirror, path) = mirror(18, archive, &expected);
        let error = download(mirror.clone(), cache.path()).find_or_fetch(&Search::default(), None, |_| ()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("the archive {mirror}{path} is damaged: its SHA-256 is {actual}, expected {expected}; try again")
        );
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 0);
        let with_password = mirror.replace("http://", "http://u:SECRET@");
        let error = download(with_password, cache.path()).find_or_fetch(&Search::default(), None, |_| ()).unwrap_err();
        assert!(error.to_string().contains(&format!("{mirror}{path} is damaged")), "{error}");
    }

    #[test]
    fn without_programs_and_without_a_download_the_error_says_what_to_install() {
        let cache = tempfile::tempdir().unwrap();
        let error =
            download(serve(HashMap::new()), cache.path()).find_or_fetch(&Search::default(), None, |_| ()).unwrap_err();
        let message = error.to_string();
        assert!(
            message
                .starts_with("no PostgreSQL 14 or later found on this machine, and downloading it failed (HTTP status"),
            "{message}"
        );
        for remedy in [
            "404 Not Found",
            "apt-get install postgresql`",
            "dnf install postgresql-server`",
            "brew install postgresql`",
            "TASKER_PG_BIN",
            "DATABASE_URL",
        ] {
            assert!(message.contains(remedy), "{message}");
        }
    }
}
