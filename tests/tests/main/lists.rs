//! What lists cost, counted in the rows that PostgreSQL reads for them.

use anyhow::Result;
use tasker_shared::{
    api::{DeadLetterFilter, TaskFilter},
    id::WorkerId,
    step::DeadLetterReason,
    storage::{
        Session, dead_letters, overview,
        workers::{self, Registration},
    },
    task::TaskState,
};
use tasker_tests::{System, templates::single};

/// How many rows of a table this transaction has read.
async fn read(session: &mut Session, table: &str) -> Result<i64> {
    let sql = "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables
                where schemaname = 'tasker' and relname = $1";
    Ok(sqlx::query_scalar(sql).bind(table).fetch_one(session.connection()).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_of_workers_walks_over_the_open_tasks_once_however_many_workers_there_are() -> Result<()> {
    let system = System::start().await?;
    system.apply(&single("one", "nobodys", "")).await?;
    for _ in 0..20 {
        system.begin("one").await?;
    }
    let mut session = system.database.begin("test").await?;
    let ids: Vec<WorkerId> = (0..30).map(|_| WorkerId::generate()).collect();
    for id in &ids {
        let (name, version) = (id.to_string(), "1".to_owned());
        let worker = Registration { id: *id, name, namespaces: vec!["test".to_owned()], handlers: Vec::new(), version };
        workers::heartbeat(&mut session, &worker).await?;
    }
    let runs = "update tasker.steps set state = 'in_progress', attempt = 1, started_at = now(), worker_id = $1";
    sqlx::query(runs).bind(ids[7].0).execute(session.connection()).await?;
    let before = read(&mut session, "steps").await?;
    let listed = workers::list(&mut session).await?;
    assert_eq!(read(&mut session, "steps").await? - before, 20, "each step is read once");
    let running: Vec<i64> = listed.iter().filter(|w| w.running > 0).map(|w| w.running).collect();
    assert_eq!((listed.len(), running), (30, vec![20]));
    session.rollback().await?;
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_is_filtered_reads_what_it_shows() -> Result<()> {
    let system = System::start().await?;
    system.apply(&single("one", "nobodys", "")).await?;
    let mut task = system.begin("one").await?;
    for _ in 0..40 {
        task = system.begin("one").await?;
    }
    system
        .execute(&format!(
            "update tasker.tasks set state = 'cancelled', finished_at = now() where id <> '{task}';
             insert into tasker.dead_letters (id, reason, queue, message, detail, task_id, read_count, namespace)
             select tasker.uuid_v7(), 'poison', 'task_requests', '{{}}', 'it broke', id, 3, 'test' from tasker.tasks;
             analyze tasker.tasks, tasker.dead_letters"
        ))
        .await?;
    let correlation_id = system.detail(task).await?.summary.correlation_id;
    let all = TaskFilter::default();
    for (what, filter) in [
        ("correlation id", TaskFilter { correlation_id: Some(correlation_id), ..all.clone() }),
        ("state", TaskFilter { state: Some(TaskState::InProgress), ..all.clone() }),
        (
            "all",
            TaskFilter {
                correlation_id: Some(correlation_id),
                state: Some(TaskState::InProgress),
                namespace: Some("test".to_owned()),
                name: Some("one".to_owned()),
                ..all.clone()
            },
        ),
    ] {
        let mut session = system.database.begin("test").await?;
        let before = read(&mut session, "tasks").await?;
        let found = overview::list(&mut session, &filter, Some(&["test".to_owned()]), 50).await?;
        let cost = read(&mut session, "tasks").await? - before;
        session.rollback().await?;
        assert_eq!(found.iter().map(|t| t.task_id).collect::<Vec<_>>(), [task], "{what}");
        assert!(cost <= 2, "by {what}: {cost} rows");
    }
    let mut session = system.database.begin("test").await?;
    let before = read(&mut session, "dead_letters").await?;
    let filter = DeadLetterFilter {
        task_id: Some(task),
        reason: Some(DeadLetterReason::Poison),
        namespace: Some("test".to_owned()),
        open: Some(true),
        ..DeadLetterFilter::default()
    };
    let found = dead_letters::list(&mut session, &filter, None, 50).await?;
    let cost = read(&mut session, "dead_letters").await? - before;
    session.rollback().await?;
    assert_eq!((found.len(), cost), (1, 1));
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_filter_of_a_list_leaves_out_what_does_not_fit() -> Result<()> {
    let system = System::start().await?;
    system.apply(&single("one", "nobodys", "")).await?;
    let (first, last) = (system.begin("one").await?, system.begin("one").await?);
    system.execute(&format!("update tasker.tasks set tags = '{{a,b}}' where id = '{first}'")).await?;
    let all = TaskFilter::default();
    let other = || Some("other".to_owned());
    for (expected, filter) in [
        (vec![last, first], all.clone()),
        (vec![first], TaskFilter { tag: Some("b".to_owned()), ..all.clone() }),
        (vec![first], TaskFilter { before: Some(last), ..all.clone() }),
        (vec![], TaskFilter { namespace: other(), ..all.clone() }),
        (vec![], TaskFilter { name: other(), ..all.clone() }),
        (vec![], TaskFilter { state: Some(TaskState::Error), ..all.clone() }),
    ] {
        let mut session = system.database.session("test").await?;
        let found = overview::list(&mut session, &filter, None, 50).await?;
        assert_eq!(found.iter().map(|t| t.task_id).collect::<Vec<_>>(), expected, "{filter:?}");
        assert!(overview::list(&mut session, &filter, Some(&[]), 50).await?.is_empty(), "of no namespace");
    }
    system.close().await
}
