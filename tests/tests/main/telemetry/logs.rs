//! What the services log: an error once, with the ids that lead to its trace.

use crate::stage::Stage;
use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tasker_shared::task::TaskState;

/// One step that fails twice.
const FAILS: &str = "
name: fails
namespace_name: stage
version: 1.0.0
steps:
  - name: only
    retry: {max_attempts: 2, backoff: none}
    handler: {callable: command, initialization: {argv: [sh, -c, 'echo the shop is shut >&2; exit 1']}}
";

/// Runs the task on a worker with this format of logs; answers with its correlation id, its id, and what the worker wrote.
/// The orchestration has no error to tell of.
async fn lines_of_a_failing_task(format: &str) -> Result<(String, String, String)> {
    let settings = [
        ("TASKER__TELEMETRY__LOGS__FORMAT", format),
        ("TASKER__WORKER__COMMAND__ENABLED", "true"),
        ("TASKER__WORKER__COMMAND__ALLOWED_PROGRAMS", "*"),
    ];
    let stage = Stage::start().await?;
    let mut worker = stage.worker(&settings)?;
    stage.apply(FAILS).await?;
    let task = stage.submit("fails", json!({})).await?;
    let ended = stage.ended(task).await?.summary;
    assert_eq!(ended.state, TaskState::Error);
    worker.drain().await?;
    let told = worker.text();
    assert_eq!(errors(&stage.orchestration.text()), Vec::<&str>::new());
    stage.finish().await?;
    Ok((ended.correlation_id.to_string(), task.to_string(), told))
}

fn errors(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failed_attempt_is_one_line_of_json_with_the_ids_of_its_span() -> Result<()> {
    let (correlation_id, task_id, told) = lines_of_a_failing_task("json").await?;
    let parsed: Vec<Value> =
        told.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect::<Result<_>>()?;
    let errors: Vec<&Value> =
        parsed.iter().filter(|line| ["WARN", "ERROR"].contains(&line["level"].as_str().unwrap_or_default())).collect();
    assert_eq!(errors.len(), 2, "one for each attempt: {errors:#?}");
    for (line, attempt) in errors.iter().zip(1..) {
        assert_eq!((&line["message"], &line["attempt"]), (&json!("a step failed"), &json!(attempt)));
        assert!(line["error"].as_str().is_some_and(|error| error.contains("the shop is shut")), "{line}");
        assert_eq!(
            (&line["error_type"], &line["namespace"], &line["task.name"]),
            (&json!("handler_error"), &json!("stage"), &json!("fails"))
        );
        assert_eq!(
            (&line["correlation_id"], &line["task.id"], &line["step.name"]),
            (&json!(correlation_id), &json!(task_id), &json!("only"))
        );
        assert_eq!(line["trace_id"], json!(correlation_id.replace('-', "")));
        assert!(line["span_id"].as_str().is_some_and(|id| id.len() == 16) && line["step.id"].is_string(), "{line}");
    }
    assert_ne!(errors[0]["span_id"], errors[1]["span_id"], "each attempt has its span");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_failed_attempt_is_one_line_of_text_with_the_ids() -> Result<()> {
    let (correlation_id, task_id, told) = lines_of_a_failing_task("text").await?;
    let errors = errors(&told);
    assert_eq!(errors.len(), 2, "one for each attempt: {errors:#?}");
    let trace_id = correlation_id.replace('-', "");
    for line in &errors {
        let ids = [
            format!("correlation_id={correlation_id}"),
            format!("task.id={task_id}"),
            "step.name=only".to_owned(),
            format!("trace_id={trace_id}"),
        ];
        assert!(line.contains("a step failed") && line.contains("the shop is shut"), "{line}");
        assert!(ids.iter().all(|id| line.contains(id)), "{line}");
    }
    let spans: Vec<_> = errors.iter().map(|line| line.split_once("span_id=").map(|(_, id)| id)).collect();
    assert!(spans[0].is_some_and(|id| id.len() == 16) && spans[0] != spans[1], "each attempt has its span: {spans:?}");
    Ok(())
}
