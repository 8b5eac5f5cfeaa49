//! The sections `[database]`, `[orchestration]` and `[worker]` as the program sees them.

use crate::url::without_secrets;
use serde::{Deserialize, Deserializer, de::Error as _};
use std::{fmt, fs, net::SocketAddr, path::PathBuf, time::Duration};

/// How to reach PostgreSQL.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// The server and database; `None` when nothing is configured. May hold a password.
    #[serde(deserialize_with = "unless_empty")]
    pub url: Option<String>,
    /// The most connections of one process.
    pub max_connections: u32,
    /// How long to wait for a free connection of the pool.
    #[serde(rename = "acquire_timeout_ms", deserialize_with = "milliseconds")]
    pub acquire_timeout: Duration,
    /// How long one SQL statement may take.
    #[serde(rename = "statement_timeout_ms", deserialize_with = "milliseconds")]
    pub statement_timeout: Duration,
    /// How long to wait for the server when connecting.
    #[serde(rename = "connect_timeout_ms", deserialize_with = "milliseconds")]
    pub connect_timeout: Duration,
    /// How long a service that starts tries a server that is away.
    #[serde(rename = "startup_timeout_ms", deserialize_with = "milliseconds")]
    pub startup_timeout: Duration,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = self.url.as_deref().map(without_secrets);
        f.debug_struct("Database")
            .field("url", &url)
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}

/// The orchestration service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Orchestration {
    /// Where the HTTP API listens.
    pub http_address: SocketAddr,
    /// Where `/metrics` listens; with the HTTP API when it is not given.
    #[serde(deserialize_with = "address_unless_empty")]
    pub metrics_address: Option<SocketAddr>,
    /// How many step results one transaction processes at most.
    pub results_batch_size: usize,
    /// How many task requests one transaction initializes at most.
    pub requests_batch_size: usize,
    /// How many loops process step results at the same time.
    pub process_loops: usize,
    /// How often the queues are looked at when no notification wakes us.
    #[serde(rename = "poll_interval_ms", deserialize_with = "milliseconds")]
    pub poll_interval: Duration,
    /// The longest time between two looks at what is due.
    #[serde(rename = "timer_poll_interval_ms", deserialize_with = "milliseconds")]
    pub timer_poll_interval: Duration,
    /// How often to look for work that no queue tells of.
    #[serde(rename = "repair_interval_ms", deserialize_with = "milliseconds")]
    pub repair_interval: Duration,
    /// How long work may go without progress before the repair looks at it.
    #[serde(rename = "stalled_after_ms", deserialize_with = "milliseconds")]
    pub stalled_after: Duration,
    /// A step that stands still more often than this is put aside as a dead letter.
    pub max_stalls: u32,
    /// How long a step may go back and forth between workers that lack its handler.
    #[serde(rename = "handler_missing_after_ms", deserialize_with = "milliseconds")]
    pub handler_missing_after: Duration,
    /// After so many deliveries a message is put aside as a dead letter.
    pub max_deliveries: u32,
    /// How long a shutdown waits for what is being worked on.
    #[serde(rename = "shutdown_grace_ms", deserialize_with = "milliseconds")]
    pub shutdown_grace: Duration,
    /// The largest input of a task, in bytes.
    pub max_input_bytes: usize,
    /// The largest body of an HTTP request, in bytes.
    pub max_request_bytes: usize,
    /// How many tasks one request may submit.
    pub max_batch_submit: usize,
    /// How long an HTTP request may take.
    #[serde(rename = "request_timeout_ms", deserialize_with = "milliseconds")]
    pub request_timeout: Duration,
    /// How many requests are served at the same time.
    pub max_concurrent_requests: usize,
    /// How many requests wait for tasks at the same time.
    pub max_waiting_requests: usize,
    /// The most connections to the HTTP API; zero is as many as are usual.
    pub max_http_connections: usize,
    /// How long the body of an HTTP request may take to come.
    #[serde(rename = "body_timeout_ms", deserialize_with = "milliseconds")]
    pub body_timeout: Duration,
    /// How often one address and one caller may ask.
    pub rate_limits: RateLimits,
    /// TLS for the HTTP API.
    pub tls: Tls,
}

/// TLS for one address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// A PEM file with the certificate and those that lead to its authority; `None` is plain HTTP.
    #[serde(deserialize_with = "path_unless_empty")]
    pub certificate: Option<PathBuf>,
    /// A PEM file with the certificate's private key.
    #[serde(deserialize_with = "path_unless_empty")]
    pub key: Option<PathBuf>,
    /// A PEM file with the authority of client certificates; `None` asks for none.
    #[serde(deserialize_with = "path_unless_empty")]
    pub client_authority: Option<PathBuf>,
}

/// How often one address, and one caller each route, may ask the HTTP API. A rate of zero is no limit.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimits {
    /// Requests from one address, each second; before it is known who asks.
    pub address_per_second: f64,
    /// How many of them at once.
    pub address_burst: u32,
    /// Requests that submit tasks, each second.
    pub submit_per_second: f64,
    /// How many of them at once.
    pub submit_burst: u32,
    /// Requests that look, each second.
    pub read_per_second: f64,
    /// How many of them at once.
    pub read_burst: u32,
    /// Requests that change something else, each second.
    pub operate_per_second: f64,
    /// How many of them at once.
    pub operate_burst: u32,
    /// How many addresses, and how many pairs of caller and route in each group, are remembered.
    pub max_clients: usize,
}

/// The worker service.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// The worker's name; `None` stands for [`Worker::name_or_default`].
    #[serde(deserialize_with = "unless_empty")]
    pub name: Option<String>,
    /// The namespaces whose steps this worker takes; `*` is every namespace.
    pub namespaces: Vec<String>,
    /// Where health checks and `/metrics` listen.
    pub http_address: SocketAddr,
    /// Where `/metrics` listens; with the health checks when it is not given.
    #[serde(deserialize_with = "address_unless_empty")]
    pub metrics_address: Option<SocketAddr>,
    /// The most connections to the pages; zero is as many as are usual.
    pub max_http_connections: usize,
    /// How many steps run at the same time.
    pub max_concurrent_steps: usize,
    /// How many steps one transaction claims at most.
    pub claim_batch_size: usize,
    /// How many outcomes one transaction reports at most.
    pub report_batch_size: usize,
    /// How often the queues are looked at when no notification wakes us.
    #[serde(rename = "poll_interval_ms", deserialize_with = "milliseconds")]
    pub poll_interval: Duration,
    /// How long a claimed step belongs to this worker without a sign of life.
    #[serde(rename = "lease_ms", deserialize_with = "milliseconds")]
    pub lease: Duration,
    /// How often the leases of running steps are extended; less than half of `lease`.
    #[serde(rename = "heartbeat_interval_ms", deserialize_with = "milliseconds")]
    pub heartbeat_interval: Duration,
    /// How long a shutdown waits for running steps before it gives them back.
    #[serde(rename = "shutdown_grace_ms", deserialize_with = "milliseconds")]
    pub shutdown_grace: Duration,
    /// The largest result of a step, in bytes.
    pub max_result_bytes: usize,
    /// After so many deliveries a step's message is put aside as a dead letter.
    pub max_deliveries: u32,
    /// No step is claimed while the outcomes that wait to be reported fill their channels to more than this, in percent.
    pub claim_below_percent: u8,
    /// No step is claimed while the process has more memory than this, in bytes; zero is no limit.
    pub max_memory_bytes: u64,
    /// The built-in handler `http`.
    pub http: Http,
    /// The built-in handler `command`.
    pub command: Command,
    /// TLS for the worker's pages.
    pub tls: Tls,
}

impl Worker {
    /// The configured name, else `<host name>-<process number>`.
    pub fn name_or_default(&self) -> String {
        let host = || host_name().unwrap_or_else(|| "worker".to_owned());
        self.name.clone().unwrap_or_else(|| format!("{}-{}", host(), std::process::id()))
    }

    /// Whether this worker takes the steps of every namespace.
    pub fn takes_every_namespace(&self) -> bool {
        self.namespaces.iter().any(|namespace| namespace == "*")
    }
}

/// What the built-in handler `http` may do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Whether it does anything.
    pub enabled: bool,
    /// The hosts that may be called; `*` is every host.
    pub allowed_hosts: Vec<String>,
    /// The largest body of a response, in bytes.
    pub max_response_bytes: usize,
    /// The longest call.
    #[serde(rename = "timeout_ms", deserialize_with = "milliseconds")]
    pub timeout: Duration,
}

/// What the built-in handler `command` may do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Whether it does anything.
    pub enabled: bool,
    /// The programs that may run; `*` is every program.
    pub allowed_programs: Vec<String>,
    /// The worker's environment variables that programs see.
    pub allowed_environment: Vec<String>,
    /// The variables that steps may set for their programs; `*` at the end of a name is any ending.
    pub allowed_step_environment: Vec<String>,
    /// The largest standard output of a program, in bytes.
    pub max_output_bytes: usize,
    /// The time between SIGTERM and SIGKILL at the deadline.
    #[serde(rename = "kill_grace_ms", deserialize_with = "milliseconds")]
    pub kill_grace: Duration,
}

pub(super) fn milliseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    u64::deserialize(deserializer).map(Duration::from_millis)
}

pub(super) fn path_unless_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    unless_empty(deserializer).map(|text| text.map(PathBuf::from))
}

fn address_unless_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    unless_empty(deserializer)?.map(|text| text.parse().map_err(D::Error::custom)).transpose()
}

pub(super) fn unless_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(|text| Some(text).filter(|text| !text.is_empty()))
}

/// What this machine calls itself.
pub(crate) fn host_name() -> Option<String> {
    let file = || fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let program = || {
        let output = std::process::Command::new("hostname").output().ok()?;
        String::from_utf8(output.stdout).ok()
    };
    let name = file().or_else(program)?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
