//! How many steps run at once: limits of operators and templates, across all workers.

use anyhow::{Context as _, Result};
use serde_json::json;
use std::time::Duration;
use tasker_orchestration::{limits, operate, query};
use tasker_shared::{
    api::{Action, SetLimit, WhichLimit},
    id::{TaskId, WorkerId},
    queue::QueueName,
    step::StepState,
    storage::{
        Session, concurrency,
        leases::{self, Claim},
    },
    task::TaskState,
};
use tasker_tests::{
    Gate, System,
    gate::Call,
    system::{eventually, worker_settings},
    templates::{NAMESPACE, single},
};
use tasker_worker::{Settings, Worker};

const USED: &str = "select count(*) from tasker.permits";
const WAITING: &str = "select count(*) from tasker.permit_waits";
const RUNNING: &str = "select count(*) from tasker.steps where state = 'in_progress'";

fn worker(gate: &Gate) -> tasker_worker::Builder {
    Worker::builder().settings(worker_settings()).register("gate", gate.clone()).register("other", gate.clone())
}

fn limit(max: u32, handler: Option<&str>) -> SetLimit {
    SetLimit { max, handler: handler.map(str::to_owned), reason: None, by: Some("tester".to_owned()) }
}

async fn begin(system: &System, name: &str, count: usize) -> Result<Vec<TaskId>> {
    let mut tasks = Vec::new();
    for _ in 0..count {
        tasks.push(system.begin(name).await?);
    }
    Ok(tasks)
}

async fn waiting(system: &System, count: i64) -> Result<()> {
    eventually("so many wait", async || Ok(system.count(WAITING).await? == count)).await
}

/// Answers call after call, and checks before each that no more run than are allowed.
async fn work_off(system: &System, gate: &Gate, mut calls: Vec<Call>, count: usize, most: i64) -> Result<()> {
    for done in 0..count {
        if calls.is_empty() {
            calls.push(gate.next().await);
        }
        let running = system.count(RUNNING).await?;
        anyhow::ensure!(running <= most, "{running} run at once after {done}");
        calls.remove(0).succeed(json!(done));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_runs_as_often_at_once_as_its_template_allows_across_all_workers() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    for _ in 0..3 {
        system.add_worker(worker(&gate))?;
    }
    system.apply(&single("limited", "gate", "concurrency: {limit: 2}")).await?;
    let tasks = begin(&system, "limited", 12).await?;
    let calls = gate.take(2).await;
    waiting(&system, 10).await?;
    assert_eq!(system.count(USED).await?, 2);
    work_off(&system, &gate, calls, 12, 2).await?;
    for task in tasks {
        assert_eq!(system.ended(task).await?.steps[0].attempt, 1);
    }
    eventually("every permit is free", async || Ok(system.count(USED).await? == 0)).await?;
    assert_eq!(system.count(WAITING).await?, 0);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_message_of_a_step_that_waits_for_a_permit_is_dropped_and_hides_neither() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    system.apply(&single("limited", "gate", "concurrency: {limit: 1}")).await?;
    let tasks = begin(&system, "limited", 3).await?;
    let calls = gate.take(1).await;
    waiting(&system, 2).await?;
    let queue = QueueName::of_namespace(NAMESPACE).table();
    let again = format!(
        "insert into {queue} (vt, message, headers)
         select clock_timestamp(), message, headers from {queue} where vt > clock_timestamp() + interval '5 minutes'"
    );
    assert_eq!(sqlx::query(&again).execute(system.database.pool()).await?.rows_affected(), 2);
    let messages = format!("select count(*) from {queue}");
    eventually("the copies are gone", async || Ok(system.count(&messages).await? == 3)).await?;
    work_off(&system, &gate, calls, 3, 1).await?;
    for task in tasks {
        assert_eq!(system.ended(task).await?.steps[0].attempt, 1);
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_without_permits_does_not_hold_back_other_steps_of_its_queue() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.apply(&single("limited", "gate", "concurrency: {limit: 1}")).await?;
    system.apply(&single("free", "other", "")).await?;
    let limited = begin(&system, "limited", 300).await?;
    let free = begin(&system, "free", 3).await?;
    let settings = Settings { max_concurrent_steps: 10, claim_batch: 10, ..worker_settings() };
    system.add_worker(worker(&gate).settings(settings))?;
    let mut first = None;
    for _ in 0..4 {
        let call = gate.next().await;
        if free.contains(&call.context.task_id) { call.succeed(json!(1)) } else { first = Some(call) }
    }
    for task in free {
        assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    }
    waiting(&system, 299).await?;
    let read = format!("select count(*) from {} where vt <= now()", System::queue());
    assert_eq!(system.count(&read).await?, 0, "a claim does not read what is set aside");
    let explanation = query::explain(&system.orchestration, limited[299]).await?;
    assert!(
        explanation.steps[0]
            .because
            .starts_with("It waits behind 298 others for a permit of `step:limited/only`: 1 of 1 are taken"),
        "{explanation:?}"
    );
    let calls = vec![first.context("one of the limited steps runs")?];
    work_off(&system, &gate, calls, 20, 1).await?;
    for task in &limited[20..] {
        operate::cancel(&system.orchestration, *task, &Action::default()).await?;
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_wait_for_a_permit_go_in_the_order_of_their_queue() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    system.apply(&single("limited", "gate", "concurrency: {limit: 1}")).await?;
    let tasks = begin(&system, "limited", 6).await?;
    eventually("the others wait", async || Ok(system.count("select count(*) from tasker.permit_waits").await? == 5))
        .await?;
    for task in &tasks {
        let call = gate.next().await;
        assert_eq!(call.context.task_id, *task);
        call.succeed(json!(1));
    }
    for task in tasks {
        system.ended(task).await?;
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permit_is_not_lost_with_its_worker() -> Result<()> {
    let (mut system, first, second) = (System::start().await?, Gate::new(), Gate::new());
    let vanishing = system.add_worker(worker(&first))?;
    system.apply(&single("limited", "gate", "concurrency: {limit: 1}")).await?;
    let tasks = begin(&system, "limited", 2).await?;
    let _lost = first.next().await;
    vanishing.vanish();
    vanishing.ended().await?;
    system.add_worker(worker(&second))?;
    let again = second.next().await;
    assert_eq!((again.context.task_id, again.context.attempt), (tasks[0], 2));
    assert_eq!(system.count(USED).await?, 1, "the permit goes over with the lease");
    work_off(&system, &second, vec![again], 2, 1).await?;
    for task in tasks {
        system.ended(task).await?;
    }
    eventually("every permit is free", async || Ok(system.count(USED).await? == 0)).await?;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_ends_a_run_frees_its_permit() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    let stopping = system.add_worker(
        worker(&gate).settings(Settings { shutdown_grace: Duration::from_millis(50), ..worker_settings() }),
    )?;
    system
        .apply(&single("limited", "gate", "concurrency: {limit: 1}, retry: {max_attempts: 2, backoff: none}"))
        .await?;
    let (orchestration, action) = (system.orchestration.clone(), Action::default());
    let cancelled = system.begin("limited").await?;
    let _runs = gate.next().await;
    operate::cancel(&orchestration, cancelled, &action).await?;
    let parked = system.begin("limited").await?;
    let _call = gate.next().await;
    operate::park_step(&orchestration, parked, "only", &action).await?;
    let fails = system.begin("limited").await?;
    gate.next().await.fail(tasker_worker::HandlerError::retry("once"));
    let _given_back = gate.next().await;
    stopping.stop();
    stopping.ended().await?;
    system.add_worker(worker(&gate))?;
    gate.next().await.succeed(json!(1));
    assert_eq!(system.ended(fails).await?.summary.state, TaskState::Complete);
    eventually("every permit is free", async || Ok(system.count(USED).await? == 0)).await?;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_value_of_a_key_from_the_input_has_the_limit_for_itself() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    system.apply(&single("a", "gate", "concurrency: {limit: 1, key: input.customer.id}")).await?;
    system.apply(&single("b", "other", "concurrency: {limit: 1, key: input.customer.id}")).await?;
    let of = |customer: &str| json!({"customer": {"id": customer}});
    let mut tasks = Vec::new();
    for (name, customer) in [("a", "x"), ("b", "x"), ("a", "y"), ("b", &"y".repeat(5000)), ("a", "x")] {
        tasks.push(system.submit(NAMESPACE, name, of(customer)).await?.task_id);
    }
    waiting(&system, 2).await?;
    let calls = gate.take(3).await;
    assert_eq!(system.count(RUNNING).await?, 3, "one of x, one of y, one of the long one");
    let values = "select count(distinct value) from tasker.permits where scope = 'key:input.customer.id'";
    assert_eq!(system.count(values).await?, 3);
    work_off(&system, &gate, calls, 5, 3).await?;
    for task in tasks {
        system.ended(task).await?;
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_limits_a_namespace_and_a_handler_while_they_run() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    for _ in 0..2 {
        system.add_worker(worker(&gate))?;
    }
    system.apply(&single("one", "gate", "")).await?;
    system.apply(&single("two", "other", "")).await?;
    let orchestration = system.orchestration.clone();
    let mut tasks = begin(&system, "one", 3).await?;
    let mut calls = gate.take(3).await;
    let set = limits::set(&orchestration, NAMESPACE, &limit(2, None)).await?;
    assert_eq!((set.max, set.used, set.set_by.as_deref()), (2, 3, Some("operator:tester")), "what runs counts");
    tasks.extend(begin(&system, "one", 3).await?);
    waiting(&system, 3).await?;
    calls.remove(0).succeed(json!(1));
    eventually("two are left", async || Ok(system.count(RUNNING).await? == 2)).await?;
    assert_eq!(gate.waiting(), 0, "the limit is not yet undercut");
    calls.remove(0).succeed(json!(1));
    calls.push(gate.next().await);
    let set = limits::set(&orchestration, NAMESPACE, &limit(3, None)).await?;
    assert_eq!(set.max, 3);
    calls.push(gate.next().await);
    limits::set(&orchestration, NAMESPACE, &limit(0, Some("other"))).await?;
    limits::remove(&orchestration, NAMESPACE, &WhichLimit { handler: None }, &Action::default()).await?;
    calls.push(gate.next().await);
    let stopped = system.begin("two").await?;
    waiting(&system, 1).await?;
    let refused = limits::remove(&orchestration, NAMESPACE, &WhichLimit::default(), &Action::default()).await;
    assert!(refused.expect_err("it is removed").to_string().contains("there is no limit `test namespace`"));
    for call in calls {
        call.succeed(json!(1));
    }
    limits::remove(&orchestration, NAMESPACE, &WhichLimit { handler: Some("other".into()) }, &Action::default())
        .await?;
    let call = gate.next().await;
    assert_eq!(call.context.task_id, stopped);
    call.succeed(json!(1));
    tasks.push(stopped);
    for task in tasks {
        system.ended(task).await?;
    }
    assert_eq!(system.count("select count(*) from tasker.namespaces where is_limited").await?, 0);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_under_two_limits_waits_for_both_and_takes_neither_alone() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    system.apply(&single("one", "gate", "concurrency: {limit: 1}")).await?;
    system.apply(&single("two", "other", "")).await?;
    limits::set(&system.orchestration, NAMESPACE, &limit(2, None)).await?;
    let tasks = begin(&system, "one", 3).await?;
    let first = gate.next().await;
    waiting(&system, 2).await?;
    let other = system.begin("two").await?;
    let call = gate.next().await;
    assert_eq!(call.context.task_id, other, "the namespace has a permit left");
    call.succeed(json!(1));
    work_off(&system, &gate, vec![first], 3, 2).await?;
    for task in tasks {
        system.ended(task).await?;
    }
    system.step_is(other, "only", StepState::Complete).await?;
    eventually("every permit is free", async || Ok(system.count(USED).await? == 0)).await?;
    system.finish().await
}

/// One claim of a worker that knows of limits.
async fn claim(session: &mut Session, limit: i64) -> Result<Claim> {
    let queue = QueueName::of_namespace(NAMESPACE);
    Ok(leases::claim_within_limits(session, &queue, limit, WorkerId::generate(), Duration::from_secs(60)).await?)
}

async fn enqueued(system: &System, count: i64) -> Result<()> {
    let enqueued = "select count(*) from tasker.steps where state = 'enqueued'";
    eventually("they are enqueued", async || Ok(system.count(enqueued).await? == count)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_was_set_aside_by_an_operators_old_limit_goes_by_the_new_one() -> Result<()> {
    for (raise, left) in [(Some(2), 1), (None, 0)] {
        let system = System::start().await?;
        system.apply(&single("one", "gate", "")).await?;
        limits::set(&system.orchestration, NAMESPACE, &limit(0, None)).await?;
        begin(&system, "one", 3).await?;
        enqueued(&system, 3).await?;
        // it sees the limit, and commits when another stands
        let mut claiming = system.database.begin("test").await?;
        assert_eq!(claim(&mut claiming, 10).await?.blocked, 3);
        if let Some(max) = raise {
            limits::set(&system.orchestration, NAMESPACE, &limit(max, None)).await?;
        } else {
            let (which, action) = (WhichLimit { handler: None }, Action::default());
            limits::remove(&system.orchestration, NAMESPACE, &which, &action).await?;
        }
        claiming.commit().await?;
        waiting(&system, left).await?;
        system.close().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_of_two_versions_wait_each_for_its_own_limit() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    system.apply(&single("one", "gate", "concurrency: {limit: 1}")).await?;
    let old = begin(&system, "one", 3).await?;
    let first = gate.next().await;
    waiting(&system, 2).await?;
    let wider = single("one", "gate", "concurrency: {limit: 3}").replace("version: 1.0.0", "version: 2.0.0");
    system.apply(&wider).await?;
    let new = begin(&system, "one", 3).await?;
    let mut calls = gate.take(2).await;
    assert!(calls.iter().all(|call| new.contains(&call.context.task_id)), "two more of the new version run");
    waiting(&system, 3).await?;
    // the old ones, which wait longest, still have no room, and do not hold up the new one behind them
    calls.remove(0).succeed(json!(1));
    let next = gate.next().await;
    assert!(new.contains(&next.context.task_id), "{old:?} {next:?}");
    next.succeed(json!(1));
    first.succeed(json!(1));
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_is_set_while_the_last_other_one_is_removed_stands_and_holds() -> Result<()> {
    let system = System::start().await?;
    system.apply(&single("one", "gate", "")).await?;
    limits::set(&system.orchestration, NAMESPACE, &limit(5, None)).await?;
    let mut setting = system.database.begin("test").await?;
    concurrency::set(&mut setting, NAMESPACE, "handler:gate", 1, "tester", None).await?;
    let (orchestration, action) = (system.orchestration.clone(), Action::default());
    let removing =
        tokio::spawn(
            async move { limits::remove(&orchestration, NAMESPACE, &WhichLimit { handler: None }, &action).await },
        );
    let blocked = "select count(*) from pg_stat_activity
                    where datname = current_database() and wait_event_type = 'Lock' and query like '-- hold_namespace%'";
    eventually("who removes it waits", async || Ok(system.count(blocked).await? == 1)).await?;
    setting.commit().await?;
    removing.await??;
    begin(&system, "one", 3).await?;
    enqueued(&system, 3).await?;
    let mut session = system.database.session("test").await?;
    let queue = QueueName::of_namespace(NAMESPACE);
    let unaware = leases::claim(&mut session, &queue, 10, WorkerId::generate(), Duration::from_secs(60)).await?;
    assert!(unaware.is_limited && unaware.steps.is_empty());
    drop(session);
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_tasks_that_wait_for_a_permit_do_not_keep_it_from_the_others() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    system.apply(&single("limited", "gate", "concurrency: {limit: 1}")).await?;
    let tasks = begin(&system, "limited", 22).await?;
    let first = gate.next().await;
    waiting(&system, 21).await?;
    for task in &tasks[1..21] {
        operate::pause(&system.orchestration, *task, &Action::default()).await?;
    }
    let freed = std::time::Instant::now();
    first.succeed(json!(1));
    let next = gate.next().await;
    assert_eq!(next.context.task_id, tasks[21]);
    // the sweep of permits would wake one each second
    assert!(freed.elapsed() < Duration::from_secs(10), "{:?}", freed.elapsed());
    next.succeed(json!(1));
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_waited_while_another_claimed_and_gave_back_leaves_the_step() -> Result<()> {
    let system = System::start().await?;
    system.apply(&single("limited", "gate", "concurrency: {limit: 1}")).await?;
    system.begin("limited").await?;
    enqueued(&system, 1).await?;
    let mut other = system.database.pool().begin().await?;
    sqlx::query("select from tasker.steps for update").execute(&mut *other).await?;
    let database = system.database.clone();
    let claiming = tokio::spawn(async move { claim(&mut database.session("test").await?, 10).await });
    let blocked = "select count(*) from pg_stat_activity
                    where datname = current_database() and wait_event_type = 'Lock' and query like '-- claim_steps%'";
    eventually("the claim waits", async || Ok(system.count(blocked).await? == 1)).await?;
    sqlx::query("update tasker.steps set attempt = attempt + 1").execute(&mut *other).await?;
    other.commit().await?;
    let claim = claiming.await??;
    assert!(claim.steps.is_empty(), "its permit is for the attempt that it saw: {:?}", claim.steps);
    system.close().await
}
