//! A disk for PostgreSQL that can be slow: a preloaded library delays what it syncs and writes.

use super::preload;
use anyhow::Result;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// The library, and where it reads how slow the disk is.
#[derive(Debug, Clone)]
pub struct SlowDisk {
    library: PathBuf,
    file: PathBuf,
}

impl SlowDisk {
    /// Compiles it. The disk is as fast as it is.
    ///
    /// # Errors
    /// There is no C compiler.
    pub fn build(directory: &Path) -> Result<Self> {
        let library = preload::library(directory, "disk", include_str!("disk.c"))?;
        let disk = Self { library, file: directory.join("disk.delays") };
        disk.set(Duration::ZERO, Duration::ZERO)?;
        Ok(disk)
    }

    /// The variables of a server on this disk.
    pub fn variables(&self) -> Vec<(String, String)> {
        preload::variables(&self.library, "CHAOS_DISK", &self.file)
    }

    /// Sets how much longer each sync and each write takes.
    ///
    /// # Errors
    /// The machine refuses.
    pub fn set(&self, sync: Duration, write: Duration) -> Result<()> {
        preload::tell(&self.file, &[i64::try_from(sync.as_micros())?, i64::try_from(write.as_micros())?])
    }
}
