//! A wall clock of its own for each service: a preloaded library adds an offset.

use super::preload;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// The library.
#[derive(Debug, Clone)]
pub struct Clocks {
    library: PathBuf,
    directory: PathBuf,
}

impl Clocks {
    /// Compiles it.
    ///
    /// # Errors
    /// There is no C compiler.
    pub fn build(directory: &Path) -> Result<Self> {
        let library = preload::library(directory, "clock", include_str!("clock.c"))?;
        Ok(Self { library, directory: directory.to_owned() })
    }

    /// The variables of a service with the clock `name`.
    ///
    /// # Errors
    /// The machine refuses.
    pub fn variables(&self, name: &str) -> Result<Vec<(String, String)>> {
        let file = self.file(name);
        if !file.exists() {
            preload::tell(&file, &[0])?;
        }
        Ok(preload::variables(&self.library, "CHAOS_CLOCK", &file))
    }

    /// Sets how far the clock `name` is off.
    ///
    /// # Errors
    /// The machine refuses.
    pub fn set(&self, name: &str, offset_ms: i64) -> Result<()> {
        preload::tell(&self.file(name), &[offset_ms])
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.clock"))
    }
}
