//! Makes the directory of a cluster: data, password, socket directory.

use crate::{
    Error, Installation,
    account::{Account, command},
    endpoint::SUPERUSER,
};
use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// The longest directory whose socket's path (`/.s.PGSQL.65535` more) fits into a socket address everywhere.
const LONGEST_SOCKET_DIR: usize = 88;

/// The paths inside a cluster's directory.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) password: PathBuf,
    pub(crate) owner: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        Self {
            data: root.join("data"),
            log: root.join("postgres.log"),
            password: root.join("password"),
            owner: root.join("owner.lock"),
            root,
        }
    }

    /// The major version that wrote the data; `None` when there is none yet.
    pub(crate) fn major(&self) -> Option<u32> {
        fs::read_to_string(self.data.join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    /// The superuser's password.
    pub(crate) fn read_password(&self) -> Result<String, Error> {
        let text = fs::read_to_string(&self.password).map_err(Error::io("read", &self.password))?;
        Ok(text.trim().to_owned())
    }

    /// Creates the directory, open for passing through so that another account can reach what is inside.
    pub(crate) fn create_root(&self) -> Result<(), Error> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o755).create(&self.root).map_err(Error::io("create", &self.root))
    }

    /// Runs `initdb`; the superuser's new password goes to a file that only the account can read.
    ///
    /// The data appears under its name when it is complete, so that an interrupted attempt is simply repeated.
    pub(crate) fn initdb(
        &self,
        installation: &Installation,
        account: Option<&Account>,
        durable: bool,
    ) -> Result<(), Error> {
        let unfinished = self.root.join("data.unfinished");
        let _ = fs::remove_dir_all(&unfinished);
        fs::DirBuilder::new().mode(0o700).create(&unfinished).map_err(Error::io("create", &unfinished))?;
        write_secret(&self.password, &new_password())?;
        if let Some(account) = account {
            account.own(&unfinished)?;
            account.own(&self.password)?;
        }
        let program = installation.program("initdb");
        let mut initdb = command(&program, account);
        initdb.args(["-U", SUPERUSER, "--encoding=UTF8", "--locale=C", "--no-instructions"]);
        initdb.args(["--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile"]).arg(&self.password);
        if !durable {
            initdb.arg("--no-sync");
        }
        let output = initdb.arg("-D").arg(&unfinished).output().map_err(Error::io("run", &program))?;
        if !output.status.success() {
            let said = [output.stdout, output.stderr].concat();
            let output = last_lines(&String::from_utf8_lossy(&said), 10);
            return Err(Error::Initdb { data: self.data.clone(), output });
        }
        fs::rename(&unfinished, &self.data).map_err(Error::io("create", &self.data))
    }

    /// A directory for the socket that only the account can enter; `None` when every path is too long.
    pub(crate) fn socket_dir(&self, account: Option<&Account>) -> Result<Option<SocketDir>, Error> {
        let beside = self.root.join("socket");
        if beside.as_os_str().len() <= LONGEST_SOCKET_DIR {
            return Ok(Some(SocketDir::create(beside, account, false)?));
        }
        let temporary = std::env::temp_dir().join(format!("tasker-{:08x}", rand::random::<u32>()));
        if temporary.as_os_str().len() <= LONGEST_SOCKET_DIR {
            return Ok(Some(SocketDir::create(temporary, account, true)?));
        }
        Ok(None)
    }
}

/// The directory of the Unix socket.
pub(crate) struct SocketDir {
    /// The directory itself.
    pub(crate) path: PathBuf,
    pub(crate) remove_on_drop: bool,
}

impl SocketDir {
    fn create(path: PathBuf, account: Option<&Account>, remove_on_drop: bool) -> Result<Self, Error> {
        fs::create_dir_all(&path).map_err(Error::io("create", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).map_err(Error::io("protect", &path))?;
        if let Some(account) = account {
            account.own(&path)?;
        }
        Ok(Self { path, remove_on_drop })
    }

    /// Removes what a server that was killed left behind. Only for the owner of the cluster, while no server runs.
    pub(crate) fn clear(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

impl Drop for SocketDir {
    fn drop(&mut self) {
        if self.remove_on_drop {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The last lines of a text.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn new_password() -> String {
    rand::random::<[u8; 18]>().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn write_secret(path: &Path, secret: &str) -> Result<(), Error> {
    let _ = fs::remove_file(path);
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| writeln!(file, "{secret}")).map_err(Error::io("write", path))
}
