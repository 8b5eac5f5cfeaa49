//! Installs and checks the schema: PGMQ's objects, then the migrations of schema `tasker`.

use super::Error;
use pgmq::PGMQueueExt;
use serde::Serialize;
use sqlx::{
    Connection, PgConnection, PgPool,
    migrate::{MigrateError, Migrator},
};

static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// Two programs that migrate at once take turns on this advisory lock.
pub const LOCK: i64 = 0x7461_736b_6572;

/// The queues that are part of the schema; those of namespaces come with their first template.
const QUEUES: [&str; 2] = [crate::queue::TASK_REQUESTS, crate::queue::STEP_RESULTS];

/// What is installed, against what this program needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The server's version, such as `15.18`.
    pub server: String,
    /// Where PGMQ's objects come from.
    pub pgmq: Pgmq,
    /// Migrations that are applied, by version.
    pub applied: Vec<i64>,
    /// Migrations that this program has and the database lacks.
    pub missing: Vec<i64>,
    /// Migrations that the database has and this program does not know.
    pub unknown: Vec<i64>,
    /// Queues that this program needs and the database lacks: the migration was cut short after its last step.
    pub missing_queues: Vec<String>,
    /// The newest migration that this program has.
    pub newest: i64,
    /// The newest migration that a program must have to work on this schema; `None` where the schema does not say.
    pub compatible_from: Option<i64>,
}

/// Where PGMQ's objects come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pgmq {
    /// The server's extension.
    Extension(String),
    /// SQL installed by this program or by another one with the `pgmq` crate.
    Sql(String),
    /// A schema `pgmq` of unknown origin.
    Foreign,
    /// Nothing.
    Absent,
}

impl Status {
    /// Whether it is the schema that this program was built for.
    pub fn is_current(&self) -> bool {
        self.is_whole() && self.unknown.is_empty()
    }

    /// Whether this program can work on it: nothing is missing, and what is newer says that it is compatible.
    pub fn is_usable(&self) -> bool {
        self.is_whole() && self.is_compatible()
    }

    fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.missing_queues.is_empty() && !self.applied.is_empty()
    }

    fn is_compatible(&self) -> bool {
        self.unknown.is_empty() || self.compatible_from.is_some_and(|least| least <= self.newest)
    }
}

/// Brings the schema to what this program needs; what is there already stays.
///
/// # Errors
/// [`Error::Statement`] when PostgreSQL refuses, [`Error::Schema`] when the server is too old, or the schema is newer than this program.
pub async fn migrate(pool: &PgPool) -> Result<Status, Error> {
    let mut connection = pool.acquire().await.map_err(failed("acquire_connection"))?;
    // our lock and the migrator's own end with the connection, however this ends
    connection.close_on_drop();
    run(&mut connection, "lock_schema", &format!("select pg_advisory_lock({LOCK})")).await?;
    migrate_locked(pool, &mut connection).await?;
    drop(connection);
    status(pool).await
}

async fn migrate_locked(pool: &PgPool, connection: &mut PgConnection) -> Result<(), Error> {
    let before = status(pool).await?;
    if let Some(newer) = before.unknown.first() {
        // a newer program was here; where this one still works there is nothing to do
        return if before.is_usable() { Ok(()) } else { Err(Error::Schema(newer_than_program(*newer))) };
    }
    match before.pgmq {
        Pgmq::Extension(_) | Pgmq::Foreign => {}
        Pgmq::Sql(_) | Pgmq::Absent => PGMQueueExt::new_with_pool(pool.clone())
            .await
            .install_sql_from_embedded()
            .await
            .map_err(|e| Error::Schema(format!("failed to install PGMQ's objects: {e}")))?,
    }
    run(connection, "create_schema", "create schema if not exists tasker").await?;
    run(connection, "set_search_path", "set search_path = tasker, public").await?;
    MIGRATOR.run(&mut *connection).await.map_err(not_applied)?;
    run(connection, "reset_search_path", "reset search_path").await?;
    for queue in QUEUES {
        let mut transaction = connection.begin().await.map_err(failed("begin"))?;
        crate::queue::create(&mut transaction, queue).await?;
        transaction.commit().await.map_err(failed("commit"))?;
    }
    Ok(())
}

/// What is installed.
///
/// # Errors
/// [`Error::Statement`], or [`Error::Schema`] for a server older than PostgreSQL 14.
pub async fn status(pool: &PgPool) -> Result<Status, Error> {
    let (server, number): (String, i32) =
        sqlx::query_as("select current_setting('server_version'), current_setting('server_version_num')::integer")
            .fetch_one(pool)
            .await
            .map_err(failed("read_server_version"))?;
    if number < 140_000 {
        return Err(Error::Schema(format!("PostgreSQL {server} is too old; Tasker needs version 14 or later")));
    }
    let exists: bool = sqlx::query_scalar("select to_regclass('tasker._sqlx_migrations') is not null")
        .fetch_one(pool)
        .await
        .map_err(failed("look_for_schema"))?;
    let applied: Vec<i64> = if exists {
        sqlx::query_scalar("select version from tasker._sqlx_migrations where success order by version")
            .fetch_all(pool)
            .await
            .map_err(failed("read_schema_version"))?
    } else {
        Vec::new()
    };
    let says: bool = sqlx::query_scalar("select to_regclass('tasker.compatibility') is not null")
        .fetch_one(pool)
        .await
        .map_err(failed("look_for_compatibility"))?;
    let compatible_from = if says {
        sqlx::query_scalar("select compatible_from from tasker.compatibility")
            .fetch_optional(pool)
            .await
            .map_err(failed("read_compatibility"))?
    } else {
        None
    };
    let missing_queues =
        sqlx::query_scalar("select queue from unnest($1::text[]) queue where to_regclass('pgmq.q_' || queue) is null")
            .bind(QUEUES)
            .fetch_all(pool)
            .await
            .map_err(failed("look_for_queues"))?;
    let known: Vec<i64> = MIGRATOR.iter().map(|m| m.version).collect();
    Ok(Status {
        server,
        pgmq: pgmq_origin(pool).await?,
        missing: known.iter().copied().filter(|v| !applied.contains(v)).collect(),
        unknown: applied.iter().copied().filter(|v| !known.contains(v)).collect(),
        missing_queues,
        applied,
        newest: known.into_iter().max().unwrap_or_default(),
        compatible_from,
    })
}

/// Refuses a schema that this program cannot work on.
///
/// # Errors
/// [`Error::Schema`] says what to run.
pub async fn check(pool: &PgPool) -> Result<Status, Error> {
    let status = status(pool).await?;
    if status.applied.is_empty() {
        return Err(Error::Schema("the database has no Tasker schema; run `tasker db migrate`".to_owned()));
    }
    if let Some(newer) = status.unknown.first()
        && !status.is_compatible()
    {
        return Err(Error::Schema(newer_than_program(*newer)));
    }
    if let Some(missing) = status.missing.first() {
        return Err(Error::Schema(format!("the schema lacks migration {missing}; run `tasker db migrate`")));
    }
    if let Some(queue) = status.missing_queues.first() {
        return Err(Error::Schema(format!("the schema lacks the queue {queue}; run `tasker db migrate`")));
    }
    Ok(status)
}

async fn pgmq_origin(pool: &PgPool) -> Result<Pgmq, Error> {
    let (extension, sql, schema): (Option<String>, bool, bool) = sqlx::query_as(
        "select (select extversion from pg_extension where extname = 'pgmq'),
                to_regclass('pgmq.__pgmq_migrations') is not null,
                to_regnamespace('pgmq') is not null",
    )
    .fetch_one(pool)
    .await
    .map_err(failed("look_for_pgmq"))?;
    Ok(match (extension, sql, schema) {
        (Some(version), ..) => Pgmq::Extension(version),
        (None, true, _) => Pgmq::Sql(pgmq_version(pool).await?),
        (None, false, true) => Pgmq::Foreign,
        (None, false, false) => Pgmq::Absent,
    })
}

/// The version in the `pgmq` crate's list. The crate's own function for it creates the list and locks it against everybody
/// else, which no health check may do.
async fn pgmq_version(pool: &PgPool) -> Result<String, Error> {
    let newest = sqlx::query_scalar("select version from pgmq.__pgmq_migrations order by run_at desc limit 1");
    let version: Option<String> = newest.fetch_optional(pool).await.map_err(failed("read_pgmq_version"))?;
    Ok(version.unwrap_or_else(|| "unknown".to_owned()))
}

async fn run(connection: &mut PgConnection, doing: &'static str, sql: &str) -> Result<(), Error> {
    sqlx::query(sql).execute(connection).await.map(drop).map_err(failed(doing))
}

fn newer_than_program(version: i64) -> String {
    format!("the schema has migration {version}, which this program is too old for; use a newer Tasker")
}

fn not_applied(error: MigrateError) -> Error {
    Error::Schema(match error {
        MigrateError::VersionMismatch(version) => format!(
            "migration {version} of this database is another one than this program's; it comes from a build that was \
             never released: use that build, or another database (of a private server: another --data-dir)"
        ),
        other => format!("failed to migrate: {other}"),
    })
}

fn failed(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Error {
    move |source| Error::Statement { doing, source }
}

/// The checksums of the migrations, which together name the schema.
pub fn checksums() -> impl Iterator<Item = &'static [u8]> {
    MIGRATOR.iter().map(|migration| migration.checksum.as_ref())
}
