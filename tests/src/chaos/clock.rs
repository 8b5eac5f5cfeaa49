//! A wall clock of its own for each service: a small library, compiled on the spot and preloaded, that adds an offset.

use anyhow::{Context, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

const SOURCE: &str = include_str!("clock.c");

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
        let (source, library) = (directory.join("clock.c"), directory.join("clock.so"));
        std::fs::write(&source, SOURCE)?;
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let status = compiler.status().context("run the C compiler `cc`")?;
        ensure!(status.success(), "cc ended with {status}");
        Ok(Self { library, directory: directory.to_owned() })
    }

    /// The variables of a service with the clock `name`.
    ///
    /// # Errors
    /// The machine refuses.
    pub fn variables(&self, name: &str) -> Result<Vec<(String, String)>> {
        let file = self.file(name);
        if !file.exists() {
            std::fs::write(&file, 0_i64.to_ne_bytes())?;
        }
        let text = |path: &Path| path.display().to_string();
        Ok(vec![("LD_PRELOAD".to_owned(), text(&self.library)), ("CHAOS_CLOCK".to_owned(), text(&file))])
    }

    /// Sets how far the clock `name` is off.
    ///
    /// # Errors
    /// The machine refuses.
    pub fn set(&self, name: &str, offset_ms: i64) -> Result<()> {
        use std::os::unix::fs::FileExt as _;
        let file = std::fs::File::options().write(true).create(true).truncate(false).open(self.file(name))?;
        Ok(file.write_all_at(&offset_ms.to_ne_bytes(), 0)?)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.clock"))
    }
}
