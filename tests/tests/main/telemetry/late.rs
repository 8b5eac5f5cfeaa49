//! Traces that are decided late: a failure in one process sends what all processes know of the task.

use super::receiver::Receiver;
use crate::stage::Stage;
use anyhow::Result;
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::json;
use std::collections::BTreeSet;
use tasker_shared::{task::TaskState, telemetry::settings::Protocol};
use tasker_tests::system::eventually;

/// `second` fails at once where the input says so.
const TEMPLATE: &str = "
name: late
namespace_name: stage
version: 1.0.0
steps:
  - {name: first, handler: {callable: noop}}
  - name: second
    dependencies: [first]
    retry: {retryable: false}
    handler: {callable: command, initialization: {argv: [\"test\", \"{{ input.word }}\", \"=\", \"well\"], output: text}}
";

/// The names of the spans of a task whose parents are not among its spans.
fn roots<'a>(spans: &'a [Span], trace: &[u8]) -> Vec<&'a str> {
    let of_task = || spans.iter().filter(|span| span.trace_id == trace);
    let ids: BTreeSet<&[u8]> = of_task().map(|span| span.span_id.as_slice()).collect();
    of_task().filter(|span| !ids.contains(span.parent_span_id.as_slice())).map(|span| span.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_tasks_trace_is_sent_whole_by_both_services_and_no_other_is() -> Result<()> {
    let receiver = Receiver::default();
    let endpoint = receiver.listen(Protocol::Grpc).await?;
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("TASKER__TELEMETRY__OPENTELEMETRY__BATCH_DELAY_MS", "20"),
        ("TASKER__TELEMETRY__SAMPLE_RATE", "0.0"),
        ("TASKER__TELEMETRY__FAILED_SAMPLE_RATE", "1.0"),
        ("TASKER__WORKER__COMMAND__ENABLED", "true"),
        ("TASKER__WORKER__COMMAND__ALLOWED_PROGRAMS", "*"),
    ];
    let stage = Stage::start_with(&settings).await?;
    let mut worker = stage.worker(&settings)?;
    stage.apply(TEMPLATE).await?;
    for word in ["well", "well", "badly", "well"] {
        let task = stage.submit("late", json!({ "word": word })).await?;
        let ended = stage.ended(task).await?.summary;
        assert_eq!(ended.state == TaskState::Error, word == "badly", "{word}");
        if word == "badly" {
            let trace = ended.correlation_id.0.as_bytes().to_vec();
            let whole = async || {
                let spans = receiver.spans();
                let names: BTreeSet<&str> =
                    spans.iter().filter(|span| span.trace_id == trace).map(|span| span.name.as_str()).collect();
                let expected = ["submit", "initialize", "enqueue", "claim", "execute", "report", "process", "finalize"];
                Ok(expected.iter().all(|name| names.contains(name)) && roots(&spans, &trace) == ["submit"])
            };
            eventually("the whole trace arrives", whole).await?;
        }
    }
    worker.drain().await?;
    stage.finish().await?;
    let traces: BTreeSet<Vec<u8>> = receiver.spans().into_iter().map(|span| span.trace_id).collect();
    assert_eq!(traces.len(), 1, "the tasks that went well leave no trace");
    Ok(())
}
