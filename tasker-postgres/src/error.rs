//! What can go wrong between "no PostgreSQL" and "a running one", in words that say what to do.

use std::path::{Path, PathBuf};

/// How a person gets a PostgreSQL; part of every message that says there is none.
const REMEDY: &str = "install it (`apt-get install postgresql`, `dnf install postgresql-server` or `brew install \
    postgresql`), or set TASKER_PG_BIN to the directory of its programs, or set DATABASE_URL to use a running server";

/// Why there is no running private PostgreSQL.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Neither found on this machine nor to be downloaded.
    #[error("no PostgreSQL {wanted} found on this machine, and downloading it failed ({reason}); {REMEDY}")]
    NotFound {
        /// Which versions would have done: `14 or later`, or one major version.
        wanted: String,
        /// What each way of downloading said.
        reason: String,
    },
    /// `TASKER_PG_BIN` names a directory without the programs.
    #[error(
        "TASKER_PG_BIN = {dir}: expected the directory that holds the `postgres` and `initdb` programs of PostgreSQL 14 or later"
    )]
    BadBinDir {
        /// The value of the variable.
        dir: PathBuf,
    },
    /// The data directory was written by a major version that is not available.
    #[error(
        "the data directory {data} was created by PostgreSQL {required}, but only {available} is available; install \
         PostgreSQL {required}, or set TASKER_PG_BIN to its programs, or choose another directory ({reason})"
    )]
    WrongMajor {
        /// The data directory.
        data: PathBuf,
        /// The major version that wrote it.
        required: u32,
        /// The versions that were found, as text.
        available: String,
        /// Why the required version could not be downloaded.
        reason: String,
    },
    /// The checksum of a downloaded archive is not the published one; nothing was installed.
    #[error("the archive {url} is damaged: its SHA-256 is {actual}, expected {expected}; try again")]
    Checksum {
        /// Where the archive came from.
        url: String,
        /// The published checksum.
        expected: String,
        /// The checksum of what arrived.
        actual: String,
    },
    /// A way of downloading did not work.
    #[error("{0}")]
    Download(String),
    /// PostgreSQL refuses to run as root and no other account can be used.
    #[error(
        "PostgreSQL does not run as root, and this machine has neither a `postgres` nor a `nobody` account; create one \
         or run as a normal user"
    )]
    NoAccount,
    /// The account PostgreSQL has to run as cannot reach a directory or program.
    #[error(
        "PostgreSQL does not run as root but as `{account}`, which cannot reach {path} ({blocked_by} is closed to it); \
         choose a directory below one that everybody may enter, such as /var/lib/tasker"
    )]
    Unreachable {
        /// The account.
        account: String,
        /// What it has to reach.
        path: PathBuf,
        /// The first directory on the way that is closed.
        blocked_by: PathBuf,
    },
    /// The data directory belongs to somebody else.
    #[error("the data directory {data} belongs to `{owner}`; run as that user or choose another directory")]
    ForeignDirectory {
        /// The data directory.
        data: PathBuf,
        /// Its owner.
        owner: String,
    },
    /// Another process runs a cluster in this directory.
    #[error(
        "{root} is already in use: process {owner} runs a PostgreSQL (process {postgres}) there; stop that process or \
         choose another directory"
    )]
    AlreadyRunning {
        /// The cluster's directory.
        root: PathBuf,
        /// The process that owns the cluster (`?` when it cannot be told).
        owner: String,
        /// The server's own process.
        postgres: String,
    },
    /// `initdb` failed; nothing is left behind.
    #[error("initdb could not create {data}: {output}")]
    Initdb {
        /// The data directory.
        data: PathBuf,
        /// What `initdb` said.
        output: String,
    },
    /// The server ended while starting.
    #[error("PostgreSQL did not start ({status}); the end of {log} says: {tail}")]
    Start {
        /// The exit status.
        status: String,
        /// The log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// The server runs but did not become ready.
    #[error("PostgreSQL was not ready after {waited_s} s; see {log}")]
    NotReady {
        /// How long it was given, in seconds.
        waited_s: u64,
        /// The log file.
        log: PathBuf,
    },
    /// The test cluster could not be stopped after the tests.
    #[error("tests need the program `flock` or `perl` to stop their PostgreSQL at the end; install one of them")]
    NoReaper,
    /// The operating system refused something.
    #[error("could not {action} {path}: {source}")]
    Io {
        /// The verb: `create`, `read`, ….
        action: &'static str,
        /// The file or program.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl Error {
    /// For `map_err`: names what was tried on which path.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io { action, path, source }
    }
}
