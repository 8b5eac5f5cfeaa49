//! Resilience: what gives way under pressure, and what is tried again.

use crate::{
    dashboard::Dashboard,
    panel::{GREEN, Panel, RED, YELLOW, gauge, lines, stat, timeline},
    promql::{increase, max, quantile, rate, sum},
};

pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new("tasker-resilience", "Resilience", "What gives way under pressure, and what is tried again.")
        .choose_namespace()
        .section("Circuit breakers", breakers())
        .section("Channels", channels())
        .section("Rate limits", limits())
        .section("Work that comes back", repeated())
        .section("Limits on what runs at once", permits())
        .section("Dead letters", dead())
}

/// What the numbers of a breaker's state mean.
const STATES: [(i64, &str, &str); 3] = [(0, "closed", GREEN), (1, "half-open", YELLOW), (2, "open", RED)];

fn breakers() -> Vec<Panel> {
    vec![
        timeline(
            "Circuit Breaker State Timeline",
            "Between the HTTP API and the database. Open: requests are refused at once.",
        )
        .show_as("API", max("api_circuit_breaker_state").of_each_process())
        .words(&STATES),
        timeline("Circuit Breakers by Component", "While one is open, what it watches is left alone; nothing is lost.")
            .show(max("tasker_circuit_breaker_state").by(["component"]).of_each_process())
            .words(&STATES),
        lines("Requests Rejected", "By the open breaker, and for want of a place to serve them.")
            .show_as("breaker open", rate("api_requests_rejected").by(["endpoint"]))
            .show_as("too many at once", rate("api_requests_shed").by(["endpoint"]))
            .or("none so far"),
        lines(
            "FFI Completion Health",
            "How handlers that are not Rust hand back their outcomes. Alerts at 10 slow sends a second.",
        )
        .show_as("slow sends", rate("ffi_completion_slow_sends"))
        .show_as("handlers not started", rate("ffi_completion_circuit_open_rejections")),
        lines(
            "Claims Held Back",
            "Times that a worker stopped claiming: its outcomes pile up, or it has too much in memory.",
        )
        .show(rate("worker_claims_held_back").by(["reason"]).of_each_process()),
    ]
}

fn limits() -> Vec<Panel> {
    vec![
        lines("Requests by Rate Limit", "What the limits of clients let pass and refused, where there are limits.")
            .show(rate("rate_limit_requests").by(["endpoint", "outcome"]))
            .or("no limits"),
        lines("Time of the Check", "How long the decision about a request takes.")
            .show_as("P95", quantile(0.95, "rate_limit_check_duration"))
            .or("no limits"),
    ]
}

fn channels() -> Vec<Panel> {
    vec![
        gauge("Channel Saturation Overview", "The fullest bounded channel. Alerts at 80 % and 90 %.")
            .show(max("mpsc_channel_usage_percent"))
            .of_100()
            .bad_above(70.0, 90.0)
            .width(6),
        stat("Backpressure Events", "Sends that found a channel full in the time shown.")
            .show(increase("mpsc_channel_full_events"))
            .bad_above(1.0, 100.0),
        lines("Channel Usage", "How full each bounded channel is.")
            .show(max("mpsc_channel_usage_percent").by(["component", "channel"]))
            .of_100()
            .bad_above(70.0, 90.0),
        lines("Backpressure Events by Channel", "A channel that is full makes its senders wait; nothing is lost.")
            .show(rate("mpsc_channel_full_events").by(["component", "channel"])),
        lines("Channel Capacity", "How much each bounded channel holds.")
            .show(max("mpsc_channel_capacity").by(["component", "channel"])),
    ]
}

fn repeated() -> Vec<Panel> {
    vec![
        lines("Retries of Steps", "Failures that are tried again, and those that had no attempt left.")
            .show_as("retried", rate("steps_retries").by(["error_type"]))
            .show_as("exhausted", rate("steps_retries_exhausted").by(["error_type"]))
            .or("none so far"),
        lines("Messages Read Again", "An earlier reader did not finish with them.")
            .show(rate("queue_retry_attempts").by(["queue"])),
        lines(
            "Visibility Timeouts",
            "Messages that came back because nobody finished with them in time: a worker died, or \
            a lease is too short.",
        )
        .show(rate("queue_visibility_timeouts").by(["queue"])),
        lines("Lost Heartbeats", "Heartbeats that could not be stored. A worker without them loses its leases.")
            .show(rate("worker_heartbeat_failures").of_each_process()),
        lines("Transactions Run Again", "PostgreSQL asked for it: two transactions were in each other's way.")
            .show(rate("db_transactions").only("outcome", "retried").by(["transaction"]))
            .or("none so far"),
        lines(
            "Failing Loop Turns",
            "Turns of the services' loops that ended in an error. They run again by themselves.",
        )
        .show(rate("runtime_loop_runs").only("outcome", "error").by(["loop"]))
        .or("none so far"),
    ]
}

fn permits() -> Vec<Panel> {
    vec![
        lines("Permits Used", "Steps that run and count against a limit.")
            .show(sum("concurrency_permits_used").by(["namespace", "scope"]))
            .or("no limits"),
        lines("Permits", "How many steps may run at once.")
            .show(sum("concurrency_permits").by(["namespace", "scope"]))
            .or("no limits"),
        lines("Set Aside", "Steps that found no permit; they come back when one is free.")
            .show(rate("concurrency_rejections").by(["namespace"]))
            .or("none so far"),
        lines("Stalls", "Steps that stood still and were enqueued again.")
            .show(rate("steps_stalls").by(["namespace", "kind"]))
            .or("none so far"),
    ]
}

fn dead() -> Vec<Panel> {
    vec![
        stat("Unresolved", "Parked messages that nobody has dealt with.").show(sum("dlq_size")).bad_above(1.0, 10.0),
        stat("Parked", "Messages parked in the time shown.").show(increase("dlq_messages")).bad_above(1.0, 10.0),
        lines("Parked by Reason", "Messages that were put aside.").show(rate("dlq_messages").by(["reason"])),
        lines("Redriven by Reason", "Messages and steps that were put back.").show(rate("dlq_redrives").by(["reason"])),
    ]
}
