//! Dead letters: parked with reason and snapshot, dealt with once, by somebody.

use anyhow::{Context as _, Result};
use serde_json::json;
use std::time::Duration;
use tasker_orchestration::{Error, operate, query};
use tasker_shared::{
    access::Namespaces,
    api::{Action, DeadLetterFilter, DeadLetterSummary},
    id::TaskId,
    metrics::Metrics,
    step::{DeadLetterReason, FailureKind, Resolution, StepState},
    task::TaskState,
};
use tasker_tests::{
    Gate, System,
    system::{eventually, orchestration_settings, worker_settings},
    templates::{dag, single},
};
use tasker_worker::Worker;

fn action(note: &str) -> Action {
    Action { reason: Some(note.to_owned()), by: Some("tester".to_owned()) }
}

fn worker(gate: &Gate) -> tasker_worker::Builder {
    Worker::builder().settings(worker_settings()).register("gate", gate.clone())
}

async fn letters(system: &System, filter: &DeadLetterFilter) -> Result<Vec<DeadLetterSummary>> {
    Ok(query::dead_letters(&system.orchestration, filter, &Namespaces::All).await?.dead_letters)
}

async fn only(system: &System) -> Result<DeadLetterSummary> {
    let mut all = letters(system, &DeadLetterFilter { open: Some(true), ..DeadLetterFilter::default() }).await?;
    anyhow::ensure!(all.len() == 1, "{all:?}");
    Ok(all.remove(0))
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, Error>) -> String {
    match answer {
        Err(Error::Illegal(reason)) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

/// A task with the steps `bad`, `good` and, after `bad`, `after`; `bad` is parked by an operator.
async fn parked(system: &System, gate: &Gate) -> Result<(TaskId, DeadLetterSummary)> {
    let task = system.begin_new(&dag("parts", "gate", &[("bad", &[]), ("good", &[]), ("after", &["bad"])])).await?;
    let mut calls = gate.take(2).await;
    let bad = calls.remove(0);
    operate::park_step(&system.orchestration, task, "bad", &action("looks odd")).await?;
    bad.context.cancelled().await;
    calls.remove(0).succeed(json!(1));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Error);
    assert_eq!(system.states(task).await?, "bad=error good=complete after=pending");
    Ok((task, only(system).await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_parked_by_an_operator_is_kept_with_reason_and_snapshot_and_redriven_once() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let (task, letter) = parked(&system, &gate).await?;
    assert_eq!((letter.reason, letter.parked_by.as_str()), (DeadLetterReason::Manual, "operator:tester"));
    assert_eq!((letter.task_id, letter.step.as_deref()), (Some(task), Some("bad")));
    assert_eq!(letter.detail, "parked by an operator: looks odd");
    let whole = query::dead_letter(&system.orchestration, letter.dead_letter_id).await?;
    let snapshot = whole.snapshot.context("a snapshot")?;
    assert_eq!(
        (snapshot["step"]["state"].as_str(), snapshot["task"]["name"].as_str()),
        (Some("in_progress"), Some("parts"))
    );
    assert_eq!(whole.message["step_id"], json!(letter.step_id));
    let id = letter.dead_letter_id;
    let now = action("now");
    let (one, two) = tokio::join!(
        operate::redrive(&system.orchestration, id, &now),
        operate::redrive(&system.orchestration, id, &now),
    );
    let (done, refused) = if one.is_ok() { (one, two) } else { (two, one) };
    let done = done?;
    assert_eq!((done.resolution, done.resolved_by.as_deref()), (Some(Resolution::Redriven), Some("operator:tester")));
    assert!(refusal(refused).contains(&format!("dead letter {id} was")));
    let again = gate.next().await;
    assert_eq!((again.step(), again.context.attempt, again.context.failures), ("bad", 2, 0));
    again.succeed(json!(1));
    gate.next().await.succeed(json!(1));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    let refused = refusal(operate::redrive(&system.orchestration, id, &action("again")).await);
    assert!(refused.starts_with(&format!("dead letter {id} was redriven by operator:tester at ")), "{refused}");
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_with_a_time_that_no_program_can_read_is_parked_and_others_go_on() -> Result<()> {
    let settings = tasker_orchestration::Settings { max_deliveries: 1, ..orchestration_settings() };
    let (mut system, gate) = (System::start_with(settings, Metrics::disabled()).await?, Gate::new());
    system.add_worker(worker(&gate))?;
    system.apply(&single("one", "gate", "")).await?;
    let odd = system.begin("one").await?;
    let call = gate.next().await;
    let refused = system.execute("update tasker.steps set enqueued_at = '-infinity'").await;
    assert!(format!("{:#}", refused.unwrap_err()).contains("step_times_can_be_read"));
    system.execute("alter table tasker.steps drop constraint step_times_can_be_read").await?;
    system.execute("update tasker.steps set enqueued_at = '-infinity', started_at = 'infinity'").await?;
    call.succeed(json!(1));
    let open = DeadLetterFilter { open: Some(true), ..DeadLetterFilter::default() };
    eventually("it is parked", async || Ok(letters(&system, &open).await?.len() == 1)).await?;
    let letter = letters(&system, &open).await?.remove(0);
    assert_eq!((letter.reason, letter.task_id), (DeadLetterReason::Poison, Some(odd)));
    assert!(letter.detail.contains("a value is out of the range of its type"), "{}", letter.detail);
    let well = system.begin("one").await?;
    gate.next().await.succeed(json!(1));
    assert_eq!(system.ended(well).await?.summary.state, TaskState::Complete);
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_whose_task_went_another_way_is_not_redriven() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let (task, letter) = parked(&system, &gate).await?;
    operate::resolve(&system.orchestration, task, &action("settled by phone")).await?;
    let refused = refusal(operate::redrive(&system.orchestration, letter.dead_letter_id, &action("")).await);
    assert!(refused.contains("is resolved_manually"), "{refused}");
    let done = operate::resolve_dead_letter(&system.orchestration, letter.dead_letter_id, &action("by phone")).await?;
    assert_eq!((done.resolution, done.note.as_deref()), (Some(Resolution::Resolved), Some("by phone")));
    assert!(letters(&system, &DeadLetterFilter { open: Some(true), ..DeadLetterFilter::default() }).await?.is_empty());
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_somebody_retries_by_hand_is_no_dead_letter_any_more() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(worker(&gate))?;
    let (task, letter) = parked(&system, &gate).await?;
    operate::retry_step(&system.orchestration, task, "bad", &action("fixed")).await?;
    let whole = query::dead_letter(&system.orchestration, letter.dead_letter_id).await?.summary;
    assert_eq!((whole.resolution, whole.note.as_deref()), (Some(Resolution::Redriven), Some("fixed")));
    gate.next().await.succeed(json!(1));
    gate.next().await.succeed(json!(1));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_waits_can_be_parked_and_one_that_ended_cannot() -> Result<()> {
    let system = System::start().await?;
    let task = system.begin_new(&single("waits", "nobodys", "")).await?;
    operate::park_step(&system.orchestration, task, "only", &action("not now")).await?;
    let ended = system.ended(task).await?;
    assert_eq!(ended.steps[0].error.as_ref().map(|e| e.kind), Some(FailureKind::Parked));
    assert_eq!(system.messages().await?, 0, "its message is in the archive");
    let refused = refusal(operate::park_step(&system.orchestration, task, "only", &action("")).await);
    assert!(refused.contains("is error"), "{refused}");
    let letter = only(&system).await?;
    operate::discard(&system.orchestration, letter.dead_letter_id, &action("never")).await?;
    assert_eq!(system.detail(task).await?.summary.state, TaskState::Error);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn letters_are_listed_by_reason_namespace_and_page() -> Result<()> {
    let system = System::start().await?;
    system.apply(&single("waits", "nobodys", "")).await?;
    for _ in 0..3 {
        let task = system.begin("waits").await?;
        operate::park_step(&system.orchestration, task, "only", &action("")).await?;
    }
    let filter = DeadLetterFilter { limit: Some(2), ..DeadLetterFilter::default() };
    let first = query::dead_letters(&system.orchestration, &filter, &Namespaces::All).await?;
    let next = first.next.context("there is more")?;
    let rest = query::dead_letters(
        &system.orchestration,
        &DeadLetterFilter { before: Some(next), ..filter.clone() },
        &Namespaces::All,
    )
    .await?;
    assert_eq!((first.dead_letters.len(), rest.dead_letters.len(), rest.next), (2, 1, None));
    for (expected, filter) in [
        (3, DeadLetterFilter { reason: Some(DeadLetterReason::Manual), ..DeadLetterFilter::default() }),
        (0, DeadLetterFilter { reason: Some(DeadLetterReason::Poison), ..DeadLetterFilter::default() }),
        (3, DeadLetterFilter { namespace: Some("test".into()), ..DeadLetterFilter::default() }),
        (0, DeadLetterFilter { namespace: Some("other".into()), ..DeadLetterFilter::default() }),
        (0, DeadLetterFilter { open: Some(false), ..DeadLetterFilter::default() }),
        (1, DeadLetterFilter { task_id: first.dead_letters[0].task_id, ..DeadLetterFilter::default() }),
    ] {
        assert_eq!(letters(&system, &filter).await?.len(), expected, "{filter:?}");
    }
    let filter = DeadLetterFilter { limit: Some(0), ..DeadLetterFilter::default() };
    let refused = query::dead_letters(&system.orchestration, &filter, &Namespaces::All).await;
    assert!(matches!(refused, Err(Error::Invalid { field: "limit", .. })));
    system.finish().await
}

/// A step whose outcome is parked: `reported`, with an open letter of `step_results`.
async fn with_parked_outcome(system: &System) -> Result<(TaskId, DeadLetterSummary)> {
    let task = system.begin_new(&single("reports", "nobodys", "")).await?;
    system.execute(&format!("delete from {}", System::queue())).await?;
    system
        .execute(
            "update tasker.steps set state = 'reported', attempt = 1, started_at = now(), reported_at = now(),
                    outcome = 'success', result = '1';
             insert into tasker.dead_letters (id, reason, queue, message, detail, task_id, step_id, read_count, namespace)
             select tasker.uuid_v7(), 'poison', 'step_results',
                    jsonb_build_object('task_id', task_id, 'step_id', id, 'attempt', 1), 'it broke', task_id, id, 3, 'test'
               from tasker.steps",
        )
        .await?;
    Ok((task, only(system).await?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_outcome_is_sent_again_or_discarded_and_not_forgotten() -> Result<()> {
    for discards in [false, true] {
        let system = System::start().await?;
        let (task, letter) = with_parked_outcome(&system).await?;
        let id = letter.dead_letter_id;
        let refused = refusal(operate::resolve_dead_letter(&system.orchestration, id, &action("")).await);
        assert!(refused.contains("its step still waits for this message; redrive it, or discard it"), "{refused}");
        let (expected, state) = if discards {
            operate::discard(&system.orchestration, id, &action("lost")).await?;
            ("reported: it broke", TaskState::Error)
        } else {
            operate::redrive(&system.orchestration, id, &action("mended")).await?;
            ("", TaskState::Complete)
        };
        let ended = system.ended(task).await?;
        assert_eq!(ended.summary.state, state, "{expected}");
        if discards {
            let failure = ended.steps[0].error.as_ref().context("a failure")?;
            assert_eq!(failure.message, "its outcome was discarded: it broke");
        }
        let refused = refusal(operate::redrive(&system.orchestration, id, &action("")).await);
        assert!(refused.contains("was"), "{refused}");
        system.finish().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_of_no_task_goes_back_to_its_queue_and_is_parked_anew_if_it_still_means_nothing() -> Result<()> {
    let system = System::start().await?;
    system.execute("insert into pgmq.q_step_results (vt, message) values (now(), '{\"x\": 1}')").await?;
    let open = DeadLetterFilter { open: Some(true), ..DeadLetterFilter::default() };
    eventually("it is parked", async || Ok(letters(&system, &open).await?.len() == 1)).await?;
    let first = only(&system).await?;
    assert_eq!((first.reason, first.task_id), (DeadLetterReason::Unreadable, None));
    operate::redrive(&system.orchestration, first.dead_letter_id, &action("try")).await?;
    eventually("it is parked anew", async || {
        let open = letters(&system, &open).await?;
        Ok(open.len() == 1 && open[0].dead_letter_id != first.dead_letter_id)
    })
    .await?;
    operate::discard(&system.orchestration, only(&system).await?.dead_letter_id, &action("noise")).await?;
    assert_eq!(letters(&system, &open).await?, []);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_whose_handler_no_worker_has_is_parked_when_patience_is_over_and_runs_when_redriven() -> Result<()> {
    let settings = tasker_orchestration::Settings {
        handler_missing_after: Duration::from_millis(500),
        ..orchestration_settings()
    };
    let (mut system, gate) = (System::start_with(settings, Metrics::disabled()).await?, Gate::new());
    let without = system.add_worker(Worker::builder().settings(worker_settings()))?;
    let task = system.begin_new(&single("missing", "gate", "retry: {max_attempts: 1}")).await?;
    let ended = system.ended(task).await?;
    assert_eq!(ended.steps[0].error.as_ref().map(|e| e.kind), Some(FailureKind::HandlerNotFound));
    assert!(ended.steps[0].attempt >= 2, "it went back before: {}", ended.steps[0].attempt);
    let letter = only(&system).await?;
    assert_eq!(letter.reason, DeadLetterReason::HandlerNotFound);
    without.stop();
    without.ended().await?;
    system.add_worker(worker(&gate))?;
    operate::redrive(&system.orchestration, letter.dead_letter_id, &action("deployed")).await?;
    gate.next().await.succeed(json!(1));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_one_worker_lacks_costs_the_step_no_failure() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    let without = system.add_worker(Worker::builder().settings(worker_settings()))?;
    let task = system.begin_new(&single("missing", "gate", "retry: {max_attempts: 1}")).await?;
    system.step_is(task, "only", StepState::WaitingForRetry).await?;
    without.stop();
    without.ended().await?;
    system.add_worker(worker(&gate))?;
    let call = gate.next().await;
    assert_eq!(call.context.failures, 0);
    call.succeed(json!(1));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    assert_eq!(system.count("select count(*) from tasker.steps where missing_since is not null").await?, 0);
    system.finish().await
}
