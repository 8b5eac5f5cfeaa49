//! What makes queues in PostgreSQL sick: bloat, old snapshots, a full notification queue.

use futures::future::BoxFuture;
use std::sync::atomic::{AtomicI64, Ordering};
use tasker_shared::{
    metrics::{
        Label, labels,
        probe::{Error, Probe, Scope},
    },
    storage::{Database, vitals},
};

/// The tables of the line and of the queues.
pub(super) struct Tables(pub(super) Database);

impl Probe for Tables {
    fn name(&self) -> &'static str {
        "tables"
    }

    fn scope(&self) -> Scope {
        Scope::System
    }

    fn sample(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            let tables = vitals::tables(&mut self.0.session("probe").await?).await?;
            let label = |table: &vitals::Table| labels::Table { table: Label::from(table.name.clone()) };
            let metrics = self.0.metrics();
            metrics.db_dead_tuples.replace(tables.iter().map(|table| (label(table), table.dead_tuples)));
            metrics.db_table_size.replace(tables.iter().map(|table| (label(table), table.table_size)));
            metrics.db_index_size.replace(tables.iter().map(|table| (label(table), table.index_size)));
            let vacuumed = tables.iter().filter_map(|table| Some((label(table), table.vacuum_age?)));
            metrics.db_last_vacuum_age.replace(vacuumed);
            let analyzed = tables.iter().filter_map(|table| Some((label(table), table.analyze_age?)));
            metrics.db_last_analyze_age.replace(analyzed);
            Ok(())
        })
    }

    fn forget(&self) {
        let metrics = self.0.metrics();
        metrics.db_dead_tuples.clear();
        metrics.db_table_size.clear();
        metrics.db_index_size.clear();
        metrics.db_last_vacuum_age.clear();
        metrics.db_last_analyze_age.clear();
    }
}

/// Where nothing was seen yet.
const UNSEEN: i64 = -1;

/// The server.
pub(super) struct Server {
    database: Database,
    /// How far the log written ahead was when it was seen last.
    wal: AtomicI64,
}

impl Server {
    pub(super) fn new(database: Database) -> Self {
        Self { database, wal: AtomicI64::new(UNSEEN) }
    }
}

impl Probe for Server {
    fn name(&self) -> &'static str {
        "server"
    }

    fn scope(&self) -> Scope {
        Scope::System
    }

    fn sample(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            let server = vitals::server(&mut self.database.session("probe").await?).await?;
            let Some(server) = server else { return Ok(()) };
            let metrics = self.database.metrics();
            metrics.db_oldest_snapshot_age.set(server.snapshot_age, ());
            metrics.db_notification_queue_usage.set(server.notification_usage, ());
            if let Some(now) = server.wal {
                let before = self.wal.swap(now, Ordering::Relaxed);
                let written = if before == UNSEEN { 0 } else { u64::try_from(now - before).unwrap_or(0) };
                metrics.db_wal.add(written, ());
            }
            Ok(())
        })
    }

    fn forget(&self) {
        // what is written while another process samples is counted there
        self.wal.store(UNSEEN, Ordering::Relaxed);
        let metrics = self.database.metrics();
        metrics.db_oldest_snapshot_age.clear();
        metrics.db_notification_queue_usage.clear();
    }
}
