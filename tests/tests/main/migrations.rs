//! Migrations that are cut short: killed, cut off, failed or given up, at every step from an empty database to the newest schema.

use crate::stage::Stage;
use anyhow::{Context, Result, ensure};
use sqlx::{Connection as _, Executor as _, PgConnection, PgPool};
use std::time::Duration;
use tasker_shared::{storage::schema, task::TaskState};
use tasker_tests::{
    TestDatabase,
    process::{PATIENCE, Process, TASKER, command},
};
use tokio::time::timeout;

/// What the test holds while a migration is to stand still.
const BRAKE: i64 = 4711;

/// Stops a migration before its `nth` command after `applied` migrations, until the test lets go; or lets it fail there.
const BRAKES: &str = "
    create schema brake;
    create sequence brake.commands;
    create table brake.moment (applied bigint, nth bigint, fails boolean);
    create function brake.pull() returns event_trigger language plpgsql as $$
    declare
        moment brake.moment;
        done bigint := 0;
    begin
        select * into moment from brake.moment;
        if to_regclass('tasker._sqlx_migrations') is not null then
            execute 'select count(*) from tasker._sqlx_migrations' into done;
        end if;
        if moment.applied = done and nextval('brake.commands') = moment.nth then
            if moment.fails then
                raise exception 'the test lets it fail';
            end if;
            perform pg_advisory_xact_lock(4711);
        end if;
    end $$;
    create event trigger brake on ddl_command_start execute function brake.pull();
";

/// A database without the schema, where migrations can be stopped.
struct Braked {
    database: TestDatabase,
    connection: PgConnection,
}

impl Braked {
    async fn new() -> Result<Self> {
        let database = TestDatabase::empty().await?;
        let mut connection = PgConnection::connect(&database.url).await?;
        connection.execute(BRAKES).await?;
        Ok(Self { database, connection })
    }

    /// The next migration stops, or fails, before its `nth` command after `applied` migrations.
    async fn at(&mut self, applied: usize, nth: i64, fails: bool) -> Result<()> {
        // waits until the one before is rolled back
        sqlx::query("select pg_advisory_lock($1)").bind(BRAKE).execute(&mut self.connection).await?;
        self.connection.execute("select setval('brake.commands', 1, false)").await?;
        let moment = sqlx::query("insert into brake.moment values ($1, $2, $3)");
        moment.bind(i64::try_from(applied)?).bind(nth).bind(fails).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Waits until a migration stands still; answers with its backend.
    async fn stopped(&mut self) -> Result<i32> {
        self.waits_for(BRAKE).await
    }

    /// Waits until somebody waits for an advisory lock; answers with its backend.
    async fn waits_for(&mut self, lock: i64) -> Result<i32> {
        let sql = "select pid from pg_locks l join pg_database d on d.oid = l.database
                    where d.datname = current_database() and locktype = 'advisory' and not granted
                      and (classid::bigint << 32 | objid::bigint) = $1";
        let waiting = async {
            loop {
                let found = sqlx::query_scalar(sql).bind(lock).fetch_optional(&mut self.connection).await?;
                if let Some(backend) = found {
                    return anyhow::Ok(backend);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, waiting).await.context("a migration stands still")?
    }

    async fn terminate(&mut self, backend: i32) -> Result<()> {
        sqlx::query("select pg_terminate_backend($1)").bind(backend).execute(&mut self.connection).await?;
        Ok(())
    }

    async fn let_go(&mut self) -> Result<()> {
        self.connection.execute("delete from brake.moment").await?;
        sqlx::query("select pg_advisory_unlock($1)").bind(BRAKE).execute(&mut self.connection).await?;
        Ok(())
    }

    fn migrate(&self) -> Result<Process> {
        let mut command = command(TASKER)?;
        command.args(["db", "migrate"]).env("DATABASE_URL", &self.database.url).env("XDG_CONFIG_HOME", "/nonexistent");
        Process::start(TASKER, command)
    }
}

/// Everything that the schema consists of, as text.
async fn objects(url: &str) -> Result<Vec<String>> {
    let mut connection = PgConnection::connect(url).await?;
    let sql = "
        select format('%s %s.%s %s %s', c.relkind, c.relnamespace::regnamespace, c.relname, a.attname,
                      format_type(a.atttypid, a.atttypmod)) from pg_class c
          left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         where c.relnamespace::regnamespace::text in ('tasker', 'pgmq')
        union all
        select format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) from pg_constraint
         where connamespace::regnamespace::text in ('tasker', 'pgmq')
        union all
        select format('%s %s', oid::regprocedure, md5(prosrc)) from pg_proc
         where pronamespace::regnamespace::text in ('tasker', 'pgmq')
        order by 1";
    Ok(sqlx::query_scalar(sql).fetch_all(&mut connection).await?)
}

async fn is_whole_and_works(database: TestDatabase) -> Result<()> {
    let right = TestDatabase::create().await?;
    assert_eq!(objects(&database.url).await?, objects(&right.url).await?);
    right.drop().await?;
    let stage = Stage::on(database).await?;
    let mut worker = stage.worker(&[])?;
    let task = stage.submit("chain", serde_json::json!({})).await?;
    assert_eq!(stage.ended(task).await?.summary.state, TaskState::Complete);
    worker.drain().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_dies_at_any_step_is_refused_by_services_and_finished_by_the_next_one() -> Result<()> {
    let mut braked = Braked::new().await?;
    let pool = PgPool::connect(&braked.database.url).await?;
    let all = schema::checksums().count();
    // into PGMQ's own objects, into each migration from the schema before it, and between the queues
    let moments = [(0, 1), (0, 40)].into_iter().chain((1..all).map(|applied| (applied, 1))).chain([(all, 1), (all, 4)]);
    for (number, (applied, nth)) in moments.enumerate() {
        braked.at(applied, nth, false).await?;
        let mut migrating = braked.migrate()?;
        let backend = braked.stopped().await?;
        if number % 2 == 0 {
            migrating.kill9().await?;
        } else {
            braked.terminate(backend).await?;
            assert_ne!(migrating.ended().await?.code(), Some(0));
            migrating.wrote("terminating connection").await.context("it says why")?;
        }
        let status = schema::status(&pool).await?;
        assert_eq!(status.applied.len(), applied, "each step is there as a whole or not at all");
        let refused = schema::check(&pool).await.expect_err("it is not whole").to_string();
        assert!(refused.ends_with("run `tasker db migrate`"), "{refused}");
        braked.let_go().await?;
    }
    let mut last = braked.migrate()?;
    ensure!(last.ended().await?.success(), "{}", last.text());
    pool.close().await;
    is_whole_and_works(braked.database).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_migrations_at_once_the_second_finishes_what_the_first_was_killed_in() -> Result<()> {
    let mut braked = Braked::new().await?;
    braked.at(1, 3, false).await?;
    let mut first = braked.migrate()?;
    braked.stopped().await?;
    let mut second = braked.migrate()?;
    braked.waits_for(schema::LOCK).await?;
    first.kill9().await?;
    braked.let_go().await?;
    ensure!(second.ended().await?.success(), "{}", second.text());
    is_whole_and_works(braked.database).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_fails_or_is_given_up_holds_no_other_back() -> Result<()> {
    let mut braked = Braked::new().await?;
    // both pools stay open, as in a process that goes on
    let (ours, theirs) = (PgPool::connect(&braked.database.url).await?, PgPool::connect(&braked.database.url).await?);
    braked.at(1, 1, true).await?;
    let failed = schema::migrate(&ours).await.expect_err("the test lets it fail").to_string();
    assert!(failed.contains("the test lets it fail"), "{failed}");
    braked.let_go().await?;
    braked.at(2, 1, false).await?;
    tokio::select! {
        ended = schema::migrate(&theirs) => anyhow::bail!("it stands still: {ended:?}"),
        stopped = braked.stopped() => drop(stopped?),
    }
    braked.let_go().await?;
    let last = timeout(PATIENCE, schema::migrate(&ours)).await;
    assert!(last.context("nobody holds the lock")??.is_current());
    ours.close().await;
    theirs.close().await;
    braked.connection.close().await?;
    braked.database.drop().await
}
