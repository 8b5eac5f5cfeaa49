//! The door to the database: a pool, transactions with a name, and every statement measured.

use super::{
    Error, Gate,
    address::{self, Address},
    error::is_cut,
};
use crate::{
    breaker::{Breakers, Policy},
    metrics::{
        Label, Metrics, Success, TransactionOutcome,
        labels::{self, Operation, OperationOutcome, TransactionEnd},
    },
    queue::traffic::Traffic,
    url::without_secrets,
};
use futures::FutureExt as _;
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, Postgres,
    pool::PoolConnection,
    postgres::{PgArguments, PgPool, PgPoolOptions, PgRow},
    query::{Query, QueryAs},
};
use std::{
    fmt, io,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much longer than the server may take a statement's answer may take to arrive. Then nobody is there any more.
const GRACE: Duration = Duration::from_secs(5);

/// Where names without a schema are looked up by a program that has none of its own.
const OWN_NAMES: (&str, &str) = ("search_path", "pg_catalog,pg_temp");

/// How hot statements are planned: once, by index, whatever the statistics say. A plan is kept as long as its
/// session, and one that was made while the tables were small would read them whole for ever.
const PLANS: [(&str, &str); 5] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// How PostgreSQL notices that the machine of a service is gone without a word, on connections that do nothing.
const KEEPALIVES: [(&str, &str); 3] =
    [("tcp_keepalives_idle", "30"), ("tcp_keepalives_interval", "10"), ("tcp_keepalives_count", "3")];

/// How to reach PostgreSQL.
#[derive(Clone)]
pub struct Options {
    /// `postgres://user:password@host:port/database`.
    pub url: String,
    /// The most connections at once.
    pub max_connections: u32,
    /// How long the server may take to answer when connecting for the first time.
    pub connect_timeout: Duration,
    /// The longest wait for a connection.
    pub acquire_timeout: Duration,
    /// The longest run of one statement, and the longest time that a transaction may do nothing.
    pub statement_timeout: Duration,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
    /// Whether names without a schema mean PostgreSQL's own only. Where many may create functions in `public`, one of them could
    /// otherwise stand for what this program calls. A worker's handlers write into tables of their own, by the names they know.
    pub own_names_only: bool,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (url, name) = (without_secrets(&self.url), &self.application_name);
        f.debug_struct("Options").field("url", &url).field("application_name", name).finish_non_exhaustive()
    }
}

/// A pool of connections; cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    metrics: Metrics,
    target: String,
    breakers: Breakers,
    doubt: Doubt,
    patience: Duration,
    gate: Option<Arc<dyn Gate>>,
    requests: Requests,
}

/// The connections that requests from outside may hold together.
#[derive(Debug, Clone)]
struct Requests {
    places: Arc<Semaphore>,
    /// Whether this door is theirs.
    bound: bool,
}

impl Database {
    /// Connects.
    ///
    /// # Errors
    /// [`Error::Connect`] names the server and tells what it said.
    pub async fn connect(options: &Options, metrics: Metrics) -> Result<Self, Error> {
        let database = Self::deferred(options, metrics)?;
        database.knock(options.connect_timeout).await.map_err(|source| {
            let target = database.target.clone();
            Error::Connect { target, source }
        })?;
        Ok(database)
    }

    /// Connects once outside the pool, which tries in silence until its time is over and then does not say why.
    async fn knock(&self, patience: Duration) -> Result<(), sqlx::Error> {
        let options = self.pool.connect_options();
        let connected = tokio::time::timeout(patience, PgConnection::connect_with(&options)).await;
        connected.map_err(|_| no_answer(patience))??.close().await
    }

    /// Connects when a connection is needed for the first time.
    ///
    /// # Errors
    /// [`Error::Connect`] when the URL is none.
    pub fn deferred(options: &Options, metrics: Metrics) -> Result<Self, Error> {
        let Address { options: address, target } = address::read(&options.url)
            .map_err(|source| Error::Connect { target: "the given URL".to_owned(), source })?;
        let connect = address
            .application_name(&options.application_name)
            .statement_cache_capacity(500)
            .options([("statement_timeout", options.statement_timeout.as_millis().to_string())])
            // a transaction whose service is gone or stands still must not hold its locks for ever
            .options([("idle_in_transaction_session_timeout", options.statement_timeout.as_millis().to_string())])
            .options(KEEPALIVES)
            .options(PLANS)
            .options(options.own_names_only.then_some(OWN_NAMES))
            // every statement is measured here already
            .disable_statement_logging();
        let doubt = Doubt::default();
        let doubted = doubt.clone();
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            .test_before_acquire(false)
            .before_acquire(move |_, connection| {
                let trusted = doubted.trusts(connection.age);
                Box::pin(async move { Ok(trusted) })
            })
            .connect_lazy_with(connect);
        let breakers = Breakers::new(Policy::default(), &metrics);
        let patience = options.statement_timeout.saturating_add(GRACE);
        let places = usize::try_from(options.max_connections / 2).unwrap_or(Semaphore::MAX_PERMITS).max(1);
        let requests = Requests { places: Arc::new(Semaphore::new(places)), bound: false };
        Ok(Self { pool, metrics, target, breakers, doubt, patience, gate: None, requests })
    }

    /// The same pool, for requests from outside: together they hold at most half of its connections, so that they wait for
    /// each other and loops do not wait for them.
    #[must_use]
    pub fn for_requests(&self) -> Self {
        Self { requests: Requests { bound: true, ..self.requests.clone() }, ..self.clone() }
    }

    /// The same pool with a gate before every statement; for tests.
    #[must_use]
    pub fn gated(&self, gate: Arc<dyn Gate>) -> Self {
        Self { gate: Some(gate), ..self.clone() }
    }

    /// With circuit breakers that follow `policy`.
    #[must_use]
    pub fn guarded_by(self, policy: Policy) -> Self {
        Self { breakers: Breakers::new(policy, &self.metrics), ..self }
    }

    /// The circuit breakers of this process.
    pub fn breakers(&self) -> &Breakers {
        &self.breakers
    }

    /// Tries whether the server can be used, on a connection of its own: it answers, and takes writes.
    ///
    /// # Errors
    /// [`Error::Connect`] tells what it said.
    pub async fn probe(&self, patience: Duration) -> Result<(), Error> {
        let failed = |source| Error::Connect { target: self.target.clone(), source };
        let options = self.pool.connect_options();
        let asked = async {
            let mut connection = PgConnection::connect_with(&options).await?;
            let replica: bool =
                sqlx::query_scalar("-- probe\nselect pg_is_in_recovery()").fetch_one(&mut connection).await?;
            connection.close().await?;
            if replica { Err(sqlx::Error::Io(io::Error::other("it is a replica and takes no writes"))) } else { Ok(()) }
        };
        let silent = |_| Err(no_answer(patience));
        tokio::time::timeout(patience, asked).await.unwrap_or_else(silent).map_err(failed)
    }

    /// Host, port and database.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The pool, for what needs connections of its own: the listener, probes, migrations.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Where this door's measurements go.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Asks whether PostgreSQL answers.
    ///
    /// # Errors
    /// [`Error::Statement`].
    pub async fn ping(&self) -> Result<(), Error> {
        self.session("ping").await?.execute("ping", sqlx::query("-- ping\nselect 1")).await.map(drop)
    }

    /// Begins the transaction `name`.
    ///
    /// # Errors
    /// [`Error::Statement`] when no connection can be had.
    pub async fn begin(&self, name: &'static str) -> Result<Session, Error> {
        let mut session = self.session(name).await?;
        let begin = sqlx::query("begin");
        session.execute("begin", begin).await?;
        session.open = true;
        Ok(session)
    }

    /// A connection on which each statement is its own transaction.
    ///
    /// # Errors
    /// [`Error::Statement`] when no connection can be had.
    pub async fn session(&self, name: &'static str) -> Result<Session, Error> {
        let started = Instant::now();
        let (connection, place) =
            self.acquire().await.map_err(|source| Error::Statement { doing: "acquire_connection", source })?;
        self.metrics.db_pool_wait_duration.record_since(started, ());
        Ok(Session {
            connection,
            _place: place,
            metrics: self.metrics.clone(),
            doubt: self.doubt.clone(),
            gate: self.gate.clone(),
            patience: self.patience,
            name,
            began: SystemTime::now(),
            started: Instant::now(),
            open: false,
            awaiting: false,
            traffic: Vec::new(),
            passages: Vec::new(),
            statements: 0,
        })
    }

    async fn acquire(&self) -> sqlx::Result<(PoolConnection<Postgres>, Option<OwnedSemaphorePermit>)> {
        let Requests { places, bound } = &self.requests;
        let place = if *bound {
            let place =
                tokio::time::timeout(self.pool.options().get_acquire_timeout(), Arc::clone(places).acquire_owned());
            place.await.map_err(|_| sqlx::Error::PoolTimedOut)?.ok()
        } else {
            None
        };
        Ok((self.pool.acquire().await?, place))
    }
}

/// When a connection was last found cut. Those that were made before are likely to be cut as well, by the same
/// restart or the same network: they are closed when they are wanted next, so that each fails nobody's work.
#[derive(Debug, Clone)]
struct Doubt {
    epoch: Instant,
    /// In milliseconds since `epoch`; 0 while nothing was cut.
    since: Arc<AtomicU64>,
}

impl Default for Doubt {
    fn default() -> Self {
        Self { epoch: Instant::now(), since: Arc::default() }
    }
}

impl Doubt {
    fn cut(&self) {
        self.since.store(self.now().max(1), Ordering::Relaxed);
    }

    fn trusts(&self, age: Duration) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since == 0 || self.now().saturating_sub(milliseconds(age)) > since
    }

    fn now(&self) -> u64 {
        milliseconds(self.epoch.elapsed())
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn no_answer(patience: Duration) -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {patience:?}")))
}

/// The answer, or that there is none: a connection that the network swallowed says nothing for hours, and a value that a Rust
/// type has no room for, such as an infinite time, makes its decoder panic.
async fn within<T>(patience: Duration, answer: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let answer = AssertUnwindSafe(answer).catch_unwind();
    match tokio::time::timeout(patience, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(sqlx::Error::Decode("a value is out of the range of its type".into())),
        Err(_) => Err(no_answer(patience)),
    }
}

/// A connection in use: a transaction that has a name, or single statements.
///
/// A transaction that is dropped without [`Session::commit`] closes its connection, so that PostgreSQL rolls it back at once.
#[derive(Debug)]
pub struct Session {
    connection: PoolConnection<Postgres>,
    /// Given back after the connection.
    _place: Option<OwnedSemaphorePermit>,
    metrics: Metrics,
    doubt: Doubt,
    patience: Duration,
    gate: Option<Arc<dyn Gate>>,
    name: &'static str,
    began: SystemTime,
    started: Instant,
    open: bool,
    /// Whoever waited for an answer was dropped before it came: the pool must not get the connection back.
    awaiting: bool,
    /// What passed the queues in this transaction, to be counted when it commits.
    traffic: Vec<(Label, Traffic)>,
    passages: Vec<Passage>,
    statements: u32,
}

/// What was done in a session, for traces.
#[derive(Debug)]
pub struct Transaction {
    /// The name of the session.
    pub name: &'static str,
    /// When its connection was there.
    pub began: SystemTime,
    /// When it was over.
    pub ended: SystemTime,
    /// How many statements it had.
    pub statements: u32,
    /// What passed the queues, in order.
    pub passages: Vec<Passage>,
}

/// Messages that one statement moved.
#[derive(Debug)]
pub struct Passage {
    /// The queue.
    pub queue: Label,
    /// What became of them.
    pub moved: Moved,
    /// How many.
    pub messages: u64,
    /// When the statement began.
    pub began: SystemTime,
    /// When it was answered.
    pub ended: SystemTime,
}

/// What became of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// They were put on the queue.
    Sent,
    /// They were read.
    Received,
    /// They were deleted or archived.
    Settled,
}

impl Session {
    /// Runs a statement and counts the rows it changed.
    ///
    /// # Errors
    /// [`Error::Statement`] names `doing`.
    pub async fn execute(
        &mut self,
        doing: &'static str,
        query: Query<'_, Postgres, PgArguments>,
    ) -> Result<u64, Error> {
        self.pass(doing).await?;
        let started = Instant::now();
        self.awaiting = true;
        let answer = within(self.patience, query.execute(&mut *self.connection)).await;
        self.measured(doing, started, answer).map(|done| done.rows_affected())
    }

    /// Runs a statement and reads its rows.
    ///
    /// # Errors
    /// [`Error::Statement`] names `doing`.
    pub async fn fetch<T>(
        &mut self,
        doing: &'static str,
        query: QueryAs<'_, Postgres, T, PgArguments>,
    ) -> Result<Vec<T>, Error>
    where
        T: for<'r> sqlx::FromRow<'r, PgRow> + Send + Unpin,
    {
        self.pass(doing).await?;
        let started = Instant::now();
        self.awaiting = true;
        let answer = within(self.patience, query.fetch_all(&mut *self.connection)).await;
        self.measured(doing, started, answer)
    }

    /// Runs a statement and reads its row, if there is one.
    ///
    /// # Errors
    /// [`Error::Statement`] names `doing`.
    pub async fn fetch_optional<T>(
        &mut self,
        doing: &'static str,
        query: QueryAs<'_, Postgres, T, PgArguments>,
    ) -> Result<Option<T>, Error>
    where
        T: for<'r> sqlx::FromRow<'r, PgRow> + Send + Unpin,
    {
        self.pass(doing).await?;
        let started = Instant::now();
        self.awaiting = true;
        let answer = within(self.patience, query.fetch_optional(&mut *self.connection)).await;
        self.measured(doing, started, answer)
    }

    /// Commits.
    ///
    /// # Errors
    /// [`Error::Statement`] when it is not known to be committed.
    pub async fn commit(mut self) -> Result<Transaction, Error> {
        let answer = self.execute("commit", sqlx::query("commit")).await;
        self.open = answer.is_err();
        if answer.is_ok() {
            self.ended(TransactionOutcome::Committed);
            self.traffic.drain(..).for_each(|(queue, traffic)| traffic.count(&self.metrics, &queue));
        }
        answer.map(|_| self.done())
    }

    /// What was done; on a session whose statements are transactions of their own that is all there is to end.
    pub fn done(mut self) -> Transaction {
        Transaction {
            name: self.name,
            began: self.began,
            ended: SystemTime::now(),
            statements: self.statements,
            passages: std::mem::take(&mut self.passages),
        }
    }

    /// Gives the transaction up.
    ///
    /// # Errors
    /// [`Error::Statement`] when the connection is lost, which rolls back too.
    pub async fn rollback(mut self) -> Result<(), Error> {
        let answer = self.execute("rollback", sqlx::query("rollback")).await;
        self.open = answer.is_err();
        self.ended(TransactionOutcome::RolledBack);
        answer.map(drop)
    }

    /// The connection, for statements of users that belong to this transaction.
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Where this session's measurements go.
    pub(crate) fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// Messages passed a queue: counted at the commit, or at once where each statement is its own transaction.
    pub(crate) fn passed(&mut self, queue: Label, traffic: Traffic, began: SystemTime) {
        let ended = SystemTime::now();
        for (moved, messages) in traffic.moved() {
            self.passages.push(Passage { queue: queue.clone(), moved, messages, began, ended });
        }
        if self.open {
            self.traffic.push((queue, traffic));
        } else {
            traffic.count(&self.metrics, &queue);
        }
    }

    /// Messages that were taken in this transaction are on their queue again.
    pub(crate) fn returned(&mut self, queue: &Label, messages: Traffic) {
        for (_, traffic) in self.traffic.iter_mut().filter(|(of, _)| of == queue) {
            *traffic = traffic.without(messages);
        }
        for (moved, messages) in messages.moved() {
            let taken = |passage: &&mut Passage| passage.queue == *queue && passage.moved == moved;
            if let Some(passage) = self.passages.iter_mut().find(taken) {
                passage.messages = passage.messages.saturating_sub(messages);
            }
        }
        self.passages.retain(|passage| passage.messages > 0);
    }

    async fn pass(&self, doing: &'static str) -> Result<(), Error> {
        match &self.gate {
            Some(gate) => gate.pass(self.name, doing).await.map_err(|source| Error::Statement { doing, source }),
            None => Ok(()),
        }
    }

    fn measured<T>(&mut self, doing: &'static str, started: Instant, answer: sqlx::Result<T>) -> Result<T, Error> {
        self.awaiting = false;
        self.statements += 1;
        self.metrics.sql_query_duration.record_since(started, Operation { operation: doing });
        self.metrics.sql_queries.add(1, OperationOutcome { operation: doing, outcome: Success::of(&answer) });
        if answer.as_ref().is_err_and(is_cut) {
            self.doubt.cut();
            self.connection.close_on_drop();
        } else if matches!(answer, Err(sqlx::Error::Decode(_))) {
            // the rest of the answer was not read
            self.connection.close_on_drop();
        }
        answer.map_err(|source| Error::Statement { doing, source })
    }

    fn ended(&self, outcome: TransactionOutcome) {
        let labels = labels::Transaction { transaction: self.name };
        self.metrics.db_transaction_duration.record_since(self.started, labels);
        self.metrics.db_transactions.add(1, TransactionEnd { outcome, transaction: self.name });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.open {
            self.ended(TransactionOutcome::RolledBack);
        }
        if self.open || self.awaiting {
            self.connection.close_on_drop();
        }
    }
}
