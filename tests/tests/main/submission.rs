//! Submitting: through the service and by SQL, once and again.

use anyhow::Result;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tasker_orchestration::{Error, operate, query, submit};
use tasker_shared::{
    api::{Action, SubmitTask, Submitted},
    id::{CorrelationId, TaskId},
    metrics::Metrics,
    storage::{tasks, templates as template_rows},
    task::{Submission, TaskState},
};
use tasker_tests::{
    System,
    system::{connect, eventually, worker_settings},
    templates::{NAMESPACE, single},
};
use tasker_worker::{Worker, handler};
use tokio::sync::Barrier;

async fn start() -> Result<System> {
    let mut system = System::start().await?;
    system.add_worker(
        Worker::builder().settings(worker_settings()).register("echo", handler::Echo).register("noop", handler::Noop),
    )?;
    Ok(system)
}

fn strategy(name: &str, strategy: &str) -> String {
    format!("identity_strategy: {strategy}\n{}", single(name, "echo", ""))
}

fn task(name: &str, input: Value) -> SubmitTask {
    SubmitTask { namespace: NAMESPACE.to_owned(), name: name.to_owned(), input, ..SubmitTask::default() }
}

fn keyed(name: &str, key: &str) -> SubmitTask {
    SubmitTask { idempotency_key: Some(key.to_owned()), ..task(name, json!({})) }
}

async fn one(system: &System, task: SubmitTask) -> Result<Submitted, Error> {
    submit::submit(&system.orchestration, vec![task]).await?.remove(0)
}

async fn by_sql(system: &System, arguments: &str) -> Result<TaskId, sqlx::Error> {
    let sql = format!("select tasker.submit({arguments})");
    sqlx::query_scalar(&sql).fetch_one(system.database.pool()).await.map(TaskId)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_submitted_by_sql_exists_only_when_its_transaction_commits() -> Result<()> {
    let system = start().await?;
    system.apply(&single("one", "echo", "")).await?;
    let mut user = sqlx::PgConnection::connect(&system.test_database.url).await?;
    let call = r#"select tasker.submit('test', 'one', '{"n": 1}')"#;
    let mut transaction = user.begin().await?;
    let lost: uuid::Uuid = sqlx::query_scalar(call).fetch_one(&mut *transaction).await?;
    transaction.rollback().await?;
    let mut transaction = user.begin().await?;
    let kept: uuid::Uuid = sqlx::query_scalar(call).fetch_one(&mut *transaction).await?;
    assert_eq!(system.count("select count(*) from tasker.tasks").await?, 0);
    transaction.commit().await?;
    let ended = system.ended(TaskId(kept)).await?;
    assert_eq!(ended.summary.state, TaskState::Complete);
    assert_eq!(ended.steps[0].result, Some(json!({"input": {"n": 1}, "parents": {}})));
    assert!(matches!(
        tasker_orchestration::query::detail(&system.orchestration, TaskId(lost)).await,
        Err(Error::TaskNotFound(_))
    ));
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_input_that_breaks_the_schema_ends_the_task_with_the_reason() -> Result<()> {
    let system = start().await?;
    system.apply(&format!("input_schema: {{type: object, required: [order]}}\n{}", single("one", "echo", ""))).await?;
    let task = by_sql(&system, "'test', 'one', '{\"x\": 1}'").await?;
    let ended = system.ended(task).await?;
    assert_eq!((ended.summary.state, ended.steps.len()), (TaskState::Error, 0));
    let error = ended.error.expect("a reason").to_string();
    assert!(error.contains("input_schema") && error.contains("order"), "{error}");
    assert_eq!(system.story(task).await?, ["task: nothing -> pending", "task: pending -> error"]);
    system.finish().await
}

/// With a schema whose work doubles with every level of the input.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_takes_too_long_to_check_is_refused_at_once() -> Result<()> {
    let system = start().await?;
    let next = r##"{properties: {a: {$ref: "#/$defs/n"}}}"##;
    let schema = format!(r##"input_schema: {{$defs: {{n: {{allOf: [{next}, {next}]}}}}, $ref: "#/$defs/n"}}"##);
    system.apply(&format!("{schema}\n{}", single("one", "echo", ""))).await?;
    let input = (0..40).fold(json!(1), |inner, _| json!({"a": inner}));
    let reason = "would take more than 10000000 steps";
    let ended = system.ended(by_sql(&system, &format!("'test', 'one', '{input}'")).await?).await?;
    assert_eq!((ended.summary.state, ended.steps.len()), (TaskState::Error, 0));
    assert!(ended.error.expect("a reason").to_string().contains(reason));
    let answers = submit::submit(&system.orchestration, vec![task("one", input)]).await?;
    let refused = answers[0].as_ref().expect_err("it is refused");
    let told = match refused {
        Error::InputInvalid { violations, .. } => violations.join(" "),
        other => other.to_string(),
    };
    assert!(told.contains(reason), "{told}");
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_submitted_by_sql_that_is_too_large_ends_the_task_with_the_reason() -> Result<()> {
    let system = start().await?;
    system.apply(&single("one", "echo", "")).await?;
    let input = "jsonb_build_object('text', repeat('x', 1048576))";
    let task = system.ended(by_sql(&system, &format!("'test', 'one', {input}")).await?).await?;
    assert_eq!(task.summary.state, TaskState::Error);
    let error = task.error.expect("a reason").to_string();
    assert!(error.contains("1048587 bytes; at most 1048576 are allowed (orchestration.max_input_bytes)"), "{error}");
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_task_by_sql_that_is_refused_leaves_no_timer() -> Result<()> {
    let system = start().await?;
    system.apply(&single("one", "echo", "")).await?;
    let input = "jsonb_build_object('text', repeat('x', 1048576))";
    let later = "run_at => now() + interval '1 hour'";
    let task = system.ended(by_sql(&system, &format!("'test', 'one', {input}, {later}")).await?).await?;
    assert_eq!(task.summary.state, TaskState::Error);
    assert_eq!(system.count("select count(*) from tasker.timers").await?, 0);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_submission_refuses_what_cannot_be_a_task() -> Result<()> {
    let system = start().await?;
    system.apply(&single("one", "echo", "")).await?;
    system.apply(&strategy("keyed", "caller_provided")).await?;
    for (arguments, reason) in [
        ("'test', 'two'", "template test/two is not registered"),
        ("'test', 'one', version => '9'", "template test/one@9 is not registered"),
        ("'test', 'keyed'", "asks for an idempotency_key"),
        ("'test', 'one', null", "must not be null"),
        ("'test', 'one', tags => array['a', null]", "must not be null"),
        ("'test', 'one', priority => 101", "priority"),
        ("'test', 'one', priority => 70000", "smallint"),
        ("'test', 'one', run_at => 'infinity'", "run_at must be a time between the years 1 and 9999"),
        ("'test', 'one', run_at => '290000-01-01'", "run_at must be a time between the years 1 and 9999"),
        ("'test', 'one', reason => repeat('x', 1025)", "reason must have 1 to 1024 bytes"),
        ("'test', 'one', tags => array['a', '']", "tags must have 1 to 1024 bytes"),
        ("'test', 'one', tags => array_fill('a'::text, array[51])", "51 tags; at most 50 are allowed"),
    ] {
        let error = by_sql(&system, arguments).await.expect_err(arguments).to_string();
        assert!(error.contains(reason), "{arguments}: {error}");
    }
    assert_eq!(system.count("select count(*) from tasker.tasks").await?, 0);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_by_sql_can_be_read_wherever_their_array_begins() -> Result<()> {
    let system = start().await?;
    system.apply(&single("one", "echo", "")).await?;
    let task = system.ended(by_sql(&system, "'test', 'one', tags => '[5:6]={a,b}'").await?).await?;
    assert_eq!(task.summary.tags, ["a", "b"]);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_and_service_agree_on_what_is_the_same_task() -> Result<()> {
    let system = start().await?;
    system.apply(&strategy("strict", "strict")).await?;
    system.apply(&single("free", "echo", "")).await?;
    let by_service = one(&system, task("strict", json!({"a": 1, "b": [1.50, "x"]}))).await?;
    assert!(by_service.created);
    assert_eq!(by_sql(&system, r#"'test', 'strict', '{"b": [1.5, "x"], "a": 1.0}'"#).await?, by_service.task_id);
    let key = by_sql(&system, "'test', 'free', idempotency_key => 'k'").await?;
    assert_eq!(by_sql(&system, "'test', 'free', '{\"other\": 1}', idempotency_key => 'k'").await?, key);
    let repeated = one(&system, keyed("free", "k")).await?;
    assert_eq!((repeated.task_id, repeated.created), (key, false));
    assert_eq!(system.count("select count(*) from tasker.tasks").await?, 2);
    system.ended(key).await?;
    system.ended(by_service.task_id).await?;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_traceparent_names_the_correlation_id() -> Result<()> {
    let system = start().await?;
    system.apply(&single("one", "echo", "")).await?;
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let expected: CorrelationId = "0af7651916cd43dd8448eb211c80319c".parse()?;
    let sql = by_sql(&system, &format!("'test', 'one', traceparent => '{parent}'")).await?;
    let service = SubmitTask { traceparent: Some(parent.to_owned()), ..task("one", json!({})) };
    let service = one(&system, service).await?.task_id;
    let odd = by_sql(&system, "'test', 'one', traceparent => 'rubbish'").await?;
    for task in [sql, service] {
        assert_eq!(system.ended(task).await?.summary.correlation_id, expected);
    }
    assert_ne!(system.ended(odd).await?.summary.correlation_id, expected);
    let given = CorrelationId::generate();
    let asked =
        SubmitTask { correlation_id: Some(given), parent_correlation_id: Some(expected), ..task("one", json!({})) };
    let ended = system.ended(one(&system, asked).await?.task_id).await?;
    assert_eq!((ended.summary.correlation_id, ended.parent_correlation_id), (given, Some(expected)));
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_that_is_always_unique_repeats_only_with_a_key() -> Result<()> {
    let system = start().await?;
    system.apply(&single("free", "echo", "")).await?;
    let (first, second) = (one(&system, task("free", json!({}))).await?, one(&system, task("free", json!({}))).await?);
    assert!(first.created && second.created && first.task_id != second.task_id);
    let (first, second) = (one(&system, keyed("free", "k")).await?, one(&system, keyed("free", "k")).await?);
    assert!(first.created && !second.created);
    assert_eq!((first.task_id, first.correlation_id), (second.task_id, second.correlation_id));
    assert!(one(&system, keyed("free", "other")).await?.created);
    system.ended(first.task_id).await?;
    assert_eq!(one(&system, keyed("free", "k")).await?.state, TaskState::Complete);
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_template_that_asks_for_a_key_refuses_a_task_without() -> Result<()> {
    let system = start().await?;
    system.apply(&strategy("keyed", "caller_provided")).await?;
    let refused = one(&system, task("keyed", json!({}))).await.expect_err("no key");
    assert!(matches!(refused, Error::Invalid { field: "idempotency_key", .. }), "{refused}");
    let kept = one(&system, keyed("keyed", "k")).await?;
    assert!(kept.created);
    system.ended(kept.task_id).await?;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_template_knows_equal_input_by_value_and_not_by_text() -> Result<()> {
    let system = start().await?;
    let source = strategy("strict", "strict");
    system.apply(&source).await?;
    let first = one(&system, task("strict", json!({"a": 1, "b": {"x": [1, 2], "y": 1e2}}))).await?;
    let again: Value = serde_json::from_str(r#"{"b": {"y": 100.0, "x": [1.0, 2]}, "a": 1.00}"#)?;
    assert_eq!(one(&system, task("strict", again)).await?.task_id, first.task_id);
    for other in [
        json!({"a": 1}),
        json!({"a": "1", "b": {"x": [1, 2], "y": 100}}),
        json!({"a": 1, "b": {"x": [2, 1], "y": 100}}),
    ] {
        assert!(one(&system, task("strict", other)).await?.created);
    }
    system.apply(&source.replace("1.0.0", "1.0.1")).await?;
    let newer = one(&system, task("strict", json!({"a": 1, "b": {"x": [1, 2], "y": 1e2}}))).await?;
    assert!(newer.created && newer.task_id != first.task_id);
    assert_eq!(system.ended(newer.task_id).await?.summary.version, "1.0.1");
    system.close().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submissions_of_one_key_at_the_same_time_are_one_task() -> Result<()> {
    let system = start().await?;
    system.apply(&single("free", "echo", "")).await?;
    let barrier = std::sync::Arc::new(Barrier::new(8));
    let submissions = (0..8).map(|_| {
        let (barrier, orchestration) = (barrier.clone(), system.orchestration.clone());
        tokio::spawn(async move {
            barrier.wait().await;
            submit::submit(&orchestration, vec![keyed("free", "x"), keyed("free", "y")]).await
        })
    });
    let mut answers = Vec::new();
    for submission in futures::future::join_all(submissions).await {
        for answer in submission?? {
            answers.push(answer?);
        }
    }
    let mut ids: Vec<TaskId> = answers.iter().map(|a| a.task_id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), answers.iter().filter(|a| a.created).count()), (2, 2));
    for id in ids {
        system.ended(id).await?;
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_answers_each_task_by_itself() -> Result<()> {
    let system = start().await?;
    let source = single("one", "echo", "");
    system.apply(&format!("input_schema: {{type: object}}\n{source}")).await?;
    let (high, big) =
        (SubmitTask { priority: 101, ..task("one", json!({})) }, json!({"x": "y".repeat(2 * 1024 * 1024)}));
    let empty_tag = SubmitTask { tags: vec![String::new()], ..task("one", json!({})) };
    let batch = vec![
        keyed("one", "same"),
        task("won", json!({})),
        task("one", json!("text")),
        keyed("one", "same"),
        high,
        task("one", big),
        task("one", json!({"nul": "a\0b"})),
        empty_tag,
        task("one", json!({})),
    ];
    let answers = submit::submit(&system.orchestration, batch).await?;
    let said: Vec<String> = answers
        .iter()
        .map(|answer| match answer {
            Ok(submitted) => format!("created={}", submitted.created),
            Err(refused) => refused.to_string(),
        })
        .collect();
    let expected = [
        "created=true",
        "template `test/won` is not registered; did you mean `test/one`?",
        "the input breaks the input_schema of `test/one@1.0.0`",
        "created=false",
        "`priority`: 101 is not between -100 and 100",
        "`input` has 2097160 bytes; at most 1048576 are allowed (orchestration.max_input_bytes)",
        "`input`: contains the character \\u0000",
        "`tags`: must have 1 to 1024 bytes",
        "created=true",
    ];
    assert_eq!(said.len(), expected.len());
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.starts_with(expected), "{said:?} is not {expected:?}");
    }
    assert_eq!(answers[0].as_ref().ok().map(|a| a.task_id), answers[3].as_ref().ok().map(|a| a.task_id));
    let many = submit::submit(&system.orchestration, vec![task("one", json!({})); 1001]).await;
    assert!(matches!(many, Err(Error::Invalid { field: "tasks", .. })));
    for answer in answers.into_iter().flatten() {
        system.ended(answer.task_id).await?;
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delayed_task_starts_at_its_time_and_one_whose_time_is_past_at_once() -> Result<()> {
    let system = start().await?;
    system.apply(&single("one", "echo", "")).await?;
    let now = tasks::now(&mut system.database.session("test").await?).await?;
    let at = |hours| SubmitTask { run_at: Some(now + chrono::Duration::hours(hours)), ..task("one", json!({})) };
    let past = one(&system, at(-1)).await?;
    assert_eq!(past.state, TaskState::InProgress);
    system.ended(past.task_id).await?;
    system.ended(by_sql(&system, "'test', 'one', run_at => now() - interval '1 hour'").await?).await?;
    let delayed = one(&system, at(1)).await?;
    let delayed_by_sql = by_sql(&system, "'test', 'one', run_at => now() + interval '1 hour'").await?;
    assert_eq!(delayed.state, TaskState::Pending);
    for task in [delayed.task_id, delayed_by_sql] {
        let explanation = tasker_orchestration::query::explain(&system.orchestration, task).await?;
        assert!(explanation.summary.starts_with("It starts at"), "{}", explanation.summary);
    }
    let timers = async || Ok(system.count("select count(*) from tasker.timers").await? == 2);
    eventually("both timers are set", timers).await?;
    system.execute("update tasker.tasks set run_at = now(); update tasker.timers set due_at = now()").await?;
    for task in [delayed.task_id, delayed_by_sql] {
        assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    }
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_that_passes_while_a_task_is_stored_does_not_lose_it() -> Result<()> {
    let system = start().await?;
    system.apply(&single("one", "echo", "")).await?;
    let mut session = system.database.begin("test").await?;
    let template = template_rows::find(&mut session, NAMESPACE, "one", None).await?.expect("it is registered");
    let run_at = tasks::now(&mut session).await?;
    let submission = Submission {
        namespace: template.namespace.clone(),
        name: template.name.clone(),
        version: None,
        input: json!({}),
        idempotency_key: None,
        priority: 0,
        tags: Vec::new(),
        run_at: Some(run_at),
        correlation_id: CorrelationId::generate(),
        parent_correlation_id: None,
        traceparent: None,
        initiator: None,
        source_system: None,
        reason: None,
    };
    let new =
        tasks::NewTask { id: TaskId::generate(), template_id: template.id, version: "1.0.0".to_owned(), submission };
    tasks::insert(&mut session, std::slice::from_ref(&new)).await?;
    session.commit().await?;
    assert_eq!(system.ended(new.id).await?.summary.state, TaskState::Complete);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_higher_priority_goes_first_and_a_low_one_still_runs() -> Result<()> {
    let system = System::start().await?;
    system.apply(&single("one", "echo", "")).await?;
    let mut expected = Vec::new();
    for priority in [-100, 0, 50, -1, 100, 0] {
        let asked = SubmitTask { priority, tags: vec!["p".to_owned()], ..task("one", json!({})) };
        expected.push((-priority, one(&system, asked).await?.task_id));
    }
    expected.sort_unstable();
    let mut system = system;
    let mut settings = worker_settings();
    settings.max_concurrent_steps = 1;
    system.add_worker(Worker::builder().settings(settings).register("echo", handler::Echo))?;
    for (_, task) in &expected {
        system.ended(*task).await?;
    }
    let ran: Vec<uuid::Uuid> = sqlx::query_scalar("select task_id from tasker.steps order by started_at")
        .fetch_all(system.database.pool())
        .await?;
    assert_eq!(ran, expected.into_iter().map(|(_, id)| id.0).collect::<Vec<_>>());
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_too_long_for_its_lifecycle_ends_and_its_steps_stop() -> Result<()> {
    let (mut system, gate) = (System::start().await?, tasker_tests::Gate::new());
    system.add_worker(Worker::builder().settings(worker_settings()).register("gate", gate.clone()))?;
    let source = format!(
        "{}  - {{name: after, dependencies: [only], handler: {{callable: gate}}}}\n",
        single("slow", "gate", "")
    );
    let task = system.begin_new(&source.replace("steps:", "lifecycle: {max_duration_seconds: 3600}\nsteps:")).await?;
    let call = gate.next().await;
    assert_eq!(system.execute("update tasker.timers set due_at = now() where kind = 'deadline'").await?, 1);
    call.context.cancelled().await;
    let ended = system.ended(task).await?;
    assert_eq!(ended.summary.state, TaskState::Error);
    assert!(ended.error.expect("a reason").to_string().contains("lifecycle.max_duration"));
    assert_eq!(system.states(task).await?, "only=cancelled after=cancelled");
    let summary = query::explain(&system.orchestration, task).await?.summary;
    assert!(summary.ends_with("No step of it can run again; `tasker task resolve` settles it."), "{summary}");
    assert!(matches!(operate::retry(&system.orchestration, task, &Action::default()).await, Err(Error::Illegal(_))));
    operate::resolve(&system.orchestration, task, &Action::default()).await?;
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_time_that_a_task_may_last_begins_when_it_was_to_start() -> Result<()> {
    let system = start().await?;
    system
        .apply(&single("slow", "noop", "").replace("steps:", "lifecycle: {max_duration_seconds: 0.5}\nsteps:"))
        .await?;
    let task = by_sql(&system, "'test', 'slow', run_at => now() + interval '1 second'").await?;
    assert_eq!(system.ended(task).await?.summary.state, TaskState::Complete);
    system.finish().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_that_open_a_namespace_at_once_make_one_queue() -> Result<()> {
    let system = start().await?;
    let other = connect(&system.test_database.url, Metrics::disabled()).await?;
    let barrier = Barrier::new(2);
    let open = async |database: &tasker_shared::storage::Database| -> Result<()> {
        barrier.wait().await;
        let mut session = database.begin("open").await?;
        template_rows::open_namespace(&mut session, "fresh").await?;
        session.commit().await?;
        Ok(())
    };
    let (a, b) = tokio::join!(open(&system.database), open(&other));
    a?;
    b?;
    assert_eq!(system.count("select count(*) from pgmq.list_queues() where queue_name = 'worker_fresh'").await?, 1);
    other.pool().close().await;
    system.finish().await
}
