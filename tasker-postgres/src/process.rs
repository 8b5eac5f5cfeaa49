//! The server as a child process that never outlives its owner.

use crate::pidfile;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(5);
const FAST: Duration = Duration::from_secs(20);
const IMMEDIATE: Duration = Duration::from_secs(5);

/// A running server process.
pub(crate) struct Server {
    child: Child,
    /// Ends the thread that started the process, see [`spawn_bound`].
    _keeper: Option<mpsc::Sender<()>>,
}

impl Server {
    /// Starts the server in a process group of its own, so that Ctrl-C in a terminal reaches only its owner.
    pub(crate) fn spawn(mut command: Command, bound_to_owner: bool) -> io::Result<Self> {
        command.process_group(0);
        if !bound_to_owner {
            return Ok(Self { child: command.spawn()?, _keeper: None });
        }
        let (child, keeper) = spawn_bound(command)?;
        Ok(Self { child, _keeper: Some(keeper) })
    }

    pub(crate) fn pid(&self) -> Pid {
        // Process numbers fit into an i32 on every Unix.
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// The exit status in words, once the process has ended.
    pub(crate) fn ended(&mut self) -> io::Result<Option<String>> {
        Ok(self.child.try_wait()?.map(|status| status.to_string()))
    }

    /// Fast shutdown; immediate shutdown (which the next start repairs) when that takes too long.
    pub(crate) fn stop(&mut self) -> io::Result<()> {
        for (signal, patience) in [(Signal::SIGINT, FAST), (Signal::SIGQUIT, IMMEDIATE)] {
            if self.ended()?.is_some() {
                return Ok(());
            }
            kill(self.pid(), signal)?;
            if self.wait(patience)? {
                return Ok(());
            }
            tracing::warn!(pid = self.pid().as_raw(), %signal, "PostgreSQL did not stop in time");
        }
        self.kill9()
    }

    /// Kills the server and everything it started with SIGKILL, as a crash would.
    pub(crate) fn kill9(&mut self) -> io::Result<()> {
        let children = children(self.pid());
        self.child.kill()?;
        self.child.wait()?;
        for &pid in &children {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let deadline = Instant::now() + IMMEDIATE;
        while children.iter().any(|&pid| pidfile::running_name(pid).is_some()) && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn wait(&mut self, patience: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if self.ended()?.is_some() {
                return Ok(true);
            }
            thread::sleep(POLL);
        }
        Ok(false)
    }
}

/// Asks a server that is not our child to stop and waits for it; `false` when it still runs after `patience`.
pub(crate) fn stop_other(pid: Pid, data: &Path, patience: Duration) -> bool {
    let _ = kill(pid, Signal::SIGINT);
    let deadline = Instant::now() + patience;
    while pidfile::is_server_of(pid, data) {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(POLL);
    }
    true
}

/// Starts the process from a thread that lives as long as the process is wanted.
///
/// The kernel's "parent death signal" is sent when the *thread* that forked ends, not the process. Callers often run on
/// short-lived pool threads, so a thread of our own starts the child and then waits until the sender is dropped.
fn spawn_bound(mut command: Command) -> io::Result<(Child, mpsc::Sender<()>)> {
    let (result_tx, result_rx) = mpsc::channel();
    let (keeper, gone) = mpsc::channel::<()>();
    die_with_owner(&mut command);
    thread::Builder::new().name("postgres-keeper".to_owned()).spawn(move || {
        let _ = result_tx.send(command.spawn());
        drop(command);
        let _ = gone.recv();
    })?;
    let child = result_rx.recv().map_err(io::Error::other)??;
    Ok((child, keeper))
}

/// On Linux the kernel sends the child a fast-shutdown signal when its parent dies.
#[cfg(target_os = "linux")]
fn die_with_owner(command: &mut Command) {
    let owner = std::process::id();
    let in_child = move || {
        nix::sys::prctl::set_pdeathsig(Signal::SIGINT)?;
        // The owner may have died before the line above.
        let orphaned = std::os::unix::process::parent_id() != owner;
        if orphaned { Err(io::Error::from_raw_os_error(nix::libc::ESRCH)) } else { Ok(()) }
    };
    #[expect(unsafe_code, reason = "the closure makes two system calls and nothing else between fork and exec")]
    // SAFETY: prctl and getppid are async-signal-safe, and the closure neither allocates nor locks.
    unsafe {
        command.pre_exec(in_child);
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_owner(_command: &mut Command) {}

/// The processes that a process has started.
fn children(pid: Pid) -> Vec<Pid> {
    let listed = if cfg!(target_os = "linux") {
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
    } else {
        let pgrep = Command::new("pgrep").args(["-P", &pid.to_string()]).output();
        pgrep.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    listed.unwrap_or_default().split_whitespace().filter_map(|n| n.parse().ok()).map(Pid::from_raw).collect()
}
