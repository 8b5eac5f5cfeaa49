//! Database and Queues: whether PostgreSQL or a queue is the bottleneck.

use crate::{
    dashboard::Dashboard,
    panel::{Panel, gauge, lines, stacked, stat},
    promql::{both, max, mean, per, quantile, rate, share, sum, top_ten},
};

pub(crate) fn dashboard() -> Dashboard {
    Dashboard::new("tasker-database", "Database and Queues", "Whether PostgreSQL or a queue is the bottleneck.")
        .choose_namespace()
        .section("Queues", queues())
        .section("Connections", connections())
        .section("Transactions and statements", transactions())
        .section("Health of the tables", tables())
}

fn queues() -> Vec<Panel> {
    vec![
        lines("Queue Depth", "Messages that could be read now.").show(sum("queue_depth").by(["queue"])),
        lines(
            "Age of the Oldest Message",
            "Rises when readers do not keep up, or are gone. Alerts at 1 and 5 minutes.",
        )
        .show(max("queue_age_seconds").by(["queue"]))
        .bad_above(60.0, 300.0),
        lines("Messages Sent", "By queue.").show(rate("queue_messages_sent").by(["queue"])),
        lines("Messages Received", "By queue; a message that comes back is received again.")
            .show(rate("queue_messages_received").by(["queue"])),
        lines("Messages Done", "Deleted and archived, by queue.")
            .show_as("deleted", rate("queue_messages_deleted").by(["queue"]))
            .show_as("archived", rate("queue_messages_archived").by(["queue"])),
        lines("Queue Errors", "Queue operations that failed.").show(rate("queue_errors").by(["queue"])),
        lines("Send Latency (P95)", "Sending a batch of messages.")
            .show(quantile(0.95, "queue_message_send_duration").by(["queue"])),
        lines("Receive Latency (P95)", "Reading a batch of messages. Rises when a queue table is bloated.")
            .show(quantile(0.95, "queue_message_receive_duration").by(["queue"])),
    ]
}

fn connections() -> Vec<Panel> {
    let all = both(sum("db_pool_connections_active"), sum("db_pool_connections_idle"));
    vec![
        gauge("Pool in Use", "Which part of the open connections is in use, over all processes.")
            .show(share(sum("db_pool_connections_active"), all))
            .percent()
            .bad_above(0.7, 0.9)
            .width(6),
        stacked("Connections", "Connections of all processes.")
            .show_as("in use", sum("db_pool_connections_active"))
            .show_as("free", sum("db_pool_connections_idle"))
            .width(9),
        lines("Wait for a Connection", "Time until the pool gives a connection. Alerts at 100 ms.")
            .show_as("mean", mean("db_pool_wait_duration"))
            .show_as("P95", quantile(0.95, "db_pool_wait_duration"))
            .bad_above(25.0, 100.0)
            .width(9),
    ]
}

fn transactions() -> Vec<Panel> {
    vec![
        lines("Transactions", "By name.").show(rate("db_transactions").by(["transaction"])),
        lines(
            "Transaction Latency (P95)",
            "By name, retries included. Dots are transactions; click one for its trace.",
        )
        .show(quantile(0.95, "db_transaction_duration").by(["transaction"])),
        lines(
            "Transactions Not Committed",
            "Rolled back, which a loop does that finds nothing to do, or run again because PostgreSQL asked for it.",
        )
        .show(rate("db_transactions").only("outcome", "rolled_back|retried").by(["transaction", "outcome"])),
        stat(
            "Transactions per Step",
            "Database transactions of all kinds for one execution. Falls as the load rises, because \
            stations work on batches.",
        )
        .show(per(rate("db_transactions"), rate("steps_executions")))
        .or("nothing lately")
        .width(12),
        lines("Statements", "The ten most frequent, by name.").show(top_ten(rate("sql_queries").by(["operation"]))),
        lines("Statement Latency (P95)", "The ten slowest, by name.")
            .show(top_ten(quantile(0.95, "sql_query_duration").by(["operation"]))),
        lines("Failing Statements", "By name.")
            .show(rate("sql_queries").only("outcome", "error").by(["operation"]))
            .or("none so far"),
    ]
}

fn tables() -> Vec<Panel> {
    vec![
        lines(
            "Dead Rows",
            "The ten tables with most rows that vacuum has yet to remove. Queue reads slow down with them.",
        )
        .show(top_ten(max("db_dead_tuples").by(["table"]))),
        lines("Since the Last Vacuum", "By table.").show(max("db_last_vacuum_age").by(["table"])),
        lines("Since the Last Analyze", "By table.").show(max("db_last_analyze_age").by(["table"])),
        lines(
            "Oldest Snapshot",
            "A long transaction or a stale replica keeps vacuum from removing anything newer. Alerts \
            at one hour.",
        )
        .show(max("db_oldest_snapshot_age"))
        .bad_above(600.0, 3_600.0),
        lines("Size of Tables", "The ten largest, without indexes.").show(top_ten(max("db_table_size").by(["table"]))),
        lines("Size of Indexes", "The ten largest, by table.").show(top_ten(max("db_index_size").by(["table"]))),
        lines("Removed by Retention", "What was old enough, by kind.").show(rate("retention_pruned").by(["kind"])),
        lines("Retention Turns (P95)", "Time of a turn that removed something; it rests as long.")
            .show(quantile(0.95, "retention_duration"))
            .or("nothing was removed"),
        lines("Retention Overdue", "How far beyond its age the oldest thing is that has to go. Alerts at one hour.")
            .show(max("retention_overdue"))
            .bad_above(600.0, 3_600.0),
        lines("Written Ahead", "Bytes that PostgreSQL writes to its log, for all databases of the server.")
            .show(rate("db_wal")),
        lines("Notification Queue", "How full it is. A listener in a long transaction fills it. Alerts at 50 %.")
            .show(max("db_notification_queue_usage"))
            .percent()
            .bad_above(0.25, 0.5),
    ]
}
