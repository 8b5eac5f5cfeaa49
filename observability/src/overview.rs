//! Task Execution Overview: what comes in, what comes out, and how long it takes.

use crate::{
    dashboard::Dashboard,
    panel::{Panel, lines, stacked, stat, table},
    promql::{increase, of_each_task, quantile, rate, share, sum},
};

pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new(
        "tasker-overview",
        "Task Execution Overview",
        "What comes in, what comes out, and how long it takes.",
    )
    .choose_namespace()
    .choose_task_type()
    .section("In the time shown", totals())
    .section("Flow", flow())
    .section("Time", time())
    .section("Tasks that failed", vec![failed()])
}

fn totals() -> Vec<Panel> {
    vec![
        stat("Requested", "Tasks that were accepted.").show(increase("tasks_requests")),
        stat("Completed", "Tasks that ended well.").show(increase("tasks_completions")),
        stat("Failed", "Tasks that ended in an error.").show(increase("tasks_failures")).bad_above(1.0, 10.0),
        stat("Open", "Tasks that have not ended, of all namespaces.").show(sum("tasks_active")),
    ]
}

fn flow() -> Vec<Panel> {
    vec![
        lines("Task Request Rate", "How many tasks are submitted.").show(rate("tasks_requests").by(["task_type"])),
        lines("Task Completion Rate", "How many tasks end well.").show(rate("tasks_completions").by(["task_type"])),
        stacked(
            "Task Success/Failure Ratio",
            "How many tasks end, well and in an error. The upper area is the failures.",
        )
        .show_as("completed", rate("tasks_completions"))
        .show_as("failed", rate("tasks_failures")),
        lines("Task Failure Share", "Which part of the tasks that end have failed. Alerts at 5 % and 10 %.")
            .show(share(
                rate("tasks_transitions").only("to", "error"),
                rate("tasks_transitions").only("to", "complete|error|cancelled|resolved_manually"),
            ))
            .percent()
            .bad_above(0.05, 0.10),
        lines(
            "Steps Enqueued vs Executed",
            "Both lines are one when the workers keep up; executions exceed enqueued steps \
            where a lease was lost.",
        )
        .show_as("enqueued", rate("steps_enqueued"))
        .show_as("executed", rate("steps_executions")),
        stacked("Tasks by State", "Tasks that have not ended, of all namespaces. `pending` is accepted and not begun.")
            .show(sum("tasks_active").by(["state"])),
    ]
}

fn time() -> Vec<Panel> {
    vec![
        lines("Task Duration", "From the acceptance of a task to its end, delays and retries included.")
            .show_as("P50", quantile(0.5, "task_duration"))
            .show_as("P95", quantile(0.95, "task_duration"))
            .show_as("P99", quantile(0.99, "task_duration")),
        lines("Task Duration by Type (P95)", "Nineteen of twenty tasks of the type are faster.")
            .show(quantile(0.95, "task_duration").by(["task_type"])),
        lines(
            "Task Initialization Latency (P95)",
            "Making the steps of a task from its template. Part of every submission.",
        )
        .show(quantile(0.95, "task_initialization_duration").by(["task_type"])),
        lines("Wait for a Worker (P95)", "How long steps lie on their queue. Rises when there are too few workers.")
            .show(quantile(0.95, "step_queue_wait_duration").by(["namespace"])),
    ]
}

fn failed() -> Panel {
    let about = "The tasks that ended in an error, the newest first. A correlation id leads to the dashboard of that task. Empty \
        where metrics are scraped, because scraped series carry no ids.";
    table("Failed Tasks", about)
        .show(of_each_task("tasks_failures").by(["correlation_id", "namespace", "task_type"]))
        .or("none in this time")
}
