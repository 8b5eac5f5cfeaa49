//! The machines of a run: PostgreSQL, and several of each service, each with a network and a clock of its own.

use super::{clock::Clocks, disk::SlowDisk, effects, proxy::Proxy};
use crate::process::{ORCHESTRATION, Process, command};
use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};
use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex as Plain, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tasker_client::Client;
use tasker_postgres::{Cluster, Options};
use tokio::sync::Mutex;

/// How long a step belongs to a worker without a sign of life.
pub const LEASE: Duration = Duration::from_secs(3);

/// How often somebody looks whether a service has to be started again.
const WATCH: Duration = Duration::from_millis(100);

/// The longest that a request of the suite may take.
const REQUEST: Duration = Duration::from_secs(10);

/// Settings that let a short run show what a long one would.
const SETTINGS: &[(&str, &str)] = &[
    ("TASKER_ENV", "test"),
    ("RUST_LOG", "info"),
    ("TASKER__DATABASE__MAX_CONNECTIONS", "6"),
    ("TASKER__DATABASE__STATEMENT_TIMEOUT_MS", "5000"),
    ("TASKER__WORKER__LEASE_MS", "3000"),
    ("TASKER__WORKER__HEARTBEAT_INTERVAL_MS", "800"),
    ("TASKER__WORKER__SHUTDOWN_GRACE_MS", "1500"),
    // whoever kills workers all the time must not be taken for a poisonous step
    ("TASKER__WORKER__MAX_DELIVERIES", "1000"),
    ("TASKER__ORCHESTRATION__SHUTDOWN_GRACE_MS", "3000"),
    // what stands still is found while the run lasts; it would be a fault of the line
    ("TASKER__ORCHESTRATION__REPAIR_INTERVAL_MS", "5000"),
    ("TASKER__ORCHESTRATION__STALLED_AFTER_MS", "15000"),
    ("TASKER__ORCHESTRATION__HANDLER_MISSING_AFTER_MS", "3000"),
];

/// Which service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `tasker-orchestration`.
    Orchestration,
    /// The worker with the suite's handler.
    Worker,
}

/// One service: it is started again whenever it is gone, unless it is told to stay away.
#[derive(Debug)]
pub struct Service {
    /// Which.
    pub kind: Kind,
    /// Unique: such as `worker-1`.
    pub name: String,
    /// Its way to PostgreSQL.
    pub proxy: Proxy,
    settings: Vec<(String, String)>,
    logs: PathBuf,
    wanted: AtomicBool,
    started: AtomicUsize,
    process: Mutex<Option<Process>>,
    client: Plain<Option<Client>>,
    url: Plain<Option<String>>,
    /// What was wrong with it, and lines that tell of repairs.
    noted: Plain<Vec<String>>,
}

/// PostgreSQL and the services.
#[derive(Debug)]
pub struct Machines {
    /// All services: orchestrations first.
    pub services: Vec<Arc<Service>>,
    /// PostgreSQL; who restarts it holds it.
    pub postgres: Mutex<Postgres>,
    /// How the suite itself reaches the database.
    pub url: String,
    /// The clocks, where services have their own.
    pub clocks: Option<Clocks>,
    /// PostgreSQL's disk, where it can be slow.
    pub disk: Option<SlowDisk>,
}

/// The server.
pub struct Postgres(Option<Cluster>);

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Postgres").field(&self.pid()).finish()
    }
}

/// How many of each, and how they are set up.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Orchestrations.
    pub orchestrations: usize,
    /// Workers.
    pub workers: usize,
    /// Settings of PostgreSQL.
    pub postgres: Vec<(String, String)>,
    /// Further settings of the services.
    pub settings: Vec<(String, String)>,
    /// Where PostgreSQL keeps its data.
    pub data: PathBuf,
    /// Where handlers write what they did.
    pub effects: PathBuf,
    /// Where what services say is kept.
    pub logs: PathBuf,
    /// The clocks, where services have their own.
    pub clocks: Option<Clocks>,
    /// PostgreSQL's disk, where it can be slow.
    pub disk: Option<SlowDisk>,
}

impl Machines {
    /// Starts everything; answers when all services are ready.
    ///
    /// # Errors
    /// PostgreSQL cannot be had, or a service does not start.
    pub async fn start(setup: Setup) -> Result<Arc<Self>> {
        let options = Options {
            durable: setup.disk.is_some(),
            settings: setup.postgres.clone(),
            environment: setup.disk.as_ref().map(SlowDisk::variables).unwrap_or_default(),
            ..Options::new(setup.data.clone())
        };
        let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options)).await??;
        let url = cluster.tcp_url("postgres");
        crate::system::migrate(&url).await?;
        let server = cluster.endpoint().port;
        let mut services = Vec::new();
        let kinds = std::iter::repeat_n(Kind::Orchestration, setup.orchestrations)
            .chain(std::iter::repeat_n(Kind::Worker, setup.workers));
        for (place, kind) in kinds.enumerate() {
            let proxy = Proxy::start(server).await?;
            let name = match kind {
                Kind::Orchestration => format!("orchestration-{place}"),
                Kind::Worker => format!("worker-{}", place - setup.orchestrations),
            };
            let mut settings: Vec<(String, String)> =
                SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            settings.extend(setup.settings.clone());
            let own = url.replace(&format!(":{server}/"), &format!(":{}/", proxy.port()));
            settings.push(("DATABASE_URL".to_owned(), own));
            settings.push((effects::DIRECTORY.to_owned(), setup.effects.display().to_string()));
            if let Some(clocks) = &setup.clocks {
                settings.extend(clocks.variables(&name)?);
            }
            services.push(Arc::new(Service::new(kind, name, proxy, settings, setup.logs.clone())));
        }
        let postgres = Mutex::new(Postgres(Some(cluster)));
        let machines = Arc::new(Self { services, postgres, url, clocks: setup.clocks, disk: setup.disk });
        for service in &machines.services {
            service.start().await?;
            tokio::spawn(Arc::clone(service).watch());
        }
        machines.ready().await?;
        Ok(machines)
    }

    /// The services of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Arc<Service>> {
        self.services.iter().filter(move |service| service.kind == kind)
    }

    /// Waits until every service answers.
    ///
    /// # Errors
    /// One does not in time.
    pub async fn ready(&self) -> Result<()> {
        for service in &self.services {
            crate::system::eventually(&format!("{} is ready", service.name), async || {
                let Some(url) = service.url() else { return Ok(false) };
                let answer = reqwest::Client::new().get(format!("{url}/health/ready")).timeout(REQUEST).send().await;
                Ok(answer.is_ok_and(|answer| answer.status().is_success()))
            })
            .await?;
        }
        Ok(())
    }

    /// A connection of the suite's own, which no fault but PostgreSQL's concerns.
    ///
    /// # Errors
    /// PostgreSQL is away.
    pub async fn connect(&self) -> Result<PgConnection> {
        Ok(connect(&self.url).await?)
    }

    /// What was noted of the services.
    pub fn noted(&self) -> Vec<String> {
        self.services.iter().flat_map(|service| locked(&service.noted).clone()).collect()
    }

    /// Tells every service to stop; each must end well.
    pub async fn drain(&self) {
        for service in &self.services {
            service.wanted.store(false, Ordering::Relaxed);
            service.drain(false).await;
        }
    }

    /// Stops PostgreSQL.
    ///
    /// # Errors
    /// It cannot be stopped.
    pub async fn stop_postgres(&self) -> Result<()> {
        let cluster = self.postgres.lock().await.0.take();
        Ok(tokio::task::spawn_blocking(move || drop(cluster)).await?)
    }
}

/// Connects as services do, without logging statements.
///
/// # Errors
/// PostgreSQL is away.
pub async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    let options: PgConnectOptions = url.parse()?;
    PgConnection::connect_with(&options.application_name("chaos").disable_statement_logging()).await
}

impl Postgres {
    /// Its process, while it runs.
    pub fn pid(&self) -> Option<i32> {
        self.0.as_ref()?.pid()?.try_into().ok()
    }

    /// All its processes.
    pub fn processes(&self) -> Vec<Pid> {
        let Some(pid) = self.pid() else { return Vec::new() };
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        std::iter::once(pid).chain(children).map(Pid::from_raw).collect()
    }

    /// `kill -9` of all its processes.
    ///
    /// # Errors
    /// They cannot be killed.
    pub async fn crash(&mut self) -> Result<()> {
        self.with(|cluster| Ok(cluster.kill9()?)).await
    }

    /// Immediate shutdown: connections are cut, and nothing is written.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn quit(&mut self) -> Result<()> {
        Ok(kill(Pid::from_raw(self.pid().context("it runs")?), Signal::SIGQUIT)?)
    }

    /// Stops it if it runs, and starts it.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart(&mut self) -> Result<()> {
        self.with(|cluster| Ok(cluster.restart()?)).await
    }

    async fn with(&mut self, act: fn(&mut Cluster) -> Result<()>) -> Result<()> {
        let mut cluster = self.0.take().context("PostgreSQL is there")?;
        let (cluster, outcome) = tokio::task::spawn_blocking(move || {
            let outcome = act(&mut cluster);
            (cluster, outcome)
        })
        .await?;
        self.0 = Some(cluster);
        outcome
    }
}

impl Service {
    fn new(kind: Kind, name: String, proxy: Proxy, settings: Vec<(String, String)>, logs: PathBuf) -> Self {
        Self {
            kind,
            name,
            proxy,
            settings,
            logs,
            wanted: AtomicBool::new(true),
            started: AtomicUsize::new(0),
            process: Mutex::default(),
            client: Plain::default(),
            url: Plain::default(),
            noted: Plain::default(),
        }
    }

    /// A client, while its pages are known.
    pub fn client(&self) -> Option<Client> {
        locked(&self.client).clone()
    }

    /// Where its pages are, while that is known.
    pub fn url(&self) -> Option<String> {
        locked(&self.url).clone()
    }

    /// How often it was started.
    pub fn started(&self) -> usize {
        self.started.load(Ordering::Relaxed)
    }

    /// The name of the process that runs, as workers tell it to the database.
    pub fn incarnation(&self) -> String {
        format!("{}.{}", self.name, self.started())
    }

    /// Its process, while it runs.
    pub async fn pid(&self) -> Option<Pid> {
        let slot = self.process.lock().await;
        slot.as_ref()?.pid().ok().map(Pid::from_raw)
    }

    /// `kill -9`, and away for a while.
    pub async fn kill(&self, away: Duration) {
        self.wanted.store(false, Ordering::Relaxed);
        let taken = self.process.lock().await.take();
        self.forget();
        if let Some(mut process) = taken {
            let _ = process.kill9().await;
            self.note(&process);
        }
        tokio::time::sleep(away).await;
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// SIGTERM, and `kill -9` before it can have ended well; away for a while.
    pub async fn kill_while_it_stops(&self, after: Duration, away: Duration) {
        self.wanted.store(false, Ordering::Relaxed);
        let taken = self.process.lock().await.take();
        self.forget();
        if let Some(mut process) = taken {
            let _ = process.signal(Signal::SIGTERM);
            tokio::time::sleep(after).await;
            // it may have been quicker
            let _ = process.kill9().await;
            self.note(&process);
        }
        tokio::time::sleep(away).await;
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// SIGTERM; it must end well, and is started again when `again`.
    pub async fn drain(&self, again: bool) {
        self.wanted.store(false, Ordering::Relaxed);
        let taken = self.process.lock().await.take();
        self.forget();
        if let Some(mut process) = taken {
            // one that was ready only: before, it may still be connecting
            let was_ready = process.text().contains("listen");
            if let Err(error) = process.drain().await
                && was_ready
            {
                let text = format!("{error:#}");
                let short: String = text.lines().take(1).collect();
                locked(&self.noted).push(format!("ended badly: {}: {short}", self.name));
            }
            self.note(&process);
        }
        self.wanted.store(again, Ordering::Relaxed);
    }

    async fn start(&self) -> Result<()> {
        let mut command = match self.kind {
            Kind::Orchestration => command(ORCHESTRATION)?,
            Kind::Worker => {
                let mut command = command("tasker-tests")?;
                command.arg("worker");
                command
            }
        };
        self.started.fetch_add(1, Ordering::Relaxed);
        command.envs(self.settings.iter().map(|(key, value)| (key, value)));
        command.env("TASKER__WORKER__NAME", self.incarnation());
        let name = if self.kind == Kind::Worker { "worker" } else { ORCHESTRATION };
        *self.process.lock().await = Some(Process::start(name, command)?);
        Ok(())
    }

    /// Starts it again whenever it is gone, and learns where its pages are.
    async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(WATCH).await;
            if !self.wanted.load(Ordering::Relaxed) {
                continue;
            }
            let mut slot = self.process.lock().await;
            let runs = slot.as_mut().is_some_and(Process::runs);
            match slot.as_ref() {
                Some(process) if runs && self.url().is_none() => {
                    if let Some(url) = process.listens() {
                        *locked(&self.client) = Client::with_timeout(&url, REQUEST).ok();
                        *locked(&self.url) = Some(url);
                    }
                }
                Some(process) if !runs => {
                    // before it listens it ends when the database is away
                    if process.listens().is_some() {
                        locked(&self.noted).push(format!("ended by itself: {}: {}", self.name, process.last_line()));
                    }
                    self.note(process);
                }
                _ => {}
            }
            if !runs {
                *slot = None;
                drop(slot);
                self.forget();
                if let Err(error) = self.start().await {
                    locked(&self.noted).push(format!("not started: {}: {error:#}", self.name));
                }
            }
        }
    }

    fn forget(&self) {
        *locked(&self.client) = None;
        *locked(&self.url) = None;
    }

    /// Keeps what a process said: all of it in a file, and in the report what it said of repairs and panics.
    fn note(&self, process: &Process) {
        let text = process.text();
        let _ = std::fs::write(self.logs.join(format!("{}.log", self.incarnation())), &text);
        let telling = text.lines().filter(|line| {
            ["stood still without a wake-up", "a loop ended by a panic", "failed to mend"]
                .iter()
                .any(|t| line.contains(t))
        });
        locked(&self.noted).extend(telling.map(|line| format!("said: {}: {line}", self.name)));
    }
}

fn locked<T>(mutex: &Plain<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
