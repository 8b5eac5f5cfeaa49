//! One Task: what one task did, found by its correlation id.

use crate::{
    dashboard::Dashboard,
    panel::{Panel, logs, stat, table, trace},
    promql::{task_longest, task_mean, task_total},
};
use serde_json::{Value, json};

pub(crate) fn dashboard() -> Dashboard {
    let about = "What one task did. The correlation id is printed by `tasker task show`; any can be typed. Numbers are \
        there for the most recent tasks, the trace and the logs for as long as they are kept.";
    Dashboard::new("tasker-task", "One Task", about)
        .variable(correlation_id())
        .variable(trace_id())
        .section("1 → N → N → N → N → N → 1", flow())
        .section("Time and failures", time())
        .section(
            "Trace",
            vec![trace("Trace", "One span for each station and each attempt. A log icon leads to the logs.")],
        )
        .section(
            "Logs",
            vec![logs(
                "Logs",
                "What the services said about the task; needs `telemetry.logs.otlp`.",
                "{service_name=~\".+\"} | trace_id=\"${trace_id}\"",
            )],
        )
}

fn flow() -> Vec<Panel> {
    let step = |title, about, field| stat(title, about).show(task_total(field)).width(3);
    vec![
        step("1. Requested", "1 once the task is accepted.", "tasks_requests"),
        step("2. Enqueued", "N, the number of steps; more where steps were retried.", "steps_enqueued"),
        step("3. Executed", "N; more where steps were retried or a lease was lost.", "steps_executions"),
        step("4. Succeeded", "N when every step has ended well.", "steps_successes"),
        step("5. Submitted", "One result for each execution.", "steps_results_submitted"),
        step("6. Processed", "One evaluation for each result.", "step_results_processed"),
        step("7. Completed", "1 once the task has ended well.", "tasks_completions"),
        step("Failed", "1 once the task has ended in an error.", "tasks_failures").bad_above(1.0, 1.0),
    ]
}

fn time() -> Vec<Panel> {
    let quarter = |panel: Panel| panel.width(6);
    vec![
        quarter(stat("Initialization", "Making its steps.").show(task_mean("task_initialization_duration"))),
        quarter(
            stat("Mean Execution", "Time inside the handler, for one execution.")
                .show(task_mean("step_execution_duration")),
        ),
        quarter(
            stat(
                "Longest Execution",
                "At most so long: the bound of its bucket. The trace has the exact time of each.",
            )
            .show(task_longest("step_execution_duration")),
        ),
        quarter(stat("Finalization", "Ending the task.").show(task_mean("task_finalization_duration"))),
        table("Steps", "How often each step was put on a queue; more than once is a retry.")
            .show(task_total("steps_enqueued").by(["namespace", "step_name"]))
            .width(12),
        table("Failures", "What went wrong, and how often. The trace has which step, and its error.")
            .show(task_total("steps_failures").by(["namespace", "error_type"]))
            .or("none")
            .width(12),
    ]
}

fn correlation_id() -> Value {
    let query = "label_values(tasker_tasks_requests_total, correlation_id)";
    json!({
        "name": "correlation_id", "label": "Correlation id", "type": "query", "query": query, "definition": query,
        "datasource": { "type": "prometheus", "uid": "prometheus" },
        "multi": false, "includeAll": false, "refresh": 2, "sort": 2, "regex": "/.+-.+/", "hide": 0, "options": [],
    })
}

/// The correlation id without its hyphens, for the trace: Prometheus computes it, because Grafana cannot.
fn trace_id() -> Value {
    let query = "query_result(label_replace(label_replace(vector(0), \"id\", \"$correlation_id\", \"\", \"\"), \
        \"trace_id\", \"${1}${2}${3}${4}${5}\", \"id\", \"(.+)-(.+)-(.+)-(.+)-(.+)\"))";
    json!({
        "name": "trace_id", "label": "Trace id", "type": "query", "query": query, "definition": query,
        "datasource": { "type": "prometheus", "uid": "prometheus" },
        "multi": false, "includeAll": false, "refresh": 2, "sort": 0, "regex": "/trace_id=\"([0-9a-f]+)\"/", "hide": 2,
        "options": [],
    })
}
