//! What operators do, and what they are refused.

use anyhow::Result;
use serde_json::{Value, json};
use tasker_orchestration::{Error, operate};
use tasker_shared::{
    api::{Action, ResolveStep},
    id::TaskId,
    queue::QueueName,
    step::StepState,
    storage::operations,
    task::TaskState,
};
use tasker_tests::{
    Call, Gate, System,
    system::{eventually, pages_read, worker_settings},
    templates::{self, NAMESPACE, dag, diamond},
};
use tasker_worker::{HandlerError, Worker};

fn worker(gate: &Gate) -> tasker_worker::Builder {
    Worker::builder().settings(worker_settings()).register("gate", gate.clone())
}

fn because(reason: &str) -> Action {
    Action { reason: Some(reason.to_owned()), by: Some("ada".to_owned()) }
}

fn with(result: Value) -> ResolveStep {
    ResolveStep { result, reason: Some("looked it up".to_owned()), by: Some("ada".to_owned()) }
}

fn fails(call: Call) {
    call.fail(HandlerError::fail("no"));
}

#[track_caller]
fn refused<T: std::fmt::Debug>(answer: Result<T, Error>, message: &str) {
    match answer {
        Err(Error::Illegal(said)) => assert!(said.contains(message), "{said:?} does not say {message:?}"),
        other => panic!("{other:?} is no refusal"),
    }
}

/// A chain `a`, `b` whose first step has failed for good.
async fn failed_chain(system: &System, gate: &Gate) -> Result<TaskId> {
    let task = system.begin_new(&dag("chain", "gate", &[("a", &[]), ("b", &["a"])])).await?;
    fails(gate.next().await);
    system.task_is(task, TaskState::Error).await?;
    Ok(task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_was_settled_before_its_parent_is_left_as_it_is_whoever_completes_the_parent() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    system.apply(&dag("chain", "gate", &[("a", &[]), ("b", &["a"])])).await?;
    for by_hand in [false, true] {
        let task = system.begin("chain").await?;
        let a = gate.next().await;
        operate::resolve_step(&system.orchestration, task, "b", &with(json!("first"))).await?;
        if by_hand {
            fails(a);
            assert_eq!(system.ended(task).await?.summary.state, TaskState::Error);
            operate::resolve_step(&system.orchestration, task, "a", &with(json!("by hand"))).await?;
        } else {
            a.succeed(json!(1));
        }
        assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
        let b = format!("select waiting_on::bigint from tasker.steps where task_id = '{task}' and name = 'b'");
        assert_eq!(system.count(&b).await?, 1, "it does not wait, and so nobody counts what it waits for");
        let moves: Vec<_> = system.story(task).await?.into_iter().filter(|line| line.starts_with("b:")).collect();
        assert_eq!(moves, ["b: pending -> resolved_manually"]);
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_step_runs_again_when_an_operator_says_so_and_the_task_completes() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let task = failed_chain(&system, &gate).await?;
    let state = operate::retry_step(&system.orchestration, task, "a", &because("the bank is back")).await?;
    assert_eq!(state, TaskState::InProgress);
    let again = gate.next().await;
    assert_eq!((again.context.attempt, again.context.failures), (2, 0));
    again.succeed(json!(1));
    gate.next().await.succeed(json!(2));
    let ended = system.ended(task).await?;
    assert_eq!((ended.summary.state, ended.error), (TaskState::Complete, None));
    let story = system.story(task).await?;
    assert!(story.contains(&"a: error -> enqueued".to_owned()), "{story:?}");
    assert!(story.contains(&"task: error -> in_progress".to_owned()), "{story:?}");
    let by =
        "select count(*) from tasker.task_transitions where actor = 'operator:ada' and reason = 'the bank is back'";
    assert_eq!(system.count(by).await?, 1);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retrying_a_task_runs_all_its_failed_steps_again() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let task = system.begin_new(&diamond("gate")).await?;
    gate.next().await.succeed(json!(0));
    gate.take(2).await.into_iter().for_each(fails);
    system.task_is(task, TaskState::Error).await?;
    assert_eq!(operate::retry(&system.orchestration, task, &Action::default()).await?, TaskState::InProgress);
    for call in gate.take(2).await {
        call.succeed(json!(1));
    }
    gate.next().await.succeed(json!(2));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    assert_eq!(gate.waiting(), 0);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_resolved_by_hand_hands_its_result_to_its_dependents() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let task = failed_chain(&system, &gate).await?;
    let state = operate::resolve_step(&system.orchestration, task, "a", &with(json!({"found": 7}))).await?;
    assert_eq!(state, TaskState::InProgress);
    let b = gate.next().await;
    assert_eq!(b.context.parent::<Value>("a").expect("a result"), json!({"found": 7}));
    b.succeed(json!(2));
    let ended = system.ended(task).await?;
    assert_eq!(ended.summary.state, TaskState::Complete);
    assert_eq!((ended.summary.steps_done, ended.summary.steps_total), (2, 2));
    assert_eq!(system.states(task).await?, "a=resolved_manually b=complete");
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_given_by_hand_must_fulfil_the_result_schema() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let schema =
        "result_schema: {type: object, required: [n], properties: {n: {type: integer}}}, retry: {retryable: false}";
    let task = system.begin_new(&templates::single("strict_result", "gate", schema)).await?;
    fails(gate.next().await);
    system.task_is(task, TaskState::Error).await?;
    let answer = operate::resolve_step(&system.orchestration, task, "only", &with(json!({"n": "x"}))).await;
    let Err(Error::ResultInvalid { step, violations }) = answer else { panic!("{answer:?}") };
    assert_eq!(step, "only");
    assert!(violations.join(";").contains("n"), "{violations:?}");
    let nul = operate::resolve_step(&system.orchestration, task, "only", &with(json!({"n": "\0"}))).await;
    assert!(matches!(nul, Err(Error::Invalid { field: "result", .. })), "{nul:?}");
    assert_eq!(system.states(task).await?, "only=error");
    let state = operate::resolve_step(&system.orchestration, task, "only", &with(json!({"n": 1}))).await?;
    assert_eq!(state, TaskState::Complete);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pending_step_resolved_by_hand_is_not_run_when_its_parents_are_done() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let task = system.begin_new(&dag("chain3", "gate", &[("a", &[]), ("b", &["a"]), ("c", &["b"])])).await?;
    let a = gate.next().await;
    operate::resolve_step(&system.orchestration, task, "b", &with(json!("by hand"))).await?;
    let c = gate.next().await;
    assert_eq!((c.step(), c.context.parent::<String>("b").expect("text")), ("c", "by hand".to_owned()));
    c.succeed(json!(3));
    a.succeed(json!(1));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    assert_eq!(system.states(task).await?, "a=complete b=resolved_manually c=complete");
    assert_eq!(gate.waiting(), 0);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_step_resolved_by_hand_is_stopped_and_its_report_refused() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let task = system.begin_new(&dag("chain", "gate", &[("a", &[]), ("b", &["a"])])).await?;
    let a = gate.next().await;
    operate::resolve_step(&system.orchestration, task, "a", &with(json!("by hand"))).await?;
    a.context.cancelled().await;
    let b = gate.next().await;
    assert_eq!(b.context.parent::<String>("a").expect("text"), "by hand");
    b.succeed(json!(1));
    let ended = system.ended(task).await?;
    assert_eq!(ended.summary.state, TaskState::Complete);
    assert_eq!(ended.steps[0].result, Some(json!("by hand")));
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_a_task_tells_its_handler_and_leaves_nothing() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    let mut settings = worker_settings();
    settings.lease = std::time::Duration::from_secs(3600);
    system.add_worker(Worker::builder().settings(settings).register("gate", gate.clone()))?;
    let task = system.begin_new(&diamond("gate")).await?;
    let running = gate.next().await;
    let state = operate::cancel(&system.orchestration, task, &because("a mistake")).await?;
    assert_eq!(state, TaskState::Cancelled);
    running.context.cancelled().await;
    let ended = system.ended(task).await?;
    assert_eq!(ended.error, Some(json!({"message": "a mistake"})));
    assert_eq!(system.states(task).await?, "a=cancelled b=cancelled c=cancelled d=cancelled");
    eventually("the message is gone", async || Ok(system.messages().await? == 0)).await?;
    assert_eq!(system.count("select count(*) from tasker.timers").await?, 0);
    assert!(!system.story(task).await?.iter().any(|line| line.contains("reported")));
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_task_that_is_cancelled_never_starts() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    system.apply(&diamond("gate")).await?;
    let sql = "select tasker.submit('test', 'diamond', run_at => now() + interval '1 hour')";
    let task = TaskId(sqlx::query_scalar(sql).fetch_one(system.database.pool()).await?);
    assert_eq!(operate::cancel(&system.orchestration, task, &Action::default()).await?, TaskState::Cancelled);
    assert_eq!(system.count("select count(*) from tasker.timers").await?, 0);
    assert_eq!(system.count("select count(*) from tasker.steps").await?, 0);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_step_ends_its_branch_and_the_others_go_on() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let task = system.begin_new(&diamond("gate")).await?;
    gate.next().await.succeed(json!(0));
    let mut sides = gate.take(2).await;
    let (c, b) = (sides.pop().expect("c"), sides.pop().expect("b"));
    let state = operate::cancel_step(&system.orchestration, task, "b", &because("not needed")).await?;
    assert_eq!(state, TaskState::InProgress);
    b.context.cancelled().await;
    c.succeed(json!(1));
    let ended = system.ended(task).await?;
    assert_eq!(ended.summary.state, TaskState::Error);
    assert_eq!(system.states(task).await?, "a=complete b=cancelled c=complete d=pending");
    let error = ended.error.expect("a reason");
    assert!(error["message"].as_str().expect("text").starts_with("step `b`"), "{error}");
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_task_lets_running_steps_end_and_starts_none_until_it_is_resumed() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let task = system.begin_new(&diamond("gate")).await?;
    let a = gate.next().await;
    assert_eq!(operate::pause(&system.orchestration, task, &Action::default()).await?, TaskState::Paused);
    a.succeed(json!(0));
    system.step_is(task, "a", StepState::Complete).await?;
    assert_eq!(system.states(task).await?, "a=complete b=pending c=pending d=pending");
    assert_eq!((system.messages().await?, gate.waiting()), (0, 0));
    assert_eq!(operate::resume(&system.orchestration, task, &Action::default()).await?, TaskState::InProgress);
    for call in gate.take(2).await {
        call.succeed(json!(1));
    }
    gate.next().await.succeed(json!(2));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_whose_last_step_ends_while_it_is_paused_completes() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let task = system.begin_new(&templates::single("one", "gate", "")).await?;
    let only = gate.next().await;
    operate::pause(&system.orchestration, task, &Action::default()).await?;
    only.succeed(json!(0));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_that_were_enqueued_before_a_pause_are_withdrawn_and_enqueued_again() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    let task = system.begin_new(&diamond("gate")).await?;
    assert_eq!(system.states(task).await?, "a=enqueued b=pending c=pending d=pending");
    operate::pause(&system.orchestration, task, &Action::default()).await?;
    system.add_worker(worker(&gate))?;
    system.step_is(task, "a", StepState::Pending).await?;
    assert_eq!(system.messages().await?, 0);
    operate::resume(&system.orchestration, task, &Action::default()).await?;
    let a = gate.next().await;
    assert_eq!(a.context.attempt, 1);
    a.succeed(json!(0));
    for call in gate.take(2).await {
        call.succeed(json!(1));
    }
    gate.next().await.succeed(json!(2));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_is_retried_in_a_paused_task_waits_for_the_resume() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let task = system.begin_new(&dag("pair", "gate", &[("x", &[]), ("y", &[])])).await?;
    let mut calls = gate.take(2).await;
    let (y, x) = (calls.pop().expect("y"), calls.pop().expect("x"));
    fails(x);
    system.step_is(task, "x", StepState::Error).await?;
    operate::pause(&system.orchestration, task, &Action::default()).await?;
    assert_eq!(operate::retry_step(&system.orchestration, task, "x", &Action::default()).await?, TaskState::Paused);
    system.step_is(task, "x", StepState::Pending).await?;
    y.succeed(json!(1));
    operate::resume(&system.orchestration, task, &Action::default()).await?;
    let x = gate.next().await;
    assert_eq!(x.context.attempt, 2);
    x.succeed(json!(1));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_task_can_be_declared_settled() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let task = failed_chain(&system, &gate).await?;
    let state = operate::resolve(&system.orchestration, task, &because("refunded by phone")).await?;
    assert_eq!(state, TaskState::ResolvedManually);
    let ended = system.ended(task).await?;
    assert_eq!(ended.error, Some(json!({"message": "refunded by phone"})));
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actions_that_the_state_does_not_allow_are_refused_and_change_nothing() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let (o, plain) = (system.orchestration.clone(), Action::default());
    let task = system.begin_new(&dag("pair", "gate", &[("x", &[]), ("y", &["x"])])).await?;
    let x = gate.next().await;
    refused(operate::resume(&o, task, &plain).await, "a task that is in_progress cannot resume");
    refused(operate::retry(&o, task, &plain).await, "a task that is in_progress cannot reopen");
    refused(operate::resolve(&o, task, &plain).await, "a task that is in_progress cannot resolve");
    refused(operate::retry_step(&o, task, "x", &plain).await, "step `x`: a step that is in_progress cannot reopen");
    x.succeed(json!(1));
    let y = gate.next().await;
    refused(operate::cancel_step(&o, task, "x", &plain).await, "a step that is complete cannot cancel");
    refused(operate::resolve_step(&o, task, "x", &with(json!(1))).await, "a step that is complete cannot resolve");
    operate::pause(&o, task, &plain).await?;
    refused(operate::pause(&o, task, &plain).await, "a task that is paused cannot pause");
    operate::resume(&o, task, &plain).await?;
    y.succeed(json!(1));
    let before = system.ended(task).await?;
    for answer in [
        operate::cancel(&o, task, &plain).await,
        operate::pause(&o, task, &plain).await,
        operate::resume(&o, task, &plain).await,
        operate::retry(&o, task, &plain).await,
        operate::resolve(&o, task, &plain).await,
        operate::retry_step(&o, task, "x", &plain).await,
        operate::cancel_step(&o, task, "x", &plain).await,
        operate::resolve_step(&o, task, "x", &with(json!(1))).await,
    ] {
        refused(answer, "complete");
    }
    assert_eq!(system.detail(task).await?, before);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_steps_of_a_task_that_was_cancelled_or_settled_are_left_alone() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let (o, plain) = (system.orchestration.clone(), Action::default());
    let settled = failed_chain(&system, &gate).await?;
    refused(operate::cancel_step(&o, settled, "b", &plain).await, "error");
    operate::resolve(&o, settled, &plain).await?;
    let cancelled = system.begin_new(&dag("pair", "gate", &[("a", &[]), ("b", &[])])).await?;
    let mut calls = gate.take(2).await;
    fails(calls.remove(0));
    system.step_is(cancelled, "a", StepState::Error).await?;
    operate::cancel(&o, cancelled, &plain).await?;
    for (task, state) in [(settled, "resolved_manually"), (cancelled, "cancelled")] {
        let before = system.states(task).await?;
        refused(operate::retry_step(&o, task, "a", &plain).await, state);
        refused(operate::resolve_step(&o, task, "a", &with(json!(1))).await, state);
        refused(operate::cancel_step(&o, task, "b", &plain).await, state);
        assert_eq!(system.states(task).await?, before);
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_task_or_step_is_named_with_the_nearest_one() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let (o, plain, nobody) = (system.orchestration.clone(), Action::default(), TaskId::generate());
    for answer in [
        operate::cancel(&o, nobody, &plain).await,
        operate::retry_step(&o, nobody, "x", &plain).await,
        operate::resolve_step(&o, nobody, "x", &with(json!(1))).await,
    ] {
        assert_eq!(answer.expect_err("nobody").to_string(), format!("task {nobody} does not exist"));
    }
    let task = system.begin_new(&dag("named", "gate", &[("charge_card", &[]), ("ship", &["charge_card"])])).await?;
    let error = operate::retry_step(&o, task, "charge_cart", &plain).await.expect_err("no such step");
    assert_eq!(error.to_string(), format!("task {task} has no step `charge_cart`; did you mean `charge_card`?"));
    let long = Action { reason: Some("x".repeat(2000)), by: None };
    let error = operate::cancel(&o, task, &long).await.expect_err("too long");
    assert!(matches!(error, Error::Invalid { field: "reason", .. }), "{error}");
    operate::cancel(&o, task, &plain).await?;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_is_stopped_leaves_no_message_also_where_nobody_works() -> Result<()> {
    let system = System::start().await?;
    system.apply(&dag("three", "nobodys", &[("a", &[]), ("b", &[]), ("c", &[])])).await?;
    let (cancelled, parted) = (system.begin("three").await?, system.begin("three").await?);
    assert_eq!(system.messages().await?, 6);
    operate::cancel(&system.orchestration, cancelled, &because("no")).await?;
    assert_eq!(system.messages().await?, 3, "those of the other task");
    operate::cancel_step(&system.orchestration, parted, "a", &because("no")).await?;
    let resolution = ResolveStep { result: json!(1), reason: None, by: None };
    operate::resolve_step(&system.orchestration, parted, "b", &resolution).await?;
    assert_eq!(system.messages().await?, 1);
    let late = system
        .begin_new(
            &dag("late", "nobodys", &[("a", &[])]).replace("steps:", "lifecycle: {max_duration_seconds: 3600}\nsteps:"),
        )
        .await?;
    system.execute("update tasker.timers set due_at = now() where kind = 'deadline'").await?;
    system.ended(late).await?;
    assert_eq!(system.messages().await?, 1);
    operate::cancel(&system.orchestration, parted, &because("no")).await?;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_is_stopped_is_not_looked_for_in_the_whole_queue() -> Result<()> {
    let system = System::start().await?;
    let task = system.begin_new(&dag("one", "nobodys", &[("a", &[])])).await?;
    system.step_is(task, "a", StepState::Enqueued).await?;
    let (queue, step) = (QueueName::of_namespace(NAMESPACE), system.detail(task).await?.steps[0].step_id);
    let table = queue.table();
    system
        .execute(&format!(
            "insert into {table} (vt, message) select now() - interval '1 hour' - n * interval '1 second', '{{}}'
               from generate_series(1, 20000) n"
        ))
        .await?;
    system.execute(&format!("vacuum analyze {table}")).await?;
    let mut session = system.database.begin("test").await?;
    let before = pages_read(&mut session, &table).await?;
    assert_eq!(operations::delete_messages(&mut session, &queue, &[step]).await?, 1);
    let pages = pages_read(&mut session, &table).await? - before;
    session.rollback().await?;
    assert!(pages < 50, "{pages} pages");
    system.close().await
}
