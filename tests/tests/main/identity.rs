//! A key is one task of a template, whatever its version; equal input of a `strict` template is one task of one version.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use std::sync::Arc;
use tasker_orchestration::{Error, Orchestration, submit};
use tasker_shared::{
    api::{SubmitTask, Submitted},
    id::TaskId,
    metrics::Metrics,
    runtime::Bell,
    storage::{Gate, Passed, retention},
    telemetry::Tracing,
};
use tasker_tests::{
    System,
    system::{connect, eventually, orchestration_settings, worker_settings},
    templates::{NAMESPACE, single},
};
use tasker_worker::{Worker, handler};
use tokio::sync::{Barrier, Notify};

async fn start() -> Result<System> {
    let mut system = System::start().await?;
    system.add_worker(Worker::builder().settings(worker_settings()).register("echo", handler::Echo))?;
    Ok(system)
}

fn version(version: &str) -> String {
    single("free", "echo", "").replace("1.0.0", version)
}

fn keyed(key: &str, version: Option<&str>, input: Value) -> SubmitTask {
    SubmitTask {
        namespace: NAMESPACE.to_owned(),
        name: "free".to_owned(),
        version: version.map(str::to_owned),
        input,
        idempotency_key: Some(key.to_owned()),
        ..SubmitTask::default()
    }
}

async fn one(system: &System, task: SubmitTask) -> Result<Submitted, Error> {
    submit::submit(&system.orchestration, vec![task]).await?.remove(0)
}

async fn by_sql(system: &System, arguments: &str) -> Result<TaskId> {
    let sql = format!("select tasker.submit('test', {arguments})");
    Ok(sqlx::query_scalar(&sql).fetch_one(system.database.pool()).await.map(TaskId)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_one_task_of_a_template_in_all_its_versions() -> Result<()> {
    let system = start().await?;
    system.apply(&version("1.0.0")).await?;
    let by_service = one(&system, keyed("a", None, json!({}))).await?;
    let made_by_sql = by_sql(&system, "'free', idempotency_key => 'b'").await?;
    system.apply(&version("1.1.0")).await?;
    for (key, task) in [("a", by_service.task_id), ("b", made_by_sql)] {
        for asked in [None, Some("1.0.0"), Some("1.1.0")] {
            let repeated = one(&system, keyed(key, asked, json!({"other": 1}))).await?;
            assert_eq!((repeated.task_id, repeated.created), (task, false), "{key} {asked:?}");
            let asked = asked.map_or_else(|| "null".to_owned(), |asked| format!("'{asked}'"));
            let arguments = format!("'free', version => {asked}, idempotency_key => '{key}'");
            assert_eq!(by_sql(&system, &arguments).await?, task, "{arguments}");
        }
        assert_eq!(system.ended(task).await?.summary.version, "1.0.0");
    }
    // a new version first, then the one before
    let newer = one(&system, keyed("c", None, json!({}))).await?;
    let older = one(&system, keyed("c", Some("1.0.0"), json!({}))).await?;
    assert_eq!((older.task_id, older.created), (newer.task_id, false));
    assert_eq!(system.ended(newer.task_id).await?.summary.version, "1.1.0");
    // the key of another template is another
    system.apply(&single("other", "echo", "")).await?;
    let other = by_sql(&system, "'other', idempotency_key => 'a'").await?;
    assert_ne!(other, by_service.task_id);
    system.ended(other).await?;
    assert_eq!(system.count("select count(*) from tasker.tasks").await?, 4);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_kept_from_before_keys_counted_in_all_versions_is_found_until_it_is_removed() -> Result<()> {
    let system = start().await?;
    system.apply(&version("1.0.0")).await?;
    let kept = one(&system, keyed("k", None, json!({}))).await?;
    system.ended(kept.task_id).await?;
    system
        .execute(
            "update tasker.templates set keyed_by_version = true;
             update tasker.tasks set identity_hash =
                 sha256(convert_to(jsonb_build_array(namespace, name, version, 'key', idempotency_key)::text, 'UTF8'))",
        )
        .await?;
    system.apply(&version("1.1.0")).await?;
    for asked in [None, Some("1.0.0"), Some("1.1.0")] {
        let repeated = one(&system, keyed("k", asked, json!({}))).await?;
        assert_eq!((repeated.task_id, repeated.created), (kept.task_id, false));
    }
    let batch = vec![keyed("k", None, json!({})), keyed("l", None, json!({})), keyed("l", Some("1.0.0"), json!({}))];
    let answers = submit::submit(&system.orchestration, batch).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    assert_eq!(answers.iter().map(|a| a.created).collect::<Vec<_>>(), [false, true, false]);
    assert_eq!(by_sql(&system, "'free', idempotency_key => 'k'").await?, kept.task_id);
    let mut session = system.database.begin("test").await?;
    retention::delete(&mut session, &[kept.task_id]).await?;
    session.commit().await?;
    let again = one(&system, keyed("k", Some("1.0.0"), json!({}))).await?;
    assert!(again.created);
    assert_eq!(by_sql(&system, "'free', idempotency_key => 'k'").await?, again.task_id);
    for task in [again.task_id, answers[1].task_id] {
        system.ended(task).await?;
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_template_knows_its_input_by_version_and_a_key_in_all_versions() -> Result<()> {
    let system = start().await?;
    let strict = |of: &str| format!("identity_strategy: strict\n{}", version(of));
    system.apply(&strict("1.0.0")).await?;
    let input =
        |key: Option<&str>| SubmitTask { idempotency_key: key.map(str::to_owned), ..keyed("", None, json!({"a": 1})) };
    let (plain, with_key) = (one(&system, input(None)).await?, one(&system, input(Some("k"))).await?);
    system.apply(&strict("1.1.0")).await?;
    let (newer, again) = (one(&system, input(None)).await?, one(&system, input(Some("k"))).await?);
    assert!(plain.created && with_key.created && newer.created && !again.created);
    assert_eq!(again.task_id, with_key.task_id);
    assert_eq!(by_sql(&system, "'free', '{\"a\": 1}'").await?, newer.task_id);
    for task in [plain, with_key, newer] {
        system.ended(task.task_id).await?;
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_repeats_a_key_in_several_versions_makes_one_task() -> Result<()> {
    let system = start().await?;
    system.apply(&version("1.0.0")).await?;
    system.apply(&version("1.1.0")).await?;
    let versions = [Some("1.0.0"), None, Some("1.1.0"), Some("1.0.0")];
    let batch = versions.iter().flat_map(|of| ["x", "y"].map(|key| keyed(key, *of, json!({})))).collect();
    let answers = submit::submit(&system.orchestration, batch).await?.into_iter().collect::<Result<Vec<_>, _>>()?;
    let made: Vec<bool> = answers.iter().map(|answer| answer.created).collect();
    assert_eq!(made, [true, true, false, false, false, false, false, false]);
    for (place, answer) in answers.iter().enumerate() {
        assert_eq!(answer.task_id, answers[place % 2].task_id);
        assert_eq!(system.ended(answer.task_id).await?.summary.version, "1.0.0");
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_whose_input_a_newer_version_refuses_is_answered_with_its_task() -> Result<()> {
    let system = start().await?;
    system.apply(&version("1.0.0")).await?;
    let first = one(&system, keyed("k", None, json!({"old": 1}))).await?;
    system.apply(&format!("input_schema: {{type: object, required: [new]}}\n{}", version("2.0.0"))).await?;
    let repeated = one(&system, keyed("k", None, json!({"old": 1.0}))).await?;
    assert_eq!((repeated.task_id, repeated.created), (first.task_id, false));
    // what was never taken is no repeat
    for task in [keyed("k", None, json!({"old": 2})), keyed("other", None, json!({"old": 1}))] {
        let refused = one(&system, task).await.expect_err("the input is refused");
        assert!(matches!(refused, Error::InputInvalid { .. }), "{refused}");
    }
    // in one batch, after the task that it repeats
    let batch = vec![keyed("l", Some("1.0.0"), json!({})), keyed("l", None, json!({})), keyed("m", None, json!({}))];
    let answers = submit::submit(&system.orchestration, batch).await?;
    let ids: Vec<_> = answers.iter().map(|answer| answer.as_ref().ok().map(|task| task.task_id)).collect();
    assert!(ids[0].is_some() && ids[0] == ids[1] && ids[2].is_none(), "{answers:?}");
    for task in [Some(first.task_id), ids[0]].into_iter().flatten() {
        system.ended(task).await?;
    }
    system.finish().await
}

/// Holds every submission between the choice of its version and its insert, until the test lets all go.
#[derive(Debug)]
struct Hold {
    arrived: Notify,
    go: Barrier,
}

impl Gate for Hold {
    fn pass<'a>(&'a self, _: &'static str, doing: &'static str) -> Passed<'a> {
        Box::pin(async move {
            if doing == "insert_tasks" {
                self.arrived.notify_one();
                self.go.wait().await;
            }
            Ok(())
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submissions_of_one_key_that_find_different_versions_at_the_same_time_are_one_task() -> Result<()> {
    let system = start().await?;
    system.apply(&version("1.0.0")).await?;
    let hold = Arc::new(Hold { arrived: Notify::new(), go: Barrier::new(3) });
    let mut submissions = Vec::new();
    let mut databases = Vec::new();
    for of in ["1.0.0", "1.1.0"] {
        system.apply(&version(of)).await?;
        let database = connect(&system.test_database.url, Metrics::disabled()).await?;
        let gated = database.gated(Arc::<Hold>::clone(&hold));
        let service = Orchestration::new(gated, Bell::local(), Tracing::disabled(), orchestration_settings());
        submissions.push(tokio::spawn(async move {
            submit::submit(&service, vec![keyed("k", None, json!({}))]).await?.remove(0)
        }));
        hold.arrived.notified().await;
        databases.push(database);
    }
    // a third by SQL, whose transaction is open while the others insert
    let mut user = PgConnection::connect(&system.test_database.url).await?;
    let mut transaction = user.begin().await?;
    let call = "select tasker.submit('test', 'free', version => '1.1.0', idempotency_key => 'k')";
    let task: uuid::Uuid = sqlx::query_scalar(call).fetch_one(&mut *transaction).await?;
    hold.go.wait().await;
    let waits = "select count(*) from pg_locks where locktype = 'transactionid' and not granted
                    and pid in (select pid from pg_stat_activity where datname = current_database())";
    eventually("both wait for the third", async || Ok(system.count(waits).await? == 2)).await?;
    transaction.commit().await?;
    for submission in submissions {
        let answer = submission.await?.context("it is answered")?;
        assert_eq!((answer.task_id.0, answer.created), (task, false));
    }
    assert_eq!(system.count("select count(*) from tasker.tasks").await?, 1);
    system.ended(TaskId(task)).await?;
    for database in databases {
        database.pool().close().await;
    }
    system.finish().await
}
