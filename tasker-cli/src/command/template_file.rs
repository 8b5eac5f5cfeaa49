//! Template files: found, read, and checked here.

use crate::{
    error::{Error, Result},
    shell::Shell,
};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tasker_shared::template::{Template, parse};

/// One file as it was read.
pub(super) struct Checked {
    /// Where it is.
    pub(super) file: PathBuf,
    /// The text.
    pub(super) source: String,
    /// The template, or each problem with its place.
    pub(super) template: Result<Template, Vec<String>>,
}

/// Reads and checks the files at `paths`; directories are searched for `*.yaml` and `*.yml`, by name.
///
/// # Errors
/// Exit code 2 when a path cannot be read, or holds no template file.
pub(super) fn check_all(paths: &[PathBuf], shell: &mut Shell) -> Result<Vec<Checked>> {
    let mut files = Vec::new();
    for path in paths {
        let found = files.len();
        collect(path, &mut files)?;
        if files.len() == found {
            return Err(Error::usage(format!("{} has no *.yaml or *.yml file", path.display())));
        }
    }
    files.into_iter().map(|file| check(file, shell)).collect()
}

/// Reads and checks one file.
///
/// # Errors
/// Exit code 2 when it cannot be read.
pub(super) fn check(file: PathBuf, shell: &mut Shell) -> Result<Checked> {
    let source = shell.read(&file)?;
    let template = parse(&source, Some(&file.display().to_string())).map_err(|invalid| problems(&invalid));
    Ok(Checked { file, source, template })
}

fn problems(invalid: &tasker_shared::template::Invalid) -> Vec<String> {
    invalid.to_string().lines().map(str::to_owned).collect()
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let unreadable = |error| Error::usage(format!("failed to read {}: {error}", path.display()));
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries: std::io::Result<Vec<_>> =
        fs::read_dir(path).map_err(unreadable)?.map(|entry| Ok(entry?.path())).collect();
    let mut entries = entries.map_err(unreadable)?;
    entries.sort();
    let is_template = |path: &Path| path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    entries.iter().filter(|path| path.is_dir() || is_template(path)).try_for_each(|path| collect(path, files))
}
