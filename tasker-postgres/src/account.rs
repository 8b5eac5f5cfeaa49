//! Which account PostgreSQL runs as. It refuses to run as root, so root drops its privileges for it.

use crate::Error;
use nix::unistd::{Uid, User, geteuid};
use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The account of the server's processes.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    uid: u32,
    gid: u32,
    name: String,
}

impl Account {
    /// The account for a cluster with this data directory; `None` means ours.
    ///
    /// As root: the owner of existing data, else the user behind `sudo`, else `postgres`, else `nobody`.
    pub(crate) fn for_data(data: &Path) -> Result<Option<Self>, Error> {
        let owner = fs::metadata(data).ok().map(|m| m.uid());
        if !geteuid().is_root() {
            return match owner {
                Some(uid) if uid != geteuid().as_raw() => {
                    Err(Error::ForeignDirectory { data: data.to_owned(), owner: user_name(uid) })
                }
                _ => Ok(None),
            };
        }
        let owner = owner.filter(|&uid| uid != 0).and_then(by_uid);
        owner
            .or_else(behind_sudo)
            .or_else(|| by_name("postgres"))
            .or_else(|| by_name("nobody"))
            .map(Some)
            .ok_or(Error::NoAccount)
    }

    /// Gives a file or directory to this account.
    pub(crate) fn own(&self, path: &Path) -> Result<(), Error> {
        chown(path, Some(self.uid), Some(self.gid)).map_err(Error::io("change the owner of", path))
    }

    /// Checks that the account can enter `dir`, by trying.
    pub(crate) fn check_reaches(&self, dir: &Path) -> Result<(), Error> {
        let mut probe = command("/bin/sh", Some(self));
        let status = probe.args(["-c", ":"]).current_dir(dir).stdin(Stdio::null()).status();
        if status.is_ok_and(|s| s.success()) {
            return Ok(());
        }
        Err(Error::Unreachable {
            account: self.name.clone(),
            path: dir.to_owned(),
            blocked_by: self.blocked_by(dir).unwrap_or_else(|| dir.to_owned()),
        })
    }

    fn blocked_by(&self, dir: &Path) -> Option<PathBuf> {
        let mut way: Vec<&Path> = dir.ancestors().collect();
        way.reverse();
        let closed = |dir: &&&Path| {
            fs::metadata(dir).is_ok_and(|m| {
                let bit = if m.uid() == self.uid {
                    0o100
                } else if m.gid() == self.gid {
                    0o010
                } else {
                    0o001
                };
                m.mode() & bit == 0
            })
        };
        way.iter().find(closed).map(|dir| dir.to_path_buf())
    }
}

/// A command of PostgreSQL, run as `account`, untouched by the caller's own PostgreSQL settings and language.
pub(crate) fn command(program: impl AsRef<Path>, account: Option<&Account>) -> Command {
    let mut command = Command::new(program.as_ref());
    command.current_dir("/").env("LC_ALL", "C");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    if let Some(account) = account {
        command.uid(account.uid).gid(account.gid).env("HOME", "/").env("USER", &account.name);
    }
    command
}

/// Whether a directory can be entered by the account that a new cluster below it would run as.
pub(crate) fn can_hold_a_cluster(dir: &Path) -> bool {
    match Account::for_data(&dir.join("no-such-data")) {
        Ok(Some(account)) => account.check_reaches(dir).is_ok(),
        Ok(None) => true,
        Err(_) => false,
    }
}

fn behind_sudo() -> Option<Account> {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    let (uid, gid) = (number("SUDO_UID")?, number("SUDO_GID")?);
    (uid != 0).then(|| Account { uid, gid, name: user_name(uid) })
}

fn by_name(name: &str) -> Option<Account> {
    User::from_name(name).ok().flatten().map(from_user)
}

fn by_uid(uid: u32) -> Option<Account> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(from_user)
}

fn from_user(user: User) -> Account {
    Account { uid: user.uid.as_raw(), gid: user.gid.as_raw(), name: user.name }
}

fn user_name(uid: u32) -> String {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}
