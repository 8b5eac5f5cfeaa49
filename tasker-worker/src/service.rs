//! The service: a worker with its health and metrics pages, configured from files and environment.

use crate::{
    Settings, Slowness, Worker, examples,
    handler::{
        Duplicate, HandlerError, Limits, Registry, StepContext, blocking_fn, command::CommandSettings,
        http::HttpSettings,
    },
    worker,
};
use std::net::SocketAddr;
use tasker_shared::{
    config::Config,
    metrics::probe::{self, Probe},
    runtime::{
        Process,
        access::{self, COMMON, Guard},
        web::{self, Tls},
    },
    storage::{Duty, Leader},
};
use tokio::net::TcpListener;

/// The largest body of a request to the pages, which take none.
const NO_BODY: usize = 1024;

/// Why the service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two handlers have one name.
    #[error(transparent)]
    Duplicate(#[from] Duplicate),
    /// The pages cannot be served.
    #[error(transparent)]
    Web(#[from] web::Error),
    /// The worker cannot run.
    #[error(transparent)]
    Worker(#[from] worker::Error),
}

/// A service that is ready to run.
pub struct Service {
    worker: Worker,
    process: Process,
    listener: TcpListener,
    tls: Option<Tls>,
    metrics: Option<web::OwnPort>,
    probes: Vec<Box<dyn Probe>>,
}

impl Service {
    /// Puts the service together and opens its address.
    ///
    /// # Errors
    /// [`Error::Web`] when the address cannot be opened or a certificate cannot be used, [`Error::Worker`] when two handlers have one name.
    pub async fn bind(process: Process, registry: Registry) -> Result<Self, Error> {
        let tls = Tls::load(&process.config.worker.tls, "worker.tls").map_err(web::Error::from)?;
        let address = process.config.worker.http_address.to_string();
        let listener = web::bind(&address, "worker.http_address").await?;
        let own = process.config.worker.metrics_address;
        let metrics = web::OwnPort::bind(own, "worker.metrics_address", &process.exposition).await?;
        let builder = Worker::builder().registry(registry).settings(settings(&process.config));
        let worker = builder.build(process.database.clone(), process.bell.clone(), process.tracing.clone())?;
        Ok(Self { worker, process, listener, tls, metrics, probes: Vec::new() })
    }

    /// Samples `probe` on the timer of `telemetry.metrics.probe_interval_ms`. One that tells of the whole system is
    /// sampled by one worker at a time.
    #[must_use]
    pub fn with_probe(mut self, probe: impl Probe + 'static) -> Self {
        self.probes.push(Box::new(probe));
        self
    }

    /// Where the pages are.
    ///
    /// # Errors
    /// The machine does not tell.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Runs until the process is asked to stop, and drains: running handlers end, or their steps are given back.
    ///
    /// # Errors
    /// [`Error::Worker`] when the worker cannot register itself, [`Error::Web`] when the listener breaks.
    pub async fn run(self) -> Result<(), Error> {
        let Self { worker, process, listener, tls, metrics: own_page, probes } = self;
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, tls = tls.is_some(), "the worker's pages listen");
        }
        let metrics = process.database.metrics();
        let pages = web::health_router(process.health("worker").build());
        let pages = match &own_page {
            Some(_) => pages,
            None => pages.merge(web::metrics_router(process.exposition.clone())),
        };
        let gate = Guard::new(process.authenticator.clone(), process.database.for_requests(), &[COMMON]);
        let pages = access::guarded(pages, gate.clone(), |pages| pages);
        let pages = web::common(pages, metrics, NO_BODY);
        // the pages stay while the worker drains, so that its state can be seen
        let drained = tokio_util::sync::CancellationToken::new();
        let grace = std::time::Duration::from_secs(1);
        let most = web::most_connections(process.config.worker.max_http_connections);
        let served = tokio::spawn(web::serve(listener, tls.clone(), pages, most, drained.clone(), grace));
        if let Some(page) = own_page {
            tokio::spawn(page.serve(gate, tls, drained.clone()));
        }
        if !probes.is_empty() {
            let leader = Leader::candidate(process.database.pool(), Duty::Probe);
            let period = process.config.telemetry.metrics.probe_interval();
            tokio::spawn(probe::run(probes, leader, period, process.shutdown.clone()));
        }
        let outcome = worker.run(process.shutdown.clone()).await;
        drained.cancel();
        if let Ok(Err(error)) = served.await {
            tracing::error!(%error, "the pages ended badly");
        }
        tracing::info!("the worker has drained");
        Ok(outcome?)
    }
}

/// The built-in handlers as the configuration allows them, and those of the examples.
///
/// # Errors
/// Two handlers have one name.
pub fn built_in(config: &Config) -> Result<Registry, Duplicate> {
    let (http, command) = (&config.worker.http, &config.worker.command);
    let milliseconds = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let mut registry = Registry::with_builtin(
        HttpSettings {
            enabled: http.enabled,
            allowed_hosts: http.allowed_hosts.clone(),
            max_response_bytes: http.max_response_bytes,
            timeout_ms: milliseconds(http.timeout),
            breaker: config.breakers.http_handler.policy(),
            max_failing_hosts: config.breakers.http_handler.max_hosts,
        },
        CommandSettings {
            enabled: command.enabled,
            allowed_programs: command.allowed_programs.clone(),
            allowed_environment: command.allowed_environment.clone(),
            allowed_step_environment: command.allowed_step_environment.clone(),
            max_output_bytes: command.max_output_bytes,
            kill_grace_ms: milliseconds(command.kill_grace),
        },
    )?;
    for (name, function) in examples::ALL {
        registry
            .register(*name, blocking_fn(move |context: StepContext, input| example(*function, &context, &input)))?;
    }
    Ok(registry)
}

fn example(
    function: examples::Function,
    context: &StepContext,
    input: &serde_json::Value,
) -> Result<serde_json::Value, HandlerError> {
    let parents = context.parents.iter().map(|(name, result)| (name.to_string(), result.clone())).collect();
    let call =
        examples::Call { input, parents: &parents, initialization: context.initialization(), attempt: context.attempt };
    function(&call).map_err(
        |failed| {
            if failed.retryable { HandlerError::retry(failed) } else { HandlerError::fail(failed) }
        },
    )
}

fn settings(config: &Config) -> Settings {
    let (from, completion) = (&config.worker, &config.breakers.ffi_completion);
    Settings {
        name: from.name_or_default(),
        namespaces: from.namespaces.clone(),
        max_concurrent_steps: from.max_concurrent_steps,
        claim_batch: from.claim_batch_size,
        report_batch: from.report_batch_size,
        poll_interval: from.poll_interval,
        lease: from.lease,
        heartbeat_interval: from.heartbeat_interval,
        shutdown_grace: from.shutdown_grace,
        max_deliveries: i32::try_from(from.max_deliveries).unwrap_or(i32::MAX),
        claim_below_percent: from.claim_below_percent,
        max_memory_bytes: Some(from.max_memory_bytes).filter(|most| *most > 0),
        completion: Slowness { slow_send: completion.slow_send, policy: completion.policy() },
        limits: Limits { max_result_bytes: from.max_result_bytes, ..Limits::default() },
    }
}
