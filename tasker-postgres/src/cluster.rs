//! One PostgreSQL server in one directory, for as long as its owner lives.

use crate::{
    Endpoint, Error, Installation, Lifetime, Options, Search,
    account::{Account, command},
    initdb::{Layout, SocketDir, last_lines},
    pidfile::PidFile,
    process::{Server, stop_other},
};
use std::{
    fs::{self, File},
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Settings of every private cluster: small, local, one user.
const SETTINGS: [&str; 14] = [
    "listen_addresses=127.0.0.1",
    "max_connections=200",
    "shared_buffers=128MB",
    "max_wal_size=2GB",
    "checkpoint_timeout=15min",
    "wal_level=minimal",
    "max_wal_senders=0",
    "wal_compression=on",
    "autovacuum_naptime=15s",
    "jit=off",
    "timezone=UTC",
    "log_timezone=UTC",
    "log_min_messages=warning",
    "log_checkpoints=off",
];
/// Commits still reach the operating system, so that they survive a killed server, but not a crash of the machine.
const NOT_DURABLE: [&str; 2] = ["fsync=off", "full_page_writes=off"];
const POLL: Duration = Duration::from_millis(10);
const ORPHAN_PATIENCE: Duration = Duration::from_secs(20);
/// A log longer than this is started anew.
const LOG_LIMIT_BYTES: u64 = 16 << 20;

/// A running private server. Dropping it stops the server.
///
/// The server belongs to this process: it runs in a process group of its own, so that Ctrl-C reaches only the owner,
/// and on Linux the kernel stops it when the owner dies, even by `kill -9`. One directory has one owner at a time.
pub struct Cluster {
    options: Options,
    installation: Installation,
    account: Option<Account>,
    layout: Layout,
    endpoint: Endpoint,
    socket_dir: Option<SocketDir>,
    server: Option<Server>,
    _owner: File,
}

impl Cluster {
    /// Starts the server, after creating the cluster when the directory has none, and waits until it is ready.
    ///
    /// A server left behind by an owner that died is stopped first; data of a server that crashed is recovered.
    ///
    /// # Errors
    /// See [`Error`]: programs not found, directory in use or out of reach, `initdb` or start failed.
    pub fn start(options: &Options) -> Result<Self, Error> {
        let layout = Layout::new(&options.root);
        layout.create_root()?;
        let owner = become_owner(&layout)?;
        stop_orphan(&layout)?;
        let installation = choose_installation(options, &layout)?;
        let account = Account::for_data(&layout.data)?;
        if let Some(account) = &account {
            account.check_reaches(&layout.root)?;
            account.check_reaches(&installation.bin)?;
        }
        if layout.major().is_none() {
            (options.progress)(&format!(
                "creating a PostgreSQL {} cluster in {}",
                installation.major,
                layout.root.display()
            ));
            layout.initdb(&installation, account.as_ref(), options.durable)?;
        }
        let socket_dir = layout.socket_dir(account.as_ref())?;
        let endpoint = Endpoint {
            port: 0,
            socket_dir: socket_dir.as_ref().map(|dir| dir.path.clone()),
            password: layout.read_password()?,
        };
        let options = options.clone();
        let mut cluster =
            Self { options, installation, account, layout, endpoint, socket_dir, server: None, _owner: owner };
        cluster.launch()?;
        Ok(cluster)
    }

    /// The URL of a database over the Unix socket, or over TCP when there is no socket.
    pub fn url(&self, database: &str) -> String {
        self.endpoint.url(database)
    }

    /// The URL of a database over TCP, with the password.
    pub fn tcp_url(&self, database: &str) -> String {
        self.endpoint.tcp_url(database)
    }

    /// Where the server listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The programs in use.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// The cluster's directory, absolute.
    pub fn root(&self) -> &Path {
        &self.layout.root
    }

    /// The server's process number; `None` when it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(|server| server.pid().as_raw().cast_unsigned())
    }

    /// Stops the server: open transactions are rolled back, data is written out. Does nothing when it is stopped.
    /// The directory stays ours until the value is dropped.
    ///
    /// # Errors
    /// [`Error::Io`] when the process cannot be signalled or waited for.
    pub fn stop(&mut self) -> Result<(), Error> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        server.stop().map_err(Error::io("stop", self.installation.program("postgres")))
    }

    /// Kills the server and its backends with SIGKILL, as a crash would; for tests of faults.
    ///
    /// # Errors
    /// [`Error::Io`] when the process cannot be signalled or waited for.
    pub fn kill9(&mut self) -> Result<(), Error> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        server.kill9().map_err(Error::io("kill", self.installation.program("postgres")))
    }

    /// Stops the server if it runs and starts it on the same port and socket; recovers after [`Self::kill9`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn restart(&mut self) -> Result<(), Error> {
        self.stop()?;
        stop_orphan(&self.layout)?;
        self.launch()
    }

    /// Lets go of a server started with [`Lifetime::Detached`].
    pub(crate) fn detach(mut self) {
        if let Some(dir) = &mut self.socket_dir {
            dir.remove_on_drop = false;
        }
        self.server = None;
    }

    /// Starts the process until it is ready; tries again when the port was taken meanwhile.
    fn launch(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let fixed_port = self.endpoint.port;
        self.socket_dir.iter().for_each(SocketDir::clear);
        loop {
            self.endpoint.port = if fixed_port == 0 { free_port()? } else { fixed_port };
            let log = Log::open(&self.layout.log)?;
            let program = self.installation.program("postgres");
            let bound = self.options.lifetime == Lifetime::WithOwner;
            let mut server = Server::spawn(self.command(&log)?, bound).map_err(Error::io("run", &program))?;
            match self.wait_until_ready(&mut server, started)? {
                None => {
                    self.server = Some(server);
                    return Ok(());
                }
                Some(status) => {
                    let said = log.read();
                    if !is_passing(&said) || started.elapsed() > self.options.start_timeout {
                        let tail = last_lines(&said, 5);
                        return Err(Error::Start { status, log: self.layout.log.clone(), tail });
                    }
                    thread::sleep(POLL);
                }
            }
        }
    }

    fn command(&self, log: &Log) -> Result<Command, Error> {
        let mut postgres = command(self.installation.program("postgres"), self.account.as_ref());
        postgres.arg("-D").arg(&self.layout.data).args(["-p", &self.endpoint.port.to_string()]);
        let socket_dir = self.endpoint.socket_dir.as_deref().unwrap_or(Path::new(""));
        postgres.arg("-k").arg(socket_dir);
        let durability: &[&str] = if self.options.durable { &[] } else { &NOT_DURABLE };
        for setting in SETTINGS.iter().chain(durability) {
            postgres.args(["-c", setting]);
        }
        for (name, value) in &self.options.settings {
            postgres.arg("-c").arg(format!("{name}={value}"));
        }
        postgres.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        let file = || log.file.try_clone().map_err(Error::io("open", &self.layout.log));
        postgres.stdin(Stdio::null()).stdout(file()?).stderr(file()?);
        Ok(postgres)
    }

    /// Waits for the server; gives its exit status when it ended instead.
    fn wait_until_ready(&self, server: &mut Server, started: Instant) -> Result<Option<String>, Error> {
        loop {
            if let Some(status) =
                server.ended().map_err(Error::io("wait for", self.installation.program("postgres")))?
            {
                return Ok(Some(status));
            }
            if PidFile::read(&self.layout.data)?.is_some_and(|file| file.ready && file.pid == server.pid()) {
                return Ok(None);
            }
            if started.elapsed() > self.options.start_timeout {
                let _ = server.kill9();
                let waited_s = self.options.start_timeout.as_secs();
                return Err(Error::NotReady { waited_s, log: self.layout.log.clone() });
            }
            thread::sleep(POLL);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "could not stop the private PostgreSQL");
        }
    }
}

/// Takes the lock that says whose directory this is; the lock goes away with the process, however it ends.
fn become_owner(layout: &Layout) -> Result<File, Error> {
    let path = &layout.owner;
    let open = File::options().create(true).truncate(false).read(true).write(true).open(path);
    let mut file = open.map_err(Error::io("open", path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let unknown = || "?".to_owned();
            let owner = fs::read_to_string(path).ok().map(|s| s.trim().to_owned()).filter(|s| !s.is_empty());
            let postgres = PidFile::read(&layout.data).ok().flatten().map(|file| file.pid.to_string());
            return Err(Error::AlreadyRunning {
                root: layout.root.clone(),
                owner: owner.unwrap_or_else(unknown),
                postgres: postgres.unwrap_or_else(unknown),
            });
        }
        Err(fs::TryLockError::Error(e)) => return Err(Error::io("lock", path)(e)),
    }
    let write = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
    write.map_err(Error::io("write", path))?;
    Ok(file)
}

/// Stops a server whose owner died, and clears away the pid file of one that is gone.
fn stop_orphan(layout: &Layout) -> Result<(), Error> {
    let Some(file) = PidFile::of_running_server(&layout.data)? else { return Ok(()) };
    tracing::warn!(pid = file.pid.as_raw(), "stopping a PostgreSQL that an earlier owner left behind");
    if stop_other(file.pid, &layout.data, ORPHAN_PATIENCE) {
        return Ok(());
    }
    let postgres = file.pid.to_string();
    Err(Error::AlreadyRunning { root: layout.root.clone(), owner: "?".to_owned(), postgres })
}

/// The programs to use: existing data decides on the major version.
fn choose_installation(options: &Options, layout: &Layout) -> Result<Installation, Error> {
    let required = layout.major();
    let wrong = |required, available: String, reason: String| Error::WrongMajor {
        data: layout.data.clone(),
        required,
        available,
        reason,
    };
    if let Some(given) = &options.installation {
        return match required {
            Some(major) if major != given.major => {
                Err(wrong(major, given.to_string(), "these programs were asked for".to_owned()))
            }
            _ => Ok(given.clone()),
        };
    }
    let search = Search::from_env(&options.download.cache);
    options.download.find_or_fetch(&search, required, options.progress).map_err(|error| match (error, required) {
        (Error::NotFound { reason, .. }, Some(major)) => {
            let found: Vec<_> = search.discover().unwrap_or_default().iter().map(ToString::to_string).collect();
            wrong(major, if found.is_empty() { "none".to_owned() } else { found.join(", ") }, reason)
        }
        (error, _) => error,
    })
}

fn free_port() -> Result<u16, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(Error::io("listen on", "127.0.0.1"))
}

/// Whether a failed start is worth another try: a port or shared memory that is just being given back.
fn is_passing(log: &str) -> bool {
    ["Address already in use", "is still in use"].iter().any(|sign| log.contains(sign))
}

/// The server's log, and where in it this start begins.
struct Log {
    file: File,
    path: PathBuf,
    begins: usize,
}

impl Log {
    fn open(path: &Path) -> Result<Self, Error> {
        if fs::metadata(path).is_ok_and(|m| m.len() > LOG_LIMIT_BYTES) {
            let _ = fs::rename(path, path.with_extension("log.1"));
        }
        let file = File::options().create(true).append(true).open(path).map_err(Error::io("open", path))?;
        let begins = fs::read(path).map_or(0, |text| text.len());
        Ok(Self { file, path: path.to_owned(), begins })
    }

    /// What the server has said since.
    fn read(&self) -> String {
        let text = fs::read(&self.path).unwrap_or_default();
        String::from_utf8_lossy(text.get(self.begins..).unwrap_or_default()).into_owned()
    }
}
