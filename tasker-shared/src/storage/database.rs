//! The door to the database: a pool, transactions with a name, and every statement measured.

use super::Error;
use crate::{
    metrics::{
        Label, Metrics, Success, TransactionOutcome,
        labels::{Operation, OperationOutcome, Transaction, TransactionEnd},
    },
    queue::traffic::Traffic,
};
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, Postgres,
    pool::PoolConnection,
    postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions, PgRow},
    query::{Query, QueryAs},
};
use std::{
    io,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

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

/// How much longer than PostgreSQL itself lets a statement run its answer may take. After that the connection is dead.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// How to reach PostgreSQL.
#[derive(Debug, Clone)]
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
}

/// A pool of connections; cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    metrics: Metrics,
    target: String,
    patience: Patience,
}

/// What PostgreSQL's silence means. A machine that is gone without a word, behind a firewall or after a failover, leaves
/// connections that never answer and never end.
#[derive(Debug, Clone)]
struct Patience {
    /// How long a statement's answer may take.
    longest: Duration,
    /// When an answer did not come last. Connections from before are not used again.
    silence: Arc<Mutex<Option<Instant>>>,
}

impl Patience {
    /// Waits for an answer; one that does not come is an error of the connection.
    async fn wait<T>(&self, answer: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        match tokio::time::timeout(self.longest, answer).await {
            Ok(answer) => answer,
            Err(_) => {
                *self.silence.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                let silent = format!("no answer within {:?}; the connection is given up", self.longest);
                Err(io::Error::new(io::ErrorKind::TimedOut, silent).into())
            }
        }
    }

    /// Whether a connection of this age was made after the last silence.
    fn trusts(&self, age: Duration) -> bool {
        let silence = *self.silence.lock().unwrap_or_else(PoisonError::into_inner);
        silence.is_none_or(|silence| silence.elapsed() > age)
    }
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
        let silent = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {patience:?}"));
        connected.map_err(silent)??.close().await
    }

    /// Connects when a connection is needed for the first time.
    ///
    /// # Errors
    /// [`Error::Connect`] when the URL is none.
    pub fn deferred(options: &Options, metrics: Metrics) -> Result<Self, Error> {
        let parsed = PgConnectOptions::from_str(&options.url)
            .map_err(|source| Error::Connect { target: "the given URL".to_owned(), source })?;
        let target = format!(
            "{}:{}/{}",
            parsed.get_socket().map_or_else(|| parsed.get_host().to_owned(), |s| s.display().to_string()),
            parsed.get_port(),
            parsed.get_database().unwrap_or("")
        );
        let connect = parsed
            .application_name(&options.application_name)
            .statement_cache_capacity(500)
            .options([("statement_timeout", options.statement_timeout.as_millis().to_string())])
            // a transaction whose service is gone or stands still must not hold its locks for ever
            .options([("idle_in_transaction_session_timeout", options.statement_timeout.as_millis().to_string())])
            .options(KEEPALIVES)
            .options(PLANS)
            // every statement is measured here already
            .disable_statement_logging();
        let patience = Patience { longest: options.statement_timeout + ANSWER_MARGIN, silence: Arc::default() };
        let trust = patience.clone();
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            .test_before_acquire(false)
            .before_acquire(move |_, connection| {
                let trusted = trust.trusts(connection.age);
                Box::pin(async move { Ok(trusted) })
            })
            .connect_lazy_with(connect);
        Ok(Self { pool, metrics, target, patience })
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
        let connection =
            self.pool.acquire().await.map_err(|source| Error::Statement { doing: "acquire_connection", source })?;
        self.metrics.db_pool_wait_duration.record_since(started, ());
        let metrics = self.metrics.clone();
        let patience = self.patience.clone();
        let (open, awaiting, traffic) = (false, false, Vec::new());
        Ok(Session { connection, metrics, patience, name, started: Instant::now(), open, awaiting, traffic })
    }
}

/// A connection in use: a transaction that has a name, or single statements.
///
/// A transaction that is dropped without [`Session::commit`] closes its connection, so that PostgreSQL rolls it back at once.
#[derive(Debug)]
pub struct Session {
    connection: PoolConnection<Postgres>,
    metrics: Metrics,
    patience: Patience,
    name: &'static str,
    started: Instant,
    open: bool,
    /// An answer is still to come, or never will: the pool must not get the connection back.
    awaiting: bool,
    /// What passed the queues in this transaction, to be counted when it commits.
    traffic: Vec<(Label, Traffic)>,
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
        let started = Instant::now();
        self.awaiting = true;
        let answer = self.patience.wait(query.execute(&mut *self.connection)).await;
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
        let started = Instant::now();
        self.awaiting = true;
        let answer = self.patience.wait(query.fetch_all(&mut *self.connection)).await;
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
        let started = Instant::now();
        self.awaiting = true;
        let answer = self.patience.wait(query.fetch_optional(&mut *self.connection)).await;
        self.measured(doing, started, answer)
    }

    /// Commits.
    ///
    /// # Errors
    /// [`Error::Statement`] when it is not known to be committed.
    pub async fn commit(mut self) -> Result<(), Error> {
        let answer = self.execute("commit", sqlx::query("commit")).await;
        self.open = answer.is_err();
        if answer.is_ok() {
            self.ended(TransactionOutcome::Committed);
            self.traffic.drain(..).for_each(|(queue, traffic)| traffic.count(&self.metrics, &queue));
        }
        answer.map(drop)
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
    pub(crate) fn passed(&mut self, queue: Label, traffic: Traffic) {
        if self.open {
            self.traffic.push((queue, traffic));
        } else {
            traffic.count(&self.metrics, &queue);
        }
    }

    fn measured<T>(&mut self, doing: &'static str, started: Instant, answer: sqlx::Result<T>) -> Result<T, Error> {
        self.awaiting = answer.as_ref().is_err_and(|error| error.as_database_error().is_none());
        self.metrics.sql_query_duration.record_since(started, Operation { operation: doing });
        self.metrics.sql_queries.add(1, OperationOutcome { operation: doing, outcome: Success::of(&answer) });
        answer.map_err(|source| Error::Statement { doing, source })
    }

    fn ended(&self, outcome: TransactionOutcome) {
        self.metrics.db_transaction_duration.record_since(self.started, Transaction { transaction: self.name });
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
