//! The real programs, started, watched and killed.
//!
//! `cargo test --workspace` builds them, because each of their packages has a test of its own program. Where only this
//! package is tested they are built on first use.

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tasker_client::Client;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::Notify,
    time::timeout,
};

/// The longest that a test waits for a process.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The command.
pub const TASKER: &str = "tasker";
/// The orchestration service.
pub const ORCHESTRATION: &str = "tasker-orchestration";
/// The worker service.
pub const WORKER: &str = "tasker-worker";
/// The example of a worker with instruments of its own.
pub const OWN_METRICS: &str = "examples/own_metrics";

/// Settings that make services quick to notice and to stop.
const QUICK: &[(&str, &str)] = &[
    ("TASKER_ENV", "test"),
    ("RUST_LOG", "info"),
    ("TASKER__WORKER__LEASE_MS", "1500"),
    ("TASKER__WORKER__HEARTBEAT_INTERVAL_MS", "300"),
    ("TASKER__WORKER__SHUTDOWN_GRACE_MS", "10000"),
    ("TASKER__ORCHESTRATION__SHUTDOWN_GRACE_MS", "10000"),
    ("TASKER__DATABASE__MAX_CONNECTIONS", "5"),
];

/// A program that runs. It is killed when this is dropped; when a test fails, what it wrote is shown.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    written: Arc<Written>,
}

#[derive(Debug, Default)]
struct Written {
    lines: Mutex<Vec<String>>,
    more: Notify,
}

/// A command for one of the programs that sees nothing of this process's settings.
///
/// # Errors
/// The program is missing and cannot be built.
pub fn command(program: &str) -> Result<Command> {
    let mut command = Command::new(binary(program)?);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["TASKER", "OTEL_", "TELEMETRY_", "DATABASE_URL", "RUST_LOG", "PG"].iter().any(|p| text.starts_with(p)) {
            command.env_remove(&name);
        }
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

/// Runs `tasker` with these arguments until it ends.
///
/// # Errors
/// It cannot be started, or does not end in time.
pub async fn tasker(url: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = command(TASKER)?;
    command.args(arguments).env("TASKER_URL", url).env("XDG_CONFIG_HOME", "/nonexistent");
    Ok(timeout(PATIENCE, command.output()).await.with_context(|| format!("tasker {arguments:?}"))??)
}

impl Process {
    /// Starts a service on the database at `url`, with further settings by their variables.
    ///
    /// # Errors
    /// The program is missing.
    pub fn service(program: &'static str, url: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let mut command = command(program)?;
        command.env("DATABASE_URL", url).envs(QUICK.iter().copied()).envs(settings.iter().copied());
        Self::start(program, command)
    }

    /// Starts a program.
    ///
    /// # Errors
    /// The machine refuses.
    pub fn start(name: &'static str, mut command: Command) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let written = Arc::new(Written::default());
        tokio::spawn(collect(child.stdout.take().context("its output")?, Arc::clone(&written)));
        tokio::spawn(collect(child.stderr.take().context("its errors")?, Arc::clone(&written)));
        Ok(Self { name, child, written })
    }

    /// Waits for the service's pages; answers with their address, such as `http://127.0.0.1:41234`.
    ///
    /// # Errors
    /// It ends, or says nothing in time.
    pub async fn url(&self) -> Result<String> {
        let line = self.wrote("listen").await?;
        address(&line).with_context(|| format!("no address in `{line}`"))
    }

    /// Where its pages are, once it has said so.
    pub fn listens(&self) -> Option<String> {
        let lines = self.written.locked();
        let line = lines.iter().find(|line| line.contains("listen"))?;
        address(line)
    }

    /// What it wrote last.
    pub fn last_line(&self) -> String {
        self.written.locked().last().cloned().unwrap_or_default()
    }

    /// A client of the service.
    ///
    /// # Errors
    /// As [`Self::url`].
    pub async fn client(&self) -> Result<Client> {
        Ok(Client::new(&self.url().await?)?)
    }

    /// Waits until it has written a line with `text`; answers with the first such line.
    ///
    /// # Errors
    /// It does not in time; the message has what it wrote.
    pub async fn wrote(&self, text: &str) -> Result<String> {
        let found = async {
            loop {
                let more = self.written.more.notified();
                tokio::pin!(more);
                more.as_mut().enable();
                if let Some(line) = self.written.locked().iter().find(|line| line.contains(text)) {
                    return line.clone();
                }
                more.await;
            }
        };
        match timeout(PATIENCE, found).await {
            Ok(line) => Ok(line),
            Err(_) => bail!("{} did not write `{text}`:\n{}", self.name, self.text()),
        }
    }

    /// All it has written.
    pub fn text(&self) -> String {
        self.written.locked().join("\n")
    }

    /// Its process id.
    ///
    /// # Errors
    /// It has ended and was waited for.
    pub fn pid(&self) -> Result<i32> {
        Ok(i32::try_from(self.child.id().context("it has ended")?)?)
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// It has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid()?), signal)?)
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// It has ended before.
    pub async fn kill9(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.ended().await.map(drop)
    }

    /// SIGTERM; it must end with exit code 0.
    ///
    /// # Errors
    /// It does not.
    pub async fn drain(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.ended().await?;
        ensure!(status.code() == Some(0), "{} ended with {status}:\n{}", self.name, self.text());
        Ok(())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// It does not in time.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        match timeout(PATIENCE, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => bail!("{} does not end:\n{}", self.name, self.text()),
        }
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Written {
    fn locked(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("---- {} wrote:\n{}\n----", self.name, self.text());
        }
    }
}

/// The address in a line that tells where a service listens.
fn address(line: &str) -> Option<String> {
    let address = line.split("address=").nth(1)?.split_whitespace().next()?;
    Some(format!("http://{address}"))
}

async fn collect(stream: impl AsyncRead + Unpin, written: Arc<Written>) {
    let mut lines = BufReader::new(stream).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        written.locked().push(line);
        written.more.notify_waiters();
    }
}

/// The directory of the programs, which are built if they are missing.
///
/// # Errors
/// They cannot be built.
pub fn directory() -> Result<PathBuf> {
    for program in [TASKER, ORCHESTRATION, WORKER] {
        binary(program)?;
    }
    Ok(binary(TASKER)?.parent().context("a program is in a directory")?.to_owned())
}

/// Where a program is: next to this program, or to the directory of this test's.
fn binary(program: &str) -> Result<PathBuf> {
    static BUILT: OnceLock<Result<(), String>> = OnceLock::new();
    let own = std::env::current_exe()?;
    let own = own.parent().context("a program is in a directory")?;
    let profile = if own.ends_with("deps") { own.parent().context("target/PROFILE/deps")? } else { own };
    let path = profile.join(program);
    if !path.exists() {
        BUILT
            .get_or_init(|| build(profile).map_err(|error| format!("{error:#}")))
            .clone()
            .map_err(anyhow::Error::msg)?;
    }
    Ok(path)
}

fn build(profile: &Path) -> Result<()> {
    let name = match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(other) => other,
    };
    let target = profile.parent().context("the profile's directory has a parent")?;
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--workspace", "--bins", "--examples", "--profile", name, "--target-dir"]).arg(target);
    let built = cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).status()?;
    ensure!(built.success(), "cargo build ended with {built}");
    Ok(())
}
