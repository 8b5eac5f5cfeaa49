//! Small C libraries, compiled on the spot and preloaded into processes, that read what they are to do from a file.

use anyhow::{Context, Result, ensure};
use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

/// Compiles `source` into a library of that name.
///
/// # Errors
/// There is no C compiler.
pub(super) fn library(directory: &Path, name: &str, source: &str) -> Result<PathBuf> {
    let (path, library) = (directory.join(format!("{name}.c")), directory.join(format!("{name}.so")));
    std::fs::write(&path, source)?;
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&path).arg("-ldl");
    let status = compiler.status().context("run the C compiler `cc`")?;
    ensure!(status.success(), "cc ended with {status}");
    Ok(library)
}

/// The variables of a process that has the library, and where this one reads.
pub(super) fn variables(library: &Path, variable: &str, file: &Path) -> Vec<(String, String)> {
    let text = |path: &Path| path.display().to_string();
    vec![("LD_PRELOAD".to_owned(), text(library)), (variable.to_owned(), text(file))]
}

/// Writes numbers where libraries read them; those that have the file see them at once.
///
/// # Errors
/// The machine refuses.
pub(super) fn tell(file: &Path, numbers: &[i64]) -> Result<()> {
    let file = File::options().write(true).create(true).truncate(false).open(file)?;
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
    Ok(file.write_all_at(&bytes, 0)?)
}
