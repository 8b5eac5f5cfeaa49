//! The least-privilege roles on a real PostgreSQL: the services live on them, and cannot do more.

use anyhow::{Context as _, Result, ensure};
use sqlx::{Connection as _, PgConnection};
use tasker_client::Client;
use tasker_shared::{
    api::{Action, ApplyTemplate, SubmitTask},
    id::TaskId,
    metrics::Metrics,
    storage::{Database, Options, roles},
    task::TaskState,
};
use tasker_tests::{
    TestDatabase,
    process::{ORCHESTRATION, Process, WORKER, tasker},
    system::{self, connect, eventually},
};

const TEMPLATE: &str = "
name: flow
namespace_name: roles
version: 1.0.0
steps:
  - {name: first, handler: {callable: noop}}
  - name: flaky
    dependencies: [first]
    retry: {max_attempts: 2, backoff: none}
    handler: {callable: command, initialization: {argv: ['false']}}
  - {name: last, dependencies: [first], handler: {callable: noop}}
";

const SIMPLE: &str = "
name: simple
namespace_name: roles
version: 1.0.0
steps:
  - {name: only, handler: {callable: noop}}
";

/// A database with the roles, and a user for each.
struct Stage {
    database: TestDatabase,
    owner: PgConnection,
}

impl Stage {
    async fn start() -> Result<Self> {
        let database = TestDatabase::create().await?;
        let pool = connect(&database.url, Metrics::disabled()).await?;
        roles::apply(&pool).await?;
        pool.pool().close().await;
        let again = tasker("http://127.0.0.1:1", &["db", "roles", "--apply", "--database-url", &database.url]).await?;
        ensure!(again.status.success(), "a second time: {}", String::from_utf8_lossy(&again.stderr));
        let mut owner = PgConnection::connect(&database.url).await?;
        let audited: Vec<String> =
            sqlx::query_scalar("select action from tasker.audit_log").fetch_all(&mut owner).await?;
        ensure!(audited == ["db.roles"], "{audited:?}");
        for role in roles::NAMES {
            let sql =
                format!("create role {role}_{name} login password 'of-a-test' in role {role}", name = database.name);
            sqlx::raw_sql(&sql).execute(&mut owner).await?;
        }
        Ok(Self { database, owner })
    }

    /// How a user of this role connects.
    fn url(&self, role: &str) -> Result<String> {
        let mut url = reqwest::Url::parse(&self.database.url)?;
        let user = format!("{role}_{}", self.database.name);
        url.set_username(&user).ok().context("a user")?;
        url.set_password(Some("of-a-test")).ok().context("a password")?;
        Ok(url.to_string())
    }

    async fn connection(&self, role: &str) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.url(role)?).await?)
    }

    /// A task with a step in each of these states.
    async fn steps(&mut self, states: &[&str]) -> Result<()> {
        let sql = "with home as (insert into tasker.namespaces (name, queue) values ('n', 'worker_n')),
             template as (
                 insert into tasker.templates (id, namespace, name, version, definition, source, checksum, identity_strategy)
                 values (gen_random_uuid(), 'n', 't', '1', '{}', '', '', 'always_unique') returning id),
             task as (
                 insert into tasker.tasks (id, template_id, namespace, name, version, state, input, correlation_id)
                 select gen_random_uuid(), id, 'n', 't', '1', 'in_progress', '{}', gen_random_uuid() from template returning id)
             insert into tasker.steps (id, task_id, name, position, state, waiting_on, max_attempts, timeout_ms, finished_at)
             select gen_random_uuid(), task.id, s.state, s.place, s.state, 0, 1, 1,
                    case when s.state in ('complete', 'error') then now() end
               from task, unnest($1::text[]) with ordinality s (state, place)";
        sqlx::query(sql).bind(states).execute(&mut self.owner).await?;
        Ok(())
    }

    async fn finish(mut self) -> Result<()> {
        for role in roles::NAMES {
            sqlx::raw_sql(&format!("drop owned by {role}_{name}; drop role {role}_{name}", name = self.database.name))
                .execute(&mut self.owner)
                .await?;
        }
        self.owner.close().await?;
        self.database.drop().await
    }
}

/// What must be refused for want of a privilege.
async fn refused(connection: &mut PgConnection, statements: &[&str]) -> Result<()> {
    for statement in statements {
        let answer = sqlx::raw_sql(statement).execute(&mut *connection).await;
        let error = answer.err().with_context(|| format!("it was allowed: {statement}"))?;
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(|code| code.into_owned());
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_workflows_run_with_nothing_but_the_roles() -> Result<()> {
    let stage = Stage::start().await?;
    let settings = [("TASKER__TELEMETRY__METRICS__PROBE_INTERVAL_MS", "200")];
    let mut orchestration = Process::service(ORCHESTRATION, &stage.url("tasker_orchestration")?, &settings)?;
    let mut worker = Process::service(WORKER, &stage.url("tasker_worker")?, &[])?;
    let client: Client = orchestration.client().await?;
    for source in [TEMPLATE, SIMPLE] {
        client.apply(&ApplyTemplate { source: source.to_owned(), file: None }).await?;
    }
    let ended = async |task: TaskId, state: TaskState| {
        let waited =
            eventually("the task has ended", async || Ok(client.task(task).await?.summary.state == state)).await;
        assert!(waited.is_ok(), "{task} is not {state}");
        Ok::<_, anyhow::Error>(())
    };
    let task = |name: &str| SubmitTask { namespace: "roles".into(), name: name.into(), ..SubmitTask::default() };
    let failing = client.submit(&task("flow")).await?.task_id;
    ended(failing, TaskState::Error).await?;
    client.retry(failing, &Action::default()).await?;
    ended(failing, TaskState::Error).await?;
    client.resolve(failing, &Action::default()).await?;

    // submitted by SQL, by a user who can do nothing else
    let mut submitter = stage.connection("tasker_submit").await?;
    let submitted: uuid::Uuid =
        sqlx::query_scalar("select tasker.submit('roles', 'simple', '{}')").fetch_one(&mut submitter).await?;
    ended(TaskId(submitted), TaskState::Complete).await?;
    submitter.close().await?;

    // paused while nobody works, so that the worker withdraws the step; and a message that nobody understands
    worker.drain().await?;
    let paused = client.submit(&task("simple")).await?.task_id;
    client.pause(paused, &Action::default()).await?;
    let mut owner = PgConnection::connect(&stage.database.url).await?;
    sqlx::raw_sql("insert into pgmq.q_worker_roles (vt, message) values (clock_timestamp(), '{\"x\": 1}')")
        .execute(&mut owner)
        .await?;
    let mut worker = Process::service(WORKER, &stage.url("tasker_worker")?, &[])?;
    eventually("the queue is empty", async || {
        let mut connection = PgConnection::connect(&stage.database.url).await?;
        let left: i64 =
            sqlx::query_scalar("select count(*) from pgmq.q_worker_roles").fetch_one(&mut connection).await?;
        Ok(left == 0)
    })
    .await?;
    let parked: i64 = sqlx::query_scalar("select count(*) from tasker.dead_letters").fetch_one(&mut owner).await?;
    assert_eq!(parked, 1);
    client.resume(paused, &Action::default()).await?;
    ended(paused, TaskState::Complete).await?;
    owner.close().await?;

    worker.drain().await?;
    orchestration.drain().await?;
    assert_eq!(denied(&[&orchestration, &worker]), "");
    stage.finish().await
}

/// What the processes said of missing privileges.
fn denied(processes: &[&Process]) -> String {
    let text: Vec<_> = processes.iter().map(|process| process.text()).collect();
    text.join("\n").lines().filter(|line| line.contains("permission denied")).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_can_do_what_a_worker_does_and_no_more() -> Result<()> {
    let mut stage = Stage::start().await?;
    let mut worker = stage.connection("tasker_worker").await?;
    refused(&mut worker, &[
        "select * from tasker.api_keys",
        "insert into tasker.api_keys (prefix, name, hash, permissions, namespaces, created_by) values ('aaaaaaaaaaaa', 'x', '', '{*}', '{*}', 'x')",
        "update tasker.api_keys set permissions = '{*}'",
        "select * from tasker.audit_log",
        "insert into tasker.audit_log (principal, action, target, outcome, request_id) values ('x', 'x', 'x', 'done', gen_random_uuid())",
        "delete from tasker.audit_log",
        "insert into tasker.templates (id) values (gen_random_uuid())",
        "update tasker.templates set source = 'x'",
        "delete from tasker.templates",
        "insert into tasker.tasks select * from tasker.tasks",
        "update tasker.tasks set state = 'complete'",
        "update tasker.tasks set input = '{}'",
        "delete from tasker.tasks",
        "delete from tasker.steps",
        "update tasker.steps set waiting_on = 0",
        "update tasker.steps set max_attempts = 100",
        "update tasker.step_transitions set actor = 'x'",
        "delete from tasker.step_transitions",
        "select * from tasker.dead_letters",
        "insert into tasker.step_transitions (task_id, step_id, from_state, to_state, attempt, actor) values (gen_random_uuid(), gen_random_uuid(), 'in_progress', 'reported', 1, 'operator:admin')",
        "insert into tasker.step_transitions (task_id, step_id, from_state, to_state, attempt, actor) values (gen_random_uuid(), gen_random_uuid(), 'reported', 'complete', 1, 'worker:x')",
        "insert into tasker.step_transitions (task_id, step_id, from_state, to_state, attempt, actor, at) values (gen_random_uuid(), gen_random_uuid(), 'in_progress', 'reported', 1, 'worker:x', '2020-01-01')",
        "insert into tasker.dead_letters (id, reason, queue, message, detail, read_count) values (gen_random_uuid(), 'manual', 'worker_x', '{}', 'x', 0)",
        "insert into tasker.dead_letters (id, reason, queue, message, detail, read_count, parked_by) values (gen_random_uuid(), 'unreadable', 'worker_x', '{}', 'x', 0, 'operator:x')",
        "insert into tasker.task_transitions (task_id, to_state, actor) values (gen_random_uuid(), 'pending', 'x')",
        "select tasker.submit('a', 'b', '{}')",
        "select tasker.create_queue('x')",
        "select * from pgmq.q_task_requests",
        "insert into pgmq.q_task_requests (vt, message) values (now(), '{}')",
        "select * from pgmq.q_step_results",
        "delete from pgmq.q_step_results",
        "create table tasker.mine (x int)",
        "create table pgmq.mine (x int)",
        "drop table tasker.tasks",
        "truncate tasker.tasks",
        "alter table tasker.tasks add column x int",
        "create function tasker.uuid_v7(x int) returns int language sql as 'select 1'",
        "set role tasker_orchestration",
    ])
    .await?;
    // and of the steps of others those only that a worker may move, to where it may
    stage.steps(&["enqueued", "in_progress", "complete", "error"]).await?;
    let forged = sqlx::raw_sql("update tasker.steps set result = '7'").execute(&mut worker).await?.rows_affected();
    assert_eq!(forged, 2, "what is enqueued and what runs");
    refused(&mut worker, &["update tasker.steps set state = 'complete'"]).await?;
    worker.close().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_in_public_stands_for_none_that_tasker_calls() -> Result<()> {
    let mut stage = Stage::start().await?;
    sqlx::raw_sql("grant create on schema public to public").execute(&mut stage.owner).await?;
    let mut worker = stage.connection("tasker_worker").await?;
    let mine = "returns bytea language plpgsql as $$ begin raise exception 'mine, as %', current_user; end $$";
    sqlx::raw_sql(&format!("create function public.set_bit(bytea, integer, integer) {mine}"))
        .execute(&mut worker)
        .await?;
    sqlx::raw_sql("select tasker.uuid_v7()").execute(&mut stage.owner).await.context("the owner's own session")?;
    let options = Options { own_names_only: true, ..system::options(&stage.database.url) };
    let pool = Database::connect(&options, Metrics::disabled()).await?;
    let path: String = sqlx::query_scalar("show search_path").fetch_one(pool.pool()).await?;
    assert_eq!(path, "pg_catalog,pg_temp");
    pool.pool().close().await;
    worker.close().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submitter_has_one_function_and_cannot_turn_it_against_its_owner() -> Result<()> {
    let stage = Stage::start().await?;
    let mut submitter = stage.connection("tasker_submit").await?;
    refused(
        &mut submitter,
        &[
            "select * from tasker.tasks",
            "insert into tasker.tasks select * from tasker.tasks",
            "select * from tasker.templates",
            "select * from tasker.api_keys",
            "select * from pgmq.meta",
            "select tasker.create_queue('x')",
            "select tasker.uuid_v7()",
            "select * from tasker.authenticate_key('a', 'b')",
            "create table tasker.mine (x int)",
        ],
    )
    .await?;
    // names of its own before those that the function means
    sqlx::raw_sql(
        "create function pg_temp.coalesce(x uuid, y uuid, z uuid) returns uuid language sql as 'select null::uuid';
         create function pg_temp.clock_timestamp() returns timestamptz language plpgsql as $$ begin raise exception 'mine'; end $$;
         create function pg_temp.jsonb_build_object(a text, b uuid) returns jsonb language plpgsql as $$ begin raise exception 'mine'; end $$;
         set search_path = pg_temp, public, pg_catalog",
    )
    .execute(&mut submitter)
    .await?;
    let unknown =
        sqlx::raw_sql("select tasker.submit('a', 'b', '{}')").execute(&mut submitter).await.unwrap_err().to_string();
    assert!(unknown.contains("template a/b is not registered"), "{unknown}");
    submitter.close().await?;
    stage.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_work_but_neither_keys_nor_the_audit_and_orchestration_cannot_change_the_audit() -> Result<()> {
    let stage = Stage::start().await?;
    let mut reader = stage.connection("tasker_readonly").await?;
    for table in ["tasker.tasks", "tasker.steps", "tasker.templates", "tasker.dead_letters", "pgmq.q_step_results"] {
        sqlx::raw_sql(&format!("select * from {table}")).execute(&mut reader).await.context(table)?;
    }
    refused(
        &mut reader,
        &[
            "select * from tasker.api_keys",
            "select * from tasker.audit_log",
            "delete from tasker.tasks",
            "update tasker.steps set result = '1'",
            "select tasker.submit('a', 'b', '{}')",
            "insert into pgmq.q_step_results (vt, message) values (now(), '{}')",
        ],
    )
    .await?;
    reader.close().await?;
    let mut orchestration = stage.connection("tasker_orchestration").await?;
    refused(
        &mut orchestration,
        &[
            "update tasker.audit_log set principal = 'x'",
            "truncate tasker.audit_log",
            "update tasker.api_keys set permissions = '{*}'",
            "delete from tasker.api_keys",
            "delete from tasker._sqlx_migrations",
            "drop table tasker.tasks",
            "create table tasker.mine (x int)",
        ],
    )
    .await?;
    let bad =
        sqlx::raw_sql("select tasker.create_queue('x; drop table tasker.tasks')").execute(&mut orchestration).await;
    assert!(bad.unwrap_err().to_string().contains("is no name of a queue"));
    orchestration.close().await?;
    stage.finish().await
}
