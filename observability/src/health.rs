//! System Health: whether the whole works, and whether its numbers can be trusted.

use crate::{
    dashboard::Dashboard,
    panel::{GREEN, Panel, RED, lines, stacked, stat, table, timeline},
    promql::{increase, max, mean, quantile, rate, raw, share, sum, top_ten},
};

/// When each process was last heard of, in milliseconds since 1970.
const LAST_HEARD: &str = "1000 * max by (host_name, process_pid, process_executable_name, service_version, job, instance) \
    (max_over_time(timestamp(target_info)[$__range:30s]))";

pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new("tasker-health", "System Health", "Whether the whole works, and whether its numbers can be trusted.")
        .choose_namespace()
        .choose_task_type()
        .section("At a glance", glance())
        .section("Work", work())
        .section("HTTP API", http())
        .section("Services", services())
        .section("Telemetry", telemetry())
}

fn glance() -> Vec<Panel> {
    let ended = crate::promql::both(rate("tasks_completions"), rate("tasks_failures"));
    vec![
        stat("Overall Task Success Rate", "Which part of the tasks that end have completed.")
            .show(share(rate("tasks_completions"), ended))
            .percent()
            .good_above(0.90, 0.95)
            .or("nothing lately"),
        stat("Step Failure Rate", "Which part of the executions fail; a failure that is tried again counts.")
            .show(share(rate("steps_failures"), rate("steps_executions")))
            .percent()
            .bad_above(0.05, 0.10)
            .or("nothing lately"),
        stat("Dead Letters", "Parked messages that nobody has dealt with.").show(sum("dlq_size")).bad_above(1.0, 10.0),
        stat("Oldest Message", "How long the oldest message has waited that could be read now.")
            .show(max("queue_age_seconds"))
            .bad_above(30.0, 300.0),
    ]
}

fn work() -> Vec<Panel> {
    vec![
        lines(
            "Average Task End-to-End Duration",
            "The whole, and its parts: making the steps, running one of them, ending \
            the task. What is missing is waiting: on queues, for retries, for other steps.",
        )
        .show_as("whole task", mean("task_duration"))
        .show_as("initialization", mean("task_initialization_duration"))
        .show_as("execution of a step", mean("step_execution_duration"))
        .show_as("wait of a step", mean("step_queue_wait_duration"))
        .show_as("finalization", mean("task_finalization_duration")),
        lines("Result Processing Latency", "Evaluating a result: the share of its transaction.")
            .show_as("mean", mean("step_result_processing_duration"))
            .show_as("P95", quantile(0.95, "step_result_processing_duration")),
        stacked("Active Operations: Tasks", "Tasks that have not ended.").show(sum("tasks_active").by(["state"])),
        stacked("Active Operations: Steps", "Steps that are being executed.")
            .show(sum("steps_active_executions").by(["namespace"])),
        lines("Results Processed", "By what became of the execution.")
            .show(rate("step_results_processed").by(["result_type"])),
        lines("Steps by Transition", "State changes of steps, once they are durable: the ten most frequent.")
            .show(top_ten(rate("steps_transitions").by(["from", "to"]))),
    ]
}

fn http() -> Vec<Panel> {
    let failed = rate("http_server_request_duration").only("http.response.status_code", "5..");
    vec![
        stacked("Requests by Status", "Answered requests.")
            .show(rate("http_server_request_duration").by(["http.response.status_code"]))
            .unit("reqps"),
        lines("Request Latency by Route (P95)", "Alerts at 5 seconds.")
            .show(quantile(0.95, "http_server_request_duration").by(["http.request.method", "http.route"]))
            .bad_above(1.0, 5.0),
        lines("Requests in Progress", "By method.")
            .show(sum("http_server_active_requests").by(["http.request.method"])),
        lines("Failing Requests", "Which part of the requests is answered with 5xx.")
            .show(share(failed, rate("http_server_request_duration")))
            .percent()
            .bad_above(0.01, 0.05),
        stacked("Access", "Requests at the gate: accepted, or turned away because the caller is unknown or may not.")
            .show(rate("access_decisions").by(["outcome", "credential"]))
            .unit("reqps"),
    ]
}

fn services() -> Vec<Panel> {
    vec![
        timeline("Dependencies", "What the services cannot work without, as each of them sees it.")
            .show(max("health_dependency_up").by(["dependency"]).of_each_process())
            .words(&[(0, "down", RED), (1, "up", GREEN)]),
        lines(
            "Running Processes",
            "Processes that report, by service. A line that falls is a process that is gone; where metrics are sent, it falls \
            five minutes later.",
        )
            .show(raw("count by (job) (target_info)", &["job"], "short")),
        table(
            "Processes",
            "Every process that reported in the time shown: its machine, its number there, its program, and when it was last heard of. A worker \
            is called after host and number, unless it was given a name.",
        )
        .show(raw(
            LAST_HEARD,
            &["host_name", "process_pid", "process_executable_name", "service_version", "job", "instance"],
            "dateTimeFromNow",
        ))
        .number("last heard of"),
        lines("Health Checks", "Checks by what they found.").show(rate("health_checks").by(["component", "status"])),
        lines("Health Check Latency (P95)", "A slow check of the database tells of a slow database.")
            .show(quantile(0.95, "health_check_duration").by(["component"])),
        lines(
            "Runtime",
            "Tasks of the asynchronous runtime. Queued ones wait for a thread: if they stay, something blocks.",
        )
        .show_as("alive", sum("runtime_tasks_alive").of_each_process())
        .show_as("queued", sum("runtime_tasks_queued").of_each_process())
        .show_as("threads", sum("runtime_threads").of_each_process()),
        lines("Loop Turns", "Turns of the loops in which all work is done. `error` turns are logged.")
            .show(rate("runtime_loop_runs").by(["loop", "outcome"])),
        lines("Loop Turns in Progress", "A loop that stays at one and has no turns is stuck.")
            .show(sum("runtime_loops_in_flight").by(["loop"])),
        lines(
            "Notifications",
            "What wakes other processes. One that fails costs time: they find the work when they poll.",
        )
        .show_as("sent", rate("notifications_sent").by(["channel"]))
        .show_as("failed", rate("notifications_failed").by(["channel"])),
        lines("Notification Delivery (P95)", "From a process through PostgreSQL and back to it.")
            .show(quantile(0.95, "notifications_delivery_duration").by(["channel"])),
    ]
}

fn telemetry() -> Vec<Panel> {
    vec![
        stat("Export Failures", "Exports that failed in the time shown.")
            .show(increase("telemetry_export_failures"))
            .bad_above(1.0, 10.0),
        stat("Overflow", "Series counted without their correlation id in the time shown. Sums stay exact.")
            .show(increase("telemetry_overflow"))
            .bad_above(1.0, 10_000.0),
        lines("Series", "Series that a process holds for export. Bounded by the configuration.")
            .show(max("telemetry_series").of_each_process())
            .width(12),
        lines("Export Failures by Signal", "A failed export is sent again; metrics lose nothing.")
            .show(rate("telemetry_export_failures").by(["signal"])),
    ]
}
