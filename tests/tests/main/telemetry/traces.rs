//! One task is one trace: whole, in the order of the stations, with the caller's span above it.

use super::rig::Rig;
use anyhow::Result;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use tasker_orchestration::submit;
use tasker_shared::{api::SubmitTask, telemetry::settings::Protocol};
use tasker_tests::{
    system::worker_settings,
    templates::{NAMESPACE, diamond},
};
use tasker_worker::{HandlerError, StepContext, Worker, handler::handler_fn};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

/// Step `b` fails once.
async fn once(context: StepContext) -> Result<Value, HandlerError> {
    if &*context.step_name == "b" && context.attempt == 1 {
        return Err(HandlerError::retry("the first time is hard"));
    }
    Ok(json!(1))
}

fn attribute(span: &Span, key: &str) -> String {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let value = span.attributes.iter().find(|attribute| attribute.key == key);
    match value.and_then(|attribute| attribute.value.as_ref()).and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The stations of one attempt of a step, each by its name.
fn attempt<'a>(spans: &'a [Span], step: &str, attempt: i64) -> BTreeMap<&'a str, &'a Span> {
    let of = |span: &&Span| {
        let before = i64::from(span.name == "enqueue");
        attribute(span, "step.name") == step && attribute(span, "tasker.attempt") == (attempt - before).to_string()
    };
    spans.iter().filter(of).map(|span| (span.name.as_str(), span)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_diamond_is_one_tree_under_the_callers_span_with_links_at_the_join() -> Result<()> {
    let mut rig = Rig::start(Protocol::Grpc, |_| {}).await?;
    rig.system.add_worker(Worker::builder().settings(worker_settings()).register("once", handler_fn(once)))?;
    rig.system.apply(&diamond("once")).await?;
    let asked = SubmitTask {
        namespace: NAMESPACE.to_owned(),
        name: "diamond".to_owned(),
        input: json!({}),
        traceparent: Some(format!("00-{TRACE}-{CALLER}-01")),
        ..SubmitTask::default()
    };
    let submitted = submit::submit(&rig.system.orchestration, vec![asked]).await?.remove(0)?;
    rig.system.ended(submitted.task_id).await?;
    let spans = rig.finish().await?.receiver.spans();

    assert_eq!(submitted.correlation_id.to_string().replace('-', ""), TRACE);
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "one trace, named by the correlation id");
    let ids: BTreeSet<&[u8]> = spans.iter().map(|span| span.span_id.as_slice()).collect();
    assert_eq!(ids.len(), spans.len(), "every span has an id of its own");
    let roots: Vec<&Span> = spans.iter().filter(|span| !ids.contains(span.parent_span_id.as_slice())).collect();
    let roots: Vec<(&str, String)> = roots.iter().map(|s| (s.name.as_str(), hex(&s.parent_span_id))).collect();
    assert_eq!(roots, [("submit", CALLER.to_owned())], "the caller's span is above submit, and every parent exists");

    let by_id: BTreeMap<&[u8], &Span> = spans.iter().map(|span| (span.span_id.as_slice(), span)).collect();
    let line = |span: &Span| {
        let mut above = Vec::new();
        let mut at = span;
        while let Some(parent) = by_id.get(at.parent_span_id.as_slice()) {
            above.push(parent.name.as_str());
            at = parent;
        }
        above.reverse();
        above.join(" ")
    };
    let finalize = spans.iter().find(|span| span.name == "finalize").expect("the task is finalized");
    let way = line(finalize);
    assert!(way.starts_with("submit initialize enqueue claim execute report process enqueue claim"), "{way}");
    assert!(way.ends_with("enqueue claim execute report process"), "{way}");

    for (step, attempts) in [("a", 1), ("b", 2), ("c", 1), ("d", 1)] {
        for number in 1..=attempts {
            let stations = attempt(&spans, step, number);
            let names: Vec<&str> = stations.keys().copied().collect();
            let expected = ["claim", "enqueue", "execute", "process", "queue_wait", "report"];
            assert_eq!(names, expected, "{step}, attempt {number}");
            for (before, after) in [("claim", "execute"), ("execute", "report"), ("report", "process")] {
                assert_eq!(stations[after].parent_span_id, stations[before].span_id, "{before} > {after}");
                let (earlier, later) = (stations[before].start_time_unix_nano, stations[after].end_time_unix_nano);
                assert!(earlier <= later, "{before} begins before {after} ends");
            }
        }
    }
    let failed = attempt(&spans, "b", 1)["execute"];
    assert_eq!(failed.status.as_ref().map(|status| status.code()), Some(StatusCode::Error));
    assert_eq!(failed.events.iter().map(|event| event.name.as_str()).collect::<Vec<_>>(), ["exception"]);
    let repeated = attempt(&spans, "b", 2)["execute"];
    assert!(repeated.status.as_ref().is_none_or(|status| status.code() == StatusCode::Unset));
    assert_ne!(failed.span_id, repeated.span_id);

    let join: BTreeSet<&[u8]> =
        attempt(&spans, "d", 1)["claim"].links.iter().map(|link| link.span_id.as_slice()).collect();
    let parents = [attempt(&spans, "b", 2)["process"], attempt(&spans, "c", 1)["process"]];
    assert_eq!(join, parents.iter().map(|span| span.span_id.as_slice()).collect());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_writes_its_transaction_once_and_the_other_tasks_link_to_it() -> Result<()> {
    const TASKS: usize = 3;
    let mut rig = Rig::start(Protocol::Grpc, |_| {}).await?;
    rig.system.apply(&diamond("noop")).await?;
    let task = || SubmitTask { namespace: NAMESPACE.to_owned(), name: "diamond".to_owned(), ..SubmitTask::default() };
    let answers = submit::submit(&rig.system.orchestration, vec![task(), task(), task()]).await?;
    rig.system.add_worker(Worker::builder().settings(worker_settings()).register("noop", handler_fn(once)))?;
    for answer in answers {
        rig.system.ended(answer?.task_id).await?;
    }
    let spans = rig.finish().await?.receiver.spans();
    let by_id: BTreeMap<&[u8], &Span> = spans.iter().map(|span| (span.span_id.as_slice(), span)).collect();
    assert_eq!(by_id.len(), spans.len(), "every span has an id of its own");
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let parent = |span: &Span| by_id.get(span.parent_span_id.as_slice()).copied();

    let transactions = named("transaction");
    for transaction in &transactions {
        let station = parent(transaction).expect("a station made it");
        assert_eq!(station.trace_id, transaction.trace_id);
        assert!(
            ["submit", "process", "enqueue", "claim", "report"].contains(&station.name.as_str()),
            "{}",
            station.name
        );
    }
    let submits = named("submit");
    let of_submit: Vec<&&Span> =
        transactions.iter().filter(|span| attribute(span, "db.operation.name") == "submit").collect();
    assert_eq!((submits.len(), of_submit.len()), (TASKS, 1), "three tasks, one transaction");
    let linked = submits.iter().filter(|span| span.links.iter().any(|link| link.span_id == of_submit[0].span_id));
    assert_eq!(linked.count(), TASKS - 1, "the tasks in whose trace it is not link to it");

    let messages = |operation: &str, queue: &str| {
        let of_queue =
            named(operation).into_iter().filter(|span| attribute(span, "messaging.destination.name") == queue);
        let counts = of_queue.map(|span| {
            assert_eq!(parent(span).map(|span| span.name.as_str()), Some("transaction"), "{operation} of {queue}");
            attribute(span, "messaging.batch.message_count").parse::<usize>().unwrap_or(0)
        });
        counts.sum::<usize>()
    };
    // step `b` of each task runs twice
    let attempts = TASKS * 5;
    for operation in ["send", "receive", "settle"] {
        for queue in ["worker_test", "step_results"] {
            let once_more = if (operation, queue) == ("send", "worker_test") { TASKS } else { 0 };
            let found = messages(operation, queue);
            assert!(found == attempts || found == attempts - once_more, "{operation} of {queue}: {found}");
        }
    }
    Ok(())
}
