//! One PostgreSQL for all test processes of a run, started by the first and stopped after the last.
//!
//! Works with threads (`cargo test`), with one process per test (nextest), and for test binaries that run one after
//! another. Every test process holds a shared lock on a file while it lives. The process that starts the server also
//! starts a *reaper*: a small process that waits for an exclusive lock, which it gets when the last test process is
//! gone, and then stops the server while it holds the lock. Nothing is durable here; data stays until the next run,
//! so that template databases are reused.

use crate::{
    Cluster, Download, Endpoint, Error, Lifetime, Options, Search, account::can_hold_a_cluster, initdb::Layout,
    pidfile::PidFile,
};
use nix::unistd::geteuid;
use std::{
    fs::{self, File},
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

/// Two ways of waiting for an exclusive lock on `$1` and then running the shell command `$2`.
const WAITERS: [(&str, &[&str]); 2] = [
    ("flock", &["-x", "USERS", "sh", "-c", "SCRIPT"]),
    (
        "perl",
        &[
            "-e",
            "open(my $f, '<', $ARGV[0]) or die; flock($f, 2) or die; system('sh', '-c', $ARGV[1]);",
            "USERS",
            "SCRIPT",
        ],
    ),
];

/// The PostgreSQL shared by the tests.
#[derive(Debug)]
pub struct Shared {
    endpoint: Endpoint,
    _user: File,
}

static SHARED: Mutex<Option<&'static Shared>> = Mutex::new(None);

impl Shared {
    /// The running server; started when this is the first test process that asks. Blocks: about a second when a new
    /// cluster has to be created, a fifth of that when one is there, a millisecond when it runs.
    ///
    /// # Errors
    /// As [`Cluster::start`]; [`Error::NotFound`] says what to install.
    pub fn get() -> Result<&'static Self, Error> {
        Self::get_in(&parent_directory())
    }

    /// As [`Self::get`], with the cluster's directory below `parent` instead of the temporary directory. The first call
    /// in a process decides.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn get_in(parent: &Path) -> Result<&'static Self, Error> {
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(shared) = *shared {
            return Ok(shared);
        }
        let download = Download::from_env();
        let search = Search::from_env(&download.cache);
        let installation = download.find_or_fetch(&search, None, |message| tracing::info!("{message}"))?;
        let root = own_directory(parent, installation.major)?;
        let joined = Self::join(&Options { installation: Some(installation), ..Options::new(root) })?;
        Ok(*shared.insert(Box::leak(Box::new(joined))))
    }

    /// The URL of the database `postgres`, for the superuser: create databases there.
    pub fn admin_url(&self) -> String {
        self.endpoint.url("postgres")
    }

    /// The URL of a database over the Unix socket.
    pub fn url(&self, database: &str) -> String {
        self.endpoint.url(database)
    }

    /// The URL of a database over TCP.
    pub fn tcp_url(&self, database: &str) -> String {
        self.endpoint.tcp_url(database)
    }

    /// Joins the users of the server in a directory; starts it when it does not run.
    fn join(options: &Options) -> Result<Self, Error> {
        let layout = Layout::new(&options.root);
        layout.create_root()?;
        let users = layout.root.join("users.lock");
        let user = open_lock(&users)?;
        user.lock_shared().map_err(Error::io("lock", &users))?;
        let starting = layout.root.join("starting.lock");
        let turn = open_lock(&starting)?;
        turn.lock().map_err(Error::io("lock", &starting))?;
        let endpoint = match running(&layout)? {
            Some(endpoint) => endpoint,
            None => start(options, &layout, &users)?,
        };
        Ok(Self { endpoint, _user: user })
    }
}

/// The endpoint of a server that runs and is ready.
fn running(layout: &Layout) -> Result<Option<Endpoint>, Error> {
    match PidFile::of_running_server(&layout.data)?.filter(|file| file.ready) {
        Some(file) => {
            let password = layout.read_password()?;
            Ok(Some(Endpoint { port: file.port, socket_dir: file.socket_dir, password }))
        }
        None => Ok(None),
    }
}

fn start(options: &Options, layout: &Layout, users: &Path) -> Result<Endpoint, Error> {
    let options = Options {
        durable: false,
        lifetime: Lifetime::Detached,
        settings: vec![("max_connections".to_owned(), "500".to_owned())],
        ..options.clone()
    };
    let cluster = Cluster::start(&options).or_else(|error| match error {
        // Without fsync a crash of the machine may have ruined the data, which is nobody's.
        Error::Start { .. } => {
            fs::remove_dir_all(&layout.data).map_err(Error::io("remove", &layout.data))?;
            Cluster::start(&options)
        }
        error => Err(error),
    })?;
    start_reaper(&cluster, layout, users)?;
    let endpoint = cluster.endpoint().clone();
    cluster.detach();
    Ok(endpoint)
}

fn start_reaper(cluster: &Cluster, layout: &Layout, users: &Path) -> Result<(), Error> {
    let pid = cluster.pid().unwrap_or_default();
    let script = format!(
        "[ \"$(head -n 1 \"$PIDFILE\")\" = {pid} ] || exit 0; kill -INT {pid}; \
         n=0; while kill -0 {pid} 2>/dev/null && [ $n -lt 200 ]; do sleep 0.05; n=$((n+1)); done"
    );
    for (program, arguments) in WAITERS {
        let mut reaper = Command::new(program);
        for &argument in arguments {
            match argument {
                "USERS" => reaper.arg(users),
                "SCRIPT" => reaper.arg(&script),
                other => reaper.arg(other),
            };
        }
        reaper.env("PIDFILE", PidFile::path(&layout.data)).process_group(0).current_dir("/");
        if reaper.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().is_ok() {
            return Ok(());
        }
    }
    Err(Error::NoReaper)
}

fn open_lock(path: &Path) -> Result<File, Error> {
    let open = File::options().create(true).truncate(false).read(true).write(true).open(path);
    open.map_err(Error::io("open", path))
}

/// The first usual place for temporary files that the server's account can reach.
fn parent_directory() -> PathBuf {
    let candidates = [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into()];
    candidates.iter().find(|dir| can_hold_a_cluster(dir)).unwrap_or(&candidates[0]).clone()
}

/// The directory of this user for servers of one major version.
fn own_directory(parent: &Path, major: u32) -> Result<PathBuf, Error> {
    let uid = geteuid().as_raw();
    let root = parent.join(format!("tasker-test-{uid}-pg{major}"));
    match fs::symlink_metadata(&root) {
        Ok(found) if found.uid() != uid || !found.is_dir() => {
            Err(Error::ForeignDirectory { data: root, owner: found.uid().to_string() })
        }
        _ => Ok(root),
    }
}
