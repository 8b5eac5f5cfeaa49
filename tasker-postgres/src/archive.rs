//! Unpacks an archive of PostgreSQL programs into the cache, all or nothing.

use crate::{Error, Installation};
use flate2::read::GzDecoder;
use sha2::{Digest as _, Sha256};
use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

/// The SHA-256 of some bytes, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// A directory in the cache for unfinished work, removed when dropped.
pub(crate) struct Stage(PathBuf);

impl Stage {
    /// Makes an empty directory that no other process uses.
    pub(crate) fn new(cache: &Path) -> Result<Self, Error> {
        let dir = cache.join(format!(".stage-{}-{:08x}", std::process::id(), rand::random::<u32>()));
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        Ok(Self(dir))
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Unpacks a `tar.gz` and moves it to `<cache>/postgresql-<version>` in one step.
///
/// When another process was faster, its copy is used.
pub(crate) fn install(tar_gz: &[u8], cache: &Path, version: &str) -> Result<Installation, Error> {
    let stage = Stage::new(cache)?;
    tar::Archive::new(GzDecoder::new(tar_gz)).unpack(stage.path()).map_err(Error::io("unpack into", stage.path()))?;
    let unpacked = unpacked_root(stage.path()).ok_or_else(|| {
        Error::Download(format!("the archive of PostgreSQL {version} holds no `bin/postgres` and `bin/initdb`"))
    })?;
    let target = cache.join(format!("postgresql-{version}"));
    match fs::rename(&unpacked, &target) {
        Err(e) if !is_occupied(&e) => return Err(Error::io("create", &target)(e)),
        _ => {}
    }
    Installation::probe(&target.join("bin")).ok_or_else(|| {
        Error::Download(format!("the programs in {} do not run on this machine", target.join("bin").display()))
    })
}

fn is_occupied(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
}

/// The archives have one directory at the top.
fn unpacked_root(stage: &Path) -> Option<PathBuf> {
    let mut dirs = fs::read_dir(stage).ok()?.flatten().map(|e| e.path());
    dirs.find(|dir| ["postgres", "initdb"].iter().all(|program| dir.join("bin").join(program).is_file()))
}
