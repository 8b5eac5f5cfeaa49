//! Retention: what has ended is removed by age, whole, and nothing else is.

use anyhow::Result;
use serde_json::json;
use std::time::Duration;
use tasker_orchestration::submit;
use tasker_shared::{
    api::{AuditFilter, SubmitTask},
    config::Retention,
    id::TaskId,
    metrics::Metrics,
    step::StepState,
    storage::{
        audit,
        retention::{self, Ended, Rule},
    },
    task::TaskState,
};
use tasker_tests::{
    System, process,
    system::{eventually, orchestration_settings, worker_settings},
    templates::{NAMESPACE, diamond, single},
};
use tasker_worker::{HandlerError, StepContext, Worker, handler::handler_fn};

const DAY: Duration = Duration::from_secs(86_400);

/// The tables that hold rows of tasks, with the column of the task.
const TABLES: [(&str, &str); 6] = [
    ("tasks", "id"),
    ("steps", "task_id"),
    ("step_edges", "task_id"),
    ("task_transitions", "task_id"),
    ("step_transitions", "task_id"),
    ("dead_letters", "task_id"),
];

/// 30 days for complete tasks, 90 for others.
fn usual() -> Retention {
    Retention {
        complete_after: Some(30 * DAY),
        failed_after: Some(90 * DAY),
        identity_after: Some(60 * DAY),
        sweep_interval: Duration::from_millis(50),
        ..Retention::never()
    }
}

fn settings(retention: Retention) -> tasker_orchestration::Settings {
    tasker_orchestration::Settings { retention, ..orchestration_settings() }
}

/// A system with a worker and the templates `diamond`, which succeeds, and `broken`, which fails.
async fn system(retention: Retention) -> Result<System> {
    let mut system = System::start_with(settings(retention), Metrics::disabled()).await?;
    let noop = handler_fn(|_: StepContext| async { Ok::<_, HandlerError>(json!(null)) });
    let waits = handler_fn(|_: StepContext| std::future::pending::<Result<(), HandlerError>>());
    let fails = handler_fn(|_: StepContext| async { Err::<(), _>(HandlerError::fail("it never works")) });
    let worker = Worker::builder().settings(worker_settings()).register("noop", noop).register("wait", waits);
    system.add_worker(worker.register("fails", fails))?;
    system.apply(&diamond("noop")).await?;
    system.apply(&single("broken", "fails", "")).await?;
    Ok(system)
}

/// Makes a task's end so many days older.
async fn age(system: &System, task: TaskId, days: i32) -> Result<()> {
    let sql = format!("update tasker.tasks set finished_at = finished_at - interval '{days} days' where id = '{task}'");
    assert_eq!(system.execute(&sql).await?, 1);
    Ok(())
}

async fn rows(system: &System, task: TaskId) -> Result<Vec<i64>> {
    let mut rows = Vec::new();
    for (table, column) in TABLES {
        rows.push(system.count(&format!("select count(*) from tasker.{table} where {column} = '{task}'")).await?);
    }
    Ok(rows)
}

async fn gone(system: &System, task: TaskId) -> Result<()> {
    eventually("the task is gone", async || Ok(rows(system, task).await?.iter().sum::<i64>() == 0)).await
}

async fn done(system: &System, name: &str) -> Result<TaskId> {
    let task = system.begin(name).await?;
    system.ended(task).await?;
    Ok(task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_tasks_are_removed_whole_failures_later_and_open_tasks_never() -> Result<()> {
    let system = system(usual()).await?;
    system.apply(&single("waits", "wait", "")).await?;
    let (young, old) = (done(&system, "diamond").await?, done(&system, "diamond").await?);
    let (failed, failed_long_ago) = (done(&system, "broken").await?, done(&system, "broken").await?);
    let open = system.submit("test", "waits", json!({})).await?.task_id;
    system.step_is(open, "only", StepState::InProgress).await?;
    system
        .execute(&format!("update tasker.tasks set created_at = created_at - interval '1 year' where id = '{open}'"))
        .await?;
    age(&system, young, 29).await?;
    age(&system, failed, 89).await?;
    age(&system, failed_long_ago, 91).await?;
    age(&system, old, 31).await?;
    gone(&system, old).await?;
    gone(&system, failed_long_ago).await?;
    assert_eq!(rows(&system, young).await?, [1, 4, 4, 3, 16, 0]);
    assert_eq!(rows(&system, failed).await?[..2], [1, 1]);
    assert_eq!(rows(&system, open).await?[..2], [1, 1]);
    assert_eq!(system.detail(young).await?.summary.state, TaskState::Complete);
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_says_how_long_its_own_tasks_are_kept() -> Result<()> {
    let system = system(usual()).await?;
    let kept = |name: &str, handler: &str, ages: &str| format!("retention: {ages}\n{}", single(name, handler, ""));
    system.apply(&kept("brief", "noop", "{complete_after: 1h}")).await?;
    system.apply(&kept("long", "noop", "{complete_after: 45d}")).await?;
    system.apply(&kept("eternal", "noop", "{complete_after: never}")).await?;
    system.apply(&kept("failing", "fails", "{failed_after: 2d}")).await?;
    system.apply(&kept("cherished", "fails", "{complete_after: 1m, failed_after: never}")).await?;
    let finished = async |name: &str, days: i32| -> Result<TaskId> {
        let task = done(&system, name).await?;
        age(&system, task, days).await?;
        Ok(task)
    };
    let staying = [
        finished("brief", 0).await?,
        finished("long", 44).await?,
        finished("eternal", 4000).await?,
        finished("failing", 1).await?,
        finished("cherished", 4000).await?,
        finished("diamond", 29).await?,
        finished("broken", 89).await?,
    ];
    let going = [
        finished("brief", 1).await?,
        finished("long", 46).await?,
        finished("failing", 3).await?,
        finished("diamond", 31).await?,
        finished("broken", 91).await?,
    ];
    for task in going {
        gone(&system, task).await?;
    }
    // what becomes old while the sweep is at work is found as well, at its own age
    let later = finished("brief", 0).await?;
    let sweeps = async || {
        let probe = finished("diamond", 31).await?;
        gone(&system, probe).await
    };
    sweeps().await?;
    for task in staying.into_iter().chain([later]) {
        assert_eq!(rows(&system, task).await?[0], 1, "{}", system.detail(task).await?.summary.name);
    }
    age(&system, later, 1).await?;
    gone(&system, later).await?;
    let mut session = system.database.session("test").await?;
    let said = retention::of_templates(&mut session).await?;
    let minutes = |n: u64| Duration::from_secs(n * 60);
    assert_eq!(
        said,
        [
            (Ended::Otherwise, 2 * DAY),
            (Ended::Complete, minutes(1)),
            (Ended::Complete, minutes(60)),
            (Ended::Complete, 45 * DAY)
        ]
    );
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_is_remembered_as_long_as_it_says_and_forgotten_with_its_task() -> Result<()> {
    let system = system(usual()).await?;
    let submit = async || {
        let key = Some("once".to_owned());
        let task = SubmitTask {
            namespace: NAMESPACE.to_owned(),
            name: "diamond".to_owned(),
            idempotency_key: key,
            ..SubmitTask::default()
        };
        anyhow::Ok(submit::submit(&system.orchestration, vec![task]).await?.remove(0)?.task_id)
    };
    let first = submit().await?;
    system.ended(first).await?;
    let plain = done(&system, "diamond").await?;
    age(&system, first, 59).await?;
    age(&system, plain, 59).await?;
    gone(&system, plain).await?;
    assert_eq!(submit().await?, first, "its identity is remembered for 60 days");
    age(&system, first, 2).await?;
    gone(&system, first).await?;
    assert_ne!(submit().await?, first);
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_archived_in_the_transaction_that_removes_it() -> Result<()> {
    let system = system(Retention { archive: true, ..usual() }).await?;
    let task = done(&system, "diamond").await?;
    let before = rows(&system, task).await?;
    age(&system, task, 31).await?;
    gone(&system, task).await?;
    let mut session = system.database.session("test").await?;
    let listed = retention::list(&mut session, Some(NAMESPACE), 10).await?;
    assert_eq!(listed.iter().map(|t| (t.id, t.state)).collect::<Vec<_>>(), [(task, TaskState::Complete)]);
    let shown = retention::show(&mut session, task).await?;
    let of = |source: &str| shown.iter().filter(|row| row.source == source).count() as i64;
    assert_eq!(
        ["tasks", "steps", "step_edges", "task_transitions", "step_transitions", "dead_letters"].map(of),
        *before
    );
    let names: Vec<_> = shown.iter().filter(|row| row.source == "steps").map(|row| &row.document["name"]).collect();
    assert_eq!(names, ["a", "b", "c", "d"]);
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_stays_while_a_dead_letter_of_it_is_open() -> Result<()> {
    let system = system(usual()).await?;
    let (task, other) = (done(&system, "diamond").await?, done(&system, "diamond").await?);
    let park = format!(
        "insert into tasker.dead_letters (id, reason, queue, message, detail, task_id, read_count)
         values ('{task}', 'poison', 'worker_test', '{{}}', 'for the test', '{task}', 1)"
    );
    system.execute(&park).await?;
    age(&system, task, 32).await?;
    age(&system, other, 31).await?;
    gone(&system, other).await?;
    assert_eq!(rows(&system, task).await?[0], 1);
    let mut session = system.database.begin("test").await?;
    let at = Rule { ended: Ended::Complete, said: None, with_identity: None, age: DAY };
    assert!(retention::find(&mut session, at, None, 100).await?.tasks.is_empty());
    session.rollback().await?;
    system.execute("update tasker.dead_letters set resolved_at = clock_timestamp()").await?;
    let mut session = system.database.begin("test").await?;
    assert_eq!(retention::find(&mut session, at, None, 100).await?.tasks, [task]);
    session.rollback().await?;
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_somebody_holds_is_left_and_nobody_waits() -> Result<()> {
    let system = system(Retention::never()).await?;
    let (held, free) = (done(&system, "diamond").await?, done(&system, "diamond").await?);
    let mut holder = system.database.pool().begin().await?;
    sqlx::query(&format!("select from tasker.tasks where id = '{held}' for update")).execute(&mut *holder).await?;
    let mut session = system.database.begin("test").await?;
    sqlx::query("set local lock_timeout = '1s'").execute(session.connection()).await?;
    let now = Rule { ended: Ended::Complete, said: None, with_identity: None, age: Duration::ZERO };
    let found = retention::find(&mut session, now, None, 100).await?;
    assert_eq!(found.tasks, [free]);
    retention::delete(&mut session, &found.tasks).await?;
    session.commit().await?;
    gone(&system, free).await?;
    holder.commit().await?;
    assert_eq!(rows(&system, held).await?[0], 1);
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_batches_remove_everything_and_tell_the_planner() -> Result<()> {
    let system = system(Retention { batch_size: 100, ..usual() }).await?;
    let task = SubmitTask { namespace: NAMESPACE.to_owned(), name: "diamond".to_owned(), ..SubmitTask::default() };
    let open = "select count(*) from tasker.tasks where finished_at is null";
    for _ in 0..3 {
        submit::submit(&system.orchestration, vec![task.clone(); 400]).await?;
    }
    eventually("all have ended", async || Ok(system.count(open).await? == 0)).await?;
    let young = done(&system, "diamond").await?;
    system
        .execute(&format!(
            "update tasker.tasks set finished_at = finished_at - interval '31 days' where id <> '{young}'"
        ))
        .await?;
    eventually("all but one are gone", async || Ok(system.count("select count(*) from tasker.tasks").await? == 1))
        .await?;
    for (table, left) in [("steps", 4), ("step_edges", 4), ("task_transitions", 3), ("step_transitions", 16)] {
        assert_eq!(system.count(&format!("select count(*) from tasker.{table}")).await?, left, "{table}");
    }
    let analyzed = "select count(*) from pg_stat_user_tables where schemaname = 'tasker' and relname in ('tasks', 'steps') and last_analyze is not null";
    eventually("the planner knows", async || Ok(system.count(analyzed).await? == 2)).await?;
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_workers_resolved_dead_letters_and_archives_of_queues_are_removed() -> Result<()> {
    let retention = Retention {
        dead_letters_after: Some(90 * DAY),
        queue_archives_after: Some(30 * DAY),
        workers_after: Some(7 * DAY),
        archived_after: Some(365 * DAY),
        audit_after: Some(365 * DAY),
        ..usual()
    };
    let system = system(retention).await?;
    system
        .execute(
            "insert into tasker.workers (id, name, namespaces, handlers, version, heartbeat_at)
             select tasker.uuid_v7(), name, '{}', '{}', '', clock_timestamp() - age
               from (values ('old', interval '8 days'), ('young', interval '6 days')) w (name, age);
             insert into tasker.dead_letters (id, reason, queue, message, detail, read_count, created_at, resolved_at)
             select tasker.uuid_v7(), 'poison', 'q', '{}', detail, 1, clock_timestamp() - interval '1 year', clock_timestamp() - age
               from (values ('old', interval '91 days'), ('young', interval '89 days'), ('open', null)) d (detail, age);
             create table if not exists tasker.audit_log (id bigint generated always as identity primary key, at timestamptz,
                 principal text, action text, target text, outcome text, request_id uuid);
             insert into tasker.audit_log (at, principal, action, target, outcome, request_id)
             select clock_timestamp() - age, 'somebody', action, 'task', 'done', tasker.uuid_v7()
               from (values ('old', interval '366 days'), ('young', interval '364 days')) a (action, age);
             insert into pgmq.a_step_results (msg_id, read_ct, enqueued_at, archived_at, vt, message)
             select id, 0, now(), clock_timestamp() - age, now(), '{}'
               from (values (1, interval '31 days'), (2, interval '29 days')) a (id, age);
             insert into tasker.archived_tasks (id, namespace, name, version, state, correlation_id, finished_at, archived_at, document)
             select tasker.uuid_v7(), 'n', name, '1', 'complete', tasker.uuid_v7(), clock_timestamp(), clock_timestamp() - age, '{}'
               from (values ('old', interval '366 days'), ('young', interval '364 days')) a (name, age)",
        )
        .await?;
    for (table, old) in [
        ("tasker.workers", "name = 'old'"),
        ("tasker.dead_letters", "detail = 'old'"),
        ("pgmq.a_step_results", "msg_id = 1"),
        ("tasker.archived_tasks", "name = 'old'"),
        ("tasker.audit_log", "action = 'old'"),
    ] {
        let sql = format!("select count(*) from {table} where {old}");
        eventually(table, async || Ok(system.count(&sql).await? == 0)).await?;
    }
    assert_eq!(system.count("select count(*) from tasker.workers where name = 'young'").await?, 1);
    assert_eq!(system.count("select count(*) from tasker.dead_letters").await?, 2);
    assert_eq!(system.count("select count(*) from pgmq.a_step_results").await?, 1);
    assert_eq!(system.count("select count(*) from tasker.archived_tasks").await?, 1);
    assert_eq!(system.count("select count(*) from tasker.audit_log").await?, 1);
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_sweeps_for_all_and_another_goes_on_when_it_is_gone() -> Result<()> {
    const LEADERS: &str = "select count(*) from pg_locks where locktype = 'advisory' and granted
        and ((classid::bigint << 32) | objid::bigint) = x'7461736b7265'::bigint
        and database = (select oid from pg_database where datname = current_database())";
    let mut system = system(usual()).await?;
    system.add_orchestration(settings(usual())).await?;
    eventually("one leads", async || Ok(system.count(LEADERS).await? == 1)).await?;
    let cut = "select count(pg_terminate_backend(pid)) from pg_locks where locktype = 'advisory' and granted
        and ((classid::bigint << 32) | objid::bigint) = x'7461736b7265'::bigint
        and database = (select oid from pg_database where datname = current_database())";
    assert_eq!(system.count(cut).await?, 1);
    let task = done(&system, "diamond").await?;
    age(&system, task, 31).await?;
    gone(&system, task).await?;
    assert_eq!(system.count(LEADERS).await?, 1);
    system.close().await
}

/// Runs `tasker db …` on the system's database; answers with its JSON.
async fn tasker_db(system: &System, arguments: &[&str]) -> Result<serde_json::Value> {
    let all = [&["--json", "db"], arguments, &["--database-url", &system.test_database.url]].concat();
    let output = process::tasker("http://127.0.0.1:1", &all).await?;
    anyhow::ensure!(output.status.success(), "{all:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_counts_removes_and_reads_old_tasks_from_the_command_line() -> Result<()> {
    let system = system(Retention::never()).await?;
    let (old, young, failed) =
        (done(&system, "diamond").await?, done(&system, "diamond").await?, done(&system, "broken").await?);
    age(&system, old, 31).await?;
    age(&system, young, 29).await?;
    age(&system, failed, 31).await?;
    let counted = tasker_db(&system, &["prune", "--older-than", "30d", "--dry-run"]).await?;
    assert_eq!((&counted["tasks"], &counted["steps"]), (&json!(1), &json!(4)), "{counted}");
    assert_eq!(rows(&system, old).await?[0], 1, "nothing was removed");
    let removed =
        tasker_db(&system, &["prune", "--older-than", "30d", "--failed-older-than", "30d", "--archive"]).await?;
    assert_eq!((&removed["tasks"], &removed["steps"]), (&json!(2), &json!(5)), "{removed}");
    let left = [rows(&system, old).await?[0], rows(&system, young).await?[0], rows(&system, failed).await?[0]];
    assert_eq!(left, [0, 1, 0]);
    let mut session = system.database.session("look").await?;
    let audited = audit::list(&mut session, &AuditFilter::default(), 10).await?;
    drop(session);
    let targets: Vec<_> = audited.iter().map(|entry| (entry.action.as_str(), entry.target.as_str())).collect();
    let expected = ["1 tasks with 1 steps archived and removed", "1 tasks with 4 steps archived and removed"];
    assert_eq!(targets, expected.map(|target| ("db.prune", target)));
    assert!(audited.iter().all(|entry| entry.principal.starts_with("cli:") && entry.principal != "cli:unnamed"));
    assert!(audited.iter().all(|entry| entry.address.as_ref().is_some_and(|a| a.starts_with("database user "))));
    assert_eq!(audited[0].request_id, audited[1].request_id, "one command");
    let listed = tasker_db(&system, &["archive", "list"]).await?;
    assert_eq!(listed["tasks"].as_array().map(Vec::len), Some(2), "{listed}");
    let shown = tasker_db(&system, &["archive", "show", &old.to_string()]).await?;
    assert_eq!(shown["rows"][0]["document"]["id"], json!(old));
    let arguments = ["db", "archive", "show", &young.to_string(), "--database-url", &system.test_database.url];
    let missing = process::tasker("http://127.0.0.1:1", &arguments).await?;
    assert_eq!(missing.status.code(), Some(3), "{}", String::from_utf8_lossy(&missing.stderr));
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pruning_by_hand_goes_by_what_a_template_says_of_its_tasks() -> Result<()> {
    let system = system(Retention { sweep_interval: DAY, ..Retention::never() }).await?;
    for (name, kept) in [("eternal", "never"), ("long", "60d"), ("brief", "1h")] {
        system.apply(&format!("retention: {{complete_after: {kept}}}\n{}", single(name, "noop", ""))).await?;
    }
    let (eternal, long, brief) =
        (done(&system, "eternal").await?, done(&system, "long").await?, done(&system, "brief").await?);
    let plain = done(&system, "diamond").await?;
    for task in [eternal, long, plain] {
        age(&system, task, 50).await?;
    }
    system
        .execute(&format!("update tasker.tasks set finished_at = now() - interval '2 hours' where id = '{brief}'"))
        .await?;
    let prune = ["prune", "--older-than", "30d"];
    let counted = tasker_db(&system, &[&prune[..], &["--dry-run"]].concat()).await?;
    assert_eq!((&counted["tasks"], &counted["steps"]), (&json!(2), &json!(5)), "{counted}");
    let removed = tasker_db(&system, &prune).await?;
    assert_eq!((&removed["tasks"], &removed["steps"]), (&json!(2), &json!(5)), "{removed}");
    let mut left = Vec::new();
    for task in [eternal, long, brief, plain] {
        left.push(rows(&system, task).await?[0]);
    }
    assert_eq!(left, [1, 1, 0, 0]);
    system.close().await
}
