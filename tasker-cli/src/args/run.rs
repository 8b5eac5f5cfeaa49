//! The commands that run the system in this process: `dev`, `demo` and `bench`.

use super::Secret;
use std::{net::SocketAddr, path::PathBuf};

/// `tasker dev`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  tasker dev --templates workflows/

With --database-url or DATABASE_URL that server is used; else a private PostgreSQL is started in the data directory.
Ctrl-C stops everything; the data stays.")]
pub struct DevArgs {
    /// Where orchestration listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: SocketAddr,
    /// Where the worker's health and metrics pages are
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    pub worker_listen: SocketAddr,
    /// Where the private PostgreSQL keeps its data [default: $XDG_DATA_HOME/tasker]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A PostgreSQL server to use instead of a private one
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<Secret>,
    /// Templates to register at the start: files and directories
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub templates: Vec<PathBuf>,
    /// How many steps the worker runs at once
    #[arg(long, value_name = "COUNT")]
    pub concurrency: Option<usize>,
}

/// `tasker demo`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Example:
  tasker demo --output reports/

The exit code is 0 when all four tasks complete.")]
pub struct DemoArgs {
    /// Where the reports are written [default: the data directory]
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Where the private PostgreSQL keeps its data [default: $XDG_DATA_HOME/tasker]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A PostgreSQL server to use instead of a private one
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<Secret>,
}

/// `tasker bench`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "\
Examples:
  tasker bench
  tasker bench --duration 30s --steps 4 --json
  tasker bench --telemetry 5

Prints throughput, latency, database transactions per step, the machine, and a raw floor measured in the same run.")]
pub struct BenchArgs {
    /// How long the load lasts
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    pub duration: std::time::Duration,
    /// Steps of each task, one after the other
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub steps: u16,
    /// How many tasks are open at once in the throughput part
    #[arg(long, value_name = "COUNT", default_value_t = 1000)]
    pub open: usize,
    /// How many tasks are measured alone in the latency part
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    pub samples: usize,
    /// Leave out the raw floor
    #[arg(long)]
    pub no_floor: bool,
    /// Measure what telemetry costs instead: so many pairs of runs, one with telemetry off and one with everything on
    #[arg(long, value_name = "PAIRS", num_args = 0..=1, default_missing_value = "5", conflicts_with_all = ["data_dir"],
        value_parser = clap::value_parser!(u16).range(1..))]
    pub telemetry: Option<u16>,
    /// Where the private PostgreSQL keeps its data [default: a fresh one, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// A PostgreSQL server to use instead of a private one
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<Secret>,
}
