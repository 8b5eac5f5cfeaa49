//! What handlers do to us: hang, panic, return too much or the wrong thing, or do not exist.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use std::future::pending;
use tasker_orchestration::query;
use tasker_shared::{
    step::{Failure, FailureKind, StepState},
    task::TaskState,
};
use tasker_tests::{
    Gate, System,
    system::{eventually, worker_settings},
    templates::single,
};
use tasker_worker::{HandlerError, StepContext, Worker, handler::handler_fn};

const ONCE: &str = "retry: {retryable: false}";

fn returns(result: Value) -> impl tasker_worker::handler::StepHandler {
    handler_fn(move |_: StepContext| {
        let result = result.clone();
        async move { Ok::<_, HandlerError>(result) }
    })
}

async fn panics(_: StepContext) -> Result<(), HandlerError> {
    panic!("a bad day")
}

fn worker() -> tasker_worker::Builder {
    Worker::builder()
        .settings(worker_settings())
        .register("hang", handler_fn(|_: StepContext| pending::<Result<(), HandlerError>>()))
        .register("panic", handler_fn(panics))
        .register("huge", returns(json!("x".repeat(10 * 1024 * 1024))))
        .register("text", returns(json!("text")))
        .register("nul", returns(json!({"a\0b": 1})))
        .register("nothing", returns(json!(null)))
}

/// How the only step of a template fails.
async fn failure(system: &System, name: &str, callable: &str, keys: &str) -> Result<Failure> {
    let task = system.begin_new(&single(name, callable, keys)).await?;
    let ended = system.ended(task).await?;
    assert_eq!(ended.summary.state, TaskState::Error);
    ended.steps[0].error.clone().context("a failure")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_handler_does_its_step_ends_with_a_clear_failure() -> Result<()> {
    let mut system = System::start().await?;
    system.add_worker(worker())?;
    let object = "result_schema: {type: object}";
    let twice =
        |n: usize| format!(r##"d{n}: {{allOf: [{{$ref: "#/$defs/d{0}"}}, {{$ref: "#/$defs/d{0}"}}]}}, "##, n + 1);
    let doubling: String = (0..40).map(twice).collect();
    let endless = format!(r##"result_schema: {{$ref: "#/$defs/d0", $defs: {{{doubling}d40: {{type: string}}}}}}"##);
    for (name, callable, keys, kind, message) in [
        (
            "hangs",
            "hang",
            format!("timeout_seconds: 0.1, {ONCE}"),
            FailureKind::Timeout,
            "still running at its deadline",
        ),
        ("panics", "panic", ONCE.to_owned(), FailureKind::Panic, "the handler panicked: a bad day"),
        (
            "too_large",
            "huge",
            String::new(),
            FailureKind::ResultTooLarge,
            "has 10485762 bytes, at most 1048576 are allowed",
        ),
        ("wrong_shape", "text", object.to_owned(), FailureKind::ResultInvalid, "the result breaks `result_schema`"),
        ("endless", "text", endless, FailureKind::ResultInvalid, "would take more than 10000000 steps"),
        ("unstorable", "nul", String::new(), FailureKind::ResultInvalid, "u0000"),
        ("nobody", "nobodys", ONCE.to_owned(), FailureKind::HandlerNotFound, "no handler named `nobodys`"),
    ] {
        let failure = failure(&system, name, callable, &keys).await?;
        assert_eq!(failure.kind, kind, "{name}: {failure:?}");
        assert!(failure.message.contains(message), "{name}: {failure:?}");
    }
    let task = system.begin_new(&single("nothing", "nothing", "")).await?;
    assert_eq!(system.ended(task).await?.steps[0].result, Some(json!(null)));
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_hangs_is_tried_again_on_a_free_slot() -> Result<()> {
    let mut system = System::start().await?;
    let mut settings = worker_settings();
    settings.max_concurrent_steps = 1;
    let hangs_first = handler_fn(|context: StepContext| async move {
        if context.attempt == 1 {
            pending::<()>().await;
        }
        Ok::<_, HandlerError>(context.attempt)
    });
    system.add_worker(Worker::builder().settings(settings).register("first", hangs_first))?;
    let task = system.begin_new(&single("again", "first", "timeout_seconds: 0.1, retry: {backoff: none}")).await?;
    let ended = system.ended(task).await?;
    assert_eq!((ended.summary.state, ended.steps[0].result.clone()), (TaskState::Complete, Some(json!(2))));
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_without_a_handler_runs_when_a_worker_comes_that_has_it() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    let without = system.add_worker(worker())?;
    let retry = "retry: {max_attempts: 3, backoff_base_ms: 3600000, max_backoff_ms: 3600000}";
    let task = system.begin_new(&single("waits", "gate", retry)).await?;
    system.step_is(task, "only", StepState::WaitingForRetry).await?;
    without.stop();
    without.ended().await?;
    system.execute("update tasker.timers set due_at = now()").await?;
    system.step_is(task, "only", StepState::Enqueued).await?;
    let explained = query::explain(&system.orchestration, task).await?;
    assert!(explained.summary.contains("No live worker serves namespace `test`"), "{explained:?}");
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    gate.next().await.succeed(json!(1));
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_serves_only_its_namespaces() -> Result<()> {
    let (mut system, ours, theirs) = (System::start().await?, Gate::new(), Gate::new());
    let builder = |gate: &Gate, namespace: &str| {
        let mut settings = worker_settings();
        settings.namespaces = vec![namespace.to_owned()];
        Worker::builder().settings(settings).register("gate", gate.clone())
    };
    system.add_worker(builder(&ours, "test"))?;
    system.add_worker(builder(&theirs, "Other-Namespace"))?;
    let source = single("one", "gate", "");
    let here = system.begin_new(&source).await?;
    system.apply(&source.replace("namespace_name: test", "namespace_name: Other-Namespace")).await?;
    let there = system.submit("Other-Namespace", "one", json!({})).await?.task_id;
    let (a, b) = (ours.next().await, theirs.next().await);
    assert_eq!((a.context.task_id, b.context.task_id), (here, there));
    a.succeed(json!(1));
    b.succeed(json!(2));
    system.ended(here).await?;
    system.ended(there).await?;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_handler_says_of_its_progress_can_be_read_while_it_runs() -> Result<()> {
    let (mut system, gate) = (System::start().await?, Gate::new());
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    let task = system.begin_new(&single("one", "gate", "")).await?;
    let call = gate.next().await;
    call.context.progress(0.5, "half of it");
    eventually("the progress is stored", async || Ok(system.detail(task).await?.steps[0].progress.is_some())).await?;
    let progress = system.detail(task).await?.steps[0].progress.clone();
    assert_eq!(progress, Some(json!({"fraction": 0.5, "message": "half of it"})));
    call.succeed(json!(1));
    system.ended(task).await?;
    system.finish().await
}
