//! Which program a step runs, and whether it may.

use crate::handler::HandlerError;
use std::{
    env,
    ffi::OsStr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The file that `program` names, if the worker allows it.
///
/// Links among the directories are followed before two paths are compared, and a link that is the file itself is not:
/// `/bin/cat` and `/bin/sh` may be the same file, and are not the same permission.
///
/// # Errors
/// Permanent when the program is not allowed; retryable when it is and this worker does not have it.
pub(super) fn resolve(program: &str, allowed: &[String]) -> Result<PathBuf, HandlerError> {
    let path = env::var_os("PATH").unwrap_or_default();
    if program.contains('/') && !program.starts_with('/') {
        return Err(HandlerError::fail(format!("the program `{program}` is neither a name nor an absolute path")));
    }
    let found = find(program, &path);
    let by_name = |entry: &String| entry == "*" || entry == program;
    let by_file = |entry: &String| found.is_some() && find(entry, &path) == found;
    if !allowed.iter().any(|entry| by_name(entry) || by_file(entry)) {
        return Err(HandlerError::fail(format!(
            "the program `{program}` is not allowed on this worker; to allow it, add it to \
             `worker.command.allowed_programs`"
        )));
    }
    found.ok_or_else(|| HandlerError::retry(format!("this worker has no program `{program}`")))
}

/// The file behind an absolute path, or the first one of that name in `path`.
fn find(program: &str, path: &OsStr) -> Option<PathBuf> {
    if program.contains('/') {
        return executable(Path::new(program));
    }
    env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .find_map(|directory| executable(&directory.join(program)))
}

fn executable(file: &Path) -> Option<PathBuf> {
    let directory = file.parent()?.canonicalize().ok()?;
    let file = directory.join(file.file_name()?);
    let metadata = file.metadata().ok()?;
    (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::resolve;
    use std::os::unix::fs::symlink;

    fn allowed(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|&entry| entry.to_owned()).collect()
    }

    #[test]
    fn a_program_is_allowed_by_name_or_by_path() {
        let sh = resolve("sh", &allowed(&["sh"])).expect("sh is allowed");
        assert!(sh.is_absolute());
        assert_eq!(resolve("sh", &allowed(&[sh.to_str().expect("it is text")])).expect("by its path"), sh);
        assert_eq!(resolve("/bin/sh", &allowed(&["sh"])).expect("the same file"), sh);
        assert_eq!(resolve("/bin/sh", &allowed(&["*"])).expect("all are allowed"), sh);
    }

    #[test]
    fn other_programs_are_refused_with_the_key_to_change() {
        for (program, list) in [("sh", vec!["cat"]), ("/bin/sh", vec![]), ("/tmp/../bin/sh", vec!["cat", "sh2"])] {
            let error = resolve(program, &allowed(&list)).expect_err(program);
            assert!(!error.is_retryable());
            assert!(error.message().contains("`worker.command.allowed_programs`"), "{error}");
        }
        assert!(!resolve("./sh", &allowed(&["*"])).expect_err("relative").is_retryable());
    }

    #[test]
    fn a_link_to_an_allowed_program_is_another_program_and_a_linked_directory_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let sh = resolve("sh", &allowed(&["sh"])).expect("sh is allowed");
        symlink(&sh, directory.path().join("other")).expect("a link");
        let other = directory.path().join("other");
        assert!(resolve(other.to_str().expect("it is text"), &allowed(&["sh"])).is_err());
        symlink(sh.parent().expect("it has one"), directory.path().join("bin")).expect("a link");
        let through = directory.path().join("bin/sh");
        assert_eq!(resolve(through.to_str().expect("it is text"), &allowed(&["sh"])).expect("the same file"), sh);
    }

    #[test]
    fn an_allowed_program_that_is_not_there_may_be_there_another_time() {
        let error = resolve("no-such-program", &allowed(&["no-such-program"])).expect_err("it is not there");
        assert!(error.is_retryable());
    }
}
