//! Worker Performance: what the workers run, how fast, and what goes wrong in it.

use crate::{
    dashboard::Dashboard,
    panel::{Panel, gauge, lines, logs, pie, stacked, stat},
    promql::{increase, mean, quantile, rate, share, sum},
};

/// The log lines of failed attempts, as a sentence each.
const FAILED_ATTEMPTS: &str = "{service_name=~\".+\"} |= \"a step failed\" | namespace=~\"$namespace\" \
    | line_format \"{{.namespace}}/{{.task_name}}, step {{.step_name}}, attempt {{.attempt}} of {{.max_attempts}}: \
    {{.error_type}}: {{.error}}\"";

pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new("tasker-workers", "Worker Performance", "What the workers run, how fast, and what goes wrong in it.")
        .choose_namespace()
        .section("Workers", workers())
        .section("Execution", execution())
        .section("Failures", failures())
        .section("Claim and report", line())
        .section("Programs", programs())
}

fn workers() -> Vec<Panel> {
    vec![
        stat("Workers", "Workers whose heartbeat is fresh, the largest count of a namespace.")
            .show(crate::promql::max("workers_live"))
            .good_above(1.0, 1.0),
        stat("Running Steps", "Steps that are being executed now.").show(sum("steps_active_executions")),
        stat("Waiting Steps", "Steps that wait for a worker.").show(sum("steps_ready")),
        stat("Lost Heartbeats", "Heartbeats that could not be stored in the time shown.")
            .show(increase("worker_heartbeat_failures"))
            .bad_above(1.0, 10.0),
        lines("Live Workers by Namespace", "Zero where steps wait means that nobody serves the namespace.")
            .show(sum("workers_live").by(["namespace"])),
        lines(
            "Running Steps by Worker",
            "A worker that runs nothing while steps wait is stuck or serves other namespaces. One that died stays for five \
            minutes where metrics are sent.",
        )
        .show(sum("steps_active_executions").of_each_process()),
    ]
}

fn execution() -> Vec<Panel> {
    vec![
        lines("Step Execution Throughput by Namespace", "How many steps begin to run.")
            .show(rate("steps_executions").by(["namespace"])),
        gauge("Step Success Rate", "Which part of the executions end well.")
            .show(share(rate("steps_successes"), rate("steps_executions")))
            .percent()
            .good_above(0.9, 0.95)
            .or("nothing lately"),
        lines(
            "Step Execution Latency Percentiles",
            "Time inside the handlers. Dots are executions; click one for its trace.",
        )
        .show_as("P50", quantile(0.5, "step_execution_duration"))
        .show_as("P95", quantile(0.95, "step_execution_duration"))
        .show_as("P99", quantile(0.99, "step_execution_duration")),
        lines("Step Execution Latency by Namespace (P95)", "Time inside the handlers.")
            .show(quantile(0.95, "step_execution_duration").by(["namespace"])),
        stacked("Running Steps", "Steps that are being executed, by what runs them.")
            .show(sum("steps_active_executions").by(["namespace", "handler_type"])),
        lines("Wait for a Worker by Priority (P95)", "Steps of urgent tasks wait less.")
            .show(quantile(0.95, "step_queue_wait_duration").by(["priority"])),
        lines("Waiting Steps by Namespace", "Steps on the queues. They grow where the workers do not keep up.")
            .show(sum("steps_ready").by(["namespace"])),
    ]
}

fn failures() -> Vec<Panel> {
    vec![
        pie("Error Distribution by Type", "What the failures of the time shown were.")
            .show(increase("steps_failures").by(["error_type"]))
            .or("none in this time"),
        stacked("Failures by Type", "Failed executions.")
            .show(rate("steps_failures").by(["error_type"]))
            .or("none so far"),
        lines("Retries", "Failures that are tried again.")
            .show(rate("steps_retries").by(["namespace", "error_type"]))
            .or("none so far"),
        lines("Retries Exhausted", "Steps that failed for good after their last attempt.")
            .show(rate("steps_retries_exhausted").by(["namespace", "error_type"]))
            .or("none so far"),
        logs("Failed Attempts", "Which step failed, and with what; needs `telemetry.logs.otlp`.", FAILED_ATTEMPTS),
    ]
}

fn line() -> Vec<Panel> {
    vec![
        lines("Step Claiming Performance (Event vs Poll)", "The share of the claiming transaction, P95.")
            .show(quantile(0.95, "step_claim_duration").by(["claim_method"])),
        stacked(
            "Claims (Event vs Poll)",
            "`event`: a notification woke the worker. `poll`: the timer did. Polls under load \
            are normal; polls only, with long waits, mean that notifications do not arrive.",
        )
        .show(rate("steps_claimed").by(["claim_method"])),
        lines("Result Submission Latency", "Storing a result and handing it to the orchestration.")
            .show_as("mean", mean("step_result_submission_duration"))
            .show_as("P95", quantile(0.95, "step_result_submission_duration")),
        lines("Results Submitted", "By what became of the execution.")
            .show(rate("steps_results_submitted").by(["result_type"])),
    ]
}

fn programs() -> Vec<Panel> {
    vec![
        lines("Memory of Programs (P95)", "Largest resident memory of programs that ran as `command` handlers.")
            .show(quantile(0.95, "command_memory").by(["namespace"])),
        lines("Processor Time of Programs (P95)", "Processor time of programs that ran as `command` handlers.")
            .show(quantile(0.95, "command_cpu_time").by(["namespace"])),
    ]
}
