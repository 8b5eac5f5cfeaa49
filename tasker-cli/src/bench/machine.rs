//! Where a measurement was made.

use super::load::broken;
use crate::{error::Result, local::Local};
use serde::Serialize;
use std::fmt;

/// The machine and the server.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    /// Processors that this process may use.
    processors: usize,
    /// Their name.
    model: String,
    /// Of the machine, in MiB.
    memory_mib: u64,
    /// The kernel.
    system: String,
    /// PostgreSQL's version.
    postgresql: String,
    /// Whether commits are durable.
    fsync: String,
    /// When a commit is answered.
    synchronous_commit: String,
}

impl Machine {
    pub(super) async fn look(local: &Local) -> Result<Self> {
        let (postgresql, fsync, synchronous_commit): (String, String, String) = sqlx::query_as(
            "select current_setting('server_version'), current_setting('fsync'), current_setting('synchronous_commit')",
        )
        .fetch_one(local.database.pool())
        .await
        .map_err(broken)?;
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let memory = after(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kib: u64 = memory.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0);
        Ok(Self {
            processors: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
            model: after(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            memory_mib: kib / 1024,
            system: format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()),
            postgresql,
            fsync,
            synchronous_commit,
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} × {}, {} MiB, {}, PostgreSQL {} (fsync {}, synchronous_commit {})",
            self.processors,
            self.model,
            self.memory_mib,
            self.system,
            self.postgresql,
            self.fsync,
            self.synchronous_commit
        )
    }
}
