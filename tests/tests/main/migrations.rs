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

    /// Waits until so many wait for a lock on a table.
    async fn waiting(&mut self, many: i64) -> Result<()> {
        let sql = "select count(*) from pg_locks l join pg_database d on d.oid = l.database
                    where d.datname = current_database() and locktype = 'relation' and not granted";
        let waiting = async {
            while sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut self.connection).await? < many {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, waiting).await.context("they wait")?
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

/// A template in two versions, and the queue of requests.
const TWO_VERSIONS: &str = "
    insert into tasker.namespaces (name, queue) values ('n', 'worker_n');
    insert into tasker.templates (id, namespace, name, version, definition, source, checksum, identity_strategy)
    values (gen_random_uuid(), 'n', 't', '1', '{}', '', '', 'always_unique'), (gen_random_uuid(), 'n', 't', '2', '{}', '', '', 'always_unique');
    select tasker.create_queue('task_requests')";

/// The identity of a key before migration 8.
const VERSIONED: &str =
    "sha256(convert_to(jsonb_build_array(t.namespace, t.name, t.version, 'key', $1)::text, 'UTF8'))";

/// Submits by SQL, with a key.
async fn keyed(connection: &mut PgConnection, version: Option<&str>, key: &str) -> Result<uuid::Uuid, sqlx::Error> {
    let sql = "select tasker.submit('n', 't', version => $1, idempotency_key => $2)";
    sqlx::query_scalar(sql).bind(version).bind(key).fetch_one(connection).await
}

/// Stores a task as a program does that has computed the identity before the migration; answers with how many were stored.
async fn stored_by_version(connection: &mut PgConnection, version: &str, key: &str) -> Result<u64, sqlx::Error> {
    let sql = format!(
        "insert into tasker.tasks (id, template_id, namespace, name, version, state, input, correlation_id, identity_hash, idempotency_key)
         select gen_random_uuid(), t.id, t.namespace, t.name, t.version, 'pending', '{{}}', gen_random_uuid(), {VERSIONED}, $1
           from tasker.templates t where t.version = $2
         on conflict (identity_hash) where identity_hash is not null do nothing"
    );
    Ok(sqlx::query(&sql).bind(key).bind(version).execute(connection).await?.rows_affected())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_from_before_an_upgrade_are_known_after_it_and_no_key_becomes_two_tasks_meanwhile() -> Result<()> {
    let mut braked = Braked::new().await?;
    let pool = PgPool::connect(&braked.database.url).await?;
    braked.at(7, 1, true).await?;
    schema::migrate(&pool).await.expect_err("the test stops it before migration 8");
    braked.let_go().await?;
    let (mut old, mut other) =
        (PgConnection::connect(&braked.database.url).await?, PgConnection::connect(&braked.database.url).await?);
    old.execute(TWO_VERSIONS).await?;
    let before = keyed(&mut old, Some("1"), "before").await?;
    let twice = [keyed(&mut old, Some("1"), "twice").await?, keyed(&mut old, Some("2"), "twice").await?];
    assert_ne!(twice[0], twice[1], "a key counts for one version before migration 8");

    // one submission is under way while the schema is migrated, its repeat comes meanwhile
    let mut transaction = old.begin().await?;
    let meanwhile = keyed(&mut transaction, Some("1"), "meanwhile").await?;
    let repeat = async {
        braked.waiting(1).await?;
        let repeat = tokio::spawn(async move { (keyed(&mut other, None, "meanwhile").await, other) });
        braked.waiting(2).await?;
        transaction.commit().await?;
        anyhow::Ok(repeat.await?)
    };
    let (migrated, repeat) = tokio::join!(schema::migrate(&pool), repeat);
    assert!(migrated?.is_current());
    let (repeated, mut other) = repeat?;
    assert_eq!(repeated?, meanwhile);

    for (connection, version) in [(&mut old, None), (&mut other, Some("1"))] {
        assert_eq!(keyed(connection, version, "before").await?, before);
        assert_eq!(keyed(connection, Some("2"), "before").await?, before);
        assert_eq!(keyed(connection, Some("2"), "meanwhile").await?, meanwhile);
        assert_eq!(keyed(connection, Some("1"), "twice").await?, twice[0]);
        assert_eq!(keyed(connection, Some("2"), "twice").await?, twice[1]);
    }
    old.execute(
        "insert into tasker.templates (id, namespace, name, version, definition, source, checksum, identity_strategy)
                 values (gen_random_uuid(), 'n', 't', '3', '{}', '', '', 'always_unique')",
    )
    .await?;
    assert_eq!(keyed(&mut old, None, "before").await?, before);
    assert_eq!(keyed(&mut old, None, "twice").await?, twice[1], "the newest");

    // what has computed the identity as before stores no second task, whichever was first
    keyed(&mut old, Some("2"), "after").await?;
    for (version, key) in [("1", "after"), ("2", "after"), ("2", "before"), ("1", "new"), ("3", "new")] {
        let refused = stored_by_version(&mut old, version, key).await.expect_err(key);
        assert_eq!(refused.as_database_error().and_then(|e| e.code()).as_deref(), Some("40001"), "{refused}");
    }
    assert_eq!(stored_by_version(&mut old, "1", "before").await?, 0, "it is a repeat");
    let doubled = "select count(*) from (select from tasker.tasks where idempotency_key <> 'twice'
                   group by namespace, name, idempotency_key having count(*) > 1) x";
    assert_eq!(sqlx::query_scalar::<_, i64>(doubled).fetch_one(&mut old).await?, 0);

    // forgotten, a key is a new task, and has the new identity
    sqlx::query("delete from tasker.tasks where id = $1").bind(before).execute(&mut old).await?;
    let again = keyed(&mut old, Some("1"), "before").await?;
    assert_eq!(keyed(&mut old, Some("2"), "before").await?, again);
    let new = "select identity_hash = tasker.key_hash('n', 't', 'before') from tasker.tasks where id = $1";
    assert!(sqlx::query_scalar::<_, bool>(new).bind(again).fetch_one(&mut old).await?);
    old.close().await?;
    other.close().await?;
    pool.close().await;
    braked.connection.close().await?;
    braked.database.drop().await
}
