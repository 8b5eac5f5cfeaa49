//! A worker: built with a few lines, run until it is told to stop.

use crate::{
    claim,
    completion::{self, Outcomes, Slowness},
    core::{Core, Inner, Served},
    handler::{Limits, Registry, StepHandler, registry::Duplicate},
    heartbeat, report,
    running::Running,
    shed,
};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tasker_shared::{
    breaker,
    id::WorkerId,
    metrics::labels,
    name::Name,
    runtime::{Bell, Gate, Topic, consume, sweep},
    step::StepState,
    storage::{
        self, Database, leases, templates,
        workers::{self, Registration},
    },
    telemetry::Tracing,
};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// How often a worker looks for namespaces that were opened, if no notification tells it.
const LOOK_FOR_NAMESPACES: Duration = Duration::from_secs(5);

/// The pause between two tries to register while the database is away.
const REGISTER_AGAIN: Duration = Duration::from_millis(500);

/// How much longer than the poll interval a claim loop sleeps at most, when it finds nothing time after time.
const IDLE_FACTOR: u32 = 8;

/// Sizes and times of a worker.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For people; the host's name and the process id when empty.
    pub name: String,
    /// The namespaces to serve; `*` is every one.
    pub namespaces: Vec<String>,
    /// The most handlers at once.
    pub max_concurrent_steps: usize,
    /// The most steps of one claim.
    pub claim_batch: usize,
    /// The most outcomes of one report.
    pub report_batch: usize,
    /// How long a claim loop sleeps when nothing wakes it; up to eight times as long while there is nothing to do.
    pub poll_interval: Duration,
    /// How long a step is ours without a heartbeat.
    pub lease: Duration,
    /// The time between two heartbeats.
    pub heartbeat_interval: Duration,
    /// How long handlers may go on after the worker was told to stop.
    pub shutdown_grace: Duration,
    /// How often a step may lose its lease before it fails as poison.
    pub max_deliveries: i32,
    /// No step is claimed while the outcomes that wait to be reported fill their channels to more than this, in percent.
    pub claim_below_percent: u8,
    /// No step is claimed while the process has more memory than this.
    pub max_memory_bytes: Option<u64>,
    /// When the channel of handlers that are not Rust counts as slow.
    pub completion: Slowness,
    /// What a handler's run may take and leave behind.
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: String::new(),
            namespaces: vec!["*".to_owned()],
            max_concurrent_steps: 256,
            claim_batch: 100,
            report_batch: 200,
            poll_interval: Duration::from_millis(250),
            lease: Duration::from_secs(30),
            heartbeat_interval: Duration::from_secs(10),
            shutdown_grace: Duration::from_secs(30),
            max_deliveries: 20,
            claim_below_percent: 80,
            max_memory_bytes: None,
            completion: Slowness::default(),
            limits: Limits::default(),
        }
    }
}

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Two handlers have one name.
    #[error(transparent)]
    Duplicate(#[from] Duplicate),
    /// The database cannot be used.
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

/// A worker process.
pub struct Worker {
    core: Core,
    outcomes: Outcomes,
}

/// Collects handlers and settings.
#[derive(Default)]
pub struct Builder {
    registry: Registry,
    settings: Settings,
    duplicate: Option<Duplicate>,
}

impl Builder {
    /// Adds a handler under the name by which templates call it.
    #[must_use]
    pub fn register(mut self, name: impl Into<String>, handler: impl StepHandler) -> Self {
        if let Err(duplicate) = self.registry.register(name, handler) {
            self.duplicate.get_or_insert(duplicate);
        }
        self
    }

    /// Takes a whole registry; what was registered before is gone.
    #[must_use]
    pub fn registry(mut self, registry: Registry) -> Self {
        self.registry = registry;
        self
    }

    /// Sizes and times.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Puts the worker together.
    ///
    /// # Errors
    /// [`Error::Duplicate`] when two handlers have one name.
    pub fn build(self, database: Database, bell: Bell, tracing: Tracing) -> Result<Worker, Error> {
        if let Some(duplicate) = self.duplicate {
            return Err(duplicate.into());
        }
        let Self { registry, mut settings, .. } = self;
        if settings.name.is_empty() {
            settings.name = default_name();
        }
        let registration = Registration {
            id: WorkerId::generate(),
            name: settings.name.clone(),
            namespaces: settings.namespaces.clone(),
            handlers: registry.names().map(str::to_owned).collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let room = settings.max_concurrent_steps.max(1);
        let connections = usize::try_from(database.pool().options().get_max_connections()).unwrap_or(1);
        let (completion, outcomes) = completion::channels(room, settings.completion, database.breakers());
        shed::announce(database.metrics());
        registry.handlers().for_each(|handler| handler.show_breakers(database.breakers()));
        let core = Core::new(Inner {
            writing: Semaphore::new((connections / 2).max(1)),
            slots: Arc::new(Semaphore::new(room)),
            running: Running::default(),
            templates: storage::CompiledTemplates::default(),
            completion,
            pgmq: database.breakers().of(breaker::PGMQ),
            database,
            bell,
            tracing,
            settings,
            registration,
            registry,
        });
        Ok(Worker { core, outcomes })
    }
}

impl Worker {
    /// Begins a worker.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Works until `shutdown`. Then nothing more is claimed, running handlers may end within the grace time, and the
    /// leases of the others are given back, so that another worker takes them at once.
    ///
    /// # Errors
    /// [`Error::Storage`] when the database refuses the worker. While it is away the worker waits.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let Self { core, outcomes } = self;
        let registered = shutdown.run_until_cancelled(register(&core)).await;
        let Some(()) = registered.transpose()? else { return Ok(()) };
        tracing::info!(
            worker = %core.registration.name, namespaces = ?core.settings.namespaces,
            handlers = core.registration.handlers.len(), "the worker starts"
        );
        let after_drain = CancellationToken::new();
        let mut background = JoinSet::new();
        background.spawn(report::run(core.clone(), outcomes));
        let (beating, bell) = (core.clone(), core.bell.subscribe(Topic::Stopped));
        background.spawn(sweep(
            "heartbeat",
            core.metrics().clone(),
            Gate::none(),
            Some(bell),
            after_drain.clone(),
            move || {
                let core = beating.clone();
                async move { heartbeat::turn(&core).await }
            },
        ));
        claim_until(&core, shutdown).await;
        drain(&core).await;
        after_drain.cancel();
        background.shutdown().await;
        Ok(())
    }
}

/// Tells the database that this worker is there, as soon as it answers.
async fn register(core: &Core) -> Result<(), storage::Error> {
    loop {
        let told =
            async { workers::heartbeat(&mut core.database.session("heartbeat").await?, &core.registration).await };
        match told.await {
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, worker = %core.registration.name, "the worker cannot register; it tries again");
                tokio::time::sleep(REGISTER_AGAIN).await;
            }
            told => return told,
        }
    }
}

/// Runs a claim loop for each namespace that this worker serves, also for those that are opened meanwhile.
async fn claim_until(core: &Core, shutdown: CancellationToken) {
    let claims = Arc::new(Mutex::new((HashSet::<Name>::new(), JoinSet::new())));
    let (looking, started) = (core.clone(), Arc::clone(&claims));
    let stop = shutdown.clone();
    let bell = core.bell.subscribe(Topic::Namespaces);
    sweep("namespaces", core.metrics().clone(), Gate::none(), Some(bell), shutdown, move || {
        let (core, started, stop) = (looking.clone(), Arc::clone(&started), stop.clone());
        async move {
            let mut session = core.database.session("look_for_namespaces").await?;
            let open = templates::namespaces(&mut session).await?;
            drop(session);
            let serves = |name: &Name| core.settings.namespaces.iter().any(|n| n == "*" || **n == **name);
            let mut started = started.lock().unwrap_or_else(PoisonError::into_inner);
            for namespace in open.into_iter().filter(serves) {
                if started.0.insert(namespace.clone()) {
                    started.1.spawn(claim_loop(core.clone(), namespace, stop.clone()));
                }
            }
            Ok(LOOK_FOR_NAMESPACES)
        }
    })
    .await;
    let mut loops = std::mem::take(&mut claims.lock().unwrap_or_else(PoisonError::into_inner).1);
    while loops.join_next().await.is_some() {}
}

async fn claim_loop(core: Core, namespace: Name, shutdown: CancellationToken) {
    let served = Served::new(namespace);
    let bell = core.bell.subscribe(Topic::Steps(served.namespace.clone()));
    let poll = core.settings.poll_interval..=core.settings.poll_interval * IDLE_FACTOR;
    let (metrics, stop) = (core.metrics().clone(), shutdown.clone());
    consume("claim", metrics, Gate::none(), bell, poll, shutdown, move |wake| {
        let (core, served, stop) = (core.clone(), served.clone(), stop.clone());
        async move { claim::turn(&core, &served, wake, &stop).await }
    })
    .await;
}

async fn drain(core: &Core) {
    let held = core.running.len();
    tracing::info!(worker = %core.registration.name, held, "the worker drains");
    let grace = core.settings.shutdown_grace;
    if tokio::time::timeout(grace, core.running.empty()).await.is_err() {
        release(core).await;
    }
    let stopped = async {
        let mut session = core.database.session("worker_stopped").await?;
        workers::stopped(&mut session, core.registration.id).await
    };
    if let Err(error) = stopped.await {
        tracing::warn!(%error, "failed to sign off; the worker counts as gone when its heartbeat is old");
    }
}

/// Gives back the leases of handlers that did not end in time, and stops these.
async fn release(core: &Core) {
    let held = core.running.held();
    for (queue, held) in held {
        let released = async {
            let mut session = core.database.session("release").await?;
            leases::release(&mut session, &queue, &held, core.registration.id, "the worker stops").await
        };
        match released.await {
            Ok(released) => {
                let (from, to) = (Some(StepState::InProgress), StepState::Enqueued);
                core.metrics().steps_transitions.add(released.len() as u64, labels::StepTransition { from, to });
                tracing::warn!(queue = %queue, steps = released.len(), "handlers did not end in time; their steps run again elsewhere");
            }
            Err(error) => {
                tracing::error!(%error, queue = %queue, "failed to give leases back; they run out by themselves")
            }
        }
        if let Some(namespace) = core.running.cancel_held(&held, "the worker stops") {
            core.bell.ring(Topic::Steps(namespace));
        }
    }
}

fn default_name() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    format!("{}-{}", host.as_deref().unwrap_or("worker"), std::process::id())
}
