//! JSON that PostgreSQL holds and no program reads: numbers beyond their range, nesting without end.

use anyhow::{Context as _, Result};
use serde_json::json;
use tasker_orchestration::{operate, query};
use tasker_shared::{
    access::Namespaces,
    api::{Action, DeadLetterFilter, DeadLetterSummary},
    id::TaskId,
    step::{DeadLetterReason, Resolution},
    task::TaskState,
};
use tasker_tests::{
    Gate, System,
    system::{eventually, worker_settings},
    templates::single,
};
use tasker_worker::Worker;

async fn start() -> Result<(System, Gate)> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    system.apply(&single("one", "gate", "")).await?;
    Ok((system, gate))
}

fn nested() -> String {
    format!("{}{}", "[".repeat(300), "]".repeat(300))
}

async fn open_letters(system: &System) -> Result<Vec<DeadLetterSummary>> {
    let filter = DeadLetterFilter { open: Some(true), ..DeadLetterFilter::default() };
    Ok(query::dead_letters(&system.orchestration, &filter, &Namespaces::All).await?.dead_letters)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_no_program_reads_is_parked_shown_and_closed_and_holds_up_no_other() -> Result<()> {
    let (system, gate) = start().await?;
    let queues = ["step_results", "task_requests", "worker_test"];
    for queue in queues {
        system
            .execute(&format!(
                r#"insert into pgmq.q_{queue} (vt, message, headers)
                   values (now(), '{{"x": 1e400}}', null), (now(), '{{"x": {}}}', '{{"y": 1e400}}')"#,
                nested()
            ))
            .await?;
    }
    let well = system.begin("one").await?;
    gate.next().await.succeed(json!(1));
    assert_eq!(system.ended(well).await?.summary.state, TaskState::Complete);
    eventually("all are parked", async || Ok(open_letters(&system).await?.len() == 6)).await?;
    let (action, mut big) = (Action::default(), 0);
    for letter in open_letters(&system).await? {
        assert_eq!(letter.reason, DeadLetterReason::Unreadable, "{letter:?}");
        let whole = query::dead_letter(&system.orchestration, letter.dead_letter_id).await?;
        let (why, text) = (whole.message["unreadable"].as_str(), whole.message["text"].as_str());
        let why = why.context("why it cannot be read")?;
        assert!(why.contains("out of range") || why.contains("recursion limit"), "{why}");
        big += usize::from(text.context("its text")?.contains("1000000"));
        let done = operate::discard(&system.orchestration, letter.dead_letter_id, &action).await?;
        assert_eq!(done.resolution, Some(Resolution::Discarded));
    }
    assert_eq!(big, 3, "the number is shown");
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_no_program_reads_is_sent_again_as_it_was_and_parked_anew() -> Result<()> {
    let (system, _) = start().await?;
    system.execute(r#"insert into pgmq.q_step_results (vt, message) values (now(), '{"x": 1e400}')"#).await?;
    eventually("it is parked", async || Ok(open_letters(&system).await?.len() == 1)).await?;
    let first = open_letters(&system).await?.remove(0).dead_letter_id;
    operate::redrive(&system.orchestration, first, &Action::default()).await?;
    eventually("it is parked anew", async || {
        Ok(open_letters(&system).await?.first().is_some_and(|letter| letter.dead_letter_id != first))
    })
    .await?;
    let same = "select count(distinct message) from tasker.dead_letters";
    assert_eq!(system.count(same).await?, 1);
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_whose_input_no_program_reads_fails_with_the_reason_and_is_shown() -> Result<()> {
    let (system, _) = start().await?;
    for input in [r#"{"a": 1e400}"#.to_owned(), format!(r#"{{"a": {}}}"#, nested())] {
        let sql = format!("select tasker.submit('test', 'one', input => '{input}')");
        let task: uuid::Uuid = sqlx::query_scalar(&sql).fetch_one(system.database.pool()).await?;
        let ended = system.ended(TaskId(task)).await?;
        assert_eq!(ended.summary.state, TaskState::Error);
        let error = ended.error.context("a reason")?.to_string();
        assert!(error.contains("the input cannot be read: "), "{error}");
        assert!(ended.input["text"].as_str().context("its text")?.starts_with(r#"{"a": "#), "{}", ended.input);
        let explained = query::explain(&system.orchestration, TaskId(task)).await?;
        assert!(explained.summary.contains("the input cannot be read"), "{}", explained.summary);
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_whose_snapshot_no_program_reads_is_shown_and_closed_in_each_way() -> Result<()> {
    let (system, _) = start().await?;
    for way in ["discard", "resolve", "redrive"] {
        // as a version left it behind that could not read the task
        system
            .execute(
                r#"with task as (select tasker.submit('test', 'one', input => '{"a": 1e400}') as id),
                        gone as (delete from pgmq.q_task_requests)
                   select id from task;"#,
            )
            .await?;
        let open = "select count(*) from tasker.tasks where finished_at is null";
        eventually("the task has ended", async || Ok(system.count(open).await? == 0)).await?;
        system
            .execute(
                r#"update tasker.tasks set state = 'pending', finished_at = null, error = null
                    where id = (select max(id::text)::uuid from tasker.tasks);
                   insert into tasker.dead_letters (id, reason, queue, message, detail, task_id, read_count, namespace, snapshot)
                   select tasker.uuid_v7(), 'poison', 'task_requests', jsonb_build_object('task_id', t.id), 'it broke', t.id, 3,
                          'test', jsonb_build_object('task', to_jsonb(t) - 'identity_hash')
                     from tasker.tasks t where t.state = 'pending'"#,
            )
            .await?;
        let letter = open_letters(&system).await?.remove(0);
        let task = letter.task_id.context("its task")?;
        let whole = query::dead_letter(&system.orchestration, letter.dead_letter_id).await?;
        let snapshot = whole.snapshot.context("a snapshot")?;
        assert!(snapshot["unreadable"].as_str().is_some_and(|why| why.contains("out of range")), "{snapshot}");
        let (id, action) = (letter.dead_letter_id, Action::default());
        match way {
            "discard" => operate::discard(&system.orchestration, id, &action).await?,
            "redrive" => operate::redrive(&system.orchestration, id, &action).await?,
            _ => {
                let refused = operate::resolve_dead_letter(&system.orchestration, id, &action).await;
                assert!(refused.unwrap_err().to_string().contains("its task still waits for this message"));
                operate::discard(&system.orchestration, id, &action).await?
            }
        };
        assert_eq!(system.ended(task).await?.summary.state, TaskState::Error);
    }
    system.finish().await
}
