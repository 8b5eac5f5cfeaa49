//! Finds PostgreSQL programs on this machine.

use crate::{Error, OLDEST_MAJOR};
use std::{
    cmp::Reverse,
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant},
};

/// Where distributions put the programs: the directory, how its entries start, and the way from there to the programs.
const USUAL_PLACES: [(&str, &str, &str); 7] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr/lib", "postgresql", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/opt/homebrew/opt", "postgresql", "bin"),
    ("/usr/local/opt", "postgresql", "bin"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
    ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
];

/// A directory with `postgres` and `initdb`, and their version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// The directory of the programs.
    pub bin: PathBuf,
    /// The major version, such as 15.
    pub major: u32,
    /// The minor version, such as 18 in 15.18.
    pub minor: u32,
}

impl Installation {
    /// Asks the programs in a directory for their version; `None` when they are not PostgreSQL's.
    pub fn probe(bin: &Path) -> Option<Self> {
        if !bin.join("initdb").is_file() {
            return None;
        }
        let output = version_output(&bin.join("postgres")).ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let (major, minor) = parse_version(text.strip_prefix("postgres (PostgreSQL) ")?)?;
        Some(Self { bin: bin.to_owned(), major, minor })
    }

    /// The path of one program.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

impl fmt::Display for Installation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} in {}", self.major, self.minor, self.bin.display())
    }
}

/// A program that was just unpacked is "busy" while a child process forked meanwhile still holds it open for writing.
fn version_output(program: &Path) -> io::Result<Output> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match Command::new(program).arg("--version").output() {
            Err(e) if e.kind() == io::ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// Reads `15.18 (Debian …)`, `18beta1` or `16.2`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().ok());
    Some((numbers.next()??, numbers.next().flatten().unwrap_or(0)))
}

/// Where to look for PostgreSQL programs.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// `TASKER_PG_BIN`: when set, nothing else is looked at.
    pub only: Option<PathBuf>,
    /// `PATH`.
    pub path: OsString,
    /// Directories to try besides those on the path.
    pub places: Vec<PathBuf>,
}

impl Search {
    /// Looks at `TASKER_PG_BIN`, `PATH`, what `pg_config` says, the distributions' usual places, and `cache`.
    pub fn from_env(cache: &Path) -> Self {
        let mut places: Vec<PathBuf> = pg_config().into_iter().collect();
        for (parent, prefix, tail) in USUAL_PLACES {
            places.extend(entries(Path::new(parent), prefix).map(|dir| dir.join(tail)));
        }
        places.extend(entries(cache, "postgresql-").map(|dir| dir.join("bin")));
        Self {
            only: std::env::var_os("TASKER_PG_BIN").filter(|v| !v.is_empty()).map(PathBuf::from),
            path: std::env::var_os("PATH").unwrap_or_default(),
            places,
        }
    }

    /// The usable installations, the newest first.
    ///
    /// # Errors
    /// [`Error::BadBinDir`] when `TASKER_PG_BIN` names a directory without usable programs.
    pub fn discover(&self) -> Result<Vec<Installation>, Error> {
        if let Some(dir) = &self.only {
            return match Installation::probe(dir).filter(is_usable) {
                Some(installation) => Ok(vec![installation]),
                None => Err(Error::BadBinDir { dir: dir.clone() }),
            };
        }
        let mut dirs: Vec<PathBuf> = Vec::new();
        for dir in std::env::split_paths(&self.path).chain(self.places.iter().cloned()) {
            let Some(dir) = real_bin_dir(&dir) else { continue };
            if !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
        let mut found: Vec<_> = dirs.iter().filter_map(|dir| Installation::probe(dir)).filter(is_usable).collect();
        found.sort_by_key(|i| Reverse((i.major, i.minor)));
        Ok(found)
    }
}

fn is_usable(installation: &Installation) -> bool {
    installation.major >= OLDEST_MAJOR
}

/// Follows links such as `/usr/local/bin/postgres`, so that one installation is found once.
fn real_bin_dir(dir: &Path) -> Option<PathBuf> {
    let real = dir.join("postgres").canonicalize().ok()?.parent()?.to_owned();
    Some(if real.join("initdb").is_file() { real } else { dir.to_owned() })
}

fn pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok().filter(|o| o.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().into())
}

fn entries(parent: &Path, prefix: &'static str) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    entries.filter(move |e| e.file_name().to_string_lossy().starts_with(prefix)).map(|e| e.path())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn fake(root: &Path, name: &str, version: &str) -> PathBuf {
        let bin = root.join(name);
        fs::create_dir_all(&bin).unwrap();
        for program in ["postgres", "initdb"] {
            let file = bin.join(program);
            fs::write(&file, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        bin.canonicalize().unwrap()
    }

    #[test]
    fn the_newest_usable_version_comes_first_and_each_installation_once() {
        let dir = tempfile::tempdir().unwrap();
        let old = fake(dir.path(), "a", "9.6.1");
        let fifteen = fake(dir.path(), "b", "15.18 (Debian 15.18-0+deb12u1)");
        let eighteen = fake(dir.path(), "c", "18.6");
        let linked = dir.path().join("linked");
        fs::create_dir(&linked).unwrap();
        symlink(eighteen.join("postgres"), linked.join("postgres")).unwrap();
        symlink(eighteen.join("initdb"), linked.join("initdb")).unwrap();
        let search = Search {
            only: None,
            path: std::env::join_paths([&linked, &old]).unwrap(),
            places: vec![fifteen.clone(), eighteen.clone(), dir.path().join("absent")],
        };
        let found = search.discover().unwrap();
        assert_eq!(
            found,
            [Installation { bin: eighteen, major: 18, minor: 6 }, Installation { bin: fifteen, major: 15, minor: 18 }]
        );
    }

    #[test]
    fn a_named_directory_is_the_only_one_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let sixteen = fake(dir.path(), "a", "16.2");
        let eighteen = fake(dir.path(), "b", "18.6");
        let search = Search { only: Some(sixteen.clone()), path: OsString::new(), places: vec![eighteen] };
        assert_eq!(search.discover().unwrap(), [Installation { bin: sixteen, major: 16, minor: 2 }]);
    }

    #[test]
    fn a_named_directory_without_usable_programs_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let old = fake(dir.path(), "old", "13.4");
        for only in [dir.path().to_owned(), old] {
            let error = Search { only: Some(only.clone()), ..Search::default() }.discover().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "TASKER_PG_BIN = {}: expected the directory that holds the `postgres` and `initdb` programs of PostgreSQL 14 or later",
                    only.display()
                )
            );
        }
    }

    #[test]
    fn versions_are_read_from_what_the_program_prints() {
        assert_eq!(parse_version("15.18 (Debian 15.18-0+deb12u1)\n"), Some((15, 18)));
        assert_eq!(parse_version("18beta1"), Some((18, 0)));
        assert_eq!(parse_version("17\n"), Some((17, 0)));
        assert_eq!(parse_version("devel"), None);
    }
}
