//! How every Tasker process starts and stops: configuration, telemetry, database, schema check, service, drain, flush.

use super::{
    Bell,
    access::{self, Authenticator},
    patience::while_away,
    pulse,
    web::{Exposition, HealthBuilder, HealthChecks},
};
use crate::{
    config::{self, Config, Sources},
    storage::{self, Database, Options, schema},
    telemetry::{self, Format, Telemetry, Tracing},
};
use opentelemetry::metrics::{Meter, MeterProvider as _, noop::NoopMeterProvider};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use std::{future::Future, process::ExitCode, sync::Arc, time::Duration};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::broadcast::error::RecvError,
};
use tokio_util::sync::CancellationToken;

/// How long the last export may take.
const FLUSH: Duration = Duration::from_secs(5);

/// How long tasks and threads that are left at the end may take.
const LEFTOVERS: Duration = Duration::from_secs(1);

/// The exit code of a process that was stopped by a second signal.
const STOPPED_AT_ONCE: i32 = 130;

/// The exit code of a process that was called with arguments it does not know.
const USAGE: u8 = 2;

/// Why a process cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// The telemetry settings are refused.
    #[error(transparent)]
    Telemetry(#[from] telemetry::Error),
    /// The database cannot be used.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// Authentication cannot be set up.
    #[error(transparent)]
    Access(#[from] access::Error),
    /// No database is configured.
    #[error(
        "no database is configured; set DATABASE_URL=postgres://user:password@host:port/database, or run `tasker dev`, which needs none"
    )]
    NoDatabase,
    /// The process was asked to stop before it could use its database.
    #[error("it was asked to stop before the database could be used")]
    Stopped,
    /// The service failed.
    #[error("{0}")]
    Service(Box<dyn std::error::Error + Send + Sync>),
}

/// The name of the orchestration service.
pub const ORCHESTRATION: &str = "tasker-orchestration";

/// What a service works with; cheap to clone. Two services may share it in one process.
#[derive(Clone)]
pub struct Process {
    /// The configuration, checked.
    pub config: Arc<Config>,
    /// The database; its schema was checked.
    pub database: Database,
    /// Wake-up, in this process and others.
    pub bell: Bell,
    /// Where spans go.
    pub tracing: Tracing,
    /// Knows who asks.
    pub authenticator: Authenticator,
    /// Makes meters; none where nothing is measured.
    meters: Option<SdkMeterProvider>,
    /// What `/metrics` answers.
    pub exposition: Exposition,
    /// Cancelled when the process is asked to stop.
    pub shutdown: CancellationToken,
}

impl Process {
    /// Connects to the configured database, which may be away for a while, and checks its schema. The bell is heard
    /// until `silence`, which comes after the drain.
    ///
    /// # Errors
    /// [`Error::NoDatabase`], or [`Error::Storage`] or [`Error::Access`] with what to do; [`Error::Stopped`] when `shutdown` comes
    /// first.
    pub async fn connect(
        config: Arc<Config>,
        telemetry: &Telemetry,
        service: &str,
        shutdown: CancellationToken,
        silence: CancellationToken,
    ) -> Result<Self, Error> {
        let url = config.database.url.clone().ok_or(Error::NoDatabase)?;
        let options = Options {
            url,
            max_connections: config.database.max_connections,
            connect_timeout: config.database.connect_timeout,
            acquire_timeout: config.database.acquire_timeout,
            statement_timeout: config.database.statement_timeout,
            application_name: service.to_owned(),
            own_names_only: service == ORCHESTRATION,
        };
        let (database, schema) = while_away(config.database.startup_timeout, &shutdown, async || {
            let database = Database::connect(&options, telemetry.metrics().clone()).await?;
            let schema = schema::check(database.pool()).await?;
            Ok((database, schema))
        })
        .await?
        .ok_or(Error::Stopped)?;
        let database = database.guarded_by(config.breakers.database.policy());
        if !schema.is_current() {
            tracing::info!(unknown = ?schema.unknown, "the schema is newer than this program, and compatible");
        }
        let period = config.telemetry.metrics.probe_interval();
        tokio::spawn(pulse::run(database.clone(), period, shutdown.clone()));
        let bell = Bell::start(database.pool(), telemetry.metrics().clone(), silence.clone());
        let tracing = telemetry.tracing().clone();
        if tracing.decides_late() {
            tokio::spawn(share_decisions(bell.clone(), tracing.clone(), silence));
        }
        let scrape = telemetry.scrape();
        let (prometheus, openmetrics) = (scrape.clone(), scrape);
        Ok(Self {
            authenticator: Authenticator::new(&config.auth, &database.for_requests())?,
            bell,
            tracing,
            meters: telemetry.meter_provider().cloned(),
            exposition: Exposition::new(
                move || prometheus.text(Format::Prometheus),
                move || openmetrics.text(Format::OpenMetrics),
            )
            .allow(&config.telemetry.metrics.allowed_clients),
            config,
            database,
            shutdown,
        })
    }

    /// A meter for instruments of one's own, exported and scraped beside Tasker's; `name` becomes the scope.
    pub fn meter(&self, name: &'static str) -> Meter {
        match &self.meters {
            Some(meters) => meters.meter(name),
            None => NoopMeterProvider::new().meter(name),
        }
    }

    /// What health checks both services have: the database answers, and its schema is one they can work on.
    pub fn health(&self, service: &'static str) -> HealthBuilder {
        let (database, schema_of) = (self.database.clone(), self.database.clone());
        let version = env!("CARGO_PKG_VERSION");
        HealthChecks::builder(service, version, self.shutdown.clone(), self.database.metrics())
            .breakers(self.database.breakers())
            .check("database", move || {
                let database = database.clone();
                async move { database.ping().await.map(|()| "answers".to_owned()).map_err(|e| e.to_string()) }
            })
            .check("schema", move || {
                let database = schema_of.clone();
                async move {
                    let status = schema::check(database.pool()).await.map_err(|e| e.to_string())?;
                    let says = if status.is_current() { "current" } else { "newer than this program, and compatible" };
                    Ok(says.to_owned())
                }
            })
    }
}

/// The process's signals: the first SIGTERM or SIGINT asks it to stop, the second stops it at once.
#[derive(Debug)]
pub struct Signals;

impl Signals {
    /// A token that the first signal cancels.
    ///
    /// # Errors
    /// The machine does not let the process listen for signals.
    pub fn listen() -> std::io::Result<CancellationToken> {
        let shutdown = CancellationToken::new();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let asked = shutdown.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                if asked.is_cancelled() {
                    tracing::warn!("a second signal: stopping at once; leases run out by themselves");
                    std::process::exit(STOPPED_AT_ONCE);
                }
                tracing::info!("a signal asks to stop: draining");
                asked.cancel();
            }
        });
        Ok(shutdown)
    }
}

/// Answers the arguments of a service, which takes none: `--help`, `--version`, and what it does not know. `None` when
/// there are none and the service can run.
pub fn arguments(name: &str, about: &str) -> Option<ExitCode> {
    let argument = std::env::args_os().nth(1)?;
    match argument.to_string_lossy().as_ref() {
        "--help" | "-h" => println!("{}", help(name, about)),
        "--version" | "-V" => println!("{name} {}", env!("CARGO_PKG_VERSION")),
        unknown => {
            eprintln!("{name}: unexpected argument `{unknown}`; `{name} --help` tells how it is configured");
            return Some(ExitCode::from(USAGE));
        }
    }
    Some(ExitCode::SUCCESS)
}

/// Traces that one process has decided late to keep are kept by all.
async fn share_decisions(bell: Bell, tracing: Tracing, stop: CancellationToken) {
    let mut kept = bell.kept();
    loop {
        tokio::select! {
            decided = tracing.decided() => bell.keep(&decided),
            elsewhere = kept.recv() => match elsewhere {
                Ok(traces) => tracing.decided_elsewhere(traces.iter().copied()),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
            () = stop.cancelled() => return,
        }
    }
}

fn help(name: &str, about: &str) -> String {
    format!(
        "{about}\n\nUsage: {name}\n\nIt takes no arguments but --help and --version. Settings come from the environment and from files:\n  \
         DATABASE_URL         the database, prepared by `tasker db migrate`\n  \
         TASKER_ENV           development (the default), test, production, or one of your own\n  \
         TASKER_CONFIG_ROOT   the directory of your own configuration files\n  \
         TASKER__SECTION__KEY any setting, such as TASKER__DATABASE__MAX_CONNECTIONS=50\n  \
         RUST_LOG             what is logged\n\n\
         `tasker config show` lists every setting with its value and where that comes from.\n\
         SIGTERM and SIGINT drain; a second one stops at once (exit code {STOPPED_AT_ONCE})."
    )
}

/// Runs the service `name` from configuration to flush, and answers with the exit code: 0 after a drain.
pub fn run<F, Fut, E>(name: &'static str, service: F) -> ExitCode
where
    F: FnOnce(Process) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // a provider that is installed already is as good
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(name, &error),
    };
    let outcome = runtime.block_on(run_here(name, service));
    // a handler that blocks its thread must not keep the process after its step was given back
    runtime.shutdown_timeout(LEFTOVERS);
    match outcome {
        Ok(()) | Err(Error::Stopped) => ExitCode::SUCCESS,
        Err(error) => failed(name, &error),
    }
}

async fn run_here<F, Fut, E>(name: &'static str, service: F) -> Result<(), Error>
where
    F: FnOnce(Process) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let shutdown = Signals::listen().map_err(|e| Error::Service(e.into()))?;
    let config = Arc::new(Config::load(&Sources::from_process())?);
    let telemetry = telemetry::init(&config.telemetry, name, env!("CARGO_PKG_VERSION"))?;
    let silence = CancellationToken::new();
    let outcome = async {
        let process = Process::connect(config, &telemetry, name, shutdown, silence.clone()).await?;
        tracing::info!(service = name, environment = %process.config.environment, database = process.database.target(), "starting");
        service(process).await.map_err(|e| Error::Service(e.into()))
    };
    let outcome = outcome.await;
    silence.cancel();
    telemetry.shutdown(FLUSH).await;
    outcome
}

fn failed(name: &str, error: &dyn std::error::Error) -> ExitCode {
    eprintln!("{name}: {error}");
    ExitCode::FAILURE
}
