//! The service: its loops and its HTTP API, from start to drain.

use crate::{
    Orchestration, Settings, finished, limits, probes,
    process::Process,
    repair,
    requests::Requests,
    retention::Retention,
    taken, timers,
    web::{self, Settings as WebSettings},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tasker_shared::{
    breaker,
    config::Config,
    metrics::Metrics,
    runtime::{
        self, Gate, Topic,
        access::{COMMON, Guard},
        consume, judge, sweep,
        web::{self as common, Tls},
    },
    storage,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How long the server may take to answer a try.
const PATIENCE: Duration = Duration::from_secs(3);

/// A service that is ready to run.
pub struct Service {
    orchestration: Orchestration,
    process: runtime::Process,
    listener: TcpListener,
    tls: Option<Tls>,
    metrics: Option<common::OwnPort>,
}

impl Service {
    /// Puts the service together and opens its address.
    ///
    /// # Errors
    /// [`common::Error::Listen`] when the address cannot be opened, [`common::Error::Tls`] for a certificate.
    pub async fn bind(process: runtime::Process) -> Result<Self, common::Error> {
        let settings = settings(&process.config);
        let tls = Tls::load(&process.config.orchestration.tls, "orchestration.tls")?;
        let address = process.config.orchestration.http_address.to_string();
        let listener = common::bind(&address, "orchestration.http_address").await?;
        let own = process.config.orchestration.metrics_address;
        let metrics = common::OwnPort::bind(own, "orchestration.metrics_address", &process.exposition).await?;
        let orchestration =
            Orchestration::new(process.database.clone(), process.bell.clone(), process.tracing.clone(), settings);
        Ok(Self { orchestration, process, listener, tls, metrics })
    }

    /// What the HTTP API calls, for callers in the same process.
    pub fn orchestration(&self) -> &Orchestration {
        &self.orchestration
    }

    /// Where the HTTP API listens.
    ///
    /// # Errors
    /// The machine does not tell.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Runs until the process is asked to stop, and drains: open requests end, and so do transactions under way.
    ///
    /// # Errors
    /// [`common::Error::Serve`] when the listener breaks.
    pub async fn run(self) -> Result<(), common::Error> {
        let Self { orchestration, process, listener, tls, metrics } = self;
        let config = &process.config.orchestration;
        if let Ok(address) = listener.local_addr() {
            tracing::info!(%address, tls = tls.is_some(), "orchestration listens");
        }
        let most = common::most_connections(config.max_http_connections);
        // others must be served too
        let most_waiting = (most / 4 * 3).max(1);
        let router = web::router(
            orchestration.clone(),
            WebSettings {
                max_body_bytes: config.max_request_bytes,
                request_timeout: config.request_timeout,
                authenticator: process.authenticator.clone(),
                max_concurrent_requests: config.max_concurrent_requests,
                max_waiting_requests: config.max_waiting_requests.min(most_waiting),
                body_timeout: config.body_timeout,
                rate_limits: config.rate_limits.clone(),
                shutdown: process.shutdown.clone(),
                health: process.health("orchestration").build(),
                exposition: metrics.is_none().then(|| process.exposition.clone()),
            },
        );
        let (shutdown, grace) = (process.shutdown.clone(), config.shutdown_grace);
        let served = common::serve(listener, tls.clone(), router, most, shutdown, grace);
        // requests that are still open ring for the loops, so these stop last
        let loops = CancellationToken::new();
        let period = process.config.telemetry.metrics.probe_interval();
        let sampling = tokio::spawn(probes::run(orchestration.clone(), period, loops.clone()));
        let page = metrics.map(|page| {
            let gate = Guard::new(process.authenticator.clone(), process.database.for_requests(), &[COMMON]);
            tokio::spawn(page.serve(gate, tls, loops.clone()))
        });
        let running = tokio::spawn(run(orchestration, loops.clone()));
        let outcome = served.await;
        loops.cancel();
        if let Err(error) = running.await {
            tracing::error!(%error, "the loops ended badly");
        }
        if let Err(error) = sampling.await {
            tracing::error!(%error, "the probes ended badly");
        }
        if let Some(Err(error)) = futures::future::OptionFuture::from(page).await {
            tracing::error!(%error, "/metrics ended badly");
        }
        tracing::info!("orchestration has drained");
        outcome
    }
}

/// Limits and sizes, as configured.
pub fn settings(config: &Config) -> Settings {
    let from = &config.orchestration;
    let batch = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    Settings {
        environment: config.environment.clone(),
        grafana_url: config.telemetry.grafana_url.clone(),
        results_batch: batch(from.results_batch_size),
        requests_batch: batch(from.requests_batch_size),
        process_loops: from.process_loops,
        poll_interval: from.poll_interval,
        timer_poll_interval: from.timer_poll_interval,
        repair_interval: from.repair_interval,
        stalled_after: from.stalled_after,
        max_stalls: i32::try_from(from.max_stalls).unwrap_or(i32::MAX),
        handler_missing_after: from.handler_missing_after,
        max_deliveries: i32::try_from(from.max_deliveries).unwrap_or(i32::MAX),
        max_input_bytes: from.max_input_bytes,
        max_batch_submit: from.max_batch_submit,
        retention: config.retention.clone(),
    }
}

/// A loop of this service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loop {
    /// Outcomes become verdicts.
    Process,
    /// Tasks that were submitted by SQL get their steps.
    Initialize,
    /// What is due happens.
    Timers,
    /// Leases that ran out come first.
    ExpiredLeases,
    /// What stands still is mended.
    Repair,
}

/// One turn of one loop, for callers that drive the service themselves.
///
/// # Errors
/// The turn changed nothing, or not everything; the next one goes on.
pub async fn turn(orchestration: &Orchestration, of: Loop) -> Result<(), storage::Error> {
    match of {
        Loop::Process => taken::turn::<Process>(orchestration).await.map(drop),
        Loop::Initialize => taken::turn::<Requests>(orchestration).await.map(drop),
        Loop::Timers => timers::turn(orchestration).await.map(drop),
        Loop::ExpiredLeases => repair::expired_leases(orchestration).await.map(drop),
        Loop::Repair => repair::turn(orchestration).await.map(drop),
    }
}

/// Runs the loops until `shutdown`; a transaction that is under way then is finished first.
pub async fn run(orchestration: Orchestration, shutdown: CancellationToken) {
    let mut loops = JoinSet::new();
    let settings = orchestration.settings();
    let poll = settings.poll_interval..=settings.poll_interval;
    let breakers = orchestration.database().breakers();
    let (pgmq, ready) = (breakers.of(breaker::PGMQ), breakers.of(breaker::READINESS));
    let results = Gate::through([pgmq.clone(), ready.clone()]);
    let (queues, readiness) = (Gate::through([pgmq]), Gate::through([ready]));
    for _ in 0..settings.process_loops.max(1) {
        let (metrics, o) = parts(&orchestration);
        let bell = orchestration.bell().subscribe(Topic::Results);
        loops.spawn(consume("process", metrics, results.clone(), bell, poll.clone(), shutdown.clone(), move |_| {
            let o = o.clone();
            async move { taken::turn::<Process>(&o).await }
        }));
    }
    let (metrics, o) = parts(&orchestration);
    let bell = orchestration.bell().subscribe(Topic::Requests);
    loops.spawn(consume("initialize", metrics, queues, bell, poll, shutdown.clone(), move |_| {
        let o = o.clone();
        async move { taken::turn::<Requests>(&o).await }
    }));
    let (metrics, o) = parts(&orchestration);
    let bell = orchestration.bell().subscribe(Topic::Timers);
    loops.spawn(sweep("timers", metrics, readiness, Some(bell), shutdown.clone(), move || {
        let o = o.clone();
        async move { timers::turn(&o).await }
    }));
    let (metrics, o) = parts(&orchestration);
    loops.spawn(sweep("repair", metrics, Gate::none(), None, shutdown.clone(), move || {
        let o = o.clone();
        async move { repair::turn(&o).await }
    }));
    let (metrics, o) = parts(&orchestration);
    loops.spawn(sweep("expired_leases", metrics, Gate::none(), None, shutdown.clone(), move || {
        let o = o.clone();
        async move { repair::expired_leases(&o).await }
    }));
    loops.spawn(try_database(orchestration.clone(), shutdown.clone()));
    let (metrics, o) = parts(&orchestration);
    loops.spawn(sweep("permits", metrics, Gate::none(), None, shutdown.clone(), move || {
        let o = o.clone();
        async move { limits::turn(&o).await }
    }));
    let (metrics, o) = parts(&orchestration);
    let retention = Arc::new(Retention::new(&o));
    loops.spawn(sweep("retention", metrics, Gate::none(), None, shutdown.clone(), move || {
        let (retention, o) = (Arc::clone(&retention), o.clone());
        async move { retention.turn(&o).await }
    }));
    loops.spawn(finished::tell(orchestration.clone(), shutdown));
    while let Some(ended) = loops.join_next().await {
        if let Err(panic) = ended {
            // a loop must not end alone: the process stops, and its supervisor starts it anew
            tracing::error!(error = %panic, "a loop ended by a panic");
            std::process::abort();
        }
    }
}

/// Tries the database while the API's breaker is open, so that no request has to.
async fn try_database(orchestration: Orchestration, shutdown: CancellationToken) {
    let database = orchestration.database();
    let breaker = database.breakers().of(breaker::API);
    let trying = async {
        loop {
            breaker.opened().await;
            let permit = breaker.ready().await;
            judge([permit], &database.probe(PATIENCE).await);
        }
    };
    shutdown.run_until_cancelled(trying).await;
}

fn parts(orchestration: &Orchestration) -> (Metrics, Orchestration) {
    (orchestration.metrics().clone(), orchestration.clone())
}
