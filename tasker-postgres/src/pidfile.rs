//! Reads `postmaster.pid`, where a server says who and where it is, and tells a running server from a leftover.

use crate::Error;
use nix::unistd::Pid;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What `postmaster.pid` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PidFile {
    pub(crate) pid: Pid,
    pub(crate) port: u16,
    pub(crate) socket_dir: Option<PathBuf>,
    /// Whether the server accepts connections.
    pub(crate) ready: bool,
}

impl PidFile {
    /// The path of the file in a data directory.
    pub(crate) fn path(data: &Path) -> PathBuf {
        data.join("postmaster.pid")
    }

    /// Reads the file; `None` when there is none or it is not written completely.
    pub(crate) fn read(data: &Path) -> Result<Option<Self>, Error> {
        match fs::read_to_string(Self::path(data)) {
            Ok(text) => Ok(parse(&text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", Self::path(data))(e)),
        }
    }

    /// The file's content if its server runs. A leftover of a server that is gone is removed, because PostgreSQL itself
    /// refuses to start when an unrelated process has taken over the number.
    pub(crate) fn of_running_server(data: &Path) -> Result<Option<Self>, Error> {
        let path = Self::path(data);
        match Self::read(data)? {
            Some(file) if is_server_of(file.pid, data) => Ok(Some(file)),
            None if !path.exists() => Ok(None),
            _ => {
                tracing::info!(path = %path.display(), "removing the pid file of a server that is gone");
                fs::remove_file(&path).map_err(Error::io("remove", &path))?;
                Ok(None)
            }
        }
    }
}

/// The lines are: pid, data directory, start time, port, socket directory, address, shared memory, status.
fn parse(text: &str) -> Option<PidFile> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let pid: i32 = lines.first()?.parse().ok()?;
    Some(PidFile {
        pid: Pid::from_raw(pid.abs()),
        port: lines.get(3).and_then(|port| port.parse().ok()).unwrap_or(0),
        socket_dir: lines.get(4).filter(|dir| !dir.is_empty()).map(PathBuf::from),
        ready: lines.get(7) == Some(&"ready"),
    })
}

/// Whether the process runs and is a PostgreSQL that works in this data directory.
pub(crate) fn is_server_of(pid: Pid, data: &Path) -> bool {
    if !running_name(pid).is_some_and(|name| name.contains("postgres")) {
        return false;
    }
    match (fs::read_link(format!("/proc/{pid}/cwd")), data.canonicalize()) {
        (Ok(cwd), Ok(data)) => cwd == data,
        _ => true,
    }
}

/// The name of the program of a running process; `None` when it has ended, even if nobody has asked for its status yet.
#[cfg(target_os = "linux")]
pub(crate) fn running_name(pid: Pid) -> Option<String> {
    // `pid (name) state …`; Z is a process that has ended.
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (name, rest) = stat.split_once('(')?.1.rsplit_once(')')?;
    (!rest.trim_start().starts_with('Z')).then(|| name.to_owned())
}

/// The name of the program of a running process; `None` when it has ended.
#[cfg(not(target_os = "linux"))]
pub(crate) fn running_name(pid: Pid) -> Option<String> {
    let ps = std::process::Command::new("ps").args(["-o", "stat=,comm=", "-p", &pid.to_string()]).output().ok()?;
    let line = String::from_utf8_lossy(&ps.stdout).trim().to_owned();
    (!line.is_empty() && !line.starts_with('Z')).then_some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_ready_server_are_understood() {
        let file = parse("4711\n/srv/data\n1763691000\n5433\n/srv/socket\n127.0.0.1\n  5432001   32769\nready   \n");
        let expected =
            PidFile { pid: Pid::from_raw(4711), port: 5433, socket_dir: Some("/srv/socket".into()), ready: true };
        assert_eq!(file, Some(expected));
        assert!(!parse("4711\n/srv/data\n1\n5433\n\n127.0.0.1\n1 2\nstarting\n").unwrap().ready);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn a_pid_file_whose_number_belongs_to_another_program_is_removed() {
        let data = tempfile::tempdir().unwrap();
        let path = PidFile::path(data.path());
        fs::write(&path, format!("{}\n{}\n1\n5433\n\n127.0.0.1\n", std::process::id(), data.path().display())).unwrap();
        assert_eq!(PidFile::of_running_server(data.path()).unwrap(), None);
        assert!(!path.exists());
    }
}
