//! Resilience: what gives way under pressure, and what is tried again.

use crate::{
    dashboard::Dashboard,
    panel::{Panel, gauge, lines, stat},
    promql::{increase, max, rate, sum},
};

pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new("tasker-resilience", "Resilience", "What gives way under pressure, and what is tried again.")
        .choose_namespace()
        .section("Channels", channels())
        .section("Work that comes back", repeated())
        .section("Limits", limits())
        .section("Dead letters", dead())
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
            .show_as("exhausted", rate("steps_retries_exhausted").by(["error_type"])),
        lines("Messages Read Again", "An earlier reader did not finish with them.")
            .show(rate("queue_retry_attempts").by(["queue"])),
        lines(
            "Visibility Timeouts",
            "Messages that came back because nobody finished with them in time: a worker died, or \
            a lease is too short.",
        )
        .show(rate("queue_visibility_timeouts").by(["queue"])),
        lines("Lost Heartbeats", "Heartbeats that could not be stored. A worker without them loses its leases.")
            .show(rate("worker_heartbeat_failures").by(["instance"])),
        lines("Transactions Run Again", "PostgreSQL asked for it: two transactions were in each other's way.")
            .show(rate("db_transactions").only("outcome", "retried").by(["transaction"])),
        lines(
            "Failing Loop Turns",
            "Turns of the services' loops that ended in an error. They run again by themselves.",
        )
        .show(rate("runtime_loop_runs").only("outcome", "error").by(["loop"])),
    ]
}

fn limits() -> Vec<Panel> {
    vec![
        lines("Permits Used", "Steps that run and count against a limit.")
            .show(sum("concurrency_permits_used").by(["namespace", "scope"])),
        lines("Permits", "How many steps may run at once.").show(sum("concurrency_permits").by(["namespace", "scope"])),
        lines("Set Aside", "Steps that found no permit; they come back when one is free.")
            .show(rate("concurrency_rejections").by(["namespace"])),
        lines("Stalls", "Steps that stood still and were enqueued again.")
            .show(rate("steps_stalls").by(["namespace", "kind"])),
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
