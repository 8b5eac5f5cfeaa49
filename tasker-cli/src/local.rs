//! The whole system in this process: PostgreSQL, orchestration and a worker. Behind `dev`, `demo` and `bench`.

use crate::{
    args::Secret,
    error::{Error, Result},
    exit::Exit,
    profile::Variables,
};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tasker_orchestration::{Orchestration, service};
use tasker_postgres::Cluster;
use tasker_shared::{
    config::{Config, Sources},
    runtime::Process,
    storage::{Database, Options, schema},
    telemetry::{self, Telemetry},
};
use tasker_worker::service as worker;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long the last export of telemetry may take.
const FLUSH: Duration = Duration::from_secs(2);

/// The database of the private cluster.
const DATABASE: &str = "postgres";

/// How to start the system.
#[derive(Clone)]
pub struct Settings {
    /// Where the private PostgreSQL keeps its data.
    pub data_dir: PathBuf,
    /// A server to use instead of a private one.
    pub database_url: Option<String>,
    /// Settings by their environment variable, stronger than the process's own.
    pub variables: Vec<(String, String)>,
    /// What is logged when `RUST_LOG` does not say.
    pub log: &'static str,
    /// Settings of the private server.
    pub postgres: Vec<(String, String)>,
}

impl Settings {
    /// The usual system, with its data in `data_dir` or the usual place.
    pub fn new(data_dir: Option<PathBuf>, database_url: Option<Secret>) -> Self {
        Self {
            data_dir: data_dir.unwrap_or_else(tasker_postgres::default_data_dir),
            database_url: database_url.map(|url| url.0).filter(|url| !url.is_empty()),
            variables: Vec::new(),
            // a connection that is given back while the private server stops is no news
            log: "warn,sqlx_core=error",
            postgres: Vec::new(),
        }
    }

    /// With one more setting.
    #[must_use]
    pub fn with(mut self, variable: &str, value: impl ToString) -> Self {
        self.variables.push((variable.to_owned(), value.to_string()));
        self
    }
}

/// The running system.
pub struct Local {
    /// What the HTTP API calls.
    pub orchestration: Orchestration,
    /// Where the HTTP API listens.
    pub api: SocketAddr,
    /// Where the worker's pages are.
    pub worker_pages: SocketAddr,
    /// How to reach the database with other tools; `None` for a server that was given.
    pub database_url: Option<String>,
    /// The pool of the services.
    pub database: Database,
    encrypted: bool,
    cluster: Option<Cluster>,
    telemetry: Telemetry,
    shutdown: CancellationToken,
    silence: CancellationToken,
    services: Vec<JoinHandle<Result<()>>>,
}

impl Local {
    /// Starts everything and waits until it can be used.
    ///
    /// # Errors
    /// Each says what to do: exit code 4 when PostgreSQL cannot be had, 2 for settings.
    pub async fn start(settings: Settings, shutdown: CancellationToken) -> Result<Self> {
        let cluster = match &settings.database_url {
            Some(_) => None,
            None => Some(private(settings.data_dir.clone(), settings.postgres.clone()).await?),
        };
        let given = settings.database_url.clone();
        let url = given.or_else(|| cluster.as_ref().map(|c| c.url(DATABASE))).unwrap_or_default();
        let config = configure(&settings, &url)?;
        let telemetry = telemetry::init(&config.telemetry, "tasker", env!("CARGO_PKG_VERSION")).map_err(broken)?;
        prepare(&url).await?;
        let silence = CancellationToken::new();
        let process = Process::connect(Arc::new(config), &telemetry, "tasker", shutdown.clone(), silence.clone());
        let process = process.await.map_err(unreachable)?;
        let (orchestration, worker) = match bind(&process).await {
            Ok(services) => services,
            Err(error) => {
                // before PostgreSQL stops, so that nothing complains of it
                silence.cancel();
                process.database.pool().close().await;
                return Err(error);
            }
        };
        let (api, worker_pages) = (orchestration.address()?, worker.address()?);
        let handle = orchestration.orchestration().clone();
        let services = vec![
            tokio::spawn(async move { orchestration.run().await.map_err(broken) }),
            tokio::spawn(async move { worker.run().await.map_err(broken) }),
        ];
        Ok(Self {
            orchestration: handle,
            api,
            worker_pages,
            database_url: cluster.as_ref().map(|c| c.tcp_url(DATABASE)),
            database: process.database,
            encrypted: process.config.orchestration.tls.certificate.is_some(),
            cluster,
            telemetry,
            shutdown,
            silence,
            services,
        })
    }

    /// The address of the HTTP API for clients on this machine.
    pub fn url(&self) -> String {
        let scheme = if self.encrypted { "https" } else { "http" };
        format!("{scheme}://{}", self.api)
    }

    /// Drains the services, then stops PostgreSQL.
    ///
    /// # Errors
    /// A service ended badly, or PostgreSQL does not stop.
    pub async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        let mut outcome = Ok(());
        for service in self.services {
            let ended = service.await.map_err(broken).and_then(|ended| ended);
            outcome = outcome.and(ended);
        }
        self.silence.cancel();
        self.telemetry.shutdown(FLUSH).await;
        self.database.pool().close().await;
        if let Some(mut cluster) = self.cluster {
            tokio::task::spawn_blocking(move || cluster.stop()).await.map_err(broken)?.map_err(broken)?;
        }
        outcome
    }

    /// Completes when a service has ended by itself.
    pub async fn broken(&self) {
        while !self.services.iter().any(JoinHandle::is_finished) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn bind(process: &Process) -> Result<(service::Service, worker::Service)> {
    let orchestration = service::Service::bind(process.clone()).await.map_err(usage)?;
    let registry = worker::built_in(&process.config).map_err(broken)?;
    Ok((orchestration, worker::Service::bind(process.clone(), registry).await.map_err(usage)?))
}

/// Starts the private PostgreSQL.
///
/// # Errors
/// Exit code 4 with what to install.
pub async fn private(data_dir: PathBuf, settings: Vec<(String, String)>) -> Result<Cluster> {
    let mut options = tasker_postgres::Options::new(data_dir);
    options.settings = settings;
    options.progress = |message| eprintln!("{message}");
    let started = tokio::task::spawn_blocking(move || Cluster::start(&options)).await.map_err(broken)?;
    started.map_err(unreachable)
}

fn configure(settings: &Settings, url: &str) -> Result<Config> {
    let mut sources = Sources::from_process();
    // a person at a terminal has no collector, unless something says so
    let exports = ["OTEL_EXPORTER_OTLP_ENDPOINT", "TASKER__TELEMETRY__OPENTELEMETRY__ENABLED"];
    if !exports.iter().any(|name| sources.variables.contains_key(*name)) {
        sources = sources.with("TASKER__TELEMETRY__OPENTELEMETRY__ENABLED", "false");
    }
    if !sources.variables.contains_key("TASKER__TELEMETRY__LOGS__LEVEL") {
        sources = sources.with("TASKER__TELEMETRY__LOGS__LEVEL", settings.log);
    }
    // on this machine alone, everybody who gets here is the one at the terminal, unless something says otherwise
    if !sources.variables.contains_key("TASKER__AUTH__ENABLED") {
        sources = sources.with("TASKER__AUTH__ENABLED", "false");
    }
    sources = sources.with("DATABASE_URL", url);
    for (variable, value) in &settings.variables {
        sources = sources.with(variable, value);
    }
    Config::load(&sources).map_err(usage)
}

/// Brings the schema to what this program needs.
async fn prepare(url: &str) -> Result<()> {
    let options = Options {
        url: url.to_owned(),
        max_connections: 2,
        connect_timeout: Duration::from_secs(10),
        acquire_timeout: Duration::from_secs(10),
        statement_timeout: Duration::from_secs(60),
        application_name: "tasker-migrate".to_owned(),
        own_names_only: true,
    };
    let metrics = tasker_shared::metrics::Metrics::disabled();
    let database = Database::connect(&options, metrics).await.map_err(unreachable)?;
    let migrated = schema::migrate(database.pool()).await.map_err(unreachable);
    database.pool().close().await;
    migrated.map(drop)
}

/// Where the examples' files are written, below the data directory or where `output` says.
pub fn output_directory(data_dir: &Path, output: Option<PathBuf>) -> Result<PathBuf> {
    let directory = output.unwrap_or_else(|| data_dir.join("examples"));
    std::fs::create_dir_all(&directory)
        .map_err(|error| Error::usage(format!("failed to create {}: {error}", directory.display())))?;
    let absolute = directory.canonicalize();
    absolute.map_err(|error| Error::usage(format!("failed to find {}: {error}", directory.display())))
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::new(Exit::Broken, "failed", error.to_string())
}

fn unreachable(error: impl std::fmt::Display) -> Error {
    Error::new(Exit::Unreachable, "database", error.to_string())
}

fn usage(error: impl std::fmt::Display) -> Error {
    Error::usage(error.to_string())
}

/// The environment variables with which other commands find this system.
pub fn hints(variables: &Variables, url: &str) -> Option<String> {
    let usual = "http://127.0.0.1:8080";
    (url != usual && variables.get("TASKER_URL").is_none_or(|set| set != url))
        .then(|| format!("export TASKER_URL={url}"))
}
