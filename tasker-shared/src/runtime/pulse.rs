//! What each process tells of itself on a timer: its pool, its runtime, and whether its database answers.

use crate::{
    metrics::{
        labels,
        probe::{self, Alone, Error, Probe, Scope},
    },
    storage::Database,
};
use futures::future::BoxFuture;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// The database, as a dependency.
const DATABASE: labels::Dependency = labels::Dependency { dependency: "database" };

/// Tells every `period`, until `stop`. Once for each process, however many services share it.
pub async fn run(database: Database, period: Duration, stop: CancellationToken) {
    probe::run(vec![Box::new(Pulse(database))], Alone, period, stop).await;
}

struct Pulse(Database);

impl Probe for Pulse {
    fn name(&self) -> &'static str {
        "process"
    }

    fn scope(&self) -> Scope {
        Scope::Process
    }

    fn sample(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async {
            let (metrics, pool) = (self.0.metrics(), self.0.pool());
            let (size, idle) = (i64::from(pool.size()), i64::try_from(pool.num_idle()).unwrap_or(i64::MAX));
            metrics.db_pool_connections_idle.set(idle.min(size), ());
            metrics.db_pool_connections_active.set((size - idle).max(0), ());
            let runtime = Handle::current().metrics();
            metrics.runtime_tasks_alive.set(whole(runtime.num_alive_tasks()), ());
            metrics.runtime_tasks_queued.set(whole(runtime.global_queue_depth()), ());
            metrics.runtime_threads.set(whole(runtime.num_workers()), ());
            metrics.health_dependency_up.set(i64::from(self.0.ping().await.is_ok()), DATABASE);
            Ok(())
        })
    }

    fn forget(&self) {
        let metrics = self.0.metrics();
        metrics.db_pool_connections_idle.clear();
        metrics.db_pool_connections_active.clear();
        metrics.runtime_tasks_alive.clear();
        metrics.runtime_tasks_queued.clear();
        metrics.runtime_threads.clear();
        metrics.health_dependency_up.remove(DATABASE);
    }
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
