//! Two sessions at once: nobody gets the same step, and every race has one winner.

use anyhow::Result;
use serde_json::json;
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tasker_orchestration::{Error, operate, query, submit};
use tasker_shared::{
    api::{Action, SubmitTask},
    id::{StepId, TaskId, WorkerId},
    metrics::Metrics,
    queue::QueueName,
    step::{ResultType, StepState},
    storage::{
        Database, Session,
        leases::{self, Held},
        operations,
        reports::{self, Report},
        timers,
    },
    task::TaskState,
};
use tasker_tests::{
    Gate, System,
    system::{eventually, orchestration_settings, pages_read, worker_settings},
    templates::{NAMESPACE, dag, diamond, single},
};
use tasker_worker::{HandlerError, StepContext, Worker, handler::handler_fn};
use tokio::sync::Barrier;

const LEASE: Duration = Duration::from_secs(60);

async fn claim(database: &Database, limit: i64) -> Result<Vec<StepId>> {
    let mut session = database.session("test").await?;
    let queue = QueueName::of_namespace(NAMESPACE);
    let claim = leases::claim(&mut session, &queue, limit, WorkerId::generate(), LEASE).await?;
    Ok(claim.steps.into_iter().map(|step| step.step_id).collect())
}

async fn submit_many(system: &System, name: &str, n: usize) -> Result<Vec<TaskId>> {
    let task = SubmitTask {
        namespace: NAMESPACE.to_owned(),
        name: name.to_owned(),
        input: json!({}),
        ..SubmitTask::default()
    };
    let answers = submit::submit(&system.orchestration, vec![task; n]).await?;
    Ok(answers.into_iter().map(|answer| answer.map(|a| a.task_id)).collect::<Result<_, _>>()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_is_not_committed_hides_its_steps_from_others() -> Result<()> {
    let system = System::start().await?;
    system.apply(&single("one", "noop", "")).await?;
    submit_many(&system, "one", 3).await?;
    let mut first = system.database.begin("test").await?;
    let queue = QueueName::of_namespace(NAMESPACE);
    let mine = leases::claim(&mut first, &queue, 2, WorkerId::generate(), LEASE).await?.steps;
    let theirs = claim(&system.database, 10).await?;
    assert_eq!((mine.len(), theirs.len()), (2, 1));
    assert!(!mine.iter().any(|step| theirs.contains(&step.step_id)));
    first.rollback().await?;
    assert_eq!(claim(&system.database, 10).await?.len(), 2);
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_that_wait_for_a_heartbeat_take_the_messages_of_all_their_steps_with_them() -> Result<()> {
    let system = System::start().await?;
    system.apply(&single("one", "noop", "")).await?;
    submit_many(&system, "one", 20).await?;
    let queue = QueueName::of_namespace(NAMESPACE);
    let worker = WorkerId::generate();
    let steps = leases::claim(&mut system.database.session("test").await?, &queue, 20, worker, LEASE).await?.steps;
    let held: Vec<Held> = steps
        .iter()
        .map(|s| Held { msg_id: s.msg_id, step_id: s.step_id, attempt: s.attempt, progress: None })
        .collect();
    let reports: Vec<Report> = steps
        .iter()
        .map(|s| Report {
            msg_id: s.msg_id,
            step_id: s.step_id,
            attempt: s.attempt,
            outcome: ResultType::Success,
            result: Some(json!(1)),
            error: None,
        })
        .collect();
    let mut heartbeat = system.database.begin("test").await?;
    assert_eq!(leases::extend(&mut heartbeat, &queue, &held, LEASE * 2).await?.len(), 20);
    let (database, of) = (system.database.clone(), queue.clone());
    let reporting = tokio::spawn(async move {
        let mut session = database.session("test").await?;
        reports::store(&mut session, &of, &reports, worker).await
    });
    eventually("the reports wait for the heartbeat", async || {
        let waiting =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        Ok(system.count(waiting).await? > 0)
    })
    .await?;
    heartbeat.commit().await?;
    assert_eq!(reporting.await??.len(), 20);
    assert_eq!(system.count(&format!("select count(*) from {}", queue.table())).await?, 0);
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_message_of_a_step_that_was_given_back_is_no_copy_to_a_claim_that_began_before() -> Result<()> {
    let system = System::start().await?;
    system.apply(&single("one", "noop", "")).await?;
    submit_many(&system, "one", 1).await?;
    let (queue, worker) = (QueueName::of_namespace(NAMESPACE), WorkerId::generate());
    let mut session = system.database.session("test").await?;
    let step = leases::claim(&mut session, &queue, 1, worker, LEASE).await?.steps.remove(0);
    let held = Held { msg_id: step.msg_id, step_id: step.step_id, attempt: step.attempt, progress: None };
    leases::release(&mut session, &queue, &[held], worker, "for the test").await?;
    drop(session);
    // such a claim sees the step as it was, which runs, and the message as it is
    system.execute("update tasker.steps set state = 'in_progress'").await?;
    assert_eq!(claim(&system.database, 1).await?, [step.step_id]);
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_hidden_and_what_is_due_later_is_not_read() -> Result<()> {
    let system = System::start().await?;
    system.apply(&single("one", "noop", "")).await?;
    let tasks = submit_many(&system, "one", 1).await?;
    let queue = QueueName::of_namespace(NAMESPACE);
    let table = queue.table();
    system
        .execute(&format!(
            "insert into {table} (vt, message) select now() + interval '1 hour', '{{}}' from generate_series(1, 20000)"
        ))
        .await?;
    system
        .execute(&format!(
            "insert into tasker.timers (kind, subject, task_id, due_at)
         select 'retry', gen_random_uuid(), '{}', now() + interval '1 day' from generate_series(1, 20000)",
            tasks[0]
        ))
        .await?;
    for table in [table.as_str(), "tasker.timers"] {
        system.execute(&format!("vacuum analyze {table}")).await?;
    }
    let mut session = system.database.begin("test").await?;
    let read = async |session: &mut Session| -> Result<i64> {
        Ok(pages_read(session, &table).await? + pages_read(session, "tasker.timers").await?)
    };
    let before = read(&mut session).await?;
    leases::hasten_expired(&mut session, &queue).await?;
    leases::claim(&mut session, &queue, 10, WorkerId::generate(), LEASE).await?;
    timers::take_due(&mut session, 10).await?;
    let pages = read(&mut session).await? - before;
    session.rollback().await?;
    assert!(pages < 100, "{pages} pages");
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_held_keeps_no_timer_of_another_waiting() -> Result<()> {
    let system = System::start_with(
        tasker_orchestration::Settings { timer_poll_interval: Duration::from_secs(3600), ..orchestration_settings() },
        Metrics::disabled(),
    )
    .await?;
    system.apply(&single("one", "noop", "")).await?;
    let tasks = submit_many(&system, "one", 2).await?;
    let mut holder = system.database.pool().begin().await?;
    sqlx::query("select from tasker.tasks where id = $1 for no key update")
        .bind(tasks[0])
        .execute(&mut *holder)
        .await?;
    for (task, timers) in [(tasks[0], 20), (tasks[1], 1)] {
        system
            .execute(&format!(
                "insert into tasker.timers (kind, subject, task_id, due_at)
             select 'retry', gen_random_uuid(), '{task}', now() - interval '1 day' from generate_series(1, {timers})"
            ))
            .await?;
    }
    let mut session = system.database.begin("test").await?;
    let due = timers::take_due(&mut session, 10).await?;
    assert_eq!(due.iter().map(|due| due.task_id).collect::<Vec<_>>(), [tasks[1]]);
    session.rollback().await?;
    holder.rollback().await?;
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_claimers_never_get_the_same_step() -> Result<()> {
    let system = System::start().await?;
    system.apply(&single("one", "noop", "")).await?;
    submit_many(&system, "one", 500).await?;
    let barrier = Arc::new(Barrier::new(8));
    let claimers = (0..8).map(|_| {
        let (database, barrier) = (system.database.clone(), barrier.clone());
        tokio::spawn(async move {
            barrier.wait().await;
            let mut mine = Vec::new();
            loop {
                let steps = claim(&database, 7).await?;
                if steps.is_empty() {
                    return anyhow::Ok(mine);
                }
                mine.extend(steps);
            }
        })
    });
    let mut all = Vec::new();
    for claimer in futures::future::join_all(claimers).await {
        all.extend(claimer??);
    }
    assert_eq!((all.len(), all.iter().collect::<HashSet<_>>().len()), (500, 500));
    assert_eq!(
        system.count("select count(*) from tasker.steps where attempt = 1 and state = 'in_progress'").await?,
        500
    );
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parents_that_are_processed_at_once_enqueue_their_join_once() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    for _ in 0..2 {
        let mut settings = orchestration_settings();
        (settings.process_loops, settings.results_batch) = (2, 1);
        system.add_orchestration(settings).await?;
    }
    let settings = tasker_worker::Settings { report_batch: 1, ..worker_settings() };
    system.add_worker(Worker::builder().settings(settings).register("gate", gate.clone()))?;
    let parents: Vec<String> = (0..20).map(|n| format!("p{n}")).collect();
    let parents: Vec<&str> = parents.iter().map(String::as_str).collect();
    let mut steps: Vec<(&str, &[&str])> = parents.iter().map(|p| (*p, &[] as &[&str])).collect();
    steps.push(("join", &parents));
    system.apply(&dag("join", "gate", &steps)).await?;
    let tasks = submit_many(&system, "join", 5).await?;
    for call in gate.take(100).await {
        call.succeed(json!(1));
    }
    for call in gate.take(5).await {
        assert_eq!((call.step(), call.context.parents.len()), ("join", 20));
        call.succeed(json!(1));
    }
    for task in tasks {
        assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    }
    let joins = "select count(*) from tasker.step_transitions h join tasker.steps s on s.id = h.step_id
        where s.name = 'join' and h.to_state = 'enqueued'";
    assert_eq!(system.count(joins).await?, 5);
    assert_eq!(gate.waiting(), 0);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_is_not_processed_when_its_step_was_cancelled_first() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    let task = system.begin_new(&diamond("gate")).await?;
    let call = gate.next().await;
    let mut operator = system.database.begin("test").await?;
    operations::lock(&mut operator, task).await?.expect("it exists");
    call.succeed(json!(1));
    // the report needs no lock of the task; its processing goes back to the queue until we have done with ours
    let put_back = "select count(*) from pgmq.q_step_results where vt > clock_timestamp()";
    eventually("station process has met our lock", async || Ok(system.count(put_back).await? == 1)).await?;
    let from = [StepState::Reported];
    let moved =
        operations::move_steps(&mut operator, task, Some("a"), &from, StepState::Cancelled, None, "operator:ada", None)
            .await?;
    assert_eq!(moved.len(), 1);
    operations::recount(&mut operator, task).await?;
    operator.commit().await?;
    eventually("the result is gone", async || Ok(system.messages().await? == 0)).await?;
    assert_eq!(system.states(task).await?, "a=cancelled b=pending c=pending d=pending");
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_and_report_at_once_have_one_winner() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    system.apply(&single("one", "gate", "")).await?;
    for _ in 0..15 {
        let task = system.begin("one").await?;
        let call = gate.next().await;
        let orchestration = system.orchestration.clone();
        let barrier = Arc::new(Barrier::new(2));
        let cancelling = tokio::spawn({
            let barrier = barrier.clone();
            async move {
                barrier.wait().await;
                operate::cancel(&orchestration, task, &Action::default()).await
            }
        });
        barrier.wait().await;
        call.succeed(json!(1));
        let answer = cancelling.await?;
        let ended = system.ended(task).await?;
        match answer {
            Ok(state) => assert_eq!((state, ended.summary.state), (TaskState::Cancelled, TaskState::Cancelled)),
            Err(Error::Illegal(_)) => assert_eq!(ended.summary.state, TaskState::Complete),
            Err(other) => panic!("{other}"),
        }
        let step = if ended.summary.state == TaskState::Complete { StepState::Complete } else { StepState::Cancelled };
        assert_eq!(ended.steps[0].state, step);
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_resume_and_claims_at_once_lose_no_step() -> Result<()> {
    let mut system = System::start().await?;
    let runs = Arc::new(AtomicUsize::new(0));
    let counting = runs.clone();
    let count = handler_fn(move |_: StepContext| {
        counting.fetch_add(1, Ordering::Relaxed);
        async { Ok::<_, HandlerError>(1) }
    });
    system.add_worker(Worker::builder().settings(worker_settings()).register("count", count))?;
    system
        .apply(&dag("chain", "count", &[("a", &[]), ("b", &["a"]), ("c", &["b"]), ("d", &["c"]), ("e", &["d"])]))
        .await?;
    let tasks = submit_many(&system, "chain", 10).await?;
    let pausing = tasks.iter().map(|task| {
        let (orchestration, task) = (system.orchestration.clone(), *task);
        tokio::spawn(async move {
            loop {
                for action in ["pause", "resume"] {
                    let done = match action {
                        "pause" => operate::pause(&orchestration, task, &Action::default()).await,
                        _ => operate::resume(&orchestration, task, &Action::default()).await,
                    };
                    match done {
                        Ok(_) => {}
                        Err(Error::Illegal(_)) => return anyhow::Ok(()),
                        Err(other) => return Err(other.into()),
                    }
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    for pausing in futures::future::join_all(pausing).await {
        pausing??;
    }
    for task in tasks {
        let ended = query::wait(&system.orchestration, task, Duration::from_secs(30)).await?;
        assert_eq!(ended.summary.state, TaskState::Complete, "{:#?}", system.story(task).await?);
        assert!(ended.steps.iter().all(|step| step.attempt == 1));
    }
    assert_eq!(runs.load(Ordering::Relaxed), 50);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retrying_a_step_and_settling_its_task_at_once_have_one_winner() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    system.apply(&single("one", "gate", "")).await?;
    for _ in 0..10 {
        let task = system.begin("one").await?;
        gate.next().await.fail(HandlerError::fail("no"));
        system.task_is(task, TaskState::Error).await?;
        let (o, plain, barrier) = (&system.orchestration, Action::default(), Barrier::new(2));
        let retry = async {
            barrier.wait().await;
            operate::retry_step(o, task, "only", &plain).await
        };
        let resolve = async {
            barrier.wait().await;
            operate::resolve(o, task, &plain).await
        };
        match tokio::join!(retry, resolve) {
            (Ok(TaskState::InProgress), Err(Error::Illegal(_))) => {
                gate.next().await.succeed(json!(1));
                assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
            }
            (Err(Error::Illegal(_)), Ok(TaskState::ResolvedManually)) => {
                assert_eq!(system.states(task).await?, "only=error");
            }
            both => panic!("{both:?}"),
        }
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retrying_a_step_and_cancelling_its_task_at_once_leave_nothing_behind() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    system.apply(&dag("pair", "gate", &[("bad", &[]), ("runs", &[])])).await?;
    for _ in 0..10 {
        let task = system.begin("pair").await?;
        // a step that was retried may have come to the gate before its task was cancelled
        let mut calls = Vec::new();
        while calls.len() < 2 {
            let call = gate.next().await;
            if call.context.task_id == task {
                calls.push(call);
            }
        }
        let bad = calls.iter().position(|call| call.step() == "bad").expect("it runs");
        calls.swap_remove(bad).fail(HandlerError::fail("no"));
        system.step_is(task, "bad", StepState::Error).await?;
        let (o, plain, barrier) = (&system.orchestration, Action::default(), Barrier::new(2));
        let retry = async {
            barrier.wait().await;
            operate::retry_step(o, task, "bad", &plain).await
        };
        let cancel = async {
            barrier.wait().await;
            operate::cancel(o, task, &plain).await
        };
        let (retried, cancelled) = tokio::join!(retry, cancel);
        assert_eq!(cancelled?, TaskState::Cancelled);
        let bad = system.detail(task).await?.steps[0].state;
        match retried {
            Ok(_) => assert_eq!(bad, StepState::Cancelled),
            Err(Error::Illegal(_)) => assert_eq!(bad, StepState::Error),
            Err(other) => panic!("{other}"),
        }
    }
    system.finish().await
}
